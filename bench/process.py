"""A process of a measurement: told things by lines of JSON, answering so, bounded in time, ended by its own pid."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
ANSWER_S = 60.0  # seconds for one answer
LIFE_S = 600  # seconds that a process lives at most, even if nobody is left to end it


class ProcessFailed(Exception):
    """A process ended, hung or reported an error; the text says which and shows the end of what it said."""


class Process:
    """One subprocess. A context manager: leaving it ends the process."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the process has ended)
        self._partial = b""
        self.name = " ".join(argv[2:5])
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, cwd=ROOT, env=_environment()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def tell(self, **command: Any) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("is gone") from None

    def hear(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The next line. Raises ``ProcessFailed``."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._partial:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise self._failure(f"gave no answer within {timeout_s:.0f} s")
                data = os.read(self._process.stdout.fileno(), 65_536)
                if not data:
                    raise self._failure("ended")
                self._partial += data
        text, _, self._partial = self._partial.partition(b"\n")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        """``tell`` and ``hear``."""
        self.tell(**command)
        return self.hear()

    def rss_kib(self) -> int:
        """Resident memory of its own in KiB: what is mapped from files, or shared, is not counted."""
        for row in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if row.startswith("RssAnon:"):
                return int(row.split()[1])
        raise ProcessFailed("this system does not tell the resident memory of a process")

    def _failure(self, what: str) -> ProcessFailed:
        self._log.seek(0)
        said = self._log.read()[-2_000:].decode(errors="replace").strip()
        return ProcessFailed(f"{self.name}: {what}" + (f"; it said: {said}" if said else ""))


def python(module: str, *arguments: str) -> Process:
    """A module of this package, run by this interpreter."""
    return Process([sys.executable, "-m", module, *arguments])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
