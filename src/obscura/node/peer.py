"""What the reactions know about the other end of an established link. Facts only: each part keeps its own state by link."""

from __future__ import annotations

from enum import Enum

import msgspec

from obscura.handshake.machine import Negotiated
from obscura.node.effects import LinkId
from obscura.node.face import Face as Face
from obscura.node.face import Purpose as Purpose
from obscura.wire.address import Address, CarrierNumber, Endpoint


class Peer(msgspec.Struct, frozen=True):
    """One established link. ``dialled`` is set on outbound links, ``remote`` where the socket shows an address."""

    link: LinkId
    face: Face
    carrier: CarrierNumber
    is_inbound: bool
    is_manual: bool
    dialled: Address | None
    remote: Endpoint | None
    session_id: bytes
    proved_key: bytes | None
    pattern: str
    negotiated: Negotiated
    since: float
    purpose: Purpose = Purpose.FULL

    @property
    def relays_all(self) -> bool:
        """Whether addresses and transactions may run over it: not a block-only link or a feeler."""
        return self.purpose is Purpose.FULL


class Failure(Enum):
    """Why a wanted link did not come up, by what it says about the address (design 10, *Keys in the book*)."""

    OFFLINE = "this machine has no network"  # nothing about the address
    UNREACHABLE = "no connection"  # against the address
    SILENT = "no handshake"  # the connection stood, the cover or the handshake failed: against the address
    UNPROVEN = "the key was not proven"  # against that key only
    REFUSED = "refused"  # one side does not want the other
    OURSELVES = "it is this node"
    LOCAL = "not tried or given up by this node"  # nothing about the address


class Moved(msgspec.Struct, frozen=True):
    """An established link was to go on over a new connection, the ``generation``-th one; ``why`` it does not, if it does not.

    ``address``: where that is, if this side dialled.
    """

    link: LinkId
    address: Address | None
    generation: int
    why: str = ""


class DialFailed(msgspec.Struct, frozen=True):
    """A link that this node wanted did not come up. ``link`` 0 = it was not even begun."""

    link: LinkId
    address: Address
    failure: Failure
    why: str
    purpose: Purpose = Purpose.FULL
    is_manual: bool = False
