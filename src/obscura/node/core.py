"""The node as a pure function of messages, time and chance: parts with reactions, one routing table.

A *part* owns one subject (ping, addresses, inventory, ...): its state, its reactions, its timers. Parts do not call each
other; they return effects. Adding a subject is one module and one line where the node is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from math import inf
from typing import Any

from obscura.linkevents import Arriving
from obscura.node.effects import Effect, LinkId, Merit, Notify
from obscura.node.peer import DialFailed, Moved, Peer
from obscura.shaping.watch import Breach
from obscura.wire.address import Endpoint
from obscura.wire.frame import Malformed, Unknown
from obscura.wire.message import Message

Received = Message | Malformed | Unknown | Arriving | Breach
Reaction = Callable[[Peer, Any, float], Iterable[Effect] | None]


def plain(reaction: Reaction) -> Reaction:
    """The same reaction. Raises ``ValueError`` for what cannot be one, which would end each link that brings its message."""
    if not callable(reaction) or iscoroutinefunction(reaction):
        raise ValueError("a reaction is a plain function of (peer, message, now): nobody awaits an async one")
    return reaction


class Part:
    """Base of all parts. Every method has a neutral default, so that a part overrides only what it needs.

    ``now`` is monotonic seconds. Reactions may return None for "nothing to do", which is the cheapest.
    """

    def reactions(self) -> Mapping[type[Received], Reaction]:
        """What this part reacts to. A message type belongs to exactly one part."""
        return {}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        """A link is up."""
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        """An established link ended; its state can be forgotten."""
        return ()

    def on_dial_failed(self, failed: DialFailed, now: float) -> Iterable[Effect]:
        """A link that this node wanted did not come up."""
        return ()

    def on_moved(self, peer: Peer, moved: Moved, now: float) -> Iterable[Effect]:
        """The link goes on over another connection, or was to. Only who chose that has to care."""
        return ()

    def refuses(self, endpoint: Endpoint, now: float) -> str | None:
        """Why no link with this place is wanted at all, in either direction; None = it may be."""
        return None

    def room_for(self, newcomer: Peer, now: float) -> Iterable[Effect] | None:
        """What to do before an inbound link is let in (end another one, say); None = do not let it in."""
        return ()

    def on_penalty(self, peer: Peer, points: int, why: str, now: float) -> Iterable[Effect]:
        """Someone asked for a penalty against the peer."""
        return ()

    def on_credit(self, peer: Peer, merit: Merit, now: float) -> Iterable[Effect]:
        """Someone says that the peer was the first to bring something new."""
        return ()

    def on_kept(self, token: int, now: float) -> Iterable[Effect]:
        """Every ``Keep`` up to this token is on the disk."""
        return ()

    def on_fetched(self, token: int, raw: bytes | None, now: float) -> Iterable[Effect]:
        """What a ``Fetch`` found."""
        return ()

    def on_room(self, peer: Peer, now: float) -> Iterable[Effect]:
        """Little waits for the peer, as ``AwaitRoom`` asked."""
        return ()

    def on_arriving(self, peer: Peer, arriving: Arriving, now: float) -> Iterable[Effect]:
        """Something long of the peer keeps coming: what else it was asked for may be in it or behind it."""
        return ()

    def deadline(self) -> float:
        """When ``due`` wants to be called; ``inf`` = not by itself."""
        return inf

    def due(self, now: float) -> Iterable[Effect]:
        """A deadline has passed."""
        return ()

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        """What `obscura peers` shows of this part's state of one link, ready for JSON."""
        return {}


class Core:
    """All parts behind one routing table. Knows messages and peers; no bytes, no sockets."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.peers: dict[LinkId, Peer] = {}
        self.routes: dict[type[Received], Reaction] = {Arriving: self._arriving}
        for part in self.parts:
            for message, reaction in part.reactions().items():
                self.route(message, reaction)

    def route(self, message: type[Received], reaction: Reaction) -> None:
        """Add one reaction. Raises ``ValueError`` if the type already has one."""
        if message in self.routes:
            raise ValueError(f"{message.__name__} already has a reaction")
        self.routes[message] = reaction

    def established(self, peer: Peer, now: float) -> list[Effect]:
        """A link is up."""
        self.peers[peer.link] = peer
        effects: list[Effect] = [Notify("peer-connected", {"peer": peer.link, "inbound": peer.is_inbound})]
        for part in self.parts:
            effects += part.on_established(peer, now)
        return effects

    def _arriving(self, peer: Peer, arriving: Arriving, now: float) -> list[Effect]:
        return [e for part in self.parts for e in part.on_arriving(peer, arriving, now)]

    def received(self, peer: Peer, message: Received, now: float) -> Iterable[Effect]:
        """The one reaction's effects; none for a type that nobody asked for."""
        reaction = self.routes.get(type(message))
        return (reaction(peer, message, now) or ()) if reaction is not None else ()

    def closed(self, link: LinkId, reason: str, now: float) -> list[Effect]:
        """A link ended."""
        peer = self.peers.pop(link, None)
        if peer is None:
            return []
        effects: list[Effect] = [Notify("peer-disconnected", {"peer": link, "reason": reason})]
        for part in self.parts:
            effects += part.on_closed(peer, now)
        return effects

    def dial_failed(self, failed: DialFailed, now: float) -> list[Effect]:
        """A dialled link ended before it was established."""
        fields = {"peer": failed.link, "address": str(failed.address), "why": failed.why}
        effects: list[Effect] = [Notify("dial-failed", fields)]
        for part in self.parts:
            effects += part.on_dial_failed(failed, now)
        return effects

    def moved(self, moved: Moved, now: float) -> list[Effect]:
        """A link goes on over another connection, or was to."""
        peer = self.peers.get(moved.link)
        if peer is None:
            return []
        address = None if moved.address is None else str(moved.address)
        fields = {"peer": moved.link, "address": address, "generation": moved.generation, "why": moved.why}
        effects: list[Effect] = [Notify("rotation-failed" if moved.why else "rotated", fields)]
        for part in self.parts:
            effects += part.on_moved(peer, moved, now)
        return effects

    def refuses(self, endpoint: Endpoint | None, now: float) -> str | None:
        """Why no link with this place is wanted; None = it may be."""
        if endpoint is None:
            return None
        return next((why for part in self.parts if (why := part.refuses(endpoint, now)) is not None), None)

    def room_for(self, newcomer: Peer, now: float) -> list[Effect] | None:
        """What to do before an inbound link is let in; None = do not let it in."""
        effects: list[Effect] = []
        for part in self.parts:
            wanted = part.room_for(newcomer, now)
            if wanted is None:
                return None
            effects += wanted
        return effects

    def penalise(self, link: LinkId, points: int, why: str, now: float) -> list[Effect]:
        """Pass a penalty on to whoever keeps the score."""
        peer = self.peers.get(link)
        return [] if peer is None else [e for part in self.parts for e in part.on_penalty(peer, points, why, now)]

    def credit(self, link: LinkId, merit: Merit, now: float) -> list[Effect]:
        """Pass a merit on to whoever protects peers by it."""
        peer = self.peers.get(link)
        return [] if peer is None else [e for part in self.parts for e in part.on_credit(peer, merit, now)]

    def kept(self, token: int, now: float) -> list[Effect]:
        """The archive has written everything up to this token."""
        return [e for part in self.parts for e in part.on_kept(token, now)]

    def fetched(self, token: int, raw: bytes | None, now: float) -> list[Effect]:
        """The archive has read a block, or does not have it."""
        return [e for part in self.parts for e in part.on_fetched(token, raw, now)]

    def room(self, link: LinkId, now: float) -> list[Effect]:
        """Little waits for a link."""
        peer = self.peers.get(link)
        return [] if peer is None else [e for part in self.parts for e in part.on_room(peer, now)]

    def deadline(self) -> float:
        """The earliest deadline of any part."""
        return min((part.deadline() for part in self.parts), default=inf)

    def due(self, now: float) -> list[Effect]:
        """Every part whose deadline has passed acts."""
        effects: list[Effect] = []
        for part in self.parts:
            if part.deadline() <= now:
                effects += part.due(now)
        return effects

    def describe(self, link: LinkId, now: float) -> dict[str, Any]:
        """What all parts say of one link."""
        said: dict[str, Any] = {}
        for part in self.parts:
            said.update(part.describe(link, now))
        return said
