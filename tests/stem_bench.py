"""One core with Dandelion++ and hand-made peers, for tests."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from obscura.node.broadcast import Outbox, Receipt
from obscura.node.core import Core
from obscura.node.dandelion import Dandelion
from obscura.node.effects import Effect, Send
from obscura.node.peer import Face, Peer, Purpose
from obscura.node.stem import StemTerms
from obscura.node.submission import OwnTransactions
from obscura.sim.kernel import Kernel
from obscura.sim.ledger import TokenLedger
from obscura.sim.messages import MessageNetwork
from obscura.sim.relay import Announcements, ObservedPool
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Inv
from obscura.wire.messages.transactions import GetData, StemTx

FOREVER = 1e9


def raw(number: int) -> bytes:
    """A transaction of the simulator's ledger."""
    return number.to_bytes(32, "big") + bytes(100)


class Bench:
    """Peers are numbers; what the core sends them is collected in ``sent``. They fetch what they are told of, if ``fetches``."""

    def __init__(
        self,
        terms: StemTerms | None = None,
        seed: int = 1,
        outbox: Outbox | None = None,
        faces: Iterable[Face] = (Face.CLEARNET,),
    ) -> None:
        ledger, rng = TokenLedger(), random.Random(seed)
        self.now = 0.0
        self.published: list[bytes] = []
        self.announcements = Announcements(ledger, rng, lambda: 1_800_000_000 + int(self.now), faces)
        self.pool = ObservedPool(self.announcements.relay, ledger, 0, lambda node, id, now: self.published.append(id))
        self.dandelion = Dandelion(rng, self.pool, terms or StemTerms(q=0.0, epoch_s=FOREVER))
        self.own = OwnTransactions(self.dandelion, self.pool, 0.0, outbox)
        self.core = Core([self.announcements, self.dandelion, self.own])
        self.peers: dict[int, Peer] = {}
        self.sent: list[tuple[int, Message]] = []
        self.receipts: list[Receipt] = []
        self.other: list[Effect] = []
        self.fetches = True
        self._template = MessageNetwork(Kernel(0), lambda a, b: 0.0)._peer(0, False)

    def join(self, link: int, *, inbound: bool = False, face: Face = Face.CLEARNET, **facts: object) -> None:
        """A link is up. ``facts`` replace fields of its ``Peer``."""
        peer = msgspec.structs.replace(self._template, link=link, is_inbound=inbound, face=face, **facts)
        self.peers[link] = peer
        self.take(self.core.established(peer, self.now))

    def leave(self, link: int) -> None:
        """A link is gone."""
        self.take(self.core.closed(link, "gone", self.now))

    def receive(self, link: int, message: Message) -> list[Effect]:
        """A message arrives; the effects of it alone."""
        effects = list(self.core.received(self.peers[link], message, self.now))
        self.take(effects)
        return effects

    def take(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append((effect.link, effect.message))
                if isinstance(effect.message, Inv) and self.fetches:
                    self.receive(effect.link, GetData(effect.message.items))
            elif isinstance(effect, Receipt):
                self.receipts.append(effect)
            else:
                self.other.append(effect)

    def submit(self, number: int, policy: object, wait_s: float | None = None) -> bytes:
        """Submit an own transaction."""
        id, effects = self.own.submit(raw(number), policy, wait_s, self.now)  # type: ignore[arg-type]
        self.take(effects)
        return id

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.core.deadline() <= end:
            self.now = max(self.now, self.core.deadline())
            self.take(self.core.due(self.now))
        self.now = end

    def stemmed(self, number: int) -> list[int]:
        """Where a transaction was sent in the stem phase."""
        return [link for link, message in self.sent if isinstance(message, StemTx) and message.raw == raw(number)]


BLOCK_ONLY = {"purpose": Purpose.BLOCKS}
