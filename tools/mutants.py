"""Small changes to the code that decides who gets in and what is believed: how many of them do the tests notice?

python tools/mutants.py --sample 80 --seed 1      # ten modules, eight changes each
python tools/mutants.py --only wire/frame         # every change of one module

Each change is made in a copy of the tree; the module's test files run there and stop at the first failure. *killed*: a test
failed; *timeout*: the tests took thrice the processor time they need (noticed as well); *survived*: nothing was noticed, and
the change is printed. docs/mutation.md explains those that stay. Exit status 1 if a smaller share than --least was noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cryptography.hazmat.primitives.ciphers.aead
import hypothesis
import msgspec
import pytest

from amounts import share, whole
from mutations import Mutant, mutants_of

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "tools", "docs", "pyproject.toml")
TESTS = {  # module below src/obscura: test files, those that notice most first
    "channel/noise": ("channel_noise", "channel_vectors", "channel_records"),
    "channel/opening": ("channel_opening", "channel_vectors"),
    "channel/records": ("channel_records", "channel_vectors"),
    "channel/replay": ("channel_opening",),
    "channel/resume": ("rotation", "rotation_failures"),
    "channel/uniform": ("channel_noise", "channel_vectors", "channel_opening", "channel_uniform"),
    "wire/frame": ("wire_frame", "connection"),
    "handshake/features": ("handshake", "connection"),
    "handshake/machine": ("handshake", "connection", "rotation", "rotation_failures"),
    "node/ratelimit": ("ratelimit", "flood"),
    "node/handover": ("rotation", "rotation_failures"),
}
LEAST_CPU_S = 20  # that a run of tests is allowed, however short the unchanged one is
WALL_FACTOR = 20  # seconds of the clock for each of the processor: the machine may be busy
PRELOADED = (cryptography.hazmat.primitives.ciphers.aead, hypothesis, msgspec)  # so that each run need not import them


class Verdict(NamedTuple):
    """What the tests said of one change."""

    mutant: Mutant
    end: str  # killed, timeout or survived


class Tree:
    """A copy of the tree in which one change at a time is tried."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "tree"
        for name in COPIED:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            self._root.mkdir(parents=True, exist_ok=True)
            copy(source, self._root / name)
        if (shared := ROOT.parent / "shared").is_dir():
            (folder / "shared").symlink_to(shared.resolve())

    def tests(self, module: str) -> list[str]:
        """The test files of a module, in this tree."""
        return [str(self._root / "tests" / f"test_{name}.py") for name in TESTS[module]]

    def source(self, module: str) -> Path:
        return self._root / "src" / "obscura" / f"{module}.py"

    def changed(self, mutant: Mutant, cpu_s: float) -> str:
        """What becomes of the tests with this change; it is taken back."""
        path = self.source(mutant.module)
        before = path.read_text(encoding="utf-8")
        try:
            path.write_text(mutant.source, encoding="utf-8")
            return self.run(mutant.module, cpu_s)[0]
        finally:
            path.write_text(before, encoding="utf-8")

    def run(self, module: str, cpu_s: float) -> tuple[str, float]:
        """killed, timeout or survived, and the seconds of processor time that it took."""
        for stale in self.source(module).parent.glob(f"__pycache__/{Path(module).name}.*.pyc"):
            stale.unlink()  # by size and second of change it may look like that of this change
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(self._root, self.tests(module), cpu_s))
        alarm = threading.Timer(WALL_FACTOR * cpu_s, os.kill, (pid, signal.SIGKILL))
        alarm.start()
        _, status, usage = os.wait4(pid, 0)
        alarm.cancel()
        alarm.join()
        seconds = usage.ru_utime + usage.ru_stime
        if os.WIFSIGNALED(status):
            return "timeout", seconds
        return ("survived" if os.WEXITSTATUS(status) == 0 else "killed"), seconds


def _in_child(root: Path, tests: list[str], cpu_s: float) -> int:
    """Run the tests on the tree's own source; what they say goes nowhere, their end is the exit status."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1,) * 2)
    os.chdir(root)
    sys.path.insert(0, str(root / "src"))
    os.environ["PYTHONPATH"] = str(root / "src")
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))


def main() -> int:
    options = _parser().parse_args()
    unknown = [name for name in options.only if name not in TESTS]
    if unknown:
        print(f"no module is called {', '.join(unknown)}; there are {', '.join(TESTS)}", file=sys.stderr)
        return 2
    modules = options.only or list(TESTS)
    with tempfile.TemporaryDirectory(prefix="obscura-mutants-") as folder:
        trees = [Tree(Path(folder) / str(n)) for n in range(options.processes)]
        chosen = _chosen(trees[0], modules, options.sample, options.seed)
        print(f"{len(chosen)} changes of {len(modules)} modules, seed {options.seed}", flush=True)
        verdicts = _tried(trees, chosen)
    _print(verdicts, modules)
    if options.json:
        rows = [{**v.mutant._asdict(), "end": v.end, "source": None} for v in verdicts]
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    noticed = sum(verdict.end != "survived" for verdict in verdicts) / max(1, len(verdicts))
    return 0 if noticed >= options.least else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Which small changes to the code do the tests notice?")
    parser.add_argument("--sample", type=whole(), help="how many changes in all, the same number of each module; all")
    parser.add_argument("--seed", type=int, default=1, help="which ones are drawn")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="modules, with commas")
    parser.add_argument("--processes", type=whole(), default=os.cpu_count() or 1)
    parser.add_argument("--least", type=share, default=0.8, help="share that has to be noticed (0.8)")
    parser.add_argument("--json", type=Path, help="file to write each change and its end to")
    return parser


def _chosen(tree: Tree, modules: Sequence[str], sample: int | None, seed: int) -> list[Mutant]:
    rng = random.Random(seed)
    chosen = []
    for module in modules:
        found = mutants_of(module, tree.source(module).read_text(encoding="utf-8"))
        wanted = len(found) if sample is None else min(len(found), max(1, round(sample / len(modules))))
        chosen += [find() for find in rng.sample(found, wanted)]
    return chosen


def _tried(trees: list[Tree], chosen: list[Mutant]) -> list[Verdict]:
    free, needed, judging = list(trees), dict[str, float](), threading.Lock()

    def allowed(tree: Tree, module: str) -> float:
        """Processor time for a module's tests, measured once on the source as it is."""
        with judging:
            if module not in needed:
                end, seconds = tree.run(module, 600)
                if end != "survived":
                    raise SystemExit(f"the tests of {module} fail without any change")
                needed[module] = max(LEAST_CPU_S, 3 * seconds)
        return needed[module]

    def one(mutant: Mutant) -> Verdict:
        tree = free.pop()
        began = time.monotonic()
        verdict = Verdict(mutant, tree.changed(mutant, allowed(tree, mutant.module)))
        free.append(tree)
        mark = "SURVIVED" if verdict.end == "survived" else verdict.end
        print(f"{mark:9} {mutant.told} ({time.monotonic() - began:.0f} s)", flush=True)
        return verdict

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(one, chosen))


def _print(verdicts: list[Verdict], modules: Sequence[str]) -> None:
    survivors = [verdict.mutant.told for verdict in verdicts if verdict.end == "survived"]
    print("\nsurvivors:", *(survivors or ["none"]), sep="\n")
    print(f"\n{'module':20} changes  killed  timeout  survived  noticed")
    for module in (*modules, "all"):
        ends = Counter(v.end for v in verdicts if module in (v.mutant.module, "all"))
        share = 1 - ends["survived"] / max(1, ends.total())
        row = f"{ends.total():7} {ends['killed']:7} {ends['timeout']:8} {ends['survived']:9} {share:8.0%}"
        print(f"{module:20} {row}")


if __name__ == "__main__":
    sys.exit(main())
