"""Who may dial what (design 8): the face and the carrier that an address may be reached by."""

from __future__ import annotations

from obscura.errors import AddressError
from obscura.morph.kinds import CLIENTS
from obscura.node.face import Face
from obscura.wire.address import Address, CarrierNumber


def face_of(address: Address) -> Face:
    """The face through which an address is dialled."""
    if address.host.endswith(".onion"):
        return Face.ONION
    return Face.I2P if address.host.endswith(".b32.i2p") else Face.CLEARNET


def check_dialable(address: Address, face: Face) -> None:
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
    if endpoint is None:
        raise AddressError(f"{address}: names are not looked up, since that would tell others; give its IP address")
    if face is not Face.CLEARNET:
        raise AddressError(f"{address}: this version does not reach onion and I2P addresses yet")
    if address.carrier not in CLIENTS:
        raise AddressError(
            f"{address}: this version has no carrier {address.carrier.name.lower()} yet; use carrier=plain"
        )
