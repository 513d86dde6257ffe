"""The acceptance of everything at full size, and the page docs/results.md with what came out (hours; needs apt's daemons).

python tools/prove.py --list
python tools/prove.py                 # all; a failure does not stop the others
python tools/prove.py --only eclipse,tables

What a proof says while it runs is in out/prove/NAME.txt.

Each result is kept in docs/results.json as soon as it is there, with its date, commit and machine; the page is made from all that
are kept, so that hours of proofs need not be one run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.report import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
KEPT = ROOT / "docs" / "results.json"
LIVE = ROOT / "out" / "prove"
LINES = 30  # of a proof's output on the page, the last ones
# Whose changes count as such.
JUDGED = ("src", "tools", "tests", "tests_real", "bench", "fuzz", "demo", "examples", "Makefile")
CARRIERS = ("http", "tls", "ssh", "dns")


class Proof(NamedTuple):
    """One command that shows something; ``most_h``: hours after which it is ended as failed."""

    name: str
    shows: str
    command: str
    most_h: float = 1.0


class Result(NamedTuple):
    """What a proof's command said: its last lines, when, and of what."""

    is_shown: bool
    seconds: int
    date: str
    commit: str
    machine: str
    output: str


def _of_carriers() -> list[Proof]:
    proofs = []
    for name in CARRIERS:
        proofs += [
            Proof(f"judges-{name}", f"200 sessions of carrier {name} before other people's tools, beside genuine ones",
                  f"obscura lab morph --carrier {name} --flows 200"),
            Proof(f"probes-{name}", f"10,000 probes of a {name} listener and of the real server configured alike",
                  f"python tools/probes.py --carrier {name} --count 10000"),
        ]  # fmt: skip
        if name != "http":  # whoever does not know a listener's key joins over these
            shows = f"the same of {name} with strangers welcome, by those who do not know the network"
            proofs.append(
                Proof(f"joining-{name}", shows, f"python tools/probes.py --carrier {name} --count 10000 --joining")
            )
    return proofs


PROOFS = [
    Proof("test", "the test suite", "make test"),
    Proof("check", "style, types, directions of imports", "make check"),
    Proof("demo", "everything once, between processes", "make demo"),
    Proof("eclipse", "eclipse attacks from 2 and 256 /16s, 1,000 seeds each", "python tools/eclipse.py --seeds 1000", 6),
    Proof("flips", "a flipped bit on every link of 50 nodes for a day",
          "env TEST_NODES=50 TEST_HOURS=24 python -m pytest tests/test_flood_network.py -k flipped -s", 8),
    Proof("wrong-keys", "a third of the peers lies about keys",
          "env TEST_POISONED=100 python -m pytest tests/test_flood_network.py -k wrong_keys -s"),
    Proof("flood", "honest pings while 50 peers flood", "python tools/flood.py"),
    Proof("crowd", "200 nodes on real sockets find each other from one seed", "python tools/two_hundred.py"),
    Proof("tables", "the published precision tables beside the simulator's", "make tables", 6),
    Proof("spies", "first-spy precision over real sockets beside the simulator's", "python tools/spies.py --rounds 20", 3),
    Proof("leakage", "what sizes and times tell", "obscura lab leakage"),
    Proof("classifiers", "classifiers told to find blocks and own transactions", "python tools/prove_shaping.py", 4),
    Proof("shaping", "real links as tshark sees them", "make shaping"),
    Proof("carriers", "carriers beside the real servers and clients", "make carriers"),
    *_of_carriers(),
    Proof("discovery", "DNS over HTTPS and router mappings", "make discovery"),
    Proof("anonymity", "private Tor and I2P networks", "make anonymity"),
    Proof("ui", "the dashboard in Chromium", "make ui-test"),
    Proof("docs", "the documentation without a warning", "make docs"),
    Proof("examples", "every example and the tutorial", "make examples"),
    Proof("chaos", "1,000 networks under seeded faults", "python tools/chaos.py --seeds 1000", 8),
    Proof("bugs", "the fault simulation finds each listed bug", "python tools/chaos.py --bugs", 4),
    Proof("fuzz", "every door under Atheris, a minute each", "make fuzz SECONDS=60", 8),
    Proof("kills", "a node killed (-9) at 200 random instants",
          "env TEST_KILLS=200 python -m pytest tests/test_chain_node.py -k many_times -s", 2),
    Proof("soak", "1,000 links with mixed traffic for an hour", "python tools/soak.py --minutes 60", 3),
    Proof("mutants", "share of small changes to the code that the tests notice", "python tools/mutants.py", 8),
    Proof("growth", "how cost grows", "python tools/growth.py --plot docs/growth.svg", 3),
    Proof("bench", "every figure beside its calibration or peer", "make bench INTO=docs/bench", 3),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="The acceptance of everything at full size.")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="names, with commas")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    arguments = parser.parse_args()
    names = [proof.name for proof in PROOFS]
    unknown = [name for name in arguments.only if name not in names]
    if unknown:
        print(f"nothing is called {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    if arguments.list:
        for proof in PROOFS:
            print(f"{proof.name:14} {proof.shows}\n{'':14} {proof.command}")
        return 0
    chosen = [proof for proof in PROOFS if not arguments.only or proof.name in arguments.only]
    missed = []
    for proof in chosen:
        result = _run(proof)
        results = _kept() | {proof.name: result}  # read anew: another run may have kept something meanwhile
        KEPT.write_text(json.dumps({name: told._asdict() for name, told in results.items()}, indent=1) + "\n")
        PAGE.write_text(page(results), encoding="utf-8")
        if not result.is_shown:
            missed.append(proof.name)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} shown" + (f"; not: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def _kept() -> dict[str, Result]:
    return {name: Result(**told) for name, told in json.loads(KEPT.read_text()).items()} if KEPT.exists() else {}


def _run(proof: Proof) -> Result:
    print(f"== {proof.name}: {proof.command}", flush=True)
    commit = _said("git", "rev-parse", "--short", "HEAD") + ("+" if _said("git", "status", "--short", *JUDGED) else "")
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "TEST_REQUIRE_SHARED_DATA": "1",
    }
    LIVE.mkdir(parents=True, exist_ok=True)
    path = LIVE / f"{proof.name}.txt"  # to be looked at while it runs
    began = time.monotonic()
    with (
        path.open("w") as said,
        subprocess.Popen(
            shlex.split(proof.command), cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            process.wait(proof.most_h * 3_600)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
    seconds = round(time.monotonic() - began)
    output = path.read_text(errors="replace")
    if seconds >= proof.most_h * 3_600:
        output += f"\nended after {proof.most_h:g} h"
    told = "\n".join(_plain(line)[:160] for line in output.splitlines()[-LINES:])
    is_shown = process.returncode == 0
    print(f"{told}\n   {'shown' if is_shown else 'NOT SHOWN'} in {seconds} s", flush=True)
    return Result(is_shown, seconds, f"{datetime.now(UTC):%Y-%m-%d}", commit, machine(), told)


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _plain(line: str) -> str:
    """Without places of this machine, and without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).replace(f"{ROOT}/", "").replace(str(Path.home()), "~")


def page(results: dict[str, Result]) -> str:
    """The page of results: a table of all proofs, those not run too, and the last lines that each said."""
    rows, sections = [], []
    for proof in PROOFS:
        result = results.get(proof.name)
        if result is None:
            rows.append(f"| {proof.shows} | not run | | | `{proof.command}` |")
            continue
        shown = "yes" if result.is_shown else "**no**"
        rows.append(
            f"| [{proof.shows}](#{proof.name}) | {shown} | {result.date}, `{result.commit}` | {result.seconds} s "
            f"| `{proof.command}` |"
        )
        sections.append(f"## {proof.name}\n\n{proof.shows}; on {result.machine}.\n\n```text\n{result.output}\n```")
    head = (
        "# Results\n\nMade by `make prove`, which runs the commands below at full size: what was shown, when, of which commit "
        "(`+`: with changes) and on which machine. Each can be repeated alone with `python tools/prove.py --only NAME`."
    )
    table = "| what | shown | when | took | command |\n|---|---|---|---|---|\n" + "\n".join(rows)
    return "\n\n".join((head, table, *sections)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
