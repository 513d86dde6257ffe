"""Who may dial what, of addresses that others told (design 8, *Who may dial what*; design 10, *Not a weapon*)."""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv6Network, ip_address

from obscura.limits import LOW_PORTS, SERVICE_PORTS
from obscura.node.face import Face
from obscura.node.groups import embedded_ipv4
from obscura.wire.address import CarrierNumber, Endpoint, Network

_CARRIERS = frozenset(int(number) for number in CarrierNumber if number is not CarrierNumber.BARE)
_UNICAST = IPv6Network("2000::/3")
ANONYMOUS = frozenset({Network.TORV3, Network.I2P})


class Use(Enum):
    """What an address of the book may be dialled for."""

    NOTHING = 0
    FEELER = 1  # to see whether somebody proves a key there
    FULL = 2


def may_learn(endpoint: Endpoint, carrier: int, *, loopback: bool) -> bool:
    """Whether a told address may enter the book at all, so that the network cannot be turned against others.

    No private or special addresses, no port under 1,024 but 22, 53, 80 and 443, no port of another widespread service.
    ``loopback`` (network dev): loopback addresses are dialled and passed on, with any port from 1,024 up.
    """
    if carrier not in _CARRIERS:
        return False
    is_plain = carrier == CarrierNumber.PLAIN
    if endpoint.network in ANONYMOUS:
        # I2P has no ports (BIP155): with any, one destination would be 65,536 places of the book.
        return is_plain and (not endpoint.port if endpoint.network is Network.I2P else _is_harmless(endpoint.port))
    if endpoint.network not in (Network.IPV4, Network.IPV6):
        return False
    if endpoint.is_loopback:
        return loopback and is_plain and endpoint.port >= 1_024
    return not is_plain and is_public(endpoint) and _is_harmless(endpoint.port)


def is_public(endpoint: Endpoint) -> bool:
    """Whether an IPv4 or IPv6 address is one of the public internet.

    Of IPv6 global unicast alone (RFC 4291, 2.4), and what leads to IPv4 (6to4, NAT64) only if that is public too.
    """
    address, inner = ip_address(endpoint.host), embedded_ipv4(endpoint)
    if inner is None and address not in _UNICAST:
        return False
    places = [address] if inner is None else [address, ip_address(inner)]
    return all(place.is_global and not place.is_multicast for place in places)


def _is_harmless(port: int) -> bool:
    return port in LOW_PORTS or (port >= 1_024 and port not in SERVICE_PORTS)


def use_of(
    endpoint: Endpoint,
    carrier: CarrierNumber,
    *,
    has_key: bool,
    is_trusted: bool,
    allow_unauthenticated: bool,
    is_proxied: bool = False,
) -> Use:
    """The table of design 8. ``is_trusted``: the key was proven to us, configured, or in a signed seed list.

    ``is_proxied``: clearnet links leave by a Tor exit or a proxy, and what ``check_dialable`` refuses there is not worth a try.
    """
    if is_proxied and endpoint.network not in ANONYMOUS:
        return _use_proxied(endpoint, carrier, has_key=has_key, is_trusted=is_trusted)
    if endpoint.is_loopback or endpoint.network in ANONYMOUS:
        return Use.FULL if carrier is CarrierNumber.PLAIN else Use.NOTHING
    if is_trusted:
        return Use.FULL
    if carrier in (CarrierNumber.TLS, CarrierNumber.HTTP) and has_key:
        return Use.FULL
    if carrier in (CarrierNumber.TLS, CarrierNumber.SSH):
        return Use.FULL if allow_unauthenticated else Use.FEELER
    return Use.NOTHING  # http and dns open with a known key only


def _use_proxied(endpoint: Endpoint, carrier: CarrierNumber, *, has_key: bool, is_trusted: bool) -> Use:
    """Somebody unknown is in the middle: no feelers, and nothing on this machine itself."""
    is_known = is_trusted if carrier is CarrierNumber.SSH else has_key and carrier is CarrierNumber.TLS
    return Use.FULL if is_known and not endpoint.is_loopback else Use.NOTHING


def own_face(endpoint: Endpoint) -> Face:
    """The face of an address that says it itself."""
    if endpoint.network is Network.TORV3:
        return Face.ONION
    return Face.I2P if endpoint.network is Network.I2P else Face.CLEARNET
