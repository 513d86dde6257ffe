"""The node over real sockets: what an application does with it, and what bad peers do to it.

Every wait is bounded by one deadline; nothing is measured in real time. What needs minutes is tried in virtual time elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pytest

from obscura.connection import Bare, Connection, Dialling, Event, Reason
from obscura.daemon import node as node_module
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.daemon.outbox import Following
from obscura.errors import AddressError, Unreachable, UserError
from obscura.ledger.mining import filler_transaction
from obscura.limits import SEND_QUEUE_MAX
from obscura.morph.plain import Plain
from obscura.node.core import Part
from obscura.node.effects import Effect, Notify, Send
from obscura.node.peer import Peer
from obscura.store.sqlite import Store
from obscura.wire.address import Address, CarrierNumber
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.frame import Unknown, encode_frame, encode_raw
from obscura.wire.message import Message
from obscura.wire.messages.network import Ping, Pong, Verack
from obscura.wire.messages.transactions import StemTx
from playbook import ends, inject, messages, offer

DEADLINE_S = 20.0
MIB = 1 << 20
Result = TypeVar("Result")


class Ballast(Message, frozen=True):
    """An application's message of any size."""

    TYPE: ClassVar[str] = "ballast"
    MAX_SIZE: ClassVar[int] = 2 * MIB

    raw: bytes

    def encode(self) -> bytes:
        return self.raw

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        return cls(payload)


def run(scenario: Awaitable[Result]) -> Result:
    """Play a scenario; whatever hangs fails at the deadline, and nothing may be left in the loop or reported to it."""
    faults: list[dict[str, Any]] = []

    async def bounded() -> Result:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(DEADLINE_S):
            result = await scenario
        for _ in range(5):
            await asyncio.sleep(0)  # the last words of closed sockets
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
        return result

    result = asyncio.run(bounded())
    assert faults == []
    return result


def config(tmp_path: Path, name: str, **changes: Any) -> Config:
    """A node of the dev network that finds nobody by itself."""
    given = {"privacy": "standard", "listen": ("127.0.0.1:0",), "max_outbound": 0, **changes}
    return Config(network="dev", data_dir=tmp_path / name, **given)


async def until(true: Callable[[], Any]) -> None:
    """Let the loop run until something is so; the scenario's deadline bounds it."""
    while not true():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.001)


class RawPeer:
    """A peer that the test drives by hand, over a real socket: it reads when told to, and may send anything."""

    def __init__(self, node: Node, sock: socket.socket, *, bare: bool = False) -> None:
        rng = random.Random()
        key = node.addresses[0].key
        channel = Bare() if bare else Dialling(node.network.id, 1, key)
        own = offer(bare=bare, nonce=rng.getrandbits(64))
        self.socket = sock
        self.events: list[Event] = []
        self.connection = Connection(
            Plain(rng, client=True),
            channel,
            own,
            CATALOGUE,
            rng,
            lambda: int(time.time()),
            initiator=True,
            now=0.0,
        )

    @classmethod
    async def reach(cls, node: Node, *, bare: bool = False) -> Self:
        """Connect, start, and be established."""
        peer = cls(node, await raw_socket(node.addresses[0]), bare=bare)
        peer.events += peer.connection.start(0.0)
        await peer.say()
        while not peer.connection.is_established:
            assert await peer.hear(), "the node closed"
        return peer

    async def say(self, raw: bytes = b"") -> None:
        """Send what is queued, and then any bytes."""
        data = b"".join(self.connection.flush(0.0)) + raw
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def hear(self) -> bool:
        """Read once and answer; False at the end of the stream."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self.socket, 256 << 10)
        except ConnectionResetError:
            data = b""
        self.events += self.connection.receive(data, 0.0) if data else self.connection.eof(0.0)
        with contextlib.suppress(OSError):
            await self.say()
        return bool(data)

    async def hear_out(self) -> list[Event]:
        """Read to the end."""
        while await self.hear():
            pass
        return self.events


async def raw_socket(address: Address) -> socket.socket:
    """A connected socket."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    return sock


@contextlib.asynccontextmanager
async def two_nodes(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Node, Node, Peer]]:
    """Two nodes and the link between them, seen from the first."""
    async with Node(config(tmp_path, "a", **changes)) as a, Node(config(tmp_path, "b", **changes)) as b:
        yield a, b, await a.connect(b.addresses[0])


# --- What an application does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("privacy", ["standard", "medium"])
def test_connect_ping_disconnect_and_what_is_told(tmp_path: Path, privacy: str) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path, "a", privacy=privacy)) as a, Node(config(tmp_path, "b", privacy=privacy)) as b:
            told_a = a.events(("peer-connected", "peer-disconnected", "pong"))
            told_b = b.events(("peer-connected", "peer-disconnected"))
            peer = await a.connect(str(b.addresses[0]))
            assert peer.proved_key == b.addresses[0].key
            assert (await anext(told_a))["peer"] == peer.link
            assert (await anext(told_b))["inbound"] is True
            assert b.peers()[0].session_id == peer.session_id
            assert await a.ping(peer) > 0
            assert (await anext(told_a))["kind"] == "pong"
            rtts = await asyncio.gather(*(a.ping(peer) for _ in range(3)))
            assert all(rtt > 0 for rtt in rtts)
            a.disconnect(peer)
            assert (await anext(told_b))["reason"] == "closed cleanly"
            await until(lambda: not a.peers())
            with pytest.raises(UserError, match="no peer"):
                await a.ping(peer)
            with pytest.raises(UserError, match="no peer"):
                a.disconnect(999)
            with pytest.raises(UserError, match="no peer"):
                a.send(peer, Ping(1))

    run(scenario())


def test_many_nodes_in_one_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(Node(config(tmp_path, str(n)))) for n in range(6)]
            hub = nodes[0]
            peers = await asyncio.gather(*(node.connect(hub.addresses[0]) for node in nodes[1:]))
            rtts = await asyncio.gather(*(node.ping(peer) for node, peer in zip(nodes[1:], peers, strict=True)))
            assert len(rtts) == len(hub.peers()) == 5
            assert len({peer.session_id for peer in hub.peers()}) == 5

    run(scenario())


def test_an_own_message_and_its_feature_bit(tmp_path: Path) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    def echo(peer: Peer, message: Ballast, now: float) -> Iterable[Effect]:
        return (Send(peer.link, Ballast(message.raw[::-1])),)

    def keep(peer: Peer, message: Ballast, now: float) -> None:
        got.put_nowait(message.raw)

    async def scenario() -> None:
        a, b = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        a.register(Ballast, keep, feature=1 << 9)
        b.register(Ballast, echo, feature=1 << 9)
        for wrong in (0x40, 0x80, 1, 3 << 9, 1 << 32):
            with pytest.raises(ValueError, match="one bit"):
                a.register(Ballast, keep, feature=wrong)
        with pytest.raises(ValueError, match="is taken"):
            a.register(Ballast, keep)
        with pytest.raises(ValueError, match="the message type ping is taken"):
            a.register(Ping, keep)
        async with a, b:
            peer = await a.connect(b.addresses[0])
            assert peer.negotiated.flags.features >> 9 & 1
            a.send(peer, Ballast(b"abc"))
            assert await got.get() == b"cba"
            with pytest.raises(UserError, match="before the node is entered"):
                a.register(Ballast, keep)

    run(scenario())


def test_events_end_with_the_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path, "a")) as node:
            everything = node.events()
        assert [event async for event in everything] == []

    run(scenario())


def test_a_node_is_entered_once_and_one_that_runs_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, other = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        async with node, other:
            peer = await node.connect(other.addresses[0])
            with pytest.raises(UserError, match="entered once"):
                await node.__aenter__()
            assert await node.ping(peer) > 0
        with pytest.raises(UserError, match="entered once"):
            await node.__aenter__()

    run(scenario())


def test_a_message_that_is_too_large_or_comes_too_late_is_refused_before_its_peer_ends_the_link_for_it(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        node, other = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        async with node, other:
            peer = await node.connect(other.addresses[0])
            with pytest.raises(UserError, match="verack belongs to the handshake"):
                node.send(peer, Verack())
            with pytest.raises(UserError, match="a message of type stemtx has 100000 bytes at most"):
                node.send(peer, StemTx(bytes(100_001)))
            assert await node.ping(peer) > 0

    run(scenario())


def test_a_text_is_one_kind_of_events(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, other = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        async with node, other:
            told = node.events("peer-connected")
            await node.connect(other.addresses[0])
            assert (await anext(told))["kind"] == "peer-connected"

    run(scenario())


def test_a_node_that_was_left_takes_nothing_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    raw = filler_transaction(random.Random(1))

    async def followed(following: Following) -> None:
        async for _ in following:
            pass

    async def scenario() -> None:
        async with Node(config(tmp_path, "a")) as node:
            waiting = asyncio.ensure_future(followed(node.broadcast(raw, policy="strict")))
            with pytest.raises(UserError, match="policy 'secret': one of private, strict"):
                node.broadcast(raw, policy="secret")
        with pytest.raises(UserError, match="stopped before this transaction's last step"):
            await waiting
        with pytest.raises(UserError, match="has stopped"):
            node.broadcast(filler_transaction(random.Random(2)))
        with pytest.raises(UserError, match="has stopped"):
            await node.submit_block(b"")
        assert [event async for event in node.events()] == []

    run(scenario())


@pytest.mark.parametrize("fault", [{"TYPE": "ping"}, {"TYPE": "ballast"}, {"TYPE": "huge", "MAX_SIZE": 5 * MIB}])
def test_a_message_that_cannot_be_is_refused_when_it_is_registered(fault: dict[str, Any], tmp_path: Path) -> None:
    node = Node(config(tmp_path, "a"))
    node.register(Ballast, lambda peer, message, now: None)
    wrong = type("Wrong", (Ballast,), fault, frozen=True)
    with pytest.raises(ValueError, match=r"is taken|MAX_SIZE is 0 to"):
        node.register(wrong, lambda peer, message, now: None)

    async def scenario() -> None:
        async with node:  # what was refused is not there
            pass

    run(scenario())


class Fieldless(Message, frozen=True):
    """One that leaves out what its field needs."""

    TYPE: ClassVar[str] = "fieldless"
    MAX_SIZE: ClassVar[int] = 8

    value: int


async def awaited(peer: Peer, message: Ballast, now: float) -> None:
    """What is no reaction."""


@pytest.mark.parametrize(
    ("wrong", "reaction", "said"),
    [
        (type("NoType", (Message,), {"MAX_SIZE": 8}, frozen=True), print, "NoType: TYPE is not set"),
        (type("NoSize", (Message,), {"TYPE": "nosize"}, frozen=True), print, "NoSize: MAX_SIZE is not set"),
        (type("Half", (Message,), {"TYPE": "half", "MAX_SIZE": 0.5}, frozen=True), print, "or no int"),
        (Fieldless, print, "encode and decode of its own"),
        (Ballast(b""), print, "a subclass of obscura.Message"),
        ("ballast", print, "a subclass of obscura.Message"),
        (Ballast, None, "a plain function"),
        (Ballast, awaited, "nobody awaits"),
    ],
)
def test_what_an_application_left_out_is_said_when_it_registers(
    wrong: Any, reaction: Any, said: str, tmp_path: Path
) -> None:
    node = Node(config(tmp_path, "a"))
    with pytest.raises(ValueError, match=said):
        node.register(wrong, reaction)
    node.register(Ballast, print)  # nothing of it is left


def test_a_node_that_is_not_entered_says_so(tmp_path: Path) -> None:
    node = Node(config(tmp_path, "a"))
    with pytest.raises(UserError, match="async with"):
        node.peers()
    assert not (tmp_path / "a").exists(), "making the object touches nothing"


def test_a_fault_in_a_reaction_costs_its_link_and_not_the_node(tmp_path: Path) -> None:
    def broken(peer: Peer, message: Ballast, now: float) -> None:
        raise RuntimeError(message.raw.decode())

    async def scenario() -> None:
        a, b, c = (Node(config(tmp_path, name)) for name in "abc")
        b.register(Ballast, broken)
        a.register(Ballast, lambda peer, message, now: None)
        async with a, b, c:
            told = a.events(("peer-disconnected",))
            peer, other = await a.connect(b.addresses[0]), await c.connect(b.addresses[0])
            a.send(peer, Ballast(b"secret words"))
            assert (await anext(told))["peer"] == peer.link
            assert await c.ping(other) > 0

    run(scenario())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("a message", "ExtensionFault: Ballast is no effect"),
        ("no fields", "ExtensionFault: the fields of a Notify are a mapping"),
        ("decoded", "ExtensionFault: Ballast.decode returned int, not Ballast"),
        ("too much", "UserError\n"),
    ],
)
def test_what_nobody_can_carry_out_is_said_and_not_passed_over(
    wrong: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Ballast(bytes(Ballast.MAX_SIZE + 1))

    def answer(peer: Peer, message: Ballast, now: float) -> Iterable[Effect]:
        if wrong == "no fields":
            return [Notify("said", None)]  # type: ignore[arg-type]
        return [message] if wrong == "a message" else [Send(peer.link, large)]  # type: ignore[list-item]

    if wrong == "decoded":
        monkeypatch.setattr(Ballast, "decode", staticmethod(len))

    async def scenario() -> None:
        a, b = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        a.register(Ballast, lambda peer, message, now: None)
        b.register(Ballast, answer)
        async with a, b:
            told = b.events(("peer-disconnected",))
            peer = await a.connect(b.addresses[0])
            with pytest.raises(TypeError, match="Ballast is no effect"):
                a.apply([Ballast(b"")])  # type: ignore[list-item]
            with pytest.raises(UserError, match="2097152 bytes at most, not 2097153"):
                a.apply([Send(peer.link, large)])
            assert await a.ping(peer) > 0  # neither costs the link, unless a reaction does it
            a.send(peer, Ballast(b"abc"))
            assert (await anext(told))["reason"] == "closed by this node: a defect of its own"

    run(scenario())
    assert f"it is ended: {said}" in caplog.text


class Restless(Part):
    """A part with a defect: it is always due, and fails."""

    def __init__(self) -> None:
        self.asked = 0

    def deadline(self) -> float:
        return 0.0

    def due(self, now: float) -> Iterable[Effect]:
        self.asked += 1
        raise RuntimeError("-".join(("secret", "words")))


def test_a_part_that_fails_in_its_time_makes_the_node_neither_deaf_nor_busy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        node, other, restless = Node(config(tmp_path, "a")), Node(config(tmp_path, "b")), Restless()
        node._parts.append(restless)
        async with node, other:
            await until(lambda: restless.asked)
            asked = restless.asked
            for _ in range(200):
                await asyncio.sleep(0)
            assert restless.asked == asked, "not before a second is over"
            peer = await node.connect(other.addresses[0])
            assert await node.ping(peer) > 0

    run(scenario())
    assert "fault in what was due: RuntimeError" in caplog.text
    assert "secret-words" not in caplog.text, "a fault's text may hold what identifies a user"


# --- Dials that come to nothing -------------------------------------------------------------------------------------------


def test_failed_dials_say_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Node(config(tmp_path, "a")) as a,
            Node(config(tmp_path, "b", required_features=("feature-bit-24",))) as b,
        ):
            free = socket.socket()
            free.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{free.getsockname()[1]}"
            with pytest.raises(Unreachable, match=f"nothing listens at {nobody}"):
                await a.connect(Address.parse(f"obscura://{nobody}"))
            free.close()
            place = b.addresses[0]
            wrong = Address(a.addresses[0].key, place.host, place.port)
            with pytest.raises(
                Unreachable, match=f"{place.port} did not prove its key: offline, key changed, wrong clock"
            ):
                await a.connect(wrong)
            with pytest.raises(Unreachable, match=f"no link to 127.0.0.1:{place.port}"):
                await a.connect(place)
            with pytest.raises(Unreachable, match="connected to itself"):
                await a.connect(a.addresses[0])
            for text in ("obscura://203.0.113.1:1", "obscura://no.example:19733?carrier=tls", "nonsense::1"):
                with pytest.raises(AddressError):
                    await a.connect(text)
            assert a.peers() == b.peers() == []

    run(scenario())


def test_a_dial_is_given_up_when_the_node_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        listening = socket.create_server(("127.0.0.1", 0))  # accepts in the kernel, says nothing
        place = Address(None, "127.0.0.1", listening.getsockname()[1])
        async with Node(config(tmp_path, "a")) as node:
            dialling = asyncio.create_task(node.connect(place))
            await until(lambda: any(link.connection for link in node.engine.links.values()))
        with pytest.raises(Unreachable):
            await dialling
        listening.close()

    run(scenario())


def test_a_start_that_is_cancelled_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, open_store = threading.Event(), threading.Event(), Store.open

    def slow(*given: Any, **named: Any) -> Store:
        begun.set()
        assert goes_on.wait(DEADLINE_S)
        return open_store(*given, **named)

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Store, "open", slow)
            starting = asyncio.create_task(Node(config(tmp_path, "one")).__aenter__())
            assert await asyncio.to_thread(begun.wait, DEADLINE_S)
            starting.cancel()
            await asyncio.sleep(0)
            goes_on.set()
            with pytest.raises(asyncio.CancelledError):
                await starting
        async with Node(config(tmp_path, "one")) as node:
            assert node.addresses

    run(scenario())


def test_a_cancelled_dial_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        place = Address(None, "127.0.0.1", listening.getsockname()[1])
        async with Node(config(tmp_path, "a")) as node:
            dialling = asyncio.create_task(node.connect(place))
            await until(lambda: any(link.connection for link in node.engine.links.values()))
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
            await until(lambda: not node.engine.links)
        listening.close()

    run(scenario())


# --- The end of a node ---------------------------------------------------------------------------------------------------


def test_a_node_leaves_nothing_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers, discarding links, peers that say nothing more, a manual peer that is never there: all gone at once."""
    monkeypatch.setattr(node_module, "STOP_S", 1_000.0)  # waiting for anybody would show at the deadline

    async def scenario() -> None:
        absent = Address.parse("obscura://127.0.0.1:1")
        async with Node(config(tmp_path, "a", connect=(str(absent),))) as node, Node(config(tmp_path, "b")) as other:
            silent = await raw_socket(node.addresses[0])
            garbage = await raw_socket(node.addresses[0])
            await asyncio.get_running_loop().sock_sendall(garbage, bytes(2_000))
            await other.connect(node.addresses[0])
            await until(lambda: len(node.engine.links) >= 3 and node.peers())
        for sock in (silent, garbage):
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""
            sock.close()
        for _ in range(20):
            await asyncio.sleep(0)
        waiting = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        ours = [handle for handle in waiting if "Timeout" not in repr(handle)]
        assert ours == []

    run(scenario())


def test_a_peer_that_does_not_end_cleanly_is_cut_at_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "STOP_S", 0.05)

    async def scenario() -> None:
        async with Node(config(tmp_path, "a")) as node:
            peer = await RawPeer.reach(node)
            await until(node.peers)
        assert [end.reason for end in ends(await peer.hear_out())] == [Reason.CLEAN]
        peer.socket.close()

    run(scenario())


# --- Bad peers ---------------------------------------------------------------------------------------------------------


def test_back_pressure_reaches_the_sender_and_goes_again(tmp_path: Path) -> None:
    """``drained`` holds an application back while its peer does not read, and lets it go on when it does."""

    async def scenario() -> None:
        node = Node(config(tmp_path, "a"))
        node.register(Ballast, lambda peer, message, now: None)
        async with node:
            slow = await RawPeer.reach(node)
            await until(node.peers)
            peer = node.peers()[0]
            total, sent = 24, 0

            async def produce() -> None:
                nonlocal sent
                while sent < total:
                    node.send(peer, Ballast(bytes(MIB)))
                    sent += 1
                    await node.drained(peer)

            producing = asyncio.create_task(produce())
            await until(
                lambda: node.engine.links[peer.link].blocked_since is not None and node.engine.waiting(peer.link)
            )
            stuck_at = sent
            for _ in range(50):
                await asyncio.sleep(0)
            assert sent == stuck_at < total
            assert node.engine.waiting(peer.link) <= 2 * MIB, "nothing piles up"
            while sum(isinstance(event, Unknown) for event in slow.events) < total:
                assert await slow.hear()
            await producing
            assert sent == total
            other = await RawPeer.reach(node)  # meanwhile nobody else was hurt
            other.socket.close()
            slow.socket.close()

    run(scenario())


def test_a_peer_that_stops_reading_is_cut_and_the_others_live(tmp_path: Path) -> None:
    async def scenario() -> None:
        node, friend = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        node.register(Ballast, lambda peer, message, now: None)
        async with node, friend:
            told = node.events(("peer-disconnected",))
            stuck = await RawPeer.reach(node)
            await until(node.peers)
            peer = node.peers()[0]
            link = await friend.connect(node.addresses[0])

            async def flood() -> None:
                for _ in range(4 * SEND_QUEUE_MAX // MIB):
                    node.send(peer, Ballast(bytes(MIB)))
                    await asyncio.sleep(0)

            with pytest.raises(UserError, match="no peer"):
                await flood()
            assert (await anext(told))["reason"] == Reason.STALLED.value
            assert await friend.ping(link) > 0
            stuck.socket.close()

    run(scenario())


STRANGERS = {
    "nothing": [],
    "one byte": [b"x"],
    "a header of HTTP": [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    "zeros": [bytes(1_400)],
    "bare frames": [encode_frame(Ping(1)) * 100],
    "a megabyte": [random.Random(1).randbytes(MIB)],
    "trickle": [bytes((n,)) for n in range(60)],
}


@pytest.mark.parametrize("what", STRANGERS)
def test_strangers_hear_nothing_and_hurt_nobody(tmp_path: Path, what: str) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path, "a", unlisted=True)) as node, Node(config(tmp_path, "b")) as friend:
            loop = asyncio.get_running_loop()
            stranger = await raw_socket(node.addresses[0])
            for piece in STRANGERS[what]:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(stranger, piece)
            peer = await friend.connect(node.addresses[0])
            assert await friend.ping(peer) > 0
            stranger.setblocking(False)
            try:
                answer = stranger.recv(100)
            except (BlockingIOError, ConnectionResetError):
                answer = b""
            assert answer == b"", "silence, or an end"
            stranger.close()
            assert await friend.ping(peer) > 0
            assert len(node.peers()) == 1

    run(scenario())


MISDEEDS = {
    "a second version": (encode_frame(offer().version), Reason.VIOLATION),
    "a second verack": (encode_frame(Verack()), Reason.VIOLATION),
    "an oversized ping": (encode_raw("ping", bytes(9)), Reason.VIOLATION),
    "a type in capitals": (bytes(4) + b"PING".ljust(12, b"\0") + b"\x5d\xf6\xe0\xe2", Reason.VIOLATION),
    "malformed without end": (encode_raw("ping", bytes(7)) * 50, None),
    "wrong checksums": (encode_raw("pong", bytes(8), b"abcd") * 50, None),
}


@pytest.mark.parametrize("what", MISDEEDS)
def test_misdeeds_inside_the_channel_end_it(tmp_path: Path, what: str) -> None:
    async def scenario() -> None:
        raw, reason = MISDEEDS[what]
        async with Node(config(tmp_path, "a")) as node:
            told = node.events(("peer-disconnected",))
            peer = await RawPeer.reach(node)
            inject(peer.connection, encode_frame(Ping(77)))
            inject(peer.connection, raw)
            await peer.say()
            why = str((await anext(told))["reason"])
            assert why.startswith(reason.value) if reason else "too many faults" in why
            await peer.hear_out()
            assert [end.reason for end in ends(peer.events)] == [Reason.CLEAN]
            peer.socket.close()

    run(scenario())


def test_unknown_types_and_half_closed_sockets(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path, "a")) as node:
            told = node.events(("peer-disconnected", "penalty"))
            peer = await RawPeer.reach(node)
            inject(peer.connection, encode_raw("novelty", bytes(10_000)) + encode_frame(Ping(5)))
            await peer.say()
            while Pong(5) not in messages(peer.events):
                assert await peer.hear()
            peer.socket.shutdown(socket.SHUT_WR)
            event = await anext(told)
            assert (event["kind"], event["reason"]) == ("peer-disconnected", Reason.LOST.value)
            await peer.hear_out()
            peer.socket.close()

    run(scenario())


def test_a_flipped_bit_on_the_way_ends_the_link_without_a_word_and_without_blame(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path, "a")) as node:
            told = node.events(("peer-disconnected", "penalty"))
            peer = await RawPeer.reach(node)
            await until(node.peers)
            inject(peer.connection, encode_frame(Ping(5)))
            data = bytearray(b"".join(peer.connection.flush(0.0)))
            data[len(data) // 2] ^= 1
            await asyncio.get_running_loop().sock_sendall(peer.socket, bytes(data))
            event = await anext(told)
            assert event["kind"] == "peer-disconnected"
            assert str(event["reason"]).startswith(Reason.FAULT.value)
            assert len(node.engine.links) == 1, "it goes on reading, so that nothing shows"
            again = await RawPeer.reach(node)
            assert again.connection.is_established, "a man in the middle cannot have an honest peer banned"
            again.socket.close()
            peer.socket.close()

    run(scenario())


def test_bare_links_where_they_are_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        allowed = config(tmp_path, "a", listen=("127.0.0.1:0?carrier=bare",), allow_plaintext=True)
        async with Node(allowed) as node, Node(config(tmp_path, "b")) as other:
            place = node.addresses[0]
            assert (place.carrier, place.key) == (CarrierNumber.BARE, None)
            peer = await other.connect(place)
            assert peer.pattern == "none"
            assert await other.ping(peer) > 0
            by_hand = await RawPeer.reach(node, bare=True)
            assert by_hand.connection.is_established
            by_hand.socket.close()

    run(scenario())
