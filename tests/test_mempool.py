"""The mempool's rules (design 12), as a table of what comes and what becomes of it."""

from __future__ import annotations

from random import Random

import pytest

from chain_nodes import chain_of, easy_ledger, transactions
from obscura import limits
from obscura.ledger.mining import filler_transaction
from obscura.ledger.port import Transaction
from obscura.ledger.transaction import Fields, Input, Output
from obscura.node.effects import Keep, Waiting
from obscura.node.mempool import Mempool, Verdict
from obscura.node.saving import Saving

LEDGER = easy_ledger()
ONE, OTHER, THIRD = transactions(3, 40)


def spending(outpoint: bytes, value: int = 1) -> Transaction:
    return LEDGER.decode_transaction(Fields(1, (Input(outpoint, b"\x01x"),), (Output(value, b"\x51"),)).encode())


def oversized(size: int) -> Transaction:
    script = bytes(size - 64)
    raw = Fields(1, (Input(bytes(36), b""),), (Output(1, script),)).encode()
    return LEDGER.decode_transaction(raw)


COINBASE = LEDGER.decode_block(chain_of(LEDGER, 1)[0]).transactions[0]
NO_OUTPUTS = LEDGER.decode_transaction(Fields(1, (Input(bytes(36), b""),), ()).encode())
LARGEST, TOO_LARGE = oversized(limits.MAX_RELAYED_TX), oversized(limits.MAX_RELAYED_TX + 1)

TABLE = {
    "a usual one": ([], ONE, Verdict.ACCEPTED),
    "one that waits already": ([ONE], ONE, Verdict.KNOWN),
    "one beside others": ([OTHER, THIRD], ONE, Verdict.ACCEPTED),
    "a second spend of one outpoint": ([spending(bytes(36))], spending(bytes(36), 2), Verdict.CONFLICT),
    "a spend of another outpoint": ([spending(bytes(36))], spending(bytes(35) + b"\1"), Verdict.ACCEPTED),
    "a coinbase": ([], COINBASE, Verdict.INVALID),
    "one without outputs": ([], NO_OUTPUTS, Verdict.INVALID),
    "100 kB": ([], LARGEST, Verdict.ACCEPTED),
    "a byte more": ([], TOO_LARGE, Verdict.TOO_LARGE),
}


@pytest.mark.parametrize("case", TABLE)
def test_admission(case: str) -> None:
    before, transaction, verdict = TABLE[case]
    pool = Mempool(LEDGER)
    for other in before:
        assert pool.add(other, 1, 0.0)[0] is Verdict.ACCEPTED
    assert pool.add(transaction, 1, 0.0) == (verdict, [])
    assert (transaction.id in pool) == (verdict in (Verdict.ACCEPTED, Verdict.KNOWN))
    assert len(pool) == len(before) + (verdict is Verdict.ACCEPTED)


def test_sizes_of_the_table_are_what_they_say() -> None:
    assert (len(LARGEST.raw), len(TOO_LARGE.raw)) == (100_000, 100_001)


def test_the_first_spend_stays_until_it_is_gone() -> None:
    pool = Mempool(LEDGER)
    first, second = spending(bytes(36)), spending(bytes(36), 2)
    pool.add(first, 1, 0.0)
    pool.confirm([first])
    assert pool.add(second, 1, 0.0)[0] is Verdict.ACCEPTED


def test_a_block_takes_out_its_own_and_what_excludes_them() -> None:
    pool = Mempool(LEDGER)
    waiting, rival = spending(bytes(36)), spending(bytes(36), 2)
    pool.add(waiting, 1, 0.0)
    pool.add(ONE, 1, 0.0)
    pool.add(OTHER, 2, 0.0)
    gone = pool.confirm([COINBASE, rival, ONE, THIRD])
    assert {entry.transaction.id for entry in gone} == {waiting.id, ONE.id}
    assert [entry.transaction.id for entry in pool] == [OTHER.id]


def many(count: int, seed: int, size: int = 1_000) -> list[Transaction]:
    rng = Random(seed)
    return [LEDGER.decode_transaction(filler_transaction(rng, size)) for _ in range(count)]


def test_no_peer_takes_more_than_its_share() -> None:
    pool = Mempool(LEDGER, max_bytes=400_000)
    verdicts = [pool.add(transaction, 7, 0.0)[0] for transaction in many(100, 1)]
    accepted = verdicts.count(Verdict.ACCEPTED)
    assert verdicts[accepted:] == [Verdict.SHARE] * (100 - accepted)
    assert 60 <= accepted <= 67
    assert pool.add(many(1, 2)[0], 8, 0.0)[0] is Verdict.ACCEPTED
    assert pool.add(many(1, 3)[0], None, 0.0, own=True)[0] is Verdict.ACCEPTED


def test_a_full_mempool_drops_the_oldest_of_whoever_takes_most() -> None:
    pool = Mempool(LEDGER, max_bytes=150_000)
    flood, modest, own = many(24, 1), many(10, 2), many(10, 3)
    for transaction in modest:
        assert pool.add(transaction, 1, 0.0)[0] is Verdict.ACCEPTED
    for transaction in own:
        assert pool.add(transaction, None, 0.0, own=True)[0] is Verdict.ACCEPTED
    for source in (2, 3, 4, 5):
        for transaction in flood if source == 2 else many(24, 10 + source):
            assert pool.add(transaction, source, 0.0)[0] is Verdict.ACCEPTED
    assert pool.bytes <= 150_000
    left = {entry.transaction.id for entry in pool}
    assert {t.id for t in modest + own} <= left
    assert flood[0].id not in left
    assert flood[-1].id in left


def test_what_is_evicted_is_told() -> None:
    pool = Mempool(LEDGER, max_bytes=10_000)
    told = [entry.transaction.id for t in many(20, 5) for entry in pool.add(t, None, 0.0)[1]]
    assert len(told) == 20 - len(pool)
    assert pool.bytes == sum(entry.cost for entry in pool)


def test_what_the_disk_has_beyond_the_room_leaves_the_disk_too() -> None:
    pool = Mempool(LEDGER, max_bytes=10_000)
    saving = Saving(pool, lambda: 1)
    kept = [Waiting(t.id, t.raw, float(n), n < 2) for n, t in enumerate(many(20, 5))]
    back = set(saving.restore(LEDGER, kept))
    assert back == {entry.transaction.id for entry in pool}
    assert {kept[0].id, kept[1].id} <= back, "own ones go last"
    (keep,) = saving.save()
    assert isinstance(keep, Keep)
    assert set(keep.dropped) == {waiting.id for waiting in kept} - back
    assert 0 < len(back) < 20


def test_what_came_while_the_clock_was_ahead_keeps_nothing_else_waiting() -> None:
    pool = Mempool(LEDGER)
    pool.add(ONE, 1, 10 * limits.MEMPOOL_S)
    pool.add(OTHER, 1, 0.0)  # the clock is right again
    assert [entry.transaction.id for entry in pool.expire(limits.MEMPOOL_S)] == [OTHER.id]


def test_nothing_waits_longer_than_72_hours() -> None:
    pool = Mempool(LEDGER)
    pool.add(ONE, 1, 0.0)
    pool.add(OTHER, 1, 100.0, own=True)
    assert pool.expire(limits.MEMPOOL_S - 1) == []
    assert [entry.transaction.id for entry in pool.expire(limits.MEMPOOL_S)] == [ONE.id]
    assert [entry.transaction.id for entry in pool.expire(limits.MEMPOOL_S + 100)] == [OTHER.id]
    assert (len(pool), pool.bytes) == (0, 0)
