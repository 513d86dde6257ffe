"""What a figure is and how it becomes one JSON line: interleaved runs, medians, ratio to the calibration.

Neighbours on the same machine move every absolute number by a third and more. So a measurement and what it is compared with
alternate, run by run, and the ratio decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any

Measure = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The thing to compare with is not there: the figure is printed without a ratio, and says why."""

    why: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The measurement and its calibration, each one run per call, both in the same unit unless the figure says otherwise."""

    measure: Measure
    calibrate: Measure | Unavailable


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. ``goal_ratio`` decides; ``goal_ratio`` None: ``goal`` itself decides (memory has no noise).
    Where that is None too nothing was promised.

    ``beside`` says in words what the calibration is. ``is_less_better``: value and ratio are to stay below their goals.
    ``prepare`` gives the pair and ends what it started when left.
    """

    name: str
    unit: str
    goal: float | None
    goal_ratio: float | None
    beside: str
    beside_unit: str
    prepare: Callable[[], AbstractContextManager[Pair]]
    is_less_better: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The runs of one figure."""

    values: Sequence[float]
    calibrations: Sequence[float]
    missing: str | None = None  # why there is no calibration


def interleaved(pair: Pair, runs: int) -> Result:
    """Alternate calibration and measurement ``runs`` times, after one of each that does not count."""
    calibrate = pair.calibrate
    pair.measure()
    if isinstance(calibrate, Unavailable):
        return Result([pair.measure() for _ in range(runs)], [], calibrate.why)
    calibrate()
    values, calibrations = [], []
    for _ in range(runs):
        calibrations.append(calibrate())
        values.append(pair.measure())
    return Result(values, calibrations)


def spread(values: Sequence[float]) -> float:
    """Distance of the extremes as a part of the median; 0 for no runs."""
    middle = median(values) if values else 0.0
    return (max(values) - min(values)) / middle if middle else 0.0


def line(figure: Figure, result: Result) -> dict[str, Any]:
    """The JSON object of one figure (fields: docs/performance.md). ``ratio`` and ``reached`` are null without a calibration."""
    value = median(result.values)
    beside = median(result.calibrations) if result.calibrations else None
    ratio = value / beside if beside else None
    judged, goal = (value, figure.goal) if figure.goal_ratio is None else (ratio, figure.goal_ratio)
    shown: dict[str, Any] = {
        "name": figure.name,
        "value": rounded(value),
        "unit": figure.unit,
        "goal": figure.goal,
        "ratio": rounded(ratio),
        "goal_ratio": figure.goal_ratio,
        "reached": None
        if judged is None or goal is None
        else judged <= goal
        if figure.is_less_better
        else judged >= goal,
        "calibration": {
            "beside": figure.beside,
            "value": rounded(beside),
            "unit": figure.beside_unit,
            "values": [rounded(value) for value in result.calibrations],
        },
        "runs": len(result.values),
        "spread": rounded(spread(result.values)),
        "values": [rounded(value) for value in result.values],
        "is_less_better": figure.is_less_better,
    }
    if result.missing is not None:
        shown["why_no_ratio"] = result.missing
    return shown


def failed_line(figure: Figure, why: str) -> dict[str, Any]:
    """The line of a figure that could not be measured: it is not reached, and never silently left out."""
    return {
        "name": figure.name,
        "value": None,
        "unit": figure.unit,
        "goal": figure.goal,
        "reached": False,
        "error": why,
    }


def as_json(shown: dict[str, Any]) -> str:
    """One line."""
    return json.dumps(shown, allow_nan=False)


def rounded(number: float | None) -> float | None:
    """Four significant digits: more would be noise."""
    return None if number is None else float(f"{number:.4g}")


def chosen(figures: Iterable[Figure], only: str | None) -> list[Figure]:
    """The figures named in ``only`` (comma-separated), in that order; all of them for None. ``ValueError`` names a stranger."""
    table = {figure.name: figure for figure in figures}
    if not only:
        return list(table.values())
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ValueError(f"there is no figure {', '.join(unknown)}; there are {', '.join(table)}")
    return [table[name] for name in names]
