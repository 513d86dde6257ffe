"""Several covers at one port: each carrier through it, and strangers of each kind, at any fragmentation."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from pathlib import Path

import pytest

from carriers import FLIGHT_1, FLIGHT_2, MAKERS, Maker, Wire
from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.node import Node
from obscura.errors import ConfigError
from obscura.limits import AUTO_S, CLIENT_HEADER_S
from obscura.morph.auto import AutoServer, recognised
from obscura.morph.carrier import Finished
from obscura.wire.address import CarrierNumber

NAMES = {"http": CarrierNumber.HTTP, "tls": CarrierNumber.TLS, "ssh": CarrierNumber.SSH, "dns": CarrierNumber.DNS}
KINDS = {number: MAKERS[name].server for name, number in NAMES.items()}


def auto(seed: int = 1) -> AutoServer:
    server = AutoServer(random.Random(seed), KINDS)
    server.start(0.0)
    return server


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "plain"])
@pytest.mark.parametrize("cuts", [1, 7, 1 << 20])
def test_every_carrier_opens_through_it(name: str, cuts: int) -> None:
    maker = Maker(MAKERS[name].client, lambda rng: AutoServer(rng, KINDS))
    wire = Wire(maker, cuts=cuts).opened()
    assert (wire.server.flights, wire.client.flights) == ([FLIGHT_1], [FLIGHT_2])
    assert wire.server.carrier.NUMBER == wire.client.carrier.NUMBER, "which the channel's prologue names"
    wire.client.carrier.send(b"up" * 500, wire.now)
    wire.server.carrier.send(b"down" * 500, wire.now)
    wire.run()
    assert (bytes(wire.server.data), bytes(wire.client.data)) == (b"up" * 500, b"down" * 500)


@pytest.mark.parametrize(
    ("said", "whose"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", CarrierNumber.HTTP),
        (b"\r\n", CarrierNumber.HTTP),
        (b"SEARCH / HTTP/1.1", CarrierNumber.HTTP),
        (b"SSH-2.0-x\r\n", CarrierNumber.SSH),
        (b"\x16\x03\x01", CarrierNumber.TLS),
        (b"\x80\x2e\x01", CarrierNumber.TLS),
        (b"\x00\x1d\x12\x34", CarrierNumber.DNS),
        (b"S", None),
        (b"SSH", None),
    ],
)
def test_first_bytes(said: bytes, whose: CarrierNumber | None) -> None:
    assert recognised(said) is whose


def test_who_waits_is_spoken_to_after_two_seconds() -> None:
    server = auto()
    assert server.deadline() == AUTO_S
    assert server.due(AUTO_S - 0.1) == []
    assert server.take() == []
    server.due(AUTO_S)
    assert b"".join(server.take()).startswith(b"SSH-2.0-OpenSSH")


def test_who_says_half_a_word_and_waits_is_a_web_sites_visitor() -> None:
    server = auto()
    server.receive(b"SS", 0.0)
    server.due(AUTO_S)
    assert server.deadline() == CLIENT_HEADER_S, "counted from the beginning"
    server.receive(b"H / HTTP/1.1\r\n\r\n", 3.0)
    assert b"".join(server.take()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("after", [b"", b"S", b"GET ", b"\x16\x03", b"SSH-", b"\0\x20"])
def test_who_leaves_at_once_leaves_nothing_behind(after: bytes) -> None:
    server = auto()
    if after:
        server.receive(after, 0.0)
    assert any(isinstance(event, Finished) for event in server.eof(0.1))


@pytest.mark.parametrize(
    ("said", "answer"), [(b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 "), (b"GET /none\r\n", b"<html>")]
)
def test_a_stranger_gets_the_cover_that_he_asked_for(said: bytes, answer: bytes) -> None:
    for cut in (1, 3, len(said)):
        server = auto()
        for at in range(0, len(said), cut):
            server.receive(said[at : at + cut], 0.0)
        assert b"".join(server.take()).startswith(answer)


@pytest.mark.parametrize("seed", range(30))
def test_rubbish_raises_nothing_and_some_deadline_ends_it(seed: int) -> None:
    rng = random.Random(seed)
    server, events = auto(), []
    for _ in range(rng.randrange(1, 6)):
        events += server.receive(rng.randbytes(rng.choice((1, 2, 40, 5_000))), 0.0)
        server.take()
    for _ in range(20):
        if any(isinstance(event, Finished) for event in events):
            return
        events += server.due(server.deadline())
        server.take()
    raise AssertionError("it never ends")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_links_of_three_carriers_and_strangers_at_one_port(tmp_path: Path) -> None:
    port = free_port()
    listen = tuple(f"127.0.0.1:{port}?carrier={name}" for name in ("tls", "http", "ssh"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def get(tls: ssl.SSLContext | None) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    async def go() -> None:
        cover = CoverSettings(share_ports=True)
        async with (
            Node(Config(network="dev", data_dir=tmp_path / "a", listen=listen, max_outbound=0, cover=cover)) as alice,
            Node(Config(network="dev", data_dir=tmp_path / "b", listen=(), max_outbound=0)) as bob,
        ):
            assert [address.carrier.name for address in alice.addresses] == ["TLS", "HTTP", "SSH"]
            for address in alice.addresses:
                peer = await bob.connect(address)
                assert (peer.pattern, peer.carrier) == ("NK", address.carrier)
                await bob.ping(peer)  # so that the other side is up too
                assert alice.peers()[-1].carrier is address.carrier
                bob.disconnect(peer)
            assert (await get(None)).startswith(b"HTTP/1.1 200 OK\r\nServer: nginx")
            assert (await get(context)).startswith(b"HTTP/1.1 200 OK\r\nServer: nginx")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"SSH-2.0-probe\r\n")
            assert (await reader.readline()).startswith(b"SSH-2.0-OpenSSH")
            writer.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("carriers", "cover", "advice"),
    [
        (("tls", "ssh"), CoverSettings(), "cover.share-ports"),
        (("tls", "tls"), CoverSettings(share_ports=True), "each once"),
        (("tls", "plain"), CoverSettings(share_ports=True), "only http, tls, ssh and dns"),
    ],
)
def test_what_cannot_share_a_port_is_said(
    tmp_path: Path, carriers: tuple[str, ...], cover: CoverSettings, advice: str
) -> None:
    port = free_port()
    listen = tuple(f"127.0.0.1:{port}?carrier={name}" for name in carriers)

    async def go() -> None:
        async with Node(Config(network="dev", data_dir=tmp_path, listen=listen, max_outbound=0, cover=cover)):
            pass

    with pytest.raises(ConfigError, match=advice):
        asyncio.run(go())
