"""How long things took, in few and coarse classes."""

from __future__ import annotations

from bisect import bisect_left

from obscura.limits import DURATION_BOUNDS_S


class Durations:
    """A histogram of seconds in the fixed bounds ``DURATION_BOUNDS_S``; the last count is of what is longer."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds
