"""``python -m bench.sockets_worker receive | send PORT [HEX LENGTH]...``: bytes through a blocking socket, as fast as may be.

The hexadecimal words are said first, each answered by so many bytes (SOCKS5). For tunnels that end in a plain port.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.process import LIFE_S

READ = 1 << 20  # bytes
RECORD = 64 << 10  # bytes that small messages are joined to, as those of the carriers that stand beside it


def say(**fields: Any) -> None:
    """One line of answer."""
    print(json.dumps(fields), flush=True)


def commands() -> Iterator[dict[str, Any]]:
    """What the parent says."""
    for text in sys.stdin:
        yield json.loads(text)


def receive() -> None:
    """Accept connections; for each ``expect`` tell when so many messages have arrived on the latest."""
    buffer = bytearray(READ)
    with socket.create_server(("127.0.0.1", 0)) as server:
        say(port=server.getsockname()[1])
        link = None
        for command in commands():
            left = command["expect"] * command["size"]
            say(ready=True)
            while link is None:  # whoever tried the port and said nothing is not the sender
                link, _ = server.accept()
                got = link.recv_into(buffer)
                left -= got
                link = link if got else None
            while left > 0:
                left -= link.recv_into(buffer) or left
            say(end=time.monotonic())


def calls(count: int, size: int) -> Iterator[bytes]:
    """What each call says of so many messages: one, or small ones together, else calls would be all that is measured."""
    message = bytes(i % 251 for i in range(size))
    at_once = -(-RECORD // size) if size < 1_000 else 1
    joined = message * at_once
    for _ in range(count // at_once):
        yield joined
    if rest := count % at_once:
        yield message * rest


def send(port: int, words: list[str]) -> None:
    """Connect; for each ``send`` send so many messages."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for word, length in zip(words[::2], words[1::2], strict=True):
            link.sendall(bytes.fromhex(word))
            if len(answer := link.recv(int(length), socket.MSG_WAITALL)) < int(length) or answer[1] not in (0, 2):
                raise AssertionError(f"the proxy said {answer!r}")
        say(connected=True)
        for command in commands():
            said = calls(command["send"], command["size"])
            start = time.monotonic()
            for piece in said:
                link.sendall(piece)
            say(start=start)


if __name__ == "__main__":
    signal.alarm(LIFE_S)
    if sys.argv[1] == "receive":
        receive()
    else:
        send(int(sys.argv[2]), sys.argv[3:])
