"""link_64, link_1m and their cells twins: typed messages over a sealed link of two nodes in two processes, beside py-libp2p.

The sender builds distinct messages, the receiver verifies them and delivers each to a reaction. A run's time is from the first
message built to the last one delivered; both processes read the same monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import beside_libp2p
from bench.harness import Figure, Measure, Pair, Unavailable
from bench.process import Process, python

RUN_S = 1.5  # seconds that a run shall take about
# Messages of the first try, by which the number of a run is chosen.
FIRST = {64: 2_000, 400: 2_000, 16 << 10: 200, 1 << 20: 20}


class Flow:
    """One sender and one receiver that stay connected over all runs."""

    def __init__(self, sender: Process, receiver: Process, size: int) -> None:
        self._sender = sender
        self._receiver = receiver
        self._size = size
        self._count = FIRST[size]
        self._is_sized = False

    def run(self) -> float:
        """Messages per second."""
        if not self._is_sized:
            self._is_sized = True
            for _ in range(2):  # the first one is a warm-up of everything
                self._count = max(FIRST[self._size], int(self._rate() * RUN_S))
        return self._rate()

    def _rate(self) -> float:
        self._receiver.ask(expect=self._count)
        self._sender.tell(send=self._count)
        start = self._sender.hear()["start"]
        end = self._receiver.hear()["end"]
        return float(self._count / (end - start))


@contextmanager
def nodes(size: int, rule: str, loop: str, options: str = "carrier=plain") -> Iterator[Measure]:
    """Two nodes of ours. ``options``: of the address between them."""
    listening, ampersand, shape = options.partition("&shape=")  # which is for who dials to choose
    with python("bench.link_worker", "receive", str(size), rule, loop, listening) as receiver:
        address = receiver.hear()["address"] + ampersand + shape
        with python("bench.link_worker", "send", str(size), rule, loop, address) as sender:
            sender.hear()
            yield Flow(sender, receiver, size).run


@contextmanager
def prepared(size: int, rule: str, loop: str, per_message: float) -> Iterator[Pair]:
    """``per_message`` turns messages per second into the figure's unit."""
    with ExitStack() as stack:
        ours = stack.enter_context(nodes(size, rule, loop))
        theirs: Measure | Unavailable
        try:
            sender, receiver = stack.enter_context(beside_libp2p.hosts(size))
            flow = Flow(sender, receiver, size).run
            theirs = _scaled(flow, per_message)
        except beside_libp2p.NotInstalled as error:
            theirs = Unavailable(str(error))
        yield Pair(_scaled(ours, per_message), theirs)


def _scaled(measure: Measure, factor: float) -> Measure:
    return lambda: measure() * factor


def figure(name: str, size: int, rule: str, goal: float, goal_ratio: float, loop: str = "fast") -> Figure:
    """One payload size under one padding rule."""
    unit, per_message = ("messages/s", 1.0) if size == 64 else ("MB/s", size / 1e6)
    return Figure(
        name,
        unit,
        goal,
        goal_ratio,
        "py-libp2p 0.8 (Noise, yamux), one write per message",
        unit,
        lambda: prepared(size, rule, loop, per_message),
    )


FIGURES = (
    figure("link_64", 64, "none", 250_000, 36.0),
    figure("link_1m", 1 << 20, "none", 620, 4.0),
    figure("link_64_cells", 64, "cells", 250_000, 36.0),
    figure("link_1m_cells", 1 << 20, "cells", 620, 4.0),
    figure("link_64_medium", 64, "medium", 250_000, 36.0),
    figure("link_1m_medium", 1 << 20, "medium", 620, 4.0),
    figure("link_64_asyncio", 64, "none", 250_000, 36.0, "asyncio"),
    figure("link_1m_asyncio", 1 << 20, "none", 620, 4.0, "asyncio"),
)
