"""Killed with -9 at random instants, the store has every block that it acknowledged, and goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from obscura.store.sqlite import Store

NETWORK = b"\7" * 32
ROUNDS = 10

# Writes blocks as fast as it can, several in flight, and prints each number once its future is done.
CHILD = """
import sys
from hashlib import sha256
from pathlib import Path
from obscura.store.sqlite import Store
first = int(sys.argv[2])
store = Store.open(Path(sys.argv[1]), b"\\7" * 32, prune=None)
waiting = []
for number in range(first, first + 100_000):
    block_id = sha256(b"%d" % number).digest()
    size = 300_000 if number % 7 == 0 else 300
    store.put_headers([block_id * 2])
    waiting.append((number, store.put_block(block_id, block_id * (size // 32), number)))
    store.set_tip(block_id, number)
    while len(waiting) > 8:
        number, future = waiting.pop(0)
        future.result()
        print(number, flush=True)
"""


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    rng = random.Random(20)
    acknowledged: list[int] = []
    for _ in range(ROUNDS):
        first = acknowledged[-1] + 1 if acknowledged else 0
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        try:
            for _ in range(rng.randrange(1, 120)):  # the instant is drawn by progress; the child never waits for us
                acknowledged.append(int(child.stdout.readline()))
        finally:
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
            child.wait()
            child.stdout.close()
        acknowledged += [int(line) for line in rest.split("\n")[:-1]]
        check(tmp_path, acknowledged)
    assert acknowledged == list(range(len(acknowledged)))


def check(directory: Path, acknowledged: list[int]) -> None:
    """Every acknowledged block, whole; headers, tip and bodies are those of the same instant."""
    with Store.open(directory, NETWORK) as store:
        for number in acknowledged:
            block_id = sha256(b"%d" % number).digest()
            assert store.block(block_id) == block_id * ((300_000 if number % 7 == 0 else 300) // 32)
        assert all(progress.damaged is None for progress in store.verify())
        tip = store.tip()
        assert tip is not None
        assert tip[1] >= acknowledged[-1]
        assert store.has_block(tip[0])
        headers = list(store.headers())
        assert all(store.has_block(header[:32]) for header in headers[:-1]), "what is there is a prefix of what was put"
