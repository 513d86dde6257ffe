"""What the tools that try the node would say: of a leak, of a curve that is too steep; which changes of a line are tried."""

from __future__ import annotations

import ast
import asyncio
import random
from pathlib import Path

import pytest

import flood
import growth
import soak
from mutations import mutants_of
from soak_peers import WORK

CALM = soak.Sample(0.0, 40_000, 27, 3, 0, 0, 0, 0, 1)
GOOD = {
    "before": CALM._asdict(),
    "after": CALM._asdict(),
    "memory": {"rise_mib": 0.5},
    "links": 1_000,
    "most": {"most_held_bytes": 1 << 20, "links": 908},
    "calm": {"p95_ms": 20.0},
    "mixed": {"p95_ms": 150.0},
    "honest_links": 700,
    "honest_lost": 2,
    "seconds": 3_600,
    "late_synced": 90,
}
BAD = {
    "tasks": ({"after": CALM._replace(tasks=4)._asdict()}, "tasks left: 4, before 3"),
    "descriptors": ({"after": CALM._replace(descriptors=28)._asdict()}, "descriptors left"),
    "links": ({"after": CALM._replace(links=1)._asdict()}, "links left"),
    "memory": ({"memory": {"rise_mib": 8.1}}, "memory rose by 8.1 MiB"),
    "budget": ({"most": {"most_held_bytes": 1 << 30, "links": 908}}, "the budget is"),
    "nobody there": ({"most": {"most_held_bytes": 1 << 20, "links": 720}}, "at most 720 of 1000 links"),
    "latency": ({"mixed": {"p95_ms": 2_001.0}}, "95th percentile"),
    "no pings": ({"mixed": {"p95_ms": float("nan")}}, "95th percentile"),
    "lost links": ({"honest_lost": 8}, "8 of 700 honest links"),
    "no blocks": ({"late_synced": 0}, "no new node"),
}


def test_a_soak_that_went_well_breaks_nothing() -> None:
    assert soak.broken(GOOD, 8, 2_000) == []
    assert sum(share for _, share in WORK.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", BAD)
def test_each_bound_of_a_soak_can_break(name: str) -> None:
    change, words = BAD[name]
    (fault,) = soak.broken({**GOOD, **change}, 8, 2_000)
    assert words in fault


def test_a_leak_is_told_from_noise() -> None:
    rng = random.Random(1)
    noise = [rng.uniform(-500, 500) for _ in range(200)]
    flat = [CALM._replace(at_s=18.0 * n, rss_kib=int(60_000 + noise[n])) for n in range(200)]
    leak = [s._replace(rss_kib=s.rss_kib + int(10 * s.at_s)) for s in flat]  # 10 KiB a second
    assert soak.memory(flat, 1_200)["rise_mib"] < 1
    assert soak.memory(leak, 1_200)["rise_mib"] > 20
    assert soak.memory(leak, 1_200)["mib_per_hour"] == pytest.approx(35, rel=0.05)
    coming = [s._replace(links=n, rss_kib=s.rss_kib + 12 * n) for n, s in enumerate(flat)]
    assert soak.memory(coming, 1_200)["rise_mib"] < 1, "links that come late are no leak"
    leaving = [s._replace(links=200 - n, rss_kib=s.rss_kib + 12 * 200) for n, s in enumerate(flat)]
    assert soak.memory(leaving, 1_200)["rise_mib"] < 1
    assert soak.memory([s._replace(links=5) for s in leak], 1_200)["rise_mib"] > 20
    worst = [
        s._replace(most_held_bytes=60 << 20, rss_kib=s.rss_kib + 60 * 1_024) if s.at_s > 2_000 else s for s in flat
    ]
    assert soak.memory(worst, 1_200)["rise_mib"] < 1, "nor is what the heap keeps of the worst moment"


@pytest.mark.slow
def test_a_short_soak_leaves_nothing_behind(tmp_path: Path) -> None:
    result = asyncio.run(soak.soak(tmp_path, 12.0, 24))
    assert soak.left(soak.Sample(**result["before"]), soak.Sample(**result["after"])) == []
    assert result["most"]["links"] >= 1
    assert result["most"]["most_held_bytes"] <= soak.MEMORY_BUDGET


# --- Flood ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hard_ms", "state", "status"),
    [
        (20.0, {"held_bytes": 1, "cut": 9, "links": 60}, 0),
        (20.0, {"held_bytes": 1, "cut": 0, "links": 2}, 1),  # nobody flooded
        (20.0, {"held_bytes": 1, "cut": 9, "links": 51}, 1),
        (60.0, {"held_bytes": 1, "cut": 9, "links": 60}, 1),
        (20.0, {"held_bytes": 1 << 30, "cut": 9, "links": 60}, 1),
    ],
)
def test_a_flood_is_judged_only_if_there_was_one(hard_ms: float, state: dict[str, int], status: int) -> None:
    assert flood.verdict(50, [10.0] * 50, [hard_ms] * 50, state) == status


# --- Growth -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "is_fine"), [(0.0, True), (1.0, True), (1.1, True), (1.3, False), (2.0, False)])
def test_a_power_law_is_found(monkeypatch: pytest.MonkeyPatch, power: float, is_fine: bool) -> None:
    monkeypatch.setattr(growth, "_apart", lambda cost, size: cost(size))
    curve = growth.Curve("a", "b", "s", (10, 30, 100, 300, 1_000), lambda size: 0.001 * size**power)
    grown = growth.measured(curve, curve.sizes, 1)
    assert grown.exponent == pytest.approx(power, abs=0.01)
    assert grown.is_fine is is_fine
    assert ("fine" in growth.told(grown, curve.sizes)) is is_fine


# --- Changes ----------------------------------------------------------------------------------------------------------------

CHANGED = {
    "x = a < b": {"x = a <= b", "x = a >= b"},
    "x = a is None": {"x = a is not None"},
    "x = 3": {"x = 4", "x = 2"},
    "x = True": {"x = False"},
    "x = a and b": {"x = a or b"},
    "x = not a": {"x = a"},
    "x = a + b": {"x = a - b"},
    "x.y = a": {"pass"},
    "x += a": {"x -= a", "pass"},
    "f(a)": {"pass"},
    "raise a": {"pass"},
    "if a:\n    pass": {"if not a:"},
    "def f():\n    return a": {"return"},
    "'''words'''": set(),
    "x: Literal[3]": set(),
    "Item = Aa | Bb": set(),
}


@pytest.mark.parametrize("source", CHANGED)
def test_a_line_is_changed_so(source: str) -> None:
    mutants = [make() for make in mutants_of("m", source)]
    assert {mutant.after.replace("return None", "return") for mutant in mutants} == CHANGED[source]
    for mutant in mutants:
        assert ast.unparse(ast.parse(mutant.source)) == mutant.source != ast.unparse(ast.parse(source))
