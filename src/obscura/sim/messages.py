"""Cores joined without bytes: typed messages travel between the parts of whole networks, with latency and bandwidth.

The parts are the shipped ones. What is left out is what the other interpreter (``obscura.sim.network``) shows: channel,
records, frames and handshakes; so a thousand nodes fit and ten thousand messages take a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Protocol

from obscura.handshake.features import TABLE, Feature, Flags, Privacy
from obscura.handshake.machine import Negotiated
from obscura.limits import HEADER_BYTES, PROTOCOL_VERSION
from obscura.node.broadcast import Receipt
from obscura.node.core import Core, Part
from obscura.node.effects import Disconnect, Effect, LinkId, Send
from obscura.node.peer import Face, Peer
from obscura.sim.kernel import Kernel
from obscura.wire.address import CarrierNumber
from obscura.wire.message import Message, RawMessage
from obscura.wire.messages.blocks import Inventory
from obscura.wire.messages.network import Version

Latency = Callable[[int, int], float]  # seconds one way, by the numbers of both nodes

_FLAGS = Flags(
    sum(row.flag for row in TABLE if isinstance(row.flag, Feature) and not row.anonymity_only),
    sum(row.flag for row in TABLE if isinstance(row.flag, Privacy) and not row.anonymity_only),
)
_VERSION = Version(PROTOCOL_VERSION, 0, _FLAGS.features, _FLAGS.privacy, "Obscura/sim", bytes(32), 0, 0, ())
_NEGOTIATED = Negotiated(PROTOCOL_VERSION, _FLAGS, _VERSION, None, None, None, 0)


class Witness(Protocol):
    """Sees everything that is delivered, before it is, and may make it vanish."""

    def delivered(self, sender: int, receiver: int, message: Message, now: float) -> Message | None:
        """The message, what is left of it, or None to drop it."""


class _Wire:
    __slots__ = ("far", "far_link", "far_peer", "free_at", "latency", "number")

    def __init__(self, far: MessageNode, far_link: LinkId, latency: float) -> None:
        self.far = far
        self.far_link = far_link
        self.far_peer: Peer  # how the far end sees us
        self.latency = latency
        self.free_at = 0.0  # when the last message has left


class MessageNode:
    """One core. ``parts`` by position are whatever the scenario gave it."""

    __slots__ = ("_timer", "_wires", "core", "last_link", "network", "number", "receipts")

    def __init__(self, network: MessageNetwork, number: int, parts: Sequence[Part]) -> None:
        self.network = network
        self.number = number
        self.core = Core(parts)
        self.last_link = 0
        self.receipts: list[tuple[float, Receipt]] = []
        self._wires: dict[LinkId, _Wire] = {}
        self._timer = inf

    def perform(self, effects: Iterable[Effect]) -> None:
        """Carry effects out, and look at the clock again."""
        for effect in effects:
            if type(effect) is Send:
                wire = self._wires.get(effect.link)
                if wire is not None:
                    self.network.carry(self, wire, effect.message)
            elif type(effect) is Receipt:
                self.receipts.append((self.network.kernel.now, effect))
            elif type(effect) is Disconnect:
                self.network.disconnect(self, effect.link)
        deadline = self.core.deadline()
        if deadline < self._timer:
            self._timer = deadline
            self.network.kernel.at(deadline, self._on_timer)

    def arrive(self, peer: Peer, message: Message) -> None:
        """A message of a link that may be gone meanwhile."""
        if peer.link in self._wires:
            self.perform(self.core.received(peer, message, self.network.kernel.now))

    def neighbours(self) -> dict[LinkId, int]:
        """Numbers of the nodes at the other ends."""
        return {link: wire.far.number for link, wire in self._wires.items()}

    def plug(self, peer: Peer, wire: _Wire) -> None:
        """A link is up."""
        self._wires[peer.link] = wire
        self.perform(self.core.established(peer, self.network.kernel.now))

    def send(self, link: LinkId, message: Message) -> None:
        """Send from outside the core, as an adversary does."""
        self.network.carry(self, self._wires[link], message)

    def unplug(self, link: LinkId) -> _Wire | None:
        """A link is gone."""
        wire = self._wires.pop(link, None)
        if wire is not None:
            self.perform(self.core.closed(link, "unplugged", self.network.kernel.now))
        return wire

    def _on_timer(self) -> None:
        kernel = self.network.kernel
        if kernel.now >= self._timer:  # else an earlier time was set since, and has been
            self._timer = inf
            self.perform(self.core.due(kernel.now))  # nothing, if what it was set for has been put off


class MessageNetwork:
    """Nodes by number and the links between them. ``bytes_per_s`` is what each end of a link may send."""

    def __init__(
        self,
        kernel: Kernel,
        latency: Latency,
        bytes_per_s: float = inf,
        witness: Witness | None = None,
    ) -> None:
        self.kernel = kernel
        self.latency = latency
        self.bytes_per_s = bytes_per_s
        self.witness = witness
        self.nodes: list[MessageNode] = []
        self.messages = 0  # delivered

    def add(self, parts: Sequence[Part]) -> MessageNode:
        """One more node."""
        node = MessageNode(self, len(self.nodes), parts)
        self.nodes.append(node)
        return node

    def connect(self, dialler: MessageNode, listener: MessageNode) -> None:
        """A link at once, already established."""
        delay = self.latency(dialler.number, listener.number)
        dialler.last_link += 1
        listener.last_link += 1
        near, far = dialler.last_link, listener.last_link
        there, back = _Wire(listener, far, delay), _Wire(dialler, near, delay)
        near_peer, far_peer = self._peer(near, False), self._peer(far, True)
        there.far_peer, back.far_peer = far_peer, near_peer
        dialler.plug(near_peer, there)
        listener.plug(far_peer, back)

    def disconnect(self, node: MessageNode, link: LinkId) -> None:
        """The link ends at both ends at once; what is under way is lost."""
        wire = node.unplug(link)
        if wire is not None:
            wire.far.unplug(wire.far_link)

    def carry(self, sender: MessageNode, wire: _Wire, message: Message) -> None:
        """Deliver later: one after the other at the rate of the link, then the latency."""
        kernel = self.kernel
        arrival = kernel.now + wire.latency
        if self.bytes_per_s != inf:
            wire.free_at = max(wire.free_at, kernel.now) + _size(message) / self.bytes_per_s
            arrival = wire.free_at + wire.latency
        kernel.at(arrival, lambda: self._deliver(sender, wire, message))

    def _deliver(self, sender: MessageNode, wire: _Wire, message: Message) -> None:
        receiver = wire.far
        if self.witness is not None:
            left = self.witness.delivered(sender.number, receiver.number, message, self.kernel.now)
            if left is None:
                return
            message = left
        self.messages += 1
        self.kernel.note(receiver.number, wire.far_link, message.TYPE, _traced(message))
        receiver.arrive(wire.far_peer, message)

    def _peer(self, link: LinkId, inbound: bool) -> Peer:
        return Peer(
            link=link,
            face=Face.CLEARNET,
            carrier=CarrierNumber.PLAIN,
            is_inbound=inbound,
            is_manual=False,
            dialled=None,
            remote=None,
            session_id=b"",
            proved_key=None,
            pattern="none",
            negotiated=_NEGOTIATED,
            since=self.kernel.now,
        )


def _size(message: Message) -> int:
    if isinstance(message, RawMessage):
        return HEADER_BYTES + len(message.raw)
    if isinstance(message, Inventory):
        return HEADER_BYTES + 1 + 36 * len(message.items)
    return HEADER_BYTES


def _traced(message: Message) -> bytes:
    if isinstance(message, RawMessage):
        return message.raw[:32]
    if isinstance(message, Inventory):
        return b"".join([item.hash for item in message.items])
    return b""
