"""Many nodes on loopback addresses that know one seed: how long until they form one graph, and with how many messages.

    python tools/two_hundred.py [--nodes 200] [--processes 4] [--seconds 180] [--simulated]

Real nodes on real sockets, some per process (or, ``--simulated``, the same core under virtual time). Exit status 1 if they do not
find each other in time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from amounts import positive, whole
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.node.assembly import Settings
from obscura.node.core import Core
from obscura.node.face import Face
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork
from obscura.wire.address import Address

FIRST = int(IPv4Address("127.20.0.1"))
PORT = 24_733
LOOK_S = 3.0
WANTED = 4  # links per node that count as having found its way


def host(number: int) -> str:
    return str(IPv4Address(FIRST + number))


def count_messages(core: Core, counter: Counter[str]) -> None:
    """Count what the core reacts to."""
    for kind, reaction in list(core.routes.items()):

        def counted(peer: Any, message: Any, now: float, name: str = kind.__name__, react: Any = reaction) -> Any:
            counter[name.lower()] += 1
            return react(peer, message, now)

        core.routes[kind] = counted


def is_one_graph(links: dict[str, list[str]], wanted: int) -> bool:
    """Whether all nodes are joined by links, each having some. ``links``: by host, the hosts that it dialled."""
    edges: dict[str, set[str]] = {name: set() for name in links}
    for name, others in links.items():
        for other in others:
            if other in edges:
                edges[name].add(other)
                edges[other].add(name)
    seen, left = set(), list(links)[:1]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += edges[name]
    return len(seen) == len(links) and min(map(len, edges.values())) >= wanted


def told(seconds: float, links: dict[str, list[str]], messages: Counter[str], is_whole: bool) -> str:
    count = sum(map(len, links.values()))
    kinds = ", ".join(f"{number} {kind}" for kind, number in messages.most_common(4))
    state = "one connected graph" if is_whole else "NOT connected yet"
    total = sum(messages.values())
    return f"{len(links)} nodes after {seconds:.0f} s: {state}, {count} outbound links, {total} messages ({kinds})"


# --- Simulated --------------------------------------------------------------------------------------------------------


def simulate(nodes: int, seconds: float) -> int:
    net, messages = SimNetwork(Kernel(1)), Counter[str]()
    for _ in range(nodes):
        node = net.add(Settings(bytes(32), is_dev=True, knobs=LEVELS[PrivacyLevel.STANDARD]))
        count_messages(node.assembly.core, messages)
        node.assembly.neighbours.own.set_listening([node.address])
        node.assembly.book.add_seeds([net.nodes[0].address], True, Face.CLEARNET, 0.0)
        node.turn()
    begun, is_whole, links = time.monotonic(), False, {}
    while net.kernel.now < seconds and not is_whole:
        net.kernel.run(until=net.kernel.now + 10)
        links = {n.address.host: [p.dialled.host for p in n.peers if p.dialled is not None] for n in net.nodes}
        is_whole = is_one_graph(links, min(WANTED, nodes - 1))
    print(told(net.kernel.now, links, messages, is_whole), f"; simulated in {time.monotonic() - begun:.0f} s")
    return 0 if is_whole else 1


# --- Real -------------------------------------------------------------------------------------------------------------


async def serve(first: int, count: int, seed: str, folder: Path) -> None:
    """One process: some nodes, and a line of JSON now and then until standard input ends."""
    messages = Counter[str]()
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.readline)
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for number in range(first, first + count):
            config = Config(
                network="dev", data_dir=folder / str(number), listen=(f"{host(number)}:{PORT}",), privacy="standard"
            )
            node = await stack.enter_async_context(Node(config))
            count_messages(node.assembly.core, messages)
            if seed:
                node.assembly.book.add_seeds([Address.parse(seed)], True, Face.CLEARNET, node.now())
                node.apply(())
            else:
                seed = str(node.addresses[0])
                print(json.dumps({"seed": seed}), flush=True)
            nodes.append(node)
        while not ended.done():
            links = {n.addresses[0].host: [p.dialled.host for p in n.peers() if p.dialled is not None] for n in nodes}
            print(json.dumps({"links": links, "messages": messages}), flush=True)
            await asyncio.wait([ended], timeout=LOOK_S)


async def start(first: int, count: int, seed: str, folder: Path) -> asyncio.subprocess.Process:
    arguments = ["--serve", f"{first}:{count}", "--seed", seed, "--folder", str(folder)]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=pipe, stdout=pipe, limit=1 << 24
    )


async def watch(nodes: int, processes: int, seconds: float, folder: Path) -> int:
    """Start everybody, look until they are one graph, stop everybody."""
    share = -(-nodes // processes)
    first = await start(0, min(share, nodes), "", folder)
    assert first.stdout is not None
    seed = json.loads(await first.stdout.readline())["seed"]
    workers = [first]
    for begin in range(share, nodes, share):
        workers.append(await start(begin, min(share, nodes - begin), seed, folder))
    begun, states = time.monotonic(), [dict[str, Any]() for _ in workers]
    is_whole, links, messages = False, dict[str, list[str]](), Counter[str]()

    async def read(number: int) -> None:
        stdout = workers[number].stdout
        assert stdout is not None
        while line := await stdout.readline():
            states[number] = json.loads(line)

    readers = [asyncio.create_task(read(number)) for number in range(len(workers))]
    while not is_whole and time.monotonic() - begun < seconds:
        await asyncio.sleep(1)
        links = {name: others for state in states for name, others in state.get("links", {}).items()}
        messages = sum((Counter(state.get("messages", {})) for state in states), Counter())
        is_whole = len(links) == nodes and is_one_graph(links, min(WANTED, nodes - 1))
    print(told(time.monotonic() - begun, links, messages, is_whole))
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
    await asyncio.gather(*(worker.wait() for worker in workers), *readers)
    return 0 if is_whole else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Many nodes that find each other from one seed.")
    parser.add_argument("--nodes", type=whole(2), default=200)
    parser.add_argument("--processes", type=whole(), default=4)
    parser.add_argument("--seconds", type=positive, default=180.0)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--seed", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        first, _, count = options.serve.partition(":")
        asyncio.run(serve(int(first), int(count), options.seed, options.folder))
        return 0
    if options.simulated:
        return simulate(options.nodes, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(watch(options.nodes, options.processes, options.seconds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
