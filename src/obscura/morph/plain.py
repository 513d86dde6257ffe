"""Carrier ``plain``: the channel's own bytes. Loopback, onion services and I2P only (design 8)."""

from __future__ import annotations

import random
from math import inf

from obscura.limits import DISCARD_BYTES, DISCARD_S, MAX_FLIGHT, MIN_FLIGHT
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Ready, coalesced
from obscura.wire.address import CarrierNumber


class Plain(Carrier):
    """Either role. After ``refuse`` it reads and discards for a random time or number of bytes, then closes, saying nothing."""

    NUMBER = CarrierNumber.PLAIN
    STREAMED = True

    __slots__ = ("_chunk", "_client", "_discard_bytes", "_discard_until", "_out", "_rng")

    def __init__(self, rng: random.Random, *, client: bool) -> None:
        self._rng = rng
        self._client = client
        self._out: list[bytes] = []
        self._discard_until = inf
        self._discard_bytes = 0
        self._chunk = 0  # bytes of the latest piece

    def start(self, now: float) -> list[CarrierEvent]:
        return [Ready(b"", (MIN_FLIGHT, MAX_FLIGHT))] if self._client else []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._discard_until == inf:
            self._chunk = len(data)
            return [Data(data)]
        self._discard_bytes -= len(data)
        return [Finished()] if self._discard_bytes <= 0 else []

    def send_flight(self, flight: bytes, now: float) -> None:
        self.send(flight, now)

    def send(self, data: bytes, now: float) -> None:
        if data and self._discard_until == inf:
            self._out.append(data)

    def take(self) -> list[bytes]:
        out, self._out = self._out, []
        return coalesced(out)

    def refuse(self, now: float) -> None:
        if self._discard_until == inf:
            self._discard_until = now + self._rng.uniform(*DISCARD_S)
            # What came in one piece with the fault counts, else the budget would depend on how the bytes were cut.
            self._discard_bytes = self._rng.randint(*DISCARD_BYTES) - self._chunk
            if self._discard_bytes <= 0:
                self._discard_until = now

    def end(self, now: float) -> list[CarrierEvent]:
        return [Finished()]

    def eof(self, now: float) -> list[CarrierEvent]:
        return [Finished()]

    def deadline(self) -> float:
        return self._discard_until

    def due(self, now: float) -> list[CarrierEvent]:
        return [Finished()] if now >= self._discard_until else []
