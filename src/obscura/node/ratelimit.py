"""Token buckets: what a peer may cost per second, and how much at once (specification, *DoS Protection*)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, TypeVar

import msgspec

from obscura.limits import (
    DEFERRED_BYTES,
    DEFERRED_MESSAGES,
    HEADER_BYTES,
    ITEMS_SPREAD,
    RATES,
    UNKNOWN_KIND,
)
from obscura.wire.catalogue import Catalogue
from obscura.wire.frame import Unknown
from obscura.wire.message import RawMessage
from obscura.wire.messages.blocks import BlockTxn, CmpctBlock, Headers, Inventory
from obscura.wire.messages.network import Addr

_GRAIN_S = (
    1e-6  # added to every wait: rounding must not make it too short, else a virtual clock would stand still at it
)


class TokenBucket:
    """``rate`` tokens per second, at most ``burst`` saved up. Starts full, or with ``tokens``.

    >>> bucket = TokenBucket(rate=1.0, burst=2.0, now=0.0)
    >>> [bucket.take(1.0, now=0.0) for _ in range(3)], bucket.take(1.0, now=1.0)
    ([True, True, False], True)
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float, tokens: float | None = None) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst if tokens is None else tokens
        self._at = now

    def take(self, cost: float, now: float) -> bool:
        """Whether ``cost`` tokens were there; they are gone then."""
        self._fill(now)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def take_some(self, wanted: int, now: float) -> int:
        """As many of ``wanted`` whole tokens as there are; they are gone then."""
        self._fill(now)
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken

    def give(self, tokens: float, now: float) -> None:
        """Add tokens, up to the burst."""
        self._fill(now)
        self._tokens = min(self._burst, self._tokens + tokens)

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` tokens are there, if nothing else takes any."""
        self._fill(now)
        lacking = cost - self._tokens
        return lacking / self._rate + _GRAIN_S if lacking > 0 else 0.0

    def is_full(self, now: float) -> bool:
        """Whether nothing was taken lately, so that a fresh bucket would be the same."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now


class Rate(msgspec.Struct, frozen=True):
    """One row of the table ``limits.RATES``: per second and at once, of messages and of their bytes."""

    messages_per_s: float
    messages: float
    bytes_per_s: float
    bytes: float
    size_of: Callable[[Any], int] | None  # None = too small to count
    spread: int = 1  # bytes of memory for each on the wire


Rates = Mapping[type[object], Rate]


def rates_of(catalogue: Catalogue, factor: float = 1.0) -> Rates:
    """The rows of the table by message class, all multiplied by ``factor``.

    Kinds that are not in the table (messages of an application, and Malformed, which costs points) have no rate.
    """
    classes: dict[str, type[object]] = {cls.TYPE: cls for cls in catalogue}
    classes[UNKNOWN_KIND] = Unknown
    return {
        classes[kind]: Rate(
            factor * a,
            max(1.0, factor * b),
            factor * c,
            factor * d,
            _size_law(classes[kind]),
            ITEMS_SPREAD if issubclass(classes[kind], Inventory | Addr) else 1,
        )
        for kind, (a, b, c, d) in RATES.items()
    }


def _size_law(kind: type[object]) -> Callable[[Any], int] | None:
    if issubclass(kind, RawMessage):
        return lambda message: HEADER_BYTES + len(message.raw)
    if issubclass(kind, Inventory):
        return lambda message: HEADER_BYTES + 36 * len(message.items)
    if issubclass(kind, Addr):
        return lambda message: HEADER_BYTES + 64 * len(message.entries)
    if issubclass(kind, Headers):
        return lambda message: HEADER_BYTES + 81 * len(message.headers)
    if issubclass(kind, CmpctBlock):
        return lambda message: HEADER_BYTES + 6 * len(message.short_ids) + len(message.prefilled)
    if issubclass(kind, BlockTxn):
        return lambda message: HEADER_BYTES + len(message.transactions)
    return (lambda message: int(message.size)) if issubclass(kind, Unknown) else None


class _Allowance:
    """The two buckets of one kind, and what waits for them."""

    __slots__ = ("_bytes", "_messages", "rate", "waiting")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._messages = TokenBucket(rate.messages_per_s, rate.messages, now)
        self._bytes = TokenBucket(rate.bytes_per_s, rate.bytes, now) if rate.size_of is not None else None
        self.waiting: list[Any] = []  # at most ``DEFERRED_MESSAGES``

    def take(self, count: int, size: int, now: float) -> bool:
        if count == 1:
            size = min(size, int(self.rate.bytes))  # what is larger than the burst goes when the bucket is full
        if self._bytes is not None and self._bytes.wait_s(size, now) > 0:
            return False
        if not self._messages.take(count, now):
            return False
        if self._bytes is not None:
            self._bytes.take(size, now)
        return True

    def wait_s(self, now: float) -> float:
        """Until the first that waits may go."""
        size = 0 if self.rate.size_of is None else min(self.rate.size_of(self.waiting[0]), int(self.rate.bytes))
        more = 0.0 if self._bytes is None else self._bytes.wait_s(size, now)
        return max(self._messages.wait_s(1, now), more)


Item = TypeVar("Item")


class Meter:
    """What one peer sent, against the table. Soft limit: served later, in order of its kind. Hard limit: dropped, and told."""

    __slots__ = ("_allowances", "_count", "_rates", "held", "late")

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._allowances: dict[type[object], _Allowance] = {}
        self._count = 0
        self.held = 0  # bytes that wait here
        self.late = 0  # messages that had to wait, ever

    def admit(self, events: list[Item], now: float) -> tuple[list[Item], int]:
        """What of one chunk's events may be served now, and how many were dropped as over the hard limit.

        Asked once per chunk: within the limits it costs about 0.05 us per event.
        """
        over = None
        for kind, count in Counter(map(type, events)).items():
            rate = self._rates.get(kind)
            if rate is None:
                continue
            allowance = self._allowances.get(kind)
            if allowance is None:
                allowance = self._allowances[kind] = _Allowance(rate, now)
            size_of = rate.size_of
            size = 0 if size_of is None else sum(size_of(event) for event in events if type(event) is kind)
            if allowance.waiting or not allowance.take(count, size, now):
                over = over or set()
                over.add(kind)
        return (events, 0) if over is None else self._sort(events, over, now)

    def _sort(self, events: Sequence[Item], over: set[type], now: float) -> tuple[list[Item], int]:
        served, dropped = [], 0
        for event in events:
            kind = type(event)
            if kind not in over:
                served.append(event)
                continue
            allowance = self._allowances[kind]
            size_of = allowance.rate.size_of
            size = HEADER_BYTES if size_of is None else size_of(event)
            memory = size * allowance.rate.spread
            if not allowance.waiting and allowance.take(1, size, now):
                served.append(event)
            elif self._count < DEFERRED_MESSAGES and (not self._count or self.held + memory <= DEFERRED_BYTES):
                allowance.waiting.append(event)
                self._count += 1
                self.late += 1
                self.held += memory
            else:
                dropped += 1
        return served, dropped

    def ready(self, now: float) -> list[Any]:
        """What waited and may be served now."""
        events: list[Any] = []
        for allowance in self._allowances.values():
            size_of, waiting = allowance.rate.size_of, allowance.waiting
            while waiting:
                size = HEADER_BYTES if size_of is None else size_of(waiting[0])
                if not allowance.take(1, size, now):
                    break
                events.append(waiting.pop(0))
                self._count -= 1
                self.held -= size * allowance.rate.spread
        return events

    @property
    def is_behind(self) -> bool:
        """Whether something waits: nothing more is read from such a peer."""
        return self._count > 0

    def deadline(self, now: float) -> float:
        """When ``ready`` has something; ``inf`` = nothing waits."""
        if not self._count:
            return inf
        return now + min((a.wait_s(now) for a in self._allowances.values() if a.waiting), default=inf)


def most_at_once(kind: str, rates: Iterable[tuple[str, tuple[float, float, float, float]]] = RATES.items()) -> int:
    """Messages of a kind that a peer can send in one instant before one is dropped: the burst and what waits."""
    return int(dict(rates)[kind][1]) + DEFERRED_MESSAGES
