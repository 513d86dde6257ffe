"""Blocks: what ties a body to its header, and every way to break it."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from bitcoin.core import CBlock
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura import limits
from obscura.errors import DecodeError
from obscura.ledger import block as rules
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header, double_sha256
from obscura.ledger.merkle import merkle_root
from obscura.ledger.mining import filler_transaction
from obscura.ledger.port import Block, Fault, FaultKind, Transaction
from obscura.ledger.transaction import NULL_OUTPOINT, Fields, Input, Output, decode_transaction
from obscura.wire.fields import compact_size
from small_chains import easy_ledger, mined_block

LEDGER = easy_ledger()
RNG = random.Random(7)


def payment(witness: tuple[bytes, ...] = (), spends: bytes | None = None, script: bytes = b"") -> Transaction:
    """A transaction of one input and one output."""
    source = Input(spends or RNG.randbytes(36), script, witness=witness)
    return decode_transaction(Fields(2, (source,), (Output(1000, b"\x51"),)).encode())


def coinbase(
    script: bytes = b"\x51\0", outputs: tuple[Output, ...] = (), witness: tuple[bytes, ...] = ()
) -> Transaction:
    """A coinbase of height 1."""
    source = Input(NULL_OUTPOINT, script, witness=witness)
    return decode_transaction(Fields(1, (source,), outputs or (Output(50, b"\x51"),)).encode())


def block_of(*transactions: Transaction, listed: list[Transaction] | None = None) -> Block:
    """A block whose merkle root is that of ``listed``, else of its transactions; its work is of no account."""
    root, _ = merkle_root([t.id for t in listed or transactions])
    header = Header(1, bytes(32), root, 1, 0x207FFFFF, 0).encode()
    return LEDGER.decode_block(LEDGER.encode_block(header, [t.raw for t in transactions]))


def verdict(block: Block, height: int = 1) -> Fault | None:
    return LEDGER.check_block(block, height)


def committed(*witness_ids: bytes, reserved: bytes = bytes(32)) -> Output:
    """The output that commits to the witnesses after the coinbase's."""
    return Output(0, rules.COMMITMENT_MARK + rules.witness_commitment([bytes(32), *witness_ids], reserved))


def test_sound_blocks() -> None:
    paid, with_witness = payment(), payment((b"\x01", b"\x02\x03"))
    assert verdict(block_of(coinbase())) is None
    assert verdict(block_of(coinbase(), paid, payment())) is None
    commitment = (Output(50, b"\x51"), committed(paid.witness_id, with_witness.witness_id))
    assert verdict(block_of(coinbase(outputs=commitment, witness=(bytes(32),)), paid, with_witness)) is None


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13])
def test_merkle_root_as_an_independent_implementation_has_it(count: int) -> None:
    ids = [RNG.randbytes(32) for _ in range(count)]
    assert merkle_root(ids) == (CBlock.build_merkle_tree_from_txids(ids)[-1], False)


@pytest.mark.parametrize(("given_ids", "repeated"), [("abc", "abcc"), ("abcdef", "abcdefef"), ("abcde", "abcdeeee")])
def test_a_repeated_tail_has_the_same_root_and_is_seen(given_ids: str, repeated: str) -> None:
    ids = [letter.encode() * 32 for letter in given_ids]
    again = [letter.encode() * 32 for letter in repeated]
    assert merkle_root(ids)[0] == merkle_root(again)[0]
    assert [merkle_root(ids)[1], merkle_root(again)[1]] == [False, True]


def test_no_transactions() -> None:
    assert merkle_root([]) == (bytes(32), False)
    header = Header(1, bytes(32), bytes(32), 1, 0x207FFFFF, 0).encode()
    assert verdict(LEDGER.decode_block(header + b"\0")) == rules.NO_COINBASE


A, B, C = payment(), payment(), payment()
WITNESS = payment((b"\x07",))
TWICE = decode_transaction(Fields(2, (Input(A.spends[0], b""),) * 2, (Output(1, b""),)).encode())
BODY_FAULTS: list[tuple[str, Callable[[], Block], Fault]] = [
    ("another's transactions", lambda: block_of(coinbase(), A, listed=[coinbase(), B]), rules.NOT_THIS_HEADERS),
    ("one left out", lambda: block_of(coinbase(), A, listed=[coinbase(), A, B]), rules.NOT_THIS_HEADERS),
    ("two swapped", lambda: block_of(coinbase(), B, A, listed=[coinbase(), A, B]), rules.NOT_THIS_HEADERS),
    ("tail repeated", lambda: block_of(coinbase(), A, B, B, listed=[coinbase(), A, B]), rules.REPEATED),
    ("no coinbase", lambda: block_of(A, B), rules.NO_COINBASE),
    ("coinbase not first", lambda: block_of(A, coinbase()), rules.NO_COINBASE),
    ("witness without a commitment", lambda: block_of(coinbase(), WITNESS), rules.UNCOMMITTED_WITNESS),
    ("coinbase witness alone", lambda: block_of(coinbase(witness=(bytes(32),))), rules.UNCOMMITTED_WITNESS),
    ("no reserved value", lambda: block_of(coinbase(outputs=(committed(A.id),)), A), rules.BAD_WITNESS),
    (
        "reserved value of 31 bytes",
        lambda: block_of(coinbase(outputs=(committed(A.id),), witness=(bytes(31),)), A),
        rules.BAD_WITNESS,
    ),
    (
        "two reserved values",
        lambda: block_of(coinbase(outputs=(committed(A.id),), witness=(bytes(32), b"")), A),
        rules.BAD_WITNESS,
    ),
    (
        "another reserved value",
        lambda: block_of(coinbase(outputs=(committed(A.id),), witness=(b"\1" * 32,)), A),
        rules.BAD_WITNESS,
    ),
    (
        "witness altered on the way",
        lambda: block_of(coinbase(outputs=(committed(WITNESS.id),), witness=(bytes(32),)), WITNESS),
        rules.BAD_WITNESS,
    ),
    (
        "the last of two commitments counts",
        lambda: block_of(coinbase(outputs=(committed(A.id), committed(B.id)), witness=(bytes(32),)), A),
        rules.BAD_WITNESS,
    ),
]
HEADER_FAULTS: list[tuple[str, Callable[[], Block], Fault]] = [
    ("two coinbases", lambda: block_of(coinbase(), coinbase(b"\x51\1")), rules.SECOND_COINBASE),
    ("one twice, not side by side", lambda: block_of(coinbase(), A, B, A), rules.DUPLICATE),
    ("wrong height", lambda: block_of(coinbase(b"\x52\0")), rules.BAD_HEIGHT),
    (
        "spends one outpoint twice",
        lambda: block_of(
            coinbase(), decode_transaction(Fields(2, (Input(A.spends[0], b""),) * 2, (Output(1, b""),)).encode())
        ),
        Fault(FaultKind.INVALID, "an outpoint spent twice in one transaction"),
    ),
    (
        "coinbase with a script of 101 bytes",
        lambda: block_of(coinbase(b"\x51" * 101)),
        Fault(FaultKind.INVALID, "a coinbase script of the wrong size"),
    ),
    (
        "coinbase without outputs",
        lambda: block_of(decode_transaction(Fields(1, (Input(NULL_OUTPOINT, b"\x51\0"),), ()).encode())),
        Fault(FaultKind.INVALID, "a transaction without outputs"),
    ),
]


@pytest.mark.parametrize(("make", "fault"), [c[1:] for c in BODY_FAULTS], ids=[c[0] for c in BODY_FAULTS])
def test_an_altered_body_does_not_condemn_its_header(make: Callable[[], Block], fault: Fault) -> None:
    assert verdict(make()) == fault
    assert fault.kind is FaultKind.BODY


@pytest.mark.parametrize(("make", "fault"), [c[1:] for c in HEADER_FAULTS], ids=[c[0] for c in HEADER_FAULTS])
def test_what_the_header_commits_to_condemns_it(make: Callable[[], Block], fault: Fault) -> None:
    assert verdict(make()) == fault
    assert fault.kind is FaultKind.INVALID


def test_rules_begin_at_their_heights() -> None:
    old = easy_ledger(height_from=10, witness_from=20)
    no_height = block_of(coinbase(b"\0\0"))
    assert old.check_block(no_height, 9) is None
    assert old.check_block(no_height, 10) == rules.BAD_HEIGHT
    pushed = coinbase(rules.height_push(19) + b"\0", outputs=(committed(A.id),))
    assert old.check_block(block_of(pushed, A), 19) is None, "no commitment counts before its time"
    pushed = coinbase(rules.height_push(19) + b"\0", outputs=(committed(WITNESS.witness_id),), witness=(bytes(32),))
    assert old.check_block(block_of(pushed, WITNESS), 19) == rules.UNCOMMITTED_WITNESS
    pushed = coinbase(rules.height_push(20) + b"\0", outputs=(committed(WITNESS.witness_id),), witness=(bytes(32),))
    assert old.check_block(block_of(pushed, WITNESS), 20) is None


@pytest.mark.parametrize(
    ("height", "push"),
    [(0, "00"), (1, "51"), (16, "60"), (17, "0111"), (127, "017f"), (128, "028000"), (32767, "02ff7f"),
     (32768, "03008000"), (227_931, "035b7a03"), (8_388_608, "0400008000")],
)  # fmt: skip
def test_height_push(height: int, push: str) -> None:
    assert rules.height_push(height).hex() == push


def test_weight_limit() -> None:
    def filled_to(extra: int) -> Block:
        script = bytes(999_000)
        big = decode_transaction(Fields(1, (Input(b"\1" * 36, script + bytes(extra)),), (Output(1, b""),)).encode())
        return block_of(coinbase(), big)

    room = (limits.MAX_BLOCK_WEIGHT - rules.weight(filled_to(0))) // 4
    assert verdict(filled_to(room)) is None
    assert verdict(filled_to(room + 1)) == rules.TOO_HEAVY
    assert len(filled_to(room).raw) == 1_000_000, "without witnesses the limit is a million bytes"


def test_malformed_blocks() -> None:
    raw = block_of(coinbase(), A, WITNESS).raw
    for size in range(len(raw)):
        with pytest.raises(DecodeError):
            LEDGER.decode_block(raw[:size])
    for bad in (raw + b"\0", raw[:80] + b"\xfd\x03\0" + raw[81:], raw[:80] + b"\xff" + b"\xff" * 8 + raw[81:]):
        with pytest.raises(DecodeError):
            LEDGER.decode_block(bad)
    with pytest.raises(DecodeError, match="4000001 bytes"):
        LEDGER.decode_block(bytes(limits.MAX_BLOCK + 1))


def test_more_transactions_announced_than_can_follow_is_refused_at_once() -> None:
    with pytest.raises(DecodeError, match="announced"):
        LEDGER.decode_block(bytes(80) + compact_size(1_000_000) + bytes(100))


SOUND = mined_block(LEDGER, Chain(LEDGER), LEDGER.block_id(LEDGER.genesis), [A, WITNESS, B])


@given(st.integers(0, len(SOUND) - 1), st.binary(max_size=3), st.integers(0, 3))
@settings(deadline=None, max_examples=300)
def test_no_mutation_of_a_body_passes_or_raises_anything_else(at: int, new: bytes, cut: int) -> None:
    mutated = SOUND[:at] + new + SOUND[at + cut :]
    if mutated[80:] == SOUND[80:]:
        return
    try:
        block = LEDGER.decode_block(mutated)
    except DecodeError:
        return
    assert verdict(block) is not None, "the header commits to every byte of the body"


def test_filler_is_what_it_says() -> None:
    rng = random.Random(3)
    for size in (201, 230, 452, 700, 701, 40_000, 100_000):
        raw = filler_transaction(rng, size)
        assert size - 2 <= len(raw) <= size
        assert decode_transaction(raw).fault is None
    for size in (200, 100_001):
        with pytest.raises(ValueError):
            filler_transaction(rng, size)


def test_ids_are_what_is_hashed() -> None:
    block = LEDGER.decode_block(SOUND)
    assert block.id == double_sha256(SOUND[:80])
    assert LEDGER.encode_block(block.header, [t.raw for t in block.transactions]) == SOUND
    assert msgspec.structs.asdict(Header.decode(block.header))["merkle_root"] == SOUND[36:68]
