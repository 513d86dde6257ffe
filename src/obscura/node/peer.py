"""What the reactions know about the other end of an established link. Facts only: each part keeps its own state by link."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from obscura.handshake.machine import Negotiated
from obscura.node.effects import LinkId
from obscura.wire.address import Address, CarrierNumber, Endpoint


class Face(IntEnum):
    """Through which of the node's faces a link runs (design 5). The number is the prologue's listener kind."""

    CLEARNET = 1
    ONION = 2
    I2P = 3


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
