"""Transaction messages: tx, mempool, getdata, notfound (specification, Message Types), and stemtx."""

from __future__ import annotations

from typing import ClassVar

from obscura.limits import MAX_STEM_TX, MAX_TX
from obscura.wire.message import Message, RawMessage
from obscura.wire.messages.blocks import Inventory


class Tx(RawMessage, frozen=True, gc=False):
    """tx: Transaction data (specification, Transaction Messages), in the ledger's encoding."""

    TYPE: ClassVar[str] = "tx"
    MAX_SIZE: ClassVar[int] = MAX_TX


class StemTx(RawMessage, frozen=True, gc=False):
    """stemtx: Stem phase, Single successor routing (specification, Dandelion++ Implementation).

    Never announced, never answered.
    """

    TYPE: ClassVar[str] = "stemtx"
    MAX_SIZE: ClassVar[int] = MAX_STEM_TX
    PRIVATE: ClassVar[bool] = True


class MempoolRequest(Message, frozen=True, gc=False):
    """mempool: Request mempool contents (specification, Transaction Messages)."""

    TYPE: ClassVar[str] = "mempool"
    MAX_SIZE: ClassVar[int] = 0


class GetData(Inventory, frozen=True, gc=False):
    """getdata: Request specific objects (specification, Transaction Messages)."""

    TYPE: ClassVar[str] = "getdata"


class NotFound(Inventory, frozen=True, gc=False):
    """notfound: Object not found (specification, Transaction Messages)."""

    TYPE: ClassVar[str] = "notfound"
