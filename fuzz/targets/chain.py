"""What peers send of the chain, and files that somebody brings."""

from __future__ import annotations

import random
from base64 import urlsafe_b64encode
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz import target
from obscura.errors import DecodeError
from obscura.ledger.bitcoin import BitcoinLedger, Rules
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template, filler_transaction, grind
from obscura.ledger.network import own_genesis
from obscura.node.asmap import Asmap, AsmapError
from obscura.node.seed_list import MARK, Refusal, SeedList, _message, is_seed, verify

EASY = 0x207FFFFF
START = 1_700_000_000
LEDGER = BitcoinLedger(Rules(EASY, 60, 0), own_genesis("fuzz", START, EASY, 0))


def transactions() -> Iterator[bytes]:
    for size in (210, 300, 900):
        yield filler_transaction(random.Random(size), size)


@target(
    "transaction",
    "A transaction is refused with DecodeError, or its bytes and ids are those of what was read.",
    transactions,
)
def transaction(data: bytes) -> None:
    try:
        read = LEDGER.decode_transaction(data)
    except DecodeError:
        return
    assert read.raw == data
    assert LEDGER.decode_transaction(read.raw).id == read.id


def blocks() -> Iterator[bytes]:
    chain, rng = Chain(LEDGER), random.Random(1)
    inside = [LEDGER.decode_transaction(raw) for raw in transactions()]
    for contents in ([], inside):
        raw = block_template(LEDGER, chain.branch(chain.best), contents, START + 60, rng)
        yield (grind(raw[:80], 1 << 16) or raw[:80]) + raw[80:]


SOUND = [raw[36:68] + raw[80:] for raw in blocks()]  # merkle roots and what they stand for


@target("block", "A block is refused with DecodeError or a fault, or it is whole, and a valid one stays valid.", blocks)
def block(data: bytes) -> None:
    chain = Chain(LEDGER)
    try:
        read = LEDGER.decode_block(data)
    except DecodeError:
        return
    assert read.raw == data
    fault = chain.add(read.header, START + 10_000)
    if fault is None:
        assert read.id in chain
        is_sound = LEDGER.check_block(read, chain.height(read.id)) is None
        assert is_sound == (data[36:68] + data[80:] in SOUND), "nobody finds other contents for a merkle root"


def headers() -> Iterator[bytes]:
    yield b"".join(raw[:80] for raw in blocks())


@target(
    "headers",
    "Headers in any order are added or refused with a fault, and the best chain never has less work.",
    headers,
)
def headers_of_chain(data: bytes) -> None:
    chain = Chain(LEDGER)
    work = chain.work(chain.best)
    for at in range(0, len(data) - 79, 80):
        chain.add(data[at : at + 80], START + 10_000)
        assert chain.work(chain.best) >= work
        work = chain.work(chain.best)


@target(
    "asmap",
    "A file of autonomous systems is refused with AsmapError, or answers for every address.",
    lambda: [b"\x00", b"\xff" * 40],
    2_000,
)
def asmap(data: bytes) -> None:
    try:
        read = Asmap(data)
    except AsmapError:
        return
    for address in (bytes(16), b"\xff" * 16, bytes(10) + b"\xff\xff\x7f\0\0\1"):
        assert read.asn(address) >= 0


SECRET = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw()
SEEDS_OF = "seeds.example.org"


def signed(body: bytes) -> bytes:
    """A text of the network's seed key, whatever it says."""
    signature = Ed25519PrivateKey.from_private_bytes(SECRET).sign(_message(body, SEEDS_OF, bytes(32)))
    return body + b" " + urlsafe_b64encode(signature).rstrip(b"=")


SEED_LIST = f"{MARK} 7 {START + 86_400} 192.0.2.1:9733 [2001:db8::1]:9733?carrier=tls".encode()


def seed_texts() -> Iterator[bytes]:
    yield SEED_LIST
    yield signed(SEED_LIST)


@target(
    "seed-list",
    "Text that nobody signed with the network's seed key is refused; signed, it is refused with a reason or names places "
    "that need no resolver.",
    seed_texts,
)
def seed_list(data: bytes) -> None:
    is_refused = isinstance(verify(data, SEEDS_OF, bytes(32), PUBLIC, START), Refusal)
    assert is_refused or data.startswith(SEED_LIST + b" ")
    read = verify(signed(data), SEEDS_OF, bytes(32), PUBLIC, START)
    if isinstance(read, SeedList):
        assert read.expires > START
        assert all(is_seed(address) for address in read.addresses)
