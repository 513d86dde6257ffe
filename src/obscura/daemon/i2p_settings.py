"""What the configuration says of the I2P router. No socket is opened here."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta

from obscura.daemon import layers
from obscura.errors import ConfigError
from obscura.transport.sam_words import session_options
from obscura.transport.tor_words import endpoint_of
from obscura.wire.address import Endpoint


class I2pSettings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The section ``i2p-router``: how the router is reached, and what tunnels it is to make for this node."""

    sam: Annotated[str, Meta(description="IP:PORT of the router's SAM bridge")] = "127.0.0.1:7656"
    service: Annotated[bool, Meta(description="be reached by others at an I2P destination of one's own")] = True
    fresh: Annotated[
        bool,
        Meta(description="a destination never used before for each link to others, instead of one for all; slow"),
    ] = False
    inbound_length: Annotated[int, Meta(ge=0, le=7, description="hops of a tunnel towards this node")] = 3
    outbound_length: Annotated[int, Meta(ge=0, le=7, description="hops of a tunnel away from this node")] = 3
    inbound_quantity: Annotated[int, Meta(ge=1, le=16, description="tunnels towards this node")] = 3
    outbound_quantity: Annotated[int, Meta(ge=1, le=16, description="tunnels away from this node")] = 3
    lease_set_type: Annotated[
        int | None, Meta(description="i2cp.leaseSetType: 1 or 3; unset leaves it to the router")
    ] = None
    lease_set_encryption: Annotated[
        tuple[int, ...], Meta(description="i2cp.leaseSetEncType: 4 is ECIES-X25519; [] leaves it to the router")
    ] = (4,)

    def __post_init__(self) -> None:
        layers.check(self)

    def check(self) -> None:
        """Raises ``ConfigError`` for what does not mean anything."""
        self.place()
        if self.lease_set_type not in (None, 1, 3):
            raise ConfigError(
                "i2p-router.lease-set-type: 1 is the old LeaseSet, 3 the LeaseSet2; others are not for nodes"
            )
        if any(kind not in (0, 4) for kind in self.lease_set_encryption):
            raise ConfigError("i2p-router.lease-set-encryption: 4 is ECIES-X25519, 0 is ElGamal")

    def place(self) -> Endpoint:
        """Where the bridge is. Raises ``ConfigError``."""
        found = endpoint_of(self.sam)
        if found is None:
            raise ConfigError(
                f"i2p-router.sam = {self.sam}: give IP:PORT such as 127.0.0.1:7656; names are not looked up"
            )
        if not ip_address(found.host).is_private:
            raise ConfigError(
                f"i2p-router.sam = {self.sam}: SAM is not encrypted, and keys go over it: "
                "use a router on this machine or in your own network"
            )
        return found

    def options(self) -> dict[str, object]:
        """What sessions are made with."""
        return session_options(
            inbound=(self.inbound_length, self.inbound_quantity),
            outbound=(self.outbound_length, self.outbound_quantity),
            lease_set=self.lease_set_type,
            encryption=self.lease_set_encryption,
        )
