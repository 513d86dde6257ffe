"""Many deadlines, one ``deadline()``: a heap with lazy deletion, so that ten thousand idle links cost nothing per tick."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """At most one deadline per key. Keys that are due come out in order of time, then of setting."""

    __slots__ = ("_heap", "_next", "_serial", "_when")

    def __init__(self) -> None:
        self._when: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._serial = 0
        self._next: float | None = inf  # the time of the heap's head, which is live then; None = to be looked for

    def __len__(self) -> int:
        return len(self._when)

    def __contains__(self, key: Key) -> bool:
        return key in self._when

    def set(self, key: Key, when: float) -> None:
        """(Re)place the key's deadline; ``inf`` clears it."""
        if when == inf:
            self.clear(key)
            return
        known = self._when.get(key)
        if known is not None and known[0] == when:
            return
        self._serial += 1
        self._when[key] = (when, self._serial)
        heappush(self._heap, (when, self._serial, key))
        if self._next is not None:
            if known is not None and known[0] == self._next:
                self._next = None
            elif when < self._next:
                self._next = when
        if len(self._heap) > 64 + 4 * len(self._when):
            self._compact()

    def when(self, key: Key) -> float | None:
        """The key's deadline, if it has one."""
        known = self._when.get(key)
        return None if known is None else known[0]

    def clear(self, key: Key) -> None:
        """Forget the key's deadline, if it has one."""
        known = self._when.pop(key, None)
        if known is not None and known[0] == self._next:
            self._next = None

    def deadline(self) -> float:
        """The earliest deadline; ``inf`` without any."""
        if self._next is None:
            self._next = self._earliest()
        return self._next

    def due(self, now: float) -> Iterator[Key]:
        """Remove and yield every key whose deadline is not after ``now``. Keys set again meanwhile for later stay."""
        while self.deadline() <= now:
            _, _, key = heappop(self._heap)
            del self._when[key]
            self._next = None
            yield key

    def _earliest(self) -> float:
        heap = self._heap
        while heap:
            when, serial, key = heap[0]
            if self._when.get(key) == (when, serial):
                return when
            heappop(heap)
        return inf

    def _compact(self) -> None:
        self._heap = [(when, serial, key) for key, (when, serial) in self._when.items()]
        heapify(self._heap)
