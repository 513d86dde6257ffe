"""The control socket: what a client gets, and what a hostile, slow or crashed one can do (nothing to the others)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon import jsonrpc
from obscura.daemon.async_client import AsyncClient
from obscura.daemon.client import Client, NoNode
from obscura.daemon.control import ControlServer, listening
from obscura.daemon.datadir import DataDir
from obscura.daemon.events import Broadcast
from obscura.daemon.rpc import MethodRegistry
from obscura.errors import UserError
from obscura.limits import RPC_CONNECTIONS, RPC_IN_FLIGHT

MAX_LINE = 2_000


class Host:
    """A server with methods to play with, and raw connections to it."""

    def __init__(self, path: Path, **limits: Any) -> None:
        self.path = path
        self.broadcast = Broadcast()
        self.gate = asyncio.Event()
        self.waiting = 0
        self.calls: list[str] = []
        registry = MethodRegistry()
        registry.method("echo")(self.echo)
        registry.method("wait")(self.wait)
        registry.method("big")(self.big)
        self.server = ControlServer(path, registry, self.broadcast, **{"max_line": MAX_LINE, **limits})

    def echo(self, text: str) -> str:
        self.calls.append(text)
        return text

    async def wait(self) -> str:
        self.waiting += 1
        await self.gate.wait()
        return "waited"

    def big(self, size: int) -> str:
        return "x" * size

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path), limit=16 << 20)

    async def raw(self, data: bytes) -> list[Any]:
        """Everything that comes back for ``data``, the own side closed after it."""
        reader, writer = await self.open()
        writer.write(data)
        writer.write_eof()
        answers = [json.loads(line) for line in (await reader.read()).splitlines()]
        writer.close()
        return answers


def run(path: Path, scene: Callable[[Host], Awaitable[None]], **limits: Any) -> None:
    async def play() -> None:
        host = Host(path / "rpc.sock", **limits)
        async with asyncio.timeout(30), host.server:
            await scene(host)

    asyncio.run(play())


def ask(method: str, id: Any = 1, **params: Any) -> bytes:
    return jsonrpc.line({"jsonrpc": "2.0", "method": method, "params": params, "id": id})


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something has happened; ``run`` bounds the time."""
    while not holds():  # noqa: ASYNC110  # what is waited for has no event of its own
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(host: Host) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await host.open()
    try:
        yield reader, writer
    finally:
        writer.close()


def test_the_socket_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        assert stat.S_IMODE(host.path.stat().st_mode) == 0o600
        async with AsyncClient(host.path) as client:
            assert await client.call("echo", "hello") == "hello"
            assert await client.call("echo", text="hello") == "hello"

    run(tmp_path, scene)
    assert not (tmp_path / "rpc.sock").exists()


def test_lines_are_answered_whatever_the_fragments(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (reader, writer):
            text = ask("echo", 1, text="a") + b"\r\n  \n" + ask("echo", 2, text="b") + b"nonsense\n"
            for index in range(len(text)):
                writer.write(text[index : index + 1])
                await writer.drain()
            found = [json.loads(await reader.readline()) for _ in range(3)]
            assert [item.get("result") for item in found] == ["a", "b", None]
            assert found[2]["error"]["code"] == jsonrpc.PARSE_ERROR

    run(tmp_path, scene)


def test_an_unfinished_line_is_never_executed(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        assert await host.raw(ask("echo", text="whole") + ask("echo", text="cut")[:-1]) == [
            {"jsonrpc": "2.0", "result": "whole", "id": 1}
        ]
        assert host.calls == ["whole"]

    run(tmp_path, scene)


def test_calls_in_flight_are_answered_as_they_finish(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (reader, writer):
            writer.write(ask("wait", "slow") + ask("echo", "fast", text="x"))
            assert json.loads(await reader.readline())["id"] == "fast"
            host.gate.set()
            assert json.loads(await reader.readline()) == {"jsonrpc": "2.0", "result": "waited", "id": "slow"}

    run(tmp_path, scene)


def test_calls_in_flight_are_answered_after_the_client_ended_its_side(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        asked = asyncio.create_task(host.raw(ask("wait")))
        await until(lambda: host.waiting > 0)
        host.gate.set()
        assert [item["result"] for item in await asked] == ["waited"]

    run(tmp_path, scene)


def test_no_more_than_so_many_calls_of_one_client_are_worked_on(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (reader, writer), AsyncClient(host.path) as other:
            writer.write(b"".join(ask("wait", id) for id in range(RPC_IN_FLIGHT + 10)))
            await until(lambda: host.waiting >= RPC_IN_FLIGHT)
            assert await other.call("echo", "free") == "free"
            assert host.waiting == RPC_IN_FLIGHT
            host.gate.set()
            ids = {json.loads(await reader.readline())["id"] for _ in range(RPC_IN_FLIGHT + 10)}
            assert ids == set(range(RPC_IN_FLIGHT + 10))

    run(tmp_path, scene)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_over_the_limit_is_told_and_ends_the_connection(tmp_path: Path, end: bytes) -> None:
    async def scene(host: Host) -> None:
        request = ask("echo", text="x" * (MAX_LINE - len(ask("echo", text="")) + 1))
        assert len(request) == MAX_LINE + len(b"\n")
        async with opened(host) as (reader, writer):
            writer.write(request + b"x" * (MAX_LINE + 1) + end)
            answers = [json.loads(line) for line in (await reader.read()).splitlines()]
            assert len(answers) == 2
            assert sum("result" in answer for answer in answers) == 1
            (told,) = [answer["error"] for answer in answers if "error" in answer]
            assert told["code"] == jsonrpc.TOO_LARGE
            assert told["message"] == f"a request is at most {MAX_LINE} bytes long"

    run(tmp_path, scene)


def test_a_half_line_is_waited_for_only_so_long(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (reader, writer), opened(host) as (idle_reader, idle_writer):
            idle_writer.write(ask("echo", text="in two pieces")[:9])
            async with AsyncClient(host.path) as other:
                await other.call("echo", "by now the first piece has been read")
            idle_writer.write(ask("echo", text="in two pieces")[9:])
            assert json.loads(await idle_reader.readline())["result"] == "in two pieces"
            writer.write(b'{"jsonrpc"')
            told = json.loads(await reader.readline())
            assert told["error"]["message"] == "the line was not finished in 0.05 s"
            assert not await reader.read()
            idle_writer.write(ask("echo", text="an idle client is not cut"))
            assert json.loads(await idle_reader.readline())["id"] == 1

    run(tmp_path, scene, stall_s=0.05)


def test_a_client_that_takes_no_answer_is_cut(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(str(host.path))
        caller.setblocking(False)
        caller.send(ask("big", size=8 << 20))
        await until(lambda: len(host.server._clients) > 0)
        await asyncio.gather(*host.server._clients)  # ends by itself, with nothing read
        async with AsyncClient(host.path) as other:
            assert await other.call("echo", "x") == "x"
        caller.close()

    run(tmp_path, scene, stall_s=0.05)


def test_one_client_too_many_is_told_and_a_free_place_is_given(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        clients = [AsyncClient(host.path) for _ in range(RPC_CONNECTIONS)]
        for number, client in enumerate(clients):
            await client.__aenter__()
            assert await client.call("echo", str(number)) == str(number)
        (refused,) = await host.raw(b"")
        assert refused["error"]["code"] == jsonrpc.TOO_MANY_CLIENTS
        assert refused["error"]["message"].startswith("64 clients are connected already")
        assert await clients[0].call("echo", "still there") == "still there"
        await clients.pop().__aexit__(None, None, None)
        await until(lambda: len(host.server._clients) < RPC_CONNECTIONS)
        async with AsyncClient(host.path) as late:
            assert await late.call("echo", "late") == "late"
        for client in clients:
            await client.__aexit__(None, None, None)

    run(tmp_path, scene)


def test_two_subscribers_each_get_what_they_asked_for(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (all_reader, all_writer), opened(host) as (some_reader, some_writer):
            all_writer.write(ask("events.subscribe"))
            some_writer.write(ask("events.subscribe", kinds=["b", "never"]))
            for reader in (all_reader, some_reader):
                assert json.loads(await reader.readline()) == {"jsonrpc": "2.0", "result": True, "id": 1}
            for number, kind in enumerate("abab"):
                host.broadcast.publish({"kind": kind, "number": number})
            seen = [json.loads(await all_reader.readline()) for _ in range(4)]
            assert seen[0] == {"jsonrpc": "2.0", "method": "event", "params": {"kind": "a", "number": 0}}
            assert [item["params"]["number"] for item in seen] == [0, 1, 2, 3]
            seen = [json.loads(await some_reader.readline()) for _ in range(2)]
            assert [item["params"]["number"] for item in seen] == [1, 3]
            some_writer.write(ask("events.unsubscribe", 2))
            assert json.loads(await some_reader.readline()) == {"jsonrpc": "2.0", "result": True, "id": 2}
            assert len(host.broadcast) == 1
            host.broadcast.publish({"kind": "b"})
            some_writer.write(ask("events.unsubscribe", 3))
            assert json.loads(await some_reader.readline()) == {"jsonrpc": "2.0", "result": False, "id": 3}
        await until(lambda: len(host.broadcast) == 0)

    run(tmp_path, scene)


def test_subscribing_again_replaces_the_subscription(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (reader, writer):
            writer.write(ask("events.subscribe", 1) + ask("events.subscribe", 2, kinds=["b"]))
            await reader.readline()
            await reader.readline()
            host.broadcast.publish({"kind": "a"})
            host.broadcast.publish({"kind": "b"})
            assert json.loads(await reader.readline())["params"] == {"kind": "b"}

    run(tmp_path, scene)


def test_a_subscriber_that_does_not_read_loses_events_and_is_told_how_many(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with opened(host) as (reader, writer):
            writer.write(ask("events.subscribe"))
            await reader.readline()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            sent = 30_000
            for number in range(sent):  # without giving the loop a turn: the queue must hold what it may
                host.broadcast.publish({"kind": "x", "number": number})
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            got: list[int] = []
            while True:
                event = json.loads(await reader.readline())["params"]
                if event["kind"] == "lost":
                    break
                got.append(event["number"])
            assert got == list(range(10_000))
            assert event["lost"] == sent - 10_000
            host.broadcast.publish({"kind": "x", "number": -1})
            assert json.loads(await reader.readline())["params"]["number"] == -1

    run(tmp_path, scene)


def test_a_gap_is_told_at_its_place() -> None:
    async def scene() -> None:
        broadcast = Broadcast()
        subscription = broadcast.subscribe(capacity=2)
        for number in range(5):
            broadcast.publish({"kind": "x", "number": number})
        assert (await anext(subscription))["number"] == 0
        broadcast.publish({"kind": "x", "number": 5})
        subscription.close()
        broadcast.publish({"kind": "x", "number": 6})
        rest = [dict(event) async for event in subscription]
        assert rest == [
            {"kind": "x", "number": 1},
            {"kind": "lost", "lost": 3},
            {"kind": "x", "number": 5},
        ]

    asyncio.run(scene())


def test_leaving_cuts_clients_in_the_middle_of_a_call(tmp_path: Path) -> None:
    async def play() -> None:
        host = Host(tmp_path / "rpc.sock")
        async with asyncio.timeout(30):
            async with host.server:
                client = await AsyncClient(host.path).__aenter__()
                asked = asyncio.create_task(client.call("wait"))
                await until(lambda: host.waiting > 0)
            with pytest.raises(NoNode, match="went away"):
                await asked
            with pytest.raises(NoNode, match="went away"):
                await client.call("echo", "x")
            await client.__aexit__(None, None, None)

    asyncio.run(play())


@pytest.mark.parametrize("wanted", ["an answer", "events"])
def test_a_client_that_does_not_read_does_not_hold_up_the_end(wanted: str, tmp_path: Path) -> None:
    async def play() -> None:
        host = Host(tmp_path / "rpc.sock", stall_s=3_600)
        async with asyncio.timeout(30):
            async with host.server:
                _, writer = await host.open()
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                if wanted == "events":
                    writer.write(ask("events.subscribe"))
                    await until(lambda: len(host.broadcast) == 1)
                    host.broadcast.publish({"kind": "k", "of": "x" * 4_000_000})
                else:
                    writer.write(ask("big", size=4_000_000) + ask("echo", text="called"))
                    await until(lambda: bool(host.calls))
                for _ in range(50):
                    await asyncio.sleep(0)  # what is said fills the socket, and the rest waits
            writer.close()

    asyncio.run(play())


def test_a_deep_data_directory_has_a_socket_too(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()

    async def scene(host: Host) -> None:
        async with AsyncClient(host.path) as client:
            assert await client.call("echo", "x") == "x"
        assert await asyncio.to_thread(call_once, host.path) == "x"

    run(folder, scene)
    assert not list(folder.iterdir())


def call_once(path: Path) -> Any:
    with Client(path) as client:
        return client.call("echo", "x")


def test_a_stale_socket_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    assert path.is_socket()

    async def scene(host: Host) -> None:
        async with AsyncClient(host.path) as client:
            assert await client.call("echo", "x") == "x"

    run(tmp_path, scene)


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with listening(path), pytest.raises(UserError, match="a node already answers on"), listening(path):
        pass
    with listening(path, backlog=0):
        callers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for caller in callers:  # until the backlog is full
            caller.setblocking(False)
            caller.connect_ex(str(path))
        with pytest.raises(UserError, match="a node already answers on"), listening(path):
            pass
        for caller in callers:
            caller.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    path.write_text("precious")
    with pytest.raises(UserError, match="is not a socket"), listening(path):
        pass
    assert path.read_text() == "precious"
    with pytest.raises(UserError, match="cannot be opened: No such file"), listening(tmp_path / "no/rpc.sock"):
        pass


class Scripted:
    """A server that gives one connection the same bytes whatever it asks."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(answer,))

    def _serve(self, answer: bytes) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "went away"),
        (b'{"result": 1', "went away"),
        (b"SSH-2.0-OpenSSH\n", "does not speak JSON-RPC"),
        (b"[1]\n", "does not speak JSON-RPC"),
    ],
)
def test_the_client_says_what_is_wrong_with_the_node(tmp_path: Path, answer: bytes, words: str) -> None:
    path = tmp_path / "rpc.sock"
    with Scripted(path, answer), Client(path) as client, pytest.raises(NoNode, match=words):
        client.call("status")


def test_the_client_passes_over_what_is_not_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    answer = b'{"method":"event","params":{}}\n{"id":99,"result":0}\n{"id":1,"result":5}\n'
    with Scripted(path, answer), Client(path) as client:
        assert client.call("status") == 5


def test_the_client_waits_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    words = r"did not answer in 0\.05 s"
    with listening(path), Client(path, timeout_s=0.05) as client:
        for _ in range(2):  # the second time Python said "cannot read from timed out object"
            with pytest.raises(NoNode, match=words):
                client.call("status")


def test_without_a_node_the_client_says_how_to_start_one(tmp_path: Path) -> None:
    sentence = f"no node is running on {tmp_path}: start one with `obscura run`"
    with pytest.raises(NoNode, match=sentence):
        Client(tmp_path / "rpc.sock")

    async def scene() -> None:
        async with AsyncClient(tmp_path / "rpc.sock"):
            pass

    with pytest.raises(NoNode, match=sentence):
        asyncio.run(scene())


def test_a_node_that_is_starting_is_not_told_as_none(tmp_path: Path) -> None:
    """It holds its directory for minutes while it looks through a large store, and was to be started once more."""
    told = r"it is starting.* no node but"
    sentence = rf"the node on {tmp_path}/dev \(pid {os.getpid()}\) does not answer: {told}.*`kill {os.getpid()}`"

    async def scene() -> None:
        async with AsyncClient(tmp_path / "dev" / "rpc.sock"):
            pass

    with DataDir(tmp_path, "dev").hold() as folder:
        with pytest.raises(NoNode, match=sentence):
            Client(folder.rpc_socket)
        with pytest.raises(NoNode, match=sentence):
            asyncio.run(scene())


def test_the_blocking_client_follows_events(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        def follow() -> list[Any]:
            with Client(host.path) as client:
                events = client.events("a")
                return [next(events) for _ in range(2)]

        following = asyncio.create_task(asyncio.to_thread(follow))
        await until(lambda: len(host.broadcast) > 0)
        for number in range(3):
            host.broadcast.publish({"kind": "a" if number % 2 == 0 else "b", "number": number})
        assert [event["number"] for event in await following] == [0, 2]

    run(tmp_path, scene)


def test_the_async_client_follows_events_beside_calls(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with AsyncClient(host.path) as client:
            events = client.events()
            first = asyncio.create_task(anext(events))
            await until(lambda: len(host.broadcast) > 0)
            host.broadcast.publish({"kind": "a"})
            assert await first == {"kind": "a"}
            assert await client.call("echo", "x") == "x"
            with pytest.raises(UserError, match="did you mean echo"):
                await client.call("ecoh")
            await events.aclose()  # type: ignore[attr-defined]

    run(tmp_path, scene)


def test_clients_take_parameters_one_way_only(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    with listening(path), Client(path) as client, pytest.raises(TypeError, match="not both"):
        client.call("echo", 1, text=2)
    assert os.listdir(tmp_path) == []
