"""Twenty node processes over real sockets, five of them spies that log everything, beside the simulator on the same graph.

    python tools/spies.py [--rounds 20]

Every honest node sends one transaction; first-spy blames whoever first gave it to a spy. A round is one draw of paths, so rounds
vary: the exit status is 1 if the mean over sockets is more than three standard errors from the simulator's, or if a transaction
reached no spy. A round takes one to two minutes; nothing leaves the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from amounts import positive, whole
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.ledger.mining import filler_transaction
from obscura.sim.adversary import ward_precision
from obscura.sim.graphs import GRAPHS
from obscura.sim.run import Run
from obscura.sim.scenario import Scenario
from obscura.wire.messages.blocks import Inv, InventoryKind
from obscura.wire.messages.transactions import StemTx, Tx

MOST_ERRORS = 3.0  # standard errors between sockets and simulator


async def work(folder: str) -> None:
    """One node, told by lines of JSON what to do. It notes who first gave it each transaction: an honest one is not asked."""
    seen: dict[str, tuple[str, str, float]] = {}
    async with Node(Config(network="dev", data_dir=Path(folder), listen=("127.0.0.1:0",), privacy="medium")) as node:
        ledger, routes = node.network.ledger, node.assembly.core.routes

        def note(peer: Any, kind: str, *ids: bytes) -> None:
            for id in ids:
                seen.setdefault(id.hex(), (peer.session_id.hex(), kind, time.time()))

        def watch(message: Any, ids: Any) -> None:
            react = routes[message]

            def watched(peer: Any, received: Any, now: float) -> Any:
                note(peer, message.TYPE, *ids(received))
                return react(peer, received, now)

            routes[message] = watched

        watch(StemTx, lambda m: [ledger.decode_transaction(m.raw).id])
        watch(Tx, lambda m: [ledger.decode_transaction(m.raw).id])
        watch(Inv, lambda m: [item.hash for item in m.items if item.kind == InventoryKind.TX])
        answer({"address": str(node.addresses[0])})
        lines = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            told = json.loads(line)
            if told["do"] == "connect":
                for address in told["addresses"]:
                    await node.connect(address)
                answer({"links": {}})
            elif told["do"] == "links":
                answer({"links": {peer.session_id.hex(): peer.is_inbound for peer in node.peers()}})
            elif told["do"] == "send":
                raw = filler_transaction(random.SystemRandom())
                answer({"id": node.broadcast(raw).id.hex()})
            else:
                answer({"seen": seen})


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


async def ask(process: asyncio.subprocess.Process, **told: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    if told:
        process.stdin.write(json.dumps(told).encode() + b"\n")
    return json.loads(await process.stdout.readline())


async def measure(edges: list[tuple[int, int]], spies: set[int], nodes: int, wait_s: float) -> tuple[float, float, int]:
    """Precision and recall of one round over sockets, and how many transactions no spy saw."""
    with tempfile.TemporaryDirectory() as folder:
        here = [sys.executable, __file__, "--worker"]
        pipe = asyncio.subprocess.PIPE
        processes = [
            await asyncio.create_subprocess_exec(*here, f"{folder}/{n}", stdin=pipe, stdout=pipe, limit=1 << 24)
            for n in range(nodes)
        ]
        try:
            addresses = [(await ask(process))["address"] for process in processes]
            for node, process in enumerate(processes):
                dialled = [addresses[listener] for dialler, listener in edges if dialler == node]
                await ask(process, do="connect", addresses=dialled)
            await asyncio.sleep(2)
            owner: dict[str, list[int]] = {}
            for node, process in enumerate(processes):
                for session in (await ask(process, do="links"))["links"]:
                    owner.setdefault(session, []).append(node)
            honest = [node for node in range(nodes) if node not in spies]
            origins = {(await ask(processes[node], do="send"))["id"]: node for node in honest}
            first: dict[str, tuple[float, int]] = {}
            until = time.monotonic() + wait_s
            while len(first) < len(origins) and time.monotonic() < until:
                await asyncio.sleep(2)
                for spy in spies:
                    for id, (session, _, when) in (await ask(processes[spy], do="seen"))["seen"].items():
                        sender = next(node for node in owner[session] if node != spy)
                        if id in origins and sender not in spies and when < first.get(id, (float("inf"), 0))[0]:
                            first[id] = (when, sender)
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            await asyncio.gather(*(process.wait() for process in processes))
    exits = {bytes.fromhex(id): sender for id, (_, sender) in first.items()}
    precision, recall = ward_precision({bytes.fromhex(id): node for id, node in origins.items()}, exits)
    return precision, recall, len(origins) - len(exits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=whole(5), default=20)
    parser.add_argument("--spies", type=whole(), default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wait-s", type=positive, default=120.0)
    parser.add_argument("--rounds", type=whole(), default=1, help="over sockets, a minute or two each (1)")
    parser.add_argument("--simulated", type=whole(2), default=200, help="simulated rounds (200)")
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.worker))
        return 0
    if given.spies >= given.nodes:
        parser.error(f"{given.spies} spies among {given.nodes} nodes leave nobody to spy on")
    rng = random.Random(given.seed)
    edges = GRAPHS["quasi4"].draw(given.nodes, rng)
    spies = set(rng.sample(range(given.nodes), given.spies))
    played = []
    for number in range(given.rounds):
        played.append(asyncio.run(measure(edges, spies, given.nodes, given.wait_s)))
        print("round {}: precision {:.3f}, recall {:.3f}, {} unseen".format(number + 1, *played[-1]), flush=True)
    scenario = Scenario(nodes=given.nodes, graph="quasi4", fluff=0.1, spies=given.spies / given.nodes, followed=0)
    runs = [Run(scenario, number, (edges, spies)).play() for number in range(given.simulated)]
    is_alike = True
    for place, name in enumerate(("precision", "recall")):
        measured = [one[place] for one in played]
        simulated = [getattr(outcome, name) for outcome in runs]
        # Of the difference, were both one law.
        error = stdev(simulated) * (1 / len(measured) + 1 / len(simulated)) ** 0.5
        off = (fmean(measured) - fmean(simulated)) / error
        is_alike &= abs(off) <= MOST_ERRORS
        print(
            f"first-spy {name}: over sockets {fmean(measured):.3f}, simulated {fmean(simulated):.3f}: {off:+.1f} standard errors"
            f" apart; a round varies by {stdev(simulated):.3f}"
        )
    unseen = sum(one[2] for one in played)
    print(
        f"{given.nodes} processes, {given.spies} spies, {unseen} transactions that no spy saw within {given.wait_s:g} s"
    )
    return 0 if is_alike and not unseen else 1


if __name__ == "__main__":
    sys.exit(main())
