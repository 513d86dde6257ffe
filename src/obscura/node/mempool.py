"""Transactions that wait for a block (design 12): first seen wins an outpoint, no peer fills it, nobody waits for ever. Pure.

The stem pool of transactions that are not public yet is not here and shares nothing with this.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec
from msgspec import structs

from obscura.ledger.port import Ledger, Transaction
from obscura.limits import MAX_RELAYED_TX, MEMPOOL_BYTES, MEMPOOL_ENTRY_BYTES, MEMPOOL_S, MEMPOOL_SHARE

Source = int | None  # the link that brought it; None = ourselves, the disk, a block that is no longer in the chain


class Verdict(Enum):
    """What became of a transaction."""

    ACCEPTED = "accepted"
    KNOWN = "waits already"
    CONFLICT = "spends what another waiting transaction spends"
    TOO_LARGE = f"over {MAX_RELAYED_TX // 1000} kB"
    INVALID = "breaks the ledger's rules"
    SHARE = "too many of this peer's transactions wait"

    @property
    def is_fault(self) -> bool:
        """Whether no honest peer relays such a transaction."""
        return self in (Verdict.TOO_LARGE, Verdict.INVALID)


class Entry(msgspec.Struct, frozen=True):
    """One waiting transaction. ``arrival`` in unix seconds."""

    transaction: Transaction
    arrival: float
    source: Source
    own: bool

    @property
    def cost(self) -> int:
        """Bytes that it takes of the mempool."""
        return len(self.transaction.raw) + MEMPOOL_ENTRY_BYTES


class Mempool:
    """Waiting transactions by id, in order of arrival."""

    def __init__(self, ledger: Ledger, max_bytes: int = MEMPOOL_BYTES) -> None:
        self.bytes = 0
        self._ledger = ledger
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()  # taking from its front costs the same at any size
        self._spenders: dict[bytes, bytes] = {}  # outpoint -> id
        self._sources: dict[Source, OrderedDict[bytes, None]] = {}
        self._source_bytes: dict[Source, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, transaction_id: object) -> bool:
        return transaction_id in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def is_full(self) -> bool:
        """Whether what comes now pushes something else out."""
        return self.bytes + MAX_RELAYED_TX >= self._max_bytes

    def get(self, transaction_id: bytes) -> Entry | None:
        return self._entries.get(transaction_id)

    def judge(self, transaction: Transaction) -> Verdict:
        """What ``add`` would say, but for who brings it and how much room there is."""
        if transaction.id in self._entries:
            return Verdict.KNOWN
        if len(transaction.raw) > MAX_RELAYED_TX:
            return Verdict.TOO_LARGE
        if self._ledger.check_transaction(transaction) is not None:
            return Verdict.INVALID
        if any(outpoint in self._spenders for outpoint in transaction.spends):
            return Verdict.CONFLICT
        return Verdict.ACCEPTED

    def add(
        self, transaction: Transaction, source: Source, unix: float, own: bool = False
    ) -> tuple[Verdict, list[Entry]]:
        """Admit a transaction, or say why not; and what had to go for it."""
        verdict = self.judge(transaction)
        if verdict is not Verdict.ACCEPTED:
            return verdict, []
        entry = Entry(transaction, unix, source, own)
        share = self._source_bytes.get(source, 0) + entry.cost
        if source is not None and share > self._max_bytes // MEMPOOL_SHARE:
            return Verdict.SHARE, []
        self._insert(entry)
        gone = []
        while self.bytes > self._max_bytes:
            gone.append(self._evict())
        return (Verdict.ACCEPTED if transaction.id in self._entries else Verdict.SHARE), gone

    def expire(self, unix: float) -> list[Entry]:
        """Take out what has waited too long. Looks at all: a clock that was ahead for a while put one before older ones."""
        gone = [entry for entry in self._entries.values() if unix - entry.arrival >= MEMPOOL_S]
        for entry in gone:
            self._remove(entry.transaction.id)
        return gone

    def put_later(self, leap: float, unix: float) -> Iterable[bytes]:
        """The clock was behind by ``leap``, so all came that much later, if not after ``unix``; the ids."""
        for transaction_id, entry in self._entries.items():
            self._entries[transaction_id] = structs.replace(entry, arrival=min(entry.arrival + leap, unix))
        return self._entries.keys()

    def confirm(self, transactions: Iterable[Transaction]) -> list[Entry]:
        """Take out what a block brought, and what can no longer be in any block beside it."""
        gone: list[Entry] = []
        if not self._entries:
            return gone
        for transaction in transactions:
            if transaction.id in self._entries:
                gone.append(self._remove(transaction.id))
                continue
            for outpoint in transaction.spends:
                spender = self._spenders.get(outpoint)
                if spender is not None:
                    gone.append(self._remove(spender))
        return gone

    def _insert(self, entry: Entry) -> None:
        transaction_id = entry.transaction.id
        self._entries[transaction_id] = entry
        for outpoint in entry.transaction.spends:
            self._spenders[outpoint] = transaction_id
        self._sources.setdefault(entry.source, OrderedDict())[transaction_id] = None
        self._source_bytes[entry.source] = self._source_bytes.get(entry.source, 0) + entry.cost
        self.bytes += entry.cost

    def _evict(self) -> Entry:
        """The oldest transaction of whoever takes most room; own ones only if nothing else is there."""
        sources: list[Source] = [source for source in self._sources if source is not None]
        sources = sources or list(self._sources)
        largest = max(sources, key=lambda source: self._source_bytes[source])
        ids = self._sources[largest]
        foreign = (transaction_id for transaction_id in ids if not self._entries[transaction_id].own)
        return self._remove(next(foreign, None) or next(iter(ids)))

    def _remove(self, transaction_id: bytes) -> Entry:
        entry = self._entries.pop(transaction_id)
        for outpoint in entry.transaction.spends:
            self._spenders.pop(outpoint, None)
        ids = self._sources[entry.source]
        del ids[transaction_id]
        self._source_bytes[entry.source] -= entry.cost
        if not ids:
            del self._sources[entry.source], self._source_bytes[entry.source]
        self.bytes -= entry.cost
        return entry
