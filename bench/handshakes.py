"""handshakes: complete NK handshakes of one listener, over TCP on loopback, two processes, key pairs made inside the time.

A handshake counts when both sides have both veracks: TCP, both flights, version, padneg, verack, and the link's entry in the
core. Beside it: the key operations alone that both sides of one channel handshake need, on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import SystemRandom
from time import process_time

from bench.harness import Figure, Pair
from bench.process import python
from obscura.channel.uniform import Ephemeral, StaticKey, agree, public_of

COUNT = 1_500  # handshakes of one run
BARE = 300  # rounds of key operations of one calibration


@contextmanager
def prepared() -> Iterator[Pair]:
    """One listening and one dialling node."""
    with python("bench.link_worker", "receive", "64", "none", "fast") as listener:
        address = listener.hear()["address"]
        with python("bench.handshakes_worker", address) as dialler:
            dialler.hear()

            def measure() -> float:
                seconds = dialler.ask(open=COUNT)["seconds"]
                return float(COUNT / seconds)

            yield Pair(measure, bare)


def bare() -> float:
    """Rounds per CPU second of: two Elligator key pairs, two maps, and es and ee at both sides (Noise NK)."""
    rng = SystemRandom()
    static = StaticKey.generate(rng)
    start = process_time()
    for _ in range(BARE):
        mine, theirs = Ephemeral.generate(rng), Ephemeral.generate(rng)
        agree(mine.private, static.public)
        agree(static.private, public_of(mine.representative))
        agree(theirs.private, mine.public)
        agree(mine.private, public_of(theirs.representative))
    return BARE / (process_time() - start)


FIGURES = (
    Figure(
        "handshakes",
        "handshakes/s",
        1_000,
        0.4,
        "the bare X25519 and Elligator operations of both sides, one core",
        "handshakes/s",
        prepared,
    ),
)
