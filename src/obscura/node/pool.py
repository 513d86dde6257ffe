"""What is drawn from at random (book.py) and, where draws find nothing, looked through."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Pool(Generic[T]):
    """A set with random choice; its order depends on the calls alone, so that a replay is exact."""

    __slots__ = ("_at", "_looked", "items")

    def __init__(self) -> None:
        self.items: list[T] = []
        self._at: dict[T, int] = {}
        self._looked = 0  # so many were in parts since the first

    def add(self, item: T) -> None:
        """Put in what is not there."""
        self._at[item] = len(self.items)
        self.items.append(item)

    def remove(self, item: T) -> None:
        """Take out what is there."""
        at, last = self._at.pop(item), self.items.pop()
        if last != item:
            self.items[at] = last
            self._at[last] = at

    def part(self, most: int) -> list[T]:
        """The ``most`` behind the last part, from the first again at the end: all of them, over some calls."""
        begin = self._looked if self._looked < len(self.items) else 0
        self._looked = begin + most
        return self.items[begin : self._looked]
