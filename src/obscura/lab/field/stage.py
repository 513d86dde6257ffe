"""One run in a network of its own: two real nodes, the real cover, sessions of both in turn, a capture.

    unshare -n python -m obscura.lab.field.stage PLAN.json

Started by ``morph``; prints how many sessions there were as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from obscura.daemon.client import Client
from obscura.errors import ObscuraError, UserError
from obscura.lab.field.covers import COVERS, Cover
from obscura.lab.field.place import COVER, GENUINE, NODE, OTHERS, OURS, PYTHON, Processes, captured, prepare
from obscura.lab.load import link_steps
from obscura.ledger.mining import filler_transaction

DIALLERS = 4  # sessions at a time
_OFF = ("dummy-ms", "chaff-ms", "jitter-ms", "burst", "burst-hold-ms")
_SLOTS = ("jitter-ms", "burst", "burst-hold-ms")


class Plan(msgspec.Struct, frozen=True):
    """What to run. ``folder``: where capture, key log and everything else go."""

    carrier: str
    level: str
    flows: int
    folder: str
    seed: int
    delay_ms: float = 5.0
    spread_ms: float = 1.0


def level_words(level: str, carrier: str) -> list[str]:
    """The level as options of a node. ``none`` is no level, and ``high`` has no carrier http: both are put together."""
    if level == "none":
        settings = ["rule=none", *(f"{name}=0,0" for name in _OFF)]
    elif level == "high" and carrier not in ("tls", "ssh"):
        settings = ["slot-ms=0,500", *(f"{name}=0,0" for name in _SLOTS)]
    else:
        return ["--privacy", level]
    words = ["--privacy", "custom", "--set", f"privacy-custom.carriers={carrier}"]
    return words + [word for setting in settings for word in ("--set", f"privacy-custom.{setting}")]


class Stage:
    """Everything that runs, and the sessions."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.processes = Processes()
        self.folder = Path(plan.folder)
        self.cover: Cover = COVERS[plan.carrier](self.folder / "cover", self.processes)
        self.cover.folder.mkdir(parents=True)
        self.keylog = self.folder / "keys.log"
        self.done = {OURS: 0, GENUINE: 0, OTHERS: 0}
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._rpcs: list[Path] = []
        self._address = ""

    def node(self, name: str, *words: str) -> dict[str, Any]:
        """A node of ours in a process of its own."""
        folder = self.folder / name
        command = [
            PYTHON,
            "-m",
            "obscura.lab.field.keylog",
            str(self.keylog),
            "--network",
            "dev",
            "--data-dir",
            str(folder),
        ]
        command += ["run", "--json", "--log-level", "warning", *level_words(self.plan.level, self.plan.carrier), *words]
        command += ["--set", "max-outbound=0", "--set", "seeds.enabled=false"]
        line = self.processes.start(command, says=True, log=self.folder / f"{name}.log")
        told: dict[str, Any] = json.loads(line)
        return told

    def start(self) -> None:
        """Servers, nodes, relay."""
        prepare()
        words = self.cover.start(self.rng)
        port = self.cover.PORT
        more = self.cover.listening(self.rng)
        generous = ["trials-per-s=1000", "trials-per-group-per-s=1000", "trials-per-group-burst=1000"]
        words += [word for setting in generous for word in ("--set", f"admission.{setting}")]
        told = self.node("listener", "--listen", f"{NODE}:{port}?carrier={self.plan.carrier}{more}", *words)
        self._address = told["addresses"][0].replace(NODE, OURS)
        self._rpcs = [Path(told["rpc"])]
        places = [f"{front}:{port}={back}:{port}" for front, back in ((OURS, NODE), (GENUINE, COVER), (OTHERS, COVER))]
        relay = [PYTHON, "-m", "obscura.lab.field.relay", str(self.plan.delay_ms), str(self.plan.spread_ms), *places]
        self.processes.start(relay, says=True, log=self.folder / "relay.log")
        for number in range(min(DIALLERS, self.plan.flows)):
            self._rpcs.append(Path(self.node(f"dialler-{number}", "--no-listen")["rpc"]))
        with Client(self._rpcs[0]) as client:
            client.call("mine", blocks=5, fill=2_000)

    def run(self) -> None:
        """All sessions, several at a time, the three kinds in turn."""
        workers = len(self._rpcs) - 1
        shares = [self.plan.flows // workers + (number < self.plan.flows % workers) for number in range(workers)]
        threads = [
            threading.Thread(target=self._work, args=(self._rpcs[number + 1], share, self.plan.seed + number + 1))
            for number, share in enumerate(shares)
        ]
        with captured(self.folder / "flows.pcapng"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _work(self, rpc: Path, count: int, seed: int) -> None:
        rng = random.Random(seed)
        with Client(rpc) as dialler, Client(self._rpcs[0]) as listener:
            kinds: list[tuple[str, Callable[[], None]]] = [
                (OURS, lambda: self._link(dialler, listener, rng)),
                (GENUINE, lambda: self.cover.session(GENUINE, rng, self.keylog)),
                (OTHERS, lambda: self.cover.session(OTHERS, rng, self.keylog)),
            ]
            for _ in range(count):
                for host, session in rng.sample(kinds, len(kinds)):
                    try:
                        session()
                    except (ObscuraError, subprocess.SubprocessError) as error:
                        self._failed(f"{host}: {error} {getattr(error, 'stderr', b'')!r}")
                    else:
                        with self._lock:
                            self.done[host] += 1

    def _failed(self, text: str) -> None:
        with self._lock:
            self.failures.append(text[:500])

    def _link(self, dialler: Client, listener: Client, rng: random.Random) -> None:
        peer = dialler.call("connect", address=self._address)["peer"]
        for step in link_steps(rng):
            time.sleep(step.after_s)
            if step.what == "block":
                listener.call("mine", blocks=1, fill=step.size)
            else:
                sender = dialler if step.what == "up" else listener
                sender.call("tx.send", raw=filler_transaction(rng, step.size).hex(), policy="direct")
        time.sleep(rng.uniform(0.1, 0.6))
        with contextlib.suppress(ObscuraError):
            dialler.call("disconnect", peer=peer)


def main() -> int:
    """Run the plan of the file."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    stage = Stage(plan)
    began = time.monotonic()
    try:
        stage.start()
        stage.run()
    except (UserError, ObscuraError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        stage.processes.end()
    told = {"sessions": stage.done, "failures": stage.failures, "seconds": round(time.monotonic() - began, 1)}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
