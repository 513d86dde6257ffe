"""help_ms: how long `obscura --help` takes, beside a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Figure, Measure, Pair
from bench.process import ANSWER_S, ProcessFailed

AT_A_TIME = 3  # starts of one run; the fastest counts, since a start is easily disturbed


def start_ms(*argv: str) -> Measure:
    """Milliseconds from start to end."""

    def measure() -> float:
        best = float("inf")
        for _ in range(AT_A_TIME):
            start = time.perf_counter()
            ended = subprocess.run(argv, capture_output=True, timeout=ANSWER_S, check=False)
            best = min(best, time.perf_counter() - start)
            if ended.returncode:
                raise ProcessFailed(f"{' '.join(argv)}: status {ended.returncode}: {ended.stderr[-300:]!r}")
        return best * 1e3

    return measure


@contextmanager
def prepared() -> Iterator[Pair]:
    """The installed command, and the interpreter that it runs in."""
    command = Path(sys.executable).with_name("obscura")
    yield Pair(start_ms(str(command), "--help"), start_ms(sys.executable, "-c", "pass"))


FIGURES = (Figure("help_ms", "ms", 150, 8.0, "python -c pass", "ms", prepared, is_less_better=True),)
