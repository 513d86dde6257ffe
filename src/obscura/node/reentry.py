"""What a change of the tip does to waiting transactions: a block's leave, those of blocks left behind come back (design 12).

A start begins with the newest blocks: what they have may be on the disk as waiting still, after a crash, and may be announced by
peers on another branch. Then come the branches that were left lately, whose transactions a crash may have lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf

from obscura.errors import DecodeError
from obscura.ledger.chain import Reorganisation
from obscura.ledger.port import Transaction
from obscura.limits import KEPT_BLOCKS, REENTRY_DEPTH
from obscura.node.blocks import Blocks, NewTip
from obscura.node.effects import Effect
from obscura.node.transactions import TransactionRelay


class _Job:
    """One reorganisation: first the blocks that came in are read, then those that went out, the newest first."""

    def __init__(self, step: NewTip) -> None:
        self.disconnect = deque(step.way.disconnect)
        self.has_left = bool(self.disconnect)  # its transactions may come back, unless any of the new blocks has them
        self.connect = deque(step.way.connect if self.has_left else step.way.connect[-KEPT_BLOCKS:])
        self.ids: set[bytes] = set()
        self.spent: set[bytes] = set()

    def confirm(self, transactions: Iterable[Transaction]) -> None:
        for transaction in transactions if self.has_left else ():
            self.ids.add(transaction.id)
            self.spent.update(transaction.spends)

    def may_return(self, transaction: Transaction) -> bool:
        return transaction.id not in self.ids and self.spent.isdisjoint(transaction.spends)


class Reentry:
    """Follows the acknowledged tip, one block of the archive after the other."""

    def __init__(self, blocks: Blocks, transactions: TransactionRelay) -> None:
        self._blocks = blocks
        self._transactions = transactions
        self._jobs: deque[_Job] = deque()
        chain = blocks.chain
        newest = range(max(1, chain.tip_height - REENTRY_DEPTH + 1), chain.tip_height + 1)
        ids = [chain.ancestor(chain.tip, height) for height in newest]
        if ids:
            self._jobs.append(_Job(NewTip(Reorganisation([], ids), chain.tip, None)))
        for end in chain.left_behind(REENTRY_DEPTH):
            self._jobs.append(_Job(NewTip(chain.reorganisation(end, chain.tip), chain.tip, None)))
        self._begin_at = 0.0 if self._jobs else inf

    def deadline(self) -> float:
        return self._begin_at

    def due(self, now: float) -> Iterable[Effect]:
        """Begin with what an earlier run may not have come to."""
        self._begin_at = inf
        return self._next(now)

    def follow(self, step: NewTip, now: float) -> Iterable[Effect]:
        """A step of the tip."""
        way, block = step.way, step.block
        if not way.disconnect and block is not None and len(way.connect) == 1:
            self._transactions.confirmed(block.transactions, now)
            for job in self._jobs:  # all of them are older steps: what they left behind is in a block again
                job.confirm(block.transactions)
            return ()
        is_quiet = not len(self._transactions.mempool) and not any(job.has_left for job in self._jobs)
        if not way.disconnect and is_quiet:
            return ()  # many blocks at once and nothing waits, or is about to: nothing to look for in them
        self._jobs.append(_Job(step))
        return self._next(now) if len(self._jobs) == 1 else ()

    def _next(self, now: float) -> Iterable[Effect]:
        while self._jobs:
            job = self._jobs[0]
            if job.connect:
                return (self._blocks.fetch(job.connect.popleft(), self._connected),)
            if job.disconnect:
                return (self._blocks.fetch(job.disconnect.popleft(), self._disconnected),)
            self._jobs.popleft()
        return ()

    def _connected(self, raw: bytes | None, now: float) -> Iterable[Effect]:
        found = self._read(raw)
        self._transactions.confirmed(found, now)
        self._jobs[0].confirm(found)  # not the jobs behind it: those may leave this very block behind
        return self._next(now)

    def _disconnected(self, raw: bytes | None, now: float) -> Iterable[Effect]:
        job, found = self._jobs[0], self._read(raw)
        back = [transaction for transaction in found if job.may_return(transaction)]
        self._transactions.unconfirmed(back)
        effects: list[Effect] = []
        for transaction in back:
            if self._transactions.mempool.is_full:
                break  # it would push out what came since; but whoever has it may bring it once there is room
            effects += self._transactions.admit(transaction, None, now)[1]
        return [*effects, *self._next(now)]

    def _read(self, raw: bytes | None) -> list[Transaction]:
        if raw is None:
            return []  # pruned
        try:
            return self._blocks.chain.ledger.decode_block(raw).transactions
        except DecodeError:
            return []
