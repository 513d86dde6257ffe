"""Telling peers of a new tip, in the way that costs each of them least (specification, *inv*, *headers*; BIP130, BIP152)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from math import inf

from obscura.limits import ANNOUNCED_HEADERS, CATCHING_UP_S
from obscura.node.blocks import Blocks, NewTip
from obscura.node.chainpeer import ChainPeer
from obscura.node.compactrelay import CompactRelay
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.face import Face
from obscura.node.shown import Shown
from obscura.wire.messages.blocks import CmpctBlock, Headers, Inv, InventoryItem, InventoryKind


class Announcing:
    """Who was told of which tip. At once; while more blocks are known to come, once in a while."""

    def __init__(
        self,
        blocks: Blocks,
        peers: Mapping[LinkId, ChainPeer],
        compact: CompactRelay,
        by_inv: Container[LinkId],
        shown: Shown,
    ) -> None:
        """``by_inv``: links whose peers take no headers."""
        self._blocks = blocks
        self._peers = peers
        self._compact = compact
        self._by_inv = by_inv
        self._late: NewTip | None = None  # nobody was told of it yet
        self._told_at = -inf
        self._shown = shown
        self._steps: dict[Face, NewTip] = {}  # not shown yet

    def tell(self, step: NewTip, now: float) -> list[Effect]:
        """The acknowledged tip has moved."""
        if self._blocks.chain.best != step.tip and now < self._told_at + CATCHING_UP_S:
            self._late = step
            return []
        self._late, self._told_at = None, now
        if not self._shown.late:
            return self._tell(step, self._peers.values())
        for face in self._shown.late:
            self._steps[face] = step
        self._shown.news(now)
        return []

    def show(self, face: Face) -> list[Effect]:
        """The face shows what is new from now on: its peers are told of the tip."""
        step = self._steps.pop(face, None)
        if step is None:
            return []
        self._shown.show(face, step.tip)
        return self._tell(step, [peer for peer in self._peers.values() if peer.peer.face is face])

    def _tell(self, step: NewTip, peers: Iterable[ChainPeer]) -> list[Effect]:
        chain, tip = self._blocks.chain, step.tip
        parent = chain.ledger.parent_id(chain.header(tip))
        effects: list[Effect] = []
        forms: dict[Face, CmpctBlock] = {}
        for peer in peers:
            if peer.knows(chain, tip):
                continue
            if peer.wants_compact and step.block is not None and peer.knows(chain, parent):
                face = peer.peer.face
                if face not in forms:
                    forms[face] = self._compact.form(step.block, face)
                effects.append(Send(peer.link, forms[face]))
            else:
                effects.append(self._usual(peer, tip))
            peer.sent = tip
        return effects

    def _usual(self, peer: ChainPeer, tip: bytes) -> Effect:
        """A few headers that connect to what the peer has, else an inv."""
        chain = self._blocks.chain
        forks = [chain.fork_point(known, tip) for known in (peer.best, peer.sent) if known is not None]
        start = max(forks, key=chain.height, default=None)
        height = chain.height(tip)
        if start is None or peer.link in self._by_inv or height - chain.height(start) > ANNOUNCED_HEADERS:
            return Send(peer.link, Inv((InventoryItem(InventoryKind.BLOCK, tip),)))
        ids = [chain.ancestor(tip, at) for at in range(chain.height(start) + 1, height + 1)]
        return Send(peer.link, Headers(tuple(map(chain.header, ids))))

    def deadline(self) -> float:
        return inf if self._late is None else self._told_at + CATCHING_UP_S

    def due(self, now: float) -> list[Effect]:
        return [] if self._late is None else self.tell(self._late, now)
