"""What a run of the bench comes to: its lines as a file, as a table and as a picture.

Files of a folder: ``figures.jsonl`` (the lines as they were printed), ``figures.md``, ``figures.svg``.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

Line = dict[str, Any]
TUNNELLED = ("carrier_", "tunnel_")  # names of what carries bytes for others, and is compared with plain sockets
BULK = "_16k"
TICKS = (0.5, 1, 2, 5, 10, 20, 50)  # of what part of its goal a figure has
COLOURS = {True: "#2a7f62", False: "#b3402a", None: "#8a8f98"}


def machine() -> str:
    """What it ran on, in a line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, {system}"


def write(lines: Sequence[Line], folder: Path, commit: str) -> None:
    """All three files of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    head = f"{datetime.now(UTC):%Y-%m-%d}, `{commit}`, on {machine()}; medians of {_runs(lines)} runs."
    (folder / "figures.md").write_text(f"{head}\n\n{table(lines)}", encoding="utf-8")
    draw(lines, folder / "figures.svg")


def _runs(lines: Sequence[Line]) -> str:
    counts = sorted({line["runs"] for line in lines if "runs" in line})
    return " or ".join(map(str, counts)) or "no"


# --- Table --------------------------------------------------------------------------------------------------------------


def table(lines: Sequence[Line]) -> str:
    """Markdown: a row for each line, in brackets the least and the most of all runs; then what stood beside which of them."""
    head = "| figure | measured | beside it | ratio | goal | reached |\n|---|---|---|---|---|---|\n"
    rows = "".join(f"| {' | '.join(_cells(line))} |\n" for line in lines)
    named: dict[str, list[str]] = {}
    for line in lines:
        if line.get("calibration", {}).get("value") is not None:
            named.setdefault(line["calibration"]["beside"], []).append(f"`{line['name']}`")
    beside = "".join(f"* {', '.join(names)}: {what}\n" for what, names in named.items())
    return f"{head}{rows}\nBeside them:\n\n{beside}" if beside else head + rows


def _cells(line: Line) -> tuple[str, ...]:
    name = f"`{line['name']}`"
    if "error" in line:
        return name, f"could not be measured: {line['error']}", "", "", _goal(line), "**no**"
    beside, ratio = line["calibration"], line["ratio"]
    compared = line.get("why_no_ratio", "") if beside["value"] is None else _measured(beside, beside["unit"])
    verdict = {True: "yes", False: "**no**", None: ""}[line["reached"]]
    return name, _measured(line, line["unit"]), compared, "" if ratio is None else f"{ratio:.3g}", _goal(line), verdict


def _measured(told: dict[str, Any], unit: str) -> str:
    least, most = _amount(min(told["values"])), _amount(max(told["values"]))
    return f"{_amount(told['value'])} {unit}" + ("" if least == most else f" ({least} to {most})")


def _goal(line: Line) -> str:
    """The ratio is what decides where one is named."""
    if line["goal"] is None:
        return ""
    sign = "at most" if line.get("is_less_better") else "at least"
    ratio = line.get("goal_ratio")
    return f"{sign} {_amount(line['goal'])} {line['unit']}" + ("" if ratio is None else f"; **ratio {ratio:g}**")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


# --- Picture ------------------------------------------------------------------------------------------------------------


def attained(line: Line) -> tuple[float, float, float] | None:
    """The part of its goal that a figure has, above 1 = better: least run, median, most. None without a goal or a value."""
    if line["reached"] is None or "error" in line:
        return None
    by_ratio = line["goal_ratio"] is not None
    unit = line["calibration"]["value"] if by_ratio else 1.0
    goal = line["goal_ratio"] if by_ratio else line["goal"]
    runs = [value / unit / goal for value in (min(line["values"]), median(line["values"]), max(line["values"]))]
    least, middle, most = [1 / run for run in reversed(runs)] if line["is_less_better"] else runs
    return least, middle, most


def draw(lines: Sequence[Line], file: Path) -> None:
    """Above what part of its goal each figure has, below what carries bytes for others beside plain sockets."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "obscura"
    from matplotlib.figure import Figure

    judged = [(line, parts) for line in lines if (parts := attained(line)) is not None]
    bulk = [line for line in lines if _is_bulk(line)]
    heights = [max(1, len(judged)), max(1, len(bulk))]
    figure = Figure(figsize=(9, 1.6 + 0.24 * sum(heights)), layout="constrained")
    goals, rates = figure.subplots(2, 1, height_ratios=heights)
    for place, (line, (least, middle, most)) in enumerate(judged):
        goals.barh(place, middle, color=COLOURS[line["reached"]])
        goals.plot([least, most], [place, place], color="black", linewidth=1)
    goals.axvline(1, color="black", linewidth=0.8)
    goals.set_xscale("log")
    goals.set_xlim(left=TICKS[0] / 2)
    goals.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    goals.minorticks_off()
    goals.set_title("measured / goal: bar = median, line = all runs, green = reached", fontsize=10)
    _name(goals, [line["name"] for line, _ in judged])
    for place, line in enumerate(bulk):
        ours = line["name"].startswith("carrier_")
        rates.barh(place, line["value"], color=COLOURS[True if ours else None])
        rates.plot([min(line["values"]), max(line["values"])], [place, place], color="black", linewidth=1)
    rates.set_title("16 KiB messages, MB/s: carriers (green) and other people's tunnels (grey)", fontsize=10)
    _name(rates, [line["name"].removesuffix(BULK) for line in bulk])
    figure.savefig(file, metadata={"Date": None, "Creator": None})


def _is_bulk(line: Line) -> bool:
    return line["name"].startswith(TUNNELLED) and line["name"].endswith(BULK) and line["value"] is not None


def _name(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(y=0.01)
