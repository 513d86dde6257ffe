"""Telling peers of a new tip, in the way that costs each of them least (specification, *inv*, *headers*; BIP130, BIP152).

A node with several faces shows a new tip at each of them after a delay of its own: else who watches two faces sees both change at
the same moment, block after block.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from math import inf

from obscura.limits import ANNOUNCED_HEADERS, CATCHING_UP_S, TIP_LAG_S
from obscura.node.blocks import Blocks, NewTip
from obscura.node.chainpeer import ChainPeer
from obscura.node.compactrelay import CompactRelay
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.face import Face
from obscura.node.timers import Timers
from obscura.wire.messages.blocks import CmpctBlock, Headers, Inv, InventoryItem, InventoryKind


class Announcing:
    """Who was told of which tip. At once; while more blocks are known to come, once in a while."""

    def __init__(
        self,
        blocks: Blocks,
        peers: Mapping[LinkId, ChainPeer],
        compact: CompactRelay,
        by_inv: Container[LinkId],
        rng: random.Random,
        faces: Iterable[Face],
    ) -> None:
        """``by_inv``: links whose peers take no headers."""
        self._blocks = blocks
        self._peers = peers
        self._compact = compact
        self._by_inv = by_inv
        self._late: NewTip | None = None  # nobody was told of it yet
        self._told_at = -inf
        self._rng = rng
        self._faces = frozenset(faces)
        # Tips that the faces of a node with several show; a single one shows the newest.
        self._shown: dict[Face, bytes] = dict.fromkeys(self._faces, blocks.tip) if len(self._faces) > 1 else {}
        self._steps: dict[Face, NewTip] = {}  # not shown yet
        self._lags: Timers[Face] = Timers()

    # --- What each face shows -----------------------------------------------------------------------------------------

    def shown(self, face: Face) -> bytes:
        """The tip that this face shows."""
        return self._shown.get(face, self._blocks.tip)

    def is_hidden(self, face: Face, block_id: bytes) -> bool:
        """Whether the block came lately, is perhaps not even on the disk, and this face does not show it yet."""
        chain = self._blocks.chain
        return face in self._shown and block_id in chain and chain.height(block_id) > chain.height(self.shown(face))

    def visible(self, face: Face, ids: Sequence[bytes]) -> Sequence[bytes]:
        """Those of the ids, in order of height, that this face shows."""
        if face not in self._shown:
            return ids
        chain = self._blocks.chain
        return ids[: bisect_right(ids, chain.height(self.shown(face)), key=chain.height)]

    # --- News ---------------------------------------------------------------------------------------------------------

    def tell(self, step: NewTip, now: float) -> list[Effect]:
        """The acknowledged tip has moved."""
        if self._blocks.chain.best != step.tip and now < self._told_at + CATCHING_UP_S:
            self._late = step
            return []
        self._late, self._told_at = None, now
        if len(self._faces) < 2:
            return self._tell(step, self._peers.values())
        for face in sorted(self._faces):
            self._steps[face] = step
            if face not in self._lags:
                self._lags.set(face, now + self._rng.uniform(0, TIP_LAG_S))
        return []

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
        late = inf if self._late is None else self._told_at + CATCHING_UP_S
        return min(late, self._lags.deadline())

    def due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self._late is not None and now >= self._told_at + CATCHING_UP_S:
            effects += self.tell(self._late, now)
        for face in self._lags.due(now):
            step = self._steps.pop(face)
            self._shown[face] = step.tip
            effects += self._tell(step, [peer for peer in self._peers.values() if peer.peer.face is face])
        return effects
