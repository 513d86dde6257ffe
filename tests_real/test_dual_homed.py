"""One node with three faces over real daemons: clearnet, an onion service, an I2P destination. Needs tor and i2pd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from i2p_network import Router
from obscura.daemon.config import Config
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.node import Node
from obscura.daemon.ways import TorSettings
from obscura.node.face import Face, Purpose
from obscura.wire.address import Address, CarrierNumber
from tor_network import TorNetwork

SCENARIO_S = 240.0
FACES = {"clearnet": Face.CLEARNET, "tor": Face.ONION, "i2p": Face.I2P}


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TorNetwork, Router]]:
    with Router(tmp_path_factory.mktemp("i2p")) as router, TorNetwork(tmp_path_factory.mktemp("tor")) as network:
        yield network, router


def config(folder: Path, daemons: tuple[TorNetwork, Router], *networks: str, **keys: Any) -> Config:
    """A node in some of the three networks, tor's client by its place among them."""
    network, router = daemons
    client = network.clients[len(networks) > 1]
    return Config(
        network="dev",
        data_dir=folder,
        listen=("127.0.0.1:0",) if "clearnet" in networks else (),
        tor="auto" if "tor" in networks else "off",
        i2p="auto" if "i2p" in networks else "off",
        only_net=networks,
        tor_daemon=TorSettings(control=client.control),
        i2p_router=I2pSettings(
            sam=router.sam, inbound_length=0, outbound_length=0, lease_set_type=1, lease_set_encryption=()
        ),
        **{"max_outbound": 0, **keys},
    )


async def until(is_so: Any) -> None:
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.05)


def is_up(node: Node) -> bool:
    ways = node.routes.show()
    tor, i2p = ways["tor"], ways["i2p"]
    return (tor is None or tor["published"]) and (i2p is None or (i2p["published"] and i2p["connected"]))


def test_a_node_of_three_faces_has_a_peer_in_each_and_tells_each_its_own_address(
    daemons: tuple[TorNetwork, Router], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as nodes:
            others = {
                name: await nodes.enter_async_context(Node(config(tmp_path / name, daemons, name))) for name in FACES
            }
            homed = config(tmp_path / "homed", daemons, *FACES, max_outbound=3)
            alice = await nodes.enter_async_context(Node(homed))
            for node in (*others.values(), alice):
                await until(lambda node=node: is_up(node))
            unix = 1_700_000_000
            for name, node in others.items():  # as if gossip had brought them
                (address,) = node.addresses
                assert address.endpoint is not None
                entry = alice.assembly.book.learn(
                    address.endpoint, CarrierNumber.PLAIN, FACES[name], bytes([FACES[name]]), unix
                )
                assert entry is not None
                entry.seen = 2**31
            await until(lambda: has_all_faces(alice))
            for name, node in others.items():
                await until(lambda node=node: node.peers())
                (peer,) = node.peers()
                assert peer.face is FACES[name]
                own = alice.assembly.neighbours.own.announced(FACES[name])
                assert [address.endpoint for address in own] == [
                    address.endpoint for address in alice.addresses if _face(address) is FACES[name]
                ]
                (link,) = [each for each in alice.peers() if each.face is FACES[name]]
                if link.purpose is Purpose.FULL:  # the third one may be for blocks, and then tells no addresses
                    await until(lambda node=node: list(node.assembly.book.entries()))
                told = {entry.endpoint for entry in node.assembly.book.entries()}
                foreign = {each.endpoint for each in alice.addresses if _face(each) is not FACES[name]}
                assert not told & foreign
                anonymous = FACES[name] is not Face.CLEARNET
                assert ("I2PSupport" in peer.negotiated.flags.names) == anonymous
                assert ("TorSupport" in peer.negotiated.flags.names) == anonymous
            assert len({address.key for address in alice.addresses if address.key}) == 1  # the others prove themselves

    async def bounded() -> None:
        async with asyncio.timeout(SCENARIO_S):
            await scenario()

    asyncio.run(bounded())


def has_all_faces(node: Node) -> bool:
    """Whether it has a peer of its own choice in each network. A failure may be repeated at once, not after a day as usual."""
    for entry in node.assembly.book.entries():
        if entry.failures:
            entry.attempted = entry.failures = 0
    return {peer.face for peer in node.peers() if not peer.is_inbound} == set(FACES.values())


def _face(address: Address) -> Face:
    if address.host.endswith(".onion"):
        return Face.ONION
    return Face.I2P if address.host.endswith(".i2p") else Face.CLEARNET
