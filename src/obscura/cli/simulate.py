"""simulate."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from obscura.cli.frame import Command, Failure, Globals, pass_globals
from obscura.cli.output import progress_bar, show_fields, show_json, show_rows

if TYPE_CHECKING:
    from obscura.sim.scenario import Scenario
    from obscura.sim.sweep import Run


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}: numbers with commas between them, such as 0.05,0.1") from None


@click.command(cls=Command)
@click.option("--nodes", default=100, show_default=True, help="Nodes, spies among them.")
@click.option("--graph", default="out8", show_default=True, help="line, regular4, regular6, quasi4 or out8.")
@click.option(
    "--routing",
    default="one-to-one",
    show_default=True,
    help="one-to-one, per-edge, all-to-one, per-tx or diffusion.",
)
@click.option("--coin", default="per-edge", show_default=True, help="per-edge or per-node.")
@click.option(
    "--fluff",
    default="0.1",
    show_default=True,
    callback=_numbers,
    help="Probability q that an edge diffuses; several with commas are swept.",
)
@click.option(
    "--spies",
    default="0.1",
    show_default=True,
    callback=_numbers,
    help="Share of spies; several with commas are swept.",
)
@click.option(
    "--adversary",
    default="first-spy",
    show_default=True,
    help="first-spy, first-spy-told, max-weight, supernode, black-hole or coin-prober.",
)
@click.option("--runs", default=20, show_default=True, help="Graphs, spies and paths drawn anew.")
@click.option("--seed", default=1, show_default=True, help="Equal seeds give equal results.")
@click.option("--no-restem", is_flag=True, help="Diffuse at the end of the first embargo.")
@click.option("--latency-ms", default=55.0, show_default=True, help="Median latency of a link, one way.")
@click.option("--latency-spread", default=0.5, show_default=True, help="Sigma of its log-normal law.")
@click.option("--bandwidth", "bytes_per_s", default=1_250_000.0, show_default=True, help="Bytes per second of a link.")
@click.option("--churn", default=0.0, show_default=True, help="Links lost and replaced per node and hour.")
@click.option("--follow", "followed", default=1, show_default=True, help="Transactions per run followed to everyone.")
@click.option("--vector", is_flag=True, help="The stem alone as arrays, for 100,000 nodes and more.")
@click.option("--processes", type=click.IntRange(1), help="Processes; one per core unless said.")
@click.option("--scheduler", metavar="ADDRESS", help="Compute on the Dask cluster of this scheduler.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw precision over spies as PNG.")
@pass_globals
def simulate(
    globals: Globals,
    /,
    fluff: tuple[float, ...],
    spies: tuple[float, ...],
    no_restem: bool,
    vector: bool,
    processes: int | None,
    scheduler: str | None,
    plot: Path | None,
    **given: Any,
) -> None:
    """Measure what spies learn from a network of cores.

    \b
    Examples:
      obscura simulate --graph regular4 --fluff 0 --spies 0.05,0.1,0.2 --runs 200
      obscura simulate --nodes 1000 --adversary black-hole --json
    """
    from obscura.sim.run import run_once
    from obscura.sim.scenario import Scenario
    from obscura.sim.sweep import simulate as compute

    scenarios = [Scenario(fluff=q, spies=p, restem=not no_restem, **given) for q in fluff for p in spies]
    draw = _drawing(plot) if plot is not None else None  # before the runs, which may take hours
    with progress_bar("runs") as bar:
        figures = compute(
            scenarios,
            run=_arrays(scenarios) if vector else run_once,
            processes=processes,
            scheduler=scheduler,
            progress=lambda done, total: bar(done, total, ""),
        )
        results = list(figures)
    if draw is not None:
        draw(results)
    if globals.json:
        show_json(results[0] if len(results) == 1 else results)
    elif len(results) == 1:
        show_fields(results[0])
    else:
        columns = ("fluff", "spies", "precision", "precision_se", "recall", "hops_mean", "latency_p50_s", "messages")
        show_rows(results, "Nothing was simulated.", columns)


def _arrays(scenarios: list[Scenario]) -> Run:
    try:
        from obscura.sim import vector
    except ImportError:
        raise Failure("--vector needs numpy: pip install 'obscura-p2p[sim]'") from None
    for scenario in scenarios:
        vector.check(scenario)
    return vector.run_once


def _drawing(file: Path) -> Callable[[list[dict[str, Any]]], None]:
    """What draws into the file, once it is clear that it can."""
    try:
        from obscura.sim.plot import draw
    except ImportError:
        raise Failure("drawing needs matplotlib: pip install 'obscura-p2p[sim]'") from None
    if not file.parent.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise Failure(f"{file} cannot be written")
    return partial(draw, file=file)
