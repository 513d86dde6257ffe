"""What is kept of other nodes over a restart, and the commands that show and change it, on real nodes."""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obscura.daemon.config import Config
from obscura.daemon.neighbours import neighbour_settings
from obscura.daemon.node import Node
from obscura.daemon.peer_methods import peer_methods
from obscura.daemon.peerstore import PeerStore, decoded
from obscura.errors import ConfigError, UserError
from obscura.ledger.network import Network
from obscura.ledger.networks import BUILT_IN
from obscura.limits import MEMORY_BUDGET, SEND_QUEUE_MAX
from obscura.node.assembly import Neighbours, Settings, assemble
from obscura.node.face import Face
from obscura.wire.address import CarrierNumber
from obscura.wire.messages.blocks import Block
from peer_examples import UNIX, Clock, endpoint, key
from playbook import Host, visit
from test_book_asmap import ROUTES, asmap


def neighbours(seed: int = 1) -> Neighbours:
    return assemble(Settings(bytes(32)), random.Random(seed), Clock(), 0.0).neighbours


def known(near: Neighbours) -> Neighbours:
    """Some places, an anchor, a ban."""
    for n in range(50):
        entry = near.book.learn(endpoint(f"20.{n}.0.1"), CarrierNumber.TLS, Face.CLEARNET, bytes([n]), UNIX)
        if entry is None:
            continue  # its place is taken: where the book's secret is drawn anew, that happens
        near.book.told_key(entry, key(n), b"x", is_own_word=False)
        if n < 10:
            near.book.good(entry.place, key(n))
    near.slots.restore_anchors([(endpoint("20.1.0.1"), CarrierNumber.TLS)])
    near.bans.add("30.0.0.0/16")
    near.bans.add("31.0.0.1", 60.0)
    return near


def test_book_anchors_and_bans_survive(tmp_path: Path) -> None:
    first, path = known(neighbours()), tmp_path / "peers.dat"
    store = PeerStore(path, first)
    store.write(store.encode())
    again = neighbours(seed=2)
    PeerStore(path, again).load()
    assert list(again.book.entries()) == list(first.book.entries())
    assert again.book.sizes == (40, 10)
    assert again.slots.anchors == first.slots.anchors
    assert again.bans.in_force() == first.bans.in_force()
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_a_node_begins_anew_and_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PeerStore(tmp_path / "peers.dat", neighbours()).load()
    assert caplog.records == []


def test_a_ban_and_its_end_are_on_the_disk_at_once(tmp_path: Path) -> None:
    near, written = neighbours(), queue.SimpleQueue[list[str]]()

    class Saying(PeerStore):
        def write(self, raw: bytes) -> None:
            super().write(raw)
            written.put([ban.subject for ban in decoded(raw).bans])

    async def scene() -> None:
        async with Saying(tmp_path / "peers.dat", near).kept():
            near.bans.add("30.0.0.0/16")
            assert await asyncio.to_thread(written.get, timeout=20) == ["30.0.0.0/16"]
            near.bans.remove("30.0.0.0/16")
            assert await asyncio.to_thread(written.get, timeout=20) == []

    asyncio.run(scene())


RAW = PeerStore(Path("unused"), known(neighbours())).encode()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(RAW) - 1), change=st.integers(1, 255), cut=st.booleans())
def test_any_damage_is_noticed(at: int, change: int, cut: bool) -> None:
    damaged = RAW[:at] if cut else RAW[:at] + bytes([RAW[at] ^ change]) + RAW[at + 1 :]
    with pytest.raises(ValueError):
        decoded(damaged)


@pytest.mark.parametrize("raw", [b"", b"x" * 100, RAW[:-1], b"obscura peers 2\n" + RAW[16:], RAW + b"\0"])
def test_a_file_that_cannot_be_used_is_set_aside_and_not_fatal(
    tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path, near = tmp_path / "peers.dat", neighbours()
    path.write_bytes(raw)
    PeerStore(path, near).load()
    assert len(near.book) == 0
    assert not path.exists()
    assert (tmp_path / "peers.dat.damaged").read_bytes() == raw
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "peers.dat.damaged" in caplog.text


def test_a_disk_that_takes_nothing_costs_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = PeerStore(tmp_path / "gone" / "peers.dat", neighbours())
    store.write(store.encode())
    assert "cannot be written" in caplog.text


def test_two_nodes_find_each_other_again_after_a_restart_without_being_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async def meet(one: Node, two: Node) -> None:
            told = [(node, node.events({"peer-connected"})) for node in (one, two)]
            for node, events in told:
                if not node.peers():
                    await anext(aiter(events))

        def config(name: str, host: str) -> Config:
            return Config(network="dev", data_dir=tmp_path / name, listen=(f"{host}:25733",), privacy="standard")

        async with Node(config("one", "127.30.0.1")) as one, Node(config("two", "127.30.0.2")) as two:
            one.assembly.book.add_seeds([two.addresses[0]], signed=False, face=Face.CLEARNET, now=0.0)
            entry = one.assembly.book.get((two.addresses[0].endpoint, CarrierNumber.PLAIN))
            entry.feelers_only = False
            one.apply(())
            async with asyncio.timeout(30):
                await meet(one, two)
        async with Node(config("one", "127.30.0.1")) as one, Node(config("two", "127.30.0.2")) as two:
            rows = peer_methods(one)["addresses.list"](table="tried")
            assert [(row["address"], row["key"]) for row in rows] == [("127.30.0.2:25733", "verified")]
            async with asyncio.timeout(30):
                await meet(one, two)

    asyncio.run(scene())


def test_what_was_learnt_of_a_seed_of_the_network_outlives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The seeds come into the book after what the disk has of it: before, they stood in cells of a secret that was replaced."""
    dev, seed = BUILT_IN["dev"], "obscura://127.30.0.4:25734"
    monkeypatch.setitem(BUILT_IN, "dev", Network(dev.name, dev.ledger, dev.port, (seed,)))

    def config(name: str, host: str) -> Config:
        return Config(network="dev", data_dir=tmp_path / name, listen=(f"{host}:25734",), privacy="standard")

    async def scene() -> None:
        for is_again in (False, True):
            async with Node(config("two", "127.30.0.4")), Node(config("one", "127.30.0.3")) as one:
                rows = peer_methods(one)["addresses.list"](table="tried")
                assert [row["address"] for row in rows] == ["127.30.0.4:25734"] * is_again
                async with asyncio.timeout(30):
                    while not one.peers():  # noqa: ASYNC110  # the event may be over already
                        await asyncio.sleep(0.05)
                assert len(peer_methods(one)["addresses.list"](table="tried")) == 1

    asyncio.run(scene())
    assert "Error" not in caplog.text


def test_the_methods_list_filter_ban_and_lift(tmp_path: Path) -> None:
    async def scene() -> None:
        quiet = Config(network="dev", data_dir=tmp_path, listen=("127.0.0.1:0",), max_outbound=0)
        async with Node(quiet) as node:
            known(node.assembly.neighbours)
            methods = peer_methods(node)
            listed = methods["addresses.list"]()
            assert 40 < len(listed) <= 50, "now and then two meet in one place of a table"
            assert len(methods["addresses.list"](table="tried", face="clearnet", contains="20.", limit=4)) == 4
            assert methods["addresses.list"](face="onion") == []
            with pytest.raises(UserError, match="neither new nor tried"):
                methods["addresses.list"](table="old")
            with pytest.raises(UserError, match="face 'tor' is none of clearnet, onion, i2p"):
                methods["addresses.list"](face="tor")
            info = methods["addresses.info"]()
            assert info["tried"] == sum(row["table"] == "tried" for row in listed) > 4
            assert (info["new"] + info["tried"], info["anchors"]) == (len(listed), [])
            assert methods["bans.add"]("40.1.2.3/16", 60)["subject"] == "40.1.0.0/16"
            assert {row["subject"] for row in methods["bans.list"]()} >= {"40.1.0.0/16", "30.0.0.0/16"}
            assert methods["bans.remove"]("40.1.0.0/16")
            with pytest.raises(UserError, match="ban list"):
                methods["bans.remove"]("40.1.0.0/16")

    asyncio.run(scene())


def test_an_asmap_of_the_configuration_is_read_checked_and_used(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(asmap(ROUTES))
    bad.write_bytes(b"\xff" * 9)
    dev = BUILT_IN["dev"]
    assert neighbour_settings(Config(data_dir=tmp_path, asmap=good), dev)["asmap"] == asmap(ROUTES)
    for path in (bad, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="asmap"):
            neighbour_settings(Config(data_dir=tmp_path, asmap=path), dev)


def test_over_the_memory_budget_the_peer_that_makes_us_hold_most_goes() -> None:
    host = Host()
    guests = [visit(host, seed=n, remote=f"127.0.0.{n}") for n in range(1, 6)]
    host.engine._memory._budget = 12_000_000
    for n, guest in enumerate(guests):
        host.engine.writable(guest.link, False, host.now)  # it takes nothing
        for _ in range(2 if n == 2 else 1):
            host.engine.send(guest.link, Block(bytes(2_500_000)), host.now)
        host.turn()
    links = [guest.link for guest in guests if guest.link in host.assembly.core.peers]
    assert links == [guest.link for n, guest in enumerate(guests) if n != 2]
    assert SEND_QUEUE_MAX < MEMORY_BUDGET


def test_a_slow_write_does_not_replace_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is stopped while its regular write is under way: what is on the disk afterwards is the newest."""
    is_writing, may_write = threading.Event(), threading.Event()
    states = iter([b"regular", b"last"])

    class Slow(PeerStore):
        def load(self) -> None:
            pass

        def encode(self) -> bytes:
            return next(states)

        def write(self, raw: bytes) -> None:
            if raw == b"regular":
                is_writing.set()
                assert may_write.wait(20)
            super().write(raw)

    async def scene() -> None:
        async with Slow(tmp_path / "peers.dat", None).kept():  # type: ignore[arg-type]
            await asyncio.to_thread(is_writing.wait, 20)
            asyncio.get_running_loop().call_later(0.05, may_write.set)

    monkeypatch.setattr("obscura.daemon.peerstore.PEERS_SAVED_S", 0.0)
    asyncio.run(scene())
    assert (tmp_path / "peers.dat").read_bytes() == b"last"
