"""Where a node may listen, from the words of its configuration."""

from __future__ import annotations

from obscura.errors import AddressError, ConfigError
from obscura.wire.address import Address, CarrierNumber


def listen_address(text: str) -> Address:
    """A listening address of the configuration; port 0 = any free one. Raises ``ConfigError``."""
    try:
        place = Address.parse(text, listening=True)
    except AddressError as error:
        raise ConfigError(f"listen = {text}: {error}") from None
    if place.key is not None:
        raise ConfigError(f"listen = {text}: leave the key out, the node has its own for each address")
    return place


def check_listenable(place: Address, *, allow_plaintext: bool) -> None:
    """Which carrier may listen where (design 6, 8). Raises ``ConfigError``."""
    if place.carrier is CarrierNumber.BARE and not (allow_plaintext and place.is_loopback):
        raise ConfigError(
            f"listen = {place}: carrier=bare has no encryption; it needs allow-plaintext = true and a loopback address"
        )
    if place.carrier is CarrierNumber.PLAIN and not place.is_loopback:
        raise ConfigError(
            f"listen = {place}: carrier plain is for loopback, behind an onion service or an I2P tunnel; "
            "listen on 127.0.0.1"
        )
    if place.carrier is CarrierNumber.DNS:
        raise ConfigError(f"listen = {place}: this version has no carrier {place.carrier.name.lower()} yet")
