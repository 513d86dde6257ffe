"""Liveness (specification, *ping/pong: Node liveness check*): a ping every two minutes, each link with its own random phase."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from obscura.limits import PING_DEAD_S, PING_INTERVAL_S
from obscura.linkevents import Arriving
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import AwaitRoom, Disconnect, Effect, LinkId, Notify, Send
from obscura.node.peer import Peer
from obscura.node.timers import Timers
from obscura.wire.messages.network import Ping, Pong


class _Link:
    __slots__ = ("answered", "asked", "best_s", "last_s", "late_at", "nonce", "sent")

    def __init__(self) -> None:
        self.nonce: int | None = None  # of the ping in flight
        self.sent = 0.0
        self.late_at = -inf  # when no pong had come for too long, unless the ping has not even left
        self.answered = -inf  # when the newest ping was sent that was answered
        self.asked = False  # by the operator: tell the result
        self.last_s: float | None = None
        self.best_s: float | None = None


class Liveness(Part):
    """Sends pings, answers them, measures round trips, drops the dead. Only one ping is in flight per link."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._links: dict[LinkId, _Link] = {}
        self._timers: Timers[LinkId] = Timers()

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {Ping: self.on_ping, Pong: self.on_pong}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links[peer.link] = _Link()
        self._timers.set(peer.link, now + self._rng.uniform(0, PING_INTERVAL_S))
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links.pop(peer.link, None)
        self._timers.clear(peer.link)
        return ()

    def on_ping(self, peer: Peer, message: Ping, now: float) -> Iterable[Effect]:
        return (Send(peer.link, Pong(message.nonce)),)

    def on_pong(self, peer: Peer, message: Pong, now: float) -> Iterable[Effect]:
        state = self._links.get(peer.link)
        if state is None or message.nonce != state.nonce:
            return ()  # late or made up: it proves nothing
        state.nonce, state.answered, state.late_at = None, state.sent, -inf
        state.last_s = now - state.sent
        state.best_s = state.last_s if state.best_s is None else min(state.best_s, state.last_s)
        self._timers.set(peer.link, now + PING_INTERVAL_S)
        if not state.asked:
            return ()
        state.asked = False
        return (Notify("pong", {"peer": peer.link, "rtt_ms": round(state.last_s * 1000, 3)}),)

    def on_arriving(self, peer: Peer, arriving: Arriving, now: float) -> Iterable[Effect]:
        """It lives: its pong is behind what comes."""
        state = self._links.get(peer.link)
        if state is not None and state.nonce is not None:
            self._timers.set(peer.link, now + PING_DEAD_S)
        return ()

    def best_s(self, link: LinkId) -> float:
        """The shortest round trip of a link so far; ``inf`` = none measured."""
        state = self._links.get(link)
        return inf if state is None or state.best_s is None else state.best_s

    def answered(self, link: LinkId) -> float:
        """When the newest ping was sent that the peer has answered: it has read what was sent before. ``-inf`` = none."""
        state = self._links.get(link)
        return -inf if state is None else state.answered

    def ask(self, link: LinkId, now: float) -> Iterable[Effect]:
        """Ping now because the operator wants to know; a ``pong`` notification follows."""
        state = self._links.get(link)
        if state is None:
            return ()
        state.asked = True
        return () if state.nonce is not None else self._ping(link, state, now)

    def deadline(self) -> float:
        return self._timers.deadline()

    def due(self, now: float) -> Iterable[Effect]:
        effects: list[Effect] = []
        for link in self._timers.due(now):
            state = self._links[link]
            if state.nonce is None:
                effects += self._ping(link, state, now)
            else:
                state.late_at = now
                effects.append(AwaitRoom(link, 0))
        return effects

    def on_room(self, peer: Peer, now: float) -> Iterable[Effect]:
        state = self._links.get(peer.link)
        if state is None or state.late_at == -inf:
            return ()
        late_at, state.late_at = state.late_at, -inf
        if late_at == now:
            return (Disconnect(peer.link, f"no pong for {PING_DEAD_S / 60:.0f} minutes"),)
        self._timers.set(peer.link, now + PING_DEAD_S)  # the ping was behind much else
        return ()

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        state = self._links.get(link)
        if state is None:
            return {}
        in_ms = [None if value is None else round(value * 1000, 3) for value in (state.last_s, state.best_s)]
        return {"ping_ms": in_ms[0], "best_ping_ms": in_ms[1]}

    def _ping(self, link: LinkId, state: _Link, now: float) -> Iterable[Effect]:
        state.nonce = self._rng.getrandbits(64)
        state.sent = now
        self._timers.set(link, now + PING_DEAD_S)
        return (Send(link, Ping(state.nonce)),)
