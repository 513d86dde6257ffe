"""Penalties for faults in authenticated content (specification, *Error Handling*; design 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from obscura.limits import DISCONNECT_POINTS, MALFORMED_POINTS, POINTS_HALF_LIFE_S
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Disconnect, Effect, LinkId, Notify, Penalise
from obscura.node.peer import Peer
from obscura.wire.frame import Malformed


class _Score:
    __slots__ = ("at", "malformed", "points")

    def __init__(self, now: float) -> None:
        self.points = 0.0
        self.at = now
        self.malformed = 0

    def now(self, now: float) -> float:
        """The points, halved every ten minutes."""
        self.points *= 0.5 ** ((now - self.at) / POINTS_HALF_LIFE_S)
        self.at = now
        return self.points


class Reputation(Part):
    """Keeps the score of every link; 100 points end it."""

    def __init__(self) -> None:
        self._scores: dict[LinkId, _Score] = {}

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {Malformed: self.on_malformed}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._scores[peer.link] = _Score(now)
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._scores.pop(peer.link, None)
        return ()

    def on_malformed(self, peer: Peer, message: Malformed, now: float) -> Iterable[Effect]:
        score = self._scores.get(peer.link)
        if score is not None:
            score.malformed += 1
        return (Penalise(peer.link, MALFORMED_POINTS, f"malformed {message.type}: {message.reason}"),)

    def on_penalty(self, peer: Peer, points: int, why: str, now: float) -> Iterable[Effect]:
        score = self._scores.get(peer.link)
        if score is None:
            return ()
        score.points = score.now(now) + points
        told = Notify("penalty", {"peer": peer.link, "points": points, "why": why})
        if score.points < DISCONNECT_POINTS:
            return (told,)
        return (told, Disconnect(peer.link, f"too many faults, the last one: {why}"))

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        score = self._scores.get(link)
        return {} if score is None else {"points": round(score.now(now), 1), "malformed": score.malformed}
