"""Many runs on all cores or on a Dask cluster. Whoever computes a run, its outcome is the same, and outcomes are put in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from obscura.errors import UserError
from obscura.sim.run import run_once
from obscura.sim.scenario import Outcome, Scenario, combined

Progress = Callable[[int, int], None]  # runs done, runs in all


def simulate(
    scenarios: Sequence[Scenario],
    *,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: Progress = lambda done, total: None,
) -> list[dict[str, Any]]:
    """The figures of each scenario. ``processes`` None = one per core; ``scheduler`` = address of a Dask scheduler instead.

    Raises ``UserError`` for a scenario that cannot be, or a cluster that cannot be reached.
    """
    for scenario in scenarios:
        scenario.check()
    jobs = [(index, number) for index, scenario in enumerate(scenarios) for number in range(scenario.runs)]
    outcomes: dict[tuple[int, int], Outcome] = {}
    with _executor(processes or os.cpu_count() or 1, scheduler, len(jobs)) as executor:
        if executor is None:
            for index, number in jobs:
                outcomes[index, number] = run_once(scenarios[index], number)
                progress(len(outcomes), len(jobs))
        else:
            futures = {executor.submit(run_once, scenarios[index], number): (index, number) for index, number in jobs}
            for future in as_completed(futures):
                outcomes[futures[future]] = future.result()
                progress(len(outcomes), len(jobs))
    return [
        combined(scenario, [outcomes[index, number] for number in range(scenario.runs)])
        for index, scenario in enumerate(scenarios)
    ]


@contextmanager
def _executor(processes: int, scheduler: str | None, jobs: int) -> Iterator[Executor | None]:
    if scheduler is not None:
        with _cluster(scheduler) as executor:
            yield executor
    elif processes == 1 or jobs == 1:
        yield None
    else:
        with ProcessPoolExecutor(min(processes, jobs), mp_context=get_context("spawn")) as pool:
            yield pool


@contextmanager
def _cluster(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client as Untyped
    except ImportError:
        raise UserError("a cluster needs Dask: pip install 'obscura-p2p[cluster]'") from None
    Client: Any = Untyped
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler at {scheduler}: {error}") from None
    with client:
        yield client.get_executor(pure=False)
