"""Times of sending: laws (with wrong laws that must fail), bounds, order, budgets; through the shipped link where it matters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from obscura.lab.link import LabLink, idle, opaque
from obscura.lab.mix import DEFAULT_MIX
from obscura.limits import MAX_HELD_BYTES
from obscura.node.cover import Budget, _spending
from obscura.shaping.levels import LEVELS, Knobs, PrivacyLevel, knobs_of
from obscura.shaping.schedule import CLASSES, Gate, MessageClass, Pace, Slots
from obscura.wire.catalogue import BUILT_IN
from obscura.wire.frame import encode_raw
from obscura.wire.messages.network import Ping

STANDARD, MEDIUM, HIGH = (LEVELS[PrivacyLevel(name)] for name in ("standard", "medium", "high"))
CONSTANT = knobs_of(PrivacyLevel.HIGH, constant_slots=True)
ALPHA = 1e-4  # of a right law failing; the seeds are fixed, so that it either always does or never


def free(size: int, now: float) -> bool:
    return True


def gaps(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def p_value(sample: Sequence[float], law: str, *arguments: float) -> float:
    return float(stats.kstest(sample, law, args=arguments).pvalue)


def gate_times(pace: Pace, seconds: float) -> list[float]:
    """When an idle gate sends its dummies."""
    gate, now, times = Gate(pace, random.Random(5), free), 0.0, []
    while now < seconds:
        times += [now] * gate.allowance(now, 0, 1_003).dummies
        now = gate.deadline(0)
    return times


def slot_times(is_constant: bool, number: int) -> list[float]:
    slots, now, times = Slots(1_024, 0.25, random.Random(5), free, is_constant=is_constant), 0.0, []
    while len(times) < number:
        times += [now] * slots.allowance(now, 0, 1_003).dummies
        now = slots.deadline(0)
    return times


def delays(pace: Pace, number: int) -> list[float]:
    """How long a message that is alone waits."""
    rng, found = random.Random(5), []
    for _ in range(number):
        gate = Gate(pace, rng, free)
        gate.allowance(0.0, 0, 1_003)
        gate.put([encode_raw("tx", b"x")], 0.0)
        found.append(gate.deadline(21))
    return found


def test_dummies_follow_their_law_and_no_other() -> None:
    found = gaps(gate_times(Pace(dummy_s=(5.0, 30.0)), 200_000))
    assert p_value(found, "uniform", 5, 25) > ALPHA
    assert p_value(found, "uniform", 5, 24) < ALPHA
    assert p_value(found, "expon", 5, 12.5) < ALPHA


def test_chaff_follows_its_law_and_no_other() -> None:
    found = gaps(gate_times(Pace(chaff_s=(15.0, 120.0)), 600_000))
    assert p_value(found, "uniform", 15, 105) > ALPHA
    assert p_value(found, "uniform", 10, 110) < ALPHA


def test_jitter_follows_its_law_and_no_other() -> None:
    found = delays(Pace(jitter_s=(0.0, 0.1)), 3_000)
    assert p_value(found, "uniform", 0, 0.1) > ALPHA
    assert p_value(found, "uniform", 0, 0.11) < ALPHA


def test_poisson_slots_are_exponential_and_independent() -> None:
    found = gaps(slot_times(False, 6_000))
    assert p_value(found, "expon", 0, 0.25) > ALPHA
    assert p_value(found, "expon", 0, 0.27) < ALPHA
    assert p_value(found, "uniform", 0, 0.5) < ALPHA
    assert abs(stats.pearsonr(found[:-1], found[1:]).statistic) < 0.06


def test_constant_slots_are_constant() -> None:
    assert max(abs(gap - 0.25) for gap in gaps(slot_times(True, 2_000))) < 1e-9


def test_burst_sizes_are_uniform() -> None:
    """A flood of messages one at a time: each burst leaves when its number is full."""
    gate, sizes, held = Gate(Pace(burst=(2, 8), burst_hold_s=(9.0, 9.0)), random.Random(5), free), [], 0
    gate.begin(0)
    gate.allowance(0.0, 1, 1_003)
    while len(sizes) < 7_000:
        gate.put([encode_raw("tx", b"x")], 0.0)
        held += 1
        if gate.allowance(0.0, 21 * held, 1_003).frame_bytes:
            sizes.append(held)
            held = 0
    counts = [sizes.count(number) for number in range(10)]
    assert counts[0] == counts[1] == counts[9] == 0
    assert stats.chisquare(counts[2:9]).pvalue > ALPHA
    assert stats.chisquare([*counts[2:8], 0]).pvalue < ALPHA  # a burst that never is of eight would be noticed


def test_every_built_in_type_has_the_class_that_was_meant() -> None:
    """Nothing of the handshake, no ping and no block body is ever delayed; nothing else is exempt."""
    exempt = {cls.TYPE for cls in BUILT_IN if CLASSES.get(cls.NAME) in (MessageClass.AT_ONCE, MessageClass.BLOCKS)}
    assert exempt == {
        *("version", "verack", "padneg", "resume", "resumed", "rotate", "sendcmpct", "ping", "pong"),
        *("block", "cmpctblock", "getblocktxn", "blocktxn"),
    }


@pytest.mark.parametrize("knobs", [STANDARD, MEDIUM])
@pytest.mark.parametrize("kind", ["ping", "pong", "block", "cmpctblock", "verack"])
def test_exempt_messages_leave_at_once(knobs: Knobs, kind: str) -> None:
    link = LabLink(knobs, random.Random(3))
    link.run([(7.0, opaque("tx")(b"x")), (7.0, opaque(kind)(b"x" * 8))], 7.0)
    assert [link.writes[sent.write].at for sent in link.messages] == [7.0, 7.0]


@pytest.mark.parametrize(("knobs", "most_s"), [(STANDARD, 0.02), (MEDIUM, 0.26), (HIGH, inf), (CONSTANT, inf)])
@pytest.mark.parametrize("rate", [2.0, 40.0])
def test_order_is_kept_and_nothing_is_held_too_long(knobs: Knobs, most_s: float, rate: float) -> None:
    """First in, first out, so that no reply and no later message ever overtakes; the bound holds for every message."""
    rng = random.Random(11)
    link = LabLink(knobs, rng, deliver=True)
    arrivals = list(DEFAULT_MIX.without("block", "headers").arrivals(rng, 300, rate))
    link.run(arrivals, arrivals[-1][0] + 300)
    writes = [sent.write for sent in link.messages]
    assert writes == sorted(writes)
    assert -1 not in writes
    waits = [link.writes[sent.write].at - sent.at for sent in link.messages]
    assert min(waits) >= 0
    assert max(waits) <= most_s + 1e-9


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tx", "inv", "ping", "addr", "block", "own"]), st.integers(0, 3_000), st.floats(0, 2)
        ),
        max_size=20,
    ),
    st.sampled_from([STANDARD, MEDIUM, HIGH, Knobs(slot_ms=(20, 20), slot_size=512)]),
    st.integers(0, 2**32),
)
def test_everything_arrives_whole_and_in_order(traffic: list[tuple[str, int, float]], knobs: Knobs, seed: int) -> None:
    rng = random.Random(seed)
    link = LabLink(knobs, rng, deliver=True)
    decoded = []
    catalogue = link.receiver._decoder.kinds
    link.receiver._decoder.kinds = type(catalogue)({}, frozenset())  # every type is one that it does not know
    now, arrivals = 0.0, []
    for kind, size, gap in traffic:
        now += gap
        arrivals.append((now, opaque(kind)(bytes(size))))
    link.run(arrivals, now + 60)
    decoded = [(event.type, event.size) for event in link.events if type(event).__name__ == "Unknown"]
    assert decoded == [(kind, size) for kind, size, _ in traffic]
    assert not any(type(event).__name__ == "Breach" for event in link.events)


@pytest.mark.parametrize("knobs", [HIGH, CONSTANT])
def test_under_slots_no_size_and_no_time_says_anything(knobs: Knobs) -> None:
    """The same chances give the same wire, whether the link is idle or moves a block; but for what is inside the seals."""
    quiet, busy = LabLink(knobs, random.Random(9)), LabLink(knobs, random.Random(9))
    quiet.run((), 60)
    busy.run([(3.0, opaque("block")(bytes(300_000))), (4.0, Ping(1))], 60)
    assert [(write.at, write.sizes) for write in quiet.writes] == [(write.at, write.sizes) for write in busy.writes]
    assert {write.sizes for write in busy.writes[1:]} == {(1_024,)}


def test_missed_slots_are_left_out() -> None:
    for is_constant in (True, False):
        slots = Slots(1_024, 0.25, random.Random(1), free, is_constant=is_constant)
        slots.allowance(0.0, 0, 1_003)
        sent = [slots.allowance(100.0, 10**6, 1_003).frame_bytes for _ in range(5)]
        assert sent == [1_003, 0, 0, 0, 0]
        assert 100.0 < slots.deadline(10**6) < 106.0


def test_bulk_is_not_held() -> None:
    gate = Gate(Pace(jitter_s=(5.0, 5.0)), random.Random(1), free)
    gate.allowance(0.0, 0, 1_003)
    gate.put([encode_raw("tx", bytes(1_000))], 0.0)
    assert gate.allowance(0.0, MAX_HELD_BYTES - 1, 1_003).frame_bytes == 0
    assert gate.allowance(0.0, MAX_HELD_BYTES, 1_003).frame_bytes == MAX_HELD_BYTES
    gate.put([encode_raw("tx", b"")] * 65, 0.0)
    assert gate.allowance(0.0, 65 * 20, 1_003).frame_bytes == 65 * 20


def test_a_full_record_leaves_and_the_rest_waits() -> None:
    gate = Gate(Pace(jitter_s=(5.0, 5.0)), random.Random(1), free)
    gate.allowance(0.0, 0, 1_003)
    gate.put([encode_raw("tx", bytes(400)), encode_raw("tx", bytes(400))], 0.0)
    assert gate.allowance(0.0, 840, 1_003).frame_bytes == 0
    gate.put([encode_raw("tx", bytes(400))], 1.0)
    assert gate.allowance(1.0, 1_260, 1_003).frame_bytes == 840
    assert gate.allowance(1.0, 420, 1_003).frame_bytes == 0
    assert gate.deadline(420) == 6.0
    gate.put([encode_raw("tx", bytes(1_200))], 2.0)
    # Together they need no more records than the second alone.
    assert gate.allowance(2.0, 1_640, 1_003).frame_bytes == 0


def test_a_due_dummy_carries_what_waits() -> None:
    gate = Gate(Pace(jitter_s=(5.0, 5.0), dummy_s=(1.0, 1.0)), random.Random(1), free)
    gate.allowance(0.0, 0, 1_003)
    gate.put([encode_raw("tx", b"")], 0.5)
    assert gate.allowance(1.0, 20, 1_003) == (20, 0)
    assert gate.allowance(2.0, 0, 1_003) == (0, 1)


def test_budget_per_second_and_day_bound_cover_and_never_traffic() -> None:
    pace = Pace(dummy_s=(0.01, 0.01))
    for budget, allowed in ((Budget(1_024, 0, 0.0), 101), (Budget(0, 50 * 1_024, 0.0), 50)):
        gate, now, dummies = Gate(pace, random.Random(1), budget.may_spend), 0.0, 0
        while now < 100:
            dummies += gate.allowance(now, 0, 1_003).dummies
            now = gate.deadline(0)
        assert allowed <= dummies <= allowed + 2
        gate.put([encode_raw("ping", bytes(8))], now)
        assert gate.allowance(now, 28, 1_003).frame_bytes == 28
    slots = Slots(1_024, 0.25, random.Random(1), lambda size, now: False, is_constant=True)
    slots.allowance(0.0, 0, 1_003)
    assert slots.allowance(10.0, 0, 1_003) == (0, 0)
    assert slots.allowance(20.0, 500, 1_003) == (500, 0)


@pytest.mark.parametrize(
    ("per_s", "per_day", "record", "most"),
    [
        (3_000, 0, 4_096, 3_000),
        (3_000, 0, 65_536, 3_000),
        (0, 20_000, 65_536, 20_000 / 86_400),
        (10**6, 2_000, 4_096, 2_000 / 86_400),
    ],
)
def test_a_budget_smaller_than_a_record_makes_cover_rare_and_does_not_end_it(
    per_s: int, per_day: int, record: int, most: float
) -> None:
    budget, every = Budget(per_s, per_day, 0.0), record / most / 20
    spent = sum(record * budget.may_spend(record, every * tick) for tick in range(2_000))
    assert 0.9 < spent / (2_000 * every) / most < 1.1


def test_what_the_peer_accepts_bounds_the_cover() -> None:
    link = LabLink(MEDIUM, random.Random(1), peer=Knobs(most=30))
    link.run((), 20_000)
    assert 0.8 * 30 < link.sender.outbox.dummy_bytes_sent / 20_000 < 1.1 * 30
    assert idle(MEDIUM, random.Random(1), 20_000).sender.outbox.dummy_bytes_sent > 60 * 20_000


def test_what_a_peer_accepts_is_not_used_up_by_cover_that_the_budget_refuses() -> None:
    """Other links use up the budget for a second: this one must not pay for what it was not let send."""
    budget = Budget(1_024, 0, 0.0)
    may_spend = _spending(budget, 16)
    assert may_spend(1_024, 0.0)
    budget.may_spend(1_024, 0.0)
    refused = [may_spend(1_024, 0.5) for _ in range(3)]
    assert refused == [False] * 3
    assert may_spend(1_024, 2.0), "two records were saved up at its begin"


def test_idle_cover_of_the_levels() -> None:
    """Bytes per second of an idle link, as documented."""
    for knobs, low, high in ((STANDARD, 0, 0), (MEDIUM, 65, 85), (HIGH, 3_900, 4_300), (CONSTANT, 4_090, 4_100)):
        link = idle(knobs, random.Random(2), 2_000)
        assert low <= link.sender.outbox.dummy_bytes_sent / 2_000 <= high


def test_padding_is_counted_apart_from_dummies_and_frames() -> None:
    link = LabLink(MEDIUM, random.Random(4))
    before = link.sender.outbox.padding_sent
    link.run([(1.0, Ping(1))], 1.0)
    sender = link.sender
    sealed = sum(sum(write.sizes) for write in link.writes)
    assert sealed == 1_024
    assert sender.outbox.padding_sent - before == 1_024 - 21 - 28


def test_what_is_queued_while_a_release_is_being_written_is_timed_too() -> None:
    """A release of megabytes leaves in parts; a message queued between two parts must not be forgotten behind the gate."""
    link = LabLink(MEDIUM, random.Random(4))
    sender = link.sender
    sender.send(opaque("block")(bytes(3_000_000)))
    sender.flush(1.0)
    assert sender.has_more
    sender.send(opaque("tx")(b"x"))
    while sender.has_more:
        sender.flush(1.0)
    assert sender.waiting == 21
    assert 1.0 < sender.deadline() < 1.27
    sender.flush(sender.deadline())
    assert sender.waiting == 0
