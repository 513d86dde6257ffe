"""Discovery against real DNS-over-HTTPS servers (unbound): good, lying, slow, dead, rotating and badly certified ones.

Needs unbound (Debian and Ubuntu: apt install unbound) and fails without it. Everything is on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from doh_server import Authority, Unbound
from obscura.daemon.config import Config
from obscura.daemon.discovery import ask_once
from obscura.daemon.node import Node
from obscura.node.face import Face
from obscura.node.resolvers import Provider, SeedSettings
from obscura.node.seed_list import SeedList, sign, zone_line
from obscura.node.seeds import Seeds, SeedSource
from obscura.transport import doh
from obscura.wire.address import Address, key_text

NAME = "seeds.test"
SECRET = bytes([3]) * 32
KEY = Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw()
NETWORK = bytes([5]) * 32
GOOD = tuple(Address.parse(f"obscura://{'a' * 52}@192.0.2.{n}:9733?carrier=tls") for n in range(1, 31))
EVIL = (Address.parse(f"obscura://{'a' * 52}@198.51.100.6:9733?carrier=tls"),)
PLAIN = [f"{NAME}. 60 IN A 8.1.2.3", f"{NAME}. 60 IN AAAA 2a00::1"]
FORGED = [f"{NAME}. 60 IN A 8.6.6.6", f"{NAME}. 60 IN AAAA 2a00::666"]


class Book:
    def __init__(self) -> None:
        self.added: dict[str, bool] = {}

    def usable(self, now: float) -> int:
        return 0

    def add_seeds(
        self, addresses: Iterable[Address], *, signed: bool, face: Face, now: float, is_built_in: bool = False
    ) -> None:
        self.added |= {str(address): signed for address in addresses}


def texts(
    addresses: Sequence[Address] = GOOD, secret: bytes = SECRET, sequence: int = 9, network: bytes = NETWORK
) -> list[str]:
    """A signed list as lines of a zone file."""
    unix = int(time.time())
    return [
        zone_line(NAME, 120, text)
        for text in sign(SeedList(sequence, unix + 86_400, tuple(addresses)), NAME, network, secret, unix)
    ]


class Servers:
    """Real servers that end with the test."""

    def __init__(self, folder: Path, ends: contextlib.ExitStack) -> None:
        self.folder, self.ends, self.count = folder, ends, 0
        self.authority = Authority(folder)

    def start(self, records: Iterable[str], **options: Any) -> Unbound:
        self.count += 1
        name = options.pop("name", f"doh{self.count}.test")
        return self.ends.enter_context(
            Unbound(self.folder / str(self.count), records, self.authority, name=name, **options)
        )


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with contextlib.ExitStack() as ends:
        yield Servers(tmp_path, ends)


def discover(*providers: str, key: bytes | None = KEY, sequences: dict[str, int] | None = None) -> tuple[Book, Seeds]:
    """One round over these providers with an empty book."""
    book = Book()
    source = SeedSource(NETWORK, 9733, (NAME,), key)
    rng = random.Random(1)
    seeds = Seeds(
        SeedSettings(providers=providers), source, book, rng, lambda: int(time.time()), 0.0, sequences=sequences
    )
    asyncio.run(ask_once(seeds, rng))
    return book, seeds


def outcomes(seeds: Seeds) -> dict[str, str]:
    return {shown["host"].partition(":")[0]: shown["outcome"] for shown in seeds.show(0.0)["providers"]}


def ask(server: Unbound, *kinds: str, name: str = NAME, timeout_s: float = 10.0) -> Any:
    provider = Provider.parse(server.provider)
    return asyncio.run(doh.ask(provider, name, kinds, random.Random(1), timeout_s=timeout_s))


# --- Good -----------------------------------------------------------------------------------------------------------


def test_a_signed_list_of_thirty_seeds_comes_through_in_several_records(servers: Servers) -> None:
    server = servers.start(texts())
    book, seeds = discover(server.provider)
    assert book.added == {str(address): True for address in GOOD}
    assert seeds.sequences == {NAME: 9}
    assert f"{NAME}. TXT IN" in server.log


def test_plain_addresses_that_two_operators_name_become_unsigned_seeds(servers: Servers) -> None:
    first, second = servers.start(PLAIN), servers.start(PLAIN)
    book, _ = discover(first.provider, second.provider, key=None)
    assert book.added == {
        "obscura://8.1.2.3:9733?carrier=tls": False,
        "obscura://[2a00::1]:9733?carrier=tls": False,
    }


def test_what_a_real_server_says_of_names_that_are_not_there(servers: Servers) -> None:
    server = servers.start(PLAIN)
    (missing,) = ask(server, "TXT", name="none.test")
    assert (missing.records, missing.fault) == ((), None)
    assert missing.ttl_s > 0


# --- Lying ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "forged", "outcome"),
    [
        ("another key", texts(EVIL, secret=bytes(32)), "its signature is not the network's"),
        ("another network", texts(EVIL, network=bytes(32)), "its signature is not the network's"),
        ("a changed address", [line.replace("192.0.2.1:", "198.51.100.6:") for line in texts(GOOD[:1])],
         "its signature is not the network's"),
        ("something else", [f'{NAME}. 60 IN TXT "v=spf1 -all"'], "not a list of seeds"),
        ("nothing", [], "no such record"),
    ],
)  # fmt: skip
def test_liars_are_found_out_and_an_honest_one_is_enough(
    what: str, forged: list[str], outcome: str, servers: Servers
) -> None:
    liars = [servers.start(forged) for _ in range(2)]
    honest = servers.start(texts(GOOD[:3]))
    book, seeds = discover(*(liar.provider for liar in liars), honest.provider)
    assert book.added == {str(address): True for address in GOOD[:3]}
    seen = outcomes(seeds)
    assert seen[honest.name] == "signed list 9"
    assert {seen[liar.name] for liar in liars} <= {outcome, None}


def test_an_old_list_is_refused_after_a_newer_one(servers: Servers) -> None:
    old = servers.start(texts(EVIL, sequence=8))
    book, seeds = discover(old.provider, sequences={NAME: 9})
    assert book.added == {}
    assert outcomes(seeds)[old.name] == "older than a list seen before"
    assert discover(old.provider)[0].added == {str(EVIL[0]): True}  # not refused for another reason


def test_addresses_that_one_operator_forges_are_not_taken(servers: Servers) -> None:
    liar = servers.start(FORGED)
    honest = [servers.start(PLAIN) for _ in range(2)]
    book, _ = discover(liar.provider, *(server.provider for server in honest), key=None)
    assert set(book.added) == {"obscura://8.1.2.3:9733?carrier=tls", "obscura://[2a00::1]:9733?carrier=tls"}


def test_two_servers_of_one_operator_cannot_agree_with_themselves(servers: Servers) -> None:
    liars = [servers.start(FORGED) for _ in range(2)]
    honest = servers.start(PLAIN)
    book, _ = discover(*(f"{liar.provider}&operator=mallory" for liar in liars), honest.provider, key=None)
    assert book.added == {}


# --- Slow and dead --------------------------------------------------------------------------------------------------


def test_a_stopped_server_costs_its_time_and_no_more(servers: Servers) -> None:
    server = servers.start(texts())
    os.kill(server.pid, signal.SIGSTOP)  # its backlog accepts, nothing answers
    try:
        (answer,) = ask(server, "TXT", timeout_s=0.5)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert answer.fault == "no answer in time"
    assert ask(server, "TXT")[0].fault is None


def test_a_server_that_wakes_up_in_time_is_heard(servers: Servers) -> None:
    server = servers.start(texts())
    provider = Provider.parse(server.provider)
    opened = False

    async def waking(address: str, port: int) -> Any:
        nonlocal opened
        connection = await doh.open_tcp(address, port)
        opened = True
        asyncio.get_running_loop().call_later(0.3, os.kill, server.pid, signal.SIGCONT)
        return connection

    os.kill(server.pid, signal.SIGSTOP)
    try:
        (answer,) = asyncio.run(doh.ask(provider, NAME, ("TXT",), random.Random(1), proxy=waking))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert opened
    assert len(answer.records) == len(texts())


def test_a_dead_server_is_passed_over(servers: Servers) -> None:
    dead, honest = servers.start([]), servers.start(texts())
    gone = dead.provider
    dead.__exit__()
    book, seeds = discover(gone, honest.provider)
    assert len(book.added) == len(GOOD)
    assert outcomes(seeds)[dead.name] == "connection refused"


# --- Badly certified ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "fault"),
    [("wrong name", "Hostname mismatch"), ("expired", "has expired"), ("unknown authority", "certificate")],
)
def test_a_server_that_does_not_prove_its_name_hears_no_question(what: str, fault: str, servers: Servers) -> None:
    other = servers.folder / "other"
    other.mkdir()
    certificate = {
        "wrong name": servers.authority.issue("elsewhere.test"),
        "expired": servers.authority.issue("doh.test", expired=True),
        "unknown authority": Authority(other).issue("doh.test"),
    }[what]
    server = servers.start(texts(EVIL), name="doh.test", certificate=certificate)
    book, seeds = discover(server.provider)
    assert book.added == {}
    assert fault in outcomes(seeds)["doh.test"]
    assert " IN" not in server.log


def test_a_wrong_path_is_a_fault(servers: Servers) -> None:
    server = servers.start(texts())
    _, seeds = discover(server.provider.replace("/dns-query", "/elsewhere"))
    assert "HTTP 404" in outcomes(seeds)[server.name]


# --- Rotation -------------------------------------------------------------------------------------------------------


def test_the_providers_take_turns(servers: Servers) -> None:
    running = [servers.start(texts(GOOD[:1])) for _ in range(3)]
    now = [0.0]
    rng = random.Random(1)
    settings = SeedSettings(providers=tuple(server.provider for server in running))
    seeds = Seeds(settings, SeedSource(NETWORK, 9733, (NAME,), KEY), Book(), rng, lambda: int(time.time()), 0.0)

    async def rounds() -> None:
        for _ in range(3):
            await ask_once(seeds, rng, now=lambda: now[0])
            now[0] = seeds.deadline()

    asyncio.run(rounds())
    assert [server.log.count(f"{NAME}. TXT IN") for server in running] == [2, 2, 2]


# --- A whole node ---------------------------------------------------------------------------------------------------


def test_a_node_without_any_address_finds_another_one_by_its_network_file(servers: Servers, tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = SeedSettings(enabled=False)
        async with Node(
            Config(network="dev", data_dir=tmp_path / "a", listen=("127.0.0.1:0",), seeds=settings)
        ) as first:
            (known,) = first.addresses
            server = servers.start(texts((known,), network=first.network.id))
            settings = SeedSettings(providers=(server.provider,), names=(NAME,), key=key_text(KEY))
            config = Config(network="dev", data_dir=tmp_path / "b", listen=(), seeds=settings)
            async with Node(config) as second:
                async with asyncio.timeout(60):
                    await anext(aiter(second.events({"peer-connected"})))
                (peer,) = second.peers()
                assert peer.proved_key == known.key
            assert (tmp_path / "b" / "dev" / "seeds.json").exists()

    asyncio.run(scenario())
