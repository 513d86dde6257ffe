"""Outbound slots: whom the node chooses to talk to (design 10; specification, *Eclipse Attack Prevention*)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any

import msgspec

from obscura.limits import (
    EMPTY_S,
    FEELER_S,
    FILL_S,
    MISSING_FACE_S,
    OFFLINE_MOST_S,
    OUTBOUND_BLOCKS,
    OUTBOUND_FULL,
    ROTATION_S,
    SETTLED_S,
    STALE_CHECK_S,
    STALE_LEAST_S,
    STALE_SPACINGS,
    STARVED_S,
    USELESS_PLACES,
)
from obscura.node.backoff import Backoff
from obscura.node.book import Book, Entry, Place
from obscura.node.core import Part
from obscura.node.dialling import Use, own_face
from obscura.node.effects import Dial, Disconnect, Effect, LinkId, Merit, Notify
from obscura.node.face import Face, Purpose
from obscura.node.groups import Grouping
from obscura.node.ownaddress import OwnAddress
from obscura.node.peer import DialFailed, Failure, Peer
from obscura.node.timers import Timers
from obscura.wire.address import Address, Endpoint

# Where all nodes of one machine are, told apart by their ports alone.
_SHARED = (bytes((127, 0, 0, 1)), bytes(15) + b"\1")


class OutboundLimits(msgspec.Struct, frozen=True):
    """How many links the node makes by itself; ``full`` 0 = none of any kind."""

    full: int = OUTBOUND_FULL
    blocks: int = OUTBOUND_BLOCKS
    feelers: bool = True


class _Dialled(msgspec.Struct, frozen=True):
    """A dial that is under way, or the link that it became."""

    place: Place
    group: bytes
    purpose: Purpose
    face: Face
    is_extra: bool  # beyond the slots: when it stands, another one goes


class Tip(msgspec.Struct, frozen=True):
    """What the chain says: the id of its best header, and the usual seconds between blocks."""

    best: Callable[[], bytes]
    spacing_s: float


class Slots(Part):
    """Keeps the slots filled, one peer per group, at least one in each face; feelers, anchors, stale tip, slow rotation."""

    def __init__(
        self,
        book: Book,
        own: OwnAddress,
        grouping: Grouping,
        rng: random.Random,
        now: float,
        *,
        limits: OutboundLimits,
        faces: frozenset[Face],
        refuses: Callable[[Endpoint, float], str | None],
        is_discouraged: Callable[[Endpoint, float], bool],
        allow_unauthenticated: bool = False,
        is_proxied: bool = False,
        tip: Tip | None = None,
    ) -> None:
        """``is_proxied``: clearnet links leave by a Tor exit or a proxy."""
        self._book = book
        self._own = own
        self._grouping = grouping
        self._rng = rng
        self._limits = limits
        self._faces = faces
        self._refuses = refuses
        self._is_discouraged = is_discouraged
        self._allow_unauthenticated = allow_unauthenticated
        self._is_proxied = is_proxied
        self._tip = tip
        self._tip_seen = (b"", now)  # the best header at the last look, and since when
        self._dialling: dict[Address, _Dialled] = {}
        self._links: dict[LinkId, _Dialled] = {}
        self._others: dict[LinkId, Peer] = {}  # manual and inbound ones
        self._since: dict[LinkId, float] = {}
        self._last_block: dict[LinkId, float] = {}
        self._anchors: list[Place] = []
        self._useless: set[Place] = set()
        self._wait = Backoff(most_s=OFFLINE_MOST_S)  # while the network is away
        self._starved_at = -1  # the book's count of news when it had nothing for us
        self._look_again = inf  # when to ask it again if there are more
        self._timers: Timers[str] = Timers()
        if limits.full:
            self._timers.set("fill", now)
            self._timers.set("rotate", now + rng.expovariate(1 / ROTATION_S))
            self._timers.set("face", now + rng.expovariate(1 / MISSING_FACE_S))
            if limits.feelers:
                self._timers.set("feel", now + rng.expovariate(1 / FEELER_S))
            if tip is not None:
                self._timers.set("stale", now + STALE_CHECK_S * rng.uniform(0.5, 1.5))

    # --- Anchors ----------------------------------------------------------------------------------------------------

    @property
    def anchors(self) -> list[Place]:
        """Whom to dial first after a restart: the block-only peers of now, else those not reached yet since the last one."""
        current = [d.place for d in self._links.values() if d.purpose is Purpose.BLOCKS]
        return [*current, *(place for place in self._anchors if place not in current)][: self._limits.blocks]

    def restore_anchors(self, places: Sequence[Place]) -> None:
        """The anchors of the last run."""
        self._anchors = list(places)[: self._limits.blocks]

    # --- What happens -----------------------------------------------------------------------------------------------

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        is_ours = peer.dialled is not None and not peer.is_manual
        dialled = self._dialling.pop(peer.dialled, None) if is_ours else None  # type: ignore[arg-type]
        if peer.dialled is not None and peer.dialled.endpoint is not None:
            self._book.good((peer.dialled.endpoint, peer.dialled.carrier), peer.proved_key)
            self._wait = Backoff(most_s=OFFLINE_MOST_S)
        if dialled is None:
            self._others[peer.link] = peer
            return ()
        if dialled.purpose is Purpose.FEELER:
            return (Disconnect(peer.link, "feeler: the address is good"),)
        goes = self._replaced(dialled, now) if dialled.is_extra else None
        self._links[peer.link] = dialled
        self._since[peer.link] = now
        if dialled.is_extra and goes is None:
            return (Disconnect(peer.link, "nobody to replace"),)
        return (Disconnect(goes, "replaced by another outbound peer"),) if goes is not None else ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._others.pop(peer.link, None)
        self._since.pop(peer.link, None)
        self._last_block.pop(peer.link, None)
        if self._links.pop(peer.link, None) is not None:
            self._timers.set("fill", now + self._rng.uniform(*FILL_S))
        return ()

    def on_credit(self, peer: Peer, merit: Merit, now: float) -> Iterable[Effect]:
        if merit is Merit.BLOCK and peer.link in self._links:
            self._last_block[peer.link] = now
        return ()

    def on_dial_failed(self, failed: DialFailed, now: float) -> Iterable[Effect]:
        dialled = None if failed.is_manual else self._dialling.pop(failed.address, None)
        endpoint = failed.address.endpoint
        if endpoint is None:
            return ()
        place = (endpoint, failed.address.carrier)
        kind, key = failed.failure, failed.address.key
        if kind is Failure.UNPROVEN and key is not None:
            self._book.key_failed(place, key)
        elif kind in (Failure.UNREACHABLE, Failure.SILENT) and not self._is_alone:
            self._book.failed(place)  # with no link at all, the fault is probably our own network's
        elif kind is Failure.OURSELVES:
            self._book.forget(place)
        elif kind is Failure.LOCAL and dialled is not None and len(self._useless) < USELESS_PLACES:
            self._useless.add(place)
        elif kind is Failure.OFFLINE and (self._is_alone or own_face(endpoint) is not Face.CLEARNET):
            # Where other links stand, a clearnet address may be of a kind that this machine never reaches (IPv6, say): it waits.
            self._book.not_attempted(place)
        is_away = kind is Failure.OFFLINE or self._is_alone
        if dialled is not None and is_away:
            if dialled.purpose is Purpose.BLOCKS and len(self._anchors) < self._limits.blocks:
                self._anchors.append(place)
            self._timers.set("fill", now + self._wait.next_s(self._rng))
        elif dialled is not None and dialled.purpose is not Purpose.FEELER:
            self._timers.set("fill", now + self._rng.uniform(*FILL_S))
        return ()

    def deadline(self) -> float:
        is_hopeful = self._book.news != self._starved_at
        return min(self._timers.deadline(), self._look_again if is_hopeful else inf)

    def due(self, now: float) -> Iterable[Effect]:
        effects: list[Effect] = []
        if now >= self._look_again and self._book.news != self._starved_at:
            self._look_again = inf
            self._timers.set("fill", now)
        for name in self._timers.due(now):
            if name == "fill":
                effects += self._fill(now)
            elif name == "feel":
                self._timers.set("feel", now + self._rng.expovariate(1 / FEELER_S))
                effects += self._feel(now)
            elif name == "rotate":
                self._timers.set("rotate", now + self._rng.expovariate(1 / ROTATION_S))
                effects += self._extra(now, None)
            elif name == "face":
                self._timers.set("face", now + self._rng.expovariate(1 / MISSING_FACE_S))
                effects += self._extra(now, self._missing_faces()) if self._missing_faces() else ()
            else:
                self._timers.set("stale", now + STALE_CHECK_S)
                effects += self._look_at_tip(now)
        return effects

    # --- Dials ------------------------------------------------------------------------------------------------------

    def _fill(self, now: float) -> Iterable[Effect]:
        """One dial for a free slot; block-only first, so that anchors are."""
        free = {
            Purpose.BLOCKS: self._limits.blocks - self._held(Purpose.BLOCKS),
            Purpose.FULL: self._limits.full - self._held(Purpose.FULL),
        }
        if free[Purpose.BLOCKS] > 0 and self._anchors:
            entry = self._book.get(self._anchors.pop(0))
            self._timers.set("fill", now + self._rng.uniform(*FILL_S))
            if entry is not None and self._suits(entry, Purpose.BLOCKS, now, None):
                return self._dial(entry, Purpose.BLOCKS)
        # A full link first: it brings addresses, from which the others are chosen.
        wanted = [p for p in (Purpose.FULL, Purpose.BLOCKS) if free[p] > 0]
        if not wanted:
            return ()
        purpose = Purpose.BLOCKS if len(wanted) > 1 and self._held(Purpose.FULL) >= 2 else wanted[0]
        missing = self._missing_faces()
        faces = missing if missing and purpose is Purpose.FULL and free[Purpose.FULL] <= len(missing) else None
        entry = self._choose(purpose, now, faces)
        if entry is None:
            if len(self._book):
                self._timers.set("fill", now + STARVED_S)
            self._starved_at, self._look_again = self._book.news, now + self._rng.uniform(*EMPTY_S)
            return self._feel(now) if self._is_alone else ()  # whoever proves a key there can be linked to
        self._timers.set("fill", now + self._rng.uniform(*FILL_S))
        return self._dial(entry, purpose)

    def _feel(self, now: float) -> Iterable[Effect]:
        """Try an address that nobody of ours has proved yet, or one that may lose its place in the tried table."""
        if any(d.purpose is Purpose.FEELER for d in self._dialling.values()):
            return ()
        entry = self._book.test_due()
        if entry is not None and self._stands(entry.place):
            # It answers at this moment, and a second link to it is never made: untested, it would lose its cell.
            self._book.good(entry.place, None)
            entry = None
        if entry is None or not self._suits(entry, Purpose.FEELER, now, None):
            suits = partial(self._suits, purpose=Purpose.FEELER, now=now, faces=None)
            entry = self._book.pick(suits, only_new=True, alone=self._is_alone)
        return self._dial(entry, Purpose.FEELER) if entry is not None else ()

    def _extra(self, now: float, faces: frozenset[Face] | None) -> Iterable[Effect]:
        """One more full link than there are slots, if they are full: another goes once it stands.

        A slot that is kept for a face of which nobody is known may stay free for good, and counts as taken.
        """
        held = self._held(Purpose.FULL)
        kept = len(self._missing_faces()) if held and faces is None else 0
        if held + kept < self._limits.full or any(d.is_extra for d in self._dialling.values()):
            return ()
        entry = self._choose(Purpose.FULL, now, faces)
        return self._dial(entry, Purpose.FULL, is_extra=True) if entry is not None else ()

    def _look_at_tip(self, now: float) -> Iterable[Effect]:
        if self._tip is None:
            return ()
        best = self._tip.best()
        if best != self._tip_seen[0]:
            self._tip_seen = (best, now)
        if now - self._tip_seen[1] < max(STALE_LEAST_S, STALE_SPACINGS * self._tip.spacing_s):
            return ()
        return (Notify("stale-tip", {}), *self._extra(now, None))

    def _choose(self, purpose: Purpose, now: float, faces: frozenset[Face] | None) -> Entry | None:
        passed_over = False

        def is_good(entry: Entry) -> bool:
            nonlocal passed_over
            if self._is_discouraged(entry.endpoint, now):
                passed_over = True
                return False
            return suits(entry)

        def suits(entry: Entry) -> bool:
            return self._suits(entry, purpose, now, faces)

        good = self._book.pick(is_good, alone=self._is_alone)
        if good is not None or not passed_over:
            return good
        return self._book.pick(suits, alone=self._is_alone)  # a discouraged one only if there is no other

    def _dial(self, entry: Entry, purpose: Purpose, *, is_extra: bool = False) -> Iterable[Effect]:
        use = self._use(entry)
        address = entry.address(self._rng, with_key=use is not Use.FEELER)
        group = self._grouping.of(entry.endpoint)
        self._dialling[address] = _Dialled(entry.place, group, purpose, entry.face, is_extra)
        self._book.attempt(entry.place)
        return (Dial(address, purpose=purpose, face=entry.face),)

    # --- Whom -------------------------------------------------------------------------------------------------------

    def _suits(self, entry: Entry, purpose: Purpose, now: float, faces: frozenset[Face] | None) -> bool:
        endpoint, place = entry.endpoint, entry.place
        if entry.face not in (self._faces if faces is None else faces) or place in self._useless:
            return False
        if own_face(endpoint) is not entry.face and not endpoint.is_loopback:
            return False  # refused at every dial (``dialable``); a book of before may have it
        taken = [*self._links.values(), *self._dialling.values()]
        if any(d.place == place for d in taken):
            return False
        use = self._use(entry)
        if use is Use.NOTHING or (purpose is not Purpose.FEELER and (use is Use.FEELER or entry.feelers_only)):
            return False
        if purpose is not Purpose.FEELER:
            group = self._grouping.of(endpoint)
            if any(d.group == group for d in taken if d.purpose is not Purpose.FEELER):
                return False
        if self._own.is_own(endpoint) or self._is_linked(entry, purpose):
            return False
        return self._refuses(endpoint, now) is None

    def _stands(self, place: Place) -> bool:
        """Whether a link that we dialled stands there."""
        manual = (peer.dialled for peer in self._others.values() if peer.dialled is not None)
        return any(d.place == place for d in self._links.values()) or any(
            (a.endpoint, a.carrier) == place for a in manual
        )

    def _is_linked(self, entry: Entry, purpose: Purpose) -> bool:
        """Whether a manual peer is there; on loopback (network dev) any peer on that host: one link is enough.

        Who dialled us may want blocks alone, which the wire does not say: our only full link is one that we dialled. Two nodes
        of one machine that know each other have one link all the same: there a second one is as likely to be of the same pair.
        """
        needs_own = (
            purpose is Purpose.FULL
            and entry.endpoint.host not in _SHARED
            and not self._held(purpose)
            and all(p.is_inbound for p in self._others.values())
        )
        for peer in self._others.values():
            if needs_own and peer.is_inbound:
                continue
            place = peer.dialled.endpoint if peer.dialled is not None else peer.remote
            if place is None or place.host != entry.endpoint.host:
                continue
            if place.is_loopback or (peer.dialled is not None and place == entry.endpoint):
                return True
        return False

    def _use(self, entry: Entry) -> Use:
        return entry.use(allow_unauthenticated=self._allow_unauthenticated, is_proxied=self._is_proxied)

    @property
    def _is_alone(self) -> bool:
        """Whether no link stands at all: what fails then fails perhaps by the own network."""
        return not (self._links or self._others)

    def _held(self, purpose: Purpose) -> int:
        """Slots of a kind that are taken or about to be; extra ones apart."""
        standing = sum(d.purpose is purpose for d in self._links.values())
        return standing + sum(d.purpose is purpose and not d.is_extra for d in self._dialling.values())

    def _missing_faces(self) -> frozenset[Face]:
        there = {d.face for d in (*self._links.values(), *self._dialling.values()) if d.purpose is Purpose.FULL}
        there |= {peer.face for peer in self._others.values() if not peer.is_inbound}
        return self._faces - there if len(self._faces) > 1 else frozenset()

    def _replaced(self, by: _Dialled, now: float) -> LinkId | None:
        """The full link that an extra one replaces: settled, not the only one of its face, longest without a new block."""
        full = {link: d for link, d in self._links.items() if d.purpose is Purpose.FULL}
        faces = Counter(d.face for d in full.values())
        able = [
            link
            for link, d in full.items()
            if now - self._since[link] >= SETTLED_S and (faces[d.face] > 1 or d.face is by.face)
        ]
        return min(able, key=lambda link: (self._last_block.get(link, -inf), self._rng.random()), default=None)

    def describe(self, link: LinkId, now: float) -> dict[str, Any]:
        last = self._last_block.get(link)
        return {} if last is None else {"last_block_s": round(now - last, 1)}
