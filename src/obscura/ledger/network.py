"""What a network is: a name, a ledger, an id for every channel; and how a genesis is made (design 12)."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256

from obscura.ledger import work
from obscura.ledger.header import Header, double_sha256
from obscura.ledger.port import Ledger
from obscura.ledger.transaction import NULL_OUTPOINT, Fields, Input, Output

_COIN = 100_000_000
_NOBODY = b"\x6a"  # OP_RETURN: nobody can spend it


def network_id(name: str, genesis_id: bytes | None) -> bytes:
    """32 bytes that bind a channel to its network; zeros stand for a genesis that there is not yet."""
    return sha256(b"obscura network/1\0" + name.encode("ascii") + b"\0" + (genesis_id or bytes(32))).digest()


def display_id(block_id: bytes) -> str:
    """An id as people write it: hexadecimal, last byte first."""
    return block_id[::-1].hex()


class Network:
    """A name, a ledger, and where to begin. ``ledger`` may be any implementation of the port."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        port: int,
        seeds: tuple[str, ...] = (),
        seed_key: bytes | None = None,
        seed_names: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.ledger = ledger
        self.port = port  # the default for listening, TCP
        self.seeds = seeds  # obscura:// addresses
        self.seed_key = seed_key  # Ed25519 public key that signs seed lists, 32 bytes
        self.seed_names = seed_names  # DNS names where such lists, or seeds' addresses, are published

    @cached_property
    def genesis_id(self) -> bytes:
        return self.ledger.block_id(self.ledger.genesis)

    @cached_property
    def id(self) -> bytes:
        """The network id of the channel."""
        return network_id(self.name, self.genesis_id)


def own_genesis(message: str, time: int, bits: int, nonce: int) -> bytes:
    """An own network's genesis block; the coinbase says ``message`` (1-75 ASCII characters)."""
    text = message.encode("ascii")
    return genesis_block(b"\0" + bytes([len(text)]) + text, _NOBODY, time, bits, nonce)


def genesis_block(script: bytes, output_script: bytes, time: int, bits: int, nonce: int) -> bytes:
    """Version 1, no parent, one coinbase with one output of 50 coins."""
    coinbase = Fields(1, (Input(NULL_OUTPOINT, script),), (Output(50 * _COIN, output_script),)).encode()
    return Header(1, bytes(32), double_sha256(coinbase), time, bits, nonce).encode() + b"\x01" + coinbase


def is_mined(header: bytes) -> bool:
    """Whether a header meets its own bits."""
    bits = Header.decode(header).bits
    return work.meets(double_sha256(header), bits, bits)
