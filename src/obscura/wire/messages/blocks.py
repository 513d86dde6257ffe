"""Block messages: inv, getblocks, getheaders, headers, block (specification, Message Types); compact blocks.

Compact block relay is BIP152, version 2, under the feature CompactBlocks. Only the ledger knows where a
transaction ends: transactions in these messages stay raw here, with their count.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import chain, starmap
from struct import Struct
from typing import ClassVar, Final, Self

import msgspec

from obscura.errors import DecodeError
from obscura.limits import (
    HEADER_ITEM_BYTES,
    MAX_BLOCK,
    MAX_BLOCK_TXS,
    MAX_HEADERS,
    MAX_INVENTORY,
    MAX_LOCATOR,
)
from obscura.wire.fields import U32, U64, Reader, compact_size
from obscura.wire.message import HASH_BYTES, Hash, Message, Phase, RawMessage, Uint16, Uint32, Uint64

_ITEM = Struct("<I32s")
_SEND_CMPCT = Struct("<BQ")
_COUNT_BYTES: Final = 3  # of a CompactSize up to 65,535
BLOCK_HEADER_BYTES: Final = HEADER_ITEM_BYTES - 1  # of Bitcoin, which compact blocks are made for
SHORT_ID_BYTES: Final = 6  # BIP152, Short transaction IDs


class InventoryKind(IntEnum):
    """What a hash in an inventory stands for. Other numbers are kept and ignored."""

    TX = 1
    BLOCK = 2
    COMPACT_BLOCK = 4  # in getdata only (BIP152, MSG_CMPCT_BLOCK)


class InventoryItem(msgspec.Struct, frozen=True, gc=False):
    """A kind and a hash."""

    kind: Uint32
    hash: Hash


class Inventory(Message, frozen=True, gc=False):
    """CompactSize count, then kind u32 and hash 32 each. Base of inv, getdata and notfound."""

    MAX_SIZE: ClassVar[int] = _COUNT_BYTES + MAX_INVENTORY * _ITEM.size

    items: tuple[InventoryItem, ...]

    def encode(self) -> bytes:
        items = self.items
        if len(items) > MAX_INVENTORY:
            raise ValueError(f"at most {MAX_INVENTORY} items")
        if any(len(item.hash) != HASH_BYTES for item in items):
            raise ValueError(f"a hash has {HASH_BYTES} bytes")
        fields = chain.from_iterable((item.kind, item.hash) for item in items)
        return compact_size(len(items)) + Struct("<" + "I32s" * len(items)).pack(*fields)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        count = reader.count(MAX_INVENTORY, _ITEM.size)
        items = reader.take(count * _ITEM.size)
        reader.finish()
        return cls(tuple(starmap(InventoryItem, _ITEM.iter_unpack(items))))


class Inv(Inventory, frozen=True, gc=False):
    """inv: Inventory announcement (specification, Block Messages)."""

    TYPE: ClassVar[str] = "inv"


class _Locator(Message, frozen=True, gc=False):
    """version u32, CompactSize count and hashes from newest to oldest, hash to stop at (zeros: none)."""

    MAX_SIZE: ClassVar[int] = U32.size + 1 + (MAX_LOCATOR + 1) * HASH_BYTES

    version: Uint32
    locator: tuple[Hash, ...]
    stop_hash: Hash

    def encode(self) -> bytes:
        if len(self.locator) > MAX_LOCATOR:
            raise ValueError(f"at most {MAX_LOCATOR} hashes")
        hashes = (*self.locator, self.stop_hash)
        if any(len(hash) != HASH_BYTES for hash in hashes):
            raise ValueError(f"a hash has {HASH_BYTES} bytes")
        return U32.pack(self.version) + compact_size(len(self.locator)) + b"".join(hashes)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        version, count = reader.u32(), reader.count(MAX_LOCATOR, HASH_BYTES)
        locator = tuple(reader.take(HASH_BYTES) for _ in range(count))
        message = cls(version, locator, reader.take(HASH_BYTES))
        reader.finish()
        return message


class GetBlocks(_Locator, frozen=True, gc=False):
    """getblocks: Request block list (specification, Block Messages)."""

    TYPE: ClassVar[str] = "getblocks"


class GetHeaders(_Locator, frozen=True, gc=False):
    """getheaders: Request headers (specification, Block Messages)."""

    TYPE: ClassVar[str] = "getheaders"


class Headers(Message, frozen=True, gc=False):
    """headers: Block headers only (specification, Block Messages).

    Each header is raw, in the ledger's encoding, with a zero byte behind it (Bitcoin's count of no
    transactions). All headers of one message have the same length, which follows from the size of the
    payload: 80 bytes with the built-in ledger.
    """

    TYPE: ClassVar[str] = "headers"
    MAX_SIZE: ClassVar[int] = _COUNT_BYTES + MAX_HEADERS * HEADER_ITEM_BYTES

    headers: tuple[bytes, ...]

    @classmethod
    def most(cls, header_bytes: int) -> int:
        """Headers of that length that one message holds: a full one says that there may be more."""
        return min(MAX_HEADERS, (cls.MAX_SIZE - _COUNT_BYTES) // (header_bytes + 1))

    def encode(self) -> bytes:
        if len(self.headers) > MAX_HEADERS:
            raise ValueError(f"at most {MAX_HEADERS} headers")
        if len({len(header) for header in self.headers} - {0}) != bool(self.headers) or b"" in self.headers:
            raise ValueError("headers of one message have the same length, not 0")
        return compact_size(len(self.headers)) + b"".join(header + b"\0" for header in self.headers)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        count = reader.count(MAX_HEADERS, 2)
        items = reader.rest()
        if not count:
            if items:
                raise DecodeError(f"{len(items)} bytes too many")
            return cls(())
        step, odd = divmod(len(items), count)
        if odd or items[step - 1 :: step].count(0) != count:
            raise DecodeError(
                f"{count} headers of one length, each with a zero byte behind it, are not {len(items)} bytes"
            )
        return cls(tuple(items[at : at + step - 1] for at in range(0, len(items), step)))


class Block(RawMessage, frozen=True, gc=False):
    """block: Full block data (specification, Block Messages). The ledger's encoding, not looked into here."""

    TYPE: ClassVar[str] = "block"
    MAX_SIZE: ClassVar[int] = MAX_BLOCK


class SendCmpct(Message, frozen=True, gc=False):
    """sendcmpct: how the sender wants to hear of blocks (BIP152); before verack, and later to change it.

    ``announce``: send cmpctblock without asking (high-bandwidth mode).
    """

    TYPE: ClassVar[str] = "sendcmpct"
    MAX_SIZE: ClassVar[int] = _SEND_CMPCT.size
    PHASE: ClassVar[Phase] = Phase.ALWAYS

    announce: bool
    version: Uint64

    def encode(self) -> bytes:
        return _SEND_CMPCT.pack(self.announce, self.version)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        if len(payload) != _SEND_CMPCT.size:
            raise DecodeError(f"{_SEND_CMPCT.size} bytes wanted, {len(payload)} there")
        announce, version = _SEND_CMPCT.unpack(payload)
        if announce > 1:
            raise DecodeError("announce is 0 or 1")
        return cls(bool(announce), version)


class CmpctBlock(Message, frozen=True, gc=False):
    """cmpctblock: a block by short transaction ids (BIP152, HeaderAndShortIDs).

    ``header`` has 80 bytes. ``prefilled`` is raw: CompactSize count, then for each a differential index
    (CompactSize) and a transaction in the ledger's encoding.
    """

    TYPE: ClassVar[str] = "cmpctblock"
    MAX_SIZE: ClassVar[int] = MAX_BLOCK  # a larger one would save nothing: the block itself is sent then

    header: bytes
    nonce: Uint64
    short_ids: tuple[bytes, ...]
    prefilled: bytes

    def encode(self) -> bytes:
        if len(self.header) != BLOCK_HEADER_BYTES:
            raise ValueError(f"a header has {BLOCK_HEADER_BYTES} bytes")
        if len(self.short_ids) > MAX_BLOCK_TXS or any(len(id) != SHORT_ID_BYTES for id in self.short_ids):
            raise ValueError(f"at most {MAX_BLOCK_TXS} short ids of {SHORT_ID_BYTES} bytes")
        ids = compact_size(len(self.short_ids)) + b"".join(self.short_ids)
        return self.header + U64.pack(self.nonce) + ids + self.prefilled

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        header, nonce = reader.take(BLOCK_HEADER_BYTES), reader.u64()
        ids = reader.take(reader.count(MAX_BLOCK_TXS, SHORT_ID_BYTES) * SHORT_ID_BYTES)
        short_ids = tuple(ids[at : at + SHORT_ID_BYTES] for at in range(0, len(ids), SHORT_ID_BYTES))
        return cls(header, nonce, short_ids, reader.rest())


class GetBlockTxn(Message, frozen=True, gc=False):
    """getblocktxn: transactions of a compact block that the sender lacks (BIP152, BlockTransactionsRequest).

    ``indexes`` are absolute and ascending, 0 to 65,535; the wire has the differences.
    """

    TYPE: ClassVar[str] = "getblocktxn"
    MAX_SIZE: ClassVar[int] = HASH_BYTES + 5 + 3 * (MAX_BLOCK_TXS + 1)

    block_hash: Hash
    indexes: tuple[Uint16, ...]

    def encode(self) -> bytes:
        if len(self.block_hash) != HASH_BYTES:
            raise ValueError(f"a hash has {HASH_BYTES} bytes")
        parts = [self.block_hash, compact_size(len(self.indexes))]
        expected = 0
        for index in self.indexes:
            if not expected <= index <= MAX_BLOCK_TXS:
                raise ValueError(f"indexes ascend, up to {MAX_BLOCK_TXS}")
            parts.append(compact_size(index - expected))
            expected = index + 1
        return b"".join(parts)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        block_hash = reader.take(HASH_BYTES)
        indexes = []
        expected = 0
        for _ in range(reader.count(MAX_BLOCK_TXS + 1, 1)):
            index = expected + reader.compact_size(MAX_BLOCK_TXS)
            if index > MAX_BLOCK_TXS:
                raise DecodeError(f"index {index} over the limit {MAX_BLOCK_TXS}")
            indexes.append(index)
            expected = index + 1
        reader.finish()
        return cls(block_hash, tuple(indexes))


class BlockTxn(Message, frozen=True, gc=False):
    """blocktxn: the transactions that getblocktxn asked for (BIP152, BlockTransactions).

    ``transactions`` is raw: CompactSize count, then the transactions in the ledger's encoding.
    """

    TYPE: ClassVar[str] = "blocktxn"
    MAX_SIZE: ClassVar[int] = MAX_BLOCK

    block_hash: Hash
    transactions: bytes

    def encode(self) -> bytes:
        if len(self.block_hash) != HASH_BYTES:
            raise ValueError(f"a hash has {HASH_BYTES} bytes")
        return self.block_hash + self.transactions

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        return cls(reader.take(HASH_BYTES), reader.rest())
