"""Embargo and announcement times: bisection, closed forms, and Kolmogorov-Smirnov with controls that must fail."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scipy import stats

from obscura.cli import root
from obscura.limits import DIFFUSION_RETURN_S, STEM_HOP_S, TX_INBOUND_MEAN_S, TX_OUTBOUND_MEAN_S
from obscura.node.effects import Send
from obscura.node.embargo import LEAST_Q, clamped_hop, closed_form, embargo_mean, undisturbed
from obscura.node.explain import SHORT_EMBARGO, explanation
from obscura.node.stem import StemTerms
from obscura.shaping.levels import CustomKnobs, PrivacyLevel, explained, knobs_of
from obscura.sim.ledger import TokenLedger
from obscura.sim.relay import Announcements
from obscura.wire.messages.transactions import StemTx
from stem_bench import FOREVER, Bench, raw


@pytest.mark.parametrize(
    ("k", "hop", "seconds"), [(10, 0.3, 128.1), (5, 0.3, 28.5), (5, 0.175, 16.6), (10, 0.175, 74.7), (8, 0.175, 46.5)]
)
def test_the_closed_form_is_the_published_one(k: int, hop: float, seconds: float) -> None:
    assert closed_form(1 / k, hop) == pytest.approx(seconds, abs=0.05)
    assert ceil(closed_form(1 / 8, 0.175)) == 47


@pytest.mark.parametrize("q", [0.05, 0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("hop", [0.3, 1.0, 5.0])
def test_the_mean_is_where_the_sum_meets_what_is_wanted(q: float, hop: float) -> None:
    mean = embargo_mean(q, hop)
    assert undisturbed(mean, q, hop, DIFFUSION_RETURN_S) == pytest.approx(0.9, abs=1e-5)
    assert mean > closed_form(q, hop)


def test_a_lower_q_costs_minutes_and_none_waits_for_ever() -> None:
    assert embargo_mean(0.05, 0.3) > 2 * embargo_mean(0.1, 0.3) > 4 * embargo_mean(0.2, 0.3)
    assert embargo_mean(0.0, 0.3) == inf


def test_stems_drawn_at_random_end_undisturbed_as_often_as_wanted() -> None:
    rng, q, hop = random.Random(5), 0.2, 0.35
    mean = embargo_mean(q, hop)
    kept = 0
    for _ in range(20_000):
        k = 1
        while rng.random() >= q:
            k += 1
        waits = [(k - 1 - position) * hop + DIFFUSION_RETURN_S for position in range(k)]
        kept += all(rng.expovariate(1 / mean) > wait for wait in waits)
    assert kept / 20_000 == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(("measured", "believed"), [(None, 0.3), (0.0, 0.3), (0.33, 0.35), (4.0, 4.0), (900.0, 5.0)])
def test_a_peer_cannot_stretch_the_embargo_with_late_pongs(measured: float | None, believed: float) -> None:
    assert clamped_hop(measured) == pytest.approx(believed)
    assert STEM_HOP_S[0] <= clamped_hop(measured) <= STEM_HOP_S[1]


# --- Laws -------------------------------------------------------------------------------------------------------------


def p_value(samples: Sequence[float], mean: float) -> float:
    """Of Kolmogorov-Smirnov against the exponential law of that mean."""
    return float(stats.kstest(samples, "expon", args=(0, mean)).pvalue)


def embargo_times(count: int) -> list[float]:
    times = []
    for seed in range(count):
        bench = Bench(StemTerms(q=0.2, epoch_s=FOREVER, epoch_extra_s=0.0), seed + 1000)
        bench.join(1)
        bench.join(101, inbound=True)
        if not bench.dandelion._faces[bench.peers[101].face].diffuses(101):
            bench.receive(101, StemTx(raw(1)))
            times.append(bench.dandelion._embargoes.deadline())
    return times


def announcement_times(count: int, inbound: bool) -> list[float]:
    bench = Bench()
    bench.join(1, inbound=inbound)
    times = []
    for seed in range(count):
        part = Announcements(TokenLedger(), random.Random(seed), lambda: 0)
        part.on_established(bench.peers[1], 0.0)
        part.relay.admit(TokenLedger().decode_transaction(raw(1)), None, 0.0)
        now = 0.0
        while not any(isinstance(effect, Send) for effect in part.due(now)):
            now = part.deadline()
        times.append(now)
    return times


LAWS: dict[str, tuple[Callable[[], list[float]], float]] = {
    "embargo": (lambda: embargo_times(1200), embargo_mean(0.2, STEM_HOP_S[0])),
    "announcement to an outbound peer": (lambda: announcement_times(800, False), TX_OUTBOUND_MEAN_S),
    "announcement to inbound peers": (lambda: announcement_times(800, True), TX_INBOUND_MEAN_S),
}


@pytest.mark.parametrize("name", LAWS)
def test_times_are_exponential(name: str) -> None:
    draw, mean = LAWS[name]
    samples = draw()
    assert len(samples) > 700
    assert p_value(samples, mean) > 0.001


@pytest.mark.parametrize("mean", [2.0, 184.0])
def test_the_same_test_tells_poisson_and_uniform_times_from_exponential_ones(mean: float) -> None:
    rng = random.Random(7)
    poisson = [float(value) for value in stats.poisson.rvs(mean, size=800, random_state=7)]
    uniform = [rng.uniform(0, 2 * mean) for _ in range(800)]
    assert p_value(poisson, mean) < 1e-9
    assert p_value(uniform, mean) < 1e-9
    assert p_value([rng.expovariate(1 / mean) for _ in range(800)], mean) > 0.001


def explained_at(level: PrivacyLevel, custom: CustomKnobs | None = None) -> dict[str, Any]:
    sources = {row["knob"]: row["source"] for row in explained(level, custom)}
    return explanation(knobs_of(level, custom), sources)


def test_explanation_names_where_each_value_comes_from() -> None:
    told = explained_at(PrivacyLevel.MEDIUM)
    assert all(row["origin"] for row in told["parameters"])
    assert told["expected"]["stem_hops"] == 10
    assert told["expected"]["embargo_mean_s"] > told["expected"]["embargo_closed_form_s"]
    costs = [row["embargo_mean_s"] for row in told["changing_q"]]
    assert costs == sorted(costs, reverse=True)


def test_explanation_of_the_level_custom_reads_its_knobs() -> None:
    custom = CustomKnobs(fluff_probability=0.25, slot_ms=(4_000, 4_000), waits_for_epoch=True)
    told = explained_at(PrivacyLevel.CUSTOM, custom)
    values = {row["parameter"]: row for row in told["parameters"]}
    assert values["fluff probability q"]["value"] == 0.25
    assert "privacy-custom.fluff-probability" in values["fluff probability q"]["origin"]
    assert told["expected"]["stem_hops"] == 4
    assert values["time of a hop d"]["value"] == "4 s"  # a slot is waited for
    assert values["own transactions leave"]["value"] == "in the next epoch"
    assert told["expected"]["embargo_mean_s"] > explained_at(PrivacyLevel.STANDARD)["expected"]["embargo_mean_s"]


def test_explanation_from_a_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "obscura.toml"
    file.write_text('privacy = "custom"\n\n[privacy-custom]\nfluff-probability = 0.3\n')
    words = ["--config", str(file), "--data-dir", str(tmp_path), "--json", "dandelion", "explain"]
    done = CliRunner().invoke(root, words)
    assert done.exit_code == 0, done.output
    (q,) = [row for row in json.loads(done.stdout)["parameters"] if row["parameter"] == "fluff probability q"]
    assert (q["value"], q["origin"]) == (0.3, f"{file}:4")


@pytest.mark.parametrize("wrong", ["--fluff=nan", "--fluff=0", "--hop-s=nan", "--hop-s=inf", "--hop-s=1e308"])
def test_what_no_explanation_can_be_given_of_is_refused(wrong: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(root, ["--data-dir", str(tmp_path), "dandelion", "explain", wrong])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Invalid value for '{wrong.split('=')[0]}'" in done.stderr


def test_an_embargo_that_ends_before_its_stem_does_is_explained() -> None:
    sources = {row["knob"]: row["source"] for row in explained(PrivacyLevel.MEDIUM, None)}
    knobs = knobs_of(PrivacyLevel.MEDIUM, None)
    assert SHORT_EMBARGO in explanation(knobs, sources, LEAST_Q / 2)["notes"]
    assert SHORT_EMBARGO not in explanation(knobs, sources, LEAST_Q)["notes"]


def test_who_ends_an_embargo_early_is_as_others_found_it() -> None:
    """q = 0.2, 350 ms a hop, 2.25 s back: T = 157.6 s, first to fire the origin in 21.5 % of cases, then 17 and 14 %."""
    rng, q, hop, back = random.Random(3), 0.2, 0.35, 2.25
    mean = embargo_mean(q, hop, back)
    assert mean == pytest.approx(157.6, abs=0.05)
    assert undisturbed(144, q, hop, back) == pytest.approx(0.892, abs=0.001)
    firsts: Counter[int] = Counter()
    stems = 60_000
    for _ in range(stems):
        k = 1
        while rng.random() >= q:
            k += 1
        end = (k - 1) * hop + back
        fired, position = min((place * hop + rng.expovariate(1 / mean), place) for place in range(k))
        firsts[position if fired < end else -1] += 1
    early = stems - firsts[-1]
    assert early / stems == pytest.approx(0.1, abs=0.005)
    assert [firsts[n] / early for n in range(3)] == pytest.approx([0.215, 0.17, 0.14], abs=0.02)
