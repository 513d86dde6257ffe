"""Whether a peer keeps what it agreed to: only what no honest sender on a bad path can seem to break.

Checked: record sizes that the agreed rule or slot cannot produce; more records than slots, more dummies than agreed, more cover
than this node accepts, each over the whole time of the link and with room for stalls and clocks. Not checkable, since an
interrupted path or the sender's own budget looks the same: too few dummies, missed slots, delays, bursts.
"""

from __future__ import annotations

from math import sqrt

import msgspec

from obscura.limits import BREACH_RATE, BREACH_SLACK, BREACH_STALL_S, CELL, MAX_RECORD
from obscura.shaping.agreement import OFF, UNBOUNDED, Agreement
from obscura.shaping.padding import Rule


class Breach(msgspec.Struct, frozen=True):
    """The peer sent what its own agreement excludes. ``what`` is for the operator."""

    what: str


class Watch:
    """The receiving direction of one link; asleep until ``begin``."""

    __slots__ = ("_agreement", "_dummies", "_dummy_bytes", "_dummy_rate", "_real", "_since", "_skipped", "_total")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        pairs = (agreement.dummy_ms, agreement.chaff_ms)
        self._dummy_rate = sum(1_000 / pair[0] for pair in pairs if pair != OFF)
        self._skipped: int | None = None  # None: asleep
        self._since = 0.0
        self._real = self._dummies = self._dummy_bytes = self._total = 0

    def begin(self, now: float) -> None:
        """The record with the peer's ``verack`` is being read: what comes behind it is shaped as agreed."""
        self._skipped = 0
        self._since = now

    def moved(self) -> None:
        """The same direction goes on over another connection, whose first record had its size from no agreement."""
        if self._skipped is not None:
            self._skipped = 0

    def record(self, size: int, is_dummy: bool, now: float) -> Breach | None:
        """One record of ``size`` bytes on the wire arrived."""
        if not self._skipped:
            if self._skipped is not None:  # the size of the first one was announced together with the verack
                self._skipped = 1
            return None
        self._total += 1
        if is_dummy:
            self._dummies += 1
            self._dummy_bytes += size
        else:
            self._real += 1
        if not self._may_have(size):
            return Breach(f"a record of {size} bytes, which the agreed padding cannot produce")
        excess = self._excess(now - self._since, is_dummy)
        if excess is not None:
            self._since = now
            self._real = self._dummies = self._dummy_bytes = self._total = 0
            return Breach(excess)
        return None

    def _may_have(self, size: int) -> bool:
        agreement = self._agreement
        if agreement.has_slots:
            return size == agreement.slot_size
        low, high = agreement.record_size
        if agreement.rule == Rule.CELLS:
            return low <= size <= high and (size % CELL == 0 or size in (low, high))
        return low <= size <= high or agreement.rule not in (Rule.NONE, Rule.UNIFORM)

    def _excess(self, elapsed: float, is_dummy: bool) -> str | None:
        agreement = self._agreement
        elapsed += BREACH_STALL_S
        if agreement.has_slots:
            slots = elapsed / agreement.slot_mean_s
            if self._total > BREACH_RATE * slots + 8 * sqrt(slots) + BREACH_SLACK:
                return "more records than agreed slots"
        elif is_dummy:
            topped_up = self._real * agreement.burst[1]
            if self._dummies > BREACH_RATE * elapsed * self._dummy_rate + topped_up + BREACH_SLACK:
                return "more dummies than agreed"
        if is_dummy and agreement.most != UNBOUNDED:
            slack = BREACH_SLACK * max(CELL, agreement.slot_size)
            if self._dummy_bytes > BREACH_RATE * elapsed * agreement.most + slack:
                return "more cover than this node accepts"
        return None


def watch(agreement: Agreement) -> Watch | None:
    """A watch, or None where the agreement excludes nothing that can be seen cheaply (rule none or uniform, no cover)."""
    is_open = agreement.rule != Rule.CELLS and agreement.record_size[1] == MAX_RECORD
    has_cover = agreement.has_slots or agreement.dummy_ms != OFF or agreement.chaff_ms != OFF
    return None if is_open and not has_cover else Watch(agreement)
