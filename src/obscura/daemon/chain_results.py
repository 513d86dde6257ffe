"""What the RPC's methods about chain, mempool and own transactions give, as types (see ``results``)."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class ChainInfo(TypedDict):
    """The chain and its store."""

    network: str
    height: int
    tip: str
    headers: int
    best_header: str
    blocks_in_flight: int
    mempool_transactions: int
    mempool_bytes: int
    work: str
    block_bytes: int
    prune: str | None
    store: str


class Verified(TypedDict):
    """How far a check has come."""

    blocks: int
    total: int
    damaged: list[str]
    done: bool


class Imported(TypedDict):
    """How far an import has come."""

    offset: int
    total: int
    new: int
    known: int
    done: bool


class TransactionInfo(TypedDict):
    """A transaction of a block."""

    id: str
    bytes: int


class BlockInfo(TypedDict):
    """A block, or its bytes; `bits` is its target in the compact form, as hexadecimal digits."""

    id: str
    height: NotRequired[int]
    confirmations: NotRequired[int]
    bytes: NotRequired[int]
    parent: NotRequired[str]
    version: NotRequired[int]
    merkle_root: NotRequired[str]
    time: NotRequired[int]
    bits: NotRequired[str]
    nonce: NotRequired[int]
    transactions: NotRequired[list[TransactionInfo]]
    raw: NotRequired[str]


class SubmittedBlock(TypedDict):
    """What became of a block."""

    id: str
    height: int
    is_tip: bool


class Sent(TypedDict):
    """What was sent."""

    id: str


class ReceiptInfo(TypedDict):
    """One step of an own transaction; nothing follows a `final` one."""

    id: str
    stage: Literal["queued", "stemmed", "re-stemmed", "diffused", "seen", "unprotected", "expired"]
    final: bool
    peers: NotRequired[int]
    first_hop_can_know: NotRequired[bool]
    reason: NotRequired[str]


class WaitingTransaction(TypedDict):
    """A transaction of the mempool."""

    id: str
    raw: str
    arrival: float
    own: bool


class Pool(TypedDict):
    """The mempool; `ids` where they were asked for."""

    transactions: int
    bytes: int
    ids: NotRequired[list[str]]


class Mined(TypedDict):
    """New blocks."""

    ids: list[str]
    height: int
