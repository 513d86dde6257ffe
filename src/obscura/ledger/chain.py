"""The tree of headers in memory: which chain has the most work, and what leads from one to another. Pure.

Two tips: ``best`` ends the most work among all headers that are not known to be bad, ``tip`` the most work
among those whose blocks were all received and checked. Between equals the one seen first stays. A header
takes about 185 bytes (80 of them its own); nothing here is a Python object per header.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from obscura import limits
from obscura.ledger.ids import IdTable
from obscura.ledger.port import Fault, FaultKind, Ledger, invalid

UNKNOWN_PARENT = Fault(FaultKind.ORPHAN, "the parent is not known")
BAD_PARENT = invalid("the parent is known to be bad")
KNOWN_BAD = invalid("known to be bad")
WRONG_SIZE = invalid("a header of the wrong size")
UNKNOWN_TIP = invalid("the header of the tip is not there")

_BODY, _WHOLE, _BAD = 1, 2, 4  # own block checked; and those of all ancestors; it or an ancestor is bad
_WORK_BYTES = 32


class Reorganisation(msgspec.Struct, frozen=True):
    """The way from one tip to another."""

    disconnect: list[bytes]  # ids from the old tip downwards, without the fork point
    connect: list[bytes]  # ids upwards to the new tip


class Chain:
    """The header tree over one ledger. Starts with the genesis, whose block counts as checked."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._ids = IdTable()
        self._headers = bytearray()
        self._parents = array("I")
        self._heights = array("I")
        self._works = bytearray()
        self._flags = bytearray()
        self._leaves: set[int] = set()
        self._waiting: dict[int, set[int]] = {}  # parent -> children whose blocks came before its own
        self._main = array("I")  # numbers of the best chain by height
        self._best = self._tip = 0
        self._append(ledger.block_id(ledger.genesis), ledger.genesis, 0, 0, _BODY | _WHOLE)
        self._main.append(0)

    # --- asking

    def __len__(self) -> int:
        """Headers known, the genesis included."""
        return len(self._ids)

    def __contains__(self, block_id: bytes) -> bool:
        return self._ids.number(block_id) is not None

    @property
    def genesis(self) -> bytes:
        """Id of the first block."""
        return self._ids[0]

    @property
    def best(self) -> bytes:
        """Id of the header with the most work behind it."""
        return self._ids[self._best]

    @property
    def tip(self) -> bytes:
        """Id of the block with the most work behind it, all blocks up to it received and checked."""
        return self._ids[self._tip]

    @property
    def best_height(self) -> int:
        """Height of ``best``."""
        return self._heights[self._best]

    @property
    def tip_height(self) -> int:
        """Height of ``tip``."""
        return self._heights[self._tip]

    def height(self, block_id: bytes) -> int:
        """Raises ``KeyError`` for an unknown id, as the other questions about one header do."""
        return self._heights[self._number(block_id)]

    def header(self, block_id: bytes) -> bytes:
        return self._header(self._number(block_id))

    def work(self, block_id: bytes) -> int:
        """Total work from the genesis to this header, both included."""
        return self._work(self._number(block_id))

    def has_body(self, block_id: bytes) -> bool:
        """Whether its block was received and checked (its body may have been pruned since)."""
        return bool(self._flags[self._number(block_id)] & _BODY)

    def is_bad(self, block_id: bytes) -> bool:
        """Whether it or an ancestor is known to be bad. ``False`` for an unknown id."""
        number = self._ids.number(block_id)
        return number is not None and bool(self._flags[number] & _BAD)

    def on_best(self, block_id: bytes) -> bool:
        """Whether it lies on the chain that ends in ``best``."""
        return self._on_main(self._number(block_id))

    def at(self, height: int) -> bytes:
        """Id at ``height`` of the best chain."""
        if not 0 <= height < len(self._main):
            raise KeyError(height)
        return self._ids[self._main[height]]

    def branch(self, block_id: bytes) -> ChainBranch:
        """The headers up to ``block_id``, for ``Ledger.check_header``."""
        return ChainBranch(self, self._number(block_id))

    def ancestor(self, block_id: bytes, height: int) -> bytes:
        """Id of its ancestor at ``height``, itself included."""
        number = self._number(block_id)
        if not 0 <= height <= self._heights[number]:
            raise KeyError(height)
        return self._ids[self._ancestor(number, height)]

    def fork_point(self, one: bytes, other: bytes) -> bytes:
        """Id of the newest common ancestor."""
        return self._ids[self._fork(self._number(one), self._number(other))]

    def reorganisation(self, old: bytes, new: bytes) -> Reorganisation:
        """What to disconnect and what to connect to come from ``old`` to ``new``."""
        return self._way(self._number(old), self._number(new))

    def left_behind(self, depth: int) -> list[bytes]:
        """Ends of the branches beside the tip's whose blocks were all received, not more than ``depth`` below the tip."""
        ends = {self._first_with(leaf, lambda flags: bool(flags & _WHOLE)) for leaf in self._leaves}
        least = self.tip_height - depth
        near = [number for number in sorted(ends) if self._heights[number] >= least]
        return [self._ids[number] for number in near if self._fork(number, self._tip) != number]

    def enough_work(self) -> int:
        """Total work that a new branch must show before its headers are worth memory (see ``presync``)."""
        near = limits.NEAR_TIP_HEADERS * self.ledger.work(self._header(self._tip))
        return max(self.ledger.minimum_work, self._work(self._tip) - near)

    # --- locators (getheaders, getblocks)

    def locator(self, block_id: bytes | None = None) -> list[bytes]:
        """Ids from ``block_id`` (else ``best``) down: ten in a row, then ever wider, the genesis last."""
        number = self._best if block_id is None else self._number(block_id)
        height, step, ids = self._heights[number], 1, []
        while height > 0:
            number = self._ancestor(number, height)
            ids.append(self._ids[number])
            if len(ids) >= 10:
                step *= 2
            height -= step
        return [*ids, self.genesis]

    def after(
        self, locator: Sequence[bytes], stop: bytes = bytes(32), limit: int = limits.MAX_HEADERS, whole: bool = False
    ) -> list[bytes]:
        """Ids of the best chain after the first locator entry that lies on it, up to ``stop`` or ``limit``.

        No entry known: from the genesis on. An empty locator asks for ``stop`` alone. ``whole``: only as far as all
        blocks were received, which is what a peer may be told to fetch here.
        """
        if not locator:
            number = self._ids.number(stop)
            return [] if number is None or self._flags[number] & _BAD else [stop]
        start = 0
        for entry in locator[: limits.MAX_LOCATOR]:
            number = self._ids.number(entry)
            if number is not None and self._on_main(number):
                start = self._heights[number]
                break
        end = self._heights[self._fork(self._tip, self._best)] + 1 if whole else len(self._main)
        ids = [self._ids[number] for number in self._main[start + 1 : min(end, start + 1 + limit)]]
        return ids[: ids.index(stop) + 1] if stop in ids else ids

    def missing(self, limit: int, from_height: int = 0) -> list[bytes]:
        """Ids of the best chain whose blocks are still wanted, lowest first, at most ``limit``."""
        height = max(from_height, self._heights[self._fork(self._tip, self._best)] + 1)
        wanted: list[bytes] = []
        while height < len(self._main) and len(wanted) < limit:
            number = self._main[height]
            if not self._flags[number] & _BODY:
                wanted.append(self._ids[number])
            height += 1
        return wanted

    # --- telling

    def add(self, header: bytes, now: float) -> Fault | None:
        """Check a header and add it; known ones are accepted again. ``now`` is unix time.

        Nothing is kept of a header that is not accepted.
        """
        if len(header) != self.ledger.header_bytes:
            return WRONG_SIZE
        block_id = self.ledger.block_id(header)
        known = self._ids.number(block_id)
        if known is not None:
            return KNOWN_BAD if self._flags[known] & _BAD else None
        parent = self._ids.number(self.ledger.parent_id(header))
        if parent is None:
            return UNKNOWN_PARENT
        if self._flags[parent] & _BAD:
            return BAD_PARENT
        fault = self.ledger.check_header(header, ChainBranch(self, parent), now)
        if fault is None:
            self._insert(block_id, header, parent)
        return fault

    def add_all(self, headers: Iterable[bytes], now: float) -> tuple[list[bytes], Fault | None]:
        """Add headers until one is refused: those that were new, in order, and the refused one's fault."""
        new: list[bytes] = []
        for header in headers:
            before = len(self)
            fault = self.add(header, now)
            if fault:
                return new, fault
            if len(self) > before:
                new.append(header)
        return new, None

    def restore(
        self,
        headers: Iterable[bytes],
        has_body: Callable[[bytes], bool],
        bad: Iterable[bytes],
        tip: bytes | None = None,
    ) -> Fault | None:
        """What a store kept: headers, parents first; which blocks it had; which are bad. What is wrong with them, if anything.

        Headers are not checked one by one: an altered one leaves those that follow it without their parent, and the last of
        a branch is looked at. ``tip`` is taken for the tip again if nothing here has more work than it.
        """
        fault: Fault | None = None
        for header in headers:
            block_id = self.ledger.block_id(header)
            parent = self._ids.number(self.ledger.parent_id(header))
            if parent is None or len(header) != self.ledger.header_bytes:
                fault = fault or (UNKNOWN_PARENT if parent is None else WRONG_SIZE)
            elif block_id not in self:
                number = self._insert(block_id, header, parent)
                if has_body(block_id):
                    self._receive(number)
        for leaf in self._leaves - {0}:
            before = self._header(self._parents[leaf])
            fault = fault or self.ledger.check_step(self._heights[leaf], before, self._header(leaf))
        for block_id in bad:
            if block_id in self:
                self.refuse(block_id)
        old = 0 if tip is None else self._ids.number(tip)
        if old is None:
            return fault or UNKNOWN_TIP
        if self._flags[old] & (_WHOLE | _BAD) == _WHOLE:
            self._tip = max(old, self._tip, key=self._work)  # of equals the first given one stays
        return fault

    def received(self, block_id: bytes) -> Reorganisation | None:
        """Its block was checked and is (being) stored. The way to the new tip if that makes one."""
        old = self._tip
        self._receive(self._number(block_id))
        return self._way(old, self._tip) if self._tip != old else None

    def refuse(self, block_id: bytes) -> Reorganisation | None:
        """It can never be valid: neither it nor a descendant will be part of a best chain again.

        The way to the new tip, if the old one is a descendant. Raises ``ValueError`` for the genesis.
        """
        number = self._number(block_id)
        if number == 0:
            raise ValueError("the genesis is trusted by its hash")
        self._flags[number] |= _BAD
        for child in range(number + 1, len(self)):  # children always come after their parents
            if self._flags[self._parents[child]] & _BAD:
                self._flags[child] |= _BAD
        for leaf in [leaf for leaf in self._leaves if self._flags[leaf] & _BAD]:
            self._leaves.discard(leaf)
            self._leaves.add(self._first_with(leaf, lambda flags: not flags & _BAD))
        old = self._tip
        self._set_best(max(self._leaves, key=self._rank))
        whole = {self._first_with(leaf, lambda flags: bool(flags & _WHOLE)) for leaf in self._leaves}
        self._tip = max(whole, key=self._rank)
        return self._way(old, self._tip) if self._tip != old else None

    # --- inside

    def _number(self, block_id: bytes) -> int:
        number = self._ids.number(block_id)
        if number is None:
            raise KeyError(block_id)
        return number

    def _header(self, number: int) -> bytes:
        size = self.ledger.header_bytes
        return bytes(self._headers[size * number : size * (number + 1)])

    def _work(self, number: int) -> int:
        return int.from_bytes(self._works[_WORK_BYTES * number : _WORK_BYTES * (number + 1)], "little")

    def _rank(self, number: int) -> tuple[int, int]:
        return self._work(number), -number

    def _on_main(self, number: int) -> bool:
        height = self._heights[number]
        return height < len(self._main) and self._main[height] == number

    def _append(self, block_id: bytes, header: bytes, parent: int, height: int, flags: int) -> int:
        number = self._ids.add(block_id)
        before = self._work(parent) if number else 0
        self._headers += header
        self._parents.append(parent)
        self._heights.append(height)
        self._works += (before + self.ledger.work(header)).to_bytes(_WORK_BYTES, "little")
        self._flags.append(flags)
        self._leaves.discard(parent)
        self._leaves.add(number)
        return number

    def _insert(self, block_id: bytes, header: bytes, parent: int) -> int:
        flags = self._flags[parent] & _BAD
        number = self._append(block_id, header, parent, self._heights[parent] + 1, flags)
        if not flags and self._work(number) > self._work(self._best):
            self._set_best(number)
        return number

    def _set_best(self, number: int) -> None:
        height = self._heights[number]
        del self._main[height + 1 :]
        fresh = []
        at = number
        while self._heights[at] >= len(self._main) or self._main[self._heights[at]] != at:
            fresh.append(at)
            at = self._parents[at]
        del self._main[self._heights[at] + 1 :]
        self._main.extend(reversed(fresh))
        self._best = number

    def _receive(self, number: int) -> None:
        self._flags[number] |= _BODY
        parent = self._parents[number]
        if not self._flags[parent] & _WHOLE:
            self._waiting.setdefault(parent, set()).add(number)
            return
        made_whole = [number]
        while made_whole:
            number = made_whole.pop()
            self._flags[number] |= _WHOLE
            if not self._flags[number] & _BAD and self._work(number) > self._work(self._tip):
                self._tip = number
            made_whole += self._waiting.pop(number, ())

    def _first_with(self, number: int, wanted: Callable[[int], bool]) -> int:
        while number and not wanted(self._flags[number]):
            number = self._parents[number]
        return number

    def _ancestor(self, number: int, height: int) -> int:
        while self._heights[number] > height:
            if self._on_main(number):
                return self._main[height]
            number = self._parents[number]
        return number

    def _fork(self, one: int, other: int) -> int:
        height = min(self._heights[one], self._heights[other])
        one, other = self._ancestor(one, height), self._ancestor(other, height)
        while one != other:
            one, other = self._parents[one], self._parents[other]
        return one

    def _way(self, old: int, new: int) -> Reorganisation:
        fork = self._fork(old, new)
        return Reorganisation(list(self._down(old, fork)), list(self._down(new, fork))[::-1])

    def _down(self, number: int, until: int) -> Iterator[bytes]:
        while number != until:
            yield self._ids[number]
            number = self._parents[number]


class ChainBranch:
    """The headers of a chain up to one of them (``port.Branch``)."""

    __slots__ = ("_chain", "_number", "height")

    def __init__(self, chain: Chain, number: int) -> None:
        self._chain = chain
        self._number = number
        self.height = chain._heights[number]

    def header(self, height: int) -> bytes:
        return self._chain._header(self._chain._ancestor(self._number, height))

    def recent(self, count: int) -> list[bytes]:
        headers, number = [], self._number
        for _ in range(min(count, self.height + 1)):
            headers.append(self._chain._header(number))
            number = self._chain._parents[number]
        return headers
