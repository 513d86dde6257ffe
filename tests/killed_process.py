"""A node that syncs, sends own transactions and learns addresses, and says each thing once it counts as kept; run by tests
that kill it or take its disk away.

``python killed_process.py FOLDER ADDRESS [BYTES]``: ``BYTES`` is how large a file may become, which to SQLite is a full disk.
Lines: ``tip HEIGHT``, ``own ID`` (submitted), ``gone ID`` (about to leave the outbox), ``book ENTRIES`` (written).
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
import time
from itertools import cycle
from pathlib import Path

from obscura.daemon import node as node_module
from obscura.daemon import peerstore
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.daemon.outbox import FileOutbox
from obscura.errors import UserError
from obscura.ledger.mining import filler_transaction
from obscura.node.face import Face
from obscura.wire.address import CarrierNumber, Endpoint

PAUSE_S = 0.02


def say(*words: object) -> None:
    """One line by one write: a node writes its book in a thread, and print writes each word by itself when unbuffered."""
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


class SayingOutbox(FileOutbox):
    """Says what it is about to forget."""

    def forget(self, id: bytes) -> None:
        say("gone", id.hex())
        super().forget(id)


class SayingPeerStore(peerstore.PeerStore):
    """Says how many addresses it has written."""

    def write(self, raw: bytes) -> None:
        super().write(raw)
        if self._path.exists() and self._path.read_bytes() == raw:
            say("book", len(peerstore.decoded(raw).book.entries))


async def tips(node: Node) -> None:
    async for told in node.events({"tip"}):
        say("tip", told["height"])


async def send(node: Node) -> None:
    """Own transactions under each policy, until the outbox takes no more."""
    rng = random.Random()
    for policy in cycle(("strict", "private", "direct")):
        try:
            say("own", node.broadcast(filler_transaction(rng, 300), policy).id.hex())
        except UserError:
            return
        await asyncio.sleep(PAUSE_S)


async def learn(node: Node) -> None:
    """Addresses, as a peer would tell them."""
    rng, book = random.Random(), node.assembly.neighbours.book
    while True:
        place = Endpoint.of(f"20.{rng.randrange(256)}.{rng.randrange(256)}.1", 9_733)
        book.learn(place, CarrierNumber.TLS, Face.CLEARNET, rng.randbytes(2), int(time.time()))
        await asyncio.sleep(PAUSE_S)


async def main(folder: str, address: str) -> None:
    config = Config(network="dev", data_dir=Path(folder), listen=(), privacy="standard", connect=(address,))
    async with Node(config) as node:
        for submission in node.assembly.own_transactions._outbox.kept():
            say("own", submission.id.hex())
        tasks = [asyncio.create_task(send(node)), asyncio.create_task(learn(node))]
        say("tip", node.relay.blocks.tip_height)
        told = asyncio.create_task(tips(node))
        await node.stopped.wait()
        for task in (*tasks, told):
            task.cancel()
    if node.fault is not None:
        raise node.fault


if __name__ == "__main__":
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
    peerstore.PEERS_SAVED_S = 0.1
    node_module.PeerStore, node_module.FileOutbox = SayingPeerStore, SayingOutbox  # type: ignore[misc]
    try:
        asyncio.run(main(*sys.argv[1:3]))
    except UserError as fault:
        sys.exit(str(fault))
