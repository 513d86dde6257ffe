"""The address book (specification, *addr: Peer address sharing*, *getaddr: Request peer addresses*)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from math import ceil

import msgspec

from obscura.limits import ADDRESS_BOOK_ENTRIES, GETADDR_SHARE, MAX_ADDR, MAX_CANDIDATE_KEYS
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.peer import Face, Peer
from obscura.wire.address import CarrierNumber, Endpoint
from obscura.wire.messages.network import Addr, AddrEntry, GetAddr

_CARRIERS = frozenset(number for number in CarrierNumber if number is not CarrierNumber.BARE)
Place = tuple[Endpoint, CarrierNumber]


class Entry(msgspec.Struct):
    """One place of the book. ``verified`` comes from an own completed handshake only; gossip never touches it."""

    seen: int  # unix seconds, as gossiped or from an own link
    services: int
    face: Face  # through which it was learnt; dialled and passed on only there
    verified: bytes | None = None
    candidates: tuple[bytes, ...] = ()


class AddressBook(Part):
    """Places, what is known of their keys, and the gossip about them. Bounded; a full book learns nothing more."""

    def __init__(self, rng: random.Random, *, allow_loopback: bool) -> None:
        self._rng = rng
        self._allow_loopback = allow_loopback
        self._entries: dict[Place, Entry] = {}
        self._answered: set[LinkId] = set()

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {GetAddr: self.on_getaddr, Addr: self.on_addr}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> Iterable[tuple[Place, Entry]]:
        """Everything in the book."""
        return self._entries.items()

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        if peer.dialled is not None and peer.dialled.endpoint is not None:
            seen = peer.negotiated.peer.timestamp - peer.negotiated.clock_offset_s  # by our own clock
            is_public = peer.dialled.carrier is not CarrierNumber.BARE
            entry = self._learn((peer.dialled.endpoint, peer.dialled.carrier), peer.face, seen) if is_public else None
            if entry is not None and peer.proved_key is not None:
                entry.verified = peer.proved_key
        return () if peer.is_inbound else (Send(peer.link, GetAddr()),)

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._answered.discard(peer.link)
        return ()

    def on_getaddr(self, peer: Peer, message: GetAddr, now: float) -> Iterable[Effect]:
        if peer.link in self._answered:
            return ()  # once per link (design 10)
        self._answered.add(peer.link)
        known = [(place, entry) for place, entry in self._entries.items() if entry.face is peer.face]
        shown = self._rng.sample(known, min(MAX_ADDR, ceil(len(known) * GETADDR_SHARE)))
        return (Send(peer.link, Addr(tuple(_gossip(place, entry) for place, entry in shown))),) if shown else ()

    def on_addr(self, peer: Peer, message: Addr, now: float) -> Iterable[Effect]:
        for told in message.entries:
            endpoint = told.endpoint
            if endpoint is None or told.carrier not in _CARRIERS or (endpoint.is_loopback and not self._allow_loopback):
                continue
            entry = self._learn((endpoint, CarrierNumber(told.carrier)), peer.face, told.time)
            if entry is not None and told.key is not None and told.key not in entry.candidates:
                entry.candidates = (*entry.candidates, told.key)[:MAX_CANDIDATE_KEYS]
        return ()

    def verified_key(self, place: Place) -> bytes | None:
        """The key that this place proved to us."""
        entry = self._entries.get(place)
        return entry.verified if entry is not None else None

    def forget_key(self, place: Place) -> bool:
        """Drop every key of a place, on the operator's word. False if none was known."""
        entry = self._entries.get(place)
        if entry is None or (entry.verified is None and not entry.candidates):
            return False
        entry.verified, entry.candidates = None, ()
        return True

    def _learn(self, place: Place, face: Face, seen: int) -> Entry | None:
        entry = self._entries.get(place)
        if entry is not None:
            entry.seen = max(entry.seen, seen)
            return entry
        if len(self._entries) >= ADDRESS_BOOK_ENTRIES:
            return None
        entry = self._entries[place] = Entry(seen=seen, services=0, face=face)
        return entry


def _gossip(place: Place, entry: Entry) -> AddrEntry:
    endpoint, carrier = place
    return AddrEntry(
        time=entry.seen,
        services=entry.services,
        network=endpoint.network,
        host=endpoint.host,
        port=endpoint.port,
        carrier=carrier,
        key=entry.verified,
    )
