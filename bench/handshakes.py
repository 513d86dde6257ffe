"""handshakes: complete NK handshakes of the channel over TCP on loopback, two processes, key pairs made inside the time.

From the dialler's `connect` until both flights are verified at both ends; then the connection is dropped and the next one begins.
Beside it: the key operations alone (Elligator key pairs and maps, X25519), each side's in a process of its own, at the same time.
links: the same up to both veracks, between two whole nodes: version, padneg, verack, the core's parts, their first messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from bench.harness import Figure, Measure, Pair
from bench.process import Process, python

COUNT = 600  # handshakes of one run


def rate(*processes: Process) -> float:
    """Per second, until the last of the processes has done its share."""
    for process in processes:
        process.tell(count=COUNT)
    return COUNT / max(float(process.hear()["seconds"]) for process in processes)


@contextmanager
def pair_of(listener: list[str], dialler: list[str]) -> Iterator[Measure]:
    """A listening and a dialling process; the dialler counts."""
    with python(*listener) as far:
        address = far.hear()["address"]
        with python(*dialler, address) as near:
            near.hear()
            yield lambda: rate(near)


@contextmanager
def prepared(listener: list[str], dialler: list[str]) -> Iterator[Pair]:
    """The handshakes, and the key operations of both sides."""
    with ExitStack() as stack:
        measure = stack.enter_context(pair_of(listener, dialler))
        sides = [stack.enter_context(python("bench.keys_worker", side)) for side in ("initiator", "responder")]
        for side in sides:
            side.hear()
        yield Pair(measure, lambda: rate(*sides))


def channel() -> AbstractContextManager[Pair]:
    """The channel alone."""
    return prepared(["bench.handshakes_worker", "listen"], ["bench.handshakes_worker", "dial"])


def link() -> AbstractContextManager[Pair]:
    """Whole nodes."""
    return prepared(["bench.link_worker", "receive", "64", "none", "fast", "carrier=plain"], ["bench.links_worker"])


def figure(name: str, goal: float, goal_ratio: float, prepare: Callable[[], AbstractContextManager[Pair]]) -> Figure:
    """One of both."""
    beside = "the bare X25519 and Elligator operations of each side in its own process"
    return Figure(name, "handshakes/s", goal, goal_ratio, beside, "handshakes/s", prepare)


FIGURES = (
    figure("handshakes", 1_000, 0.36, channel),
    figure("handshakes_links", 1_000, 0.36, link),
)
