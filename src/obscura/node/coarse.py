"""The clock that faces of anonymity networks show: coarse, and shifted by an amount that only this run of the node knows.

Rounding alone would do no good: who looks often sees when the rounded time steps on, and so the clock itself, as exactly as on
clearnet; two clocks that are wrong by the same seconds are one.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from obscura.limits import COARSE_TIMESTAMP_S
from obscura.node.face import Face


class CoarseClock:
    """Unix seconds by face: at most ``COARSE_TIMESTAMP_S`` / 2 behind the true ones, and 1.5 times that ahead."""

    def __init__(self, unix: Callable[[], float], rng: random.Random) -> None:
        self._unix = unix
        self._shifts = {face: rng.uniform(0, COARSE_TIMESTAMP_S) for face in Face}

    def shown(self, face: Face) -> int:
        """The time that others see on this face."""
        return round((self._unix() + self._shifts[face]) / COARSE_TIMESTAMP_S) * COARSE_TIMESTAMP_S
