"""A dns listener in memory: its zone, its names, a clock that stands still."""

from __future__ import annotations

from functools import cache
from itertools import count

from cryptography.hazmat.primitives.asymmetric import rsa

from obscura.daemon.dns_cover import parse_zone, signed
from obscura.morph.dns_answer import NameServer
from obscura.morph.dns_names import origin_for_key, tsig_key, zone_text
from obscura.morph.dns_server import DnsHost
from obscura.morph.dns_zone import Zone

UNIX = 1_700_000_000


@cache
def zone_key() -> rsa.RSAPrivateKey:
    """Made once."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


@cache
def zone_of(key: bytes) -> Zone:
    """The generated zone of a listener with this channel key."""
    origin = origin_for_key(key)
    return signed(parse_zone(zone_text(b"secret", origin, 2_023_111_401), origin), zone_key(), UNIX)


def name_server(key: bytes, secret: bytes = bytes(16)) -> NameServer:
    """Its server."""
    return NameServer(lambda: zone_of(key), tsig_key(key), secret, lambda: UNIX)


_started = count(1)


def dns_host(key: bytes) -> DnsHost:
    """A listener of its own, with cookies that no other gives."""
    return DnsHost(name_server(key, next(_started).to_bytes(16, "big")), key)
