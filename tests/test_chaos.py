"""The fault simulation: reproducible, clean on the node as it is, and not blind (``tools/chaos.py`` runs it at full size)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from obscura.sim.chaos import plan
from obscura.sim.chaos.run import Chaos, run

ROOT = Path(__file__).parents[1]
SMALL = (15, 21, 33)  # seeds that take a second or two each


@pytest.mark.parametrize("seed", SMALL)
def test_faults_break_no_rule(seed: int) -> None:
    verdict = run(seed)
    assert verdict.broken is None
    assert verdict.blocks > 0
    assert verdict.transactions > 0


def test_a_seed_is_reproducible_to_the_byte() -> None:
    assert run(21) == run(21)


def test_plans_differ_and_use_every_kind_of_fault() -> None:
    plans = [plan.plan_of(seed) for seed in range(100)]
    assert len({each.faults for each in plans}) == 100
    assert {fault.kind for each in plans for fault in each.faults} == set(plan.WEIGHTS)
    assert all(
        fault.at + fault.for_s <= plan.FAULTS_S + plan.MOST_DOWN_S + 10 for each in plans for fault in each.faults
    )


def test_what_is_broken_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that cannot hold: everybody must have what nobody sent."""
    chaos = Chaos(plan.plan_of(15))
    chaos.rules.own[bytes(32)] = 0
    monkeypatch.setattr("obscura.sim.chaos.run.LONGEST_S", 300.0)
    broken = chaos.verdict().broken
    assert broken is not None
    assert "nobody was told" in broken


@pytest.mark.parametrize("name", ["no-embargo", "stems-to-anyone", "drops-left-blocks"])
def test_the_listed_bugs_are_described(name: str) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from chaos_bugs import BUGS
    finally:
        sys.path.pop(0)
    assert len(BUGS) >= 10
    assert BUGS[name].what
