"""What peers tell each other about addresses (specification, *addr: Peer address sharing*, *getaddr: Request peer addresses*)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from obscura.limits import (
    ADDR_BURST,
    ADDR_DELAY_S,
    ADDR_FRESH_S,
    ADDR_KNOWN,
    ADDR_PENALTY_S,
    ADDR_PER_S,
    ADDR_RELAY_PEERS,
    ADDR_RELAYED,
    ANNOUNCE_S,
    GETADDR_BLUR_S,
    GETADDR_CACHE_S,
    GETADDR_SHARE,
    MAX_ADDR,
)
from obscura.node.book import Book, Entry
from obscura.node.coarse import CoarseClock
from obscura.node.core import Part, Reaction, Received
from obscura.node.dialling import ANONYMOUS, may_learn, own_face
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.groups import Grouping
from obscura.node.ownaddress import OwnAddress
from obscura.node.peer import Face, Peer
from obscura.node.ratelimit import TokenBucket
from obscura.node.timers import Timers
from obscura.wire.address import Address, CarrierNumber, Endpoint
from obscura.wire.messages.network import Addr, AddrEntry, GetAddr

_DAY_S = 86_400


class _Link:
    __slots__ = ("answered", "asked", "bucket", "known", "looked_at", "peer", "waiting")

    def __init__(self, peer: Peer, now: float) -> None:
        self.peer = peer
        self.bucket = TokenBucket(ADDR_PER_S, ADDR_BURST, now, tokens=1.0)
        self.answered = False  # its getaddr
        self.asked = False  # by our getaddr, and not answered yet
        self.known: dict[int, None] = {}  # hashes of places of which the peer has the news
        self.waiting: list[AddrEntry] = []  # to be told at its timer
        self.looked_at = 0


class _Answer:
    """One getaddr answer for everybody on a face, so that asking often shows no more than asking once."""

    __slots__ = ("entries", "known", "until")

    def __init__(self, entries: tuple[AddrEntry, ...], known: int, until: float) -> None:
        self.entries = entries
        self.known = known
        self.until = until


class Gossip(Part):
    """Fills the book from ``addr``, passes news on to one or two peers, announces the own address, answers ``getaddr``.

    Block-only links and feelers take no part. What came through one face is never told through another.
    """

    def __init__(
        self,
        book: Book,
        own: OwnAddress,
        grouping: Grouping,
        rng: random.Random,
        unix: Callable[[], int],
        key: bytes,
        *,
        loopback: bool,
        services: int,
        faces: frozenset[Face],
    ) -> None:
        self._book = book
        self._own = own
        self._grouping = grouping
        self._rng = rng
        self._unix = unix
        self._coarse = CoarseClock(unix, rng)
        self._key = key
        self._loopback = loopback
        self._services = services
        self._faces = faces
        self._links: dict[LinkId, _Link] = {}
        self._answers: dict[Face, _Answer] = {}
        self._announced: dict[Face, list[Address]] = {}
        self._timers: Timers[tuple[str, LinkId]] = Timers()

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {GetAddr: self.on_getaddr, Addr: self.on_addr}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        if not peer.relays_all:
            return ()
        link = self._links[peer.link] = _Link(peer, now)
        known = self._own.announced(peer.face)
        if known and known != self._announced.get(peer.face):  # peers have just agreed on where we are, say
            effects = self.announce_all(now, peer.face)
        else:
            effects = list(self._announce(link, now))
        if not peer.is_inbound:
            link.asked = True
            link.bucket.give(ADDR_BURST, now)
            effects.append(Send(peer.link, GetAddr()))
        return effects

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links.pop(peer.link, None)
        for kind in ("announce", "relay"):
            self._timers.clear((kind, peer.link))
        return ()

    def on_getaddr(self, peer: Peer, message: GetAddr, now: float) -> Iterable[Effect]:
        link = self._links.get(peer.link)
        if link is None or link.answered or not peer.is_inbound:
            return ()  # once per link (design 10); whom we dialled could tell by the answer which node we are
        link.answered = True
        entries = self._answer(peer.face, now)
        return (Send(peer.link, Addr(entries)),) if entries else ()

    def on_addr(self, peer: Peer, message: Addr, now: float) -> Iterable[Effect]:
        link = self._links.get(peer.link)
        if link is None:
            return ()
        entries = list(message.entries)
        self._rng.shuffle(entries)  # what is over the limit is not the peer's choice
        is_news = len(entries) <= ADDR_RELAYED
        was_asked, link.asked = link.asked, False  # a small answer is one too: in a young network there is no other
        allowed = link.bucket.take_some(len(entries), now)
        link.looked_at += allowed
        for told in entries[:allowed]:
            endpoint = told.endpoint
            if endpoint is None or not may_learn(endpoint, told.carrier, loopback=self._loopback):
                continue
            if self._own.is_own(endpoint):
                continue
            if endpoint.network in ANONYMOUS and own_face(endpoint) is not peer.face:
                continue  # told through another network: it could be used on neither without linking the two
            # Another is never dialled by what this face tells, and its book would show here.
            if own_face(endpoint) is peer.face:
                self._learn(peer, endpoint, told)
            if is_news and not was_asked and told.time > self._unix() - ADDR_FRESH_S:
                link.known[_mark(told)] = None
                self._relay(peer, endpoint, told, now)
        if len(link.known) > ADDR_KNOWN:
            link.known.clear()
        return ()

    def announce_all(self, now: float, face: Face) -> list[Effect]:
        """The own address on a face has become known or has changed: tell the peers there. Elsewhere nothing may show it."""
        self._announced[face] = self._own.announced(face)
        links = [link for link in self._links.values() if link.peer.face is face]
        return [effect for link in links for effect in self._announce(link, now)]

    def deadline(self) -> float:
        return self._timers.deadline()

    def due(self, now: float) -> Iterable[Effect]:
        effects: list[Effect] = []
        for kind, link_id in self._timers.due(now):
            link = self._links[link_id]
            if kind == "announce":
                effects += self._announce(link, now)
            else:
                told, link.waiting = link.waiting, []
                effects.append(Send(link_id, Addr(tuple(told[:MAX_ADDR]))))
        return effects

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        known = self._links.get(link)
        return {} if known is None else {"addresses_taken": known.looked_at}

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _learn(self, peer: Peer, endpoint: Endpoint, told: AddrEntry) -> None:
        unix = int(self._unix())
        seen = unix - 5 * _DAY_S if told.time > unix + 600 or told.time < 100_000_000 else told.time
        teller = peer.remote if peer.is_inbound or peer.dialled is None else peer.dialled.endpoint
        source = self._grouping.of(teller) if teller is not None and peer.face is Face.CLEARNET else bytes([peer.face])
        is_own_word = peer.is_inbound and teller is not None and teller.host == endpoint.host
        carrier = CarrierNumber(told.carrier)
        seen -= 0 if is_own_word else ADDR_PENALTY_S
        entry = self._book.learn(endpoint, carrier, peer.face, source, seen, told.services)
        if entry is not None and told.key is not None:
            self._book.told_key(entry, told.key, source, is_own_word=is_own_word)
        dialled = peer.dialled
        if dialled is not None and (dialled.endpoint, dialled.carrier) == (endpoint, carrier):
            self._book.good((endpoint, carrier), peer.proved_key)  # this very link proved it

    def _relay(self, teller: Peer, endpoint: Endpoint, told: AddrEntry, now: float) -> None:
        """To one or two peers of the same face, the same ones all day, so that news neither storms nor maps our links."""
        entry = self._book.get((endpoint, CarrierNumber(told.carrier)))
        is_known = entry is not None and entry.face is teller.face
        key = entry.keys.verified if entry is not None and is_known else None  # no other is passed on (design 10)
        news = AddrEntry(told.time, told.services, told.network, told.host, told.port, told.carrier, key)
        mark = _mark(told)
        day = int(self._unix() + int.from_bytes(told.host[-2:], "big")) // _DAY_S
        seed = told.host + day.to_bytes(4, "big")
        able = [
            link
            for link in self._links.values()
            if link.peer.face is teller.face and link.peer is not teller and mark not in link.known
        ]
        able.sort(key=lambda link: blake2b(seed + link.peer.session_id, key=self._key, digest_size=8).digest())
        count = ADDR_RELAY_PEERS if own_face(endpoint) in self._faces else 1
        for link in able[:count]:
            self._tell(link, news, mark, now)

    def _tell(self, link: _Link, news: AddrEntry, mark: int, now: float) -> None:
        link.known[mark] = None
        if not link.waiting:
            self._timers.set(("relay", link.peer.link), now + self._rng.expovariate(1 / ADDR_DELAY_S))
        if len(link.waiting) < MAX_ADDR:
            link.waiting.append(news)

    def _announce(self, link: _Link, now: float) -> Iterable[Effect]:
        peer = link.peer
        self._timers.set(("announce", peer.link), now + self._rng.expovariate(1 / ANNOUNCE_S))
        unix = int(self._unix()) if peer.face is Face.CLEARNET else self._coarse.shown(peer.face)
        told = [_entry_of(address, unix, self._services) for address in self._own.announced(peer.face)]
        return (Send(peer.link, Addr(tuple(told[:ADDR_RELAYED]))),) if told else ()

    def _answer(self, face: Face, now: float) -> tuple[AddrEntry, ...]:
        answer = self._answers.get(face)
        known = self._book.known_through(face)  # of the whole book, news told through another face would show here
        if answer is None or now >= answer.until or known >= 2 * max(1, answer.known):
            unix = int(self._unix())
            shown = self._book.sample(face, GETADDR_SHARE, MAX_ADDR)
            entries = tuple(self._blurred(entry, unix) for entry in shown)
            answer = self._answers[face] = _Answer(entries, known, now + self._rng.uniform(*GETADDR_CACHE_S))
        return answer.entries

    def _blurred(self, entry: Entry, unix: int) -> AddrEntry:
        """Its time is of no use to link two faces, or two answers, to one node."""
        seen = max(0, min(entry.seen, unix) - self._rng.randrange(GETADDR_BLUR_S))
        endpoint, key = entry.endpoint, entry.keys.verified
        return AddrEntry(seen, entry.services, endpoint.network, endpoint.host, endpoint.port, entry.carrier, key)


def _entry_of(address: Address, unix: int, services: int) -> AddrEntry:
    endpoint = address.endpoint
    assert endpoint is not None  # OwnAddress announces nothing else
    host, port = endpoint.host, endpoint.port
    return AddrEntry(unix, services, endpoint.network, host, port, address.carrier, address.key)


def _mark(told: AddrEntry) -> int:
    return hash((told.network, told.host, told.port, told.carrier))
