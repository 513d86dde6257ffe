"""Waiting times between attempts (specification, *Reconnection Logic*)."""

from __future__ import annotations

import random

from obscura.limits import BACKOFF_FIRST_S, BACKOFF_MOST_S


class Backoff:
    """Decorrelated jitter: each wait is uniform between the first one and three times the last, capped.

    Source: M. Brooker, Exponential Backoff And Jitter (2015).
    """

    __slots__ = ("_last_s",)

    def __init__(self) -> None:
        self._last_s = BACKOFF_FIRST_S

    def next_s(self, rng: random.Random) -> float:
        """Seconds to wait after one more failure."""
        self._last_s = min(BACKOFF_MOST_S, rng.uniform(BACKOFF_FIRST_S, 3 * self._last_s))
        return self._last_s
