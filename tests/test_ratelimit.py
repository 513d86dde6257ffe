"""Token buckets, the table of rates, and the meter that serves late before it drops (specification, *DoS Protection*)."""

from __future__ import annotations

import time
import tracemalloc
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.limits import DEFERRED_BYTES, DEFERRED_MESSAGES, MAX_INVENTORY, RATES, UNKNOWN_KIND
from obscura.node.ratelimit import Meter, TokenBucket, most_at_once, rates_of
from obscura.wire.catalogue import BUILT_IN, CATALOGUE
from obscura.wire.frame import Unknown, encode_frame
from obscura.wire.message import Phase
from obscura.wire.messages.blocks import Block, BlockTxn, CmpctBlock, Headers, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.network import Addr, GetAddr, Ping, Pong
from obscura.wire.messages.transactions import Tx
from playbook import EXAMPLES

TABLE = rates_of(CATALOGUE)
ONLY_IN_OPENING = {"padneg", "resume", "resumed"}


def test_every_message_of_an_established_link_has_a_row() -> None:
    legal = {kind.TYPE for kind in BUILT_IN if kind.PHASE & Phase.ESTABLISHED}
    assert legal - ONLY_IN_OPENING == set(RATES) - {UNKNOWN_KIND}


def test_the_largest_message_of_a_kind_is_served_to_who_sent_nothing_else() -> None:
    largest = Inv(tuple(InventoryItem(InventoryKind.TX, bytes(32)) for _ in range(MAX_INVENTORY)))
    meter = Meter(TABLE)
    assert meter.admit([largest], 0.0) == ([largest], 0)
    assert meter.admit([largest], 1.0) == ([], 0)
    assert meter.ready(10.0) == [largest]


@pytest.mark.parametrize("kind", sorted(set(RATES) - {UNKNOWN_KIND}))
def test_a_flood_of_each_kind_is_served_then_late_then_dropped(kind: str) -> None:
    message = next(EXAMPLES[cls] for cls in BUILT_IN if kind == cls.TYPE)
    meter = Meter(TABLE)
    burst = int(RATES[kind][1])
    served, dropped = meter.admit([message] * burst, 0.0)
    assert (len(served), dropped) == (burst, 0)
    served, dropped = meter.admit([message] * (DEFERRED_MESSAGES + 7), 0.0)
    assert (len(served), dropped, meter.late) == (0, 7, DEFERRED_MESSAGES)
    assert most_at_once(kind) == burst + DEFERRED_MESSAGES


def test_what_waits_is_served_in_order_as_the_rate_allows_and_nothing_of_it_is_lost() -> None:
    meter = Meter(TABLE)
    pings = [Ping(n) for n in range(300)]
    assert not meter.is_behind
    served, dropped = meter.admit(list(pings), 0.0)
    out, now = list(served), 0.0
    while (when := meter.deadline(now)) != inf:
        assert when > now
        assert meter.is_behind  # nothing more is read meanwhile
        now = when + 1e-6
        out += meter.ready(now)
    assert (out, dropped, meter.held) == (pings, 0, 0)
    assert not meter.is_behind
    assert now == pytest.approx(100 / RATES["ping"][0], rel=0.05)


def test_a_kind_that_waits_does_not_hold_up_another_and_keeps_its_own_order() -> None:
    meter = Meter(TABLE)
    meter.admit([GetAddr()] * 8, 0.0)
    assert meter.admit([Ping(1), Pong(2)], 0.0)[0] == [Ping(1), Pong(2)]
    meter.admit([Ping(n) for n in range(300)], 0.0)
    served, _ = meter.admit([Ping(999)], 1.0)  # there are tokens again, but others wait
    assert served == []


def test_what_waits_is_counted_as_the_memory_that_it_takes() -> None:
    """Items are objects: a budget of bytes on the wire would be thrice as much."""
    raw = Inv(tuple(InventoryItem(InventoryKind.TX, n.to_bytes(32, "big")) for n in range(10_000))).encode()
    meter = Meter(TABLE)
    tracemalloc.start()
    meter.admit([Inv.decode(raw)], 0.0)  # takes all that was saved up
    before, _ = tracemalloc.get_traced_memory()
    meter.admit([Inv.decode(raw)], 0.0)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * taken < meter.held < 1.5 * taken
    meter.ready(1_000.0)
    assert meter.held == 0


def test_large_messages_are_counted_in_bytes() -> None:
    meter = Meter(TABLE)
    large = Tx(bytes(1_000_000))
    served, dropped = meter.admit([large] * 80, 0.0)
    assert len(served) == int(RATES["tx"][3] // 1_000_020)
    assert meter.held <= DEFERRED_BYTES
    assert len(served) + meter.late + dropped == 80
    assert meter.deadline(0.0) < 2.0


def test_what_is_counted_is_the_size_of_the_frame() -> None:
    items = tuple(InventoryItem(InventoryKind.TX, bytes(32)) for _ in range(1_000))
    headers = tuple(bytes(80) for _ in range(1_000))
    for message in (Inv(items), Headers(headers), Tx(bytes(5_000)), Block(bytes(5_000))):
        size_of = TABLE[type(message)].size_of
        assert size_of is not None
        assert abs(size_of(message) - len(encode_frame(message))) <= 9, "but for the count before the items"
    size_of = TABLE[Unknown].size_of
    assert size_of is not None
    assert size_of(Unknown("news", 700, bytes(4))) == 700


def test_what_is_counted_grows_as_the_frame_does() -> None:
    one, two, three = (
        CmpctBlock(bytes(80), 1, (bytes(6),) * n, bytes(m)) for n, m in ((10, 100), (200, 100), (10, 900))
    )
    few, many = (BlockTxn(bytes(32), bytes(size)) for size in (100, 90_000))
    for smaller, larger in ((one, two), (one, three), (few, many)):
        size_of = TABLE[type(smaller)].size_of
        assert size_of is not None
        assert size_of(larger) - size_of(smaller) == len(encode_frame(larger)) - len(encode_frame(smaller))
    size_of = TABLE[Addr].size_of
    addresses = Addr(EXAMPLES[Addr].entries[:1] * 500)  # type: ignore[attr-defined]
    assert size_of is not None
    assert 0.5 < size_of(addresses) / len(encode_frame(addresses)) < 2


def test_one_kind_over_its_rate_holds_up_nothing_of_the_same_chunk() -> None:
    served, _ = Meter(TABLE).admit([*(Ping(n) for n in range(300)), Pong(2), GetAddr()], 0.0)
    assert served[-2:] == [Pong(2), GetAddr()]


def test_what_waits_goes_when_there_is_room_for_the_first_of_it() -> None:
    rate = TABLE[Tx].__class__(1.0, 1.0, 1_000.0, 1_000.0, TABLE[Tx].size_of)
    for first, second in ((480, 980), (980, 480)):
        meter = Meter({Tx: rate})
        meter.admit([Tx(bytes(980)), Tx(bytes(first)), Tx(bytes(second))], 0.0)
        assert meter.deadline(0.0) == pytest.approx(1.0, abs=0.01)
        assert [len(tx.raw) for tx in meter.ready(1.01)] == [first]


def test_one_message_may_wait_however_large() -> None:
    rates = {Block: TABLE[Block].__class__(1.0, 1.0, 1e6, 20e6, TABLE[Block].size_of)}
    meter = Meter(rates)
    huge = Block(bytes(9_000_000))
    assert meter.admit([huge, huge, huge], 0.0) == ([huge], 1)
    assert meter.ready(30.0) == [huge]


def test_unknown_types_share_one_row_and_an_applications_own_have_none() -> None:
    meter = Meter(TABLE)
    unknown = [Unknown(f"x{n}", 10, bytes(4), None) for n in range(600)]
    served, _ = meter.admit(list(unknown), 0.0)
    assert len(served) == int(RATES[UNKNOWN_KIND][1])

    class Own:
        pass

    owns = [Own() for _ in range(100_000)]
    assert meter.admit(list(owns), 0.0) == (owns, 0)


def test_a_factor_widens_every_row() -> None:
    wide = Meter(rates_of(CATALOGUE, 10.0))
    assert len(wide.admit([Ping(1)] * 3_000, 0.0)[0]) == 2_000


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0, 30)), max_size=12))
def test_served_waiting_and_dropped_are_all_there_is(chunks: list[tuple[int, float]]) -> None:
    meter, now, served, dropped = Meter(TABLE), 0.0, 0, 0
    for count, wait in chunks:
        now += wait
        served += len(meter.ready(now))
        some, lost = meter.admit([Ping(0)] * count, now)
        served, dropped = served + len(some), dropped + lost
    waiting = meter.held // 20
    assert served + dropped + waiting == sum(count for count, _ in chunks)
    assert waiting <= DEFERRED_MESSAGES
    assert served <= RATES["ping"][1] + RATES["ping"][0] * now + 1
    assert (meter.deadline(now) == inf) is (waiting == 0)


def test_a_bucket_gives_what_was_saved_and_no_more() -> None:
    bucket = TokenBucket(rate=2.0, burst=10.0, now=0.0, tokens=1.0)
    assert bucket.take_some(5, 0.0) == 1
    assert bucket.take_some(5, 1.0) == 2
    bucket.give(100.0, 1.0)
    assert bucket.take_some(50, 1.0) == 10
    assert bucket.wait_s(4.0, 1.0) == pytest.approx(2.0, abs=1e-3)
    assert not bucket.take(4.0, 2.9)
    assert bucket.take(4.0, 3.0)


def test_a_bucket_is_full_again_once_all_has_come_back() -> None:
    bucket = TokenBucket(rate=2.0, burst=10.0, now=0.0)
    assert bucket.is_full(0.0)
    bucket.take(1.0, 0.0)
    assert not bucket.is_full(0.4)
    assert bucket.is_full(0.6)


def test_within_the_limits_a_message_costs_next_to_nothing() -> None:
    """0.1 us each was asked for; the bound here is wide, since machines are noisy: it finds a call per message."""
    chunk = [Tx(bytes(100))] * 20 + [Ping(n) for n in range(100)] + [object()] * 4_000
    meter = Meter(rates_of(CATALOGUE, 1e6))
    best = inf
    for _ in range(20):
        begin = time.perf_counter()
        served, _ = meter.admit(chunk, 0.0)
        best = min(best, time.perf_counter() - begin)
        assert served is chunk  # not even copied
    assert best / len(chunk) < 1e-6
