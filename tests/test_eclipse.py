"""Eclipse attacks on one node over restarts (design 10): the share that an attacker gets, and what anchors are worth."""

from __future__ import annotations

import os
import statistics

import pytest

from obscura.limits import OUTBOUND_BLOCKS, OUTBOUND_FULL
from obscura.node.slots import Slots
from obscura.sim.eclipse import Attack, Life, Victim

SEEDS = int(os.environ.get("TEST_ECLIPSE_SEEDS", "0"))  # tools/eclipse.py runs a thousand
SLOTS = OUTBOUND_FULL + OUTBOUND_BLOCKS


def lives_of(attack: Attack, seeds: int, lives: int) -> list[list[Life]]:
    return [list(Victim(attack, seed).lives(lives)) for seed in range(SEEDS or seeds)]


def test_two_networks_never_hold_more_than_two_slots() -> None:
    for row in lives_of(Attack(groups=2, addresses=512), seeds=4, lives=11):
        for life in row:
            assert life.slots == SLOTS == life.groups
            assert life.bad_slots <= 2
            assert life.kept_anchors


def test_many_networks_get_the_share_of_the_formula() -> None:
    attack = Attack(groups=256, addresses=1_024)
    rows = lives_of(attack, seeds=16, lives=4)
    for number in range(4):
        shares = [row[number].bad_slots / row[number].slots for row in rows]
        error = statistics.stdev(shares) / len(shares) ** 0.5
        assert statistics.fmean(shares) <= attack.share(number) + 3 * error
        assert statistics.fmean(shares) >= attack.share(0) / 3  # the attack is one
    assert all(life.kept_anchors for row in rows for life in row)


def test_an_honest_anchor_outlives_an_attacker_who_owns_all_that_others_tell() -> None:
    """Even with 64 lies for each honest place, a peer that was good is there after each start."""
    attack = Attack(groups=256, addresses=4_096, honest=64, tried=32, life_s=600)
    row = next(iter(lives_of(attack, seeds=1, lives=4)))
    assert all(life.kept_anchors for life in row)
    assert min(life.bad_slots for life in row) < SLOTS


def test_anchors_that_nobody_keeps_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "anchors", property(lambda self: []))
    first, second = Victim(Attack(groups=2, addresses=64, life_s=60), 1).lives(2)
    assert first.kept_anchors, "nothing was to be kept yet"
    assert not second.kept_anchors


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (Attack(groups=256, addresses=8_192), Attack(groups=256, addresses=256)),
        (Attack(groups=256, addresses=8_192), Attack(groups=2, addresses=8_192)),
        (Attack(groups=256, addresses=8_192), Attack(groups=256, addresses=8_192, honest=4_000)),
        (Attack(groups=256, addresses=8_192), Attack(groups=256, addresses=8_192, tried=300)),
    ],
)
def test_the_formula_rises_with_what_the_attacker_has_and_falls_with_what_the_node_knows(
    more: Attack, less: Attack
) -> None:
    assert 0 < less.share(5) < more.share(5) < 1
