"""Which peers know of which transaction, remembered once per transaction and not once per link.

Links that each remember ten thousand ids hold 0.6 MB each; one table with a bit per link holds 10 MB for a thousand of them.
Each face has its own: whoever fills one shows by what is forgotten there nothing at another.
"""

from __future__ import annotations

from obscura.limits import TX_KNOWN
from obscura.node.rolling import Rolling

Bit = int  # of one link, alone set


class _Marks:
    """Of one transaction: the links that announced or sent it, and those that we told."""

    __slots__ = ("had", "told")

    def __init__(self) -> None:
        self.had = 0
        self.told = 0


class Knowers:
    """Of transactions that wait all marks; of others those of the newest ``TX_KNOWN`` ids, at most twice as many."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Marks] = {}
        self._others: Rolling[_Marks] = Rolling(TX_KNOWN)
        self._here = 0  # bits of the links that are up
        self._gone = 0  # bits of former links, still set in marks
        self._free: list[Bit] = []
        self._width = 0

    def join(self) -> Bit:
        """A link is up: its bit, which no mark has."""
        if not self._free:
            if self._gone.bit_count() > self._here.bit_count():
                self._sweep()
            else:
                self._free.append(1 << self._width)
                self._width += 1
        bit = self._free.pop()
        self._here |= bit
        return bit

    def leave(self, bit: Bit) -> None:
        """The link is gone, and what it knew."""
        self._here &= ~bit
        self._gone |= bit

    def _sweep(self) -> None:
        """Take former links' bits out of all marks, many at a time: it looks at every id."""
        kept = ~self._gone
        for marks in (*self._waiting.values(), *self._others.values()):
            marks.had &= kept
            marks.told &= kept
        self._free = [1 << place for place in range(self._width) if self._gone >> place & 1]
        self._gone = 0

    def waits(self, id: bytes) -> None:
        """The transaction has come into the mempool."""
        self._waiting[id] = self._others.get(id) or _Marks()
        self._others.discard(id)

    def went(self, id: bytes) -> None:
        """It has left the mempool. If it comes back, whoever has not fetched it is told again: that peer got ``notfound``."""
        marks = self._waiting.pop(id, None)
        if marks is not None:
            marks.told = 0
            self._others[id] = marks

    def heard(self, id: bytes, bit: Bit) -> None:
        """The peer has it."""
        self._marks(id).had |= bit

    def told(self, id: bytes, bit: Bit) -> None:
        """We announced it to the peer."""
        self._marks(id).told |= bit

    def _marks(self, id: bytes) -> _Marks:
        marks = self._waiting.get(id) or self._others.get(id)
        if marks is None:
            marks = self._others[id] = _Marks()
        return marks

    def knowing(self, id: bytes) -> int:
        """The bits of all links whose peers have it or were told of it."""
        marks = self._waiting.get(id) or self._others.get(id)
        return 0 if marks is None else (marks.had | marks.told) & self._here

    def having(self, id: bytes) -> int:
        """The bits of all links whose peers have it: they announced it, or fetched it here."""
        marks = self._waiting.get(id) or self._others.get(id)
        return 0 if marks is None else marks.had & self._here

    def was_told(self, id: bytes, bit: Bit) -> bool:
        """Whether we announced it to this very peer."""
        marks = self._waiting.get(id)
        return marks is not None and bool(marks.told & bit)
