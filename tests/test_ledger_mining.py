"""Mined blocks are valid blocks, the same for the same seed, different for another."""

from __future__ import annotations

import random

import pytest

from obscura import limits
from obscura.ledger.block import weight
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header, bits_in, double_sha256
from obscura.ledger.mining import after, block_template, filled, filler_transaction, fitting, grind
from obscura.ledger.port import Transaction
from obscura.ledger.transaction import Fields, Input, Output, decode_transaction
from obscura.ledger.work import meets
from small_chains import EASY, LATER, START, easy_ledger, mined

LEDGER = easy_ledger()


def witnessed() -> Transaction:
    source = Input(b"\7" * 36, b"", witness=(b"\1",))
    return decode_transaction(Fields(2, (source,), (Output(1, b""),)).encode())


@pytest.mark.parametrize("with_witness", [False, True])
def test_a_chain_of_mined_blocks_is_valid(with_witness: bool) -> None:
    chain, rng = Chain(LEDGER), random.Random(4)
    for height in range(1, 25):
        transactions = filled(rng, 20_000) + [witnessed()] * with_witness
        raw = block_template(LEDGER, chain.branch(chain.best), transactions, START, rng)
        raw = mined(raw[:80]) + raw[80:]
        assert chain.add(raw[:80], LATER) is None
        block = LEDGER.decode_block(raw)
        assert LEDGER.check_block(block, height) is None
        assert [t.id for t in block.transactions[1:]] == [t.id for t in transactions]
        assert chain.received(block.id) is not None
    assert chain.tip_height == 24
    times = [Header.decode(h).time for h in chain.branch(chain.tip).recent(24)]
    assert times[0] > START, "a clock that stands still does not stop the chain"


def test_the_seed_decides() -> None:
    chain = Chain(LEDGER)

    def made(seed: int) -> bytes:
        rng = random.Random(seed)
        return block_template(LEDGER, chain.branch(chain.best), filled(rng, 5_000), START, rng)

    assert made(1) == made(1) != made(2)


def test_grinding_goes_on_where_it_stopped() -> None:
    hard = Header(1, bytes(32), bytes(32), 0, 0x1F00FFFF, 0).encode()  # one in 2^16
    at: bytes | None = hard
    found, steps = None, 0
    while found is None:
        assert at is not None
        found, at, steps = grind(at, 10_000), after(at, 10_000), steps + 1
    assert meets(double_sha256(found), bits_in(found), 0x1F00FFFF)
    assert found[:76] == hard[:76]
    assert grind(hard, 10_000 * steps) == found
    assert grind(hard, int.from_bytes(found[76:], "little")) is None


def test_the_nonces_end() -> None:
    impossible = Header(1, bytes(32), bytes(32), 0, 0x01010000, 2**32 - 5).encode()
    assert grind(impossible, 1000) is None
    assert after(impossible, 4) == impossible[:76] + b"\xff" * 4
    assert after(impossible, 5) is None


def test_what_fits_fits() -> None:
    rng = random.Random(1)
    big = [decode_transaction(filler_transaction(rng, 100_000)) for _ in range(11)]
    chosen = fitting(big)
    assert chosen == big[:9]
    chain = Chain(LEDGER)
    chosen = fitting(big[:9] + filled(rng, 200_000))
    block = LEDGER.decode_block(block_template(LEDGER, chain.branch(chain.best), chosen, START, rng))
    assert limits.MAX_BLOCK_WEIGHT - 6000 < weight(block) <= limits.MAX_BLOCK_WEIGHT


def test_filled_stays_below_what_was_asked() -> None:
    rng = random.Random(1)
    chain = Chain(LEDGER)
    for size in (0, 1_000, 1_000_000, 10_000_000):
        raw = block_template(LEDGER, chain.branch(chain.best), filled(rng, size), START, rng)
        assert len(raw) <= max(size, 400)
        assert len(raw) <= 1_000_000
        assert len(raw) >= min(size, 1_000_000) - 1_000
    assert Header.decode(raw[:80]).bits == EASY
