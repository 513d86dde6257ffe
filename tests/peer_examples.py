"""Peers, places and parts for the tests of address book, slots and penalties."""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import Any

from obscura.handshake.features import BUILT
from obscura.handshake.machine import Negotiated
from obscura.node.book import Book
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.peer import Peer
from obscura.wire.address import Address, CarrierNumber, Endpoint, Network
from obscura.wire.messages.network import Extension, Version

UNIX = 1_800_000_000


class Clock:
    """Unix seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.now = float(UNIX)

    def __call__(self) -> int:
        return int(self.now)


def endpoint(text: str, port: int = 9_733) -> Endpoint:
    address = ip_address(text)
    return Endpoint(Network.IPV4 if address.version == 4 else Network.IPV6, address.packed, port)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def negotiated(observed: Endpoint | None = None) -> Negotiated:
    extensions = () if observed is None else (Extension.observed(observed),)
    version = Version(1, UNIX, BUILT.features, BUILT.privacy, "Obscura/1.0.0", bytes(32), 0, 1, extensions)
    return Negotiated(1, BUILT, version, None, None, None, 0)


def peer(
    link: int,
    host: str = "203.0.114.5",
    *,
    inbound: bool = True,
    face: Face = Face.CLEARNET,
    port: int = 9_733,
    proved: bytes | None = None,
    known_key: bytes | None = None,
    observed: Endpoint | None = None,
    carrier: CarrierNumber = CarrierNumber.TLS,
    **more: Any,
) -> Peer:
    """One established link; outbound with ``known_key`` as NK, else NX."""
    place = endpoint(host, port)
    fields: dict[str, Any] = {
        "link": link,
        "face": face,
        "carrier": carrier,
        "is_inbound": inbound,
        "is_manual": False,
        "dialled": None if inbound else Address(known_key, host, port, carrier),
        "remote": place,
        "session_id": link.to_bytes(32, "big"),
        "proved_key": proved,
        "pattern": "NK",
        "negotiated": negotiated(observed),
        "since": float(link),
    }
    return Peer(**{**fields, **more})


def book(clock: Clock, seed: int = 1, grouping: Grouping | None = None) -> Book:
    rng = random.Random(seed)
    return Book(rng.randbytes(32), grouping or Grouping(), rng, clock)
