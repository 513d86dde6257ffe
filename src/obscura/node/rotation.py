"""When sessions move, and where to (specification, *Protocol Rotation*; design 8): at random times, to a place of the same peer.

Only the side that made a link moves it; the other one may ask by ``rotate``. A place counts as the same peer's if it has the same
host and is reached through the same face; where somebody else answers, nothing is learnt by that one, and it is not tried again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from obscura.errors import AddressError, ConfigError, UserError
from obscura.handshake.features import Privacy
from obscura.limits import ROTATE_ASKED_S, ROTATION_AGAIN_S, ROTATION_HOURS, ROTATION_STRANGERS
from obscura.node.backoff import Backoff
from obscura.node.book import Book, Entry
from obscura.node.core import Part, Reaction, Received
from obscura.node.dialable import Ways, check_dialable, face_of
from obscura.node.dialling import Use, use_of
from obscura.node.effects import Effect, LinkId, Move, Notify, Send
from obscura.node.face import Face, Purpose
from obscura.node.peer import Moved, Peer
from obscura.node.timers import Timers
from obscura.shaping.levels import ALL_CARRIERS
from obscura.wire.address import Address, CarrierNumber
from obscura.wire.messages.privacy import Rotate


class RotationSettings(msgspec.Struct, frozen=True, rename="kebab"):
    """The section ``rotation`` of the configuration."""

    enabled: Annotated[
        bool, Meta(description="move links to new connections at random times, and when a peer asks")
    ] = True
    min_hours: Annotated[float, Meta(ge=0.01, le=720, description="hours between two moves of a link, at least")] = (
        ROTATION_HOURS[0]
    )
    max_hours: Annotated[float, Meta(ge=0.01, le=720, description="hours between two moves of a link, at most")] = (
        ROTATION_HOURS[1]
    )
    carriers: Annotated[
        tuple[str, ...],
        Meta(description='carriers to choose from, such as ["ssh"]; [] = all that the privacy level uses'),
    ] = ()

    def __post_init__(self) -> None:
        if self.min_hours > self.max_hours:
            raise ConfigError(f"rotation: min-hours = {self.min_hours} is more than max-hours = {self.max_hours}")
        for name in self.carriers:
            if name not in ALL_CARRIERS:
                raise ConfigError(f"rotation.carriers: {name!r} is none of {', '.join(ALL_CARRIERS)}")


class _Moving:
    """One link."""

    __slots__ = ("address", "again", "asked_at", "generation", "moved_at", "strangers")

    def __init__(self, address: Address | None) -> None:
        self.address = address  # where it runs now; None = the peer made it
        self.generation = 0
        self.moved_at: float | None = None
        self.asked_at: float | None = None  # by the peer
        self.again = _backoff()
        self.strangers: frozenset[Address] = frozenset()  # not that peer's


class Rotation(Part):
    """Chooses times and places; the engine moves."""

    def __init__(
        self,
        settings: RotationSettings,
        book: Book,
        rng: random.Random,
        unix: Callable[[], float],
        *,
        carriers: Sequence[str],
        ways: Ways,
        named: Sequence[Address] = (),
    ) -> None:
        """``carriers``: what the privacy level uses for clearnet. ``named``: addresses that the operator wrote down."""
        self._settings = settings
        self._book = book
        self._rng = rng
        self._unix = unix
        self._carriers = frozenset(carriers)
        self._ways = ways
        self._named = tuple(named)
        self._links: dict[LinkId, _Moving] = {}
        self._timers: Timers[LinkId] = Timers()

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {Rotate: self.on_rotate}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links[peer.link] = _Moving(None if peer.is_inbound else peer.dialled)
        if peer.purpose is not Purpose.FEELER and peer.negotiated.flags.has(Privacy.ProtocolMorphing):
            self._plan(peer.link, now)
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links.pop(peer.link, None)
        self._timers.clear(peer.link)
        return ()

    def on_rotate(self, peer: Peer, message: Rotate, now: float) -> Iterable[Effect]:
        """The peer would like us to move. From who made the link it means nothing."""
        moving = self._links[peer.link]
        is_early = moving.asked_at is not None and now - moving.asked_at < ROTATE_ASKED_S
        if (
            moving.address is None
            or is_early
            or not self._settings.enabled
            or not peer.negotiated.flags.has(Privacy.ProtocolMorphing)
        ):
            return ()
        moving.asked_at = now
        return self._move(peer.link, moving)

    def on_moved(self, peer: Peer, moved: Moved, now: float) -> Iterable[Effect]:
        moving = self._links[peer.link]
        moving.generation = moved.generation
        if not moved.why:
            moving.moved_at = now
            moving.again = _backoff()
            moving.strangers = frozenset()
            if moved.address is not None:
                moving.address = moved.address
                self._plan(peer.link, now)
                endpoint = moved.address.endpoint
                if endpoint is not None:
                    self._book.good((endpoint, moved.address.carrier), moved.address.key)
            return ()
        if moved.address is not None and moved.address != moving.address and len(moving.strangers) < ROTATION_STRANGERS:
            moving.strangers |= {moved.address}
        if peer.link in self._timers or self._settings.enabled:
            self._timers.set(peer.link, now + moving.again.next_s(self._rng))
        return ()

    def deadline(self) -> float:
        return self._timers.deadline()

    def due(self, now: float) -> Iterable[Effect]:
        return [effect for link in self._timers.due(now) for effect in self._move(link, self._links[link])]

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        """``rotations``: moves so far. Seconds since the last one, and until the next one that is planned."""
        moving = self._links.get(link)
        when = self._timers.when(link)
        return {
            "rotations": moving.generation if moving is not None else 0,
            "rotated_s": None if moving is None or moving.moved_at is None else round(now - moving.moved_at, 1),
            "rotates_in_s": None if when is None else round(when - now, 1),
        }

    # --- The operator -----------------------------------------------------------------------------------------------

    def ask(self, link: LinkId, to: Address | None = None, carrier: str | None = None) -> list[Effect]:
        """Move a link now, or ask the peer to if that one made it. Raises ``UserError``."""
        moving = self._links.get(link)
        if moving is None:
            raise UserError(f"there is no peer {link}: `obscura peers` lists them")
        if moving.address is None:
            if to is not None or carrier is not None:
                raise UserError(
                    f"peer {link} made this link and chooses where it moves: leave out the address and carrier"
                )
            return [Send(link, Rotate()), Notify("rotation-asked", {"peer": link})]
        if to is None and carrier is not None:
            fits = [place for place in self._places(moving) if place.carrier.name.lower() == carrier]
            if not fits:
                raise UserError(f"no address of peer {link} with carrier={carrier} is known: give one with --to")
            to = self._rng.choice(fits)
        return self._move(link, moving, to)

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _plan(self, link: LinkId, now: float) -> None:
        if self._settings.enabled and self._links[link].address is not None:
            hours = self._rng.uniform(self._settings.min_hours, self._settings.max_hours)
            self._timers.set(link, now + hours * 3_600)

    def _move(self, link: LinkId, moving: _Moving, to: Address | None = None) -> list[Effect]:
        if to is None:
            places = self._places(moving)
            others = [place for place in places if place != moving.address]
            to = self._rng.choice(others) if others else moving.address
        assert to is not None
        endpoint = to.endpoint
        if endpoint is not None:
            self._book.attempt((endpoint, to.carrier))
        return [Move(link, to)]

    def _places(self, moving: _Moving) -> list[Address]:
        """Where the peer can be reached, as far as is known and allowed; where it is reached now is among them if that is."""
        here = moving.address
        assert here is not None
        found = {here: None}
        found |= {place: None for place in self._named if place.host == here.host}
        endpoint = here.endpoint
        if endpoint is not None and not endpoint.is_loopback:  # there, many nodes share one host
            network, host = endpoint.network, endpoint.host
            # Security: the peer may ask. As texts a full book would take a third of a second, which all links would show.
            near = [e for e in self._book.entries() if e.endpoint.host == host and e.endpoint.network is network]
            found |= {place: None for entry in near if (place := self._told(entry, here)) is not None}
        return [place for place in found if place not in moving.strangers and self._may_use(place, here)]

    def _told(self, entry: Entry, here: Address) -> Address | None:
        """How to dial an entry of the same host, if it may be the same peer and may be tried now."""
        place, keys = (entry.endpoint.port, entry.carrier), entry.keys
        if place == (here.port, here.carrier):
            return None
        if entry.face is not face_of(here) or not entry.may_try(self._unix()):
            return None
        use = use_of(
            entry.endpoint,
            entry.carrier,
            has_key=keys.is_known,
            is_trusted=keys.is_trusted,
            allow_unauthenticated=False,
        )
        return None if use is Use.NOTHING else entry.address(self._rng)

    def _may_use(self, place: Address, here: Address) -> bool:
        name = place.carrier.name.lower()
        if place.carrier is CarrierNumber.BARE or (self._settings.carriers and name not in self._settings.carriers):
            return False
        endpoint = place.endpoint
        is_local = endpoint is not None and endpoint.is_loopback
        if face_of(place) is Face.CLEARNET and not is_local and name not in self._carriers:
            return False
        try:
            check_dialable(place, face_of(here), self._ways)
        except AddressError:
            return False
        return True


def _backoff() -> Backoff:
    return Backoff(most_s=ROTATION_AGAIN_S[1], first_s=ROTATION_AGAIN_S[0])
