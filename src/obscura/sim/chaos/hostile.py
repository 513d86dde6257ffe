"""A byzantine peer: the real node, which does what it should, and at random times what it should not.

Some are quiet: they tell no lie by which they could be known, are the first to announce each block, and never give one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from math import inf
from typing import Any

from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.mining import filler_transaction
from obscura.node.core import Part, Received
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.peer import Peer
from obscura.sim.chaos.mining import mined_on_tip
from obscura.sim.network import SimNode
from obscura.wire.address import Network
from obscura.wire.message import Message
from obscura.wire.messages.blocks import (
    Block,
    CmpctBlock,
    GetBlocks,
    GetHeaders,
    Headers,
    Inv,
    InventoryItem,
    InventoryKind,
)
from obscura.wire.messages.network import Addr, AddrEntry, GetAddr, Pong
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, StemTx, Tx

Taken = Callable[[Peer, Any, float], Iterable[Effect] | None]  # what a reaction is
MEAN_PAUSE_S = 6.0  # between two hostile acts


class _Garbage(Message, frozen=True, gc=False):
    """Bytes under the name of another message."""

    TYPE = "headers"
    MAX_SIZE = 1 << 16
    raw: bytes = b""

    def encode(self) -> bytes:
        return self.raw


class Hostile(Part):
    """Sends each peer something now and then that is wrong, useless or a lie; swallows what comes to it in the stem phase.

    ``withholds``: blocks that it announced are given every other time. ``is_quiet``: never, and there are no lies; new
    headers go to all peers before the block is here.
    """

    def __init__(self, ledger: BitcoinLedger, rng: random.Random) -> None:
        self._ledger = ledger
        self._rng = rng
        self._links: list[LinkId] = []
        self._told: set[bytes] = set()  # headers
        self.is_quiet = rng.random() < 0.4
        self._next = inf if self.is_quiet else rng.expovariate(1 / MEAN_PAUSE_S)
        self.withholds = rng.random() < 0.5
        self.swallows = rng.random() < 0.7
        self.node: SimNode | None = None  # itself
        self._acts: tuple[Callable[[], Message], ...] = (
            lambda: Pong(rng.getrandbits(64)),
            lambda: GetHeaders(1, (rng.randbytes(32),), bytes(32)),
            lambda: GetBlocks(1, (rng.randbytes(32),), bytes(32)),
            lambda: Inv(self._items(InventoryKind.TX)),
            lambda: Inv(self._items(InventoryKind.BLOCK)),
            lambda: GetData(self._items(InventoryKind.TX)),
            lambda: NotFound(self._items(InventoryKind.BLOCK)),
            lambda: MempoolRequest(),
            lambda: GetAddr(),
            lambda: Addr(tuple(self._place() for _ in range(rng.randint(1, 20)))),
            lambda: Tx(filler_transaction(rng, 300)),
            lambda: StemTx(filler_transaction(rng, 300)),
            lambda: StemTx(rng.randbytes(rng.randint(0, 200))),
            lambda: Headers((rng.randbytes(80),)),
            lambda: Headers(self._worthless()),
            lambda: Block(self._broken()),
            lambda: _Garbage(rng.randbytes(rng.randint(1, 300))),
        )

    def joins(self, node: SimNode) -> None:
        """It lives in this node: from now on it may misbehave there."""
        self.node = node
        routes = node.assembly.core.routes
        if self.swallows:
            routes[StemTx] = _silence
        if self.is_quiet:
            routes[GetData] = _without_blocks(routes[GetData])
            routes[Headers] = self._passed_on(routes[Headers], lambda message: message.headers[-1:])
            routes[CmpctBlock] = self._passed_on(routes[CmpctBlock], lambda message: (message.header,))
        elif self.withholds:
            routes[GetData] = self._withheld(routes[GetData])
        node.turn()

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links.append(peer.link)
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._links.remove(peer.link)
        return ()

    def deadline(self) -> float:
        return self._next

    def due(self, now: float) -> Iterable[Effect]:
        self._next = now + self._rng.expovariate(1 / MEAN_PAUSE_S)
        if not self._links or self.node is None:
            return ()
        return (Send(self._rng.choice(self._links), self._rng.choice(self._acts)()),)

    def _withheld(self, honest: Taken) -> Taken:
        def reaction(peer: Peer, message: GetData, now: float) -> Iterable[Effect] | None:
            return None if self._rng.random() < 0.5 else honest(peer, message, now)

        return reaction

    def _passed_on(self, honest: Taken, headers_of: Callable[[Any], tuple[bytes, ...]]) -> Taken:
        """As an honest node, but everybody else hears of the newest header at once."""

        def reaction(peer: Peer, message: Any, now: float) -> Iterable[Effect] | None:
            effects = list(honest(peer, message, now) or ())
            for header in headers_of(message):
                if header not in self._told:
                    self._told.add(header)
                    effects += [Send(link, Headers((header,))) for link in self._links if link != peer.link]
            return effects

        return reaction

    def _items(self, kind: InventoryKind) -> tuple[InventoryItem, ...]:
        return tuple(InventoryItem(kind, self._rng.randbytes(32)) for _ in range(self._rng.randint(1, 30)))

    def _place(self) -> AddrEntry:
        host = IPv4Address(self._rng.randrange(0x7F000001, 0x7FFFFFFF)).packed
        rng = self._rng
        return AddrEntry(rng.getrandbits(31), 1, int(Network.IPV4), host, rng.randint(1, 65_535), 0, rng.randbytes(32))

    def _worthless(self) -> tuple[bytes, ...]:
        """Headers that fit together and have no work."""
        assert self.node is not None
        header = bytearray(mined_on_tip(self.node, (), self._rng)[:80])
        header[76:80] = self._rng.randbytes(4)
        return (bytes(header),)

    def _broken(self) -> bytes:
        """A block with work whose body is not what its header says."""
        assert self.node is not None
        raw = bytearray(mined_on_tip(self.node, (), self._rng))
        raw[-1 - self._rng.randrange(40)] ^= 1 << self._rng.randrange(8)
        return bytes(raw)


def _silence(peer: Peer, message: Received, now: float) -> None:
    """What swallows does with a stem transaction."""


def _without_blocks(honest: Taken) -> Taken:
    """What is_quiet does when it is asked for a block; it does give transactions."""

    def reaction(peer: Peer, message: GetData, now: float) -> Iterable[Effect] | None:
        return None if any(item.kind != InventoryKind.TX for item in message.items) else honest(peer, message, now)

    return reaction
