"""A chain of one's own in twenty lines: notes, one per block, most notes win. Shows what the ledger port asks for.

Run it: python examples/custom_ledger.py
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from obscura.errors import DecodeError
from obscura.ledger.chain import Chain
from obscura.ledger.network import Network
from obscura.ledger.port import Block, Branch, Fault, FaultKind, Ledger, Transaction, invalid


class NoteLedger(Ledger):
    """A header is the parent's id and the hash of the note; a block is a header and the note, its only transaction."""

    header_bytes = 64
    genesis = bytes(32) + sha256(b"").digest()
    genesis_block = genesis

    def block_id(self, header: bytes) -> bytes:
        return sha256(header).digest()

    def parent_id(self, header: bytes) -> bytes:
        return header[:32]

    def check_header(self, header: bytes, branch: Branch, now: float) -> Fault | None:
        return self.check_step(branch.height + 1, branch.header(branch.height), header)

    def decode_block(self, raw: bytes) -> Block:
        if len(raw) < 64:
            raise DecodeError("shorter than a header")
        return Block(raw, raw[:64], self.block_id(raw[:64]), [self.decode_transaction(raw[64:])])

    def decode_transaction(self, raw: bytes) -> Transaction:
        note_id = sha256(raw).digest()
        return Transaction(raw, note_id, note_id, fault=None if raw.isascii() else invalid("not ASCII"))

    def check_block(self, block: Block, height: int) -> Fault | None:
        note = block.transactions[0]
        return note.fault if note.id == block.header[32:] else Fault(FaultKind.BODY, "another note")

    def encode_block(self, header: bytes, transactions: Sequence[bytes]) -> bytes:
        return header + transactions[0]


def main() -> None:
    """Write three notes on a chain of them."""
    network = Network("notes", NoteLedger(), port=40_100)
    chain = Chain(network.ledger)
    for note in (b"first", b"second", b"third"):
        header = chain.tip + sha256(note).digest()
        block = network.ledger.decode_block(header + note)
        assert network.ledger.check_block(block, chain.tip_height + 1) is None
        assert chain.add(header, now=0.0) is None
        chain.received(block.id)
    print(f"network {network.id.hex()[:16]}, {chain.tip_height} notes, tip {chain.tip.hex()[:16]}")


if __name__ == "__main__":
    main()
