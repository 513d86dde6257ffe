"""The node as a pure function of messages, time and chance: parts with reactions, one routing table.

A *part* owns one subject (ping, addresses, inventory, ...): its state, its reactions, its timers. Parts do not call each other; they
return effects. Adding a subject is one module and one line where the node is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from obscura.node.effects import Effect, LinkId, Notify
from obscura.node.peer import Peer
from obscura.wire.address import Address
from obscura.wire.frame import Malformed, Unknown
from obscura.wire.message import Message

Received = Message | Malformed | Unknown
Reaction = Callable[[Peer, Any, float], Iterable[Effect] | None]


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

    def on_dial_failed(self, address: Address, why: str, now: float) -> Iterable[Effect]:
        """A link that this node wanted did not come up."""
        return ()

    def on_penalty(self, peer: Peer, points: int, why: str, now: float) -> Iterable[Effect]:
        """Someone asked for a penalty against the peer."""
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
        self.routes: dict[type[Received], Reaction] = {}
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

    def dial_failed(self, link: LinkId, address: Address, why: str, now: float) -> list[Effect]:
        """A dialled link ended before it was established."""
        effects: list[Effect] = [Notify("dial-failed", {"peer": link, "address": str(address), "why": why})]
        for part in self.parts:
            effects += part.on_dial_failed(address, why, now)
        return effects

    def penalise(self, link: LinkId, points: int, why: str, now: float) -> list[Effect]:
        """Pass a penalty on to whoever keeps the score."""
        peer = self.peers.get(link)
        effects: list[Effect] = []
        if peer is not None:
            for part in self.parts:
                effects += part.on_penalty(peer, points, why, now)
        return effects

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
