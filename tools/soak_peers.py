"""The peers of tools/soak.py: honest ones, and those who want a node to hold, forget or waste something."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count, cycle
from pathlib import Path

from flood import KINDS
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.errors import UserError
from obscura.ledger.mining import filler_transaction
from obscura.limits import HANDSHAKE_S
from obscura.wire.address import Address
from obscura.wire.messages.blocks import InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData

TELL_S = 1.0  # between two lines of figures
PING_S = 8.0  # mean time between two pings of one honest link
STAY_S = 120.0  # mean time that one in five honest links stays before it goes and comes again
FLOOD_S = 0.5  # between two bursts of a flooder
FLOOD_BURST = 100  # messages
ASKED = 10  # blocks at once by a peer that reads none
PAUSE_S = 2.0  # until a hostile peer that was cut comes again
LATE_S = 20.0  # between two nodes that come with an empty chain and fetch it all
SENT_S = 10.0  # between two transactions

_DIGITS = re.compile(r"[0-9a-z:/@?]*[0-9][0-9a-z.:/@?]*")  # addresses, ports, numbers

Work = Callable[[Path, str, int], Awaitable[None]]


def config(place: Path) -> Config:
    return Config(network="dev", data_dir=place, listen=(), max_outbound=0, privacy="standard", log_level="error")


class Told:
    """What happened to honest peers since it was told last."""

    def __init__(self) -> None:
        self.pings_ms: list[float] = []
        self.lost = self.refused = self.late_synced = 0
        self.why: Counter[str] = Counter()

    async def tell(self, node: Node) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            figures = {"pings_ms": [round(ms, 2) for ms in self.pings_ms], "links": len(node.peers())}
            told = {
                **figures,
                "lost": self.lost,
                "refused": self.refused,
                "late_synced": self.late_synced,
                "why": self.why,
            }
            print(json.dumps(told), flush=True)
            self.pings_ms, self.lost, self.refused, self.late_synced, self.why = [], 0, 0, 0, Counter()


async def honest(place: Path, address: str, links: int) -> None:
    """Links that ping, fetch what is announced and send transactions now and then; one in five comes and goes."""
    told, rng, opening = Told(), random.Random(str(place)), asyncio.Semaphore(8)

    async def one(node: Node, number: int) -> None:
        while True:
            try:
                async with opening:
                    peer = await node.connect(address)
                end = time.monotonic() + (rng.expovariate(1 / STAY_S) if number % 5 == 0 else 1e9)
                while time.monotonic() < end:
                    await asyncio.sleep(rng.expovariate(1 / PING_S))
                    told.pings_ms.append(1_000 * await node.ping(peer))
                node.disconnect(peer)
            except UserError as fault:
                told.lost += "is gone" in str(fault) or "no peer" in str(fault)
                told.refused += 1
                told.why[_DIGITS.sub("N", str(fault))[-90:]] += 1
                await asyncio.sleep(PAUSE_S)

    async def send(node: Node) -> None:
        while True:
            await asyncio.sleep(SENT_S)
            node.broadcast(filler_transaction(rng, 400), "direct")

    async def come_late() -> None:
        for number in count():
            await asyncio.sleep(LATE_S)
            with contextlib.suppress(UserError, TimeoutError):
                async with Node(config(place / f"late{number}")) as node, asyncio.timeout(LATE_S):
                    peer = await node.connect(address)
                    wanted = peer.negotiated.peer.best_block_height
                    tips = node.events({"tip"})
                    while node.relay.blocks.tip_height < wanted:
                        await anext(aiter(tips))
                    told.late_synced += 1

    async with Node(config(place / "node")) as node, asyncio.TaskGroup() as tasks:
        tasks.create_task(told.tell(node))
        tasks.create_task(send(node))
        tasks.create_task(come_late())
        for number in range(links):
            tasks.create_task(one(node, number))


async def flooding(place: Path, address: str, links: int) -> None:
    """Links that say the same again and again until they are cut."""
    kinds = cycle(KINDS)

    async def one(node: Node) -> None:
        message = next(kinds)
        while True:
            with contextlib.suppress(UserError):
                peer = await node.connect(address)
                while True:
                    for _ in range(FLOOD_BURST):
                        node.send(peer, message)
                    await node.drained(peer)
                    await asyncio.sleep(FLOOD_S)
            await asyncio.sleep(PAUSE_S)

    async with Node(config(place)) as node:
        await asyncio.gather(*(one(node) for _ in range(links)))


async def unread(place: Path, address: str, links: int) -> None:
    """Links that ask for blocks again and again and read none of them."""

    async def one(node: Node) -> None:
        while True:
            with contextlib.suppress(UserError):
                peer = await node.connect(address)
                await asyncio.sleep(1)  # what is announced to a new peer has come
                tip = InventoryItem(InventoryKind.BLOCK, node.relay.blocks.tip)
                node._sockets.of[peer.link].hold(True)
                while True:
                    for _ in range(ASKED):
                        node.send(peer, GetData((tip,)))
                    await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(PAUSE_S)

    async with Node(config(place)) as node:
        await asyncio.gather(*(one(node) for _ in range(links)))


GONE = (OSError, TimeoutError, RuntimeError)  # the last is what uvloop says of a write to a closed connection


async def _strangers(address: str, links: int, say: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Connections on which something is said, and that come again when they are closed."""
    place = Address.parse(address)

    async def one() -> None:
        while True:
            with contextlib.suppress(*GONE):
                async with asyncio.timeout(2 * HANDSHAKE_S):
                    reader, writer = await asyncio.open_connection(place.host, place.port)
                    try:
                        await say(writer)
                        while await reader.read(4_096):
                            pass
                    finally:
                        writer.close()
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(one() for _ in range(links)))


async def silent(place: Path, address: str, links: int) -> None:
    """Connections that say nothing, or half of a first flight."""
    halves = cycle((b"", bytes(40)))

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(next(halves))

    await _strangers(address, links, say)


async def trickling(place: Path, address: str, links: int) -> None:
    """A byte a second."""

    async def say(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"\x16")
            await writer.drain()
            await asyncio.sleep(1)

    await _strangers(address, links, say)


async def garbage(place: Path, address: str, links: int) -> None:
    """A kilobyte of noise, then more."""
    rng = random.Random(str(place))

    async def say(writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            writer.write(rng.randbytes(1_024))
            await writer.drain()
            await asyncio.sleep(0.2)

    await _strangers(address, links, say)


async def storming(place: Path, address: str, links: int) -> None:
    """Connections that are reset as soon as they stand, and made again at once; links as well, one in ten."""
    far = Address.parse(address)

    async def one() -> None:
        while True:
            with contextlib.suppress(*GONE):
                _, writer = await asyncio.open_connection(far.host, far.port)
                writer.write(bytes(100))
                writer.transport.abort()
            await asyncio.sleep(0.25)

    async def real(node: Node) -> None:
        while True:
            with contextlib.suppress(UserError):
                node.disconnect(await node.connect(address))
            await asyncio.sleep(0.5)

    async with Node(config(place)) as node:
        await asyncio.gather(*(real(node) if n % 10 == 0 else one() for n in range(links)))


WORK: dict[str, tuple[Work, float]] = {  # and its share of all links
    "honest": (honest, 0.70),
    "unread": (unread, 0.04),
    "flooding": (flooding, 0.04),
    "silent": (silent, 0.10),
    "trickling": (trickling, 0.06),
    "garbage": (garbage, 0.04),
    "storming": (storming, 0.02),
}
