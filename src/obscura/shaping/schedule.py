"""When what waits may leave: the hook between a link's queue and its records (design 7, *one scheduler per link*).

The connection asks ``allowance`` at every flush and calls again at ``deadline``. Levels without slots, bursts or jitter use
``Immediate``.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple, Protocol


class Allowance(NamedTuple):
    """What may leave now: up to ``frame_bytes`` of waiting frames, then ``dummies`` records with nothing used."""

    frame_bytes: int
    dummies: int


class Schedule(Protocol):
    """Times of one direction of one link. Never starves real traffic beyond the limits of its level."""

    def allowance(self, now: float, waiting: int) -> Allowance:
        """What may leave at ``now`` when ``waiting`` bytes of frames are queued."""
        ...

    def deadline(self, waiting: int) -> float:
        """When to ask again although nothing new was queued; ``inf`` = not by itself."""
        ...


class Immediate:
    """Everything leaves at once, nothing is added."""

    def allowance(self, now: float, waiting: int) -> Allowance:
        return Allowance(waiting, 0)

    def deadline(self, waiting: int) -> float:
        return inf


IMMEDIATE = Immediate()
