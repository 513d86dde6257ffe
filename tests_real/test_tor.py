"""Nodes over a real, private Tor network: links, circuits, the chain, restarts, and what is said when something is wrong.

Needs tor (Debian and Ubuntu: apt install tor) and fails without it. Everything is on loopback.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import tor_network
from obscura.daemon.client import Client
from obscura.daemon.config import Config
from obscura.daemon.examination import examine
from obscura.daemon.mining import mine
from obscura.daemon.node import Node
from obscura.daemon.ways import TorSettings
from obscura.doctor.finding import State
from obscura.doctor.findings import judge
from obscura.errors import Unreachable, UserError
from obscura.ledger.mining import filler_transaction
from obscura.transport import socks5
from obscura.transport.socks5 import Credentials
from obscura.transport.tor import TorControl, TorFault
from obscura.transport.tor_words import endpoint_of
from obscura.wire.address import Address, Endpoint, Network
from rotating import Loaded, moves_under_load
from tor_network import TorNetwork

SCENARIO_S = 150.0
BLOCKS, BLOCK_BYTES = 40, 500_000  # 20 MB, which takes two seconds or more over this network


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorNetwork]:
    with TorNetwork(tmp_path_factory.mktemp("tor")) as network:
        yield network


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SCENARIO_S):
            await scenario()

    asyncio.run(bounded())


def place(text: str) -> Endpoint:
    found = endpoint_of(text)
    assert found is not None
    return found


def config(folder: Path, client: tor_network.Client, *, onion: dict[str, Any] | None = None, **keys: Any) -> Config:
    """A node that knows of nothing but one tor."""
    settings = TorSettings(**{"control": client.control, **(onion or {})})
    return Config(
        network="dev", data_dir=folder, tor="auto", only_net=("tor",), tor_daemon=settings, max_outbound=0, **keys
    )


async def until(is_so: Callable[[], object], each_s: float = 0.05) -> None:
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(each_s)


@contextlib.asynccontextmanager
async def reachable(*configs: Config) -> AsyncIterator[list[Node]]:
    """Nodes whose onion services are published."""
    async with contextlib.AsyncExitStack() as nodes:
        made = [await nodes.enter_async_context(Node(each)) for each in configs]
        for node in made:
            await until(lambda node=node: tor_of(node)["published"])
        yield made


def tor_of(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = node.routes.show()["tor"]
    return shown


def onion_of(node: Node) -> Address:
    (address,) = node.addresses
    assert address.host.endswith(".onion")
    return address


def test_two_nodes_that_know_only_onion_addresses_link_sync_and_pass_a_transaction(
    network: TorNetwork, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first, second = network.clients
        async with reachable(config(tmp_path / "a", first), config(tmp_path / "b", second)) as (alice, bob):
            async for _ in mine(alice, 12, 0, alice.now() + 60):
                pass
            peer = await bob.connect(onion_of(alice))
            assert peer.negotiated.flags.names.count("TorSupport") == 1
            assert peer.pattern == "NX"
            assert await bob.ping(peer) < 10
            await until(lambda: bob.relay.best_block()[1] == 12)
            assert bob.relay.best_block() == alice.relay.best_block()
            raw = filler_transaction(random.Random(1), 300)
            sent = bob.broadcast(raw, "private")
            await until(lambda: sent.id in alice.relay.transactions.mempool)
            (seen,) = alice.engine.describe(alice.now())
            assert (seen["face"], seen["inbound"], seen["address"]) == ("onion", True, "")
            assert str(onion_of(bob).endpoint) in {str(entry.endpoint) for entry in alice.assembly.book.entries()}

    run(scenario)


def test_two_peers_ride_circuits_of_their_own(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = network.clients
        nodes = (config(tmp_path / "a", first), config(tmp_path / "b", first), config(tmp_path / "c", second))
        async with reachable(*nodes) as (alice, bob, carol):
            for node in (alice, bob):
                await carol.connect(onion_of(node))
            async with TorControl.open(place(second.control)) as control:
                circuits = await control.circuits_by_target()
            ridden = [circuits[f"{onion_of(node).host}:19733"] for node in (alice, bob)]
            assert all(len(each) == 1 for each in ridden)
            assert ridden[0] != ridden[1]

    run(scenario)


@contextlib.asynccontextmanager
async def linked_onions(network: TorNetwork, folder: Path) -> AsyncIterator[tuple[Loaded, Loaded]]:
    """Two onion nodes; the second has dialled the first."""
    first, second = network.clients
    alice, bob = (Loaded(Node(config(folder / name, client))) for name, client in (("a", first), ("b", second)))
    async with alice.node, bob.node:
        for node in (alice.node, bob.node):
            await until(lambda node=node: tor_of(node)["published"])
        await bob.node.connect(onion_of(alice.node))
        yield alice, bob


def test_a_link_moves_under_load_through_tor_and_nothing_is_lost_or_doubled(
    network: TorNetwork, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with linked_onions(network, tmp_path) as (alice, bob):
            await until(alice.node.peers)
            await moves_under_load(bob, alice, (100, 3_000, 30_000, 0))
            assert (alice.row["face"], alice.row["address"]) == ("onion", ""), "and shows nothing that it did not"
            async with TorControl.open(place(network.clients[1].control)) as control:
                circuits = await control.circuits_by_target()
            assert len(circuits[f"{onion_of(alice.node).host}:19733"]) == 1, "a peer has one circuit of its own"

    run(scenario)


def test_where_a_link_through_tor_cannot_move_is_said_and_it_goes_on(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with linked_onions(network, tmp_path) as (alice, bob):
            with pytest.raises(UserError, match="is known"):
                await bob.call("rotate", peer=bob.link, carrier="tls")
            (failed,) = await bob.call("rotate", peer=bob.link, to="obscura://127.0.0.1:19733")
            assert failed["outcome"] == "failed"
            assert "another network" in failed["why"]
            (failed,) = await bob.call("rotate", peer=bob.link, to=str(onion_of(bob.node)))
            assert failed["outcome"] == "failed"
            bob.send(100)
            await until(lambda: alice.got == [0])

    run(scenario)


def test_an_exit_reaches_clearnet_and_other_credentials_another_circuit(network: TorNetwork) -> None:
    async def scenario() -> None:
        client = network.clients[0]
        async with await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            pairs = [Credentials("one", "x"), Credentials("one", "x"), Credentials("two", "x")]
            with contextlib.ExitStack() as open_ones:
                for pair in pairs:
                    sock = await socks5.connect(place(client.socks), "127.0.0.1", port, pair, timeout_s=60)
                    open_ones.enter_context(sock)
                async with TorControl.open(place(client.control)) as control:
                    circuits = await control.circuits_by_target()
            assert len(circuits[f"127.0.0.1:{port}"]) == 2  # one for each pair, shared by the two of one

    run(scenario)


def test_each_tor_is_killed_in_the_middle_of_the_sync_and_everything_comes_back(
    network: TorNetwork, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first, second = network.clients
        async with reachable(config(tmp_path / "a", first)) as (alice,):
            address = onion_of(alice)
            async for _ in mine(alice, BLOCKS, BLOCK_BYTES, alice.now() + 60):
                pass
            async with reachable(config(tmp_path / "b", second, connect=(str(address),))) as (bob,):
                await until(lambda: bob.relay.best_block()[1] > 0, 0.01)
                await asyncio.to_thread(second.end, signal.SIGKILL)  # that of who asks
                reached = bob.relay.best_block()[1]
                assert reached < BLOCKS
                await until(lambda: not bob.peers())
                second.start()
                await until(lambda: bob.relay.best_block()[1] > reached, 0.01)
                await asyncio.to_thread(first.end, signal.SIGKILL)  # that of who answers
                assert bob.relay.best_block()[1] < BLOCKS
                await until(lambda: tor_of(alice)["fault"] is not None)
                assert not tor_of(alice)["published"]
                await until(lambda: not bob.peers() and not alice.peers())
                first.start()
                await until(lambda: tor_of(alice)["published"])
                assert onion_of(alice) == address  # the same key
                # A manual peer: dialled for ever.
                await until(lambda: bob.relay.best_block() == alice.relay.best_block())
                await bob.ping(bob.peers()[0])

    run(scenario)


def test_proof_of_work_is_asked_for_and_the_service_is_reached(network: TorNetwork) -> None:
    async def scenario() -> None:
        first, second = network.clients
        async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
            target = place(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with TorControl.open(place(first.control)) as control:
                asked: list[str] = []
                ask = control.ask

                async def note(command: str) -> Any:
                    asked.append(command)
                    return await ask(command)

                control.ask = note  # type: ignore[method-assign]
                service = await control.add_onion(80, target)
                (added,) = [line for line in asked if line.startswith("ADD_ONION")]  # not asked again without it
                assert "PoWDefensesEnabled=1" in added
                host = f"{service.name}.onion"
                while True:  # until its descriptor is out
                    with contextlib.suppress(socks5.SocksFault):
                        (
                            await socks5.connect(place(second.socks), host, 80, Credentials("p", "w"), timeout_s=30)
                        ).close()
                        return
                    await asyncio.sleep(0.2)

    run(scenario)


def test_a_service_that_moved_is_found_again_after_the_stale_descriptor(
    network: TorNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obscura.daemon.tor.TOR_CONNECT_S", 26.0)  # tor itself would try for two minutes
    monkeypatch.setattr("obscura.daemon.tor.TOR_FIRST_TRY_S", 8.0)

    async def scenario() -> None:
        first, second = network.clients
        async with reachable(config(tmp_path / "b", second)) as (bob,):
            async with reachable(config(tmp_path / "a", first)) as (alice,):
                address = onion_of(alice)
                await bob.connect(address)
            with pytest.raises(Unreachable) as gone:  # bob's tor still has its descriptor
                await bob.connect(address)
            assert re.search(r"onion service.*(down|did not answer|may have just)", str(gone.value)), gone.value
            async with reachable(config(tmp_path / "a", second)) as (moved,):
                assert onion_of(moved) == address
                while True:
                    with contextlib.suppress(Unreachable):
                        await bob.ping(await bob.connect(address))
                        break

    run(scenario)


def test_an_absent_service_is_said_to_be_absent(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")  # RFC 8032, test 1
        host = Endpoint(Network.TORV3, key, 1).host_text
        async with reachable(config(tmp_path / "a", network.clients[0])) as (alice,):
            with pytest.raises(Unreachable, match="there is no such onion service now"):
                await alice.connect(f"obscura://{host}:19733")

    run(scenario)


def test_only_those_with_a_key_reach_a_service_that_admits_some(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = network.clients
        private, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        admitted = {"clients": (_base32(private.public_key().public_bytes_raw()),)}
        async with reachable(config(tmp_path / "a", first, onion=admitted)) as (alice,):
            address = onion_of(alice)
            async with reachable(config(tmp_path / "b", second)) as (bob,):
                with pytest.raises(Unreachable, match="admits only those who have a key"):
                    await bob.connect(address)
            wrong = {"client_keys": (f"{address.host}:{_base32(other.private_bytes_raw())}",)}
            async with reachable(config(tmp_path / "c", second, onion=wrong)) as (carol,):
                with pytest.raises(Unreachable, match="does not accept your key"):
                    await carol.connect(address)
            right = {"client_keys": (f"{address.host}:{_base32(private.private_bytes_raw())}",)}
            async with reachable(config(tmp_path / "d", second, onion=right)) as (dave,):
                await dave.ping(await dave.connect(address))

    run(scenario)


def test_a_wrong_cookie_and_a_foreign_key_are_said_to_be_so(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        client = network.clients[0]
        cookie = client.cookie.read_bytes()
        client.cookie.write_bytes(bytes(32))
        try:
            with pytest.raises(TorFault, match="does not know tor's cookie"):
                async with TorControl.open(place(client.control)):
                    pass
        finally:
            client.cookie.write_bytes(cookie)
        async with reachable(config(tmp_path / "a", client)) as (alice,):
            name = onion_of(alice).host
        kept = tmp_path / "a" / "dev" / "keys" / "onion.key"
        assert kept.stat().st_mode & 0o777 == 0o600
        other = "a" * 10 + name.removesuffix(".onion")[10:]
        kept.write_text(kept.read_text().replace(name.removesuffix(".onion"), other))
        async with Node(config(tmp_path / "a", client)) as alice:
            await until(lambda: "cannot be used" in str(tor_of(alice)["fault"]))

    run(scenario)


def test_an_own_tor_is_started_supervised_and_ended(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        managed = Config(
            network="dev",
            data_dir=tmp_path / "own",
            tor="managed",
            only_net=("tor",),
            tor_daemon=TorSettings(torrc=network.client_torrc),
            max_outbound=0,
        )
        async with reachable(managed) as (own,), reachable(config(tmp_path / "b", network.clients[1])) as (bob,):
            await bob.ping(await bob.connect(onion_of(own)))
            pid = tor_of(own)["pid"]
            os.kill(pid, signal.SIGKILL)  # our own tor's, by its id
            await until(lambda: tor_of(own)["pid"] not in (None, pid) and tor_of(own)["published"])
            while True:
                with contextlib.suppress(Unreachable):
                    await bob.ping(await bob.connect(onion_of(own)))
                    break
            pid = tor_of(own)["pid"]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(scenario)


def test_an_own_tor_ends_with_a_node_that_is_killed(network: TorNetwork, tmp_path: Path) -> None:
    words = ("--network", "dev", "--data-dir", str(tmp_path), "run", "--json", "--tor", "managed", "--only-net", "tor")
    process = subprocess.Popen(
        [sys.executable, "-m", "obscura.cli", *words, "--set", f"tor-daemon.torrc={network.client_torrc}"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        with Client(Path(facts["rpc"])) as client:
            while not client.call("status")["ways"]["tor"]["published"]:
                time.sleep(0.1)
            status = client.call("status")
        assert status["addresses"] == [f"obscura://{status['ways']['tor']['onion']}:19733"]
        pid = status["ways"]["tor"]["pid"]
        os.kill(pid, 0)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("tor lives on without its node")


# --- obscura doctor -----------------------------------------------------------------------------------------------------


async def wrong(config: Config, node: Node | None = None) -> dict[str, str]:
    """What the doctor calls wrong, by subject."""
    return {f.check: f.found for f in judge(await examine(config, node)) if f.state is State.WRONG}


def test_the_doctor_finds_a_healthy_node_healthy(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reachable(config(tmp_path / "a", network.clients[0])) as (alice,):
            found = {f.check: f for f in judge(await examine(alice.config, alice))}
            assert [f for f in found.values() if f.state is State.WRONG] == []
            assert "answers through the Tor network" in found["onion"].found
            assert "two circuits" in found["tor-circuits"].found
            assert "tor's consensus is valid now" in found["clock"].found
            assert "lets us in" in found["tor-control"].found

    run(scenario)


def test_the_doctor_names_what_is_wrong_with_tor(network: TorNetwork, tmp_path: Path) -> None:
    async def scenario() -> None:
        client = network.clients[0]
        cookie = client.cookie.read_bytes()
        client.cookie.write_bytes(bytes(32))
        try:
            assert "does not know tor's cookie" in (await wrong(config(tmp_path / "a", client)))["tor-control"]
        finally:
            client.cookie.write_bytes(cookie)
        with network.another("NoIsolateSOCKSAuth ExtendedErrors") as careless:
            keys = {"socks": careless.socks}
            async with reachable(config(tmp_path / "b", careless, onion=keys)) as (bob,):
                found = await wrong(bob.config, bob)
                assert set(found) == {"tor-isolation", "tor-circuits"}
                assert "one circuit" in found["tor-circuits"]
                await asyncio.to_thread(careless.end, signal.SIGKILL)
                await until(lambda: tor_of(bob)["fault"] is not None)
                down = await wrong(bob.config, bob)
                assert "no tor listens for control" in down["tor-control"]
                assert "no SOCKS proxy listens" in down["tor-socks"]
        closed = config(tmp_path / "c", client, onion={"control": "127.0.0.1:1", "socks": client.socks})
        assert set(await wrong(closed)) == {"tor-control"}  # SOCKS works, which is enough to reach others

    run(scenario)


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
