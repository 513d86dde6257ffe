"""A path with a delay: passes connections on, each piece some milliseconds later, in order. A process of its own.

python -m obscura.lab.field.relay DELAY-MS SPREAD-MS HOST:PORT=HOST:PORT ...
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from typing import cast

_HIGH_WATER = 1 << 20  # bytes on the way one way before reading stops
_APART_S = 1e-6  # the loop keeps no order among timers of the same time


class _Half(asyncio.Protocol):
    """One end of a connection through the relay."""

    def __init__(self, delay_s: float, spread_s: float) -> None:
        self._delay_s = delay_s
        self._spread_s = spread_s
        self._rng = random.Random()
        self._last = 0.0
        self._under_way = 0
        self.other: _Half | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
            return
        self._under_way += len(data)
        if self._under_way > _HIGH_WATER and self.transport is not None:
            self.transport.pause_reading()
        self._later(self._pass, data)

    def eof_received(self) -> bool:
        self._later(self._end, True)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._later(self._end, False)

    def _later(self, what: object, argument: object) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + self._delay_s + self._rng.uniform(-self._spread_s, self._spread_s)
        self._last = max(self._last + _APART_S, when)
        loop.call_at(self._last, what, argument)  # type: ignore[arg-type]

    def _pass(self, data: bytes) -> None:
        self._under_way -= len(data)
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)
        if self._under_way < _HIGH_WATER // 2 and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _end(self, half: bool) -> None:
        transport = self.other.transport if self.other is not None else None
        if transport is None or transport.is_closing():
            return
        if half and transport.can_write_eof():
            with contextlib.suppress(OSError):
                transport.write_eof()
        else:
            transport.close()


async def serve(delay_s: float, spread_s: float, pairs: list[tuple[str, str]]) -> None:
    """Listen at the first of each pair, dial the second; until cancelled."""
    loop = asyncio.get_running_loop()

    def accept(target: str) -> _Half:
        near, far = _Half(delay_s, spread_s), _Half(delay_s, spread_s)
        host, _, port = target.rpartition(":")

        async def dial() -> None:
            await asyncio.sleep(delay_s)
            try:
                await loop.create_connection(lambda: far, host, int(port))
            except OSError:
                if near.transport is not None:
                    near.transport.abort()
                return
            near.other, far.other = far, near
            for piece in (near, far):
                early, piece.early = piece.early, []
                for data in early:
                    piece.data_received(data)

        dialling.add(task := loop.create_task(dial()))
        task.add_done_callback(dialling.discard)
        return near

    dialling: set[asyncio.Task[None]] = set()
    for listen, target in pairs:
        host, _, port = listen.rpartition(":")
        await loop.create_server(lambda target=target: accept(target), host, int(port), backlog=512)  # type: ignore[misc]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    delay, spread = (float(word) / 1_000 for word in sys.argv[1:3])
    places = [(text.partition("=")[0], text.partition("=")[2]) for text in sys.argv[3:]]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(delay, spread, places))
