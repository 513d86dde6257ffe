"""sim_events: messages that a simulated network of 1,000 real cores delivers, per CPU second of one core.

Beside it: events of the bare kernel that do nothing. CPU time of the process, so that neighbours count as little as possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import process_time

from bench.harness import Figure, Pair
from obscura.sim.kernel import Kernel
from obscura.sim.run import Run
from obscura.sim.scenario import Scenario

NETWORK = Scenario(nodes=1_000, graph="out8", fluff=0.1, spies=0.0, followed=8, transactions=8)
IDLE_EVENTS = 100_000


def delivering() -> float:
    """tx, stemtx, inv and getdata delivered per second; setting the network up is not counted."""
    run = Run(NETWORK, 0)
    start = process_time()
    outcome = run.play()
    return outcome.messages / (process_time() - start)


def idling() -> float:
    """Events of the kernel per second."""
    kernel = Kernel(1)

    def again() -> None:
        if kernel.events < IDLE_EVENTS:
            kernel.at(kernel.now + kernel.rng.random(), again)

    for _ in range(1_000):
        kernel.at(kernel.rng.random(), again)
    start = process_time()
    kernel.run()
    return kernel.events / (process_time() - start)


@contextmanager
def prepared() -> Iterator[Pair]:
    yield Pair(delivering, idling)


FIGURES = (
    Figure("sim_events", "messages/s", 10_000, 0.023, "events of the bare kernel, one core", "events/s", prepared),
)
