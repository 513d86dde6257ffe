"""Other people's tunnels on this machine, as the carriers' peers: obfs4proxy, stunnel and ``ssh -L`` of the distribution.

Each takes connections at a port of loopback, carries the bytes through its own protocol and gives them to another port.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.process import ProcessFailed

UP_S = 15.0  # seconds in which a tunnel has to be up


class NotInstalled(ProcessFailed):
    """The distribution's package is not here; the text says which."""


class Way:
    """How a sender reaches the tunnel: the port, and what it says first (a SOCKS5 conversation: (bytes, length of answer))."""

    def __init__(self, port: int, says: tuple[tuple[bytes, int], ...] = ()) -> None:
        self.port = port
        self.says = says


@contextmanager
def raw(target: int) -> Iterator[Way]:
    """No tunnel."""
    yield Way(target)


@contextmanager
def stunnel(target: int) -> Iterator[Way]:
    """TLS 1.3 between two stunnels."""
    program = _program("stunnel4", "stunnel4")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        certificate = folder / "both.pem"
        made = [*_OPENSSL, "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
        _run(made)
        certificate.write_bytes((folder / "key").read_bytes() + (folder / "crt").read_bytes())
        middle, near = free_port(), free_port()
        for name, text in (
            ("server", f"cert = {certificate}\n[s]\naccept = 127.0.0.1:{middle}\nconnect = 127.0.0.1:{target}\n"),
            ("client", f"client = yes\n[c]\naccept = 127.0.0.1:{near}\nconnect = 127.0.0.1:{middle}\n"),
        ):
            path = folder / name
            path.write_text(f"foreground = yes\npid =\ndebug = 3\n{text}")
            stack.enter_context(_process([program, str(path)]))
        await_port(middle)
        await_port(near)
        yield Way(near)


@contextmanager
def ssh(target: int) -> Iterator[Way]:
    """``ssh -L`` to an sshd of our own, with OpenSSH's own choice of cipher."""
    sshd, client, keygen = (_program(name, "openssh") for name in ("sshd", "ssh", "ssh-keygen"))
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        for name in ("host", "user"):
            _run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        shutil.copy(folder / "user.pub", folder / "keys")
        middle, near = free_port(), free_port()
        Path("/run/sshd").mkdir(exist_ok=True)
        (folder / "sshd").write_text(
            f"Port {middle}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder / 'keys'}\nStrictModes no\nPermitRootLogin yes\n"
        )
        stack.enter_context(_process([sshd, "-D", "-e", "-f", str(folder / "sshd")]))
        await_port(middle)
        options = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={folder / 'known'}", "ExitOnForwardFailure=yes")
        argv = [client, "-F", "none", "-N", "-i", str(folder / "user"), "-p", str(middle)]
        argv += [word for option in options for word in ("-o", option)]
        stack.enter_context(_process([*argv, "-L", f"127.0.0.1:{near}:127.0.0.1:{target}", "127.0.0.1"]))
        await_port(near)
        yield Way(near)


@contextmanager
def obfs4(target: int) -> Iterator[Way]:
    """obfs4proxy at both ends, as Tor starts it; iat-mode 0."""
    program = _program("obfs4proxy", "obfs4proxy")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        base = {**os.environ, "TOR_PT_MANAGED_TRANSPORT_VER": "1", "TOR_PT_EXIT_ON_STDIN_CLOSE": "1"}
        listens = {
            "TOR_PT_STATE_LOCATION": str(folder / "server"),
            "TOR_PT_SERVER_TRANSPORTS": "obfs4",
            "TOR_PT_SERVER_BINDADDR": "obfs4-127.0.0.1:0",
            "TOR_PT_ORPORT": f"127.0.0.1:{target}",
        }
        dials = {"TOR_PT_STATE_LOCATION": str(folder / "client"), "TOR_PT_CLIENT_TRANSPORTS": "obfs4"}
        server = _said(stack.enter_context(_process([program], base | listens)), b"SMETHOD obfs4")
        host, _, port = server.split()[2].decode().rpartition(":")
        arguments = server.partition(b"ARGS:")[2].strip().replace(b",", b";")
        client = _said(stack.enter_context(_process([program], base | dials)), b"CMETHOD obfs4")
        near = int(client.split()[3].rpartition(b":")[2])
        user, password = arguments[:255], arguments[255:] or b"\0"
        login = bytes((1, len(user))) + user + bytes((len(password),)) + password
        request = b"\5\1\0\1" + socket.inet_aton(host) + int(port).to_bytes(2, "big")
        yield Way(near, ((b"\5\1\2", 2), (login, 2), (request, 10)))


_OPENSSL = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-days", "2")


def _program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise NotInstalled(f"{name} is not installed (package {package})")
    return found


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="obscura-bench-") as name:
        yield Path(name)


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    if done.returncode:
        raise ProcessFailed(f"{argv[0]}: {done.stderr[-300:]!r}")


@contextmanager
def _process(argv: list[str], env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def _said(process: subprocess.Popen[bytes], beginning: bytes) -> bytes:
    """The line of a pluggable transport that begins so."""
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith(beginning):
            return text
        if b"ERROR" in text:
            break
    raise ProcessFailed(f"{process.args!r} did not say {beginning!r}")


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def await_port(port: int) -> None:
    """Until something listens."""
    until = time.monotonic() + UP_S
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise ProcessFailed(f"nothing listens at port {port} after {UP_S:.0f} s")
