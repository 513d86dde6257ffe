"""Where a transaction in the stem phase goes: one face's successors, edges and coins for one epoch (design 9).

Specification, *Stem phase: Single successor routing, Fluff probability*. All of it is drawn, nothing computed from a transaction.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import NamedTuple

import msgspec

from obscura.limits import STEM_EPOCH_EXTRA_S, STEM_EPOCH_S, STEM_FLUFF, STEM_SUCCESSORS
from obscura.node.effects import LinkId


class Routing(Enum):
    """How inbound edges find their successor. A node has ONE_TO_ONE; the others are for the simulator to compare with."""

    ONE_TO_ONE = "one-to-one"  # inbound edges are dealt out to the successors evenly
    PER_EDGE = "per-edge"  # each inbound edge draws by itself
    ALL_TO_ONE = "all-to-one"  # everything takes one successor
    PER_TX = "per-tx"  # each transaction draws: whoever sends many learns the graph
    DIFFUSION = "diffusion"  # no stem at all


class Coin(Enum):
    """What a coin of an epoch is drawn for. A node has PER_EDGE; PER_NODE lets a prober read the coin of others."""

    PER_EDGE = "per-edge"
    PER_NODE = "per-node"


class StemTerms(msgspec.Struct, frozen=True):
    """The knobs of the stem phase. ``q`` is the probability that an inbound edge diffuses for an epoch."""

    q: float = STEM_FLUFF
    routing: Routing = Routing.ONE_TO_ONE
    coin: Coin = Coin.PER_EDGE
    restems: bool = True  # at the end of the embargo, once, before diffusing
    successors: int = STEM_SUCCESSORS
    epoch_s: float = STEM_EPOCH_S
    epoch_extra_s: float = STEM_EPOCH_EXTRA_S
    prefers_anonymity: bool = False  # own transactions take Tor or I2P where there is one
    awaits_epoch: bool = False  # own transactions leave at the start of an epoch


class Way(NamedTuple):
    """Where a transaction goes, and the other successor of that epoch, which a re-stem takes."""

    successor: LinkId
    other: LinkId | None


class StemRoutes:
    """Successors, edges and coins of one face. Links are told with ``open`` and ``close``; ``begin`` starts an epoch.

    An edge is mapped to a *slot*. When the successor of a slot is lost, its edges use the other one; only when both are gone are
    new ones drawn, so that a peer gains nothing by cutting others. A slot that had nobody to fill it takes the next newcomer.
    """

    def __init__(self, terms: StemTerms, rng: random.Random) -> None:
        self.terms = terms
        self._rng = rng
        self._outbound: dict[LinkId, None] = {}
        self._inbound: dict[LinkId, int] = {}  # edge -> slot
        self._coins: dict[LinkId, bool] = {}
        self._slots: list[LinkId | None] = []
        self._vacant = 0  # slots that were never filled in this epoch
        self._own_slot = 0
        self._node_coin = False
        self.begin()

    # --- Links ------------------------------------------------------------------------------------------------------

    def open(self, link: LinkId, *, inbound: bool) -> None:
        """A link that negotiated stem relay is up."""
        if inbound:
            self._inbound[link] = self._slot_for_newcomer()
            self._coins[link] = self._draw_coin()
            return
        self._outbound[link] = None
        if self._vacant:
            self._slots[self._slots.index(None)] = link
            self._vacant -= 1

    def close(self, link: LinkId) -> None:
        """A link is gone; its edge's coin and slot are forgotten."""
        self._inbound.pop(link, None)
        self._coins.pop(link, None)
        self._outbound.pop(link, None)
        if link in self._slots:
            self._slots[self._slots.index(link)] = None
            if not self.successors:
                self._draw_successors()

    def is_up(self, link: LinkId) -> bool:
        """Whether a successor of this or an earlier epoch still has its link."""
        return link in self._outbound

    def is_edge(self, link: LinkId) -> bool:
        """Whether stem transactions may come in over this link."""
        return link in self._inbound

    @property
    def successors(self) -> list[LinkId]:
        """Those of this epoch that are up."""
        return [link for link in self._slots if link is not None]

    @property
    def has_successor(self) -> bool:
        """Whether anything can be relayed."""
        return bool(self.successors)

    @property
    def has_edge(self) -> bool:
        """Whether others' transactions can come in, among which own ones are hidden."""
        return bool(self._inbound)

    # --- Epochs -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new epoch: new successors, a new map, new coins."""
        self._draw_successors()
        self._own_slot = self._rng.randrange(self.terms.successors)
        self._node_coin = self._rng.random() < self.terms.q
        edges = list(self._inbound)
        self._rng.shuffle(edges)
        self._inbound.clear()
        for edge in edges:
            self._inbound[edge] = self._slot_for_newcomer()
            self._coins[edge] = self._draw_coin()

    def duration(self) -> float:
        """Seconds that an epoch lasts, drawn anew for each."""
        return self.terms.epoch_s + self._rng.uniform(0, self.terms.epoch_extra_s)

    def _draw_successors(self) -> None:
        count = min(self.terms.successors, len(self._outbound))
        drawn: list[LinkId | None] = list(self._rng.sample(list(self._outbound), count))
        self._vacant = self.terms.successors - count
        self._slots = drawn + [None] * self._vacant

    def _slot_for_newcomer(self) -> int:
        routing, count = self.terms.routing, self.terms.successors
        if routing is Routing.ALL_TO_ONE:
            return self._own_slot
        if routing is not Routing.ONE_TO_ONE:
            return self._rng.randrange(count)
        used = [0] * count
        for slot in self._inbound.values():
            used[slot] += 1
        return self._rng.choice([slot for slot in range(count) if used[slot] == min(used)])

    def _draw_coin(self) -> bool:
        return self._node_coin if self.terms.coin is Coin.PER_NODE else self._rng.random() < self.terms.q

    # --- Transactions -----------------------------------------------------------------------------------------------

    def diffuses(self, edge: LinkId) -> bool:
        """The coin of an inbound edge for this epoch. Own transactions have no coin: they are always relayed."""
        return self._coins[edge]

    def way(self, edge: LinkId | None) -> Way | None:
        """Where a transaction of an inbound edge goes, or an own one (``None``); ``None`` without any successor."""
        slot = self._own_slot if edge is None else self._inbound[edge]
        if self.terms.routing is Routing.PER_TX:
            slot = self._rng.randrange(self.terms.successors)
        ahead = self._slots[slot:] + self._slots[:slot]
        up = [link for link in ahead if link is not None]
        return Way(up[0], up[1] if len(up) > 1 else None) if up else None
