"""Two nodes, of the simulator or real ones, with messages of an application both ways, for the tests of rotation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, ClassVar, Self

from obscura.daemon.methods import control_methods
from obscura.daemon.node import Node
from obscura.limits import SEND_QUEUE_LOW
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


class Loaded:
    """A real node with one peer, and what it got by number."""

    def __init__(self, node: Node) -> None:
        """``node``: not entered yet."""
        self.node = node
        self.got: list[int] = []
        self.sent = 0
        self.node.register(Numbered, self._on_numbered)

    def _on_numbered(self, peer: Peer, message: Numbered, now: float) -> tuple[Effect, ...]:
        self.got.append(message.number)
        return ()

    @property
    def link(self) -> LinkId:
        """Its only peer."""
        (peer,) = self.node.peers()
        return peer.link

    @property
    def row(self) -> dict[str, Any]:
        """What `obscura peers` shows of that one."""
        (row,) = self.node.engine.describe(self.node.now())
        return row

    def send(self, size: int) -> None:
        """One more message."""
        self.node.send(self.link, Numbered(self.sent, size))
        self.sent += 1

    async def flood(self, sizes: tuple[int, ...], is_over: Callable[[], bool], each_s: float = 0.0) -> None:
        """Send as fast as the link takes it, until it is over; or these sizes ``each_s`` seconds."""
        while not is_over():
            for size in sizes:
                self.send(size)
            while self.node.engine.waiting(self.link) > SEND_QUEUE_LOW:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.001)
            await asyncio.sleep(each_s)

    async def call(self, method: str, **params: Any) -> Any:
        """A method of local control."""
        return await control_methods(self.node)[method](**params)


async def moves_under_load(one: Loaded, other: Loaded, sizes: tuple[int, ...]) -> None:
    """The link of ``one`` moves three times to where it is, and once because ``other`` asks, while both send all the time."""
    links, is_over = (one.link, other.link), False
    floods = [asyncio.create_task(end.flood(sizes, lambda: is_over, 0.05)) for end in (one, other)]

    async def hears_more(end: Loaded) -> None:
        count = len(end.got)
        while len(end.got) <= count + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    for generation in range(1, 4):
        await hears_more(one)
        await hears_more(other)
        (moved,) = await one.call("rotate", peer=one.link)
        assert (moved["outcome"], moved["rotations"]) == ("rotated", generation)
    (asked,) = await other.call("rotate", peer=other.link)
    assert asked["outcome"] == "asked"
    while {one.row["rotations"], other.row["rotations"]} != {4}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await hears_more(one)
    await hears_more(other)
    is_over = True
    await asyncio.gather(*floods)
    while len(other.got) < one.sent or len(one.got) < other.sent:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await one.node.ping(one.link)
    assert other.got == list(range(one.sent)), "nothing is lost, doubled or out of order"
    assert one.got == list(range(other.sent))
    assert (one.link, other.link) == links
    assert one.row["session_id"] == other.row["session_id"] != one.node.peers()[0].session_id.hex()
    while (len(one.node.engine.links), len(other.node.engine.links)) != (1, 1):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
