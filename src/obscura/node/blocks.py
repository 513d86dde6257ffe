"""Blocks on their way into the chain: checked, given to the archive, acknowledged once they are on its disk.

A tip counts (is announced, shown, asked about) only after ``kept``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from obscura.errors import DecodeError
from obscura.ledger.chain import Chain, Reorganisation
from obscura.ledger.port import Block, Fault, FaultKind
from obscura.limits import BLOCK_BYTES_ASSUMED, KEPT_BLOCKS
from obscura.node.effects import DAMAGED, Effect, Fetch, Keep

UNREADABLE = Fault(FaultKind.BODY, "not a block")
KNOWN = Fault(FaultKind.EARLY, "known already")
Then = Callable[[bytes | None, float], Iterable[Effect]]


class NewTip(msgspec.Struct, frozen=True):
    """A step of the tip: the way to it, and its newest block if that just came."""

    way: Reorganisation
    tip: bytes
    block: Block | None


class _Unkept(msgspec.Struct, frozen=True):
    token: int
    size: int
    step: NewTip | None


class Blocks:
    """The chain, its archive and what is between them."""

    def __init__(self, chain: Chain, unix: Callable[[], int]) -> None:
        self.chain = chain
        self.tip = chain.tip  # acknowledged: on the disk with everything below it
        self.unkept_bytes = 0
        self.size_expected = float(BLOCK_BYTES_ASSUMED)  # bytes of the next block, rather too high
        self._unix = unix
        self.newest_token = 0
        self._unkept: deque[_Unkept] = deque()
        self._last_read = 0
        self._reading: dict[int, tuple[bytes, Then]] = {}
        self.lost: dict[bytes, None] = {}  # checked blocks whose bodies the disk has no more; they are taken once again
        self._mended: set[bytes] = set()

    @property
    def tip_height(self) -> int:
        """Height of ``tip``."""
        return self.chain.height(self.tip)

    def at(self, height: int) -> bytes:
        """Id of the block at ``height`` below the acknowledged tip. ``KeyError`` above it."""
        if not 0 <= height <= self.tip_height:
            raise KeyError(height)
        return self.chain.ancestor(self.tip, height)

    def may_show(self, block_id: bytes, tip: bytes) -> bool:
        """Whether a peer that is shown ``tip`` may have the block. Old ones off the chain tell nodes (and faces) apart."""
        chain = self.chain
        if block_id not in chain or not chain.has_body(block_id) or chain.is_bad(block_id):
            return False
        height, tip_height = chain.height(block_id), chain.height(tip)
        return tip_height - height < KEPT_BLOCKS or chain.ancestor(tip, height) == block_id

    # --- Headers ------------------------------------------------------------------------------------------------------

    def add_headers(self, headers: Sequence[bytes]) -> tuple[list[Effect], Fault | None]:
        """Add headers to the tree until one is refused."""
        new, fault = self.chain.add_all(headers, self._unix())
        return ([self.keep(headers=tuple(new))] if new else []), fault

    # --- Blocks -------------------------------------------------------------------------------------------------------

    def accept(self, raw: bytes) -> tuple[list[Effect], Fault | None]:
        """Check a block whose header may be new, and take it. A ``BODY`` fault says nothing about its header."""
        ledger = self.chain.ledger
        try:
            return self.accept_decoded(ledger.decode_block(raw))
        except DecodeError:
            return [], UNREADABLE

    def accept_decoded(self, block: Block) -> tuple[list[Effect], Fault | None]:
        """The same for a block that was taken apart already."""
        chain, block_id = self.chain, block.id
        effects, fault = self.add_headers([block.header])
        if fault is not None:
            return effects, fault
        if chain.has_body(block_id) and block_id not in self.lost:
            return effects, KNOWN
        height = chain.height(block_id)
        fault = chain.ledger.check_block(block, height)
        if fault is not None:
            return effects + (self.refuse(block_id) if fault.kind is FaultKind.INVALID else []), fault
        size = len(block.raw)
        if block_id in self.lost:
            del self.lost[block_id]
            self._mended.add(block_id)
        self.size_expected = max(float(size), self.size_expected * 0.9)
        way = chain.received(block_id)
        tip = None if way is None else (chain.tip, chain.tip_height)
        step = None if way is None else NewTip(way, chain.tip, block if chain.tip == block_id else None)
        return [*effects, self.keep(block=(block_id, block.raw, height), tip=tip, size=size, step=step)], None

    def refuse(self, block_id: bytes) -> list[Effect]:
        """The block breaks rules that its header's work cannot mend."""
        way = self.chain.refuse(block_id)
        if way is None:
            return [self.keep(refused=block_id)]
        tip = self.chain.tip
        return [self.keep(refused=block_id, tip=(tip, self.chain.tip_height), step=NewTip(way, tip, None))]

    # --- The archive --------------------------------------------------------------------------------------------------

    def keep(
        self,
        *,
        headers: tuple[bytes, ...] = (),
        block: tuple[bytes, bytes, int] | None = None,
        refused: bytes | None = None,
        tip: tuple[bytes, int] | None = None,
        size: int = 0,
        step: NewTip | None = None,
    ) -> Keep:
        token = self.next_token()
        if block is not None or step is not None:
            self._unkept.append(_Unkept(token, size, step))
            self.unkept_bytes += size
        return Keep(token, headers=headers, block=block, refused=refused, tip=tip)

    def next_token(self) -> int:
        """For a ``Keep`` of another part of the chain."""
        self.newest_token += 1
        return self.newest_token

    def kept(self, token: int) -> list[NewTip]:
        """Everything up to ``token`` is on the disk: the steps that the acknowledged tip takes."""
        steps = []
        while self._unkept and self._unkept[0].token <= token:
            done = self._unkept.popleft()
            self.unkept_bytes -= done.size
            if done.step is not None:
                self.tip = done.step.tip
                steps.append(done.step)
        return steps

    def fetch(self, block_id: bytes, then: Then) -> Fetch:
        """Read a block; ``then`` gets its bytes, or None."""
        self._last_read += 1
        token = self._last_read
        self._reading[token] = block_id, then
        return Fetch(block_id, token)

    def fetched(self, token: int, raw: bytes | None, now: float) -> Iterable[Effect]:
        block_id, then = self._reading.pop(token, (b"", None))
        if then is None:
            return ()
        if raw == DAMAGED:
            self.lose(block_id)
        return then(raw or None, now)

    def lose(self, block_id: bytes) -> None:
        """The disk has damaged its body. Once a run: where the second copy does not last, a third is of no use."""
        if block_id in self.chain and self.chain.has_body(block_id) and block_id not in self._mended:
            self.lost[block_id] = None
