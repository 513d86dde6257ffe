"""Nodes that find each other from one seed, and one that floods and is cut."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from demo.stage import Failed, Stage
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.node.ratelimit import most_at_once
from obscura.wire.messages.network import GetAddr

NODES = 4
MESSAGES = 5_000  # that the flooder sends at once
FLOOD_S = 20.0  # seconds after which a flooder that is not cut has won


def play(stage: Stage) -> None:
    """A seed, some nodes that know nothing but it, and a flooder."""
    stage.say("[bold]Peers[/bold]")
    seed = stage.start("seed", "--listen", "127.0.0.1:0")
    began = time.monotonic()
    nodes = [
        stage.start(f"node {n}", "--listen", f"127.0.1.{n}:0", "--connect", seed.addresses[0])
        for n in range(1, NODES + 1)
    ]

    def found(node_number: int) -> int:
        """Other nodes than the seed that one of them has links with, from its own search: dialled, and not by hand."""
        links = nodes[node_number].call("peers")
        return sum(not link["inbound"] and not link["manual"] for link in links)

    stage.wait("they find each other", lambda: sum(map(found, range(NODES))) >= NODES - 1, 60.0)
    known = min(node.call("status")["known_addresses"] for node in nodes)
    took = time.monotonic() - began
    stage.expect(known >= 1, f"{NODES} nodes that knew one address found each other in {took:.0f} s, over addr gossip")
    try:
        cut_s = asyncio.run(_flood(stage.folder / "flooder", seed.addresses[0]))
    except TimeoutError:
        raise Failed(f"a flooder was not cut within {FLOOD_S:.0f} s") from None
    most = most_at_once("getaddr")
    stage.expect(
        True, f"a flooder was cut {cut_s * 1_000:.0f} ms after it began: what is over {most:,} messages costs its link"
    )
    left = len(seed.call("peers"))
    stage.expect(left >= NODES, f"the seed still has its {left} other links")
    stage.figure("peers", f"{NODES} nodes met over one seed in {took:.0f} s; a flooder was cut after {most:,} messages")
    for node in (*nodes, seed):
        stage.end(node)


async def _flood(folder: Path, address: str) -> float:
    """Ask the same thing again and again, all at once; seconds until the link is gone. Raises ``TimeoutError``."""
    config = Config(network="dev", data_dir=folder, listen=(), max_outbound=0, privacy="standard")
    async with Node(config) as node, asyncio.timeout(FLOOD_S):
        peer = await node.connect(address)
        ended = node.events({"peer-disconnected"})
        began = time.monotonic()
        for _ in range(MESSAGES):
            node.send(peer, GetAddr())
        await anext(ended)
        return time.monotonic() - began
