"""The shipped announcements and mempool without the chain around them: what a transaction's way needs, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from obscura.ledger.port import Ledger, Transaction
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.face import Face
from obscura.node.peer import Peer
from obscura.node.public import RelayPool
from obscura.node.transactions import TransactionRelay
from obscura.wire.messages.blocks import Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, NotFound, Tx


class Announcements(Part):
    """``TransactionRelay`` as a part of its own."""

    def __init__(
        self, ledger: Ledger, rng: random.Random, unix: Callable[[], int], faces: Iterable[Face] = (Face.CLEARNET,)
    ) -> None:
        self.relay = TransactionRelay(ledger, rng, unix, lambda: 0, faces=faces)

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {Inv: self.on_inv, GetData: self.on_getdata, Tx: self.on_tx, NotFound: self.on_notfound}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self.relay.joined(peer, now)
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        return self.relay.left(peer.link, now)

    def on_inv(self, peer: Peer, message: Inv, now: float) -> Iterable[Effect]:
        return self.relay.announced(peer.link, [item.hash for item in message.items], now)

    def on_getdata(self, peer: Peer, message: GetData, now: float) -> Iterable[Effect]:
        effects: list[Effect] = []
        for item in message.items:
            raw = self.relay.may_have(peer.link, item.hash)
            missing = NotFound((InventoryItem(InventoryKind.TX, item.hash),))
            effects.append(Send(peer.link, missing if raw is None else Tx(raw)))
        return effects

    def on_tx(self, peer: Peer, message: Tx, now: float) -> Iterable[Effect]:
        return self.relay.take(peer.link, message.raw, now)

    def on_notfound(self, peer: Peer, message: NotFound, now: float) -> Iterable[Effect]:
        return self.relay.not_found(peer.link, [item.hash for item in message.items], now)

    def deadline(self) -> float:
        return self.relay.deadline()

    def due(self, now: float) -> Iterable[Effect]:
        return self.relay.due(now)


Published = Callable[[int, bytes, float], None]  # node, id, when


class ObservedPool(RelayPool):
    """The port, telling the simulation when a node begins to diffuse what was private."""

    def __init__(self, relay: TransactionRelay, ledger: Ledger, node: int, published: Published) -> None:
        super().__init__(relay, ledger)
        self._node = node
        self._published = published

    def publish(
        self, transaction: Transaction, source: LinkId | None, face: Face | None, now: float
    ) -> Iterable[Effect]:
        self._published(self._node, transaction.id, now)
        return super().publish(transaction, source, face, now)
