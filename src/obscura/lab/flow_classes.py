"""How well a classifier tells a carrier's flows from genuine ones, and genuine ones from each other as a null control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from obscura.lab.classify import area
from obscura.lab.flows import Flow, features
from obscura.lab.leakage import Figure

FOLDS = 5


class Areas(msgspec.Struct, frozen=True):
    """Areas under the curve with intervals of 95 % from resampling: 0.5 = not told apart, 1.0 = always."""

    forest: Figure
    boosting: Figure
    null_forest: Figure
    null_boosting: Figure
    flows: int
    genuine: int


def tell_apart(
    ours: Sequence[Flow], genuine: Sequence[Flow], others: Sequence[Flow], seed: int, *, trees: int = 300
) -> Areas | None:
    """``others``: a second set of genuine flows of the same run. ``None`` with fewer flows of a set than folds."""
    if min(len(ours), len(genuine), len(others)) < 2 * FOLDS:
        return None
    both = [*genuine, *others]
    real = _areas(ours, both, seed, trees)
    null = _areas(genuine, others, seed, trees)
    return Areas(*real, *null, flows=len(ours), genuine=len(both))


def _areas(one: Sequence[Flow], other: Sequence[Flow], seed: int, trees: int) -> tuple[Figure, Figure]:
    rows = np.array([features(flow) for flow in (*one, *other)])
    labels = np.array([True] * len(one) + [False] * len(other))
    groups = np.arange(labels.size)  # each flow stands for itself
    models: tuple[Any, Any] = (
        RandomForestClassifier(trees, min_samples_leaf=2, random_state=seed, n_jobs=1),
        HistGradientBoostingClassifier(max_iter=trees // 3, random_state=seed),
    )
    forest, boosting = (area(model, rows, labels, groups, seed) for model in models)
    return forest, boosting
