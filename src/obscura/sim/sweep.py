"""Many runs on all cores or on a Dask cluster. Whoever computes a run, its outcome is the same, and outcomes are put in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

from obscura.errors import UserError
from obscura.sim.run import run_once
from obscura.sim.scenario import Outcome, Scenario, combined

Progress = Callable[[int, int], None]  # runs done, runs in all
Run = Callable[[Scenario, int], Outcome]  # a function of a module: other processes find it by its name


def simulate(
    scenarios: Sequence[Scenario],
    *,
    run: Run = run_once,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Iterator[dict[str, Any]]:
    """The figures of each scenario in turn. ``processes`` None = one per core; ``scheduler`` = of a Dask cluster instead.

    Raises ``UserError`` at once for a scenario that cannot be, and with the first figures for a cluster that cannot be reached.
    """
    for scenario in scenarios:
        scenario.check()
    if any(scenario.adversary == "max-weight" for scenario in scenarios):
        _need_scipy()
    return _figures(scenarios, run, processes or os.cpu_count() or 1, scheduler, progress)


def _need_scipy() -> None:
    """Matching comes after the run: who lacks its library is to hear of it before."""
    try:
        import scipy.optimize  # noqa: F401
    except ImportError:
        raise UserError("max-weight needs SciPy: pip install 'obscura-p2p[sim]'") from None


def _figures(
    scenarios: Sequence[Scenario], run: Run, processes: int, scheduler: str | None, progress: Progress
) -> Iterator[dict[str, Any]]:
    total, done = sum(scenario.runs for scenario in scenarios), 0
    with _executor(processes, scheduler, total) as executor:
        jobs = [[_begun(executor, run, scenario, number) for number in range(scenario.runs)] for scenario in scenarios]
        for scenario, runs in zip(scenarios, jobs, strict=True):
            outcomes = []
            for result in runs:
                outcomes.append(result())
                done += 1
                progress(done, total)
            yield combined(scenario, outcomes)


def _begun(executor: Executor | None, run: Run, scenario: Scenario, number: int) -> Callable[[], Outcome]:
    """How to get the outcome of a run: of one under way elsewhere, or by doing it."""
    return partial(run, scenario, number) if executor is None else executor.submit(run, scenario, number).result


@contextmanager
def _executor(processes: int, scheduler: str | None, jobs: int) -> Iterator[Executor | None]:
    if scheduler is not None:
        with _cluster(scheduler) as executor:
            yield executor
    elif processes == 1 or jobs == 1:
        yield None
    else:
        with ProcessPoolExecutor(min(processes, jobs), mp_context=get_context("spawn")) as pool:
            try:
                yield pool
            except BaseException:  # Ctrl-C among them: leaving the pool would first work off every run that waits
                pool.shutdown(cancel_futures=True)
                raise


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
