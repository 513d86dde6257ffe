"""Carrier ssh beside the real OpenSSH: its client, ssh-keyscan, ssh-audit and nmap as visitors, its server as the one to equal.

apt install openssh-client openssh-server ssh-audit nmap. Fails without them: nothing is passed by.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from obscura.morph.carrier import Finished, Ready
from obscura.morph.ssh import SshClient
from obscura.morph.ssh_auth import key_request, none_request
from obscura.morph.ssh_kex import METHODS
from obscura.morph.ssh_names import CLIENT_PROPOSAL, IDENTIFICATION
from obscura.morph.ssh_packet import Broken, string
from obscura.morph.ssh_transport import Disconnected, Transport
from ssh_probes import PROBES

QUIET_S = 1.0  # of waiting for an answer that does not come
KEYS = ("ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519")


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Servers:
    """A node's ssh listener and an sshd that takes keys alone."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", str(folder / "node")]
        command += ["run", "--json", "--set", "max-outbound=0", "--listen", "127.0.0.1:0?carrier=ssh"]
        self.node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.node.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)\?carrier=ssh", self.node.stdout.readline())
        assert found
        self.ours = int(found[1])
        self.sshd = free_port()
        Path("/run/sshd").mkdir(exist_ok=True)
        for kind in ("rsa", "ecdsa", "ed25519"):
            made = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / kind)]
            subprocess.run(made, check=True)
        config = (
            f"Port {self.sshd}\nListenAddress 127.0.0.1\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        )
        config += "UsePAM yes\nPidFile none\n" + "".join(
            f"HostKey {folder / kind}\n" for kind in ("rsa", "ecdsa", "ed25519")
        )
        (folder / "sshd_config").write_text(config)
        self.daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config")])
        for port in (self.ours, self.sshd):
            for _ in range(100):
                with socket.socket() as attempt:
                    if attempt.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)

    def end(self) -> None:
        """Stop both."""
        for process in (self.node, self.daemon):
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Both, for all tests."""
    both = Servers(tmp_path_factory.mktemp("ssh"))
    yield both
    both.end()


def run(*command: str) -> str:
    """What it printed, both streams."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def ssh(port: int, *options: str) -> str:
    """The last line of an attempt to log in."""
    fixed = [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "BatchMode=yes",
        "LogLevel=ERROR",
        "IdentityFile=none",
    ]
    chosen = [part for option in [*fixed, *options] for part in ("-o", option)]
    return run("ssh", "-F", "none", *chosen, "-p", str(port), "git@127.0.0.1", "true").strip().splitlines()[-1]


DENIED = "git@127.0.0.1: Permission denied (publickey)."


@pytest.mark.parametrize("exchange", METHODS)
def test_openssh_ends_in_permission_denied_by_every_exchange_and_key(servers: Servers, exchange: str) -> None:
    for key in ("rsa-sha2-512", "rsa-sha2-256", *KEYS):
        assert ssh(servers.ours, f"KexAlgorithms={exchange}", f"HostKeyAlgorithms={key}") == DENIED


@pytest.mark.parametrize("cipher", CLIENT_PROPOSAL.encryption_up)
def test_openssh_ends_in_permission_denied_by_every_cipher(servers: Servers, cipher: str) -> None:
    for mac in CLIENT_PROPOSAL.macs_up if "ctr" in cipher else ["hmac-sha2-256"]:
        assert ssh(servers.ours, f"Ciphers={cipher}", f"MACs={mac}") == DENIED, mac


@pytest.mark.parametrize("mac", [name for name in CLIENT_PROPOSAL.macs_up if name.startswith("umac")])
def test_who_insists_on_umac_sees_what_sshd_shows(servers: Servers, mac: str) -> None:
    told = [ssh(port, "Ciphers=aes128-ctr", f"MACs={mac}") for port in (servers.ours, servers.sshd)]
    assert told == [DENIED, DENIED]


def test_who_asks_for_compression_is_denied_before_it_begins(servers: Servers) -> None:
    assert [ssh(port, "Compression=yes") for port in (servers.ours, servers.sshd)] == [DENIED, DENIED]


def test_openssh_with_a_key_of_its_own_is_denied(servers: Servers, tmp_path: Path) -> None:
    for kind, bits in (("rsa", "4096"), ("ed25519", "256")):
        run("ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", str(tmp_path / kind))
        assert ssh(servers.ours, f"IdentityFile={tmp_path / kind}") == DENIED


def test_keyscan_gets_the_host_keys(servers: Servers) -> None:
    lines = run("ssh-keyscan", "-t", "rsa,ecdsa,ed25519", "-p", str(servers.ours), "127.0.0.1").splitlines()
    assert sorted(line.split()[1] for line in lines if not line.startswith("#")) == sorted(KEYS)


def test_audit_reads_the_lists(servers: Servers) -> None:
    found = json.loads(run("ssh-audit", "-j", "-p", str(servers.ours), "127.0.0.1"))
    assert found["banner"]["raw"] == IDENTIFICATION.decode()
    assert [each["algorithm"] for each in found["kex"]] == list(METHODS)
    assert found["mac"] == CLIENT_PROPOSAL.macs_up
    theirs = json.loads(run("ssh-audit", "-j", "-p", str(servers.sshd), "127.0.0.1"))
    assert found["enc"] == theirs["enc"]
    assert found["mac"] == theirs["mac"]
    assert found["compression"] == theirs["compression"]


def test_nmap_names_the_release(servers: Servers) -> None:
    told = run("nmap", "-Pn", "-sV", "-p", str(servers.ours), "--script", "ssh-auth-methods", "127.0.0.1")
    assert "OpenSSH 8.4p1 Debian 5+deb11u1 (protocol 2.0)" in told
    assert "|_    publickey" in told


def ask(port: int, data: bytes, pause_s: float) -> tuple[bytes, str]:
    """What follows the identification and KEXINIT, and how the server ends it. ``pause_s``: between identification and data."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(10)
        got, end = sock.recv(65_536), "open"
        sock.settimeout(QUIET_S)
        time.sleep(pause_s)
        sock.sendall(data)
        try:
            while piece := sock.recv(65_536):
                got += piece
            end = "closed"
        except TimeoutError:
            pass
        except ConnectionResetError:
            end = "reset"
    said = got.partition(b"\r\n")[2]
    if said[5:6] == b"\x14":
        said = said[4 + int.from_bytes(said[:4], "big") :]
    return said, end


@pytest.mark.parametrize("data", [row[1] for row in PROBES], ids=[row[0] for row in PROBES])
def test_strangers_in_the_clear_get_what_sshd_says(servers: Servers, data: bytes) -> None:
    """After 0.1 s the system acknowledges at once, so that all of a complaint arrives; without a pause it does not, and a reset
    overtakes the end of the line, as on any network with a round-trip time.
    """
    for pause_s in (0.1, 0.0):
        assert ask(servers.ours, data, pause_s) == ask(servers.sshd, data, pause_s)


def converse(port: int, messages: list[bytes]) -> tuple[list[bytes], str]:
    """Send one message after each that comes, under keys; the payloads that came, and the end."""
    transport, got, end = Transport(random.Random(1)), [], "open"
    waiting = [b"\5" + string("ssh-userauth"), *messages]
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(QUIET_S)
        transport.start()
        try:
            while True:
                sock.sendall(b"".join(transport.out))
                transport.out.clear()
                piece = sock.recv(65_536)
                if not piece:
                    return got, "closed"
                transport.reader.feed(piece)
                while (payload := transport.next(0.0)) is not None:
                    got.append(bytes(payload))
                    if waiting:
                        transport.send(waiting.pop(0))
        except Disconnected:
            end = "disconnected"
        except Broken:
            end = "broken"
        except TimeoutError:
            pass
        except ConnectionResetError:
            end = "reset"
    return got, end


def user(name: str, method: str, rest: bytes = b"") -> bytes:
    """A request to authenticate."""
    return b"\x32" + string(name) + string("ssh-connection") + string(method) + rest


FLIGHT = key_request("git", random.Random(1).randbytes(512), random.Random(2))
DIALOGUES = {
    "none": [none_request("git")],
    "none seven times": [none_request("git")] * 8,
    "a flight of nobody, again and again": [none_request("git"), *[FLIGHT] * 7],
    "a password": [user("git", "password", b"\0" + string("x"))] * 3,
    "another user": [none_request("git"), none_request("root")],
    "a NUL": [none_request("a\0b")],
    "more than none": [none_request("git") + b"x"],
    "more than a signature": [FLIGHT + b"x"],
    "half": [b"\x32" + string("git")],
    "no name": [none_request("")],
    "another service": [b"\5" + string("ssh-connection")],
    "a channel": [b"\x5a" + string("session") + bytes(12)],
    "data": [b"\x5e" + bytes(8)],
    "success": [b"\x34"],
    "message 200": [b"\xc8"],
    "keys": [b"\x15"],
    "a step of an exchange": [b"\x1e" + bytes(4)],
}


@pytest.mark.parametrize("messages", DIALOGUES.values(), ids=DIALOGUES)
def test_strangers_with_keys_get_what_sshd_says(servers: Servers, messages: list[bytes]) -> None:
    assert converse(servers.ours, messages) == converse(servers.sshd, messages)


def test_our_client_completes_its_opening_with_sshd_and_is_denied(servers: Servers) -> None:
    client = SshClient(random.Random(1))
    client.start(0.0)
    kinds: list[type] = []
    with socket.create_connection(("127.0.0.1", servers.sshd)) as sock:
        sock.settimeout(10)
        while Finished not in kinds:
            sock.sendall(b"".join(client.take()))
            events = client.receive(sock.recv(65_536), 0.0)
            events += client.due(0.0) if client.deadline() <= 0.0 else []
            for event in events:
                kinds.append(type(event))
                if isinstance(event, Ready):
                    client.send_flight(random.Random(3).randbytes(512), 0.0)
    assert kinds == [Ready, Finished]


def test_many_at_once_are_all_denied(servers: Servers) -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(ssh(servers.ours))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DENIED] * 12
