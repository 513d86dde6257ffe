"""The smallest client there is: the plaintext protocol without the library, to see how little a second implementation needs.

Run it: python examples/plain_client.py [HOST PORT]; alone it starts a node. Such links exist on loopback, where told to:
`obscura --network dev run --allow-plaintext --listen '127.0.0.1:19799?carrier=bare'`.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from struct import error, pack, unpack


def frame(name: str, payload: bytes = b"") -> bytes:
    return pack("<I12s4s", len(payload), name.encode(), sha256(sha256(payload).digest()).digest()) + payload


def receive(link: socket.socket) -> tuple[str, bytes]:
    size, name, checksum = unpack("<I12s4s", link.recv(20, socket.MSG_WAITALL))
    payload = link.recv(size, socket.MSG_WAITALL) if size else b""
    assert sha256(sha256(payload).digest()).digest()[:4] == checksum
    return name.rstrip(b"\0").decode(), payload


def talk(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=20) as link:
        # 0x03: transactions, privacy.
        version = pack("<IQIIH7s40x", 1, int(time.time()), 0x03, 0, 7, b"plain/1") + os.urandom(8)
        link.sendall(frame("version", version))
        while (got := receive(link))[0] != "verack":
            if got[0] == "version":
                print(f"version: features {unpack('<I', got[1][12:16])[0]:#x}")
                link.sendall(frame("verack"))
        link.sendall(frame("ping", pack("<Q", 7)) + frame("getheaders", pack("<IB", 1, 0) + bytes(32)))
        wanted = {"pong", "headers"}
        while wanted:
            name, payload = receive(link)
            if name in wanted:
                print(name, unpack("<Q", payload)[0] if name == "pong" else f"of {payload[0]} blocks")
            wanted.discard(name)


if len(sys.argv) == 3 and sys.argv[2].isdecimal():
    try:
        talk(sys.argv[1], int(sys.argv[2]))
    except (OSError, error) as fault:
        sys.exit(f"no plaintext link there: {fault}")
elif len(sys.argv) > 1:
    sys.exit("give HOST PORT of a node that takes plaintext, or nothing")
else:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", folder, "run"]
        command += ["--allow-plaintext", "--listen", "127.0.0.1:0?carrier=bare"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
            try:
                talk("127.0.0.1", int(node.stdout.readline().split("?")[0].rsplit(":", 1)[1]))  # type: ignore[union-attr]
            finally:
                node.terminate()
