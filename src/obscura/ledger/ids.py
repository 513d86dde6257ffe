"""A table from 32-byte ids to small numbers in as little memory as a chain's index allows."""

from __future__ import annotations

from array import array

from obscura.ledger.port import ID_BYTES

_FREE = 0  # slots hold number + 1


class IdTable:
    """Ids in the order in which they were added; ``number(id)`` is the place in that order.

    Open addressing over one array of u32: 40-48 bytes an id, where a dict of bytes to int takes 150. Slots
    follow from Python's hash of bytes, which is keyed anew in each process, so nobody can choose ids that
    collide. One thread adds; others may ask at any time (a verification does), also while the slots grow.
    """

    __slots__ = ("_ids", "_slots")

    def __init__(self) -> None:
        self._ids = bytearray()
        self._slots = array("I", bytes(4 * 0x100))

    def __len__(self) -> int:
        return len(self._ids) // ID_BYTES

    def __getitem__(self, number: int) -> bytes:
        return bytes(self._ids[ID_BYTES * number : ID_BYTES * (number + 1)])

    def number(self, identity: bytes) -> int | None:
        """The id's place, or ``None``."""
        slots, ids = self._slots, self._ids
        mask = len(slots) - 1
        slot = hash(identity) & mask
        while entry := slots[slot]:
            if ids[ID_BYTES * (entry - 1) : ID_BYTES * entry] == identity:
                return entry - 1
            slot = slot + 1 & mask
        return None

    def add(self, identity: bytes) -> int:
        """Append an id that is not there yet; its place."""
        number = len(self)
        self._ids += identity
        if number * 2 >= len(self._slots):
            self._grow()
        else:
            _put(self._slots, identity, number)
        return number

    def _grow(self) -> None:
        slots = array("I", bytes(2 * len(self._slots) * self._slots.itemsize))
        for number in range(len(self)):
            _put(slots, self[number], number)
        self._slots = slots  # whole


def _put(slots: array[int], identity: bytes, number: int) -> None:
    mask = len(slots) - 1
    slot = hash(identity) & mask
    while slots[slot] != _FREE:
        slot = slot + 1 & mask
    slots[slot] = number + 1
