"""The leakage table: its control, its targets, its command; reduced in size, the whole is `tools/prove_shaping.py`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from obscura.cli import root
from obscura.errors import UserError
from obscura.lab.classify import QUESTIONS, classify
from obscura.lab.leakage import SCHEMES, Row, measure, reckon, simulate
from obscura.lab.mix import DEFAULT_MIX, Kind, Law, Mix, load_mix
from obscura.lab.plot import plot_rows
from obscura.lab.recorded import load_capture, parts_of, save_capture

BY_NAME = {scheme.name: scheme for scheme in SCHEMES}
FIGURES = ("mi_type_bits", "mi_size_bits", "type_accuracy", "prior", "overhead", "overhead_small", "delay_ms")


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, float], Row]:
    return {
        (name, rate): measure(BY_NAME[name], DEFAULT_MIX, 3, messages=messages, rate_per_s=rate)
        for name, rate, messages in (
            *(("none", 2.0, 8_000), ("cells", 2.0, 8_000), ("cells", 20.0, 8_000), ("medium", 2.0, 8_000)),
            ("high-constant", 0.2, 800),
        )
    }


def test_the_control_leaks(rows: dict[tuple[str, float], Row]) -> None:
    row = rows["none", 2.0]
    assert row.mi_type_bits.value == pytest.approx(1.95, abs=0.05)
    assert row.type_accuracy.value > 0.65
    assert row.entropy_type_bits == pytest.approx(2.78, abs=0.05)
    assert row.delay_ms.value == 0.0
    assert row.exact_mi_type_bits == pytest.approx(2.11, abs=0.04)
    assert abs(row.shuffled_mi_type_bits) < 0.06  # large blocks are all different


def test_cells_reach_their_targets(rows: dict[tuple[str, float], Row]) -> None:
    """Bounds have the room that a sample of this size needs; the whole is measured with 40,000 messages."""
    for name in ("cells", "medium"):
        row = rows[name, 2.0]
        assert row.mi_type_bits.value <= 0.24
        assert row.type_accuracy.value <= row.prior.value + 0.04
        assert row.overhead.value <= 0.15
        assert row.overhead_small.value <= 3.40
        assert 20 < row.delay_ms.value <= 100
        assert row.carried > 0.999
    assert rows["cells", 20.0].overhead_small.value <= 1.20


def test_constant_slots_leak_nothing(rows: dict[tuple[str, float], Row]) -> None:
    row = rows["high-constant", 0.2]
    assert row.mi_type_bits.value < 0.01
    assert row.mi_size_bits.value < 0.01
    assert row.type_accuracy.value <= row.prior.value + 0.02


def test_every_figure_lies_in_its_interval(rows: dict[tuple[str, float], Row]) -> None:
    for row in rows.values():
        for name in FIGURES:
            figure = getattr(row, name)
            assert figure.low <= figure.value + 1e-9
            assert figure.value <= figure.high + 1e-9
    assert rows["none", 2.0].mi_type_bits.low < rows["none", 2.0].mi_type_bits.high


def test_a_recorded_link_gives_what_it_gave(tmp_path: Path) -> None:
    path = tmp_path / "link.jsonl"
    capture = simulate(BY_NAME["cells"], DEFAULT_MIX, random.Random(1), 1_500, 2.0)
    save_capture(path, capture)
    loaded = load_capture(path)
    assert [write.sizes for write in loaded.writes] == [write.sizes for write in capture.writes]
    chance = random.Random(1), random.Random(1)
    first, second = (
        reckon("x", 2.0, parts_of(one, 5), rng) for one, rng in zip((capture, loaded), chance, strict=True)
    )
    assert first.mi_type_bits == second.mi_type_bits
    assert first.overhead == second.overhead
    assert first.delay_ms.value == pytest.approx(second.delay_ms.value, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no message"),
        ("nonsense", ":1: not a write"),
        ('{"at": 1, "sizes": [1024], "messages": [["tx", 99, 0]]}\n{"at": 0, "sizes": [64]}', ":2: a write has"),
        ('{"at": 1, "sizes": []}', ":1: a write has"),
        ('{"at": 1, "sizes": [-5]}', ":1: a write has"),
        ('{"at": 1, "sizes": [64], "messages": [["tx", 40, 0]]}', "1 messages are in it, and 20"),
        ('{"at": 1, "sizes": [64], "messages": [["tx", 0, 0]]}', ":1: sizes are"),
        ('{"at": 1, "sizes": [9000000000000000000]}', ":1: sizes are"),
        ('{"at": 1e308, "sizes": [64]}', "times up to 1e\\+12 s"),
    ],
)
def test_wrong_captures_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "link.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        load_capture(path)


def _law(**law: object) -> dict[str, Any]:
    return {"types": [{"type": "tx", "p": 1, "payload": law}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate_per_s": 0}, "a rate from 0.01"),
        ({"rate_per_s": 1e-9}, "a rate from 0.01"),
        ({"rate_per_s": 1e300}, "a rate from 0.01"),
        (
            {"types": [{"type": kind, "p": 1e308, "payload": {"law": "constant"}} for kind in ("tx", "inv")]},
            "share below 0",
        ),
        ({"types": []}, "types"),
        ({"types": [{"type": "tx", "p": 1, "payload": {"law": "pareto"}}]}, "size law 'pareto'"),
        ({"types": [{"type": "T X", "p": 1, "payload": {"law": "constant"}}]}, "a message type is"),
        ({"types": [{"type": "tx", "p": 0, "payload": {"law": "constant"}}]}, "add up to more than 0"),
        ({"types": [{"type": "tx", "p": 1, "payload": {"law": "constant", "value": -1}}]}, "payload of|negative"),
        ({"types": [{"type": "tx", "p": 1}]}, "not a message mix"),
        (_law(law="uniform", min=9, max=1), "tx: uniform has 0 <= min <= max, not 9 and 1"),
        (_law(law="items", base=1, item=3), "tx: items has base and item, not below 0, and count"),
        (_law(law="items", base=1, item=3, count={"law": "geometric", "p": 0}), "geometric has p from"),
        (_law(law="lognormal", mu=1_000, sigma=1), "lognormal has mu and sigma up to 50"),
        (_law(law="uniform", min=1, max=9_000_000), "a payload of"),
    ],
)
def test_wrong_mixes_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "mix.json"
    path.write_text(json.dumps({**msgspec.to_builtins(DEFAULT_MIX), **change}))
    with pytest.raises(UserError, match=said):
        load_mix(path)


def test_another_mix_of_the_same_form(tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    mix = Mix(1.0, [Kind("tx", 0.5, Law("constant", value=400)), Kind("inv", 0.5, Law("uniform", min=1, max=100))])
    path.write_text(
        json.dumps({**msgspec.to_builtins(mix), "about": "two kinds", "source": "unknown keys are ignored"})
    )
    row = measure(BY_NAME["none"], load_mix(path), 1, messages=2_000)
    assert row.mi_type_bits.value == pytest.approx(1.0, abs=0.01)
    assert row.type_accuracy.value == pytest.approx(1.0, abs=0.01)
    hidden = measure(BY_NAME["cells-alone"], load_mix(path), 1, messages=2_000)
    assert hidden.mi_type_bits.value < 0.01


def test_the_command_prints_every_figure_as_json(tmp_path: Path) -> None:
    picture, recorded = tmp_path / "table.png", tmp_path / "link.jsonl"
    arguments = ["lab", "leakage", "--json", "--messages", "400", "--scheme", "none", "--scheme", "cells"]
    done = CliRunner().invoke(root, [*arguments, "--plot", str(picture), "--record", str(recorded)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found["rules"]) == {"none", "cells"}
    for row in found["rows"]:
        for name in FIGURES:
            assert set(row[name]) == {"value", "low", "high"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(root, ["lab", "leakage", "--json", "--capture", str(recorded)])
    assert json.loads(again.stdout)["rules"]["recorded"]["messages"] == 400
    wrong = CliRunner().invoke(root, ["lab", "leakage", "--scheme", "rot13"])
    assert wrong.exit_code == 2
    assert "high-constant" in wrong.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--capture", "x", "--scheme", "none"), "--scheme has no effect with --capture"),
        (("--capture", "x", "--classify"), "--classify has no effect with --capture"),
        (("--classify", "--plot", "x.png"), "--plot has no effect with --classify"),
        (("--plot", "/none/there/x.png"), "/none/there/x.png: its folder does not exist"),
        (("--record", "/none/there/x"), "/none/there/x: its folder does not exist"),
        (("--classify", "--seed", "-1"), "-1 is not in the range 0<=x<=4294967295"),
        (("--classify", "--seed", "4294967296"), "4294967296 is not in the range 0<=x<=4294967295"),
    ],
)
def test_what_would_be_ignored_or_lost_is_refused_before_anything_is_measured(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obscura.lab.leakage.measure", lambda *rest, **names: pytest.fail("measured"))
    done = CliRunner().invoke(root, ["lab", "leakage", *arguments])
    assert done.exit_code != 0
    assert said in done.output


def test_a_plot_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    row = measure(BY_NAME["none"], DEFAULT_MIX, 1, messages=400)
    with pytest.raises(UserError, match="cannot be drawn"):
        plot_rows([row], tmp_path / "none" / "there.png")


@pytest.mark.parametrize("kinds", [("inv",), ("tx", "block", "headers"), ("block",)])
def test_a_mix_that_classifiers_cannot_ask_about_is_refused_before_they_begin(
    tmp_path: Path, kinds: tuple[str]
) -> None:
    path = tmp_path / "mix.json"
    types = [{"type": kind, "p": 1, "payload": {"law": "constant", "value": 100}} for kind in kinds]
    path.write_text(json.dumps({"rate_per_s": 1, "types": types}))
    done = CliRunner().invoke(root, ["lab", "leakage", "--classify", "--windows", "20", "--mix", str(path)])
    assert "the mix needs tx" in done.output
    assert "..." not in done.output


def test_classifiers_find_what_is_shown_and_not_what_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduced: a block at exact sizes is found, an own transaction under constant slots is not."""
    monkeypatch.setattr("obscura.lab.classify._CARRIED_OVER_S", 60.0)
    monkeypatch.setattr("obscura.lab.classify._RESAMPLES", 20)
    shown = classify(BY_NAME["none"], QUESTIONS[0], DEFAULT_MIX, 20, 1, trees=30)
    assert shown.auc_forest.value > 0.95
    hidden = classify(BY_NAME["high-constant"], QUESTIONS[1], DEFAULT_MIX, 20, 1, trees=30)
    assert 0.2 < hidden.auc_forest.value < 0.8
    assert hidden.records_per_s == pytest.approx(4.0, abs=0.2)
