"""``python -m bench [--only a,b] [--runs N]``: one JSON line per figure; status 1 if one could not be measured."""

from __future__ import annotations

import argparse
import sys

from bench import blocks, carriers, command, frames, handshakes, idle, link, relaying, simulator
from bench.harness import Figure, as_json, chosen, failed_line, interleaved, line
from bench.process import ProcessFailed

FIGURES: tuple[Figure, ...] = (
    *frames.FIGURES,
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
    options = parser.parse_args(argv)
    try:
        wanted = chosen(FIGURES, options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.runs < 1:
        parser.error("--runs must be 1 or more; medians of fewer than 5 say little")
    status = 0
    for figure in wanted:
        try:
            with figure.prepare() as pair:
                print(as_json(line(figure, interleaved(pair, options.runs))), flush=True)
        except ProcessFailed as error:
            print(as_json(failed_line(figure, str(error))), flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
