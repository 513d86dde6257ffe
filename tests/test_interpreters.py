"""The same core in both interpreters: asyncio with real TCP, and the simulator with a virtual clock.

One scenario is played in each; what every node received and was told must be the same, in the same order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.node.assembly import Settings
from obscura.node.effects import Disconnect, Effect, Notify, Penalise, Send
from obscura.node.peer import Peer
from obscura.node.slots import OutboundLimits
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.message import Message
from obscura.wire.messages.transactions import Tx
from playbook import NETWORK_ID, QUIET

DEADLINE_S = 20.0
SECONDS = 3_600.0
NO_DIALS = OutboundLimits(full=0, blocks=0, feelers=False)


class Say(Message, frozen=True):
    """An application's own message: a number and ballast."""

    TYPE: ClassVar[str] = "say"
    MAX_SIZE: ClassVar[int] = 300_000

    number: int
    ballast: bytes = b""

    def encode(self) -> bytes:
        return self.number.to_bytes(4, "big") + self.ballast

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        return cls(int.from_bytes(payload[:4], "big"), payload[4:])


Log = list[tuple[str, Any]]


def reaction_of(log: Log) -> Callable[[Peer, Say, float], Iterable[Effect]]:
    """Notes what arrives; answers even numbers with the next one, penalises 99, hangs up at 100."""

    def on_say(peer: Peer, message: Say, now: float) -> Iterable[Effect]:
        log.append(("say", (message.number, len(message.ballast))))
        if message.number == 100:
            return (Disconnect(peer.link, "one hundred"),)
        if message.number == 99:
            return (Penalise(peer.link, 30, "ninety-nine"),)
        if message.number % 2:
            return ()
        return (Send(peer.link, Say(message.number + 1, message.ballast)), Notify("answered", {"n": message.number}))

    return on_say


SCRIPT = (Say(2), Say(4, bytes(200_000)), Say(6), Say(7), Say(8, b"x"), Say(99), Say(10), Say(100), Say(12))
EXPECTED_SERVER = [
    ("peer-connected", True),
    *(("say", (n, size)) for n, size in ((2, 0), (4, 200_000), (6, 0), (7, 0), (8, 1), (99, 0), (10, 0), (100, 0))),
    ("peer-disconnected", "closed by this node: one hundred"),
]
EXPECTED_CLIENT = [
    ("peer-connected", False),
    *(("say", (n, size)) for n, size in ((3, 0), (5, 200_000), (7, 0), (9, 1), (11, 0))),
    ("peer-disconnected", "closed cleanly"),
]
TOLD = ("peer-connected", "peer-disconnected")


def note(log: Log, kind: str, fields: Any) -> None:
    """What both interpreters tell about a link; the rest (points, pings) has times in it."""
    if kind == "peer-connected":
        log.append((kind, fields["inbound"]))
    elif kind == "peer-disconnected":
        log.append((kind, fields["reason"]))


def simulated() -> tuple[Log, Log]:
    """The scenario under a virtual clock."""
    kernel = Kernel(5)
    network = SimNetwork(kernel)
    logs: list[Log] = [[], []]
    knobs = LEVELS[PrivacyLevel.STANDARD]
    nodes = [
        network.add(
            Settings(network_id=NETWORK_ID, is_dev=True, knobs=knobs, outbound=NO_DIALS),
            messages=[Say],
            reactions={Say: reaction_of(log)},
        )
        for log in logs
    ]
    for node, log in zip(nodes, logs, strict=True):
        node.told = _Telling(log)
    link = nodes[0].connect(nodes[1].address)
    kernel.run(until=5.0)
    for message in SCRIPT:
        nodes[0].send(link, message)
    kernel.run(until=100.0)
    return logs[0], logs[1]


class _Telling(list[Notify]):
    """Passes what a simulated node is told into a log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def append(self, told: Notify) -> None:
        note(self._log, told.kind, told.fields)


async def over_tcp(tmp_path: Path) -> tuple[Log, Log]:
    """The same over real sockets in real time."""
    logs: list[Log] = [[], []]
    nodes = []
    for number, log in enumerate(logs):
        config = Config(
            network="dev",
            data_dir=tmp_path / str(number),
            privacy="standard",
            listen=("127.0.0.1:0",),
            max_outbound=0,
        )
        node = Node(config)
        node.register(Say, reaction_of(log))
        nodes.append(node)

    async def follow(node: Node, log: Log) -> None:
        async for event in node.events(TOLD):
            note(log, str(event["kind"]), event)

    async with asyncio.timeout(DEADLINE_S), nodes[0], nodes[1]:
        followers = [asyncio.create_task(follow(node, log)) for node, log in zip(nodes, logs, strict=True)]
        await asyncio.sleep(0)
        ends = [node.events(("peer-disconnected",)) for node in nodes]
        peer = await nodes[0].connect(nodes[1].addresses[0])
        for message in SCRIPT:
            nodes[0].send(peer, message)
        for end in ends:
            await anext(end)
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*followers)  # they end with their nodes
    return logs[0], logs[1]


def test_the_same_core_runs_in_both_interpreters(tmp_path: Path) -> None:
    virtual = simulated()
    real = asyncio.run(over_tcp(tmp_path))
    assert _by_kind(virtual[0]) == _by_kind(real[0]) == _by_kind(EXPECTED_CLIENT)
    assert _by_kind(virtual[1]) == _by_kind(real[1]) == _by_kind(EXPECTED_SERVER)


def _by_kind(log: Log) -> dict[str, Log]:
    """Messages and notifications apart: a subscriber hears of a connection a turn after its first message at the soonest."""
    return {
        "messages": [entry for entry in log if entry[0] == "say"],
        "told": [entry for entry in log if entry[0] != "say"],
    }


# --- The simulator repeats itself -----------------------------------------------------------------------------------


def story(seed: int, level: PrivacyLevel = PrivacyLevel.MEDIUM, until: float = 400.0) -> tuple[str, list[list[str]]]:
    """A small network with everything on: the hash of all that happened, and what each node was told."""
    kernel = Kernel(seed)
    network = SimNetwork(kernel, lambda a, b: 0.01 + 0.01 * (a + b))
    for _ in range(5):
        network.add(Settings(network_id=NETWORK_ID, is_dev=True, knobs=LEVELS[level]), messages=[Say])
    rng = random.Random(seed)
    for node in network.nodes[1:]:
        node.connect(network.nodes[rng.randrange(node.number)].address)
    kernel.run(until=until / 2)
    for node in network.nodes:
        for peer in node.peers:
            node.send(peer.link, Say(node.number))
            node.send(peer.link, Tx(bytes(100)))
    kernel.run(until=until)
    return kernel.trace_hash, [[told.kind for told in node.told] for node in network.nodes]


def test_the_same_seed_gives_the_same_trace_and_another_gives_another() -> None:
    assert story(1) == story(1)
    assert story(1)[0] != story(2)[0]
    assert story(1)[0] != story(1, PrivacyLevel.STANDARD)[0]


def test_everybody_is_linked_in_the_story() -> None:
    _, told = story(3)
    assert all("peer-connected" in kinds for kinds in told)


# --- Reconnection: handled by the node itself, in virtual time -----------------------------------------------------------


def pair(kernel: Kernel, **settings: Any) -> tuple[SimNetwork, SimNode, SimNode]:
    """A target, and a node that is told to keep a link with it."""
    network = SimNetwork(kernel)
    plain = {"network_id": NETWORK_ID, "is_dev": True, "knobs": QUIET, "outbound": NO_DIALS}
    target = network.add(Settings(**plain))
    keeper = network.add(Settings(**plain, manual=(target.address,), **settings))
    return network, target, keeper


def test_a_manual_peer_comes_back_after_its_target_was_restarted() -> None:
    kernel = Kernel(11)
    network, target, keeper = pair(kernel)
    kernel.run(until=10.0)
    assert [peer.dialled for peer in keeper.peers] == [target.address]
    first = keeper.peers[0].session_id
    for down_s in (5.0, 600.0, 6 * SECONDS):
        target.crash()
        kernel.run(until=kernel.now + down_s)
        assert keeper.peers == []
        target = network.restart(target, Settings(network_id=NETWORK_ID, is_dev=True, knobs=QUIET, outbound=NO_DIALS))
        kernel.run(until=kernel.now + 700.0)  # the longest wait, and the handshake
        assert [peer.dialled for peer in keeper.peers] == [target.address]
        assert keeper.peers[0].session_id != first
        assert len(target.peers) == 1
    assert [told.kind for told in keeper.told].count("peer-connected") == 4


def test_attempts_thin_out_and_never_stop() -> None:
    kernel = Kernel(12)
    _, target, keeper = pair(kernel)
    target.crash()
    counts = []
    for hour in range(1, 7):
        kernel.run(until=hour * SECONDS)
        counts.append(sum(told.kind == "dial-failed" for told in keeper.told))
    hourly = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    assert all(3 <= count <= 60 for count in hourly[1:]), hourly
    assert not keeper.peers


def test_a_target_that_answers_nothing_at_all_is_given_up_after_thirty_seconds_and_tried_again() -> None:
    """Half-open: the socket is there, nobody speaks."""
    kernel = Kernel(13)
    _, target, keeper = pair(kernel)
    target._turn = lambda: None  # type: ignore[method-assign]  # it hears everything and does nothing
    kernel.run(until=29.0)
    assert not [told for told in keeper.told if told.kind == "dial-failed"]
    kernel.run(until=32.0)
    (failed,) = [told for told in keeper.told if told.kind == "dial-failed"]
    assert "did not prove its key" in failed.fields["why"]
    kernel.run(until=300.0)
    assert len([told for told in keeper.told if told.kind == "dial-failed"]) >= 2
