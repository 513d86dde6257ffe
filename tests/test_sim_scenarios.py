"""The simulator: reproducible, the same wherever it is computed, and in agreement with closed forms and published tables."""

from __future__ import annotations

import json
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from distributed import LocalCluster

from obscura.cli import root
from obscura.errors import UserError
from obscura.sim import sweep, vector
from obscura.sim.adversary import matched, ward_precision
from obscura.sim.graphs import GRAPHS, supernode
from obscura.sim.run import run_once
from obscura.sim.scenario import Scenario, combined
from obscura.sim.sweep import Run, simulate
from obscura.sim.tables import EXPOSURES, ROWS, SPIES, Row, broken_exposures, line_precision, stem_hops, told_recall

SMALL = Scenario(nodes=40, fluff=0.2, spies=0.2, runs=3)


def figures(scenario: Scenario, run: Run = run_once) -> dict[str, float]:
    return combined(scenario, [run(scenario, number) for number in range(scenario.runs)])


def test_an_interrupted_sweep_does_not_work_off_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(1))
    begun, cancelled = threading.Event(), threading.Event()

    def under_way() -> None:
        begun.set()
        cancelled.wait(2)

    def interrupted() -> None:
        with sweep._executor(2, None, 2) as pool:
            assert pool is not None
            pool.submit(under_way)
            pool.submit(int).add_done_callback(lambda future: future.cancelled() and cancelled.set())
            begun.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cancelled.is_set()


def test_equal_seeds_give_equal_results_and_others_others() -> None:
    first = figures(SMALL)
    assert figures(SMALL) == first
    assert figures(msgspec.structs.replace(SMALL, seed=2))["trace_hash"] != first["trace_hash"]
    assert first["messages"] > 0


def test_processes_and_a_cluster_compute_the_same() -> None:
    scenarios = [SMALL, msgspec.structs.replace(SMALL, fluff=0.0)]
    alone = list(simulate(scenarios, processes=1))
    assert list(simulate(scenarios, processes=2)) == alone
    with LocalCluster(
        n_workers=2, processes=False, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as cluster:
        assert list(simulate(scenarios, scheduler=cluster.scheduler_address)) == alone
        arrays = [msgspec.structs.replace(SMALL, adversary="first-spy-told")]
        there = list(simulate(arrays, run=vector.run_once, scheduler=cluster.scheduler_address))
        assert there == list(simulate(arrays, run=vector.run_once, processes=2))


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1"):
        list(simulate([SMALL], scheduler="tcp://127.0.0.1:1"))


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.0), (0.3, 0.0), (0.2, 0.2)])
def test_a_line_is_as_computed_by_hand(p: float, q: float) -> None:
    found = figures(Scenario(graph="line", fluff=q, spies=p, runs=25, followed=0, adversary="first-spy-told"))
    assert found["hops_mean"] == pytest.approx(stem_hops(p, q), rel=0.12)
    assert abs(found["recall"] - told_recall(p, q)) < 4 * found["recall_se"] + 0.01
    if not q:
        assert abs(found["precision"] - line_precision(p)) < 4 * found["precision_se"] + 0.01


def row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


CHECKED = [
    "Fig 3 2-regular (line)",
    "Fig 6 4-regular one-to-one",
    "quasi-4 of 8-out one-to-one",
    "Fig 6 diffusion",
    "Fig 3 2-regular max-weight",
    "quasi-4 one-to-one, q=0.1, told",
]


@pytest.mark.parametrize("name", CHECKED)
def test_published_figures_are_reproduced(name: str) -> None:
    index = SPIES.index(0.2)
    checked = row(name)
    found = figures(checked.scenarios(10, 3)[index])
    assert checked.holds(index, found["precision"], found["precision_se"]), found


def test_the_same_check_fails_for_what_is_something_else() -> None:
    index = SPIES.index(0.2)
    found = figures(row("Fig 6 diffusion").scenarios(5, 3)[index])
    assert not row("Fig 6 4-regular one-to-one").holds(index, found["precision"], found["precision_se"])


@pytest.mark.parametrize(("graph", "q"), [("regular4", 0.0), ("out8", 0.2)])
def test_the_vectors_agree_with_the_core_at_a_thousand_nodes(graph: str, q: float) -> None:
    scenario = Scenario(nodes=1000, graph=graph, fluff=q, spies=0.2, runs=1, followed=0, adversary="first-spy-told")
    core = figures(scenario)
    arrays = figures(msgspec.structs.replace(scenario, runs=20), vector.run_once)
    for name in ("precision", "recall"):
        spread = arrays[f"{name}_se"] * sqrt(20) * sqrt(1 + 1 / 20)
        assert abs(core[name] - arrays[name]) < 4 * spread, name
    assert core["hops_mean"] == pytest.approx(arrays["hops_mean"], rel=0.15)


@pytest.mark.parametrize(
    "ignored", [{"restem": False}, {"latency_ms": 5.0}, {"bytes_per_s": 1.0}, {"followed": 9}, {"transactions": 3}]
)
def test_arrays_refuse_what_they_would_ignore(ignored: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(ignored))):
        vector.check(Scenario(adversary="first-spy-told", **ignored))
    vector.check(Scenario(adversary="first-spy-told", followed=0))


def test_a_hundred_thousand_nodes_are_a_matter_of_arrays() -> None:
    found = figures(Scenario(nodes=100_000, graph="line", fluff=0.0, spies=0.2, runs=1), vector.run_once)
    assert found["precision"] == pytest.approx(line_precision(0.2), abs=0.005)
    assert found["hops_mean"] == pytest.approx(5, abs=0.1)
    with pytest.raises(UserError, match="stem alone"):
        vector.check(Scenario(fluff=0.2))
    with pytest.raises(UserError, match="at least one"):
        vector.check(Scenario(fluff=0.0, spies=0.0))


@pytest.mark.parametrize("adversary", ["first-spy-told", "black-hole"])
def test_a_run_without_spies_goes_on_after_the_first_diffusion(adversary: str) -> None:
    found = figures(Scenario(fluff=0.2, spies=0.0, runs=2, followed=1, adversary=adversary))
    assert found["unseen"] == 0  # each is diffused by somebody, whom they are told or see
    assert found["latency_p50_s"] is not None  # and the followed one reaches half of the nodes
    if adversary == "first-spy-told":
        assert abs(found["recall"] - told_recall(0.0, 0.2)) <= 3 * sqrt(0.2 * 0.8 / 200)


def test_a_black_hole_learns_less_with_a_re_stem() -> None:
    hole = Scenario(nodes=50, fluff=0.2, spies=0.2, runs=3, followed=0, adversary="black-hole")
    with_it, without = figures(hole), figures(msgspec.structs.replace(hole, restem=False))
    assert with_it["swallowed"] > 0.3
    assert with_it["swallowed_exposed"] < 0.75 * without["swallowed_exposed"]


def test_a_prober_reads_the_coin_of_a_node_and_not_that_of_another_edge() -> None:
    prober = Scenario(nodes=50, fluff=0.3, spies=0.2, runs=4, followed=0, adversary="coin-prober")
    per_edge, per_node = figures(prober), figures(msgspec.structs.replace(prober, coin="per-node"))
    assert per_node["claimed_right"] > 0.85 * per_node["claimed"] > 0.007, "who relays although its coin says diffuse"
    assert per_edge["claimed_right"] < 0.75 * per_edge["claimed"], "as often as anyone whom a spy saw relaying"


AS_CLAIMED = {
    "black hole, re-stem": {"swallowed": 0.35, "origin_exposed": 0.033, "origin_exposed_se": 0.004},
    "black hole, embargo alone": {"swallowed": 0.37, "origin_exposed": 0.195, "origin_exposed_se": 0.009},
    "coin prober, coin per edge": {"claimed": 0.059, "claimed_right": 0.017},
    "coin prober, coin per node": {"claimed": 0.017, "claimed_right": 0.0167},
}


@pytest.mark.parametrize(
    ("name", "change", "broken"),
    [
        ("black hole, re-stem", {}, 0),
        ("black hole, re-stem", {"origin_exposed": 0.18}, 1),
        ("black hole, embargo alone", {"swallowed": 0.0}, 1),
        ("coin prober, coin per edge", {"claimed_right": 0.055}, 1),
        ("coin prober, coin per node", {"claimed": 0.0}, 2),
    ],
)
def test_exposures_that_are_not_as_claimed_are_told(name: str, change: dict[str, float], broken: int) -> None:
    assert [name for name, _ in EXPOSURES] == list(AS_CLAIMED)
    found = {**AS_CLAIMED, name: AS_CLAIMED[name] | change}
    assert len(broken_exposures(found)) == broken


def test_links_that_come_and_go_lose_nothing() -> None:
    found = figures(Scenario(nodes=40, fluff=0.2, spies=0.1, runs=2, churn=60.0))
    assert found["unseen"] == 0
    assert found["latency_p50_s"] is not None


def test_wards() -> None:
    origins = {b"a": 1, b"b": 2, b"c": 3}
    assert ward_precision(origins, {b"a": 1, b"b": 1, b"c": 9}) == (pytest.approx(1 / 6), pytest.approx(1 / 3))
    assert ward_precision(origins, {}) == (0, 0)


def test_matching_blames_one_node_for_one_transaction() -> None:
    """1 -> 2 -> spy 9 and 3 -> spy 9: what came out of 3 is of 3; the two of 2 are of 1 and 2."""
    origins, exits = {b"a": 1, b"b": 2, b"c": 3}, {b"a": 2, b"b": 2, b"c": 3}
    blamed = matched(origins, exits, {1: [2], 2: [9], 3: [9]}, {9}, random.Random(1))
    assert blamed[b"c"] == 3
    assert {blamed[b"a"], blamed[b"b"]} == {1, 2}


@pytest.mark.parametrize(("name", "out"), [("line", 1), ("regular4", 2), ("quasi4", 2), ("out8", 8)])
def test_graphs_have_the_degrees_of_their_names(name: str, out: int) -> None:
    edges = GRAPHS[name].draw(200, random.Random(1))
    assert len(set(edges)) == len(edges)
    assert all(dialler != listener for dialler, listener in edges)
    assert len(edges) >= 200 * out - 4
    dialled = supernode(edges, {0, 1}, 200)
    assert sum(dialler == 0 for dialler, _ in dialled) == 198


@pytest.mark.parametrize(
    "wrong",
    [
        {"graph": "ring"},
        {"routing": "x"},
        {"adversary": "x"},
        {"nodes": 2},
        {"spies": 1.0},
        {"fluff": 2.0},
        {"latency_ms": -1.0},
        {"latency_ms": inf},
        {"latency_spread": 1000.0},
        {"fluff": nan},
        {"spies": nan},
        {"churn": inf},
        {"bytes_per_s": 0.0},
        {"followed": -1},
        {"seed": -1},
        {"nodes": 4, "spies": 0.9},
    ],
)
def test_what_cannot_be_is_refused_in_words(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Scenario(**wrong).check()  # type: ignore[arg-type]


def test_the_least_numbers_above_nothing_are_as_nothing() -> None:
    least = msgspec.structs.replace(SMALL, latency_ms=5e-324, churn=5e-324, runs=1)
    nothing = msgspec.structs.replace(least, latency_ms=0.0, churn=0.0)
    assert figures(least)["trace_hash"] == figures(nothing)["trace_hash"]


def test_the_command_prints_what_it_promises(tmp_path: Path) -> None:
    words = "simulate --nodes 30 --graph quasi4 --routing per-edge --fluff 0.2 --spies 0.1,0.2 --runs 2 --seed 4 --json"
    picture = tmp_path / "figure.png"
    result = CliRunner().invoke(root, [*words.split(), "--processes", "1", "--plot", str(picture)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    names = {"precision", "precision_se", "recall", "hops_mean", "latency_p50_s", "messages", "trace_hash"}
    assert all(names <= set(found) for found in told)
    assert [found["spies"] for found in told] == [0.1, 0.2]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_made_is_refused_before_the_runs(tmp_path: Path) -> None:
    words = ["simulate", "--runs", "1000000", "--plot", str(tmp_path / "no" / "figure.png")]
    result = CliRunner().invoke(root, words)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'no' / 'figure.png'} cannot be written\n"


@pytest.mark.parametrize(
    ("words", "module", "said"),
    [
        ("--adversary max-weight", "scipy", "max-weight needs SciPy"),
        ("--vector --fluff 0", "numpy", "--vector needs numpy"),
        ("--plot x.png", "matplotlib", "drawing needs matplotlib"),
    ],
)
def test_what_an_extra_brings_is_missed_in_words_before_the_runs(
    words: str, module: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("vector", "plot"):
        monkeypatch.delitem(sys.modules, f"obscura.sim.{name}", raising=False)
        monkeypatch.delattr(f"obscura.sim.{name}", raising=False)
    result = CliRunner().invoke(root, ["simulate", "--runs", "1000000", *words.split()])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {said}: pip install 'obscura-p2p[sim]'\n"
