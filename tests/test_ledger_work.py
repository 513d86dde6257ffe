"""Compact targets, work and retargets against published values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.ledger.work import bits_of, may_change_to, meets, retarget, target_of, work_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/ledger/work.json").read_text())
MAINNET_SPAN, LIMIT = 2016 * 600, 0x1D00FFFF


@pytest.mark.parametrize("case", VECTORS["targets"], ids=lambda case: case["bits"])
def test_target(case: dict[str, str]) -> None:
    target = int(case["target"], 16)
    assert target_of(int(case["bits"], 16)) == target
    if case["canonical"]:
        assert bits_of(target) == int(case["canonical"], 16)


@pytest.mark.parametrize("case", VECTORS["impossible"], ids=lambda case: f"{case['why']} {case['bits']}")
def test_impossible_bits_are_met_by_no_hash_and_count_as_no_work(case: dict[str, str]) -> None:
    bits = int(case["bits"], 16)
    assert target_of(bits) == 0
    assert work_of(bits) == 0
    assert not meets(bytes(32), bits, bits)


@pytest.mark.parametrize("case", VECTORS["work"], ids=lambda case: case["bits"])
def test_work(case: dict[str, str]) -> None:
    assert work_of(int(case["bits"], 16)) == int(case["work"], 16)


@pytest.mark.parametrize("case", VECTORS["retargets"], ids=lambda case: case["name"])
def test_retarget(case: dict[str, Any]) -> None:
    bits, after = int(case["bits"], 16), int(case["next"], 16)
    assert retarget(bits, case["first"], case["last"], MAINNET_SPAN, LIMIT) == after
    assert may_change_to(bits, after, MAINNET_SPAN, LIMIT)


@given(st.integers(0, 2**256 - 1))
@settings(deadline=None, max_examples=300)
def test_bits_round_down_and_are_stable(target: int) -> None:
    bits = bits_of(target)
    assert target_of(bits) <= target
    assert bits_of(target_of(bits)) == bits
    assert target - target_of(bits) <= target >> 15  # at least 16 bits are kept


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**256 - 1))
@settings(deadline=None, max_examples=300)
def test_whatever_a_retarget_gives_the_step_check_lets_through(first: int, last: int, target: int) -> None:
    bits = bits_of(min(max(target, 1 << 40), target_of(LIMIT)))
    for span in (MAINNET_SPAN, 21, 5, 4):  # networks of one's own have such as 3 blocks of 7 s
        assert may_change_to(bits, retarget(bits, first, last, span, LIMIT), span, LIMIT)


def test_a_hash_meets_a_target_up_to_the_target_itself_and_never_above_the_limit() -> None:
    target = target_of(LIMIT)
    assert meets(target.to_bytes(32, "little"), LIMIT, LIMIT)
    assert not meets((target + 1).to_bytes(32, "little"), LIMIT, LIMIT)
    assert not meets(bytes(32), bits_of(target * 2), LIMIT), "an easier target than the limit"
