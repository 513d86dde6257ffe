"""``obscura lab morph``: runs of one carrier at several levels, each in a network of its own, and what the judges say."""

from __future__ import annotations

import datetime
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from obscura.errors import UserError
from obscura.lab.card import Card, Level, Side, faults_of, side
from obscura.lab.field import judges
from obscura.lab.field.covers import COVERS
from obscura.lab.field.place import GENUINE, OTHERS, OURS, PYTHON, unshared
from obscura.lab.field.stage import Plan
from obscura.lab.flow_classes import tell_apart

LEVELS = ("none", "standard", "medium", "high")
_PER_FLOW_S, _START_S = 30, 300


def run(
    carrier: str, flows: int, levels: Sequence[str], keep: Path | None, seed: int, say: Callable[[str], None]
) -> Card:
    """The score card. Raises ``UserError`` if a tool is missing or a run fails."""
    if carrier not in COVERS:
        raise UserError(f"the carrier {carrier!r} has no genuine session to stand beside it: {', '.join(COVERS)} have")
    judges.check_tools(carrier)
    tools = judges.versions()
    found = []
    with tempfile.TemporaryDirectory(prefix="obscura-morph-") as folder:
        for level in levels:
            say(f"{carrier} at level {level}: {flows} sessions, and twice as many genuine ones ...")
            place = Path(folder) / level
            told = _staged(Plan(carrier, level, flows, str(place), seed))
            if keep is not None:
                _keep(place, keep, f"{carrier}-{level}")
            say(f"{carrier} at level {level}: {told['seconds']:.0f} s; judges ...")
            judged, tools["nfstream_ndpi"] = _judged(carrier, place, level, told, seed)
            found.append(judged)
            shutil.rmtree(place, ignore_errors=True)
    faults = faults_of(found)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Card(carrier, flows, date, tools, Plan(carrier, "", 0, "", 0).delay_ms, found, faults)


def _staged(plan: Plan) -> dict[str, Any]:
    folder = Path(plan.folder)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
    command = unshared(PYTHON, "-m", "obscura.lab.field.stage", str(folder / "plan.json"))
    limit_s = _START_S + plan.flows * _PER_FLOW_S
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    if done.returncode:
        raise UserError(f"the run failed: {done.stderr.strip()[-1_000:] or 'no word'}")
    told: dict[str, Any] = json.loads(done.stdout)
    if not told["sessions"][OURS]:
        raise UserError(f"no session was made; the first failure: {(told['failures'] or ['none'])[0]}")
    return told


def _keep(place: Path, keep: Path, stem: str) -> None:
    """Capture and key log for other tools; private, since the key log opens the sessions."""
    keep.mkdir(parents=True, exist_ok=True)
    for name, kept in (("flows.pcapng", f"{stem}.pcapng"), ("keys.log", f"{stem}.keys")):
        if (place / name).exists():
            shutil.copy(place / name, keep / kept)
            (keep / kept).chmod(0o600)


def _judged(carrier: str, place: Path, level: str, told: dict[str, Any], seed: int) -> tuple[Level, str]:
    cover = COVERS[carrier]
    capture = place / "flows.pcapng"
    labels = judges.ndpi(capture)
    newer, version = judges.nfstream(capture)
    suricata = judges.suricata(capture, place / "suricata")
    dissected = judges.tshark(capture, place / "keys.log")
    firsts = judges.firsts_of(capture, cover.PORT)
    flows = judges.flows_of(capture)

    def side_of(*servers: str) -> Side:
        return side(
            (cover.LABEL, cover.APP),
            [label for label in labels if label.server in servers],
            [label for label in newer if label.server in servers],
            [seen for seen in suricata[0] if seen.server in servers] if suricata else None,
            [suricata[1].get(server, {}) for server in servers] if suricata else [],
            [dissected[server] for server in servers if server in dissected],
            [first for server, first in firsts if server in servers],
        )

    three = [[flow for flow in flows if flow.server == server] for server in (OURS, GENUINE, OTHERS)]
    rng = random.Random(seed)
    for one in three:
        rng.shuffle(one)
    classes = tell_apart(three[0], three[1], three[2], seed)
    return Level(level, side_of(OURS), side_of(GENUINE, OTHERS), classes, told["failures"], told["seconds"]), version
