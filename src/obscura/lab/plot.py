"""Figures of the leakage table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from obscura.errors import UserError
from obscura.lab.leakage import Row

_PANELS = (
    ("mi_type_bits", "bits about the type"),
    ("type_accuracy", "type guessed rightly"),
    ("overhead_small", "overhead, small messages"),
    ("delay_ms", "added delay, ms"),
)


def plot_rows(rows: Sequence[Row], path: Path) -> None:
    """One panel per figure, one bar per scheme and rate, with intervals. Raises ``UserError`` if it cannot be written."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    names = [f"{row.scheme}\n{row.rate_per_s:g}/s" for row in rows]
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        figures = [getattr(row, name) for row in rows]
        values = [one.value for one in figures]
        below = [max(0.0, one.value - one.low) for one in figures]
        above = [max(0.0, one.high - one.value) for one in figures]
        axes.bar(names, values, yerr=[below, above], capsize=2)
        axes.set_title(title)
        axes.tick_params(axis="x", labelrotation=90, labelsize=7)
        if name == "delay_ms":
            axes.set_yscale("symlog")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be drawn: {error}") from None
