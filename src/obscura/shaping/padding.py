"""Record sizes (specification, *Message Padding*, *Padding Negotiation*; design 7).

Each record announces the size of the next one. A rule says what to announce, from the bytes that will wait then; nothing else
about a message's size reaches the wire. Removal is invisible: ``used`` inside the seal says where the frames end.
"""

from __future__ import annotations

import random
from enum import IntEnum
from typing import Protocol

from obscura.limits import CELL, MAX_RECORD, MIN_RECORD, RECORD_OVERHEAD, UNIFORM_PADDING

ANY_SIZE = (MIN_RECORD, MAX_RECORD)


class Rule(IntEnum):
    """Padding rules by their number in ``padneg``."""

    NONE = 0
    CELLS = 1
    UNIFORM = 2


class Padding(Protocol):
    """Chooses record sizes for one direction of one link. Every size is within 64..65,536 bytes."""

    def next_size(self, waiting: int) -> int:
        """Size in bytes to announce for the next record when ``waiting`` bytes of frames are left for it (0: nothing)."""
        ...


class Exact:
    """Rule ``none``: as small as the content allows."""

    def __init__(self, bounds: tuple[int, int] = ANY_SIZE) -> None:
        self._low, self._high = bounds

    def next_size(self, waiting: int) -> int:
        return min(self._high, max(self._low, waiting + RECORD_OVERHEAD))


class Cells:
    """Rule ``cells``: multiples of 1,024 bytes, or one of the bounds."""

    def __init__(self, bounds: tuple[int, int] = ANY_SIZE) -> None:
        self._high = bounds[1]
        self._low = min(self._high, max(CELL, bounds[0]))

    def next_size(self, waiting: int) -> int:
        return min(self._high, max(self._low, (waiting + RECORD_OVERHEAD + CELL - 1) // CELL * CELL))


class Uniform:
    """Rule ``uniform``: 64..512 random bytes on top, the published range. Averages out over time (docs/shaping.md)."""

    def __init__(self, rng: random.Random, bounds: tuple[int, int] = ANY_SIZE) -> None:
        self._rng = rng
        self._low, self._high = bounds

    def next_size(self, waiting: int) -> int:
        extra = self._rng.randint(*UNIFORM_PADDING)
        if waiting:
            extra += waiting + RECORD_OVERHEAD
        return min(self._high, max(self._low, extra))


class Constant:
    """Under slots: every record has the slot's size."""

    def __init__(self, size: int) -> None:
        self._size = size

    def next_size(self, waiting: int) -> int:
        return self._size


def padding(rule: Rule, rng: random.Random, bounds: tuple[int, int] = ANY_SIZE) -> Padding:
    """The rule's object for one direction; ``bounds`` are the agreed sizes of a record."""
    if rule is Rule.CELLS:
        return Cells(bounds)
    if rule is Rule.UNIFORM:
        return Uniform(rng, bounds)
    return Exact(bounds)
