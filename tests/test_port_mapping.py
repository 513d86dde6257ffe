"""Router mappings: the datagrams of PCP and NAT-PMP, what a mapper does with answers, and a node beside a router of our own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.daemon import mapping
from obscura.daemon.config import Config
from obscura.daemon.mapping import default_gateway, mappable
from obscura.daemon.neighbours import introduce
from obscura.daemon.node import Node
from obscura.errors import ConfigError, DecodeError
from obscura.ledger.networks import load_network
from obscura.limits import NATPMP_TRIES, PCP_TRIES, PORT_MAPPED_S, PORT_MAPPING_AGAIN_S
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.ownaddress import OwnAddress
from obscura.node.resolvers import SeedSettings
from obscura.transport import portmap
from obscura.transport.portmap import (
    PcpAnswer,
    PcpRequest,
    PmpRefusal,
    PmpRequest,
    PortMapper,
    decode_answer,
    decode_request,
)
from obscura.wire.address import Address, CarrierNumber
from peer_examples import Clock, book
from router import OUTSIDE, Router, serve

VECTORS = json.loads((Path(__file__).parent / "vectors" / "port_mapping.json").read_text())
CLIENT = IPv4Address("192.168.1.20")
PORT = 9_733


def shown(value: Any) -> dict[str, Any]:
    return {
        name: part.hex() if isinstance(part, bytes) else str(part) if isinstance(part, IPv4Address) else part
        for name, part in value._asdict().items()
    }


@pytest.mark.parametrize("case", VECTORS["requests"] + VECTORS["answers"], ids=lambda case: case["name"])
def test_vectors(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    value = (decode_request if case in VECTORS["requests"] else decode_answer)(data)
    assert (type(value).__name__, shown(value)) == (case["type"], case["fields"])
    kind = getattr(portmap, case["type"])
    fields = dict(case["fields"])
    for name in fields.keys() & {"client", "external_host", "host"}:
        fields[name] = IPv4Address(fields[name])
    if "nonce" in fields:
        fields["nonce"] = bytes.fromhex(fields["nonce"])
    assert kind(**fields).encode() == data


@pytest.mark.parametrize("case", VECTORS["invalid_answers"], ids=lambda case: case["name"])
def test_what_is_no_answer(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode_answer(bytes.fromhex(case["bytes"]))


def mapper(now: float = 100.0) -> PortMapper:
    return PortMapper(CLIENT, PORT, random.Random(1), now)


def talk(one: PortMapper, router: Router, now: float) -> None:
    """What is due goes to the router, and its answers come back."""
    for datagram in one.due(now):
        answer = router.answer(datagram)
        if answer is not None:
            one.receive(answer, now)


def settle(one: PortMapper, router: Router, now: float, until: float) -> float:
    while one.mapped is None and now < until:
        talk(one, router, now)
        if one.mapped is None:
            now = one.deadline()
    return now


@pytest.mark.parametrize(
    ("speaks", "protocol"), [(("pcp", "nat-pmp"), "PCP"), (("pcp",), "PCP"), (("nat-pmp",), "NAT-PMP")]
)
def test_maps_renews_at_half_life_and_removes(speaks: tuple[str, ...], protocol: str) -> None:
    one, router = mapper(), Router(speaks=speaks)
    now = settle(one, router, 100.0, 200.0)
    assert one.mapped is not None
    assert one.mapped[:2] == (OUTSIDE, router.ports[PORT])
    assert one.protocol == protocol
    assert not one.fault
    assert one.deadline() == now + router.lifetime_s / 2
    asked = len(router.requests)
    talk(one, router, now + router.lifetime_s / 2)
    renewal = router.requests[-1]
    assert len(router.requests) > asked
    assert isinstance(renewal, PcpRequest | PmpRequest)
    assert renewal.external_port == router.ports[PORT]  # the same one again
    assert one.mapped.until == now + router.lifetime_s * 1.5
    for datagram in one.end():
        answer = router.answer(datagram)
        assert answer is not None
        one.receive(answer, now)
    assert one.is_removed
    assert router.ports == {}


def test_a_silent_router_is_asked_both_ways_and_then_left_alone() -> None:
    one, now, sent = mapper(), 100.0, []
    while not (one.deadline() - now > PORT_MAPPING_AGAIN_S / 2):
        now = one.deadline()
        sent += [decode_request(data) for data in one.due(now)]
    assert sum(isinstance(each, PcpRequest) for each in sent) == PCP_TRIES
    assert sum(isinstance(each, PmpRequest) for each in sent) == NATPMP_TRIES
    assert "neither" in one.fault
    assert now - 100 < 90


def test_a_mapping_ends_when_its_router_is_gone() -> None:
    one, router = mapper(), Router()
    settle(one, router, 100.0, 200.0)
    assert one.mapped is not None
    until = one.mapped.until
    while one.mapped is not None:
        now = one.deadline()
        one.due(now)
        assert now <= until
    assert "does not answer" in one.fault


@pytest.mark.parametrize("host", ["192.168.0.1", "100.64.0.1", "169.254.3.3", "127.0.0.1", "0.0.0.0", "224.0.0.1"])
@pytest.mark.parametrize("speaks", [("pcp",), ("nat-pmp",)])
def test_external_addresses_that_nobody_reaches_are_refused(host: str, speaks: tuple[str, ...]) -> None:
    one = mapper()
    now = settle(one, Router(speaks=speaks, outside=IPv4Address(host)), 100.0, 200.0)
    assert one.mapped is None
    assert "not a public one" in one.fault
    assert now >= 100 + PORT_MAPPING_AGAIN_S  # not asked again before


def test_an_answer_must_be_one_to_our_question() -> None:
    one = mapper()
    (asked,) = one.due(100.0)
    request = PcpRequest.decode(asked)
    for nonce, port in ((bytes(12), PORT), (request.nonce, PORT + 1)):
        one.receive(PcpAnswer(0, 3_600, 1, nonce, port, 5_000, OUTSIDE).encode(), 100.1)
        assert one.mapped is None
    for nonce in (bytes(12), request.nonce[::-1]):  # nor may a stranger end it with a refusal
        one.receive(PcpAnswer(2, 9_999, 1, nonce, PORT, 0, OUTSIDE).encode(), 100.1)
        assert one.deadline() < 110
    one.receive(PcpAnswer(0, 3_600, 1, request.nonce, PORT, 5_000, OUTSIDE).encode(), 100.2)
    assert one.mapped is not None
    one.receive(PcpAnswer(0, 3_600, 1, request.nonce, PORT, 6_000, OUTSIDE).encode(), 100.3)  # nothing is asked now
    assert one.mapped.port == 5_000


def test_a_refusal_by_pcp_is_followed_by_nat_pmp_and_one_by_both_is_final_for_a_while() -> None:
    """As after a crash: the router still has the mapping, of a nonce that nobody knows any more."""
    one = mapper()
    request = PcpRequest.decode(one.due(100.0)[0])
    one.receive(PcpAnswer(2, 9_999, 1, request.nonce, PORT, 0, OUTSIDE).encode(), 100.1)
    assert settle(one, Router(speaks=("nat-pmp",)), 100.1, 101.0) == 100.1
    assert one.mapped is not None
    other = mapper()
    request = PcpRequest.decode(other.due(100.0)[0])
    other.receive(PcpAnswer(2, 9_999, 1, request.nonce, PORT, 0, OUTSIDE).encode(), 100.1)
    other.due(100.1)
    other.receive(PmpRefusal(2, 2, 1).encode(), 100.2)
    assert "refuses" in other.fault
    assert other.deadline() >= 100.2 + PORT_MAPPING_AGAIN_S


@pytest.mark.parametrize(
    ("told", "believed"), [(0, PORT_MAPPED_S[0]), (1, PORT_MAPPED_S[0]), (2**32 - 1, PORT_MAPPED_S[1])]
)
def test_life_times_are_believed_within_bounds(told: int, believed: int) -> None:
    one, router = mapper(), Router()
    router.lifetime_s = told
    talk(one, router, 100.0)
    assert one.mapped is not None
    assert one.mapped.until == 100 + believed


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_do_no_harm(datagrams: list[bytes]) -> None:
    one = mapper()
    one.due(100.0)
    for data in datagrams:
        one.receive(data, 100.0)
    assert one.mapped is None


# --- What the node makes of it ------------------------------------------------------------------------------------------

TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
wlan0\t00000000\t0102A8C0\t0003\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (TABLE, "192.168.2.1"),
        ("", None),
        ("Iface\nnonsense\n\x00\x00\n", None),
        (TABLE.replace("0101A8C0", "08080808").replace("0102A8C0", "08080808"), None),  # public: a data centre's
        (TABLE.replace("\t0003\t", "\t0001\t"), None),
    ],
)
def test_default_gateway(table: str, found: str | None) -> None:
    assert default_gateway(table) == (None if found is None else IPv4Address(found))


def test_which_ports_are_mapped() -> None:
    tls = CarrierNumber.TLS
    places = [Address(None, host, PORT, tls) for host in ("0.0.0.0", "192.168.1.20", "127.0.0.1", "::", "8.8.8.8")]
    assert [place.host for place in mappable(places)] == ["0.0.0.0", "192.168.1.20"]


def test_covers_that_share_a_port_have_one_mapping_and_are_all_announced_by_it() -> None:
    """A router refuses a second mapping of the same port, whose nonce is another (RFC 6887, 11.3)."""
    carriers = (CarrierNumber.TLS, CarrierNumber.SSH)
    listening = [Address(bytes(32), "0.0.0.0", PORT, carrier) for carrier in carriers]
    assert mappable(listening) == listening[:1]
    own = OwnAddress(Grouping(), loopback=False)
    own.set_listening(listening)
    own.set_mapped(listening[0], Address(bytes(32), "8.8.4.4", 50_123, CarrierNumber.TLS))
    assert own.announced(Face.CLEARNET) == [Address(bytes(32), "8.8.4.4", 50_123, carrier) for carrier in carriers]


def test_a_mapping_is_of_its_listening_host_alone() -> None:
    """Each host has a key of its own: told with another's, the mapped place fails; and what is IPv6 needs no mapping."""
    hosts = ("0.0.0.0", "2001:4860::1", "127.0.0.1")
    listening = [Address(bytes([n]) * 32, host, PORT, CarrierNumber.TLS) for n, host in enumerate(hosts)]
    own = OwnAddress(Grouping(), loopback=False)
    own.set_listening(listening)
    told = Address(listening[0].key, "8.8.4.4", PORT, CarrierNumber.TLS)
    assert own.set_mapped(listening[0], told)
    assert own.announced(Face.CLEARNET) == [told, listening[1]]


def test_an_external_address_has_the_key_of_the_listener_of_its_family(tmp_path: Path) -> None:
    hosts = ("0.0.0.0", "::", "127.0.0.1")
    listening = [Address(bytes([n]) * 32, host, PORT, CarrierNumber.TLS) for n, host in enumerate(hosts)]
    outside = tuple(f"{host}:{PORT}?carrier=tls" for host in ("8.8.4.4", "[2001:4860::1]", "127.0.0.1"))
    own = OwnAddress(Grouping(), loopback=True)
    near: Any = SimpleNamespace(own=own, book=book(Clock()))
    config = Config(network="dev", data_dir=tmp_path, external_address=outside)
    introduce(near, config, load_network("dev"), listening, 0.0)
    told = {address.host: address.key for address in own.announced(Face.CLEARNET)}
    assert (told["8.8.4.4"], told["2001:4860::1"]) == (bytes(32), bytes([1]) * 32)


def test_what_the_router_says_is_announced_and_known_as_own() -> None:
    own = OwnAddress(Grouping(), loopback=False)
    listening = Address(bytes(32), "0.0.0.0", PORT, CarrierNumber.TLS)
    told = Address(bytes(32), "8.8.4.4", 50_123, CarrierNumber.TLS)
    own.set_listening([listening])
    assert own.set_mapped(listening, told)
    assert not own.set_mapped(listening, told)  # no news
    assert own.announced(Face.CLEARNET) == [told]
    assert own.announced(Face.ONION) == []
    assert told.endpoint is not None
    assert own.is_own(told.endpoint)
    assert own.set_mapped(listening, None)
    assert own.announced(Face.CLEARNET) == []
    hidden = OwnAddress(Grouping(), loopback=False, is_proxied=True)
    hidden.set_listening([listening])
    hidden.set_mapped(listening, told)
    assert hidden.announced(Face.CLEARNET) == []


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"network": "dev", "port_mapping": "auto"}, "loopback"),
        ({"port_mapping": "auto", "tor": "auto", "only_net": ("tor",)}, "left out"),
        ({"port_mapping": "auto", "proxy": "127.0.0.1:9050"}, "proxy"),
        ({"port_mapping": "auto", "gateway": "router.lan"}, "192.168.1.1"),
        ({"gateway": "192.168.1.1"}, "port-mapping"),
        ({"port_mapping": "on"}, "auto, off"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=word):
        Config(data_dir=tmp_path, **settings)


def test_nothing_is_asked_unless_wanted(tmp_path: Path) -> None:
    assert Config(data_dir=tmp_path).port_mapping == "off"


GATEWAY = "127.0.0.77"


def config(folder: Path, **more: Any) -> Config:
    return Config(
        data_dir=folder, listen=("0.0.0.0:0?carrier=tls",), port_mapping="auto", max_outbound=0,
        seeds=SeedSettings(enabled=False), **{"gateway": GATEWAY, **more},
    )  # fmt: skip


async def mapped_while_it_runs(folder: Path) -> None:
    router, node = Router(), Node(config(folder))
    served, events = await serve(router, GATEWAY), node.events(["port-mapped", "port-not-mapped"])
    try:
        with contextlib.closing(events):
            async with asyncio.timeout(30), node:
                event = await anext(aiter(events))
                port = node.addresses[0].port
                assert event["kind"] == "port-mapped"
                assert router.ports.keys() == {port}
                (told,) = node.assembly.neighbours.own.announced(Face.CLEARNET)
                assert (told.host, told.port, told.key) == (str(OUTSIDE), router.ports[port], node.addresses[0].key)
                assert event["address"] == str(told)
        assert router.ports == {}  # removed when it stopped
    finally:
        served.close()


def test_a_node_is_mapped_while_it_runs(tmp_path: Path) -> None:
    asyncio.run(mapped_while_it_runs(tmp_path))


async def without_a_router(folder: Path) -> None:
    async with asyncio.timeout(30), Node(config(folder)) as node:
        assert node.assembly.neighbours.own.announced(Face.CLEARNET) == []


def test_a_node_without_a_router_starts_and_stops_all_the_same(tmp_path: Path) -> None:
    asyncio.run(without_a_router(tmp_path))


OTHER_GATEWAY = "127.0.0.78"


def route_by(host: str) -> str:
    """What the kernel shows of a default route."""
    return f"Iface\neth0\t00000000\t{IPv4Address(host).packed[::-1].hex()}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"


async def in_another_network(folder: Path, show_routes: Callable[[str], object]) -> None:
    routers = Router(), Router(outside=IPv4Address("8.8.8.8"))
    show_routes(route_by(GATEWAY))
    node = Node(config(folder, gateway=None))
    served = [await serve(routers[0], GATEWAY), await serve(routers[1], OTHER_GATEWAY)]
    own = node.events(["port-mapped", "port-not-mapped"])
    try:
        with contextlib.closing(own):
            async with asyncio.timeout(30), node:
                events = aiter(own)
                assert (await anext(events))["kind"] == "port-mapped"
                show_routes("")  # between two networks: nothing is known, and nothing changed
                await asyncio.sleep(0.1)
                show_routes(route_by(OTHER_GATEWAY))
                event = await anext(events)
                assert (event["kind"], event["why"]) == ("port-not-mapped", "this machine is in another network")
                assert node.assembly.neighbours.own.announced(Face.CLEARNET) == []
                assert "8.8.8.8" in (await anext(events))["address"]
                assert not routers[0].ports
                assert routers[1].ports
    finally:
        for transport in served:
            transport.close()


def test_after_a_change_of_network_the_router_there_is_asked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mapping by the old one was announced until it lapsed, up to a day later, and half an hour more nobody was asked."""
    monkeypatch.setattr(mapping, "ROUTES", tmp_path / "route")
    monkeypatch.setattr(mapping, "PORT_MAPPING_LOOK_S", 0.02)
    asyncio.run(in_another_network(tmp_path / "node", (tmp_path / "route").write_text))


async def asleep(folder: Path, ahead: list[float]) -> None:
    router, node = Router(), Node(config(folder))
    served, own = await serve(router, GATEWAY), node.events(["port-mapped", "port-not-mapped"])
    try:
        with contextlib.closing(own):
            async with asyncio.timeout(30), node:
                events = aiter(own)
                assert (await anext(events))["kind"] == "port-mapped"
                router.ports.clear()  # it did not sleep
                ahead.append(router.lifetime_s + 1.0)
                assert [(await anext(events))["kind"] for _ in range(2)] == ["port-not-mapped", "port-mapped"]
                assert router.ports
    finally:
        served.close()


def test_a_mapping_that_lapsed_while_the_machine_slept_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLOCK_MONOTONIC, by which the loop goes, stands still meanwhile: half of its time was waited for once more."""
    ahead, awake = [0.0], time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: awake(clock) + ahead[-1] * (clock == time.CLOCK_BOOTTIME))
    monkeypatch.setattr(mapping, "PORT_MAPPING_LOOK_S", 0.02)
    asyncio.run(asleep(tmp_path, ahead))
