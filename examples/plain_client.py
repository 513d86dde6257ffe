"""The smallest client there is: the plaintext protocol without the library, to see how little a second implementation needs.

Run it: python examples/plain_client.py [HOST PORT]
Without arguments it starts a node of its own. Frames without a channel exist on loopback alone, where a node was told to accept
them: `obscura --network dev run --allow-plaintext --listen '127.0.0.1:19799?carrier=bare'`.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from struct import pack, unpack


def frame(name: str, payload: bytes = b"") -> bytes:
    checksum = sha256(sha256(payload).digest()).digest()[:4]
    return pack("<I12s4s", len(payload), name.encode(), checksum) + payload


def receive(link: socket.socket) -> tuple[str, bytes]:
    size, name, checksum = unpack("<I12s4s", link.recv(20, socket.MSG_WAITALL))
    payload = link.recv(size, socket.MSG_WAITALL) if size else b""
    assert sha256(sha256(payload).digest()).digest()[:4] == checksum
    return name.rstrip(b"\0").decode(), payload


def talk(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=20) as link:
        agent = b"plain/1"  # 0x03: the features BasicTransactions and PrivacyFeatures
        version = pack("<IQIIH", 1, int(time.time()), 0x03, 0, len(agent)) + agent + bytes(40) + os.urandom(8)
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
    talk(sys.argv[1], int(sys.argv[2]))
elif len(sys.argv) > 1:
    sys.exit("give HOST PORT of a node that takes plaintext, or nothing")
else:
    with tempfile.TemporaryDirectory() as folder:
        obscura = [sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", folder]
        listen = ["--allow-plaintext", "--listen", "127.0.0.1:0?carrier=bare"]
        with subprocess.Popen([*obscura, "run", *listen], stdout=subprocess.PIPE, text=True) as node:
            try:
                talk("127.0.0.1", int(node.stdout.readline().split("?")[0].rsplit(":", 1)[1]))  # type: ignore[union-attr]
            finally:
                node.terminate()
