"""Discovery inside a node: lookups of the core are carried out, what they bring is kept, and they end with the node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.rrset
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from doh_server import Authority
from h2_server import Server, Session, serving
from obscura.daemon.config import Config
from obscura.daemon.discovery import Discovery, _NoBook, ask_once
from obscura.daemon.methods import control_methods
from obscura.daemon.node import Node
from obscura.ledger.networks import BUILT_IN
from obscura.node.assembly import Settings, assemble
from obscura.node.dialable import Way, Ways
from obscura.node.effects import Lookup
from obscura.node.face import Face
from obscura.node.resolvers import SeedSettings
from obscura.node.seed_list import SeedList, sign, txt_strings
from obscura.node.seeds import Seeds, SeedSource
from obscura.wire.address import Address, CarrierNumber, Endpoint, Network, key_text

NAME = "seeds.example.org"
SECRET = bytes([3]) * 32
KEY = key_text(Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw())
SEED = Address.parse(f"obscura://{'a' * 52}@127.9.9.9:1?carrier=tls")


def texts(sequence: int) -> list[str]:
    unix = int(time.time())
    return sign(SeedList(sequence, unix + 9_000, (SEED,)), NAME, BUILT_IN["dev"].id, SECRET, unix)


@contextlib.asynccontextmanager
async def provider(folder: Path, sequence: int | None) -> AsyncIterator[tuple[str, Server]]:
    """A provider that serves a list with this sequence; None = it never answers."""
    authority = Authority(folder)

    async def act(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
        if sequence is not None:
            message = dns.message.make_response(dns.message.from_wire(body))
            data = [" ".join(f'"{part}"' for part in txt_strings(text)) for text in texts(sequence)]
            message.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "TXT", *data))
            await session.answer(stream, message.to_wire())

    async with serving(act, authority.issue("doh.example")) as server:
        yield f"https://doh.example:{server.port}/dns-query?ip=127.0.0.1&ca={authority.ca}", server


def config(folder: Path, text: str) -> Config:
    seeds = SeedSettings(providers=(text,), names=(NAME,), key=KEY)
    return Config(network="dev", data_dir=folder / "data", listen=(), seeds=seeds)


async def found(node: Node) -> dict:
    """One round, or the end of the one under way, as local control tells it."""
    async with asyncio.timeout(30):
        return await control_methods(node)["seeds.ask"]()


def test_a_node_asks_by_itself_and_keeps_what_it_learnt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with provider(tmp_path, 7) as (text, server), Node(config(tmp_path, text)) as node:
            said = await found(node)
            assert said["found"] == [{"address": str(SEED), "signed": True}]
            assert said == control_methods(node)["seeds.show"]() | {"next_look_s": said["next_look_s"],
                                                                    "answers": said["answers"]}  # fmt: skip
            (entry,) = node.assembly.book.entries()
            assert (entry.endpoint, entry.keys.hard) == (SEED.endpoint, SEED.key)
            assert len(server.requests) == 1
        assert json.loads((tmp_path / "data" / "dev" / "seeds.json").read_text()) == {NAME: 7}

    asyncio.run(scenario())


def test_after_a_restart_an_older_list_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        for sequence, outcome, count in [(7, "signed list 7", 1), (6, "older than a list seen before", 0)]:
            async with provider(tmp_path, sequence) as (text, _), Node(config(tmp_path, text)) as node:
                said = await found(node)
                assert said["providers"][0]["outcome"] == outcome
                assert len(said["found"]) == count

    asyncio.run(scenario())


def test_a_node_that_stops_gives_its_lookups_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with provider(tmp_path, None) as (text, server):
            async with Node(config(tmp_path, text)) as node:
                waiting = asyncio.create_task(found(node))
                async with asyncio.timeout(30):
                    await server.asked.wait()
            async with asyncio.timeout(30):
                await server.emptied.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}

    asyncio.run(scenario())


def test_a_lookup_that_ends_in_a_defect_is_answered_all_the_same() -> None:
    """``seeds ask`` without a node has no timer that would give it up, and in a node its caller was waiting still."""
    no_file = SeedSettings(names=(NAME,), key=KEY, providers=("https://doh.example/?ip=127.0.0.1&ca=%00",))
    seeds = seeds_of(no_file)
    asyncio.run(asyncio.wait_for(ask_once(seeds, random.Random(1), unreached), 5))
    assert [told["outcome"] for told in seeds.show(0.0)["providers"]] == ["it cannot be asked: ValueError"]


def test_who_waits_for_a_round_is_let_go_when_the_node_ends() -> None:
    async def never(host: str, port: int) -> socket.socket:
        return await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        seeds = seeds_of(SeedSettings(names=(NAME,), key=KEY))
        discovery = Discovery(
            seeds, random.Random(1), lambda: 0.0, lambda effects: list(map(start, effects)), proxy=never
        )
        start = discovery.start
        waiting = asyncio.ensure_future(discovery.ask())
        await asyncio.sleep(0)
        await discovery.end()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_a_defect_in_what_takes_an_answer_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise TypeError

    seeds = seeds_of(SeedSettings(names=(NAME,), key=KEY))
    monkeypatch.setattr(seeds, "answered", broken)

    async def scenario() -> None:
        await asyncio.wait_for(ask_once(seeds, random.Random(1), unreached), 30)

    asyncio.run(scenario())


def seeds_of(settings: SeedSettings) -> Seeds:
    return Seeds(settings, SeedSource(bytes(8), 1), _NoBook(), random.Random(1), lambda: int(time.time()), 0.0)


async def unreached(host: str, port: int) -> socket.socket:
    raise ConnectionRefusedError


@pytest.mark.parametrize(
    ("faces", "proxied", "asks"),
    [({Face.CLEARNET}, False, True), ({Face.ONION}, False, False), ({Face.ONION}, True, True)],
)
def test_without_clearnet_and_without_a_proxy_nobody_is_asked(faces: set[Face], proxied: bool, asks: bool) -> None:
    source = SeedSource(bytes(32), 9733, (NAME,), bytes(32))
    settings = Settings(bytes(32), faces=frozenset(faces), seed_source=source, are_lookups_proxied=proxied)
    node = assemble(settings, random.Random(1), lambda: 1_800_000_000, 0.0)
    node.engine.due(0.0)
    assert any(isinstance(io, Lookup) for io in node.engine.drain(0.0)) is asks


@pytest.mark.parametrize(
    ("face", "carrier", "asks"),
    [
        (Face.ONION, CarrierNumber.PLAIN, False),
        (Face.CLEARNET, CarrierNumber.TLS, True),
        (Face.ONION, CarrierNumber.TLS, True),
    ],
)
def test_places_that_are_not_dialled_do_not_keep_a_node_from_asking(
    face: Face, carrier: CarrierNumber, asks: bool
) -> None:
    """The book of a node that was on clearnet yesterday is full of places that only-net leaves out now."""
    source = SeedSource(bytes(32), 9733, (NAME,), bytes(32))
    settings = Settings(bytes(32), faces=frozenset({Face.ONION}), seed_source=source, are_lookups_proxied=True)
    assert does_ask(settings, face, carrier) is asks


@pytest.mark.parametrize(
    ("carrier", "asks"),
    [(CarrierNumber.TLS, False), (CarrierNumber.SSH, False), (CarrierNumber.HTTP, True), (CarrierNumber.DNS, True)],
)
def test_places_that_need_a_key_and_have_none_do_not_keep_a_node_from_asking(
    carrier: CarrierNumber, asks: bool
) -> None:
    """They are never dialled, so they never fail: fifty of them from one peer would do for good."""
    settings = Settings(bytes(32), seed_source=SeedSource(bytes(32), 9733, (NAME,), bytes(32)))
    assert does_ask(settings, Face.CLEARNET, carrier) is asks


def test_through_a_proxy_that_holds_for_tls_too() -> None:
    source = SeedSource(bytes(32), 9733, (NAME,), bytes(32))
    settings = Settings(bytes(32), seed_source=source, ways=Ways(clearnet=Way.PROXY), are_lookups_proxied=True)
    assert does_ask(settings, Face.CLEARNET, CarrierNumber.TLS)


def does_ask(settings: Settings, face: Face, carrier: CarrierNumber) -> bool:
    """Whether a node with 150 places and more of a face and carrier asks for seeds."""
    node = assemble(settings, random.Random(1), lambda: 1_800_000_000, 0.0)
    for n in range(200):
        place = Endpoint(Network.TORV3, bytes([n]) * 32, 9_733)
        if face is Face.CLEARNET:
            place = Endpoint(Network.IPV4, bytes((20, n, 0, 1)), 9_733)
        node.neighbours.book.learn(place, carrier, face, bytes([n]), 1_800_000_000)
    assert len(node.neighbours.book) > 150
    lookups = []
    for now in (0.0, 60.0):
        node.engine.due(now)
        lookups += [io for io in node.engine.drain(now) if isinstance(io, Lookup)]
    return bool(lookups)


def test_a_node_that_is_told_of_no_seeds_never_asks() -> None:
    node = assemble(Settings(bytes(32)), random.Random(1), lambda: 1_800_000_000, 0.0)
    assert node.neighbours.seeds is None
    off = msgspec.structs.replace(Settings(bytes(32)), seed_source=SeedSource(bytes(32), 9733))
    node = assemble(off, random.Random(1), lambda: 1_800_000_000, 0.0)
    node.engine.due(0.0)
    assert not [io for io in node.engine.drain(0.0) if isinstance(io, Lookup)]
