"""A bounded memory of ids: the newest ones stay, at constant cost (deleting from the front of a dict is not)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Rolling(Generic[Value]):
    """Values by id; at least the newest ``size`` of them, at most twice as many. Setting one makes it new."""

    __slots__ = ("_new", "_old", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._new: dict[bytes, Value] = {}
        self._old: dict[bytes, Value] = {}

    def __contains__(self, id: object) -> bool:
        return id in self._new or id in self._old

    def __setitem__(self, id: bytes, value: Value) -> None:
        self._new[id] = value
        if len(self._new) >= self._size:
            self._old, self._new = self._new, {}

    def get(self, id: bytes) -> Value | None:
        """The value, None if the id is not known (any more)."""
        value = self._new.get(id)
        return self._old.get(id) if value is None else value

    def add_all(self, ids: Iterable[bytes], value: Value) -> None:
        """Set many to one value."""
        self._new.update(dict.fromkeys(ids, value))
        if len(self._new) >= self._size:
            self._old, self._new = self._new, {}

    def values(self) -> Iterable[Value]:
        """Of all ids that are known."""
        return (*self._old.values(), *self._new.values())

    def discard(self, id: bytes) -> None:
        """Forget one."""
        self._new.pop(id, None)
        self._old.pop(id, None)
