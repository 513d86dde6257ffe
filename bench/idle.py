"""idle_link_kib: what one idle established link costs the process that accepted it.

Growth of the listener's own resident memory (files that are mapped are not counted), over as many links as opened. Beside it:
bare connections of the same event loop, without any protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Figure, Pair
from bench.process import Process, python

LINKS = 1_000


@contextmanager
def prepared() -> Iterator[Pair]:
    """Processes are made anew for each run: memory that was freed is not given back."""
    yield Pair(lambda: grown("link"), lambda: grown("bare"))


def grown(kind: str) -> float:
    """KiB per link of the accepting process."""
    with python("bench.idle_worker", "accept", kind) as listener:
        address = listener.hear()["address"]
        with python("bench.idle_worker", "open", kind, address) as opener:
            opener.hear()
            opener.ask(open=10)  # what is loaded and allocated once belongs to no link
            before = settled(listener)
            opener.ask(open=LINKS)
            return (settled(listener) - before) / LINKS


def settled(listener: Process) -> int:
    """Its memory once it has nothing left to do."""
    listener.ask(collect=True)
    return listener.rss_kib()


FIGURES = (
    Figure(
        "idle_link_kib",
        "KiB",
        12,
        None,
        "connections of the same event loop without any protocol",
        "KiB",
        prepared,
        is_less_better=True,
    ),
)
