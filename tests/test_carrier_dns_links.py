"""Links over carrier dns between real nodes on loopback, and what strangers on the same ports get, by TCP and UDP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.node import Node
from obscura.errors import ConfigError, UserError
from obscura.morph.dns_names import origin_for_key

DEADLINE_S = 60


def config(folder: Path, **more: object) -> Config:
    return Config(network="dev", data_dir=folder, max_outbound=0, **more)  # type: ignore[arg-type]


def listening(folder: Path, place: str = "127.0.0.1:0?carrier=dns", **more: object) -> Config:
    return config(folder, listen=(place,), **more)


async def ask(port: int, name: str, kind: str = "A", *, udp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    how = dns.asyncquery.udp if udp else dns.asyncquery.tcp
    return await how(query, "127.0.0.1", port=port, timeout=5)


def test_a_link_over_dns_works_and_strangers_see_its_zone(tmp_path: Path) -> None:
    async def go() -> None:
        async with Node(listening(tmp_path / "a")) as alice, Node(config(tmp_path / "b", listen=())) as bob:
            place = alice.addresses[0]
            peer = await bob.connect(place)
            assert (peer.pattern, peer.carrier.name) == ("NK", "DNS")
            assert await bob.ping(peer) < 5
            assert place.key is not None
            for udp in (False, True):
                answer = await ask(place.port, origin_for_key(place.key), "SOA", udp=udp)
                assert answer.rcode() == dns.rcode.NOERROR
                assert answer.answer[0].rdtype == dns.rdatatype.SOA
                assert (await ask(place.port, "example.com", udp=udp)).rcode() == dns.rcode.REFUSED

    asyncio.run(asyncio.wait_for(go(), DEADLINE_S))


def test_an_own_zone_is_shown_signed_and_carries_the_link(tmp_path: Path) -> None:
    file = tmp_path / "zone"
    file.write_text("@ 300 IN SOA ns1 admin 7 3600 900 604800 300\n@ 300 IN NS ns1\nns1 300 IN A 192.0.2.1\n")
    cover = CoverSettings(zone=file)

    async def go() -> None:
        server = listening(tmp_path / "a", "127.0.0.1:0?carrier=dns&name=example.org", cover=cover)
        async with Node(server) as alice, Node(config(tmp_path / "b", listen=())) as bob:
            place = alice.addresses[0]
            assert place.name == "example.org"
            assert (await bob.connect(place)).carrier.name == "DNS"
            answer = await ask(place.port, "ns1.example.org")
            assert answer.answer[0].to_text().endswith("192.0.2.1")
            assert (await ask(place.port, "example.org", "DNSKEY")).answer

    asyncio.run(asyncio.wait_for(go(), DEADLINE_S))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("nonsense", "127.0.0.1:0?carrier=dns&name=example.org", "no zone file"),
        ("@ IN SOA a b 1 1 1 1 1\n", "127.0.0.1:0?carrier=dns&name=example.org", "no zone file"),
        (None, "127.0.0.1:0?carrier=dns&name=example.org", "cannot be read"),
        ("", "127.0.0.1:0?carrier=dns", "name=ZONE"),
    ],
)
def test_files_that_cannot_be_used_say_so(tmp_path: Path, text: str | None, place: str, words: str) -> None:
    file = tmp_path / "zone"
    if text is not None:
        file.write_text(text)

    async def go() -> None:
        async with Node(listening(tmp_path / "a", place, cover=CoverSettings(zone=file))):
            pass

    with pytest.raises((UserError, ConfigError), match=words):
        asyncio.run(asyncio.wait_for(go(), DEADLINE_S))
