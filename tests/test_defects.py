"""What the node's own defects cost: one of a link costs that link, one of the core ends the node, and says so.

Whoever finds an input that raises in our code must not end or hang every link with it; and a core that stopped half way through a
change must not go on as if it had not. What a fault says may hold what a peer sent, so that only its kind and place are logged.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from obscura.connection import Connection
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.linkevents import Reason
from obscura.node.core import Part
from obscura.node.effects import AwaitRoom, Effect, Notify
from obscura.node.io import Faulted, Shut
from obscura.node.peer import Peer
from obscura.wire.messages.network import Ping, Pong
from playbook import Host, visit
from test_node_links import config, run, until

SECRET = "-".join(("secret", "words"))


def fails_for(victims: list[Connection], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``method`` raises for these connections."""
    works: Callable[..., Any] = getattr(Connection, method)

    def broken(self: Connection, *args: Any, **keys: Any) -> Any:
        if self in victims:
            raise RuntimeError(SECRET)
        return works(self, *args, **keys)

    monkeypatch.setattr(Connection, method, broken)


class Closing(Part):
    """Hears how links end."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self.closed.append(peer.link)
        return ()


@pytest.mark.parametrize("method", ["flush", "due", "eof"])
def test_what_one_link_fails_with_ends_it_and_no_other(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, closing = Host(), Closing()
    host.assembly.core.parts = (*host.assembly.core.parts, closing)
    victim, other = visit(host, seed=1), visit(host, seed=2)
    connection = host.engine.links[victim.link].connection
    assert connection is not None
    fails_for([connection], method, monkeypatch)
    if method == "flush":
        host.engine.send(victim.link, Ping(1), 0.0)
    elif method == "due":
        host.engine._timers.set(victim.link, 0.0)
        host.engine.due(0.0)
    else:
        with pytest.raises(RuntimeError) as raised:
            host.engine.eof(victim.link, 0.0)
        host.engine.broke(victim.link, raised.value)
        host.engine.receive(victim.link, b"what comes meanwhile", 0.0)
        host.engine.eof(victim.link, 0.0)  # the socket ends before the turn, and it is asked no more
    done = list(host.engine.drain(0.0))
    assert [str(io.fault) for io in done if isinstance(io, Faulted)] == ([] if method == "eof" else [SECRET])
    assert [io for io in done if isinstance(io, Shut)] == [Shut(victim.link)]
    assert closing.closed == [victim.link]
    assert victim.link not in host.engine.links
    assert [event for event in other.send(Ping(2)).events if isinstance(event, Pong)] == [Pong(2)]
    assert host.at(7_200.0) is not None, "its timers are gone too"


def test_a_failing_carrier_of_a_stranger_costs_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    monkeypatch.setattr(Connection, "start", lambda self, now: 1 / 0)
    link = host.engine.accepted(host.listener, None, 0.0)
    done = list(host.engine.drain(0.0))
    assert [type(io) for io in done] == [Faulted, Shut]
    assert link not in host.engine.links


def test_a_link_that_fails_when_it_is_written_to_leaves_the_node_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        a, b, c = (Node(config(tmp_path, name)) for name in "abc")
        async with a, b, c:
            first, second = await a.connect(b.addresses[0]), await a.connect(c.addresses[0])
            told = a.events(("peer-disconnected",))
            link = a.engine.links[first.link].connection
            assert link is not None
            fails_for([link], "flush", monkeypatch)
            with pytest.raises(Unreachable, match="a defect of its own"):
                await a.ping(first)
            assert (await anext(told))["reason"] == "closed by this node: a defect of its own"
            assert await a.ping(second) > 0
            await until(lambda: not b.peers())
            assert not a.stopped.is_set()
            assert a.fault is None
            assert len(a.engine.links) == 1

    run(scenario())
    assert "it is ended: RuntimeError" in caplog.text
    assert SECRET not in caplog.text


class Faulty(Part):
    """A part with a defect that shows while the engine carries something out."""

    def on_room(self, peer: Peer, now: float) -> Iterable[Effect]:
        raise RuntimeError(SECRET)


def asks_for_room(node: Node, peer: Peer) -> None:
    node.apply([AwaitRoom(peer.link)])


def notifies_badly(node: Node, peer: Peer) -> None:
    node.apply([Notify("said", {"kind": "twice"})])


def hears_of_the_archive(node: Node, peer: Peer) -> None:
    node.assembly.core.parts[-1].on_kept = None  # type: ignore[assignment,method-assign]
    node.archive_kept(1)


@pytest.mark.parametrize("defect", [asks_for_room, notifies_badly, hears_of_the_archive])
def test_what_the_core_fails_with_ends_the_node_and_says_so(
    defect: Callable[[Node, Peer], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: object, event: dict[str, Any]) -> None:
        if event["kind"] == "twice":
            raise RuntimeError(SECRET)

    monkeypatch.setattr("obscura.daemon.events.Broadcast.publish", refuse)

    async def scenario() -> None:
        node, other = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        node._parts.append(Faulty())
        async with node, other:
            peer = await node.connect(other.addresses[0])
            waiting = asyncio.ensure_future(node.ping(peer))
            await asyncio.sleep(0)
            defect(node, peer)
            await node.stopped.wait()
            assert node.fault is not None
            assert "a defect of its own" in str(node.fault)
            with pytest.raises(Unreachable, match="a defect of its own"):
                await waiting
            await until(lambda: not other.peers())  # at once, not when the application leaves

    run(scenario())
    assert "fault in the core, the node stops: " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("kind", ["pong", "peer-connected", "peer-disconnected", "dial-failed", "onion-added"])
@pytest.mark.parametrize("fields", [{}, {"rtt_ms": "x", "address": 1, "why": None}])
def test_an_application_that_tells_under_a_kind_of_the_nodes_costs_nobody_anything(
    kind: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    async def scenario() -> None:
        node, other = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        async with node, other:
            peer = await node.connect(other.addresses[0])
            told = node.events((kind,))
            waiting = asyncio.ensure_future(node.ping(peer))
            await asyncio.sleep(0)
            node.apply([Notify(kind, {"peer": peer.link, **fields})])
            assert await anext(told) == {"kind": kind, "peer": peer.link, **fields}
            assert await waiting > 0
            with pytest.raises(TypeError, match="the fields of a Notify are a mapping"):
                node.apply([Notify(kind, None)])  # type: ignore[arg-type]
            assert await node.ping(peer) > 0
            assert node.fault is None

    run(scenario())


@pytest.mark.parametrize("fields", [{}, {"why": 1}, {"why": "timeout"}, {"why": "timeout", "address": "nonsense"}])
def test_an_application_that_tells_of_a_dial_costs_i2p_nothing(fields: dict[str, Any], tmp_path: Path) -> None:
    node = Node(config(tmp_path, "a"))
    unanswered: list[str] = []
    node.routes.i2p = SimpleNamespace(unanswered=unanswered.append)  # type: ignore[assignment]
    node.routes.told(Notify("dial-failed", fields))
    assert unanswered == []
    address = f"{'a' * 52}.b32.i2p:0"
    node.routes.told(Notify("dial-failed", {"why": Reason.TIMEOUT.value, "address": address}))
    assert unanswered == [f"{'a' * 52}.b32.i2p"]


def test_a_core_that_fails_at_the_end_leaves_no_socket_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clinging(Part):
        def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
            raise RuntimeError(SECRET)

    async def scenario() -> None:
        node, other = Node(config(tmp_path, "a")), Node(config(tmp_path, "b"))
        node._parts.append(Clinging())
        async with other:
            async with node:
                await node.connect(other.addresses[0])
            assert node.fault is not None
            await until(lambda: not other.peers())

    run(scenario())
    assert SECRET not in caplog.text


def test_the_process_ends_with_a_status_and_one_sentence(tmp_path: Path) -> None:
    program = "\n".join(
        (
            "from obscura.node.engine import Engine",
            "def drain(self, now):",
            f"    raise RuntimeError({SECRET[::-1]!r}[::-1])",  # its lines may be shown, as of any program
            "    yield",
            "Engine.drain = drain",
            "from obscura.cli import main",
            "main()",
        )
    )
    words = ("--network", "dev", "--data-dir", str(tmp_path), "run", "--listen", "127.0.0.1:0", "--json")
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert ended.stdout == "" or json.loads(ended.stdout)["network"] == "dev"
    assert ended.stderr.splitlines()[-1].startswith("Error: the node stopped by a defect of its own (RuntimeError)")
    assert "fault in the core" in ended.stderr
    assert SECRET not in ended.stderr
