"""Estimates of mutual information and of what a guesser gets right, from counts (bits, natural samples).

The plug-in estimate is too high where values are many and samples few; Miller and Madow's term (G. Miller, *Note on the bias of
information estimates*, 1955) takes off what that comes to on average. Tests check it against laws whose information is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


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
