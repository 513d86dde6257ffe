"""The level table of the design, transcribed, against the values in force; the custom level; `obscura privacy show`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from obscura.cli import root
from obscura.daemon.config import Config
from obscura.errors import ConfigError
from obscura.lab.link import LabLink, opaque
from obscura.shaping.levels import LEVELS, CustomKnobs, Knobs, PrivacyLevel, explained, knobs_of, padneg
from obscura.shaping.padding import Rule

OFF = (0, 0)
DUMMIES, CHAFF = (5_000, 30_000), (15_000, 120_000)  # ms; design 7
# padding, cell, dummies, chaff, jitter ms, bursts, slot bytes, slot mean ms, q, carriers, first hop apart, waits for epoch
TABLE: dict[str, tuple[Any, ...]] = {
    "standard": (1, 1_024, OFF, OFF, (0, 20), OFF, None, None, 0.2, "plain tls http ssh dns", False, False),
    "medium": (1, 1_024, DUMMIES, CHAFF, (0, 100), (2, 8), None, None, 0.1, "tls http ssh dns", False, False),
    "high": (1, 1_024, DUMMIES, CHAFF, OFF, OFF, 1_024, 250, 0.05, "tls ssh", True, True),
}


def row(knobs: Knobs) -> tuple[Any, ...]:
    has_slots = knobs.slot_ms != OFF
    return (
        knobs.rule.value,
        padneg(knobs).send.record_size[0],
        knobs.dummy_ms,
        knobs.chaff_ms,
        knobs.jitter_ms,
        knobs.burst,
        knobs.slot_size if has_slots else None,
        sum(knobs.slot_ms) / 2 if has_slots else None,
        knobs.fluff_probability,
        " ".join(knobs.carriers),
        knobs.anonymous_first_hop,
        knobs.waits_for_epoch,
    )


@pytest.mark.parametrize("level", TABLE)
def test_levels_are_the_designs_table(level: str) -> None:
    assert row(LEVELS[PrivacyLevel(level)]) == TABLE[level]


def test_high_is_poisson_and_constant_on_request_and_refuses_less() -> None:
    high = LEVELS[PrivacyLevel.HIGH]
    assert high.slot_ms[0] != high.slot_ms[1]
    assert knobs_of(PrivacyLevel.HIGH, constant_slots=True).slot_ms == (250, 250)
    assert [level.value for level, knobs in LEVELS.items() if knobs.refuses_less] == ["high"]


def test_the_default_is_medium() -> None:
    assert Config(network="dev").knobs == LEVELS[PrivacyLevel.MEDIUM] == Knobs()


def test_every_knob_can_be_set_at_the_level_custom() -> None:
    assert set(CustomKnobs.__struct_fields__) == set(Knobs.__struct_fields__) - {"is_rounded"}
    given = CustomKnobs(
        rule="none", dummy_ms=(1_000, 1_000), slot_ms=(40, 40), most=9, carriers=("dns",), refuses_less=True
    )
    knobs = Config(network="dev", privacy="custom", privacy_custom=given).knobs
    assert (knobs.rule, knobs.dummy_ms, knobs.slot_ms, knobs.most) == (Rule.NONE, (1_000, 1_000), (40, 40), 9)
    assert knobs.chaff_ms == CHAFF
    assert knobs.is_rounded


@pytest.mark.parametrize(
    "given",
    [
        {"dummy_ms": (1, 2)},
        {"dummy_ms": (2_000, 1_000)},
        {"dummy_ms": (2_000,)},
        {"jitter_ms": (0, 10_000)},
        {"burst": (0, 300)},
        {"slot_ms": (1, 1)},
        {"slot_ms": (0, 1_000_000)},
        {"slot_ms": (100_000, 110_000)},
    ],
)
def test_absurd_custom_values_are_refused_in_words(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"privacy-custom\.[a-z-]+ is \["):
        Config(network="dev", privacy="custom", privacy_custom=CustomKnobs(**given))


def test_what_another_level_would_ignore_is_refused() -> None:
    with pytest.raises(ConfigError, match='set privacy = "custom"'):
        Config(network="dev", privacy_custom=CustomKnobs(most=5))
    with pytest.raises(ConfigError, match="only the level high"):
        Config(network="dev", constant_slots=True)


def test_every_knob_is_shown_with_its_source() -> None:
    for level in PrivacyLevel:
        rows = explained(level)
        assert [line["knob"].replace("-", "_") for line in rows] == list(Knobs.__struct_fields__)
        assert all(line["meaning"] and f"level {level.value}" in line["source"] for line in rows)
    (line,) = [one for one in explained(PrivacyLevel.CUSTOM, CustomKnobs(burst=(3, 4))) if one["knob"] == "burst"]
    assert line["value"] == [3, 4]
    assert line["source"] == "privacy-custom.burst"


def test_privacy_show_without_a_node(tmp_path: Path) -> None:
    file = tmp_path / "obscura.toml"
    file.write_text('privacy = "custom"\n\n[privacy-custom]\nchaff-ms = [20000, 40000]\n')
    arguments = ["--config", str(file), "--data-dir", str(tmp_path), "--network", "dev", "privacy", "show"]
    done = CliRunner().invoke(root, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    knobs = {line["knob"]: line for line in json.loads(done.stdout)["knobs"]}
    assert knobs["chaff-ms"]["value"] == [20_000, 40_000]
    assert knobs["chaff-ms"]["source"] == f"{file}:4"
    assert knobs["rule"]["value"] == "cells"
    shown = CliRunner().invoke(root, arguments)
    assert "chaff-ms" in shown.output
    assert f"custom ({file}:1)" in shown.output
    assert "host (default)" in shown.output


@pytest.mark.parametrize("least", [1_024, 4_096])
def test_what_fits_in_the_smallest_record_looks_alike(least: int) -> None:
    """A message of 3 kB is one of several cells, and as long as a short one where the smallest record holds it."""
    knobs = msgspec.structs.replace(LEVELS[PrivacyLevel.CUSTOM], least_record=least, dummy_ms=OFF, chaff_ms=OFF)
    assert padneg(knobs).send.record_size[0] == least
    seen = {}
    for size in (10, 3_000, 9_000):
        link = LabLink(msgspec.structs.replace(knobs, burst=OFF, burst_hold_ms=OFF), random.Random(1))
        link.run([(float(at), opaque("tx")(bytes(size))) for at in range(1, 40)], 60.0)
        seen[size] = {sum(write.sizes) for write in link.capture.writes if write.at >= 1}
    assert (seen[10] == seen[3_000]) is (least > 3_000)
    assert min(seen[10]) == least
    assert seen[9_000].isdisjoint(seen[10])
