"""Two nodes of the simulator with messages of an application both ways, for the tests of rotation."""

from __future__ import annotations

import random
from typing import Any, ClassVar, Self

from obscura.node.assembly import Settings
from obscura.node.effects import Effect, LinkId
from obscura.node.peer import Peer
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.message import Message
from playbook import NETWORK_ID, QUIET


class Numbered(Message, frozen=True):
    """A message of any size whose first four bytes are its number."""

    TYPE: ClassVar[str] = "numbered"
    MAX_SIZE: ClassVar[int] = 4 << 20

    number: int
    size: int

    def encode(self) -> bytes:
        return self.number.to_bytes(4, "little") + bytes(self.size)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        return cls(int.from_bytes(payload[:4], "little"), len(payload) - 4)


KINDS = CATALOGUE.with_message(Numbered).established


class Side:
    """One node: what it sent and what it got, by number."""

    def __init__(self, network: SimNetwork, **settings: Any) -> None:
        self.got: list[int] = []
        self.sent = 0
        settings = {"network_id": NETWORK_ID, "is_dev": True, "knobs": QUIET, **settings}
        self.node: SimNode = network.add(
            Settings(**settings), messages=[Numbered], reactions={Numbered: self._on_numbered}
        )

    def _on_numbered(self, peer: Peer, message: Numbered, now: float) -> tuple[Effect, ...]:
        self.got.append(message.number)
        return ()

    @property
    def link(self) -> LinkId:
        """Its only peer."""
        (peer,) = self.node.peers
        return peer.link

    def send(self, size: int) -> None:
        """One more message, if there is still somebody to hear it."""
        if not self.node.peers:
            return
        self.node.send(self.link, Numbered(self.sent, size))
        self.sent += 1

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Notifications of one kind."""
        return [dict(told.fields) for told in self.node.told if told.kind == kind]


class Pair:
    """An initiator and a responder with one link."""

    def __init__(self, seed: int = 1, latency_s: float = 0.05, **settings: Any) -> None:
        self.kernel = Kernel(seed)
        self.network = SimNetwork(self.kernel, lambda a, b: latency_s)
        self.rng = random.Random(f"pair {seed}")
        self.one, self.other = Side(self.network, **settings), Side(self.network, **settings)
        self.one.node.connect(self.other.node.address)
        self.run(2.0 + 20 * latency_s)
        assert self.one.node.peers
        assert self.other.node.peers

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.kernel.run(self.kernel.now + seconds)

    def rotate(self) -> None:
        """The initiator begins to move."""
        node = self.one.node
        node.assembly.engine.move(self.one.link, self.other.node.address, self.kernel.now)
        node.turn()

    def load(self, seconds: float, sizes: tuple[int, int], each_s: float) -> None:
        """Messages both ways at random times from now on."""
        for side in (self.one, self.other):
            when = self.kernel.now
            while when < self.kernel.now + seconds:
                when += self.rng.expovariate(1 / each_s)
                size = self.rng.randint(*sizes)
                self.kernel.at(when, lambda side=side, size=size: side.send(size))

    def check(self) -> None:
        """Everything arrived once, in order, and no part noticed anything."""
        assert self.other.got == list(range(self.one.sent))
        assert self.one.got == list(range(self.other.sent))
        for side in (self.one, self.other):
            assert len(side.told("peer-connected")) == 1
            assert side.told("peer-disconnected") == []
            assert side.told("rotation-failed") == []
