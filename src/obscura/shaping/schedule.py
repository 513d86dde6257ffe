"""When what waits may leave: one schedule per direction of a link (specification, *Timing Jitter*, *Traffic Pattern
Obfuscation*, *Dummy Messages*; design 7).

The connection asks ``allowance`` at every flush and calls again at ``deadline``; chance and time are parameters, so that the
simulator runs the same. Whatever is sent leaves in the order in which it was queued: who may not wait takes along those that do.
Nothing waits longer than the agreed bound, and nobody's cover takes a place that real traffic wants.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from math import inf
from typing import NamedTuple, Protocol

from obscura.limits import CELL, HEADER_BYTES, MAX_HELD_BYTES, MAX_HELD_MESSAGES, RECORD_OVERHEAD, TOPPED_UP
from obscura.wire.message import padded_type

Span = tuple[float, float]  # seconds, uniform between both; (0, 0) = off
MaySpend = Callable[[int, float], bool]  # cover bytes, now: whether the budgets have them; they are spent then
NEVER = (0.0, 0.0)
_NAME = slice(4, 16)  # of a frame's header
_MAX_GAP = 20.0  # times the mean: 2e-9 of all exponential gaps are longer


class Allowance(NamedTuple):
    """What may leave now: up to ``frame_bytes`` of waiting frames, then ``dummies`` records with nothing used."""

    frame_bytes: int
    dummies: int


class Schedule(Protocol):
    """Times of one direction of one link. Never starves real traffic beyond the limits of its level."""

    def begin(self, waiting: int) -> None:
        """Shaping is in force; the ``waiting`` bytes of frames queued so far are the handshake and leave at once."""
        ...

    def put(self, pieces: Sequence[bytes], now: float) -> None:
        """Frames were queued, as pieces: a header with its payload, or a header and the next piece its payload."""
        ...

    def allowance(self, now: float, waiting: int, capacity: int) -> Allowance:
        """What may leave at ``now`` when ``waiting`` bytes of frames are queued and the next record holds ``capacity``."""
        ...

    def deadline(self, waiting: int) -> float:
        """When to ask again although nothing new was queued; ``inf`` = not by itself."""
        ...


class Immediate:
    """Everything leaves at once, nothing is added."""

    def begin(self, waiting: int) -> None:
        """Nothing to begin."""

    def put(self, pieces: Sequence[bytes], now: float) -> None:
        """Of no interest."""

    def allowance(self, now: float, waiting: int, capacity: int) -> Allowance:
        """All."""
        return Allowance(waiting, 0)

    def deadline(self, waiting: int) -> float:
        """Never."""
        return inf


IMMEDIATE = Immediate()


class MessageClass(Enum):
    """What a delay means to a message."""

    AT_ONCE = "at once"  # handshake, ping, rotation: their time is their meaning
    BLOCKS = "blocks"  # exempt: a late block costs its miner, and its size shows anyway
    TRANSACTIONS = "transactions"
    OTHER = "other"  # headers, addresses, and every type that an application adds


_TYPES = {
    MessageClass.AT_ONCE: "version verack padneg resume resumed rotate sendcmpct ping pong",
    MessageClass.BLOCKS: "block cmpctblock getblocktxn blocktxn",
    MessageClass.TRANSACTIONS: "tx stemtx inv getdata notfound mempool",
}
CLASSES = {padded_type(name): kind for kind, names in _TYPES.items() for name in names.split()}
EXEMPT = (MessageClass.AT_ONCE, MessageClass.BLOCKS)


class Pace(NamedTuple):
    """How a ``Gate`` delays and adds. ``burst`` is a number of messages, (0, 0) = off."""

    jitter_s: Span = NEVER
    burst: tuple[int, int] = (0, 0)
    burst_hold_s: Span = NEVER
    dummy_s: Span = NEVER
    chaff_s: Span = NEVER
    least_record: int = CELL  # bytes of the smallest record: what fits in it is one record


class Gate:
    """Jitter, bursts, dummies and chaff: messages gather behind a gate and leave together when it opens.

    It opens when the first delay drawn for any waiting class is over (jitter and a burst's hold, and the hold once more if a
    second message has come by then), when a burst is full, by messages or because a further one would need a further record, when
    something exempt is sent, when a dummy is due (whose place they take), or when so much waits that it is bulk. A burst of one
    is topped up with a dummy now and then.
    """

    __slots__ = (
        "_begun",
        "_bytes",
        "_chaff_at",
        "_drawn",
        "_dummy_at",
        "_has_bursts",
        "_held",
        "_is_burst",
        "_may_spend",
        "_open_at",
        "_pace",
        "_ready",
        "_rng",
        "_wanted",
    )

    def __init__(self, pace: Pace, rng: random.Random, may_spend: MaySpend) -> None:
        self._pace = pace
        self._rng = rng
        self._may_spend = may_spend
        self._begun = False
        self._open_at = inf
        self._drawn: set[MessageClass] = set()  # classes that wait and have their delay
        self._held = self._bytes = 0  # messages behind the gate, and their bytes
        self._ready = 0  # bytes before them that may leave
        self._is_burst = False  # a second one came in time, so that it is worth waiting for more
        self._has_bursts = pace.burst != (0, 0)
        self._wanted = MAX_HELD_MESSAGES  # messages that open the gate by their number
        self._dummy_at = self._chaff_at = inf

    def begin(self, waiting: int) -> None:
        """Open once, for the end of the handshake."""
        self._open_at = -inf

    def put(self, pieces: Sequence[bytes], now: float) -> None:
        """Draw delays for classes that were not waiting yet; let those leave who would not share a record with the newcomer."""
        if len(pieces) > MAX_HELD_MESSAGES:
            self._open_at = -inf
            return
        for name, size in _frames(pieces):
            records = self._records
            if self._held and records(self._bytes + size) > max(records(self._bytes), records(size)):
                self._ready += self._bytes
                self._gather_anew()
            self._held += 1
            self._bytes += size
            kind = CLASSES.get(name, MessageClass.OTHER)
            if kind in EXEMPT or self._held >= self._wanted:
                self._open_at = -inf
            elif self._open_at > now:
                self._draw(kind, now)

    def _draw(self, kind: MessageClass, now: float) -> None:
        if kind not in self._drawn and not self._is_burst:
            self._drawn.add(kind)
            self._open_at = min(self._open_at, now + self._rng.uniform(*self._pace.jitter_s) + self._hold())
        if self._held == 2 and self._has_bursts:
            self._is_burst = True
            self._open_at += self._hold()

    def allowance(self, now: float, waiting: int, capacity: int) -> Allowance:
        """What is full or has waited long enough, and the dummies that are due."""
        dummies = self._due_cover(now, capacity + RECORD_OVERHEAD)
        if not waiting:
            return Allowance(0, dummies)
        if now < self._open_at and waiting < MAX_HELD_BYTES:
            ready, self._ready = self._ready, 0
            if ready:
                return Allowance(ready, dummies)
            if not dummies:
                return Allowance(0, 0)
            dummies -= 1  # what waits takes its place
        elif self._has_bursts and self._held == 1 and not self._ready:
            dummies += self._topping_up(waiting, now)
        self._ready = 0
        self._gather_anew()
        return Allowance(waiting, dummies)

    def _gather_anew(self) -> None:
        self._held = self._bytes = 0
        self._open_at = inf
        self._is_burst = False
        self._drawn.clear()
        if self._has_bursts:
            self._wanted = self._rng.randint(*self._pace.burst)

    def deadline(self, waiting: int) -> float:
        """The gate, or the next dummy."""
        gate = self._open_at if waiting else inf
        return min(gate, self._dummy_at, self._chaff_at)

    def _hold(self) -> float:
        return self._rng.uniform(*self._pace.burst_hold_s) if self._has_bursts else 0.0

    def _due_cover(self, now: float, size: int) -> int:
        pace = self._pace
        if not self._begun:
            self._begun = True
            self._dummy_at = self._after(now, pace.dummy_s)
            self._chaff_at = self._after(now, pace.chaff_s)
            return 0
        dummies = 0
        if now >= self._dummy_at:
            self._dummy_at = self._after(now, pace.dummy_s)
            dummies += self._may_spend(size, now)
        if now >= self._chaff_at:
            self._chaff_at = self._after(now, pace.chaff_s)
            dummies += self._may_spend(size, now)
        return dummies

    def _after(self, now: float, span: Span) -> float:
        return now + self._rng.uniform(*span) if span != NEVER else inf

    def _topping_up(self, waiting: int, now: float) -> int:
        """A dummy beside a message that leaves alone, now and then: two records then mean neither two messages nor a long one."""
        is_short = self._records(waiting) == 1
        cost = self._pace.least_record
        return int(is_short and self._rng.random() < TOPPED_UP and self._may_spend(cost, now))

    def _records(self, size: int) -> int:
        """Cells that so many bytes of frames take; 1 for what fits in the smallest record."""
        if size <= self._pace.least_record - RECORD_OVERHEAD:
            return 1
        return -(-size // (CELL - RECORD_OVERHEAD))


class Slots:
    """Normalisation: one record per slot, at constant or Poisson times, whatever there is to say; a dummy if there is nothing.

    Missed slots (a socket that takes nothing, a busy process) are left out, not made up for: a burst would show what happened.
    """

    __slots__ = ("_free", "_may_spend", "_mean", "_next", "_rng", "_size", "is_constant")

    def __init__(self, size: int, mean_s: float, rng: random.Random, may_spend: MaySpend, *, is_constant: bool) -> None:
        self._size = size
        self._mean = mean_s
        self._rng = rng
        self._may_spend = may_spend
        self._free = 0  # bytes of the handshake, which ride in no slot
        self._next: float | None = None
        self.is_constant = is_constant

    def begin(self, waiting: int) -> None:
        """Let the end of the handshake pass."""
        self._free = waiting

    def put(self, pieces: Sequence[bytes], now: float) -> None:
        """Of no interest: all messages ride in slots, in order."""

    def allowance(self, now: float, waiting: int, capacity: int) -> Allowance:
        """One record at most."""
        if self._next is None:
            self._next = now + (self._rng.uniform(0, self._mean) if self.is_constant else self._gap())
        if self._free:
            free, self._free = self._free, 0
            return Allowance(free, 0)
        if now < self._next:
            return Allowance(0, 0)
        self._next = self._after(self._next, now)
        if waiting:
            return Allowance(min(waiting, capacity), 0)
        return Allowance(0, int(self._may_spend(self._size, now)))

    def deadline(self, waiting: int) -> float:
        """The next slot."""
        return -inf if self._next is None else self._next

    def _after(self, slot: float, now: float) -> float:
        if not self.is_constant:
            following = slot + self._gap()
            return following if following > now else now + self._gap()
        missed = int((now - slot) / self._mean)
        return slot + (missed + 1) * self._mean

    def _gap(self) -> float:
        return min(self._rng.expovariate(1 / self._mean), _MAX_GAP * self._mean)


def _frames(pieces: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """Type name, as on the wire, and size of each queued frame."""
    at = 0
    while at < len(pieces):
        head = pieces[at]
        payload = int.from_bytes(head[:4], "little")
        yield head[_NAME], HEADER_BYTES + payload
        at += 2 if payload and len(head) == HEADER_BYTES else 1
