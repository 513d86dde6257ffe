"""Compact blocks (BIP152, version 2): a block by six-byte ids of its transactions, and the block put together again. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from siphashc import siphash

from obscura.errors import DecodeError
from obscura.ledger.port import Block, Ledger, Transaction
from obscura.limits import MAX_BLOCK_TXS
from obscura.wire.fields import U64, Reader, compact_size
from obscura.wire.messages.blocks import SHORT_ID_BYTES, BlockTxn, CmpctBlock

_KEY_BYTES = 16  # k0 and k1, as SipHash takes them


def short_id_key(header: bytes, nonce: int) -> bytes:
    """The key of a compact block's short ids (BIP152, Short transaction IDs)."""
    return sha256(header + U64.pack(nonce)).digest()[:_KEY_BYTES]


def short_id(key: bytes, witness_id: bytes) -> bytes:
    """SipHash-2-4 of the witness id, the two most significant bytes dropped."""
    return U64.pack(siphash(key, witness_id))[:SHORT_ID_BYTES]


def compact_form(block: Block, nonce: int) -> CmpctBlock:
    """A block as its compact form, the coinbase whole: nobody else has that one."""
    key = short_id_key(block.header, nonce)
    ids = tuple(short_id(key, transaction.witness_id) for transaction in block.transactions[1:])
    return CmpctBlock(block.header, nonce, ids, b"\x01\x00" + block.transactions[0].raw)


def transactions_of(block: Block, indexes: Iterable[int]) -> BlockTxn | None:
    """The answer to getblocktxn; None for an index that the block does not have."""
    chosen = list(indexes)
    if any(index >= len(block.transactions) for index in chosen):
        return None
    raw = [block.transactions[index].raw for index in chosen]
    return BlockTxn(block.id, b"".join((compact_size(len(raw)), *raw)))


def read_transactions(ledger: Ledger, message: BlockTxn) -> list[Transaction]:
    """The transactions of a blocktxn. Raises ``DecodeError``."""
    raw = message.transactions
    reader = Reader(raw)
    count, at = reader.count(MAX_BLOCK_TXS + 1, 1), reader.position
    found = []
    for _ in range(count):
        transaction, at = ledger.scan_transaction(raw, at)
        found.append(transaction)
    if at != len(raw):
        raise DecodeError(f"{len(raw) - at} bytes too many")
    return found


class Reconstruction:
    """A block being put together: from what came with it, what waits here anyway, and what is asked for."""

    def __init__(self, ledger: Ledger, message: CmpctBlock, waiting: Iterable[Transaction]) -> None:
        """``waiting``: transactions that are public. Raises ``DecodeError`` for a message that contradicts itself."""
        self._ledger = ledger
        self._header = message.header
        self.block_id = ledger.block_id(message.header)
        self._slots: list[Transaction | None] = self._prefill(message)
        places: dict[bytes, int] = {}
        rest = (index for index, slot in enumerate(self._slots) if slot is None)
        for index, id in zip(rest, message.short_ids, strict=True):
            places[id] = index
        # Two of the block's own ids collide: ask for it whole.
        self.is_ambiguous = len(places) != len(message.short_ids)
        if not self.is_ambiguous:
            self._match(message, places, waiting)

    def _prefill(self, message: CmpctBlock) -> list[Transaction | None]:
        raw = message.prefilled
        reader = Reader(raw)
        count = reader.count(MAX_BLOCK_TXS, 1)
        total = len(message.short_ids) + count
        if not total or total > MAX_BLOCK_TXS:
            raise DecodeError(f"a compact block of {total} transactions")
        slots: list[Transaction | None] = [None] * total
        index = -1
        for _ in range(count):
            index += reader.compact_size(MAX_BLOCK_TXS) + 1
            if index >= total:
                raise DecodeError("a prefilled transaction behind the end of its block")
            slots[index], end = self._ledger.scan_transaction(raw, reader.position)
            reader.take(end - reader.position)
        reader.finish()
        return slots

    def _match(self, message: CmpctBlock, places: dict[bytes, int], waiting: Iterable[Transaction]) -> None:
        key = short_id_key(message.header, message.nonce)
        twice = set()
        for transaction in waiting:
            index = places.get(short_id(key, transaction.witness_id))
            if index is None or index in twice:
                continue
            if self._slots[index] is None:
                self._slots[index] = transaction
            else:  # two of ours fit: only the block itself tells which
                twice.add(index)
                self._slots[index] = None

    @property
    def missing(self) -> tuple[int, ...]:
        """Indexes of the transactions that are not here, ascending."""
        return tuple(index for index, slot in enumerate(self._slots) if slot is None)

    def fill(self, transactions: list[Transaction]) -> bool:
        """Put in what was asked for. False if it is not that many."""
        missing = self.missing
        if len(missing) != len(transactions):
            return False
        for index, transaction in zip(missing, transactions, strict=True):
            self._slots[index] = transaction
        return True

    def block(self) -> Block:
        """The block, once nothing is missing; a collision shows as a wrong merkle root."""
        transactions = [slot for slot in self._slots if slot is not None]
        raw = self._ledger.encode_block(self._header, [transaction.raw for transaction in transactions])
        return Block(raw, self._header, self.block_id, transactions)
