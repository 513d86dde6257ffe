"""The kernel of the simulator: a virtual clock, an order of events that chance never changes, and a hash of what happened."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from math import inf
from struct import Struct

_TRACE = Struct("<dIIH")


class Kernel:
    """Virtual time in seconds from 0. Equal seeds and equal calls give equal traces, bit for bit."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.rng = random.Random(f"obscura kernel {seed}")
        self.seed = seed
        self.events = 0  # run so far
        self.is_halted = False  # an act may set it: ``run`` returns after that act
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._trace = blake2b(digest_size=32)

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Call ``act`` at ``when`` (not before now). Acts of one instant run in the order of these calls."""
        self._serial += 1
        heappush(self._heap, (max(when, self.now), self._serial, act))

    def run(self, until: float = inf, max_events: int | None = None) -> None:
        """Run until nothing is left, ``until`` is reached (then now is ``until``), or ``max_events`` more have run."""
        last = None if max_events is None else self.events + max_events
        heap = self._heap
        while heap and heap[0][0] <= until and self.events != last and not self.is_halted:
            self.now, _, act = heappop(heap)
            self.events += 1
            act()
        if until != inf and self.events != last and not self.is_halted:
            self.now = max(self.now, until)

    def note(self, who: int, link: int, what: str, data: bytes | memoryview = b"") -> None:
        """Add something that happened to the trace."""
        self._trace.update(_TRACE.pack(self.now, who, link, len(what)))
        self._trace.update(what.encode())
        self._trace.update(data)

    @property
    def trace_hash(self) -> str:
        """Of everything noted so far."""
        return self._trace.copy().hexdigest()
