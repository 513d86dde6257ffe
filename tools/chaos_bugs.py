"""Bugs that somebody could have made, one patch each: a fault simulation that does not find them proves nothing.

None of this is reachable from the package; ``tools/chaos.py --bug NAME`` puts one in before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NamedTuple

from obscura.connection import Connection
from obscura.ledger.chain import Chain
from obscura.ledger.port import Fault, FaultKind
from obscura.linkevents import Reason
from obscura.node.core import Core
from obscura.node.dandelion import Dandelion
from obscura.node.download import Download
from obscura.node.effects import Send
from obscura.node.engine import Engine
from obscura.node.handover import Handover
from obscura.node.reentry import Reentry
from obscura.node.reputation import Reputation
from obscura.node.slots import Slots
from obscura.node.stem import StemRoutes, Way
from obscura.outbox import Outbox
from obscura.sim.archive import MemoryArchive, MemoryOutbox
from obscura.wire.messages.blocks import Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import StemTx


class Bug(NamedTuple):
    """What is wrong with the node, and what puts it in."""

    what: str
    insert: Callable[[], None]


def _acknowledges_early() -> None:
    keep = MemoryArchive.keep

    def early(self: MemoryArchive, asked: Any, later: Any, kept: Callable[[int], None]) -> None:
        later(0.0, lambda: kept(asked.token))
        keep(self, asked, later, lambda token: None)

    MemoryArchive.keep = early  # type: ignore[method-assign]


def _first_chain_wins() -> None:
    receive = Chain._receive

    def loyal(self: Chain, number: int) -> None:
        tip = self._tip
        receive(self, number)
        if self._tip != tip and self._ancestor(self._tip, self._heights[tip]) != tip:
            self._tip = tip

    Chain._receive = loyal  # type: ignore[method-assign]


def _forgets_own_at_restart() -> None:
    MemoryOutbox.kept = lambda self: []  # type: ignore[method-assign]


def _no_embargo() -> None:
    Dandelion._set_embargo = lambda self, stem, now: None  # type: ignore[method-assign]


def _announces_stems() -> None:
    on_stemtx = Dandelion.on_stemtx

    def talkative(self: Dandelion, peer: Any, message: Any, now: float) -> Iterable[Any]:
        effects = list(on_stemtx(self, peer, message, now))
        if not any(isinstance(effect, Send) for effect in effects):
            return effects
        inv = Inv((InventoryItem(InventoryKind.TX, self._pool.decode(message.raw).id),))
        return [*effects, *(Send(link, inv) for link in self._faces[peer.face]._inbound)]

    Dandelion.on_stemtx = talkative  # type: ignore[method-assign]


def _stems_to_anyone() -> None:
    way = StemRoutes.way

    def careless(self: StemRoutes, edge: Any) -> Way | None:
        strangers = [link for link in self._inbound if link != edge]
        return Way(strangers[0], None) if strangers else way(self, edge)

    StemRoutes.way = careless  # type: ignore[method-assign]


def _own_to_everyone() -> None:
    submit = Dandelion.submit

    def hurried(self: Dandelion, transaction: Any, face: Any, now: float) -> Iterable[Any] | None:
        if submit(self, transaction, face, now) is None:
            return None
        return [Send(link, StemTx(transaction.raw)) for link in self._faces[face]._outbound]

    Dandelion.submit = hurried  # type: ignore[method-assign]


def _charges_for_ever() -> None:
    Dandelion._discharge = lambda self, edge, stem: None  # type: ignore[method-assign]


def _forgives_everything() -> None:
    Reputation.on_penalty = lambda self, peer, points, why, now: ()  # type: ignore[method-assign]


def _punishes_lost_links() -> None:
    closed = Core.closed

    def vindictive(self: Core, link: int, reason: str, now: float) -> list[Any]:
        peer = self.peers.get(link)
        effects: list[Any] = []
        if peer is not None and reason.startswith(Reason.FAULT.value):
            reputation = next(part for part in self.parts if isinstance(part, Reputation))
            effects = list(reputation.on_penalty(peer, 100, reason, now))
        return effects + closed(self, link, reason, now)

    Core.closed = vindictive  # type: ignore[method-assign]


def _keeps_ended_links() -> None:
    Engine._drop = lambda self, link: None  # type: ignore[method-assign]


def _waits_for_one_peer() -> None:
    Download.deadline = lambda self: inf  # type: ignore[method-assign]


def _early_is_bad() -> None:
    add_all = Chain.add_all

    def hasty(self: Chain, headers: Any, now: float) -> tuple[list[bytes], Fault | None]:
        refused = self.__dict__.setdefault("hasty", set())
        if any(bytes(header) in refused for header in headers):
            return [], Fault(FaultKind.EARLY, "known as bad")
        new, fault = add_all(self, headers, now)
        if fault is not None and fault.kind is FaultKind.EARLY:
            refused.update(bytes(header) for header in headers[len(new) :])
        return new, fault

    Chain.add_all = hasty  # type: ignore[method-assign]


def _drops_left_blocks() -> None:
    Reentry._disconnected = lambda self, raw, now: self._next(now)  # type: ignore[method-assign]


def _never_redials() -> None:
    Slots.on_closed = lambda self, peer, now: ()  # type: ignore[method-assign]
    Slots.on_dial_failed = lambda self, failed, now: ()  # type: ignore[method-assign]


def _moves_overtake() -> None:
    Connection._park = lambda self, parked, events, size: events  # type: ignore[method-assign]


def _moves_lose_what_waits() -> None:
    def forgetful(self: Outbox, to: Outbox) -> None:
        to.schedule, to._padding = self.schedule, self._padding
        self.clear()

    Outbox.hand_over = forgetful  # type: ignore[method-assign]


def _keeps_ended_sessions() -> None:
    Handover.over = lambda self, link, now: None  # type: ignore[method-assign]


BUGS: dict[str, Bug] = {
    "acknowledges-early": Bug("blocks are acknowledged before they are on the disk", _acknowledges_early),
    "first-chain-wins": Bug("a longer chain that leaves the own one is not followed", _first_chain_wins),
    "forgets-own-at-restart": Bug(
        "own transactions in their stem phase are lost at a restart", _forgets_own_at_restart
    ),
    "no-embargo": Bug("what a successor swallows is never diffused", _no_embargo),
    "announces-stems": Bug("stem transactions are announced to inbound peers", _announces_stems),
    "stems-to-anyone": Bug("stem transactions go to peers that dialled us", _stems_to_anyone),
    "own-to-everyone": Bug("own transactions are stemmed to all outbound peers", _own_to_everyone),
    "charges-for-ever": Bug("what a peer's stem transactions occupied is never given back", _charges_for_ever),
    "forgives-everything": Bug("no lie costs a peer anything", _forgives_everything),
    "punishes-lost-links": Bug("a link that breaks costs the peer its reputation", _punishes_lost_links),
    "keeps-ended-links": Bug("links that ended stay in memory", _keeps_ended_links),
    "waits-for-one-peer": Bug("a block is asked of one peer only, whether it comes or not", _waits_for_one_peer),
    "early-is-bad": Bug("a block from the future is refused for ever", _early_is_bad),
    "drops-left-blocks": Bug("transactions of blocks left behind do not come back", _drops_left_blocks),
    "never-redials": Bug("a lost outbound peer is not replaced", _never_redials),
    "moves-overtake": Bug("what comes on a new connection is served before the old one has ended", _moves_overtake),
    "moves-lose-what-waits": Bug(
        "what waits when a link moves is not sent on the new connection", _moves_lose_what_waits
    ),
    "keeps-ended-sessions": Bug("sessions of links that ended stay in memory", _keeps_ended_sessions),
}
