"""Two worlds for test_faces_unlinkable: the clearnet and the onion face that an attacker dials are one node's, or two nodes'.

In both worlds the nodes have the same settings and get the same news from the same neighbour at the same time, so that all that
could tell the worlds apart is what the faces of one node share.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from chain_nodes import archive_of, chain_of, easy_ledger, relay_of, submit, transactions
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.node.admission import AdmissionLimits
from obscura.node.assembly import Settings
from obscura.node.dialable import Ways
from obscura.node.effects import LinkId
from obscura.node.face import Face
from obscura.node.io import Listener, Reach
from obscura.node.peer import Peer
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.kernel import Kernel
from obscura.sim.network import PORT, SimNetwork, SimNode, _Wire
from obscura.wire.address import Address, Endpoint, Network
from obscura.wire.frame import Unknown
from obscura.wire.message import Message
from playbook import inject

BOTH = frozenset({Face.CLEARNET, Face.ONION})
CLEAR, ONION = Face.CLEARNET, Face.ONION
SETTINGS = Settings(
    network_id=sha256(b"faces").digest(),
    is_dev=True,
    faces=BOTH,
    ways=Ways(onion=True),
    knobs=LEVELS[PrivacyLevel.STANDARD],
    max_inbound=60,
    admission=AdmissionLimits(max_unauthenticated=8),
)
LATENCY_S = 0.02
Sabotage = Callable[[SimNode], None]


class FacedNetwork(SimNetwork):
    """Nodes are reached at an onion address too; links that come by it show no address."""

    def __init__(self, seed: int, uneven_s: float) -> None:
        super().__init__(Kernel(seed), lambda a, b: LATENCY_S + (0 if a and b else uneven_s * self._distance[a + b]))
        self._distance = [self.kernel.rng.random() for _ in range(8)]
        self.onions: dict[Endpoint, tuple[SimNode, Listener]] = {}
        self.onion_keys: dict[int, StaticKey] = {}  # by node, where it is to be another than a fresh one

    def add_onion(self, node: SimNode) -> Address:
        """Publish a node's onion service, whose key is its own."""
        static = self.onion_keys.get(node.number) or StaticKey.generate(node.rng)
        endpoint = Endpoint(Network.TORV3, sha256(f"onion {node.number}".encode()).digest(), PORT)
        address = Address(None, endpoint.host_text, PORT)
        self.onions[endpoint] = node, Listener(address, Face.ONION, static, True, ReplayCache())
        return address

    def reach(self, dialler: SimNode, wanted: Reach) -> None:
        endpoint = wanted.address.endpoint
        if endpoint not in self.onions:
            super().reach(dialler, wanted)
            return
        node, listener = self.onions[endpoint]
        link = node.assembly.engine.accepted(listener, None, self.kernel.now)
        node.plug(link, _Wire(dialler, wanted.link, LATENCY_S))
        node.turn()
        dialler.plug(wanted.link, _Wire(node, link, LATENCY_S))
        dialler.assembly.engine.connected(wanted.link, None, self.kernel.now)
        dialler.turn()


class World:
    """An attacker with a link to a clearnet face and one to an onion face, and the neighbour of who is behind them."""

    def __init__(
        self, seed: int, *, one: bool, sabotage: Sabotage = lambda node: None, uneven_s: float = 0.0, **changes: Any
    ) -> None:
        """``uneven_s``: how much later than the other one of two nodes may hear from the neighbour."""
        ledger = easy_ledger()
        self.blocks = chain_of(ledger, 3, 1)
        self.transactions = transactions(3, seed)
        self.network = FacedNetwork(seed, uneven_s)
        self.kernel = self.network.kernel
        settings = msgspec.structs.replace(SETTINGS, **changes)
        alone = msgspec.structs.replace(SETTINGS, faces=frozenset({CLEAR}))
        self.neighbour = self.network.add(alone, archive=archive_of(ledger, self.blocks[:1]))
        self.victims = [
            self.network.add(settings, archive=archive_of(ledger, self.blocks[:1])) for _ in range(1 if one else 2)
        ]
        self.attacker = self.network.add(msgspec.structs.replace(alone, ways=Ways(onion=True)))
        self.seen: list[tuple[float, LinkId, Message | Unknown]] = []
        for victim in self.victims:
            sabotage(victim)
        onion = [self.network.add_onion(victim) for victim in self.victims]
        self.addresses = {CLEAR: self.victims[0].address, ONION: onion[-1]}
        self.behind = {CLEAR: self.victims[0], ONION: self.victims[-1]}
        for victim in self.victims:
            victim.connect(self.neighbour.address)
        self.run(1.0)
        self.ends: dict[LinkId, tuple[float, str]] = {}
        self._listen()
        self.links: dict[Face, LinkId] = {}

    def dial(self, face: Face) -> Peer:
        """The attacker's link to the face; a new one each time."""
        link = self.attacker.connect(self.addresses[face])
        self.links[face] = link
        self.run(1.0)
        return self.attacker.assembly.core.peers[link]

    def dial_many(self, face: Face, count: int) -> list[LinkId]:
        """Links to the face, dialled at once; those that are there afterwards."""
        links = [self.attacker.connect(self.addresses[face]) for _ in range(count)]
        self.run(1.0)
        return [link for link in links if link in self.attacker.assembly.core.peers]

    def dial_both(self) -> None:
        """A link to each face."""
        for face in (CLEAR, ONION):
            self.dial(face)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.kernel.run(self.kernel.now + seconds)

    def send(self, face: Face, *messages: Message) -> None:
        """Through the attacker's link to the face."""
        for message in messages:
            self.attacker.send(self.links[face], message)

    def inject(self, face: Face, *frames: bytes) -> None:
        """What no honest node sends, through the attacker's link to the face."""
        connection = self.attacker.assembly.engine.links[self.links[face]].connection
        assert connection is not None
        for frame in frames:
            inject(connection, frame)
        self.attacker.assembly.engine.touch(self.attacker.assembly.engine.links[self.links[face]])
        self.attacker.turn()

    def end_of(self, face: Face) -> tuple[float, str] | None:
        """When and how the attacker's link to the face ended, as it saw it."""
        return self.ends.get(self.links[face])

    def got(self, face: Face, kind: type[Message], since: float = 0.0) -> list[tuple[float, Any]]:
        """When and what the attacker got of one type."""
        return [(at, m) for at, link, m in self.seen if link == self.links[face] and type(m) is kind and at >= since]

    def first(self, face: Face, kind: type[Message], suits: Callable[[Any], bool] = lambda m: True) -> float:
        """When the first such message came."""
        return next((at for at, message in self.got(face, kind) if suits(message)), float("inf"))

    def give_block(self, number: int) -> None:
        """The neighbour has a new block."""
        submit(self.neighbour, self.blocks[number])

    def give_transaction(self, number: int) -> None:
        """The neighbour has a new transaction."""
        _, effects = relay_of(self.neighbour).submit_transaction(self.transactions[number], self.kernel.now)
        self.neighbour.apply(effects)

    def _listen(self) -> None:
        """Everything that comes to the attacker is written down before it is reacted to."""
        core = self.attacker.assembly.core
        for kind in list(self.attacker.assembly.engine._catalogue):
            core.routes[kind] = self._noting(core.routes.get(kind))
        core.routes[Unknown] = self._noting(None)
        closed = core.closed

        def note_end(link: LinkId, reason: str, now: float) -> Any:
            self.ends[link] = now, reason
            return closed(link, reason, now)

        core.closed = note_end  # type: ignore[method-assign]

    def _noting(self, reaction: Any) -> Any:
        def note(peer: Peer, message: Message, now: float) -> Any:
            self.seen.append((now, peer.link, message))
            return reaction(peer, message, now) if reaction is not None else None

        return note
