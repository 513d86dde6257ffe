"""`obscura run` as a process of its own on the network dev, reached through its printed address and its commands."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from second_implementation.link import Stream

OBSCURA = Path(sys.executable).with_name("obscura")
START_S, COMMAND_S, STOP_S = 30, 30, 20
# A side that failed discards 64 KiB at most. More is offered: how far the kernel lets one side write ahead is its own matter.
PUSHES = 64


def key_text(public: bytes) -> str:
    return base64.b32encode(public).decode().lower().rstrip("=")


class NodeProcess:
    def __init__(self, folder: Path, *options: str) -> None:
        self.where = ("--network", "dev", "--data-dir", str(folder))
        command = [str(OBSCURA), "run", *self.where, "--listen", "127.0.0.1:0", "--json", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def __enter__(self) -> NodeProcess:
        try:
            assert self.process.stdout is not None
            ready, _, _ = select.select([self.process.stdout], [], [], START_S)
            assert ready, "the node did not start"
            (address,) = json.loads(self.process.stdout.readline())["addresses"]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        key, _, place = address.removeprefix("obscura://").partition("@")
        host, _, port = place.partition(":")
        self.public, self.endpoint = base64.b32decode(key.upper() + "===="), (host, int(port))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()

    def dial(self, piece: int = 1 << 20) -> Stream:
        return Stream(socket.create_connection(self.endpoint, COMMAND_S), piece)

    @contextlib.contextmanager
    def connecting(self, address: str) -> Iterator[None]:
        """`obscura connect`, which may wait for an answer that never comes."""
        command = [str(OBSCURA), *self.where, "connect", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(STOP_S)

    def ask(self, *arguments: str) -> Any:
        command = [str(OBSCURA), *self.where, *arguments, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=True).stdout)


def is_quiet(stream: Stream) -> bool:
    """Nothing has arrived."""
    return not stream.buffer and not select.select([stream.sock], [], [], 0)[0]


def exhaust(stream: Stream) -> bytes:
    """All that a side that failed still sends while it is given more and more to read, up to its close."""
    received, stream.buffer = stream.buffer, b""
    for push in range(PUSHES):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            stream.sock.sendall(os.urandom(4096))
        if select.select([stream.sock], [], [], 0.01 if push < PUSHES - 1 else COMMAND_S)[0]:
            try:
                data = stream.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return received
            received += data
    raise AssertionError("it does not close")
