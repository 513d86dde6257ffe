"""Penalties for faults in authenticated content (specification, *Error Handling*; design 10).

Points are given by the numbers in ``limits`` and halve every ten minutes. A hundred end the link and discourage the host for
a day: it is admitted while slots are free, evicted first, dialled last. Whatever someone in between could cause (tag,
carrier, time-out, a key that was not proven) never comes here.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from obscura.limits import (
    DISCONNECT_POINTS,
    DISCOURAGED_HOSTS,
    DISCOURAGED_S,
    LEFT_SCORES,
    MALFORMED_POINTS,
    POINTS_HALF_LIFE_S,
)
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Disconnect, Effect, LinkId, Notify, Penalise
from obscura.node.peer import Face, Peer
from obscura.wire.address import Endpoint
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
    """Keeps the score of every link, and the hosts that are discouraged."""

    def __init__(self) -> None:
        self._scores: dict[LinkId, _Score] = {}
        self._left: OrderedDict[bytes, _Score] = OrderedDict()  # by host, of links that ended
        self._sessions: Counter[bytes] = Counter()
        self._discouraged: OrderedDict[bytes, float] = OrderedDict()  # host -> until

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {Malformed: self.on_malformed}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        host = _host(peer)
        known = self._left.pop(host, None) if host is not None else None
        self._scores[peer.link] = known or _Score(now)
        if host is not None:
            self._sessions[host] += 1
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        score, host = self._scores.pop(peer.link, None), _host(peer)
        if host is not None:
            self._sessions[host] -= 1
            if not self._sessions[host]:
                del self._sessions[host]
            if score is not None and 1 <= score.now(now) < DISCONNECT_POINTS:
                _remember(self._left, host, score, LEFT_SCORES)
        return ()

    def on_malformed(self, peer: Peer, message: Malformed, now: float) -> Iterable[Effect]:
        score = self._scores.get(peer.link)
        if score is not None:
            score.malformed += 1
        return (Penalise(peer.link, MALFORMED_POINTS, f"malformed {message.type}: {message.reason}"),)

    def on_penalty(self, peer: Peer, points: int, why: str, now: float) -> Iterable[Effect]:
        score = self._scores.get(peer.link)
        if score is None or score.points >= DISCONNECT_POINTS:
            return ()
        score.points = score.now(now) + points
        told = Notify("penalty", {"peer": peer.link, "points": points, "why": why})
        if score.points < DISCONNECT_POINTS:
            return (told,)
        effects: list[Effect] = [told]
        host = _host(peer)
        if host is not None and self._sessions[host] == 1:  # behind a NAT or exit the others are not to blame
            _remember(self._discouraged, host, now + DISCOURAGED_S, DISCOURAGED_HOSTS)
            effects.append(Notify("discouraged", {"peer": peer.link, "why": why}))
        effects.append(Disconnect(peer.link, f"too many faults, the last one: {why}"))
        return effects

    def is_discouraged(self, endpoint: Endpoint | None, now: float) -> bool:
        """Whether the host ranks last. The port does not matter."""
        until = self._discouraged.get(endpoint.host) if endpoint is not None else None
        return until is not None and now < until

    @property
    def discouraged(self) -> int:
        """Hosts remembered as discouraged, expired ones included."""
        return len(self._discouraged)

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        score = self._scores.get(link)
        return {} if score is None else {"points": round(score.now(now), 1), "malformed": score.malformed}


def _host(peer: Peer) -> bytes | None:
    """Whom the faults of a link are held against; None where others could have made them.

    Bare links can be changed by anyone in between, outbound links without a known key be answered by anyone; inbound links of
    onion and I2P listeners show no address, and the operator judges manual peers.
    """
    if peer.pattern == "none" or peer.is_manual:
        return None
    if not peer.is_inbound:
        place = peer.dialled
        endpoint = place.endpoint if place is not None and place.key is not None else None
        return None if endpoint is None else endpoint.host
    return peer.remote.host if peer.remote is not None and peer.face is Face.CLEARNET else None


def _remember(kept: OrderedDict[bytes, Any], host: bytes, what: object, most: int) -> None:
    kept.pop(host, None)
    while len(kept) >= most:
        kept.popitem(last=False)
    kept[host] = what
