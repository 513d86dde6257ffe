"""A ledger for simulations: a transaction is its id and some zeros, nothing is ever wrong with it, there are no blocks."""

from __future__ import annotations

from obscura.errors import DecodeError
from obscura.ledger.port import ID_BYTES, Block, Branch, Fault, Ledger, Transaction


class TokenLedger(Ledger):
    """The first 32 bytes of a transaction are its id. Costs nothing, so that what is measured is the network."""

    header_bytes = ID_BYTES
    genesis = bytes(ID_BYTES)

    def block_id(self, header: bytes) -> bytes:
        return header

    def parent_id(self, header: bytes) -> bytes:
        return bytes(ID_BYTES)

    def check_header(self, header: bytes, branch: Branch, now: float) -> Fault | None:
        return None

    def decode_block(self, raw: bytes) -> Block:
        raise DecodeError("there are no blocks here")

    def decode_transaction(self, raw: bytes) -> Transaction:
        if len(raw) < ID_BYTES:
            raise DecodeError("shorter than its id")
        return Transaction(raw, raw[:ID_BYTES], raw[:ID_BYTES])
