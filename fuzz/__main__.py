"""Run every target for so many seconds each, several at once; a finding is printed with what reproduces it.

python -m fuzz --seconds 60             # all
python -m fuzz --only frame,ssh-server --seconds 600
python -m fuzz --replay FILE --only frame
python -m fuzz --make-corpus            # write the corpus anew from the targets' seeds
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fuzz import CORPUS, Target, load

OUT = Path("out/fuzz")
GRACE_S = 240  # for starting, importing with instrumentation, and the input at hand


class Outcome(NamedTuple):
    """What one target's run showed."""

    name: str
    runs: int
    coverage: int
    finding: str | None


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    for name in ("seconds", "inputs", "jobs"):  # libFuzzer takes 0 seconds for all of time
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if arguments.replay and not arguments.replay.is_file():
        parser.error(f"there is no file {arguments.replay}")
    targets = load()
    unknown = [name for name in arguments.only if name not in targets]
    if unknown:
        print(f"no target is called {', '.join(unknown)}; there are {', '.join(targets)}", file=sys.stderr)
        return 2
    chosen = [targets[name] for name in arguments.only or targets]
    if arguments.make_corpus:
        return _make_corpus(chosen)
    if arguments.replay:
        for each in chosen:
            each.try_one(arguments.replay.read_bytes())
        print("the invariant holds")
        return 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = list(pool.map(lambda each: _run(each, arguments), chosen))
    broken = [outcome for outcome in outcomes if outcome.finding is not None]
    print(f"{len(outcomes)} targets, {sum(o.runs for o in outcomes):,} inputs, {len(broken)} findings")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=60, help="of each target, at most")
    parser.add_argument("--inputs", type=int, help="of each target, at most; as many as time allows")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="names, with commas")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 = another one each time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at once")
    parser.add_argument("--replay", type=Path, help="try one input, without Atheris")
    parser.add_argument("--make-corpus", action="store_true")
    return parser


def _make_corpus(targets: list[Target]) -> int:
    for each in targets:
        folder = CORPUS / each.name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in each.seeds():
            (folder / sha256(seed).hexdigest()[:16]).write_bytes(seed[: each.max_len])
        print(f"{each.name}: {len(list(folder.iterdir()))} files")
    return 0


def _run(target: Target, limits: argparse.Namespace) -> Outcome:
    grown, artefacts = OUT / target.name / "grown", OUT / target.name / "findings"
    for folder in (grown, artefacts):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={limits.seconds}",
        f"-runs={limits.inputs or -1}",
        f"-max_len={target.max_len}",
        f"-seed={limits.seed}",
        f"-artifact_prefix={artefacts}/",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    command = [
        sys.executable,
        "-m",
        "fuzz.one",
        target.module,
        target.name,
        str(grown),
        str(CORPUS / target.name),
        *options,
    ]
    try:
        longest_s = limits.seconds + GRACE_S
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=longest_s)
        output, is_broken = done.stderr + done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace") if isinstance(late.stderr, bytes) else late.stderr or ""
        output, is_broken = f"{said}\nit did not end by itself", True
    runs = _number(r"stat::number_of_executed_units:\s*(\d+)", output)
    coverage = max((int(found) for found in re.findall(r"cov: (\d+)", output)), default=0)
    finding = _finding(target, output) if is_broken else None
    end = f"{runs:,} inputs, {coverage:,} places reached" if finding is None else finding
    print(f"{target.name}: {end}\n    {target.invariant}", flush=True)
    return Outcome(target.name, runs, coverage, finding)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _finding(target: Target, output: str) -> str:
    path = re.search(r"Test unit written to (\S+)", output)
    tail = "\n".join(output.strip().splitlines()[-25:])
    again = f"python -m fuzz --only {target.name} --replay {path[1]}" if path else "(no input was written)"
    return f"BROKEN\n{tail}\n    again: {again}"


if __name__ == "__main__":
    sys.exit(main())
