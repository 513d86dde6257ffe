"""tx_relay: transactions through one node with 8 peers, of which one brings them and seven get them.

What is told goes out at random times of seconds, so the time of a run would show those waits. What counts is the processor time
of the node in the middle for each transaction that all eight have in the end. Beside it: decoding the same transactions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Figure, Pair
from bench.process import python

PEERS = 8
COUNT = 2_000  # with 5 runs and one more, all of them fit into the share of one peer
RUN_S = 120.0


@contextmanager
def prepared() -> Iterator[Pair]:
    """The node in the middle is a process of its own; the eight share another one."""
    with python("bench.relaying_worker", "middle") as middle:
        address = str(middle.hear()["address"])
        with python("bench.relaying_worker", "around", address, str(PEERS)) as around:
            around.hear()

            def relay() -> float:
                before = middle.ask(cpu=True)["cpu"]
                around.tell(relay=COUNT)
                around.hear(RUN_S)
                return float(COUNT / (middle.ask(cpu=True)["cpu"] - before))

            yield Pair(relay, lambda: COUNT / float(middle.ask(decode=COUNT)["cpu"]))


FIGURES = (Figure("tx_relay", "tx/s", 2_000, None, "decoding and hashing alone, on the same core", "tx/s", prepared),)
