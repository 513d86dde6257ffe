"""Waiting times between attempts (specification, *Reconnection Logic*)."""

from __future__ import annotations

import random

from obscura.limits import BACKOFF_FIRST_S, BACKOFF_MOST_S


class Backoff:
    """Decorrelated jitter: each wait is uniform between the first one and three times the last, capped.

    Source: M. Brooker, Exponential Backoff And Jitter (2015).
    """

    __slots__ = ("_first_s", "_last_s", "_most_s")

    def __init__(self, most_s: float = BACKOFF_MOST_S, first_s: float = BACKOFF_FIRST_S) -> None:
        self._first_s = self._last_s = first_s
        self._most_s = most_s

    def next_s(self, rng: random.Random) -> float:
        """Seconds to wait after one more failure."""
        self._last_s = min(self._most_s, rng.uniform(self._first_s, 3 * self._last_s))
        return self._last_s
