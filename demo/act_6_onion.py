"""A link between two nodes that know each other by onion address only, over a private Tor network on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo.stage import DemoNode, Stage
from obscura.errors import UserError

NETWORK = Path(__file__).resolve().parents[1] / "tools" / "tor_network.py"
LATEST_S = 70.0  # seconds after the demo's start until which the network may come up: the demo has 90
_CLIENT = re.compile(r"^socks (\S+) control (\S+) cookie", re.MULTILINE)


def prepare(stage: Stage) -> None:
    """The network takes some 20 seconds to come up, while the other acts play."""
    if shutil.which("tor") is None:
        return
    said = (stage.folder / "tor.txt").open("wb")
    stage.ends.callback(said.close)
    process = subprocess.Popen([sys.executable, str(NETWORK), str(stage.folder / "tor")], stdout=said, stderr=said)
    stage.ends.callback(process.wait)
    stage.ends.callback(process.terminate)


def play(stage: Stage) -> None:
    """Two nodes, each with its own tor; or one line that says why not."""
    stage.say("[bold]Over Tor[/bold]")
    if shutil.which("tor") is None:
        stage.say("  did not run: there is no tor on this machine (apt install tor)")
        return
    clients = _clients(stage)
    if len(clients) < 2:
        stage.say(f"  did not run: the private Tor network was not up {LATEST_S:.0f} s after the demo's start")
        return
    began = time.monotonic()
    first, second = (
        _start(stage, name, control) for name, (_, control) in zip(("onion", "guest"), clients, strict=False)
    )
    address = stage.wait("the onion service is published", lambda: _published(first))
    link = stage.wait("a circuit to it", lambda: _linked(second, address), 40.0)
    trip = second.call("ping", peer=link["peer"])["rtt_ms"]
    seen = stage.wait("the service sees the link", lambda: first.call("peers"))[0]
    stage.expect(
        link["face"] == seen["face"] == "onion" and seen["address"] == "",
        f"a link to {address[:26]}….onion, round trip {trip:.1f} ms; who came is not to be seen there",
    )
    stage.figure("over Tor", f"onion service, link and ping in {time.monotonic() - began:.1f} s (private network)")
    for node in (second, first):
        stage.expect(stage.end(node) == 0, f"{node.name} ended cleanly")


def _clients(stage: Stage) -> list[tuple[str, str]]:
    """SOCKS and control ports of the network's clients, once it is up."""
    said = stage.folder / "tor.txt"
    while time.monotonic() < stage.began + LATEST_S and "up in" not in said.read_text():
        time.sleep(0.1)
    text = said.read_text()
    return _CLIENT.findall(text) if "up in" in text else []


def _start(stage: Stage, name: str, control: str) -> DemoNode:
    return stage.start(name, "--tor", "auto", "--only-net", "tor", "--set", f"tor-daemon.control={control}")


def _published(node: DemoNode) -> str:
    """Its onion address, or nothing yet."""
    tor = node.call("status")["ways"]["tor"]
    return str(node.call("addresses.own")[0]) if tor["published"] else ""


def _linked(node: DemoNode, address: str) -> dict[str, Any] | None:
    """The link, or nothing yet: a descriptor that was just published is not at every relay that keeps it."""
    try:
        return dict(node.call("connect", address=address))
    except UserError:
        return None
