"""Nodes with a SAM bridge that a test plays: the I2P face, destinations, what is told where, losses."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from obscura.daemon.config import Config
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.mining import mine
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.handshake.features import BUILT, BUILT_ANONYMOUS, Feature, Privacy
from obscura.ledger.mining import filler_transaction
from obscura.limits import I2P_ACCEPTS
from obscura.node.face import Face
from obscura.wire.address import Address, CarrierNumber
from sam_fakes import FakeSam, private_destination

DEADLINE_S = 25.0
NOBODY = private_destination(99).public
NAME = f"obscura://{NOBODY.host}:0"


def run(scenario: Callable[[], Awaitable[None]], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that a test plays makes sessions at once, deletes nothing later, and knows of no leases."""
    for name in ("I2P_CLEANUP_S", "I2P_LEASES_S"):
        monkeypatch.setattr(f"obscura.daemon.i2p.{name}", 0.0)


def config(folder: Path, bridge: FakeSam, **keys: Any) -> Config:
    router = I2pSettings(sam=str(bridge.place), **keys.pop("router", {}))
    usual = {"network": "dev", "i2p": "auto", "max_outbound": 0, "only_net": ("i2p",)}
    return Config(data_dir=folder, i2p_router=router, **{**usual, **keys})


def shown(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.routes.show()["i2p"]
    return found


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.005)


async def ready(*nodes: Node) -> None:
    for node in nodes:
        await until(lambda node=node: shown(node)["connected"] and shown(node)["published"])


def own(node: Node) -> Address:
    (found,) = [address for address in node.addresses if address.host.endswith(".i2p")]
    return found


# --- Links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_link_over_i2p_has_the_i2p_face_at_both_ends(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge)) as alice,
            Node(config(tmp_path / "b", bridge)) as bob,
        ):
            await ready(alice, bob)
            there = own(alice)
            assert (there.key, there.port, there.carrier) == (None, 0, CarrierNumber.PLAIN)  # it authenticates itself
            peer = await bob.connect(there)
            await bob.ping(peer)
            assert peer.pattern == "NX"
            assert {"I2PSupport", "I2P"} <= set(peer.negotiated.flags.names)
            assert (peer.negotiated.peer.observed, peer.negotiated.peer.timestamp % 300) == (None, 0)
            (inbound,) = alice.peers()
            assert inbound.remote is None  # what connects is the router, and nobody to blame
            assert inbound.face is peer.face is Face.I2P
            await until(lambda: len(alice.assembly.book) == 1)  # bob's own address
            (told,) = alice.assembly.book.entries()
            assert (str(told.endpoint), told.face) == (str(own(bob).endpoint), Face.I2P)
            assert shown(bob)["destinations_dialled"] == shown(alice)["destinations_linked"] == 1
            bob.disconnect(peer)
            await until(lambda: shown(alice)["destinations_linked"] == 0)
            await bob.connect(there)
            lookups = [line for line in bridge.asked if line == f"NAMING LOOKUP NAME={there.host}"]
            assert len(lookups) == 2  # alice's look for herself, bob's first dial; the second one knew

    run(scenario, loop)


def test_who_is_dialled_does_not_learn_the_lasting_destination(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge)) as alice,
            Node(config(tmp_path / "b", bridge)) as bob,
        ):
            await ready(alice, bob)
            for _ in range(2):
                await bob.connect(own(alice))
            origins = {origin for origin, _ in bridge.dialled}
            assert len(origins) == 1
            assert not origins & {own(alice).host, own(bob).host}

    run(scenario)


def test_a_disk_that_takes_no_key_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path, bridge)) as node:
            await until(lambda: "cannot be kept in" in str(shown(node)["fault"]))
            assert str(shown(node)["fault"]).endswith("i2p.key: no space left on device")

    monkeypatch.setattr("obscura.daemon.i2p.write_atomic", write)
    run(scenario)


def test_fresh_destinations_end_with_their_links(tmp_path: Path) -> None:
    async def scenario() -> None:
        fresh = {"fresh": True, "service": False}
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge)) as alice,
            Node(config(tmp_path / "b", bridge, router=fresh)) as bob,
        ):
            await ready(alice)
            links = [await bob.connect(own(alice)) for _ in range(3)]
            assert len({origin for origin, _ in bridge.dialled}) == 3
            assert len(bridge.sessions) == 2 + 3
            for link in links:
                bob.disconnect(link)
            await until(lambda: len(bridge.sessions) == 2)
            with pytest.raises(Unreachable):
                await bob.connect(NAME)
            assert (shown(bob)["inbound"], shown(bob)["outbound"]) == (None, None)

    run(scenario)


def test_an_own_transaction_takes_i2p_where_nobody_comes_in(tmp_path: Path) -> None:
    """Bob has no inbound edge: the first hop is a stream of a passing destination, so nobody can know, and the receipt agrees."""

    async def scenario() -> None:
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge, only_net=(), listen=("127.0.0.1:0",))) as alice,
            Node(config(tmp_path / "c", bridge, only_net=(), listen=("127.0.0.1:0",))) as carol,
            Node(config(tmp_path / "b", bridge, only_net=(), listen=(), router={"service": False})) as bob,
        ):
            await ready(alice, carol)
            async for _ in mine(alice, 1, 0, alice.now() + 20):
                pass
            clear = next(address for address in carol.addresses if address.host == "127.0.0.1")
            await bob.connect(clear)
            await bob.connect(own(alice))
            sent = bob.broadcast(filler_transaction(random.Random(1), 300), "private")
            receipts = []
            async for receipt in sent:
                receipts.append(receipt)
                if receipt.stage.value == "stemmed":
                    break
            assert [each.first_hop_can_know for each in receipts] == [False, False]

    run(scenario)


def test_each_face_has_its_key_and_tells_its_own_addresses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge:
            both = config(tmp_path / "a", bridge, only_net=(), listen=("127.0.0.1:0",))
            async with Node(both) as alice:
                await ready(alice)
                told = alice.assembly.neighbours.own
                assert [a.host for a in told.announced(Face.I2P)] == [own(alice).host]
                assert [a.host for a in told.announced(Face.CLEARNET)] == ["127.0.0.1"]
                assert told.announced(Face.ONION) == []
                keys = {path.read_bytes() for path in alice.data_dir.keys.glob("plain-*.key")}
                assert len(keys) == 2
                assert {entry.stat().st_mode & 0o777 for entry in alice.data_dir.keys.iterdir()} == {0o600}
                async with Node(Config(network="dev", data_dir=tmp_path / "b", listen=(), max_outbound=0)) as bob:
                    clear = next(address for address in alice.addresses if address.host == "127.0.0.1")
                    names = (await bob.connect(clear)).negotiated.flags.names
                    assert not {"I2PSupport", "I2P", "TorSupport", "Tor"} & set(names)

    run(scenario)


def test_an_unlisted_destination_answers_those_with_its_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obscura.connection.HANDSHAKE_S", 2.0)  # whoever has no key waits in vain

    async def scenario() -> None:
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge, unlisted=True)) as alice,
            Node(config(tmp_path / "b", bridge)) as bob,
        ):
            await ready(alice, bob)
            there = own(alice)
            assert there.key is not None
            assert (await bob.connect(there)).pattern == "NK"
            wrong = Address(bytes(31) + b"\x09", there.host, 0)
            with pytest.raises(Unreachable, match="did not prove its key"):
                await bob.connect(wrong)
            assert alice.assembly.neighbours.own.announced(Face.I2P) == []

    run(scenario)


def test_a_name_of_the_routers_address_book_is_looked_up_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge)) as alice,
            Node(config(tmp_path / "b", bridge)) as bob,
        ):
            await ready(alice, bob)
            (key,) = [each for each in bridge.sessions.values() if each.host == own(alice).host]
            bridge.names["alice.i2p"] = key
            await bob.ping(await bob.connect("obscura://alice.i2p:0"))
            with pytest.raises(Unreachable, match=r"stranger\.i2p:0: there is no such I2P destination"):
                await bob.connect("obscura://stranger.i2p:0")

    run(scenario)


# --- What goes wrong ------------------------------------------------------------------------------------------------


def test_sessions_come_back_with_the_same_name_after_each_loss(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            news = alice.events(["i2p-lost", "i2p-published"])
            await ready(alice)
            name = own(alice)
            for lose in (bridge.lose_sessions, bridge.hang_up):
                lose()
                kinds: list[str] = []
                while kinds[-3:].count("i2p-lost") != 2 or kinds[-1] != "i2p-published":
                    kinds.append((await anext(news))["kind"])
                await ready(alice)
                assert alice.addresses == (name,)
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            assert own(alice) == name  # over a restart of both

    run(scenario)


def test_the_lasting_destination_waits_until_its_old_leases_can_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obscura.daemon.i2p.I2P_LEASES_S", 3_600.0)

    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            news = alice.events(["i2p-ready"])
            bridge.hang_up()
            assert (await anext(news))["which"] == "outbound", "who is dialled does not wait for it"
            state = shown(alice)
            assert (state["inbound"]["state"], state["published"]) == ("waiting to try again", False)
            assert state["fault"] == "the I2P router ended the session"

    run(scenario)


def test_a_forgotten_session_is_made_again_though_nobody_hung_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            news = alice.events(["i2p-lost", "i2p-ready"])
            await ready(alice)
            for name in [name for name, each in bridge.sessions.items() if each.host != own(alice).host]:
                del bridge.sessions[name]
            bridge.names[NOBODY.host] = NOBODY
            with pytest.raises(Unreachable, match="does not know our session"):
                await alice.connect(NAME)
            async for event in news:
                if event == {"kind": "i2p-ready", "which": "outbound", "took_s": event.get("took_s")}:
                    break

    run(scenario)


def test_a_time_without_descriptors_does_not_close_the_door_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers on clearnet can use them all up for a moment; who waits for I2P streams then has to try again."""
    monkeypatch.setattr("obscura.daemon.i2p.I2P_ACCEPT_AGAIN_S", 0.01)
    refused: list[int] = []
    is_full = False

    def made(*words: int) -> socket.socket:
        if is_full:
            refused.append(1)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return socket.socket(*words)

    async def scenario() -> None:
        nonlocal is_full
        async with (
            FakeSam().running() as bridge,
            Node(config(tmp_path / "a", bridge)) as alice,
            Node(config(tmp_path / "b", bridge)) as bob,
        ):
            await ready(alice, bob)
            monkeypatch.setattr("obscura.transport.sam.socket", SimpleNamespace(**{**vars(socket), "socket": made}))
            is_full = True
            bridge.lose_accepts()
            await until(lambda: len(refused) >= 2 * I2P_ACCEPTS)  # of both nodes, every one
            is_full = False
            await until(lambda: bridge.accepts == 2 * I2P_ACCEPTS)
            assert (await bob.connect(own(alice))).face is Face.I2P

    run(scenario)


def test_a_router_that_comes_later_is_found_and_said_to_be_missing_until_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge:
            port = bridge.place.port
        async with Node(config(tmp_path / "a", bridge)) as alice:
            await until(lambda: "no I2P router listens for SAM" in str(shown(alice)["fault"]))
            with pytest.raises(Unreachable, match=r"I2P is not there: .*apt install i2pd"):
                await alice.connect(NAME)
            async with bridge.running(port):
                await ready(alice)

    run(scenario)


def test_progress_is_shown_while_tunnels_are_built(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow = FakeSam(lambda line: " " if line.startswith("SESSION") else None)  # the answer does not come
        async with slow.running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await until(lambda: shown(alice)["inbound"]["state"] == "building tunnels")
            seen = shown(alice)
            assert (seen["connected"], seen["fault"], seen["published"]) == (False, None, False)
            assert alice.addresses == ()

    run(scenario)


@pytest.mark.parametrize("content", ["", "AAAA", "nonsense\nmore", private_destination(1, kind=1).text])
def test_a_spoilt_key_is_kept_and_named(content: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        keys = tmp_path / "a" / "dev" / "keys"
        keys.mkdir(parents=True)
        (keys / "i2p.key").write_text(content)
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await until(lambda: "i2p.key cannot be used: restore it" in str(shown(alice)["fault"]))
            assert (keys / "i2p.key").read_text() == content
            assert not any(line.startswith("DEST GENERATE") for line in bridge.asked)

    run(scenario)


@pytest.mark.parametrize("garbage", ["220 mail.example ESMTP\n", "x" * 9000, "HELLO REPLY RESULT=OK VERSION=3.0\n" * 3])
def test_a_local_port_that_speaks_something_else_does_no_harm(garbage: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            FakeSam(lambda line: garbage).running() as bridge,
            Node(config(tmp_path / "a", bridge)) as alice,
        ):
            await until(lambda: "is it the SAM bridge of an I2P router?" in str(shown(alice)["fault"]))
            with pytest.raises(Unreachable):
                await alice.connect(NAME)
            assert alice.addresses == ()

    run(scenario)


def test_a_dial_says_what_the_router_says_and_tries_a_known_destination_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obscura.daemon.i2p.I2P_AGAIN_STREAM_S", 0.0)

    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            with pytest.raises(Unreachable, match="there is no such I2P destination now"):
                await alice.connect(NAME)
            bridge.names[NOBODY.host] = NOBODY
            with pytest.raises(Unreachable, match="cannot be reached now"):
                await alice.connect(NAME)
            assert sum(line.startswith("STREAM CONNECT") for line in bridge.asked) == 2

    run(scenario)


def test_ok_of_the_router_is_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """i2pd says OK before the peer has accepted: without an answer the handshake's own time-out ends it."""
    monkeypatch.setattr("obscura.connection.HANDSHAKE_S", 0.2)

    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            bridge.names[NOBODY.host] = bridge.sessions["silent"] = NOBODY  # a session that accepts nothing
            with pytest.raises(Unreachable):
                await alice.connect(NAME)
            assert alice.peers() == []

    run(scenario)


@pytest.mark.parametrize("key", [None, bytes(31) + b"\1"], ids=["without a key", "with one"])
def test_after_an_unanswered_stream_sessions_apart_are_tried_until_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bytes | None
) -> None:
    """The router knows an old LeaseSet under the session of before, and a new session may miss the new one at first."""
    monkeypatch.setattr("obscura.connection.HANDSHAKE_S", 0.2)
    asked: list[str] = []

    def answers(line: str) -> str | None:
        if line.startswith("STREAM CONNECT"):
            asked.append(line.partition("ID=")[2].partition(" ")[0])
            if 1 < len(asked) < 4:
                return "STREAM STATUS RESULT=CANT_REACH_PEER\n"
        return None

    async def scenario() -> None:
        async with FakeSam(answers).running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            bridge.names[NOBODY.host] = bridge.sessions["silent"] = NOBODY  # a session that accepts nothing
            for _ in range(5):
                with pytest.raises(Unreachable):
                    await alice.connect(Address(key, NOBODY.host, 0))
            assert len(set(asked)) == len(asked) == 5  # the common session, then one after the other of its own

    run(scenario)


def test_a_destination_that_the_router_still_had_is_given_back_and_asked_for_again(tmp_path: Path) -> None:
    """i2pd 2.45 deletes it seconds after its old session ended, under the new session that got it at once."""

    async def scenario() -> None:
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            made = [line for line in bridge.asked if line.startswith("SESSION CREATE") and "TRANSIENT" not in line]
            assert len(made) == 2
        async with FakeSam(tunnels_s=0.3).running() as bridge, Node(config(tmp_path / "a", bridge)) as alice:
            await ready(alice)
            made = [line for line in bridge.asked if line.startswith("SESSION CREATE") and "TRANSIENT" not in line]
            assert len(made) == 1

    run(scenario)


def test_tunnels_are_as_configured(tmp_path: Path) -> None:
    async def scenario() -> None:
        wanted = {"inbound_length": 2, "outbound_length": 1, "inbound_quantity": 4, "outbound_quantity": 5}
        async with FakeSam().running() as bridge, Node(config(tmp_path / "a", bridge, router=wanted)) as alice:
            await ready(alice)
            made = [line for line in bridge.asked if line.startswith("SESSION CREATE")]
            for line in made:
                assert {"inbound.length=2", "outbound.length=1", "inbound.quantity=4", "outbound.quantity=5"} <= set(
                    line.split()
                )
                assert "i2cp.leaseSetEncType=4" in line.split()
            assert sum("DESTINATION=TRANSIENT SIGNATURE_TYPE=7" in line for line in made) == 1
            accepts = sum(line.startswith("STREAM ACCEPT") for line in bridge.asked)
            assert accepts == 4  # several at once

    run(scenario)


def test_bits_are_set_on_links_of_anonymity_networks_only() -> None:
    assert BUILT_ANONYMOUS.has(Feature.I2PSupport, Privacy.I2P)
    assert not BUILT.has(Feature.I2PSupport)
    assert not BUILT.has(Privacy.I2P)
