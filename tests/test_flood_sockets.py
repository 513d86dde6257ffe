"""Slow and silent peers over real loopback sockets: honest peers are served throughout."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from obscura.connection import Connection, Dialling
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.limits import MAX_UNAUTHENTICATED, SEND_QUEUE_MAX
from obscura.morph.plain import Plain
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.messages.blocks import Block
from playbook import offer

CROWD = 1_000


@pytest.fixture(autouse=True)
def _many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CROWD if hard == resource.RLIM_INFINITY else min(4 * CROWD, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    """A node that is attacked, and an honest one."""
    common = {"network": "dev", "max_outbound": 0}
    async with (
        Node(Config(data_dir=folder / "attacked", listen=("127.0.0.1:0",), **common)) as attacked,
        Node(Config(data_dir=folder / "honest", listen=("127.0.0.2:0",), **common)) as honest,
    ):
        yield attacked, honest


async def is_served(attacked: Node, honest: Node) -> bool:
    """Whether an honest node can come, be answered and go."""
    peer = await honest.connect(attacked.addresses[0])
    answered = await honest.ping(peer) < 20
    honest.disconnect(peer)
    return answered


async def crowd(
    stack: contextlib.AsyncExitStack, node: Node, count: int, first: bytes = b""
) -> list[asyncio.StreamWriter]:
    """Connections that say ``first`` and nothing more."""
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", node.addresses[0].port)
        stack.callback(writer.close)
        writer.write(first)
        writers.append(writer)
    return writers


@pytest.mark.parametrize("first", [b"", b"\x16", bytes(40), bytes(300)], ids=["silent", "a byte", "half", "garbage"])
def test_a_thousand_connections_that_never_finish_their_handshake(tmp_path: Path, first: bytes) -> None:
    async def scene() -> None:
        async with pair(tmp_path) as (attacked, honest), contextlib.AsyncExitStack() as stack:
            settled = await honest.connect(attacked.addresses[0])
            await crowd(stack, attacked, CROWD, first)
            assert await is_served(attacked, honest)
            assert await honest.ping(settled) < 20
            assert len(attacked.engine.links) <= MAX_UNAUTHENTICATED + 2

    asyncio.run(scene())


def test_bytes_that_trickle_in_one_at_a_time_hold_nobody_up(tmp_path: Path) -> None:
    async def scene() -> None:
        async with pair(tmp_path) as (attacked, honest), contextlib.AsyncExitStack() as stack:
            writers = await crowd(stack, attacked, 100)
            for _ in range(5):
                for writer in writers:
                    writer.write(b"\x00")
                assert await is_served(attacked, honest)

    asyncio.run(scene())


class NeverReads:
    """A peer that completes its handshake and then takes nothing from its socket."""

    def __init__(self, node: Node) -> None:
        own = node.addresses[0]
        rng = random.Random(1)
        channel = Dialling(node.network.id, 1, own.key)
        self.port = own.port
        self.connection = Connection(
            Plain(rng, client=True),
            channel,
            offer(nonce=99),
            CATALOGUE,
            rng,
            lambda: int(time.time()),
            initiator=True,
            now=0.0,
        )

    async def join(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 12)
        self.connection.start(0.0)
        while not self.connection.is_established:
            writer.write(b"".join(self.connection.flush(0.0)))
            self.connection.receive(await reader.read(1 << 12), 0.0)
        writer.write(b"".join(self.connection.flush(0.0)))
        return writer


def test_a_peer_that_never_reads_costs_its_bound_and_nobody_else(tmp_path: Path) -> None:
    async def scene() -> None:
        async with pair(tmp_path) as (attacked, honest):
            bad = NeverReads(attacked)
            come = attacked.events({"peer-connected"})
            writer = await bad.join()
            await anext(aiter(come))
            (lazy,) = attacked.peers()
            block = Block(bytes(4_000_000))
            sent = 0
            while lazy in attacked.peers():
                attacked.engine.send(lazy.link, block, attacked.now())
                sent += len(block.raw)
                assert await is_served(attacked, honest)
                assert sent < 2 * SEND_QUEUE_MAX + (64 << 20)  # the kernel's buffers take their part
            assert sent >= SEND_QUEUE_MAX
            writer.close()

    asyncio.run(scene())
