"""What a chain must answer: the port through which the node asks about blocks and transactions (design 12).

The node never looks into a header or a transaction by itself. Ids are 32 bytes in the order of the wire.
Everything is pure: ``now`` is unix time in seconds. ``obscura.ledger.bitcoin.BitcoinLedger`` is the built-in
implementation, ``examples/custom_ledger.py`` one of twenty lines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec

from obscura import limits
from obscura.errors import DecodeError
from obscura.wire.fields import compact_size

ID_BYTES = 32


class FaultKind(Enum):
    """What follows from a fault."""

    INVALID = "invalid"  # never valid, for anyone: mark the header and all its descendants, penalise the sender
    BODY = "body"  # these bytes are not this header's block; the header is not condemned, ask another peer
    EARLY = "early"  # may become valid as time passes: drop it, mark nothing
    ORPHAN = "orphan"  # the parent is not known: ask for headers


class Fault(msgspec.Struct, frozen=True, gc=False):
    """Why something was not accepted. A verdict is ``Fault | None``; ``None`` means accepted."""

    kind: FaultKind
    reason: str  # a short constant text, safe for logs


def invalid(reason: str) -> Fault:
    """The fault of what can never become valid."""
    return Fault(FaultKind.INVALID, reason)


class Transaction(msgspec.Struct, gc=False):
    """A transaction as the node handles it: its bytes and what was learnt in one pass over them."""

    raw: bytes
    id: bytes
    witness_id: bytes  # equal to ``id`` where there is no witness; what compact blocks name (BIP152 version 2)
    spends: Sequence[bytes] = ()  # outpoints, opaque: two transactions that share one exclude each other
    base_bytes: int = 0  # bytes without witnesses, for ledgers that weigh them apart
    fault: Fault | None = None  # what is wrong with it in any context; found while scanning


class Block(msgspec.Struct, gc=False):
    """A block in one pass: nothing of it has been checked against its header or its place."""

    raw: bytes
    header: bytes
    id: bytes
    transactions: list[Transaction]


class Branch(Protocol):
    """The headers below a new one: what a header is checked against."""

    @property
    def height(self) -> int:
        """Height of the newest header of the branch, the parent of the one in question."""

    def header(self, height: int) -> bytes:
        """The branch's header at ``height``, 0..``self.height``."""

    def recent(self, count: int) -> list[bytes]:
        """The newest ``count`` headers (fewer near the genesis), newest first."""


class Ledger(ABC):
    """A chain's rules. A subclass sets ``header_bytes`` and ``genesis`` and answers the abstract questions.

    The decoders raise ``DecodeError`` and nothing else, for any bytes. The checks never raise: they return a
    verdict.
    """

    header_bytes: int
    genesis: bytes  # the header that is trusted by its hash
    genesis_block: bytes = b""  # the whole block, if it is to be served
    max_block_bytes: int = limits.MAX_BLOCK
    max_transaction_bytes: int = limits.MAX_TX
    minimum_work: int = 0  # total work below which no chain is worth memory (see ``presync``)

    @abstractmethod
    def block_id(self, header: bytes) -> bytes:
        """Id of a header and of its block."""

    @abstractmethod
    def parent_id(self, header: bytes) -> bytes:
        """Id of the header before it."""

    @abstractmethod
    def check_header(self, header: bytes, branch: Branch, now: float) -> Fault | None:
        """Everything about ``header`` (``header_bytes`` long) as the child of the branch's newest header."""

    @abstractmethod
    def decode_block(self, raw: bytes) -> Block:
        """Header, ids and transactions of a block."""

    @abstractmethod
    def decode_transaction(self, raw: bytes) -> Transaction:
        """One transaction, the whole of ``raw``."""

    def work(self, header: bytes) -> int:
        """Work that the header proves; the branch with the largest sum (below 2^256) wins."""
        return 1

    def check_step(self, height: int, parent: bytes, header: bytes) -> Fault | None:
        """What its parent alone tells of ``header``. Security: must cost the sender real work."""
        return None if self.parent_id(header) == self.block_id(parent) else invalid("wrong parent")

    def check_block(self, block: Block, height: int) -> Fault | None:
        """Whether the body is its header's and keeps the rules at ``height``. The header is checked apart."""
        return None

    def check_transaction(self, transaction: Transaction) -> Fault | None:
        """Whether a transaction that arrived by itself may be relayed and mined."""
        return transaction.fault

    def scan_transaction(self, data: bytes, at: int) -> tuple[Transaction, int]:
        """The transaction that begins at ``at``, and its end: what compact blocks need beyond the rest."""
        raise DecodeError("this ledger's transactions do not say where they end")

    def encode_block(self, header: bytes, transactions: Sequence[bytes]) -> bytes:
        """A block of its parts, as compact blocks put it together again."""
        return b"".join((header, compact_size(len(transactions)), *transactions))
