"""Who breaks the own agreement is noticed; no honest sender is, whatever the path does to its records (design 7)."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from obscura.connection import Shape
from obscura.lab.link import LabLink, opaque
from obscura.lab.mix import DEFAULT_MIX
from obscura.node import cover
from obscura.node.effects import Penalise
from obscura.shaping.agreement import OFF, UNBOUNDED, Agreement, Understood, agree
from obscura.shaping.levels import LEVELS, Knobs, PrivacyLevel, knobs_of, padneg
from obscura.shaping.padding import Exact, Rule
from obscura.shaping.schedule import IMMEDIATE
from obscura.shaping.watch import Breach, Watch, watch

LEVEL_KNOBS = [
    *LEVELS.values(),
    knobs_of(PrivacyLevel.HIGH, constant_slots=True),
    Knobs(rule=Rule.UNIFORM),
    Knobs(rule=Rule.NONE),
    Knobs(slot_ms=(20, 20), slot_size=16_384),
]


def agreement(knobs: Knobs, **changes: Any) -> Agreement:
    return msgspec.structs.replace(agree(padneg(knobs), padneg(knobs), Understood()), **changes)


@pytest.mark.parametrize("knobs", LEVEL_KNOBS)
def test_honest_senders_break_nothing(knobs: Knobs) -> None:
    """A mix, an idle hour, a path that holds everything back for half a minute at a time."""
    rng = random.Random(21)
    link = LabLink(knobs, rng, peer=knobs)
    arrivals = list(DEFAULT_MIX.without("block", "headers").arrivals(rng, 200, 2.0))
    link.run(arrivals, arrivals[-1][0] + 1_000)
    for stall_s in (0.001, 30.0):
        watcher = watch(agreement(knobs))
        if watcher is not None:
            watcher.begin(0.0)
            for write in link.writes:
                arrived = (write.at // stall_s + 1) * stall_s
                for place, size in enumerate(write.sizes):
                    is_dummy = place >= len(write.sizes) - write.dummies
                    assert watcher.record(size, is_dummy, arrived) is None


@pytest.mark.parametrize("knobs", LEVEL_KNOBS)
def test_honest_links_deliver_no_breach(knobs: Knobs) -> None:
    rng = random.Random(22)
    link = LabLink(knobs, rng, peer=knobs, deliver=True)
    arrivals = list(DEFAULT_MIX.without("block", "headers").arrivals(rng, 100, 20.0))
    link.run(arrivals, 120)
    assert not [event for event in link.events if isinstance(event, Breach)]


def fed(agreed: Agreement, records: list[tuple[int, bool, float]]) -> list[str]:
    """What a watch says of records (size, is it a dummy, when)."""
    watcher = Watch(agreed)
    assert watcher.record(777, False, 0.0) is None  # before the verack nothing is looked at
    watcher.begin(0.0)
    assert watcher.record(777, False, 0.0) is None  # announced before the peer could know the agreement
    return [breach.what for record in records if (breach := watcher.record(*record)) is not None]


MEDIUM, HIGH = LEVELS[PrivacyLevel.MEDIUM], LEVELS[PrivacyLevel.HIGH]


@pytest.mark.parametrize(
    ("agreed", "size", "is_breach"),
    [
        (agreement(MEDIUM), 1_024, False),
        (agreement(MEDIUM), 65_536, False),
        (agreement(MEDIUM), 1_025, True),
        (agreement(MEDIUM), 64, True),
        (agreement(MEDIUM, record_size=(1_500, 9_000)), 1_500, False),
        (agreement(MEDIUM, record_size=(1_500, 9_000)), 9_000, False),
        (agreement(MEDIUM, record_size=(1_500, 9_000)), 1_024, True),
        (agreement(MEDIUM, record_size=(1_500, 9_000)), 10_240, True),
        (agreement(MEDIUM, rule=0, record_size=(64, 4_096)), 4_000, False),
        (agreement(MEDIUM, rule=0, record_size=(64, 4_096)), 5_000, True),
        (agreement(MEDIUM, rule=77, record_size=(64, 4_096)), 5_000, False),
        (agreement(HIGH), 1_024, False),
        (agreement(HIGH), 2_048, True),
    ],
)
def test_sizes_that_the_rule_cannot_produce(agreed: Agreement, size: int, is_breach: bool) -> None:
    assert bool(fed(agreed, [(size, False, 1.0)])) is is_breach


def test_a_flood_of_dummies() -> None:
    dummies = [(1_024, True, number * 0.1) for number in range(1_000)]
    assert "more dummies than agreed" in fed(agreement(MEDIUM), dummies)
    assert fed(agreement(LEVELS[PrivacyLevel.STANDARD]), dummies[:40]) == []
    assert fed(agreement(LEVELS[PrivacyLevel.STANDARD]), dummies)


def test_dummies_of_bursts_need_messages() -> None:
    topped_up = [(1_024, number % 4 > 0, number * 0.01) for number in range(2_000)]
    assert fed(agreement(MEDIUM), topped_up) == []
    assert fed(agreement(MEDIUM, burst=OFF), topped_up)


def test_more_records_than_slots() -> None:
    for agreed in (agreement(HIGH), agreement(HIGH, slot_ms=(250, 250))):
        assert fed(agreed, [(1_024, False, number * 0.25) for number in range(4_000)]) == []
        assert "more records than agreed slots" in fed(
            agreed, [(1_024, False, number * 0.1) for number in range(4_000)]
        )


def test_more_cover_than_accepted() -> None:
    bounded = agreement(MEDIUM, most=10, dummy_ms=(1_000, 1_000))
    assert "more cover than this node accepts" in fed(bounded, [(1_024, True, number * 1.0) for number in range(3_000)])
    unbounded = msgspec.structs.replace(bounded, most=UNBOUNDED)
    assert fed(unbounded, [(1_024, True, number * 1.0) for number in range(3_000)]) == []


def test_what_cannot_be_seen_is_not_watched() -> None:
    nothing = Knobs(rule=Rule.NONE, dummy_ms=OFF, chaff_ms=OFF, burst=OFF)
    assert watch(agreement(nothing)) is None
    assert watch(agreement(MEDIUM)) is not None


def test_a_cheating_sender_is_penalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """It agreed to cells and sends exact sizes: the receiver's link says so, and the core takes points."""
    shape = cover.shaping

    def cheat(knobs: Knobs, *rest: Any) -> Any:
        honest = shape(knobs, *rest)
        return (lambda negotiated: Shape(Exact(), IMMEDIATE, None)) if knobs.most == 7 else honest

    monkeypatch.setattr("obscura.lab.link.shaping", cheat)
    link = LabLink(Knobs(most=7), random.Random(1), peer=MEDIUM, deliver=True)
    link.run([(1.0, opaque("tx")(bytes(300))), (2.0, opaque("tx")(bytes(400)))], 3.0)
    breaches = [event for event in link.events if isinstance(event, Breach)]
    assert breaches
    part = cover.Cover(MEDIUM)
    (effect,) = part.reactions()[Breach](_Peer(), breaches[0], 1.0)  # type: ignore[arg-type,misc]
    assert isinstance(effect, Penalise)
    assert effect.points == 20
    assert "breaks its own agreement" in effect.why


class _Peer:
    link = 5
