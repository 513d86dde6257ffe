"""Simulated nodes with chains, and peers that a test plays itself, for the tests of what runs over the links."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template, filler_transaction
from obscura.ledger.port import Transaction
from obscura.node.assembly import Settings
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Effect, Send
from obscura.node.peer import Peer
from obscura.node.relay import ChainRelay
from obscura.sim.archive import MemoryArchive
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.message import Message
from small_chains import START, easy_ledger, mined

SETTINGS = Settings(network_id=sha256(b"chain tests").digest(), is_dev=True)


def transactions(count: int, seed: int = 1, size: int = 300) -> list[Transaction]:
    """Random transactions."""
    rng = random.Random(f"transactions {seed}")
    ledger = easy_ledger()
    return [ledger.decode_transaction(filler_transaction(rng, size)) for _ in range(count)]


def chain_of(
    ledger: BitcoinLedger, count: int, seed: int = 1, parent: list[bytes] | None = None, fill: int = 0
) -> list[bytes]:
    """``count`` valid blocks on the genesis, or on the last of the blocks ``parent``."""
    chain = Chain(ledger)
    rng = random.Random(f"chain {seed}")
    for raw in parent or []:
        assert chain.add(raw[:80], START + 10**9) is None
    tip = chain.best
    blocks = []
    for number in range(count):
        inside = transactions(fill, seed * 100_000 + number) if fill else []
        raw = block_template(ledger, chain.branch(tip), inside, START, rng)
        raw = mined(raw[:80]) + raw[80:]
        assert chain.add(raw[:80], START + 10**9) is None
        tip = ledger.block_id(raw[:80])
        blocks.append(raw)
    return blocks


def archive_of(ledger: BitcoinLedger, blocks: Iterable[bytes] = (), **delays: float) -> MemoryArchive:
    """An archive that holds these blocks."""
    archive = MemoryArchive(ledger, **delays)
    for raw in blocks:
        archive.headers.append(raw[:80])
        archive.blocks[ledger.block_id(raw[:80])] = raw
    return archive


def relay_of(node: SimNode) -> ChainRelay:
    relay = node.assembly.relay
    assert relay is not None
    return relay


def submit(node: SimNode, raw: bytes) -> None:
    """Give a node a block as an application does."""
    effects, fault = relay_of(node).submit_block(raw, node.network.kernel.now)
    assert fault is None, fault
    node.apply(effects)


def told(node: SimNode, kind: str) -> list[Mapping[str, object]]:
    """What a node told its application."""
    return [notice.fields for notice in node.told if notice.kind == kind]


Answer = Callable[[Peer, Message], Iterable[Message] | None]


class Scripted(Part):
    """A peer that a test plays: what it answers to each type of message; and everything it got."""

    def __init__(self, answers: Mapping[type[Message], Answer], greet: Iterable[Message] = ()) -> None:
        self.answers = answers
        self.greet = tuple(greet)
        self.got: list[Message] = []

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return dict.fromkeys(self.answers, self.on_message)

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        return [Send(peer.link, message) for message in self.greet]

    def on_message(self, peer: Peer, message: Message, now: float) -> Iterable[Effect]:
        self.got.append(message)
        return [Send(peer.link, answer) for answer in self.answers[type(message)](peer, message) or ()]

    def of(self, kind: type[Message]) -> list[Message]:
        """What it got of one type."""
        return [message for message in self.got if type(message) is kind]


def nothing(peer: Peer, message: Message) -> None:
    """The answer of a peer that stays silent."""


def network(seed: int = 1, latency: float = 0.02) -> SimNetwork:
    return SimNetwork(Kernel(seed), lambda a, b: latency)


__all__ = ["SETTINGS", "START", "Scripted", "archive_of", "chain_of", "easy_ledger", "network", "nothing", "relay_of"]
