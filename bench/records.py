"""records_64k, records_1k: records of the channel sealed by one side and opened by the other, on one core.

Beside it: ChaCha20-Poly1305 alone over the same bytes, both ways, with a fresh nonce for each record and nothing around it. CPU
time of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import process_time

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from bench.harness import Figure, Pair
from obscura.channel.noise import NONCE
from obscura.channel.records import Opener, Sealer
from obscura.limits import KEY_BYTES, MAX_RECORD, RECORD_OVERHEAD, TAG_BYTES

RUN_S = 0.4  # CPU seconds of one run
AT_A_TIME = 50  # records between two looks at the clock
Work = Callable[[], None]  # one record: sealed, and opened again


def chained(size: int) -> Work:
    """The product: each record says inside how long the next one is, and rekeying is looked at each time."""
    sealer, opener = (kind(bytes(KEY_BYTES), first_size=size) for kind in (Sealer, Opener))
    body = bytes(i % 251 for i in range(size - RECORD_OVERHEAD))

    def work() -> None:
        record = sealer.seal(body, size, rekey=sealer.due_rekey(0.0))
        for plain, start, end in opener.receive(record):
            if end - start != len(body) or plain[end - 1] != body[-1]:
                raise AssertionError("not what was sealed")

    return work


def bare(size: int) -> Work:
    """The calibration: two calls of the library, and the nonces."""
    cipher = ChaCha20Poly1305(bytes(KEY_BYTES))
    body = bytes(i % 251 for i in range(size - TAG_BYTES))
    counter = 0

    def work() -> None:
        nonlocal counter
        nonce = NONCE.pack(0, counter)
        counter += 1
        cipher.decrypt(nonce, cipher.encrypt(nonce, body, b""), b"")

    return work


def rate(work: Work, size: int) -> float:
    """MB of records per CPU second of sealing and opening them."""
    records, start = 0, process_time()
    while (spent := process_time() - start) < RUN_S:
        for _ in range(AT_A_TIME):
            work()
        records += AT_A_TIME
    return records * size / 1e6 / spent


@contextmanager
def prepared(size: int) -> Iterator[Pair]:
    """Both sides in this process."""
    ours, theirs = chained(size), bare(size)
    yield Pair(lambda: rate(ours, size), lambda: rate(theirs, size))


def figure(name: str, size: int, goal: float | None, goal_ratio: float | None) -> Figure:
    """Records of one size."""
    beside = "bare ChaCha20-Poly1305 over as many bytes, sealed and opened, one core"
    return Figure(name, "MB/s", goal, goal_ratio, beside, "MB/s", lambda: prepared(size))


FIGURES = (
    figure("records_64k", MAX_RECORD, 1_000, 0.66),
    figure("records_1k", 1 << 10, None, None),
)
