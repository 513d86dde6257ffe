"""padneg: what both ends compute from both proposals, what absurd ones come to, and who refuses whom (design 7)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura import limits
from obscura.connection import Ended, Established, Reason
from obscura.handshake.features import BUILT, Privacy
from obscura.lab.link import LabLink
from obscura.shaping.agreement import OFF, UNBOUNDED, Agreement, Understood, agree, concessions, wished
from obscura.shaping.levels import ACCEPT, LEVELS, Knobs, PrivacyLevel, knobs_of, padneg
from obscura.shaping.padding import Rule, padding
from obscura.wire.messages.privacy import PadNeg, ShapingTerms

U8, U32 = st.integers(0, 255), st.integers(0, 2**32 - 1)
SIZE = st.integers(1, 65_536)
TERMS = st.builds(
    ShapingTerms,
    rules=st.lists(U8, min_size=1, max_size=8).map(tuple),
    record_size=st.tuples(SIZE, SIZE),
    dummy_ms=st.tuples(U32, U32),
    burst=st.tuples(U8, U8),
    chaff_ms=st.tuples(U32, U32),
    slot_size=SIZE,
    slot_ms=st.tuples(U32, U32),
)
PADNEG = st.builds(PadNeg, TERMS, TERMS, U32)
UNDERSTOOD = st.builds(Understood, st.booleans(), st.booleans(), st.booleans(), st.booleans())


@settings(deadline=None, max_examples=120)
@given(PADNEG, PADNEG, UNDERSTOOD)
def test_both_ends_compute_the_same(a: PadNeg, b: PadNeg, understood: Understood) -> None:
    """Each end has its own value and what arrived on the wire as the other's."""
    a_seen_by_b, b_seen_by_a = PadNeg.decode(a.encode()), PadNeg.decode(b.encode())
    assert agree(a, b_seen_by_a, understood) == agree(a_seen_by_b, b, understood)
    assert agree(b_seen_by_a, a, understood) == agree(b, a_seen_by_b, understood)


@settings(deadline=None, max_examples=120)
@given(PADNEG, PADNEG, UNDERSTOOD)
def test_nothing_leaves_the_limits(a: PadNeg, b: PadNeg, understood: Understood) -> None:
    got = agree(a, b, understood)
    for pair, bounds in (
        (got.dummy_ms, limits.NEGOTIABLE_COVER_MS),
        (got.chaff_ms, limits.NEGOTIABLE_COVER_MS),
        (got.burst, limits.NEGOTIABLE_BURST),
    ):
        assert pair == OFF or bounds[0] <= pair[0] <= pair[1] <= bounds[1]
    low, high = got.record_size
    assert 64 <= low <= 4_096
    assert 1_024 <= high <= 65_536
    assert 64 <= got.slot_size <= 65_536
    if got.has_slots:
        least, most = limits.NEGOTIABLE_SLOT_MS
        assert least / 1_000 <= got.slot_mean_s <= most / 1_000
        assert OFF == got.dummy_ms == got.chaff_ms == got.burst
    if not understood.dummies:
        assert OFF == got.dummy_ms == got.chaff_ms
    if not understood.bursts:
        assert got.burst == OFF
    if not understood.slots:
        assert not got.has_slots
    assert got.rule in a.send.rules


def terms(**changes: object) -> ShapingTerms:
    values = {
        "rules": (1,),
        "record_size": (1_024, 65_536),
        "dummy_ms": (5_000, 30_000),
        "burst": (2, 8),
        "chaff_ms": (15_000, 120_000),
        "slot_size": 1_024,
        "slot_ms": OFF,
    }
    return ShapingTerms(**{**values, **changes})  # type: ignore[arg-type]


def outcome(send: ShapingTerms, accept: ShapingTerms, most: int = UNBOUNDED) -> Agreement:
    return agree(PadNeg(send, send, UNBOUNDED), PadNeg(accept, accept, most), Understood())


@pytest.mark.parametrize(
    ("send", "accept", "rule"),
    [
        ((1, 2), (2, 1), 1),
        ((9, 2), (2, 1), 2),
        ((0, 2), (1,), 0),
        ((9,), (1,), 9),
        ((1, 0), (0,), 0),
    ],
)
def test_the_rule_is_the_senders_first_that_is_accepted(send: tuple[int], accept: tuple[int], rule: int) -> None:
    assert outcome(terms(rules=send), terms(rules=accept)).rule == rule


@pytest.mark.parametrize(
    ("own", "accept", "agreed"),
    [
        ((5_000, 30_000), (10_000, 20_000), (10_000, 20_000)),
        ((5_000, 30_000), (40_000, 60_000), (40_000, 40_000)),
        ((5_000, 30_000), (1, 2), (1_000, 1_000)),
        ((5_000, 30_000), (2**32 - 1, 2**32 - 1), (3_600_000, 3_600_000)),
        ((5_000, 30_000), (60_000, 2_000), (2_000, 2_000)),
        ((30_000, 5_000), (1_000, 60_000), (5_000, 30_000)),
        ((5_000, 30_000), OFF, OFF),
        (OFF, (5_000, 30_000), OFF),
    ],
)
def test_pairs_are_clamped(own: tuple[int, int], accept: tuple[int, int], agreed: tuple[int, int]) -> None:
    assert outcome(terms(dummy_ms=own), terms(dummy_ms=accept)).dummy_ms == agreed
    assert outcome(terms(chaff_ms=own), terms(chaff_ms=accept)).chaff_ms == agreed


@pytest.mark.parametrize(
    ("own", "accept", "agreed"),
    [
        ((0, 500), (0, 120_000), (0, 500)),
        ((250, 250), (0, 120_000), (250, 250)),
        ((0, 500), (1, 1), (20, 20)),
        ((0, 500), (5, 0), (20, 20)),
        ((250, 250), (1_000, 2_000), (1_000, 1_000)),
        ((0, 500), (2**32 - 1, 2**32 - 1), (60_000, 60_000)),
        ((0, 500), OFF, OFF),
        ((60_000, 120_000), (0, 120_000), (0, 120_000)),  # 90 s in the mean
        ((50_000, 90_000), (0, 120_000), (30_000, 90_000)),
        ((0, 500), (60_000, 2**32 - 1), (60_000, 60_000)),
    ],
)
def test_slots_are_clamped_by_their_mean(
    own: tuple[int, int], accept: tuple[int, int], agreed: tuple[int, int]
) -> None:
    assert outcome(terms(slot_ms=own), terms(slot_ms=accept)).slot_ms == agreed


def test_a_peer_cannot_make_cells_show_sizes_or_pings_cost_much() -> None:
    """What an attacker tries with record sizes: tiny records for a block, huge ones for a ping."""
    tiny = outcome(terms(), terms(record_size=(1, 1)))
    huge = outcome(terms(), terms(record_size=(65_536, 65_536)))
    rng = random.Random(0)
    assert padding(Rule.CELLS, rng, tiny.record_size).next_size(0) == 1_024
    assert padding(Rule.CELLS, rng, tiny.record_size).next_size(4_000_000) == 1_024
    assert padding(Rule.CELLS, rng, huge.record_size).next_size(0) == 4_096


@pytest.mark.parametrize(
    ("changes", "most", "said"),
    [
        ({}, UNBOUNDED, ()),
        ({"dummy_ms": OFF}, UNBOUNDED, ("no dummies",)),
        ({"chaff_ms": (120_000, 120_000)}, UNBOUNDED, ("chaff each 120000 ms instead of 15000-120000",)),
        ({"dummy_ms": (1_000, 1_000)}, UNBOUNDED, ()),  # more than wished is not less
        ({"burst": OFF}, UNBOUNDED, ("no bursts",)),
        ({"record_size": (1, 1)}, UNBOUNDED, ()),  # cells are no smaller for it
        ({"burst": (1, 4)}, UNBOUNDED, ("bursts of 2-4 messages instead of 2-8",)),
        ({}, 10, ("at most 10 bytes of cover per second, 74 being needed",)),
        ({}, 74, ()),
    ],
)
def test_concessions_are_named(changes: dict[str, object], most: int, said: tuple[str, ...]) -> None:
    own = PadNeg(terms(), terms(), UNBOUNDED)
    got = agree(own, PadNeg(terms(), terms(**changes), most), Understood())
    assert concessions(wished(own), got) == said


def test_smaller_records_than_wished_are_named() -> None:
    """Who raised the smallest record has its transactions look like pings: a peer that accepts none of it shows them."""
    own, tiny = padneg(Knobs(least_record=4_096)), padneg(MEDIUM)
    tiny = PadNeg(tiny.send, terms(record_size=(64, 1_500)), UNBOUNDED)
    said = concessions(wished(own), agree(own, tiny, Understood()))
    assert said == ("records of at least 1500 bytes instead of 4096",)
    assert concessions(wished(own), agree(own, padneg(MEDIUM), Understood())) == ()


def test_the_default_levels_grant_each_other_everything() -> None:
    for own in LEVELS.values():
        for other in LEVELS.values():
            got = agree(padneg(own), padneg(other), Understood())
            assert concessions(wished(padneg(own)), got) == ()


def test_padneg_of_a_level_says_the_table_and_nothing_of_the_user() -> None:
    assert padneg(LEVELS[PrivacyLevel.MEDIUM]).send == terms()
    assert padneg(LEVELS[PrivacyLevel.HIGH]).send.slot_ms == (0, 500)
    assert {padneg(knobs).accept for knobs in LEVELS.values()} == {ACCEPT}
    for number in range(2, 5_000, 7):
        said = padneg(Knobs(dummy_ms=(number, number), is_rounded=True, most=number))
        for value in (*said.send.dummy_ms, said.most):
            assert value.bit_count() == 1
            assert 0.7 < value / number < 1.42


HIGH, MEDIUM = LEVELS[PrivacyLevel.HIGH], LEVELS[PrivacyLevel.MEDIUM]


def linked(own: Knobs, peer: PadNeg | None, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> LabLink:
    """A link whose far end says ``peer`` in its padneg."""
    if peer is not None:
        other = Knobs(most=12_345)
        monkeypatch.setattr("obscura.lab.link.padneg", lambda knobs: peer if knobs is other else padneg(knobs))
        return LabLink(own, rng, peer=other)
    return LabLink(own, rng)


def test_high_refuses_a_peer_that_asks_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    no_slots = PadNeg(terms(), terms(slot_ms=OFF), UNBOUNDED)
    link = linked(HIGH, no_slots, random.Random(1), monkeypatch)
    ended = [event for event in link.events if isinstance(event, Ended)]
    assert any(event.reason is Reason.REFUSED and "no slots" in event.detail for event in ended)
    assert not any(isinstance(event, Established) for event in link.events)


def test_below_high_the_wish_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = PadNeg(terms(), terms(dummy_ms=OFF, chaff_ms=OFF, burst=OFF), UNBOUNDED)
    link = linked(MEDIUM, nothing, random.Random(1), monkeypatch)
    assert link.sender.is_established
    link.run((), 3_600.0)
    assert link.sender.outbox.dummies_sent == 0


def test_a_missing_feature_bit_counts_as_less(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = BUILT.lacks(type(BUILT)(0, Privacy.TrafficNormalisation))
    monkeypatch.setattr("obscura.lab.link.BUILT", flags)
    link = LabLink(HIGH, random.Random(1))
    assert any(isinstance(event, Ended) and event.reason is Reason.REFUSED for event in link.events)


def test_constant_slots_on_request() -> None:
    knobs = knobs_of(PrivacyLevel.HIGH, constant_slots=True)
    assert padneg(knobs).send.slot_ms == (250, 250)
