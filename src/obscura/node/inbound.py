"""Inbound slots (design 10): 125 by default, and who goes when there are more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from obscura.node.core import Part
from obscura.node.effects import Disconnect, Effect, LinkId, Merit
from obscura.node.eviction import Candidate, victim
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.peer import Peer
from obscura.wire.address import Endpoint


class Inbound(Part):
    """Counts inbound links; when all slots are taken a newcomer replaces the victim of ``eviction``, or is refused.

    Each face has its share and never more: a newcomer competes with the links of its own face alone. If a face could lend its
    free slots, who fills them through one face and then comes by another would see a link end, and know both as one node's.
    """

    def __init__(
        self,
        max_inbound: int,
        grouping: Grouping,
        key: bytes,
        *,
        faces: frozenset[Face],
        best_ping_s: Callable[[LinkId], float],
        is_discouraged: Callable[[Endpoint | None, float], bool],
    ) -> None:
        self._max = max_inbound
        self._grouping = grouping
        self._key = key
        self._faces = faces
        self._best_ping_s = best_ping_s
        self._is_discouraged = is_discouraged
        self._peers: dict[Face, dict[LinkId, Peer]] = {}
        self._last: dict[tuple[LinkId, Merit], float] = {}

    def allow(self, max_inbound: int) -> None:
        """From now on so many slots; links that stand beyond them stay until they end."""
        self._max = max_inbound

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        if peer.is_inbound:
            self._peers.setdefault(peer.face, {})[peer.link] = peer
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._peers.get(peer.face, {}).pop(peer.link, None)
        for merit in Merit:
            self._last.pop((peer.link, merit), None)
        return ()

    def on_credit(self, peer: Peer, merit: Merit, now: float) -> Iterable[Effect]:
        if peer.is_inbound:
            self._last[peer.link, merit] = now
        return ()

    def room_for(self, newcomer: Peer, now: float) -> Iterable[Effect] | None:
        pool = self._peers.get(newcomer.face, {})
        if len(pool) < self._max // max(1, len(self._faces)):
            return ()
        if self._is_discouraged(newcomer.remote, now):
            return None
        goes = victim([self._candidate(peer, now) for peer in pool.values()], self._key)
        return None if goes is None else (Disconnect(goes.link, "makes room for another inbound peer"),)

    def _candidate(self, peer: Peer, now: float) -> Candidate:
        remote = peer.remote
        return Candidate(
            link=peer.link,
            face=peer.face,
            group=self._grouping.of(remote) if remote is not None else b"",
            since=peer.since,
            best_ping_s=self._best_ping_s(peer.link),
            last_block=self._last.get((peer.link, Merit.BLOCK), -inf),
            last_transaction=self._last.get((peer.link, Merit.TRANSACTION), -inf),
            is_discouraged=self._is_discouraged(remote, now),
        )

    def describe(self, link: LinkId, now: float) -> dict[str, Any]:
        last = {merit: self._last.get((link, merit)) for merit in Merit}
        return {f"last_{merit.value}_s": round(now - when, 1) for merit, when in last.items() if when is not None}
