"""Endpoints of BIP155 and ``obscura://`` addresses: published examples, canonical forms, what people mistype."""

from __future__ import annotations

import hashlib
import struct
from base64 import b32encode
from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import AddressError
from obscura.wire.address import (
    HOST_BYTES,
    Address,
    CarrierNumber,
    Endpoint,
    Network,
    canonical_host,
    key_text,
    parse_key,
)
from obscura.wire.messages.network import Addr, AddrEntry, Extension, Version

KEY = bytes(range(32))
KEY_TEXT = b32encode(KEY).decode().lower().rstrip("=")

# Hosts and raw bytes as published: BIP155's test vectors, Tor's rend-spec-v3, RFC 5952.
PUBLISHED = [
    (Network.IPV4, "1.2.3.4", "01020304"),
    (Network.IPV6, "1a1b:2a2b:3a3b:4a4b:5a5b:6a6b:7a7b:8a8b", "1a1b2a2b3a3b4a4b5a5b6a6b7a7b8a8b"),
    (Network.IPV6, "2001:db8::1", "20010db8000000000000000000000001"),
    (
        Network.TORV3,
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "79bcc625184b05194975c28b66b66b0469f7f6556fb1ac3189a79b40dda32f1f",
    ),
    (
        Network.I2P,
        "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p",
        "a2894dabaec08c0051a481a6dac88b64f98232ae42d4b6fd2fa81952dfe36a87",
    ),
    (Network.CJDNS, "fc00:1:2:3:4:5:6:7", "fc000001000200030004000500060007"),
]
ONION, I2P = PUBLISHED[3][1], PUBLISHED[4][1]


@pytest.mark.parametrize(("network", "text", "raw"), PUBLISHED)
def test_published_hosts(network: Network, text: str, raw: str) -> None:
    endpoint = Endpoint(network, bytes.fromhex(raw), 9733)
    assert Endpoint.of(text, 9733) == endpoint
    assert endpoint.host_text == text
    assert Address.parse(str(endpoint)).endpoint == endpoint
    assert AddrEntry(0, 0, network, bytes.fromhex(raw), 9733, 0, None).endpoint == endpoint


@pytest.mark.parametrize(
    "host",
    [  # services that exist, so their checksums were made by Tor
        "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion",
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
    ],
)
def test_onion_checksums(host: str) -> None:
    endpoint = Endpoint.of(host, 80)
    assert endpoint is not None
    assert (endpoint.network, endpoint.host_text) == (Network.TORV3, host)


@settings(deadline=None, max_examples=50)
@given(key=st.binary(min_size=32, max_size=32), at=st.integers(0, 55))
def test_onion_by_the_text_of_its_specification(key: bytes, at: int) -> None:
    checksum = hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
    host = b32encode(key + checksum + b"\x03").decode().lower() + ".onion"
    assert Endpoint(Network.TORV3, key, 1).host_text == host
    mistyped = host[:at] + ("b" if host[at] == "a" else "a") + host[at + 1 :]
    with pytest.raises(AddressError):
        canonical_host(mistyped)


ENDPOINTS = st.sampled_from(Network).flatmap(
    lambda network: st.builds(
        lambda raw, port: Endpoint(network, (b"\xfc" + raw[1:]) if network is Network.CJDNS else raw, port),
        st.binary(min_size=HOST_BYTES[network], max_size=HOST_BYTES[network]).filter(
            lambda raw: network is not Network.IPV6 or (raw[0] < 0xFC and any(raw[:10]))
        ),
        st.integers(1, 65535),
    )
)


@settings(deadline=None, max_examples=100)
@given(endpoint=ENDPOINTS)
def test_endpoints_both_ways(endpoint: Endpoint) -> None:
    assert Address.parse(str(endpoint)).endpoint == endpoint


@pytest.mark.parametrize(
    ("network", "host", "port"),
    [
        (Network.IPV4, b"123", 1),
        (Network.IPV6, b"1234", 1),
        (Network.IPV4, b"1234", 65536),
        (Network.IPV4, b"1234", -1),
        (Network.IPV6, IPv6Address("::ffff:1.2.3.4").packed, 1),
        (Network.IPV6, IPv6Address("fd87:d87e:eb43::1").packed, 1),
        (Network.IPV6, IPv6Address("fc00::1").packed, 1),
        (Network.CJDNS, IPv6Address("2001:db8::1").packed, 1),
    ],
)
def test_endpoints_that_mean_nothing(network: Network, host: bytes, port: int) -> None:
    with pytest.raises(ValueError):
        Endpoint(network, host, port)
    if 0 <= port <= 65535:
        assert AddrEntry(0, 0, network, host, port, 0, None).endpoint is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.255.0.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("128.0.0.1:1", False),
        ("[::2]:1", False),
        ("localhost.example:1", False),
        (f"{ONION}:1", False),
    ],
)
def test_loopback(text: str, expected: bool) -> None:
    assert Address.parse(text).is_loopback is expected


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:19733", Address(None, "127.0.0.1", 19733)),
        ("obscura://127.0.0.1:19733", Address(None, "127.0.0.1", 19733)),
        ("  OBSCURA://127.0.0.1:19733\n", Address(None, "127.0.0.1", 19733)),
        (f"obscura://{KEY_TEXT}@[2001:DB8:0::1]:443?carrier=ssh", Address(KEY, "2001:db8::1", 443, CarrierNumber.SSH)),
        (f"{KEY_TEXT.upper()}@Example.COM:443", Address(KEY, "example.com", 443)),
        ("[::ffff:1.2.3.4]:5", Address(None, "1.2.3.4", 5)),
        (f"{ONION.upper()}:9733", Address(None, ONION, 9733)),
        (f"{I2P}:0", Address(None, I2P, 0)),
        ("stats.i2p:80", Address(None, "stats.i2p", 80)),
        ("127.0.0.1:5?carrier=bare", Address(None, "127.0.0.1", 5, CarrierNumber.BARE)),
        (
            "1.2.3.4:80?carrier=http&name=www.example.org",
            Address(None, "1.2.3.4", 80, CarrierNumber.HTTP, "www.example.org"),
        ),
        (
            f"obscura://{KEY_TEXT}@1.2.3.4:443?binding=cookie&name=a.example&carrier=tls",
            Address(KEY, "1.2.3.4", 443, CarrierNumber.TLS, "a.example", "cookie"),
        ),
    ],
)
def test_addresses_for_people(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address
    assert Address.parse(str(address).removeprefix("obscura://")) == address


def test_port_0_is_for_listening_only() -> None:
    address = Address(None, "127.0.0.1", 0)
    assert Address.parse("127.0.0.1:0", listening=True) == address
    assert Address.parse(str(address), listening=True) == address


def test_the_canonical_text() -> None:
    address = Address(KEY, "2001:db8::1", 443, CarrierNumber.TLS, "a.example", "cookie")
    assert str(address) == f"obscura://{KEY_TEXT}@[2001:db8::1]:443?carrier=tls&name=a.example&binding=cookie"
    assert str(Address(None, "1.2.3.4", 5)) == "obscura://1.2.3.4:5"


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?(\.[a-z]{2,6}){0,2}", fullmatch=True)


@settings(deadline=None, max_examples=100)
@given(
    key=st.none() | st.binary(min_size=32, max_size=32),
    host=NAMES.filter(lambda name: not name.endswith((".onion", ".i"))) | ENDPOINTS.map(lambda e: e.host_text),
    port=st.integers(1, 65535),
    carrier=st.sampled_from(CarrierNumber),
    name=NAMES,
    extras=st.integers(0, 3),
)
def test_parse_inverts_str(
    key: bytes | None, host: str, port: int, carrier: CarrierNumber, name: str, extras: int
) -> None:
    named = extras & 1 and carrier in (CarrierNumber.TLS, CarrierNumber.HTTP)
    bound = extras & 2 and carrier is CarrierNumber.TLS
    address = Address(key, host, port, carrier, name if named else None, "cookie" if bound else None)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "HOST:PORT"),
        ("obscura://", "HOST:PORT"),
        ("example.com", "HOST:PORT"),
        ("example.com:", "0 to 65535"),
        (":80", "HOST:PORT"),
        ("example.com:http", "0 to 65535"),
        ("example.com:65536", "0 to 65535"),
        ("example.com:-1", "0 to 65535"),
        ("example.com:0", "cannot be dialled"),
        ("example.com:٨٠", "0 to 65535"),
        ("example.com:80/", "0 to 65535"),
        ("https://example.com:443", "obscura://"),
        ("::1:80", "in brackets"),
        ("2001:db8::1", "in brackets"),
        ("[2001:db8::1]", "HOST:PORT"),
        ("[1.2.3.4]:80", "brackets"),
        ("[2001:db8::g]:80", "no IPv4"),
        ("[fe80::1%eth0]:80", "zone"),
        ("[fd87:d87e:eb43::1]:80", "OnionCat"),
        ("1.2.3:80", "no IPv4"),
        ("1.2.3.256:80", "no IPv4"),
        ("01.2.3.4:80", "no IPv4"),
        ("exa mple.com:80", "host name"),
        ("-a.example:80", "host name"),
        ("a..example:80", "host name"),
        ("é.example:80", "host name"),
        (f"{'a' * 64}.example:80", "host name"),
        (f"{ONION[1:]}:80", "onion"),
        ("expyuzz4wqqyqhjn.onion:80", "56 characters"),
        (f"sub.{ONION}:80", "onion"),
        (f"{I2P[1:]}:80", "52 characters"),
        (f"{KEY_TEXT[1:]}@1.2.3.4:80", "52 characters"),
        (f"{KEY_TEXT[:-1]}b@1.2.3.4:80", "52 characters"),
        (f"{KEY_TEXT}====@1.2.3.4:80", "52 characters"),
        ("@1.2.3.4:80", "52 characters"),
        ("user:password@1.2.3.4:80", "52 characters"),
        ("1.2.3.4:80?", "carrier="),
        ("1.2.3.4:80?carrier=tcp", "plain, http, tls, ssh, dns"),
        ("1.2.3.4:80?carrier=TLS", "tls"),
        ("1.2.3.4:80?carrier", "with a value"),
        ("1.2.3.4:80?carrier=tls&carrier=tls", "once"),
        ("1.2.3.4:80?sni=a.example", "carrier=, name=, binding= and shape="),
        ("1.2.3.4:80?carrier=ssh&name=a.example", "carrier=tls"),
        ("1.2.3.4:80?carrier=tls&name=a_b..c", "host name"),
        ("1.2.3.4:80?carrier=tls&name=%61.example", "host name"),
        ("1.2.3.4:80?carrier=tls&binding=none", "binding=cookie"),
        ("1.2.3.4:80?binding=cookie", "binding=cookie"),
        ("1.2.3.4:80?carrier=http&shape=post", "shape=websocket or shape=requests"),
        ("1.2.3.4:80?carrier=ssh&shape=requests", "carrier=http or carrier=tls"),
        ("1.2.3.4:80?carrier=tls&binding=cookie&shape=requests", "not with binding=cookie"),
        ("1.2.3.4:80#x", "0 to 65535"),
        ("a" * 2_000, "characters"),
        ("\x1b[2J:80", "host name"),
        ("\ud800:80", "host name"),
    ],
)
def test_mistyped_addresses_say_what_to_do(text: str, advice: str) -> None:
    with pytest.raises(AddressError, match=advice.replace("[", r"\[")) as caught:
        Address.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300


@settings(deadline=None, max_examples=150)
@given(
    text=st.text(max_size=80) | st.from_regex(r"(obscura://)?[a-z2-7]{0,4}@?[\[\]a-f0-9:.%]{1,20}(:[0-9]{1,6})?(\?.*)?")
)
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except AddressError:
        return
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b"short", "host": "1.2.3.4", "port": 1},
        {"key": None, "host": "Example.com", "port": 1},
        {"key": None, "host": "2001:DB8::1", "port": 1},
        {"key": None, "host": "1.2.3.4", "port": 65536},
        {"key": None, "host": "1.2.3.4", "port": 1, "name": "a.example"},
        {"key": None, "host": "1.2.3.4", "port": 1, "carrier": CarrierNumber.TLS, "name": "A.example"},
    ],
)
def test_addresses_without_a_text_cannot_be_made(fields: dict[str, object]) -> None:
    with pytest.raises(AddressError):
        Address(**fields)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(key=st.binary(min_size=32, max_size=32))
def test_keys_both_ways(key: bytes) -> None:
    text = key_text(key)
    assert (len(text), text) == (52, text.lower())
    assert parse_key(text) == key == parse_key(text.upper())


def test_carrier_numbers_on_the_wire() -> None:
    numbers = {carrier.name.lower(): int(carrier) for carrier in CarrierNumber}
    assert numbers == {"bare": -1, "plain": 0, "http": 1, "tls": 2, "ssh": 3, "dns": 4}
    with pytest.raises(struct.error):
        Addr((AddrEntry(0, 0, 1, b"1234", 1, CarrierNumber.BARE, None),)).encode()


@pytest.mark.parametrize("text", ["203.0.113.7:9733", "[2001:db8::1]:443"])
def test_observed_address(text: str) -> None:
    endpoint = Address.parse(text).endpoint
    assert endpoint is not None
    extensions = (Extension(9, b"x"), Extension.observed(endpoint))
    version = Version(1, 0, 0, 0, "", bytes(32), 0, 0, extensions)
    assert Version.decode(version.encode()).observed == endpoint


@pytest.mark.parametrize(
    "value", ["", "01", "0100", "010050", "0100500102030405", "0400500102030405", "020050" + "00" * 10 + "ffff01020304"]
)
def test_observed_addresses_that_mean_nothing(value: str) -> None:
    version = Version(1, 0, 0, 0, "", bytes(32), 0, 0, (Extension(1, bytes.fromhex(value)),))
    assert Version.decode(version.encode()).observed is None


@pytest.mark.parametrize("host", [ONION, I2P, "fc00::1"])
def test_no_anonymous_address_is_told_as_observed(host: str) -> None:
    endpoint = Endpoint.of(host, 1)
    assert endpoint is not None
    with pytest.raises(ValueError, match="clearnet"):
        Extension.observed(endpoint)
