"""block_sync and blocks_small: one node gets the chain of another, in two processes, fully checked, durable on the disk.

A run's time is from the dial to the acknowledgement of the last block by the disk, on a fresh store. Beside it: how fast the
same store takes blocks of the same size from memory, with nothing to check and no link.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Figure, Pair
from bench.process import Process, python

PREPARE_S = 180.0  # seconds to make and store the chain
RUN_S = 180.0  # seconds for one run on a busy machine


@contextmanager
def prepared(blocks: int, block_bytes: int, level: str) -> Iterator[Pair]:
    """A server with a chain, and a client that gets it again and again; MB/s, or blocks/s where they are small."""
    with python("bench.blocks_worker", "serve", level, str(blocks), str(block_bytes)) as server:
        served = server.hear(PREPARE_S)
        with python("bench.blocks_worker", "sync", level, str(served["address"])) as client:
            amount = blocks if block_bytes < 10_000 else served["bytes"] / 1e6

            def run(**command: object) -> float:
                return float(amount / _asked(client, **command)["seconds"])

            yield Pair(
                lambda: run(sync=blocks),
                lambda: run(store=blocks, block_bytes=served["bytes"] // blocks),
            )


def _asked(client: Process, **command: object) -> dict[str, float]:
    client.tell(**command)
    return client.hear(RUN_S)


BESIDE = "the store's own rate of writing blocks of that size"
FIGURES = (
    Figure("block_sync", "MB/s", 50, None, BESIDE, "MB/s", lambda: prepared(200, 1_000_000, "medium")),
    Figure("blocks_small", "blocks/s", 1_000, None, BESIDE, "blocks/s", lambda: prepared(3_000, 0, "medium")),
)
