"""Figures of a sweep as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """Precision with its standard error over the share of spies, one curve per fluff probability."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for fluff in sorted({result["fluff"] for result in results}):
        curve = sorted((r["spies"], r["precision"], r["precision_se"]) for r in results if r["fluff"] == fluff)
        spies, precision, error = zip(*curve, strict=True)
        axes.errorbar(spies, precision, yerr=error, marker="o", capsize=3, label=f"q = {fluff:g}")
    shares = [result["spies"] for result in results]
    axes.plot(sorted(shares), [share**2 for share in sorted(shares)], "k:", label="lower bound p²")
    first = results[0]
    axes.set_title(f"{first['graph']}, {first['routing']}, {first['adversary']}, {first['nodes']} nodes")
    axes.set_xlabel("share of spies p")
    axes.set_ylabel("precision")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
