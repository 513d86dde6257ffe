"""Nodes over a real I2P router: links, the chain, losses, and what is said when something is wrong.

Needs i2pd (Debian and Ubuntu: apt install i2pd) and fails without it. Everything is on loopback: one router with zero hops, whose
destinations reach each other inside it. Several routers with tunnels between them are in test_i2p_network.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from i2p_network import Router
from obscura.daemon.client import Client
from obscura.daemon.config import Config
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.mining import mine
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.ledger.mining import filler_transaction
from obscura.transport.sam import Sam
from obscura.transport.tor_words import endpoint_of
from obscura.wire.address import Address
from rotating import Loaded, moves_under_load

SCENARIO_S = 240.0
BLOCKS, BLOCK_BYTES = 40, 500_000  # 20 MB, which takes about two seconds through a router
# i2pd 2.45 misreads the LeaseSet2 of another destination of its own where it is a floodfill, which one alone has to be.
ALONE = {"inbound_length": 0, "outbound_length": 0, "lease_set_type": 1, "lease_set_encryption": ()}


@pytest.fixture(scope="session")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with Router(tmp_path_factory.mktemp("i2p")) as router:
        yield router


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SCENARIO_S):
            await scenario()

    asyncio.run(bounded())


def config(folder: Path, router: Router, **keys: Any) -> Config:
    """A node that knows of nothing but one I2P router."""
    settings = I2pSettings(sam=router.sam, **{**ALONE, **keys.pop("tunnels", {})})
    return Config(
        network="dev", data_dir=folder, i2p="auto", only_net=("i2p",), i2p_router=settings, max_outbound=0, **keys
    )


async def until(is_so: Callable[[], object], each_s: float = 0.05) -> None:
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(each_s)


def i2p_of(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = node.routes.show()["i2p"]
    return shown


@contextlib.asynccontextmanager
async def reachable(*configs: Config) -> AsyncIterator[list[Node]]:
    """Nodes whose sessions are there and whose destinations are found."""
    async with contextlib.AsyncExitStack() as nodes:
        made = [await nodes.enter_async_context(Node(each)) for each in configs]
        for node in made:
            await until(lambda node=node: i2p_of(node)["connected"] and i2p_of(node)["published"])
        yield made


def own(node: Node) -> Address:
    (address,) = node.addresses
    assert address.host.endswith(".b32.i2p")
    return address


def test_two_nodes_that_know_only_destinations_link_sync_and_pass_a_transaction(router: Router, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reachable(config(tmp_path / "a", router), config(tmp_path / "b", router)) as (alice, bob):
            async for _ in mine(alice, 12, 0, alice.now() + 60):
                pass
            peer = await bob.connect(own(alice))
            assert {"I2PSupport", "I2P"} <= set(peer.negotiated.flags.names)
            assert peer.pattern == "NX"
            assert await bob.ping(peer) < 10
            await until(lambda: bob.relay.best_block()[1] == 12)
            assert bob.relay.best_block() == alice.relay.best_block()
            sent = bob.broadcast(filler_transaction(random.Random(1), 300), "anonymity-only")
            stages = []
            async for receipt in sent:
                stages.append(receipt.stage.value)
                if receipt.stage.value == "stemmed":
                    break
            assert stages == ["queued", "stemmed"]
            await until(lambda: sent.id in alice.relay.transactions.mempool)
            (seen,) = alice.engine.describe(alice.now())
            assert (seen["face"], seen["inbound"], seen["address"]) == ("i2p", True, "")
            assert str(own(bob).endpoint) in {str(entry.endpoint) for entry in alice.assembly.book.entries()}
            assert bob.routes.i2p is not None
            place = bob.routes.i2p.destinations.dialled(await Sam(_place(router)).lookup(own(alice).host))
            assert place == ("fd60:db4d:ddb5:1::1", 0)
            with pytest.raises(Unreachable, match="there is no such I2P destination now"):
                await bob.connect(f"obscura://{'a' * 52}.b32.i2p:0")
            wrong = Address(bytes(31) + b"\x09", own(alice).host, 0)
            with pytest.raises(Unreachable, match="did not prove its key"):
                await bob.connect(wrong)

    run(scenario)


def test_a_link_moves_under_load_through_i2p_and_nothing_is_lost_or_doubled(router: Router, tmp_path: Path) -> None:
    async def scenario() -> None:
        alice, bob = (Loaded(Node(config(tmp_path / name, router))) for name in "ab")
        async with alice.node, bob.node:
            for node in (alice.node, bob.node):
                await until(lambda node=node: i2p_of(node)["connected"] and i2p_of(node)["published"])
            await bob.node.connect(own(alice.node))
            await until(alice.node.peers)
            await moves_under_load(bob, alice, (100, 3_000, 30_000, 0))
            assert (alice.row["face"], alice.row["address"]) == ("i2p", ""), "and shows nothing that it did not"

    run(scenario)


def test_the_router_is_killed_in_the_middle_of_a_synchronisation_and_everything_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Router(tmp_path / "router") as router:
            async with reachable(config(tmp_path / "a", router)) as (alice,):
                address = own(alice)
                async for _ in mine(alice, BLOCKS, BLOCK_BYTES, alice.now() + 60):
                    pass
                async with Node(config(tmp_path / "b", router, connect=(str(address),))) as bob:  # dialled for ever
                    await until(lambda: bob.relay.best_block()[1] > 0, 0.01)
                    await asyncio.to_thread(router.end, signal.SIGKILL)
                    assert bob.relay.best_block()[1] < BLOCKS
                    await until(lambda: "no I2P router listens" in str(i2p_of(alice)["fault"]))
                    assert not i2p_of(alice)["published"]
                    await until(lambda: not bob.peers() and not alice.peers())
                    router.start()
                    await until(lambda: bob.relay.best_block() == alice.relay.best_block())
                    assert own(alice) == address  # the same key

    run(scenario)


def test_lost_sessions_are_made_again_with_the_same_destination(router: Router, tmp_path: Path) -> None:
    """The connections on which the sessions' lives depend break, and the router lives on."""

    async def tell(node: Node) -> None:
        """For who reads of a failure: what became of each dial."""
        async for event in node.events({"dial-failed", "peer-connected", "peer-closed"}):
            print(f"{time.monotonic():.1f} {event}")  # noqa: T201

    async def scenario() -> None:
        async with reachable(config(tmp_path / "a", router)) as (alice,):
            address = own(alice)
            async with Node(config(tmp_path / "b", router, connect=(str(address),))) as bob:
                await until(lambda: bob.peers() and alice.peers())
                told = asyncio.create_task(tell(bob))
                # Both nodes': who is not told that a stream died misses it only when pings stay unanswered, after 20 min.
                # The first dial meets the old LeaseSet, the next one goes through a session of its own.
                for i2p in (alice.routes.i2p, bob.routes.i2p):
                    assert i2p is not None
                    for half in (i2p._inbound, i2p._outbound):
                        if half.session is not None:
                            half.session._control.shutdown(2)
                await until(lambda: i2p_of(alice)["fault"])
                await until(lambda: not bob.peers() and not alice.peers())
                await until(lambda: bob.peers() and alice.peers())
                await bob.ping(bob.peers()[0])
                assert own(alice) == address
                told.cancel()

    run(scenario)


def test_a_fresh_destination_for_each_link(router: Router, tmp_path: Path) -> None:
    async def scenario() -> None:
        fresh = {"fresh": True, "service": False}
        async with (
            reachable(config(tmp_path / "a", router)) as (alice,),
            Node(config(tmp_path / "b", router, tunnels=fresh)) as bob,
        ):
            peers = await asyncio.gather(*(bob.connect(own(alice)) for _ in range(2)))
            assert i2p_of(alice)["destinations_linked"] == 2
            for peer in peers:
                await bob.ping(peer)
            bob.disconnect(peers[0])
            await until(lambda: i2p_of(alice)["destinations_linked"] == 1)

    run(scenario)


def test_a_node_of_the_command_line_shows_its_progress(router: Router, tmp_path: Path) -> None:
    words = ("--network", "dev", "--data-dir", str(tmp_path), "run", "--json", "--i2p", "auto", "--only-net", "i2p")
    alone = [f"i2p-router.{key}={value}" for key, value in (
        ("sam", router.sam), ("inbound-length", 0), ("outbound-length", 0), ("lease-set-type", 1),
        ("lease-set-encryption", ""),
    )]  # fmt: skip
    sets = [word for text in alone for word in ("--set", text)]
    process = subprocess.Popen([sys.executable, "-m", "obscura.cli", *words, *sets], stdout=subprocess.PIPE)
    states = []
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        deadline = time.monotonic() + 90
        with Client(Path(facts["rpc"])) as client:
            while time.monotonic() < deadline:
                i2p = client.call("status")["ways"]["i2p"]
                states.append(i2p["inbound"]["state"])
                if i2p["published"]:
                    break
                time.sleep(0.2)
            status = client.call("status")
        assert {"building tunnels", "ready"} <= set(states)
        assert status["addresses"] == [f"obscura://{i2p['destination']}:0"]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _place(router: Router) -> Any:
    return endpoint_of(router.sam)
