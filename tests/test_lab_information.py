"""The estimator against laws whose mutual information is known, and against none at all."""

from __future__ import annotations

import random
from math import log2

import numpy as np
import pytest

from obscura.lab.information import (
    conditional_information,
    entropy,
    fitting_width,
    foretold,
    guessed,
    in_intervals,
    joint,
    labels,
    mutual_information,
)


def binary(p: float) -> float:
    return 0.0 if p in (0, 1) else -p * log2(p) - (1 - p) * log2(1 - p)


def drawn(number: int, kinds: int, right: float, seed: int) -> tuple[list[int], list[int]]:
    """A symmetric channel: what is sent is seen as it is with probability ``right``, else as any of the others."""
    rng = random.Random(seed)
    sent = [rng.randrange(kinds) for _ in range(number)]
    seen = [kind if rng.random() < right else (kind + rng.randrange(1, kinds)) % kinds for kind in sent]
    return sent, seen


@pytest.mark.parametrize(("kinds", "right"), [(2, 0.9), (4, 0.7), (16, 0.5), (16, 1.0)])
def test_symmetric_channels(kinds: int, right: float) -> None:
    sent, seen = drawn(20_000, kinds, right, 1)
    exact = log2(kinds) - binary(right) - (1 - right) * log2(kinds - 1)
    assert mutual_information(labels(sent), labels(seen)) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize(("values", "number"), [(14, 2_000), (14, 40_000), (400, 20_000)])
def test_independent_variables_share_nothing(values: int, number: int) -> None:
    """Where the plug-in estimate says a lot, the corrected one says nothing."""
    rng = random.Random(2)
    first = labels([rng.randrange(14) for _ in range(number)])
    second = labels([rng.randrange(values) for _ in range(number)])
    plug_in = sum(_plug_in(column) * sign for column, sign in ((first, 1), (second, 1), (joint(first, second), -1)))
    corrected = mutual_information(first, second)
    assert plug_in > 0.002
    assert abs(corrected) < plug_in / 3 + 0.001


def _plug_in(values: np.ndarray) -> float:
    share = np.bincount(values) / values.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def test_what_one_value_in_many_tells() -> None:
    """Two kinds of message with sizes of their own, a third with a size that both share."""
    rng = random.Random(3)
    kinds = [rng.choice("aab") for _ in range(30_000)]
    sizes = [rng.choice((1, 9)) if kind == "a" else rng.choice((2, 9)) for kind in kinds]
    exact = binary(1 / 3) - 0.5 * binary(1 / 3)
    assert mutual_information(labels(kinds), labels(sizes)) == pytest.approx(exact, abs=0.01)


def test_entropy_of_unseen_values_is_less_biased_than_the_plain_one() -> None:
    rng = random.Random(4)
    few = labels([rng.randrange(256) for _ in range(512)])
    assert abs(entropy(few) - 8) < abs(_plug_in(few) - 8) / 3


def test_conditional_information_of_a_screened_variable() -> None:
    rng = random.Random(5)
    given = [rng.randrange(4) for _ in range(20_000)]
    first = [value if rng.random() < 0.8 else rng.randrange(4) for value in given]
    second = [value if rng.random() < 0.8 else rng.randrange(4) for value in given]
    assert mutual_information(labels(first), labels(second)) > 0.3
    assert conditional_information(labels(first), labels(second), labels(given)) == pytest.approx(0, abs=0.01)


def test_the_guesser_does_not_profit_from_rare_values() -> None:
    """Every observation is new: all it can say is the most common kind."""
    rng = random.Random(6)
    kinds = labels(["inv" if rng.random() < 0.6 else "tx" for _ in range(5_000)])
    unique = labels(list(range(5_000)))
    folds = np.arange(5_000) % 5
    assert guessed(kinds, (unique,), folds).mean() == pytest.approx(0.6, abs=0.03)
    assert guessed(kinds, (kinds,), folds).mean() == 1.0
    assert guessed(kinds, (unique, kinds), folds).mean() == 1.0


def test_intervals_mend_an_estimate_from_too_few_samples() -> None:
    """Two kinds 256 bytes apart under random padding of 512: half of what is seen tells the kind, the other half nothing."""
    rng = random.Random(7)
    kinds = [rng.randrange(2) for _ in range(700)]
    sizes = np.array([256 * kind + rng.randrange(512) for kind in kinds])
    folds = np.arange(700) % 5
    assert mutual_information(labels(kinds), in_intervals(sizes, 1)) > 0.57
    width = fitting_width(labels(kinds), sizes, folds)
    assert width > 4
    assert mutual_information(labels(kinds), in_intervals(sizes, width)) == pytest.approx(0.5, abs=0.07)


def test_single_values_are_kept_where_each_says_something() -> None:
    rng = random.Random(8)
    sizes = np.array([rng.randrange(200) for _ in range(5_000)])
    kinds, folds = sizes % 2, np.arange(5_000) % 5
    assert fitting_width(kinds, sizes, folds) == 1
    assert foretold(kinds, in_intervals(sizes, 1), folds) == pytest.approx(1.0, abs=0.1)
    assert foretold(kinds, in_intervals(sizes, 2), folds) < 0.01


def test_no_estimate_is_made_of_values_that_are_all_different() -> None:
    rng = random.Random(9)
    kinds = labels([rng.randrange(4) for _ in range(3_000)])
    sizes = np.array([rng.randrange(10_000) for _ in range(3_000)])
    width = fitting_width(kinds, sizes, np.arange(3_000) % 5)
    assert abs(mutual_information(kinds, in_intervals(sizes, width))) < 0.01
