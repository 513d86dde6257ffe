"""How the cost of things grows with their number or size: nothing should cost more than in proportion.

python tools/growth.py                                  # all curves, minutes
python tools/growth.py --quick --only chain,mempool     # the largest sizes left out
python tools/growth.py --plot growth.svg --json growth.json

Each size is measured in a process of its own, the least of a few runs, in processor time (neighbours count little) or memory.
A power law is fitted to the four largest sizes: cost ~ size ^ exponent. Exit status 1 if one is above what its curve allows, by
more than its standard error: 1.15 where cost may be in proportion, 0.5 where it should hardly grow.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

import growth_costs as costs

LINEAR, NEARLY_FLAT = 1.15, 0.5  # largest exponents
FITTED = 4  # sizes, the largest ones
RUNS = 3


class Curve(NamedTuple):
    """One thing at several sizes; ``cost(size)`` gives its value in ``unit``."""

    name: str
    what: str
    unit: str
    sizes: tuple[int, ...]
    cost: Callable[[int], float]
    most: float = LINEAR


LINKS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
BYTES = (16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1 << 20, 4 << 20)
HEADERS = (1_000, 3_000, 10_000, 30_000, 100_000)
WAITING = (100, 300, 1_000, 3_000, 10_000, 30_000)
PLACES = (100, 300, 1_000, 3_000, 10_000, 30_000, 80_000)
NODES = (50, 100, 200, 500, 1_000, 2_000)
INSIDE = (10, 30, 100, 300, 1_000, 3_000)

CURVES = (
    Curve("links-memory", "both ends of so many idle links", "KiB", LINKS, costs.links_memory),
    Curve("links-open", "opening so many links, both ends", "s", LINKS, costs.links_open),
    Curve("links-idle", "ten minutes of so many idle links, both ends", "s", LINKS, costs.links_idle),
    Curve("messages", "a message of so many bytes from node to node", "us", BYTES, costs.message),
    Curve("blocks", "checking a block of so many transactions", "ms", INSIDE, costs.block_check),
    Curve("chain-add", "adding so many headers", "s", HEADERS, costs.chain_add),
    Curve("chain-memory", "a tree of so many headers", "KiB", HEADERS, costs.chain_memory),
    Curve("chain-locator", "one locator of so many headers", "us", HEADERS, costs.chain_locator, NEARLY_FLAT),
    Curve("mempool-add", "adding so many transactions", "s", WAITING, costs.mempool_add),
    Curve("mempool-full", "adding as many again to a mempool that is full with so many", "s", WAITING, costs.mempool_full),
    Curve("mempool-confirm", "taking them out by a block", "s", WAITING, costs.mempool_confirm),
    Curve("book-learn", "learning so many addresses", "s", PLACES, costs.book_learn),
    Curve("book-pick", "picking one of so many addresses to dial", "us", PLACES, costs.book_pick, NEARLY_FLAT),
    Curve("book-getaddr", "choosing an answer to getaddr of so many addresses", "ms", PLACES, costs.book_sample),
    Curve("simulator", "8 transactions through so many simulated nodes", "s", NODES, costs.simulated),
)  # fmt: skip


class Grown(NamedTuple):
    """A measured curve and its power law."""

    curve: Curve
    values: list[float]
    exponent: float
    error: float

    @property
    def is_fine(self) -> bool:
        return self.exponent - self.error <= self.curve.most


def measured(curve: Curve, sizes: tuple[int, ...], runs: int) -> Grown:
    values = [min(_apart(curve.cost, size) for _ in range(runs)) for size in sizes]
    chosen = [(size, value) for size, value in zip(sizes, values, strict=True) if value > 0][-FITTED:]
    x, y = np.log([size for size, _ in chosen]), np.log([value for _, value in chosen])
    if len(chosen) < FITTED:
        raise SystemExit(f"{curve.name}: too few sizes for a fit")
    (exponent, _), covariance = np.polyfit(x, y, 1, cov=True)
    return Grown(curve, values, float(exponent), float(np.sqrt(covariance[0, 0])))


def _apart(cost: Callable[[int], float], size: int) -> float:
    """In a process that nothing was measured in."""
    gc.collect()
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as alone:
        return alone.submit(cost, size).result()


def told(grown: Grown, sizes: tuple[int, ...]) -> str:
    """Two lines of the table."""
    curve = grown.curve
    verdict = "fine" if grown.is_fine else "TOO STEEP"
    head = f"{curve.name:16} exponent {grown.exponent:5.2f} ± {grown.error:.2f} (at most {curve.most:g}): {verdict}"
    points = "  ".join(f"{size:,}: {value:.3g}" for size, value in zip(sizes, grown.values, strict=True))
    return f"{head}; {curve.what}, {curve.unit}\n{'':17}{points}"


def plot(curves: list[tuple[Grown, tuple[int, ...]]], path: Path) -> None:
    """Each curve in a small picture, with the line of its power law."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "obscura"
    from matplotlib import pyplot

    rows = -(-len(curves) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 3 * rows), squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (grown, sizes) in zip(axes.flat, curves, strict=False):
        axis.loglog(sizes, grown.values, "o-")
        last = [grown.values[-1] * (size / sizes[-1]) ** grown.exponent for size in sizes]
        axis.loglog(sizes, last, "--", linewidth=0.8)
        axis.set_title(f"{grown.curve.name}: {grown.exponent:.2f} ± {grown.error:.2f}", fontsize=9)
        axis.set_ylabel(grown.curve.unit, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> int:
    parser = argparse.ArgumentParser(description="How cost grows.")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="curves or their beginnings")
    parser.add_argument("--quick", action="store_true", help="without the two largest sizes, one run each")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--plot", type=Path, help="file to draw the curves into, .png or .svg")
    options = parser.parse_args()
    chosen = [c for c in CURVES if not options.only or any(c.name.startswith(name) for name in options.only)]
    if not chosen:
        print(f"no such curve; there are {', '.join(curve.name for curve in CURVES)}", file=sys.stderr)
        return 2
    curves = []
    for curve in chosen:
        sizes = curve.sizes[: max(FITTED, len(curve.sizes) - 2)] if options.quick else curve.sizes
        grown = measured(curve, sizes, 1 if options.quick else RUNS)
        curves.append((grown, sizes))
        print(told(grown, sizes), flush=True)
    steep = [grown.curve.name for grown, _ in curves if not grown.is_fine]
    print(f"{len(curves)} curves; " + (f"too steep: {', '.join(steep)}" if steep else "none grows faster than it may"))
    if options.json:
        rows = [
            {"name": g.curve.name, "what": g.curve.what, "unit": g.curve.unit, "sizes": sizes, "values": g.values,
             "exponent": g.exponent, "error": g.error, "most": g.curve.most, "is_fine": g.is_fine}
            for g, sizes in curves
        ]  # fmt: skip
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    if options.plot:
        plot(curves, options.plot)
    return 1 if steep else 0


if __name__ == "__main__":
    sys.exit(main())
