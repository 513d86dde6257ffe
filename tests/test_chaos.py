"""The fault simulation: reproducible, clean on the node as it is, and not blind (``tools/chaos.py`` runs it at full size)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from obscura.node.assembly import Settings
from obscura.node.download import Download
from obscura.sim.chaos import plan
from obscura.sim.chaos.mining import left_branch, mine, overtake, relay_of
from obscura.sim.chaos.order import Order
from obscura.sim.chaos.run import RAISED, Chaos, run
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork
from obscura.wire.messages.network import Ping, Pong

ROOT = Path(__file__).parents[1]
MOVING = 33  # a seed in which links move
SMALL = (15, 21, 26)  # seeds that take a second or two each; the last one has a quiet hostile node


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
    assert {fault.kind for each in plans for fault in each.faults} == set(get_args(plan.Kind))
    assert all(
        fault.at + fault.for_s <= plan.FAULTS_S + plan.MOST_DOWN_S + 10 for each in plans for fault in each.faults
    )


def test_what_is_broken_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that cannot hold: everybody must have what nobody sent."""
    chaos = Chaos(plan.plan_of(15))
    chaos.rules.own[bytes(32)] = 0
    monkeypatch.setattr("obscura.sim.chaos.run.LONGEST_S", 600.0)
    broken = chaos.verdict().broken
    assert broken is not None
    assert "nobody was told" in broken


def test_links_move_in_half_of_the_plans_and_in_the_networks() -> None:
    plans = [plan.plan_of(seed) for seed in range(100)]
    assert 35 <= sum(each.moves for each in plans) <= 65
    assert {each.moves for each in plans if any(fault.kind == "move" for fault in each.faults)} == {True}
    moving = run(MOVING)
    assert moving.broken is None
    assert moving.moves > 10
    assert run(21).moves == 0


def test_what_arrives_otherwise_than_it_was_sent_is_told() -> None:
    net = SimNetwork(Kernel(1))
    one, other = (net.add(Settings(network_id=bytes(32), is_dev=True)) for _ in range(2))
    link = one.connect(other.address)
    net.kernel.run(until=5.0)
    (far,) = other.assembly.core.peers
    order = Order()
    first, second, later, kind = Ping(1), Ping(2), Ping(3), Pong(1)
    for message in (first, kind, second, later):
        order.sent(one, link, message)
    assert order.served(other, far, first) is None
    assert order.served(other, far, second) is None
    assert order.served(other, far, kind) is None  # another kind, served later since its rate was used up
    told = order.served(other, far, second)
    assert told is not None
    assert "got ping on link 1 twice" in told
    assert order.served(other, far, Ping(4)) is not None
    order.ended(other, far)
    assert order.served(other, far, first) is None  # nothing is owed between nodes that are not watched


def test_time_that_stands_still_is_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that is always due would otherwise be found by waiting for ever."""
    monkeypatch.setattr(Download, "deadline", lambda self: 0.0)
    monkeypatch.setattr("obscura.sim.chaos.rules.MOST_AT_ONCE", 1_000)
    verdict = run(15)
    assert verdict.broken is not None
    assert "time stands still" in verdict.broken
    assert verdict.events < 10_000


def test_a_clock_far_behind_mines_nothing_and_one_ahead_does() -> None:
    chaos = Chaos(plan.plan_of(15))
    chaos._build()
    node = chaos.network.nodes[0]
    for error_s, found in ((plan.MOST_CLOCK_ERROR_S, 1), (-plan.MOST_CLOCK_ERROR_S, 0), (0.0, 1)):
        node.clock_error_s = error_s
        assert mine(node, chaos.rng) == found
        chaos.kernel.run(until=chaos.kernel.now + 10.0)


def test_a_left_branch_comes_back_when_somebody_goes_on_with_it() -> None:
    chaos = Chaos(plan.plan_of(15))
    chaos._build()
    node = chaos.network.nodes[0]
    assert left_branch(node) is None
    mine(node, chaos.rng)
    chaos.kernel.run(until=10.0)
    chain, left = relay_of(node).chain, relay_of(node).blocks.tip
    assert overtake(node, chain.genesis, chain.work(left), chaos.rng) == 2
    chaos.kernel.run(until=20.0)
    assert left_branch(node) == left
    assert not chain.on_best(left)
    assert overtake(node, left, chain.work(chain.tip), chaos.rng) == 2
    assert chain.on_best(left)


def test_a_listed_bug_is_found_and_its_seed_told() -> None:
    """In a process of its own: a bug stays in the process that has it."""
    asked = ["--bug", "punishes-lost-links", "--first", "23", "--seeds", "1", "--processes", "1"]
    done = subprocess.run([sys.executable, ROOT / "tools/chaos.py", *asked], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    told, _, again, summary = done.stdout.splitlines()
    assert told.startswith("seed 23 at ")
    assert "discourages honest node" in told
    assert again == "  again: python tools/chaos.py --first 23 --seeds 1 --bug punishes-lost-links"
    assert summary.startswith("1 seeds, 1 broken")


def test_every_listed_bug_is_described() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from chaos_bugs import BUGS
    finally:
        sys.path.pop(0)
    assert len(BUGS) >= 10
    page = (ROOT / "docs/fault-simulation.md").read_text(encoding="utf-8")
    assert all(bug.what and f"| `{name}` |" in page for name, bug in BUGS.items())


def test_what_raises_is_told_apart_from_a_rule_that_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listed bug whose patch no longer fits the node raises, and would pass for one that was found."""
    chaos = Chaos(plan.plan_of(15))

    def raises() -> float:
        raise TypeError("a patch")

    monkeypatch.setattr(chaos, "_happens", raises)
    assert (chaos.verdict().broken or "").startswith(f"{RAISED} TypeError at test_chaos.py:")
