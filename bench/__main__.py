"""``python -m bench [--only a,b] [--runs N] [--into DIR]``: one JSON line per figure; status 1 if one could not be measured.

With ``--into`` the lines are kept there too, with a table and a picture.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench import blocks, carriers, command, frames, handshakes, idle, link, records, relaying, report, simulator
from bench.harness import Figure, as_json, chosen, failed_line, interleaved, line
from bench.process import ROOT, ProcessFailed

FIGURES: tuple[Figure, ...] = (
    *frames.FIGURES,
    *records.FIGURES,
    *link.FIGURES,
    *handshakes.FIGURES,
    *idle.FIGURES,
    *blocks.FIGURES,
    *relaying.FIGURES,
    *simulator.FIGURES,
    *carriers.FIGURES,
    *command.FIGURES,
)


def main(argv: list[str] | None = None) -> int:
    """Whether a goal is reached is the line's to say; the status only says whether everything was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", metavar="A,B", help=f"of {', '.join(figure.name for figure in FIGURES)}")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each figure and its calibration (5)")
    parser.add_argument("--into", type=Path, metavar="DIR", help="folder for figures.jsonl, figures.md and figures.svg")
    options = parser.parse_args(argv)
    try:
        wanted = chosen(FIGURES, options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.runs < 1:
        parser.error("--runs must be 1 or more; medians of fewer than 5 say little")
    lines = []
    for figure in wanted:
        try:
            with figure.prepare() as pair:
                shown = line(figure, interleaved(pair, options.runs))
        except ProcessFailed as error:
            shown = failed_line(figure, str(error))
        print(as_json(shown), flush=True)
        lines.append(shown)
        if options.into:
            report.write(lines, options.into, _commit())  # after each, so that a run that is stopped has said something
    return 1 if any("error" in shown for shown in lines) else 0


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "no checkout"


if __name__ == "__main__":
    sys.exit(main())
