"""Where a node is: BIP155 endpoints on the wire, ``obscura://`` addresses for people (design 4)."""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b32decode, b32encode
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Self

import msgspec

from obscura.errors import AddressError
from obscura.limits import KEY_BYTES

SCHEME = "obscura://"
MAX_ADDRESS_TEXT = 1_024  # characters; the longest valid address has about 620


class Network(IntEnum):
    """BIP155 network ids that this protocol knows."""

    IPV4 = 1
    IPV6 = 2
    TORV3 = 4
    I2P = 5
    CJDNS = 6


HOST_BYTES: Final[dict[int, int]] = {
    Network.IPV4: 4,
    Network.IPV6: 16,
    Network.TORV3: 32,
    Network.I2P: 32,
    Network.CJDNS: 16,
}


class CarrierNumber(IntEnum):
    """Carriers as numbered in ``addr`` entries and in the prologue of the channel."""

    BARE = -1  # frames without a channel, for debugging: exists in the textual form only and fits no byte on purpose
    PLAIN = 0
    HTTP = 1
    TLS = 2
    SSH = 3
    DNS = 4


_CARRIERS = {number.name.lower(): number for number in CarrierNumber}
_NAMING_CARRIERS = (CarrierNumber.TLS, CarrierNumber.HTTP, CarrierNumber.DNS)  # SNI, the Host field, the zone

# IPv6 ranges that stand for something else and must come as what they are (BIP155, appendices; RFC 4291,
# 2.5.5.2).
_ONION_CAT = IPv6Network("fd87:d87e:eb43::/48")
GARLI_CAT: Final = IPv6Network("fd60:db4d:ddb5::/48")  # a node's own numbers for I2P destinations (design 11)
_MAPPED_IPV4 = IPv6Network("::ffff:0:0/96")
_CJDNS = IPv6Network("fc00::/8")

SHAPES: Final = ("websocket", "requests")  # of web sessions

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """A network, the raw host of BIP155 (4, 16, 32, 32 or 16 bytes) and a port.

    ``ValueError`` for a length that is not the network's, for an IPv6 address that stands for another network
    (IPv4-mapped, OnionCat, GarliCat, CJDNS), and for a CJDNS address outside ``fc00::/8``.
    """

    network: Network
    host: bytes
    port: int

    def __post_init__(self) -> None:
        if len(self.host) != HOST_BYTES[self.network]:
            raise ValueError(f"{self.network.name} hosts have {HOST_BYTES[self.network]} bytes")
        if not 0 <= self.port <= 0xFFFF:
            raise ValueError("a port is 0 to 65535")
        if self.network in (Network.IPV6, Network.CJDNS):
            address = IPv6Address(self.host)
            if address in _MAPPED_IPV4 or address in _ONION_CAT or address in GARLI_CAT:
                raise ValueError("an IPv6 address that stands for an IPv4, Tor or I2P address")
            if (address in _CJDNS) != (self.network is Network.CJDNS):
                raise ValueError("fc00::/8 is the CJDNS network, and the CJDNS network is fc00::/8")

    @classmethod
    def of(cls, host: str, port: int) -> Self | None:
        """The endpoint of a host as people write it (IPv6 bare); ``None`` for a name. ``AddressError``."""
        if host == "localhost":  # RFC 6761, 6.3: never a question to a resolver
            host = "127.0.0.1"
        if host.endswith(".onion"):
            return cls(Network.TORV3, _onion_key(host), port)
        if host.endswith(".b32.i2p"):
            return cls(Network.I2P, _i2p_hash(host), port)
        try:
            address = ip_address(host)
        except ValueError:
            return None
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                raise AddressError("an address with a zone (%...) means something on one machine only: leave it out")
            if address in _ONION_CAT:
                raise AddressError(
                    f"{host} is the OnionCat form of an old Tor address: use the 56-character .onion name"
                )
            if address in GARLI_CAT:
                raise AddressError(
                    f"{host} stands for an I2P destination inside one node only: use the 52-character .b32.i2p name"
                )
            if address.ipv4_mapped is None:
                network = Network.CJDNS if address in _CJDNS else Network.IPV6
                return cls(network, address.packed, port)
            address = address.ipv4_mapped
        return cls(Network.IPV4, address.packed, port)

    @property
    def host_text(self) -> str:
        """The host as people write it, IPv6 without brackets."""
        if self.network is Network.IPV4:
            return str(IPv4Address(self.host))
        if self.network is Network.TORV3:
            return _base32(self.host + _onion_checksum(self.host) + b"\x03") + ".onion"
        if self.network is Network.I2P:
            return _base32(self.host) + ".b32.i2p"
        return str(IPv6Address(self.host))

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine itself."""
        return self.network in (Network.IPV4, Network.IPV6) and ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return join_host_port(self.host_text, self.port)


class Address(msgspec.Struct, frozen=True):
    """What ``obscura://KEY@HOST:PORT?carrier=tls&name=SNI&binding=cookie&shape=requests`` says, in its one canonical form.

    ``key`` is the 32-byte channel key if it is known; ``host`` is lower case, IPv6 without brackets; ``name``
    is the SNI or Host. ``Address.parse(str(a)) == a``, for port 0 with ``listening``. ``AddressError`` for values
    that no text can give.
    """

    key: bytes | None
    host: str
    port: int
    carrier: CarrierNumber = CarrierNumber.PLAIN
    name: str | None = None
    binding: str | None = None
    shape: str | None = None  # of a web session that this node dials; None leaves it to the carrier

    def __post_init__(self) -> None:
        if self.key is not None and len(self.key) != KEY_BYTES:
            raise AddressError(f"a channel key has {KEY_BYTES} bytes")
        if canonical_host(self.host) != self.host:
            raise AddressError(f"write the host {self.host!a} as {canonical_host(self.host)}")
        if not 0 <= self.port <= 0xFFFF:
            raise AddressError(f"the port {self.port} is not one of 0 to 65535")
        if self.name is not None:
            if self.carrier not in _NAMING_CARRIERS:
                raise AddressError("name= goes with carrier=tls, carrier=http or carrier=dns only")
            if not is_dns_name(self.name):
                raise AddressError(f"name={self.name[:80]!a} is not a host name in lower case")
        if self.binding is not None and (self.binding != "cookie" or self.carrier is not CarrierNumber.TLS):
            raise AddressError("binding= can only be binding=cookie, with carrier=tls")
        if self.shape is not None:
            if self.shape not in SHAPES or self.carrier not in (CarrierNumber.TLS, CarrierNumber.HTTP):
                raise AddressError(
                    "shape= can only be shape=websocket or shape=requests, with carrier=http or carrier=tls"
                )
            if self.shape == "requests" and self.binding is not None:
                raise AddressError("shape=requests needs one connection for all requests: not with binding=cookie")

    @classmethod
    def parse(cls, text: str, *, listening: bool = False) -> Self:
        """Read an address, with or without ``obscura://``. ``AddressError`` says what to write instead.

        Port 0 is for I2P, where a port means nothing (BIP155), and for ``listening``, where it is any free one.
        """
        if len(text) > MAX_ADDRESS_TEXT:
            raise AddressError(f"an address has at most {MAX_ADDRESS_TEXT} characters, this one {len(text)}")
        rest = text.strip()
        if rest[: len(SCHEME)].lower() == SCHEME:
            rest = rest[len(SCHEME) :]
        elif "://" in rest:
            raise AddressError(
                f"an address begins with {SCHEME} or with the host, not with {rest.partition('://')[0]!a}"
            )
        rest, question, query = rest.partition("?")
        key_text, at, place = rest.rpartition("@")
        options = _parse_query(query) if question else {}
        host, port = split_host_port(place)
        if not port and not listening and not host.lower().endswith(".i2p"):
            raise AddressError("port 0 cannot be dialled: write the port that the peer listens on")
        carrier = options.pop("carrier", "plain")
        if carrier not in _CARRIERS:
            raise AddressError(f"carrier={carrier!a} is unknown: use one of {', '.join(_CARRIERS)}")
        name = options.pop("name", None)
        return cls(
            key=parse_key(key_text) if at else None,
            host=canonical_host(host),
            port=port,
            carrier=_CARRIERS[carrier],
            name=None if name is None else name.lower(),
            binding=options.pop("binding", None),
            shape=options.pop("shape", None),
        )

    @property
    def endpoint(self) -> Endpoint | None:
        """The endpoint of the host; ``None`` if it is a name that somebody has to look up."""
        return Endpoint.of(self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine itself."""
        endpoint = self.endpoint
        return endpoint is not None and endpoint.is_loopback

    def __str__(self) -> str:
        key = "" if self.key is None else key_text(self.key) + "@"
        options = [
            "" if self.carrier is CarrierNumber.PLAIN else f"carrier={self.carrier.name.lower()}",
            "" if self.name is None else f"name={self.name}",
            "" if self.binding is None else f"binding={self.binding}",
            "" if self.shape is None else f"shape={self.shape}",
        ]
        query = "&".join(option for option in options if option)
        return f"{SCHEME}{key}{join_host_port(self.host, self.port)}{'?' if query else ''}{query}"


def endpoint_seen(host: str, port: int) -> Endpoint | None:
    """Where a socket says that somebody is; ``None`` for an address that no endpoint has.

    Security: whoever is on the same network may give itself one that stands for a Tor or I2P address.
    """
    try:
        return Endpoint.of(host.partition("%")[0], port)
    except (ValueError, AddressError):
        return None


def key_text(key: bytes) -> str:
    """A channel key for people: 52 characters of base32, lower case, no padding."""
    return _base32(key)


def parse_key(text: str) -> bytes:
    """The channel key of its text. ``AddressError``."""
    key = _unbase32(text)
    if key is None or len(key) != KEY_BYTES:
        raise AddressError(f"a channel key is 52 characters of a-z and 2-7, not {text[:80]!a}: see `obscura key show`")
    return key


def join_host_port(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str) -> tuple[str, int]:
    """Host (IPv6 without brackets) and port of ``host:port``. ``AddressError``."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or "]" in port:
        raise AddressError(f"{text[:80]!a} lacks a port: write HOST:PORT")
    if not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 0xFFFF:
        raise AddressError(f"the port {port[:20]!a} is not a number of 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise AddressError(f"only an IPv6 address stands in brackets, not {host[:80]!a}")
    elif ":" in host:
        raise AddressError(f"write the IPv6 address in brackets: [{host[:80]}]:{port}")
    return host, int(port)


def canonical_host(host: str) -> str:
    """The one way to write a host: lower case, short IPv6, IPv4-mapped as IPv4. ``AddressError`` if none."""
    host = host.lower()
    endpoint = Endpoint.of(host, 0)
    if endpoint is not None:
        return "localhost" if host == "localhost" else endpoint.host_text
    if not is_dns_name(host) or host.rpartition(".")[2].isdecimal():
        raise AddressError(f"{host[:80]!a} is no IPv4 or [IPv6] address, .onion, .b32.i2p or host name")
    return host


def is_dns_name(text: str) -> bool:
    """Whether this is a host name: labels of a-z, 0-9, - and _, at most 253 characters (RFC 1035, 2.3.4)."""
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _parse_query(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if key not in ("carrier", "name", "binding", "shape"):
            raise AddressError(f"an address knows carrier=, name=, binding= and shape= behind the ?, not {part[:80]!a}")
        if not equals or not value or key in options:
            raise AddressError(f"{key}= must stand once, with a value")
        options[key] = value
    return options


def _onion_checksum(key: bytes) -> bytes:
    """Tor rend-spec-v3, Encoding onion addresses."""
    return hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]


def _onion_key(host: str) -> bytes:
    raw = _unbase32(host.removesuffix(".onion"))
    if raw is None or len(raw) != 35:
        raise AddressError(f"{host[:80]!a} is no version 3 onion address: 56 characters, then .onion")
    key, checksum, version = raw[:32], raw[32:34], raw[34:]
    if version != b"\x03" or checksum != _onion_checksum(key):
        raise AddressError(f"{host[:80]!a} is mistyped: its checksum does not match")
    return key


def _i2p_hash(host: str) -> bytes:
    raw = _unbase32(host.removesuffix(".b32.i2p"))
    if raw is None or len(raw) != 32:
        raise AddressError(f"{host[:80]!a} is no I2P address: 52 characters, then .b32.i2p")
    return raw


def _base32(raw: bytes) -> str:
    return b32encode(raw).decode().rstrip("=").lower()


def _unbase32(text: str) -> bytes | None:
    """The bytes of unpadded base32; ``None`` if ``_base32`` gives another text (unused bits must be zero)."""
    try:
        raw = b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return None
    return raw if _base32(raw) == text.lower() else None
