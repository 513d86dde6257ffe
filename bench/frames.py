"""frames_64, frames_1k, frames_64k: frames read from a socket, parsed, verified and made messages, on one core.

Beside it: the same bytes read from the socket, and the two SHA-256 of each payload, with nothing around them. CPU time of the
process, so that neighbours count as little as possible.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import cycle, islice
from time import process_time

from bench.harness import Figure, Pair
from obscura.limits import READ_CHUNK
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.frame import FrameDecoder, encode_frame
from obscura.wire.messages.transactions import Tx

STREAM_BYTES = 8 << 20  # of distinct frames, read again and again
RUN_S = 0.4  # CPU seconds of one run

Use = Callable[[memoryview], int]  # what came of the socket in; frames completed out


def payloads(size: int) -> list[bytes]:
    """Distinct payloads of ``size`` bytes, ``STREAM_BYTES`` in all."""
    filler = bytes(i % 251 for i in range(size - 8))
    return [number.to_bytes(8, "little") + filler for number in range(STREAM_BYTES // size)]


class Pipe:
    """A socket pair in one process; only the reading side is timed."""

    def __init__(self, stream: bytes) -> None:
        self._stream = memoryview(stream)
        self._at = 0
        self._near, self._far = socket.socketpair()
        self._far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, READ_CHUNK)
        self._far.setblocking(False)
        self._buffer = memoryview(bytearray(READ_CHUNK))

    def rate(self, use: Use) -> float:
        """Frames per CPU second of reading and ``use``."""
        spent, frames = 0.0, 0
        while spent < RUN_S:
            if self._at == len(self._stream):
                self._at = 0
            self._at += self._far.send(self._stream[self._at : self._at + READ_CHUNK])
            start = process_time()
            arrived = self._near.recv_into(self._buffer)
            frames += use(self._buffer[:arrived])
            spent += process_time() - start
        return frames / spent

    def close(self) -> None:
        self._near.close()
        self._far.close()


def parsing() -> Use:
    """The product: typed messages out of bytes."""
    decoder = FrameDecoder(CATALOGUE.established)

    def use(data: memoryview) -> int:
        frames = 0
        for item in decoder.receive(data):
            frames += type(item) is Tx
        return frames

    return use


def hashing(bodies: list[bytes], frame_bytes: int) -> Use:
    """The calibration: as many double hashes as frames arrived."""
    arrived = 0
    endless = cycle(bodies)

    def use(data: memoryview) -> int:
        nonlocal arrived
        arrived += len(data)
        frames, arrived = divmod(arrived, frame_bytes)
        for body in islice(endless, frames):
            sha256(sha256(body).digest()).digest()
        return frames

    return use


@contextmanager
def prepared(size: int, per_frame: float) -> Iterator[Pair]:
    """``per_frame`` turns frames per second into the figure's unit."""
    bodies = payloads(size)
    frames = [encode_frame(Tx(body)) for body in bodies]
    stream = b"".join(frames)
    mine, theirs = Pipe(stream), Pipe(stream)
    parse, digest = parsing(), hashing(bodies, len(frames[0]))
    try:
        yield Pair(lambda: mine.rate(parse) * per_frame, lambda: theirs.rate(digest) * per_frame)
    finally:
        mine.close()
        theirs.close()


def figure(name: str, size: int, unit: str, goal: float, goal_ratio: float, per_frame: float) -> Figure:
    """One payload size."""
    return Figure(
        name,
        unit,
        goal,
        goal_ratio,
        "recv and bare double SHA-256 of the same payloads, one core",
        unit,
        lambda: prepared(size, per_frame),
    )


FIGURES = (
    figure("frames_64", 64, "messages/s", 450_000, 0.56, 1.0),
    figure("frames_1k", 1 << 10, "messages/s", 300_000, 0.49, 1.0),
    figure("frames_64k", 64 << 10, "MB/s", 850, 0.63, (64 << 10) / 1e6),
)
