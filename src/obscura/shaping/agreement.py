"""What one direction of a link is shaped by: a pure function of both ``padneg``, the same at both ends (specification,
*Padding Negotiation*; design 7).

The sender proposes (``send``), the receiver bounds (``accept``, ``most``), limits bound both. ``concessions`` says in words what
the sender's own level loses by that.
"""

from __future__ import annotations

from math import inf

import msgspec

from obscura.limits import (
    CELL,
    MAX_RECORD,
    MIN_RECORD,
    NEGOTIABLE_BURST,
    NEGOTIABLE_COVER_MS,
    NEGOTIABLE_RECORD_HIGH,
    NEGOTIABLE_RECORD_LOW,
    NEGOTIABLE_SLOT_MS,
)
from obscura.wire.messages.privacy import PadNeg, ShapingTerms

UNBOUNDED = 0xFFFFFFFF  # ``most``: any number of cover bytes per second
OFF = (0, 0)
Pair = tuple[int, int]


class Understood(msgspec.Struct, frozen=True):
    """What both ends have the feature bit for. A thing without its bit is off, whatever ``padneg`` says."""

    dummies: bool = True
    jitter: bool = True
    bursts: bool = True
    slots: bool = True


class Agreement(msgspec.Struct, frozen=True):
    """One direction of a link. Pairs are (low, high) with low <= high, (0, 0) = off; milliseconds, bytes, messages.

    ``rule`` may be a number that only the sender knows. With slots on, dummies, chaff and bursts have no times of their own.
    """

    rule: int
    record_size: Pair
    dummy_ms: Pair
    chaff_ms: Pair
    burst: Pair
    slot_size: int
    slot_ms: Pair
    most: int

    @property
    def has_slots(self) -> bool:
        """Whether everything rides in slots."""
        return self.slot_ms != OFF

    @property
    def slot_mean_s(self) -> float:
        """Mean seconds between two slots; ``inf`` without slots. Equal ends are a constant rate, others a Poisson process."""
        return sum(self.slot_ms) / 2_000 if self.has_slots else inf

    @property
    def cover_rate(self) -> float:
        """Cover bytes per second that dummies, chaff or empty slots come to on an idle link, before ``most``."""
        if self.has_slots:
            return self.slot_size / self.slot_mean_s
        return sum(CELL * 2_000 / sum(pair) for pair in (self.dummy_ms, self.chaff_ms) if pair != OFF)


def agree(sender: PadNeg, receiver: PadNeg, understood: Understood) -> Agreement:
    """The terms of the direction from ``sender`` to ``receiver``."""
    send, accept = sender.send, receiver.accept
    slots = _slots(send.slot_ms, accept.slot_ms) if understood.slots else OFF
    dummies = understood.dummies and slots == OFF
    return Agreement(
        rule=agreed_rule(send, accept),
        record_size=_record_size(send.record_size, accept.record_size),
        dummy_ms=_pair(send.dummy_ms, accept.dummy_ms, NEGOTIABLE_COVER_MS) if dummies else OFF,
        chaff_ms=_pair(send.chaff_ms, accept.chaff_ms, NEGOTIABLE_COVER_MS) if dummies else OFF,
        burst=_pair(send.burst, accept.burst, NEGOTIABLE_BURST) if understood.bursts and slots == OFF else OFF,
        slot_size=_clamp(send.slot_size, MIN_RECORD, MAX_RECORD),
        slot_ms=slots,
        most=receiver.most,
    )


def wished(sender: PadNeg) -> Agreement:
    """What the sender's own terms come to if the receiver bounds nothing."""
    return agree(sender, PadNeg(sender.send, sender.send, UNBOUNDED), Understood())


def agreed_rule(send: ShapingTerms, accept: ShapingTerms) -> int:
    """The sender's first rule that the receiver accepts, else the sender's first."""
    return next((rule for rule in send.rules if rule in accept.rules), send.rules[0])


def concessions(wish: Agreement, got: Agreement) -> tuple[str, ...]:
    """In words: where ``got`` protects less than ``wish``. Empty where the wish was granted."""
    said = []
    for name, unit, own, agreed in (
        ("dummies", "ms", wish.dummy_ms, got.dummy_ms),
        ("chaff", "ms", wish.chaff_ms, got.chaff_ms),
        ("slots", "ms", wish.slot_ms, got.slot_ms),
    ):
        if agreed == OFF != own:
            said.append(f"no {name}")
        elif sum(agreed) > sum(own):
            said.append(f"{name} each {_span(agreed)} {unit} instead of {_span(own)}")
    if got.burst == OFF != wish.burst:
        said.append("no bursts")
    elif got.burst < wish.burst:
        said.append(f"bursts of {_span(got.burst)} messages instead of {_span(wish.burst)}")
    least, wanted = max(CELL, got.record_size[0]), max(CELL, wish.record_size[0])
    if least < wanted and not got.has_slots:
        said.append(f"records of at least {least} bytes instead of {wanted}")
    if got.most < got.cover_rate:
        said.append(f"at most {got.most} bytes of cover per second, {got.cover_rate:.0f} being needed")
    return tuple(said)


def _span(pair: Pair) -> str:
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"


def _clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def _pair(own: Pair, accept: Pair, bounds: Pair) -> Pair:
    if OFF in (own, accept):
        return OFF
    low, high = (_clamp(_clamp(value, *accept), *bounds) for value in own)
    return (min(low, high), max(low, high))


def _slots(own: Pair, accept: Pair) -> Pair:
    """As any pair, but the limits bound the mean: the low end of a Poisson process is 0."""
    if OFF in (own, accept):
        return OFF
    low, high = sorted(_clamp(value, *accept) for value in own)
    least, most = NEGOTIABLE_SLOT_MS
    if low + high < 2 * least:
        return (least, least)
    if low == high:
        return (min(low, most),) * 2
    high = min(high, 2 * most)
    return (min(low, 2 * most - high), high)


def _record_size(own: Pair, accept: Pair) -> Pair:
    low, high = sorted(_clamp(value, *accept) for value in own)
    return (_clamp(low, *NEGOTIABLE_RECORD_LOW), _clamp(high, *NEGOTIABLE_RECORD_HIGH))
