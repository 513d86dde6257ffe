"""Estimates of mutual information and of what a guesser gets right, from counts (bits, natural samples).

The plug-in estimate is too high where values are many and samples few; Miller and Madow's term (G. Miller, *Note on the bias of
information estimates*, 1955) takes off what that comes to on average. Where values are nearly as many as samples that is not
enough (``fitting_width``). Tests check both against laws whose information is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
WIDTHS = tuple(1 << power for power in range(11))  # of intervals of numbers: single numbers, ..., 1,024 at once
_ENOUGH = 50  # samples per value from which on counts of single values can be trusted
_NOTHING = 0.02  # bits; where not even that is foretold, values by themselves only seem to say something
_NEARLY = 0.95  # share of the best width's bits that suffices for a finer one: it loses less of what there is


def labels(values: Sequence[Any]) -> Labels:
    """The same sequence as numbers 0, 1, ...; equal values have equal numbers."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def joint(first: Labels, second: Labels) -> Labels:
    """One label for each pair."""
    inverse: Labels = np.unique(first * (int(second.max(initial=0)) + 1) + second, return_inverse=True)[1]
    return inverse


def entropy(values: Labels) -> float:
    """Shannon's entropy with Miller and Madow's correction."""
    counts = np.bincount(values)
    counts = counts[counts > 0]
    share = counts / values.size
    return float(-(share * np.log2(share)).sum() + (counts.size - 1) / (2 * values.size * np.log(2)))


def mutual_information(first: Labels, second: Labels) -> float:
    """I(first; second), bias taken off; may come out slightly below 0 where there is none."""
    if first.size == 0:
        return 0.0
    return entropy(first) + entropy(second) - entropy(joint(first, second))


def conditional_information(first: Labels, second: Labels, given: Labels) -> float:
    """I(first; second | given)."""
    return mutual_information(joint(first, given), joint(second, given)) - entropy(given) if first.size else 0.0


def foretold(kinds: Labels, seen: Labels, folds: Labels) -> float:
    """Bits about a kind that one who knows the other folds has by what is seen: a lower bound of I(kinds; seen) but for chance.

    Shares of kinds at a value are drawn towards those of all samples by as much as one sample weighs.
    """
    number, values, bits = int(kinds.max(initial=0)) + 1, int(seen.max(initial=0)) + 1, 0.0
    for fold in np.unique(folds):
        known, asked = folds != fold, folds == fold
        share = (np.bincount(kinds[known], minlength=number) + 1) / (known.sum() + number)
        there = np.bincount(seen[known], minlength=values)
        both = np.zeros((values, number))
        np.add.at(both, (seen[known], kinds[known]), 1)
        here = both[seen[asked], kinds[asked]] / share[kinds[asked]]
        bits += float(np.log2((here + 1) / (there[seen[asked]] + 1)).sum())
    return bits / max(1, kinds.size)


def in_intervals(numbers: NDArray[np.int64], width: int) -> Labels:
    """One label for each interval of so many numbers."""
    found: Labels = np.unique(numbers // width, return_inverse=True)[1]
    return found


def fitting_width(kinds: Labels, numbers: NDArray[np.int64], folds: Labels) -> int:
    """The finest of ``WIDTHS`` whose intervals foretell kinds about as well as any.

    Random padding spreads a size over hundreds of numbers. Each by itself is seen too seldom to say anything, and any estimate
    from such counts is far too high; where sizes are what they are, single numbers foretell best and are kept.
    """
    if np.unique(numbers).size * _ENOUGH <= numbers.size:
        return WIDTHS[0]
    told = [foretold(kinds, in_intervals(numbers, width), folds) for width in WIDTHS]
    if max(told) < _NOTHING:
        return WIDTHS[-1]
    return next(width for width, bits in zip(WIDTHS, told, strict=True) if bits >= _NEARLY * max(told))


def guessed(kinds: Labels, views: Sequence[Labels], folds: Labels) -> NDArray[np.bool_]:
    """Whether a guesser who knows the other folds names each kind rightly.

    ``views`` go from fine to coarse; a sample is guessed by the finest view of which the guesser has seen five or more, so that
    rare values do not make it overconfident. The best guess of a view is its most common kind there.
    """
    right = np.zeros(kinds.size, dtype=bool)
    number = int(kinds.max(initial=0)) + 1
    for fold in np.unique(folds):
        known, asked = folds != fold, folds == fold
        guess = np.full(int(asked.sum()), np.bincount(kinds[known]).argmax())
        for view in reversed(views):
            table = np.zeros((int(view.max()) + 1, number), dtype=np.int64)
            np.add.at(table, (view[known], kinds[known]), 1)
            enough = table.sum(axis=1)[view[asked]] >= 5
            guess = np.where(enough, table.argmax(axis=1)[view[asked]], guess)
        right[asked] = guess == kinds[asked]
    return right
