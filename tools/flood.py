"""Fifty peers flood a node with twelve kinds of message; how long honest pings take meanwhile, and what the node holds.

    python tools/flood.py [--flooders 50] [--seconds 20]

Compares the 95th percentile of an honest peer's pings under flood with that under busy processes that do not flood. One JSON
line; exit status 1 if it is more than five times as long, if more memory is held than the budget, or if there was no flood.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path

from amounts import positive, whole
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.errors import UserError
from obscura.limits import MEMORY_BUDGET
from obscura.wire.message import Message
from obscura.wire.messages.blocks import GetBlocks, GetHeaders, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.network import Addr, AddrEntry, GetAddr, Ping, Pong
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, StemTx, Tx

ITEMS = tuple(InventoryItem(InventoryKind.TX, bytes([n]) * 32) for n in range(200))
ADDRESSES = tuple(AddrEntry(1_800_000_000, 1, 1, bytes([20, n, 0, 1]), 9_733, 2, None) for n in range(200))
KINDS: tuple[Message, ...] = (
    *(Ping(1), Pong(1), GetAddr(), Addr(ADDRESSES), MempoolRequest()),
    *(Inv(ITEMS), GetData(ITEMS), NotFound(ITEMS), Tx(bytes(300)), StemTx(bytes(300))),
    *(GetHeaders(1, (bytes(32),), bytes(32)), GetBlocks(1, (bytes(32),), bytes(32))),
)
BURST = 200  # messages that a flooder queues at once
HONEST = 2  # links: one without the flood, one with it
BUSY = "while True: sum(range(10_000))"


def config(folder: str, name: str, listen: str) -> Config:
    place = Path(folder) / name
    return Config(network="dev", data_dir=place, listen=(listen,), max_outbound=0, privacy="standard")


async def attacked(folder: str) -> None:
    """A node that says where it is, and on each line of input what it holds and how many it cut."""
    async with Node(config(folder, "attacked", "127.0.0.1:0")) as node:
        told, cut, links = node.events({"peer-connected", "peer-disconnected"}), 0, 0

        async def count() -> None:
            nonlocal cut, links
            async for event in told:
                links += event["kind"] == "peer-connected"
                cut += "too many faults" in event.get("reason", "")

        counting = asyncio.create_task(count())
        print(node.addresses[0], flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            held = sum(sum(row["held_bytes"].values()) for row in node.engine.describe(node.now()))
            print(json.dumps({"held_bytes": held, "cut": cut, "links": links}), flush=True)
        counting.cancel()


async def flood(folder: str, address: str, count: int) -> None:
    """Links that say the same again and again, as fast as they are taken, and come back when they are cut."""
    async with Node(config(folder, "flooder", "127.0.0.3:0")) as node:

        async def one(message: Message) -> None:
            while True:
                with contextlib.suppress(UserError):
                    peer = await node.connect(address)
                    while True:
                        for _ in range(BURST):
                            node.send(peer, message)
                        await node.drained(peer)

        kinds = cycle(KINDS)
        await asyncio.gather(*(one(next(kinds)) for _ in range(count)))


async def pings(folder: str, address: str, seconds: float) -> list[float]:
    """Round trips of an honest peer in milliseconds, one after another."""
    async with Node(config(folder, "honest", "127.0.0.2:0")) as node:
        peer = await node.connect(address)
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            times.append(1_000 * await node.ping(peer))
            await asyncio.sleep(0.07)  # below the rate at which pings are served late
        return times


@contextlib.asynccontextmanager
async def server(folder: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--serve", folder, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        process.stdin.close()
        await process.wait()


@contextlib.contextmanager
def running(*commands: list[str]) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, *command]) for command in commands]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def measure(flooders: int, seconds: float, folder: str) -> int:
    async with server(folder) as (address, process):
        with running(["-c", BUSY], ["-c", BUSY]):
            calm = await pings(folder, address, seconds)
        with running([__file__, "--flood", folder, address, str(flooders)]):
            await asyncio.sleep(2)  # they are there
            hard = await pings(folder, address, seconds)
            state = await asked(process)
    return verdict(flooders, calm, hard, state)


async def asked(process: asyncio.subprocess.Process) -> dict[str, int]:
    """What the node holds, how many links it had so far, and how many it cut."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    state: dict[str, int] = json.loads(await process.stdout.readline())
    return state


def verdict(flooders: int, calm: list[float], hard: list[float], state: dict[str, int]) -> int:
    """Print the line; the exit status."""
    p95 = [statistics.quantiles(times, n=20)[-1] for times in (calm, hard)]
    flooding = state["links"] - HONEST  # that came; those that are cut come again
    is_fine = (
        p95[1] <= 5 * p95[0] and state["held_bytes"] <= MEMORY_BUDGET and flooding >= flooders and state["cut"] > 0
    )
    row = {
        "flooders": flooders,
        "pings": [len(calm), len(hard)],
        "p95_ms_busy": round(p95[0], 2),
        "p95_ms_flood": round(p95[1], 2),
        "ratio": round(p95[1] / p95[0], 2),
        "links_of_flooders": flooding,
        "links_cut": state["cut"],
        "held_bytes": state["held_bytes"],
        "is_within_bounds": is_fine,
    }
    print(json.dumps(row))
    return 0 if is_fine else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Honest pings while a node is flooded.")
    parser.add_argument("--flooders", type=whole(), default=50)
    parser.add_argument("--seconds", type=positive, default=20.0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--flood", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(attacked(options.serve))
        return 0
    if options.flood:
        folder, address, count = options.flood
        asyncio.run(flood(folder, address, int(count)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(options.flooders, options.seconds, folder))


if __name__ == "__main__":
    sys.exit(main())
