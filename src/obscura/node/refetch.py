"""Blocks that the disk damaged after they were checked: peers are asked for them anew, and the chain stays as it is meanwhile."""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import inf

from obscura.limits import REFETCH_REST_S, REFETCH_S, REFETCHED_AT_ONCE
from obscura.node.blocks import Blocks
from obscura.node.chainpeer import ChainPeer
from obscura.node.download import Download
from obscura.node.effects import Effect, LinkId, Send
from obscura.wire.messages.blocks import InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData


class Refetch:
    """Asks one peer after the other for what ``Blocks.lost`` names. That it comes is the download's matter."""

    def __init__(
        self, blocks: Blocks, download: Download, peers: Mapping[LinkId, ChainPeer], rng: random.Random
    ) -> None:
        self._blocks = blocks
        self._download = download
        self._peers = peers
        self._rng = rng
        self._asked: dict[bytes, tuple[float, set[LinkId]]] = {}  # since when, of whom
        self._at = 0.0  # when to look again, while anything is lost

    def joined(self, now: float) -> None:
        """A peer is there that perhaps was not asked yet."""
        self._at = now

    def deadline(self) -> float:
        return self._at if self._blocks.lost else inf

    def due(self, now: float) -> list[Effect]:
        """Ask for some, each of a peer that was not asked for it lately."""
        self._at = now + REFETCH_S
        lost = self._blocks.lost
        self._asked = {block_id: asked for block_id, asked in self._asked.items() if block_id in lost}
        effects: list[Effect] = []
        # Of those that nobody has, however many, none keeps others back: what was asked for longest ago is first.
        for block_id in sorted(lost, key=lambda each: self._asked[each][0] if each in self._asked else -inf):
            effects += self._ask(block_id, now)
            if len(effects) == REFETCHED_AT_ONCE:
                break
        return effects

    def _ask(self, block_id: bytes, now: float) -> list[Effect]:
        since, asked = self._asked.get(block_id, (-inf, set()))
        if now - since >= REFETCH_REST_S:
            asked = set()
            self._asked[block_id] = now, asked
        fresh = [link for link, peer in self._peers.items() if link not in asked and self._has(peer, block_id)]
        if not fresh:
            return []
        link = self._rng.choice(fresh)
        if not self._download.expect(link, block_id, self._blocks.chain.height(block_id), now):
            return []
        asked.add(link)
        return [Send(link, GetData((InventoryItem(InventoryKind.BLOCK, block_id),)))]

    def _has(self, peer: ChainPeer, block_id: bytes) -> bool:
        """Whether the chain that the peer showed has the block. It may have pruned it."""
        chain, height = self._blocks.chain, self._blocks.chain.height(block_id)
        best = peer.best
        return best is not None and chain.height(best) >= height and chain.ancestor(best, height) == block_id
