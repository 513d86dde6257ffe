"""Several covers at one port, told apart by what the client says first (design 8, *auto*), as sslh does it.

A client that says nothing for two seconds expects the server to speak first, which only SSH does. No stock server answers in two
ways, nor waits so: who tries recognises it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from obscura.limits import AUTO_S
from obscura.morph.carrier import Carrier, CarrierEvent, CarrierFactory
from obscura.wire.address import CarrierNumber

COVERS: Final = (CarrierNumber.HTTP, CarrierNumber.TLS, CarrierNumber.SSH, CarrierNumber.DNS)
_SSH: Final = b"SSH-"
_LEAST_TEXT: Final = 0x20  # below it are the lengths of name queries, above 0x7F old and new TLS


def recognised(said: bytes) -> CarrierNumber | None:
    """Whose first bytes these are, at least one; None: more is needed."""
    first = said[0]
    if first == 0x16 or first >= 0x80:
        return CarrierNumber.TLS
    if first < _LEAST_TEXT and first not in b"\r\n":
        return CarrierNumber.DNS
    if said[: len(_SSH)] == _SSH[: len(said)]:
        return CarrierNumber.SSH if len(said) >= len(_SSH) else None
    return CarrierNumber.HTTP


class AutoServer(Carrier):
    """One connection whose cover is not known yet; all that comes then is the chosen one's."""

    def __init__(self, rng: random.Random, kinds: Mapping[CarrierNumber, CarrierFactory]) -> None:
        """``kinds``: the covers of this port, one at least. What is none of theirs is the first one's in ``COVERS``' order."""
        self._rng = rng
        self._kinds = kinds
        self._rest = next(kinds[number] for number in COVERS if number in kinds)
        self._inner: Carrier | None = None
        self._said = bytearray()
        self._began = 0.0

    @property
    def NUMBER(self) -> CarrierNumber:  # type: ignore[override]
        """The chosen carrier's."""
        return next(iter(self._kinds)) if self._inner is None else self._inner.NUMBER

    def start(self, now: float) -> list[CarrierEvent]:
        self._began = now
        return []

    def _choose(self, number: CarrierNumber | None, now: float) -> list[CarrierEvent]:
        make = self._rest if number is None else self._kinds.get(number, self._rest)
        self._inner = make(self._rng)
        self._inner.own_host = self.own_host
        events = self._inner.start(self._began)
        said = bytes(self._said)
        self._said.clear()
        return events + self._inner.receive(said, now) if said else events

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._inner is not None:
            return self._inner.receive(data, now)
        self._said += data
        number = recognised(bytes(self._said[: len(_SSH)])) if self._said else None
        return [] if number is None else self._choose(number, now)

    def send_flight(self, flight: bytes, now: float) -> None:
        if self._inner is not None:
            self._inner.send_flight(flight, now)

    def send(self, data: bytes, now: float) -> None:
        if self._inner is not None:
            self._inner.send(data, now)

    def take(self) -> list[bytes]:
        return [] if self._inner is None else self._inner.take()

    def refuse(self, now: float) -> None:
        self._either(now).refuse(now)

    def end(self, now: float) -> list[CarrierEvent]:
        return self._either(now).end(now)

    def eof(self, now: float) -> list[CarrierEvent]:
        return self._either(now).eof(now)

    def _either(self, now: float) -> Carrier:
        if self._inner is None:
            self._choose(None, now)
        assert self._inner is not None
        return self._inner

    def deadline(self) -> float:
        return self._began + AUTO_S if self._inner is None else self._inner.deadline()

    def due(self, now: float) -> list[CarrierEvent]:
        if self._inner is not None:
            return self._inner.due(now)
        if now < self._began + AUTO_S:
            return []
        return self._choose(None if self._said else CarrierNumber.SSH, now)

    @property
    def is_full(self) -> bool:
        return self._inner is not None and self._inner.is_full

    @property
    def is_blocked(self) -> bool:
        return self._inner is not None and self._inner.is_blocked

    @property
    def is_busy(self) -> bool:
        return self._inner is not None and self._inner.is_busy
