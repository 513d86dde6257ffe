"""Nodes with a tor that a test plays: the onion face, circuits, what is announced where, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import obscura.daemon.tor
from obscura.daemon.config import Config
from obscura.daemon.datadir import write_atomic
from obscura.daemon.node import Node
from obscura.daemon.tor_process import TorProcess
from obscura.daemon.ways import TorSettings
from obscura.errors import AddressError, Unreachable
from obscura.node.face import Face
from obscura.transport import socks5
from obscura.transport.tor import TorFault
from obscura.wire.address import Address, Endpoint, Network
from tor_fakes import FakeSocks, FakeTor

DEADLINE_S = 20.0
ONION = Endpoint(Network.TORV3, hashlib.sha256(b"nobody").digest(), 19733)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


def onion_port(tor: FakeTor, address: Address) -> int:
    """Where the onion service of an address leads."""
    words = tor.onions[address.host.removesuffix(".onion")]
    return int(words.rpartition("127.0.0.1:")[2].split()[0])


def shown(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.routes.show()["tor"]
    return found


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.005)


async def published(node: Node) -> None:
    await until(lambda: shown(node)["published"])


def onion_of(node: Node) -> Address:
    (found,) = [address for address in node.addresses if address.host.endswith(".onion")]
    return found


@contextlib.asynccontextmanager
async def tor_here(folder: Path) -> AsyncIterator[tuple[FakeTor, FakeSocks]]:
    """A tor with a cookie."""
    cookie = folder / "cookie"
    cookie.write_bytes(bytes(range(32)))
    async with FakeSocks(methods=(2,)).running() as proxy, FakeTor(cookie, socks=proxy.place).running() as tor:
        yield tor, proxy


def config(folder: Path, tor: FakeTor, **keys: Any) -> Config:
    onion = {"control": str(tor.place), **keys.pop("onion", {})}
    usual = {"network": "dev", "tor": "auto", "max_outbound": 0, "only_net": ("tor",)}
    return Config(data_dir=folder, tor_daemon=TorSettings(**onion), **{**usual, **keys})


def test_a_disk_that_takes_no_key_is_said_and_makes_no_new_address_at_each_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_full = True

    def write(path: Path, data: bytes) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data)

    async def scenario() -> None:
        nonlocal is_full
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as node:
            await tor.until(lambda: tor.added >= 2)
            await until(lambda: str(shown(node)["fault"]).startswith("the onion service's key cannot be kept in"))
            assert "no space left" in shown(node)["fault"].lower()
            is_full = False
            await published(node)
            assert (
                len({line.partition(" Port")[0] for line in tor.asked if line.startswith("ADD_ONION ED25519-V3:")}) == 1
            )
            assert sum(line.startswith("ADD_ONION NEW") for line in tor.asked) == 1

    monkeypatch.setattr(obscura.daemon.tor, "write_atomic", write)
    monkeypatch.setattr(obscura.daemon.tor, "TOR_AGAIN_S", (0.05, 0.1))
    run(scenario)


def test_a_client_key_that_tor_refuses_costs_neither_the_others_nor_the_own_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A filter before the control port, or a tor before 0.4.3, knows no ONION_CLIENT_AUTH_ADD."""
    others = [Endpoint(Network.TORV3, hashlib.sha256(bytes([n])).digest(), 1).host_text for n in range(2)]
    keys = tuple(f"{host}:{'b' * 51}a" for host in others)

    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _):
            refused = f"ONION_CLIENT_AUTH_ADD {others[0].removesuffix('.onion')}"
            tor.answers = lambda line: "510 Command filtered" if line.startswith(refused) else None
            async with Node(config(tmp_path / "a", tor, onion={"client_keys": keys})) as node:
                await published(node)
                assert shown(node)["connected"]
                assert sum(line.startswith("ONION_CLIENT_AUTH_ADD") for line in tor.asked) == 2
        assert "key 1 of tor-daemon.client-keys: tor answers: Command filtered" in caplog.text
        assert others[0][:56] not in caplog.text

    run(scenario)


# --- Links ----------------------------------------------------------------------------------------------------------


def test_a_link_over_an_onion_address_has_the_onion_face_at_both_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            tor_here(tmp_path) as (tor, proxy),
            Node(config(tmp_path / "a", tor)) as alice,
            Node(config(tmp_path / "b", tor)) as bob,
        ):
            await published(alice)
            await published(bob)
            there = onion_of(alice)
            assert (there.key, there.port) == (None, alice.network.port)  # it authenticates itself
            proxy.targets[f"{there.host}:{there.port}"] = ("127.0.0.1", onion_port(tor, there))
            peer = await bob.connect(there)
            await bob.ping(peer)
            assert peer.pattern == "NX"
            assert {"TorSupport", "Tor"} <= set(peer.negotiated.flags.names)
            assert peer.negotiated.peer.observed is None
            (inbound,) = alice.peers()
            assert inbound.remote is None  # what connects is tor, and nobody to blame
            assert inbound.face is peer.face is Face.ONION
            await until(lambda: len(alice.assembly.book) == 1)  # bob's own address
            (told,) = alice.assembly.book.entries()
            assert (str(told.endpoint), told.face) == (str(onion_of(bob).endpoint), Face.ONION)
            await bob.connect(there)
            users = [user for _, user, _ in proxy.asked]
            assert len(set(users)) == len(users) == 2  # a circuit of its own for each

    run(scenario)


def test_the_listener_behind_the_service_is_no_clearnet_listener(tmp_path: Path) -> None:
    """Who finds the port on the machine itself, or forwards clearnet to it, gets no link: the face is part of the prologue."""

    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await published(alice)
            port = onion_port(tor, onion_of(alice))
            async with Node(Config(network="dev", data_dir=tmp_path / "b", listen=(), max_outbound=0)) as bob:
                with pytest.raises(Unreachable):
                    await bob.connect(f"127.0.0.1:{port}")
            assert alice.peers() == []

    run(scenario)


def test_each_face_has_its_key_and_tells_its_own_addresses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _):
            both = config(tmp_path / "a", tor, only_net=(), listen=("127.0.0.1:0",), unlisted=False)
            async with Node(both) as alice:
                await published(alice)
                own = alice.assembly.neighbours.own
                assert [a.host for a in own.announced(Face.ONION)] == [onion_of(alice).host]
                assert [a.host for a in own.announced(Face.CLEARNET)] == ["127.0.0.1"]
                keys = {path.read_bytes() for path in alice.data_dir.keys.glob("plain-*.key")}
                assert len(keys) == 2
                assert {entry.stat().st_mode & 0o777 for entry in alice.data_dir.keys.iterdir()} == {0o600}

    run(scenario)


def test_an_unlisted_service_answers_those_with_its_key_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            tor_here(tmp_path) as (tor, proxy),
            Node(config(tmp_path / "a", tor, unlisted=True)) as alice,
            Node(config(tmp_path / "b", tor)) as bob,
        ):
            await published(alice)
            there = onion_of(alice)
            assert there.key is not None
            proxy.targets[f"{there.host}:{there.port}"] = ("127.0.0.1", onion_port(tor, there))
            assert (await bob.connect(there)).pattern == "NK"
            assert alice.assembly.neighbours.own.announced(Face.ONION) == []

    run(scenario)


def test_tls_to_a_known_key_goes_through_an_exit(tmp_path: Path) -> None:
    async def scenario() -> None:
        listening = Config(network="dev", data_dir=tmp_path / "a", listen=("127.0.0.1:0?carrier=tls",), max_outbound=0)
        async with tor_here(tmp_path) as (tor, proxy), Node(listening) as alice:
            (own,) = alice.addresses
            proxy.targets["203.0.113.5:443"] = proxy.targets["node.example:443"] = ("127.0.0.1", own.port)
            async with Node(config(tmp_path / "b", tor, listen=("127.0.0.1:0",))) as bob:
                for host in ("203.0.113.5", "node.example"):
                    peer = await bob.connect(Address(own.key, host, 443, own.carrier))
                    assert (peer.pattern, peer.face) == ("NK", Face.CLEARNET)
                    assert alice.peers()[-1].negotiated.peer.timestamp % 300 == 0
                    await bob.ping(peer)
                told = bob.assembly.neighbours.own.announced(Face.CLEARNET)
                assert told == []  # what the exit hides is not told
            assert [host for host, *_ in proxy.asked] == ["203.0.113.5:443", "node.example:443"]

    run(scenario)


def test_a_proxy_that_is_not_tor_carries_clearnet(tmp_path: Path) -> None:
    async def scenario() -> None:
        listening = Config(network="dev", data_dir=tmp_path / "a", listen=("127.0.0.1:0?carrier=tls",), max_outbound=0)
        async with FakeSocks(methods=(0,)).running() as proxy, Node(listening) as alice:
            (own,) = alice.addresses
            proxy.targets["203.0.113.5:443"] = ("127.0.0.1", own.port)
            keys = Config(network="dev", data_dir=tmp_path / "b", listen=(), proxy=str(proxy.place), max_outbound=0)
            async with Node(keys) as bob:
                await bob.ping(await bob.connect(Address(own.key, "203.0.113.5", 443, own.carrier)))
                with pytest.raises(AddressError, match="tor is not used"):
                    await bob.connect(f"obscura://{ONION}")

    run(scenario)


# --- What goes wrong ------------------------------------------------------------------------------------------------


def test_the_service_comes_back_with_its_name_after_tor_was_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            news = alice.events(["tor-lost", "onion-published"])
            await published(alice)
            name = onion_of(alice)
            tor.hang_up()
            kinds: list[str] = []
            while kinds[-2:] != ["tor-lost", "onion-published"]:
                kinds.append((await anext(news))["kind"])
            assert alice.addresses == (name,)
            assert list(tor.onions) == [name.host.removesuffix(".onion")]
            assert tor.added == 2
        assert tor.onions == {}  # gone with the node
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await published(alice)
            assert onion_of(alice) == name  # over a restart of both

    run(scenario)


def test_a_tor_that_comes_later_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _):
            port = tor.place.port
        async with Node(config(tmp_path / "a", tor)) as alice:
            await until(lambda: "no tor listens for control" in str(shown(alice)["fault"]))
            async with tor.running(port):
                await published(alice)

    run(scenario)


@pytest.mark.parametrize(
    "content", ["", "ED25519-V3:AAAA\n" + "a" * 56, "nonsense", "ED25519-V3:" + "A" * 86 + "==\nshort"]
)
def test_a_spoilt_key_is_kept_and_named(content: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        keys = tmp_path / "a" / "dev" / "keys"
        keys.mkdir(parents=True)
        (keys / "onion.key").write_text(content)
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await until(lambda: "onion.key cannot be used: restore it" in str(shown(alice)["fault"]))
            assert (keys / "onion.key").read_text() == content
            assert tor.added == 0

    run(scenario)


def test_another_services_key_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await published(alice)
        kept = tmp_path / "a" / "dev" / "keys" / "onion.key"
        kept.write_text(kept.read_text().split()[0] + "\n" + ONION.host_text.removesuffix(".onion"))
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await until(lambda: f"is not that of {ONION.host_text}" in str(shown(alice)["fault"]))
            assert not any("Onion" in str(address) for address in alice.addresses)

    run(scenario)


def test_a_dial_says_what_tor_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, proxy), Node(config(tmp_path / "a", tor)) as alice:
            await published(alice)
            with pytest.raises(Unreachable, match="there is no such onion service now"):
                await alice.connect(f"obscura://{ONION}")
            proxy.targets[str(ONION)] = 0xF4
            with pytest.raises(Unreachable, match="yours is missing"):
                await alice.connect(f"obscura://{ONION}")

    run(scenario)


def test_a_stale_descriptor_is_fetched_anew_within_one_dial(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            tor_here(tmp_path) as (tor, proxy),
            Node(config(tmp_path / "a", tor)) as alice,
            Node(config(tmp_path / "b", tor)) as bob,
        ):
            await published(alice)
            there = onion_of(alice)
            place = f"{there.host}:{there.port}"
            proxy.targets[place] = 0xF2  # its introduction points are gone

            def fetch(line: str) -> str | None:
                word, _, name = line.partition(" ")
                if word != "HSFETCH":
                    return None
                proxy.targets[place] = ("127.0.0.1", onion_port(tor, there))
                return f"250 OK\n650 HS_DESC RECEIVED {name} NO_AUTH $00~relay descriptor"

            tor.answers = fetch
            await bob.ping(await bob.connect(there))
            assert [asked for asked, *_ in proxy.asked] == [place, place]
            users = {user for _, user, _ in proxy.asked}
            assert len(users) == 2

    run(scenario)


@pytest.mark.parametrize("first", [False, True], ids=["at the second try", "at the first"])
def test_a_tor_that_hangs_says_nothing_of_the_service(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = socks5.SocksFault("no connection within 1 s", is_offline=True, is_late=True)
    found = [hangs] if first else [socks5.SocksFault("", reply=0xF2), hangs]

    async def connect(*given: object, **named: object) -> None:
        raise found.pop(0)

    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await published(alice)
            monkeypatch.setattr(socks5, "connect", connect)
            with pytest.raises(socks5.SocksFault) as fault:
                await alice.routes.tor.open(ONION.host_text, ONION.port)
            assert fault.value.is_offline
            assert not found

    run(scenario)


def test_without_a_program_a_managed_tor_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = TorSettings(program=str(tmp_path / "no-tor"))
        keys = Config(network="dev", data_dir=tmp_path, tor="managed", listen=(), tor_daemon=settings, max_outbound=0)
        async with Node(keys) as alice:
            await until(lambda: "apt install tor" in str(shown(alice)["fault"]))
            with pytest.raises(Unreachable, match="tor is not there"):
                await alice.connect(f"obscura://{ONION}")

    run(scenario)


@pytest.mark.parametrize("what", ["a directory that takes nothing", "a program that is none"])
def test_a_managed_tor_that_cannot_be_started_says_why(what: str, tmp_path: Path) -> None:
    folder, program = tmp_path / "tor", tmp_path / "program"
    program.write_text("")  # may not be run
    if what == "a directory that takes nothing":
        (folder / "torrc").mkdir(parents=True)

    async def scenario() -> None:
        word = "cannot be written: is a directory" if folder.is_dir() else "cannot be started: permission denied"
        with pytest.raises(TorFault) as caught:
            await TorProcess(folder, str(program), None).start()
        assert word in str(caught.value)

    run(scenario)


def test_without_clearnet_there_is_no_clearnet_listener(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tor_here(tmp_path) as (tor, _), Node(config(tmp_path / "a", tor)) as alice:
            await published(alice)
            assert [address.host for address in alice.addresses] == [onion_of(alice).host]

    run(scenario)
