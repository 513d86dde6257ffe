"""Fuzzing of everything that reads what others wrote: each target has its invariant in one sentence and a corpus.

A target is a function of bytes that raises when the invariant does not hold. ``python -m fuzz`` drives all of them with
Atheris (coverage-guided); ``tests/test_fuzz_corpus.py`` replays the corpus without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

MODULES = ("wire", "channel", "carriers", "chain", "links", "routes", "local")
CORPUS = Path(__file__).parent / "corpus"

Try = Callable[[bytes], None]
Seeds = Callable[[], Iterable[bytes]]


class Target(NamedTuple):
    """One thing that is fuzzed."""

    name: str
    invariant: str
    try_one: Try
    seeds: Seeds
    max_len: int  # bytes of an input

    @property
    def module(self) -> str:
        """Where it is, below ``fuzz.targets``."""
        return self.try_one.__module__.rpartition(".")[2]


TARGETS: dict[str, Target] = {}


def target(name: str, invariant: str, seeds: Seeds, max_len: int = 4_096) -> Callable[[Try], Try]:
    """Register a function as a target. ``seeds`` makes its corpus."""

    def register(try_one: Try) -> Try:
        TARGETS[name] = Target(name, invariant, try_one, seeds, max_len)
        return try_one

    return register


def load(module: str | None = None) -> dict[str, Target]:
    """All targets, or those of one module: under Atheris each import costs, since it is instrumented."""
    for name in MODULES if module is None else (module,):
        import_module(f"fuzz.targets.{name}")
    return TARGETS


def corpus(name: str) -> list[Path]:
    """The files of a target's corpus, in order."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
