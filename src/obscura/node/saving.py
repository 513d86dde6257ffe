"""What of the mempool changed since the disk last heard of it (design 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from obscura.errors import DecodeError
from obscura.ledger.port import Ledger
from obscura.limits import CLOCK_LEAP_S, MEMPOOL_KEEP_S
from obscura.node.effects import Effect, Keep, Waiting
from obscura.node.mempool import Entry, Mempool, Verdict


class Saving:
    """Own transactions are due at once, others within ``MEMPOOL_KEEP_S``."""

    __slots__ = ("_gone", "_looked", "_mempool", "_next_token", "_unsaved", "at")

    def __init__(self, mempool: Mempool, next_token: Callable[[], int]) -> None:
        self.at = inf  # when to save
        self._mempool = mempool
        self._next_token = next_token
        self._unsaved: dict[bytes, None] = {}
        self._gone: dict[bytes, None] = {}
        self._looked: tuple[float, float] | None = None  # at which time of which clock: the set one, the one of spans

    def restore(self, ledger: Ledger, waiting: Iterable[Waiting]) -> Iterable[bytes]:
        """Put what the disk has into the mempool, as much as there is room for; the ids of what waits again."""
        found: dict[bytes, None] = {}
        for kept in waiting:
            self.at = 0.0
            try:
                transaction = ledger.decode_transaction(kept.raw)
            except DecodeError:
                self._gone[kept.id] = None
                continue
            verdict, evicted = self._mempool.add(transaction, None, kept.arrival, kept.own)
            if verdict is Verdict.ACCEPTED:
                found[transaction.id] = None
            else:
                self._gone[kept.id] = None
            for entry in evicted:
                found.pop(entry.transaction.id, None)
                self._gone[entry.transaction.id] = None
        return found

    def came(self, transaction_id: bytes, now: float, *, own: bool) -> None:
        """It waits now."""
        self._unsaved[transaction_id] = None
        self._gone.pop(transaction_id, None)
        self.at = min(self.at, now if own else now + MEMPOOL_KEEP_S)

    def went(self, transaction_id: bytes, now: float) -> None:
        """It waits no longer. It may be on the disk, though unsaved: from when it waited before."""
        self._unsaved.pop(transaction_id, None)
        self._gone[transaction_id] = None
        self.at = min(self.at, now + MEMPOOL_KEEP_S)

    def expired(self, unix: float, now: float) -> list[Entry]:
        """What waited too long. Where the clock was far behind and is set right, nothing waited for all that it leaps over."""
        before, self._looked = self._looked, (unix, now)
        leap = 0.0 if before is None else (unix - before[0]) - (now - before[1])
        if leap >= CLOCK_LEAP_S:
            self._unsaved.update(dict.fromkeys(self._mempool.put_later(leap, unix)))
        return self._mempool.expire(unix)

    def save(self) -> list[Effect]:
        """What changed since the last time, for the disk."""
        self.at = inf
        entries = [self._mempool.get(transaction_id) for transaction_id in self._unsaved]
        fresh = tuple(Waiting(e.transaction.id, e.transaction.raw, e.arrival, e.own) for e in entries if e is not None)
        dropped = tuple(self._gone)
        self._unsaved.clear()
        self._gone.clear()
        return [Keep(self._next_token(), transactions=fresh, dropped=dropped)] if fresh or dropped else []
