"""Who may dial what (design 8): the face and the carrier that an address may be reached by, and the ways that there are."""

from __future__ import annotations

from enum import Enum

import msgspec

from obscura.errors import AddressError
from obscura.morph.kinds import CLIENTS
from obscura.node.face import Face
from obscura.wire.address import Address, CarrierNumber


class Way(Enum):
    """How connections to clearnet addresses leave this machine."""

    DIRECT = "direct"
    PROXY = "proxy"  # a Tor exit, or a SOCKS5 proxy: somebody in the middle whom nobody knows
    CLOSED = "closed"  # not at all


class Ways(msgspec.Struct, frozen=True):
    """The ways out that the operator allows. A way that is down for now is still one: its dials fail."""

    clearnet: Way = Way.DIRECT
    onion: bool = False
    i2p: bool = False


DIRECT = Ways()


def face_of(address: Address) -> Face:
    """The face through which an address is dialled."""
    if address.host.endswith(".onion"):
        return Face.ONION
    return Face.I2P if address.host.endswith(".i2p") else Face.CLEARNET


def check_dialable(address: Address, face: Face, ways: Ways = DIRECT) -> None:
    """Who may dial what (design 8). Raises ``AddressError`` that says what else to do."""
    endpoint = address.endpoint
    is_loopback = endpoint is not None and endpoint.is_loopback
    if address.carrier is CarrierNumber.BARE and not is_loopback:
        raise AddressError(f"{address}: carrier=bare has no encryption and is for loopback only")
    if address.carrier is CarrierNumber.PLAIN and face is Face.CLEARNET and not is_loopback:
        raise AddressError(
            f"{address}: carrier plain is for loopback, onion and I2P addresses; use carrier=tls for this one"
        )
    if address.carrier in (CarrierNumber.HTTP, CarrierNumber.DNS) and address.key is None:
        raise AddressError(f"{address}: carrier {address.carrier.name.lower()} opens with a known key only")
    if face is not face_of(address) and not is_loopback:  # the socket follows the address, all else follows the face
        raise AddressError(f"{address}: an address is dialled through its own network only")
    if face is Face.CLEARNET and ways.clearnet is Way.CLOSED:
        raise AddressError(f"{address}: only-net leaves clearnet out, and there is no tor to reach it by")
    if face is Face.CLEARNET and ways.clearnet is Way.PROXY:
        _check_proxied(address, is_loopback=is_loopback)
    elif endpoint is None and face is not Face.I2P:
        raise AddressError(f"{address}: names are not looked up, since that would tell others; give its IP address")
    if face is Face.I2P:
        _check_i2p(address, ways)
    if face is Face.ONION and not ways.onion:
        raise AddressError(f"{address}: tor is not used; start the node with --tor auto, or set tor and only-net")
    if face is Face.ONION and address.carrier is not CarrierNumber.PLAIN:
        raise AddressError(f"{address}: onion services are reached with carrier=plain")
    if address.carrier not in CLIENTS:
        raise AddressError(
            f"{address}: this version has no carrier {address.carrier.name.lower()} yet; use carrier=plain"
        )


def _check_i2p(address: Address, ways: Ways) -> None:
    """Names are for the router's own address book; they come from the operator alone, since gossip carries none."""
    if not ways.i2p:
        raise AddressError(f"{address}: I2P is not used; start the node with --i2p auto, or set i2p and only-net")
    if address.carrier is not CarrierNumber.PLAIN:
        raise AddressError(f"{address}: I2P destinations are reached with carrier=plain")
    if address.port:
        raise AddressError(f"{address}: I2P has no ports; write {address.host}:0")


def _check_proxied(address: Address, *, is_loopback: bool) -> None:
    """Through a Tor exit or a proxy: tls or ssh, and only to a known key. Names are for the proxy to look up."""
    if is_loopback:
        raise AddressError(
            f"{address}: this machine itself is not reached through tor or a proxy, and nothing is dialled directly"
        )
    if address.carrier not in (CarrierNumber.TLS, CarrierNumber.SSH):
        raise AddressError(f"{address}: through tor or a proxy a clearnet address needs carrier=tls or carrier=ssh")
    if address.key is None:
        raise AddressError(
            f"{address}: through tor or a proxy a clearnet address needs its key: obscura://KEY@{address.host}:{address.port}"
        )
