"""Dandelion++ (specification, *Dandelion++ Implementation*; design 9): the stem phase as a part of the core.

A transaction travels as ``stemtx`` along one successor per hop until an edge's coin, a loop, or an embargo diffuses it.
While it does, nothing else of the node knows that it exists: the pool below holds public transactions only, so that
``getdata``, ``inv``, ``mempool``, compact blocks, conflicts and parents answer as if the stem phase did not exist.
Nothing here is logged, counted or described.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Protocol

from obscura.errors import DecodeError
from obscura.handshake.features import Feature, Privacy
from obscura.ledger.port import Fault as LedgerFault
from obscura.ledger.port import FaultKind, Transaction
from obscura.limits import (
    STEM_BYTES,
    STEM_BYTES_PER_PEER,
    STEM_ENTRY_BYTES,
    STEM_TXS_PER_PEER,
    UNWANTED_STEM_POINTS,
)
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Effect, LinkId, Penalise, Send
from obscura.node.embargo import clamped_hop, embargo_mean
from obscura.node.face import Face, Purpose
from obscura.node.peer import Peer
from obscura.node.stem import Routing, StemRoutes, StemTerms, Way
from obscura.node.timers import Timers
from obscura.wire.messages.transactions import StemTx


class PublicPool(Protocol):
    """What Dandelion asks the public mempool. Nothing of it tells the pool of a transaction before ``publish``."""

    def decode(self, raw: bytes) -> Transaction:
        """Raises ``DecodeError``."""

    def fault(self, transaction: Transaction, now: float) -> LedgerFault | None:
        """Why the pool would not take it: judged by what is public alone."""

    def has(self, id: bytes, face: Face | None = None) -> bool:
        """Whether it is public (at the face, else anywhere): waiting for a block, or in one that came lately."""

    def publish(
        self, transaction: Transaction, source: LinkId | None, face: Face | None, now: float
    ) -> Iterable[Effect]:
        """Take it and announce it to everyone, whoever brought it too, at random times.

        ``source``: on whose share of the pool it goes; nothing else may follow from it. ``face``: where it is public first, as
        if a neighbour had brought it to the others; None = it went nowhere yet, so that any will do.
        """

    def announce_again(self, id: bytes, face: Face | None, now: float) -> None:
        """It waits, and perhaps nobody was told of it by an earlier run: as if it had just come, first at the face."""

    def holders(self, id: bytes) -> int:
        """Peers that showed that they have it."""

    def is_told(self, id: bytes) -> bool:
        """Whether a peer that is here has shown that it has it, by silence too, or a block has it."""


class _Stem:
    """One transaction of one edge in the stem phase.

    What another edge brought too is another one: whoever brings it must not see, by a full share, by when or where it goes on,
    that it was here.
    """

    __slots__ = ("edge", "face", "mean_s", "other", "restemmed", "transaction")

    def __init__(self, transaction: Transaction, face: Face, edge: LinkId | None) -> None:
        self.transaction = transaction
        self.face = face
        self.edge = edge  # None = own
        self.other: LinkId | None = None  # where a re-stem goes
        self.mean_s = inf  # of its embargo
        self.restemmed = False

    @property
    def cost(self) -> int:
        """Bytes that it occupies."""
        return len(self.transaction.raw) + STEM_ENTRY_BYTES


class _Share:
    """What one edge occupies."""

    __slots__ = ("bytes", "transactions")

    def __init__(self) -> None:
        self.transactions = 0
        self.bytes = 0


_Key = tuple[LinkId | None, bytes]  # edge and id
# Id, where it is to be diffused (None: it was re-stemmed), now; the answer is None for what is not our own.
Told = Callable[[bytes, Face | None, float], Iterable[Effect] | None]


def _nothing(id: bytes, face: Face | None, now: float) -> None:
    return None


class Dandelion(Part):
    """Relays stem transactions. ``hop_s`` measures the time of one hop over a link; ``own_moved`` hears of own transactions.

    Per face: its own epochs with their own random phase, so that no timing links the faces of a node.
    """

    def __init__(
        self,
        rng: random.Random,
        pool: PublicPool,
        terms: StemTerms | None = None,
        *,
        hop_s: Callable[[LinkId], float | None] = lambda link: None,
    ) -> None:
        self.terms = terms or StemTerms()
        self.own_moved: Told = _nothing
        self.on_routes: Callable[[Face, bool, float], Iterable[Effect]] = lambda face, is_new_epoch, now: ()
        self._rng = rng
        self._pool = pool
        self._hop_s = hop_s
        self._faces: dict[Face, StemRoutes] = {}
        self._epochs: Timers[Face] = Timers()
        self._embargoes: Timers[_Key] = Timers()
        self._stems: dict[_Key, _Stem] = {}
        self._shares: dict[LinkId, _Share] = {}
        self._bytes: Counter[Face] = Counter()

    # --- Links and epochs ---------------------------------------------------------------------------------------------

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {StemTx: self.on_stemtx}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        if not carries_stem(peer):
            return ()
        routes = self._faces.get(peer.face)
        if routes is None:
            routes = self._faces[peer.face] = StemRoutes(self.terms, self._rng)
            self._epochs.set(peer.face, now + self._rng.random() * routes.duration())
        routes.open(peer.link, inbound=peer.is_inbound)
        return () if peer.is_inbound else self.on_routes(peer.face, False, now)

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        routes = self._faces.get(peer.face)
        if routes is not None:
            routes.close(peer.link)
        return ()

    def deadline(self) -> float:
        return min(self._epochs.deadline(), self._embargoes.deadline())

    def due(self, now: float) -> Iterable[Effect]:
        effects: list[Effect] = []
        for face in self._epochs.due(now):
            routes = self._faces[face]
            routes.begin()
            self._epochs.set(face, now + routes.duration())
            effects += self.on_routes(face, True, now)
        for key in self._embargoes.due(now):
            effects += self._embargo_over(self._stems[key], now)
        return effects

    # --- Relay --------------------------------------------------------------------------------------------------------

    def on_stemtx(self, peer: Peer, message: StemTx, now: float) -> Iterable[Effect]:
        """Relay, diffuse or drop; the sender hears nothing in any case."""
        routes = self._faces.get(peer.face)
        if routes is None or not routes.is_edge(peer.link):
            return (Penalise(peer.link, UNWANTED_STEM_POINTS, "stemtx on a link that carries none"),)
        try:
            transaction = self._pool.decode(message.raw)
        except DecodeError:
            return (Penalise(peer.link, UNWANTED_STEM_POINTS, "stemtx that is no transaction"),)
        fault = self._pool.fault(transaction, now)  # each time, known or not, so that the time taken tells nothing
        if fault is not None:
            if fault.kind is FaultKind.INVALID:
                return (Penalise(peer.link, UNWANTED_STEM_POINTS, f"stemtx: {fault.reason}"),)
            return ()
        if self._pool.has(transaction.id, peer.face):  # what it is at another one must not be seen here
            return ()
        if (peer.link, transaction.id) in self._stems:
            return self._diffuse(transaction, peer.link, peer.face, now)  # it went round in a loop
        is_stem = self.terms.routing is not Routing.DIFFUSION and not routes.diffuses(peer.link)
        way = routes.way(peer.link) if is_stem else None
        if way is None:
            return self._diffuse(transaction, peer.link, peer.face, now)
        if not self._admits(peer, transaction):
            return ()
        stem = _Stem(transaction, peer.face, peer.link)
        self._charge(peer.link, stem)
        self._begin(stem, way, now)
        return (Send(way.successor, message),)

    def submit(self, transaction: Transaction, face: Face, now: float) -> Iterable[Effect] | None:
        """Send an own transaction on its way over the own edge of a face; None if there is no successor."""
        routes = self._faces.get(face)
        way = routes.way(None) if routes is not None else None
        if way is None:
            return None
        self._begin(_Stem(transaction, face, None), way, now)
        return (Send(way.successor, StemTx(transaction.raw)),)

    def diffuse(self, transaction: Transaction, face: Face | None, now: float) -> Iterable[Effect]:
        """Make an own transaction public: first at the face, or where it was in the stem phase, as a relayed one is."""
        stem = self._forget((None, transaction.id))
        if face is None and stem is not None:
            face = stem.face
        return self._pool.publish(transaction, None, face, now)

    def forget(self, id: bytes) -> None:
        """Give an own transaction up."""
        self._forget((None, id))

    def successors(self, face: Face = Face.CLEARNET) -> list[LinkId]:
        """Links of this epoch's successors. For simulations; a node shows them to nobody."""
        routes = self._faces.get(face)
        return routes.successors if routes is not None else []

    def has_successor(self, face: Face) -> bool:
        """Whether an own transaction could leave through the face."""
        routes = self._faces.get(face)
        return routes is not None and routes.has_successor

    def has_edge(self, face: Face) -> bool:
        """Whether others' transactions come in through the face, among which own ones that leave there are hidden."""
        routes = self._faces.get(face)
        return routes is not None and routes.has_edge

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _begin(self, stem: _Stem, way: Way, now: float) -> None:
        self._stems[stem.edge, stem.transaction.id] = stem
        stem.other = way.other
        stem.mean_s = embargo_mean(self.terms.q, clamped_hop(self._hop_s(way.successor)))
        self._set_embargo(stem, now)

    def _set_embargo(self, stem: _Stem, now: float) -> None:
        key = (stem.edge, stem.transaction.id)
        self._embargoes.clear(key)
        if stem.mean_s != inf:
            self._embargoes.set(key, now + self._rng.expovariate(1 / stem.mean_s))

    def _embargo_over(self, stem: _Stem, now: float) -> Iterable[Effect]:
        id = stem.transaction.id
        if self._pool.has(id, stem.face):
            self._forget((stem.edge, id))
            return ()
        routes = self._faces[stem.face]
        if self.terms.restems and not stem.restemmed and stem.other is not None and routes.is_up(stem.other):
            stem.restemmed = True
            self._set_embargo(stem, now)
            told = self.own_moved(id, None, now) if stem.edge is None else None
            return (Send(stem.other, StemTx(stem.transaction.raw)), *(told or ()))
        return self._diffuse(stem.transaction, stem.edge, stem.face, now)

    def _diffuse(self, transaction: Transaction, edge: LinkId | None, face: Face, now: float) -> Iterable[Effect]:
        """The stem ends here, as far as this edge is concerned."""
        id = transaction.id
        if edge is not None:
            self._forget((edge, id))
        own = self.own_moved(id, face, now)  # whoever else brought it, its policy decides
        return self._pool.publish(transaction, edge, face, now) if own is None else own

    def _admits(self, edge: Peer, transaction: Transaction) -> bool:
        """Each face has its part: what is dropped at one says nothing of what came in at another."""
        share, size = self._shares.get(edge.link), len(transaction.raw) + STEM_ENTRY_BYTES
        fits = self._bytes[edge.face] + size <= STEM_BYTES // len(Face)
        if share is None:
            return fits
        return fits and share.transactions < STEM_TXS_PER_PEER and share.bytes + size <= STEM_BYTES_PER_PEER

    def _charge(self, edge: LinkId, stem: _Stem) -> None:
        share = self._shares.setdefault(edge, _Share())
        share.transactions += 1
        share.bytes += stem.cost
        self._bytes[stem.face] += stem.cost

    def _discharge(self, edge: LinkId, stem: _Stem) -> None:
        share = self._shares[edge]
        share.transactions -= 1
        share.bytes -= stem.cost
        self._bytes[stem.face] -= stem.cost
        if not share.transactions:
            del self._shares[edge]

    def _forget(self, key: _Key) -> _Stem | None:
        stem = self._stems.pop(key, None)
        self._embargoes.clear(key)
        if stem is not None and stem.edge is not None:
            self._discharge(stem.edge, stem)
        return stem


def carries_stem(peer: Peer) -> bool:
    """Whether the link may carry stem transactions: both flags negotiated, and it is a full one."""
    flags = peer.negotiated.flags
    return flags.has(Feature.Dandelion, Privacy.DandelionPlusPlus) and peer.purpose is Purpose.FULL
