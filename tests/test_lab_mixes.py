"""Cells under mixes of messages of our own making: what they hide, and the bound of what they do not (docs/shaping.md)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest

from obscura.lab.leakage import SCHEMES, Scheme, measure
from obscura.lab.mix import Mix
from obscura.limits import CELL, HEADER_BYTES, RECORD_OVERHEAD

MIXES = {
    name: msgspec.convert(mix, Mix)
    for name, mix in json.loads((Path(__file__).parent / "vectors" / "mixes.json").read_text()).items()
}
(CELLS,) = (scheme for scheme in SCHEMES if scheme.name == "cells")
MESSAGES = 4_000
GOAL = 0.04  # above the prior
NOISE = 0.02  # three standard errors of an accuracy over so many messages


def beyond_a_cell(mix: Mix) -> float:
    """Share of messages that do not fit in one cell, those of the commonest type apart: to guess that one is no gain."""
    rng, draws, total = random.Random(1), 2_000, sum(kind.p for kind in mix.types)
    common = max(mix.types, key=lambda kind: kind.p)
    return sum(
        kind.p
        * sum(kind.payload.draw(rng) + HEADER_BYTES > CELL - RECORD_OVERHEAD for _ in range(draws))
        / draws
        / total
        for kind in mix.types
        if kind is not common
    )


@pytest.mark.parametrize("name", MIXES)
def test_a_type_is_guessed_no_better_than_by_what_exceeds_a_cell(name: str) -> None:
    mix = MIXES[name]
    row = measure(CELLS, mix, 1, messages=MESSAGES)
    above, bound = row.type_accuracy.value - row.prior.value, beyond_a_cell(mix)
    assert above <= bound + NOISE
    if bound <= GOAL:
        assert above <= GOAL


def test_a_larger_smallest_record_hides_large_transactions() -> None:
    assert CELLS.knobs is not None
    mix = MIXES["large transactions"]
    usual = measure(CELLS, mix, 1, messages=MESSAGES)
    raised = Scheme("raised", msgspec.structs.replace(CELLS.knobs, least_record=4_096), "")
    row = measure(raised, mix, 1, messages=MESSAGES)
    assert usual.type_accuracy.value - usual.prior.value > 2 * GOAL  # else there would be nothing to mend
    assert row.type_accuracy.value - row.prior.value <= GOAL + NOISE
    assert row.overhead.value > 3 * usual.overhead.value  # and it costs
