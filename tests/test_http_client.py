"""The library's clients over HTTP against a node's own server: the same calls, events and errors as over the control socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from obscura import AsyncClient, Client
from obscura.cli import root
from obscura.daemon import jsonrpc
from obscura.daemon.config import Config
from obscura.daemon.fronts import fronts
from obscura.daemon.http_client import EventLines
from obscura.daemon.jsonrpc import RemoteError
from obscura.daemon.node import Node
from obscura.daemon.nonode import NoNode
from obscura.daemon.scope import Scope
from obscura.daemon.tokens import TokenFile
from obscura.errors import ConfigError, UserError
from obscura.limits import MAX_TOKENS


def with_node(folder: Path, scene: Callable[[Node, dict[str, str]], Any]) -> None:
    async def play() -> None:
        config = Config(network="dev", data_dir=folder, listen=(), max_outbound=0, rpc_http="127.0.0.1:0")
        async with asyncio.timeout(60), Node(config) as node, fronts(node) as shown:
            await scene(node, shown)

    asyncio.run(play())


def test_both_clients_say_the_same_over_both_ways(tmp_path: Path) -> None:
    async def scene(node: Node, shown: dict[str, str]) -> None:
        url, cookie, path = shown["rpc_http"], node.data_dir.rpc_cookie, node.data_dir.rpc_socket
        assert stat.S_IMODE(cookie.stat().st_mode) == 0o600

        def blocking(*where: Any) -> list[Any]:
            with Client(*where) as client:
                found = [client.call("mempool"), client.call("mine", 1)["height"], client.call("block.get", block="0")]
                with pytest.raises(RemoteError, match="there is no peer 9") as refused:
                    client.call("disconnect", peer=9)
                assert refused.value.code == jsonrpc.USER_ERROR
                with pytest.raises(TypeError, match="not both"):
                    client.call("mine", 1, fill=2)
                return found[::2]

        over = [
            await asyncio.to_thread(blocking, *where) for where in ((path,), (url, cookie), (url, cookie.read_text()))
        ]
        assert over[0] == over[1] == over[2] or over[0][0] == over[1][0] == over[2][0]
        for where in ((path,), (url, cookie)):
            async with AsyncClient(*where) as client:  # type: ignore[arg-type]
                status, pool = await asyncio.gather(client.call("status"), client.call("mempool", True))
                assert (status["height"], pool["ids"]) == (3, [])
                with pytest.raises(RemoteError, match="did you mean mempool"):
                    await client.call("mempol")

    with_node(tmp_path, scene)


def test_events_come_over_http_to_both_clients(tmp_path: Path) -> None:
    async def scene(node: Node, shown: dict[str, str]) -> None:
        url, cookie = shown["rpc_http"], node.data_dir.rpc_cookie
        got: list[dict[str, Any]] = []

        def follow() -> None:
            with Client(url, cookie) as client:
                got.append(next(client.events("tip")))

        before = len(node.events_out)
        thread = threading.Thread(target=follow)
        thread.start()
        async with AsyncClient(url, cookie) as client:
            events = client.events()
            first = asyncio.ensure_future(anext(events))
            while len(node.events_out) < before + 2:  # noqa: ASYNC110  # both have subscribed
                await asyncio.sleep(0.01)
            await client.call("mine", 1)
            assert (await first)["kind"] == "tip"
            await asyncio.to_thread(thread.join)
            await events.aclose()  # type: ignore[attr-defined]
        assert [event["height"] for event in got] == [1]

    with_node(tmp_path, scene)


def test_who_may_only_look_is_not_told_what_is_own(tmp_path: Path) -> None:
    async def scene(node: Node, shown: dict[str, str]) -> None:
        tokens = TokenFile(node.data_dir.rpc_tokens)
        seen = {}
        for scope in (Scope.READ, Scope.WRITE):
            secret = tokens.add(scope.label, scope)
            before = len(node.events_out)
            async with AsyncClient(shown["rpc_http"], secret) as client:
                events = client.events(["transaction"])
                first = asyncio.ensure_future(anext(events))
                while len(node.events_out) == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                node.events_out.publish({"kind": "transaction", "id": "00", "bytes": 1, "own": True})
                seen[scope] = await first
                await events.aclose()  # type: ignore[attr-defined]
                if scope is Scope.READ:
                    for method in ("tx.receipts", "tx.get", "tx.send"):
                        with pytest.raises(RemoteError, match="needs the scope write; the token has read") as refused:
                            await client.call(method, "00" * 32)
                        assert refused.value.code == jsonrpc.FORBIDDEN
        assert "own" not in seen[Scope.READ]
        assert seen[Scope.WRITE]["own"] is True

    with_node(tmp_path, scene)


def test_a_connection_that_the_server_ended_between_two_calls_is_made_anew() -> None:
    """After a minute without a call the node ends it, and the next call said that no node answers."""
    body = b'{"jsonrpc":"2.0","result":7,"id":%d}'
    closed = threading.Semaphore(0)

    def serve(listener: socket.socket) -> None:
        for number in (1, 2):
            connection, _ = listener.accept()
            with connection:
                asked = b""
                while b"status" not in asked:  # in the body
                    asked += connection.recv(4096)
                said = body % number
                connection.sendall(b"HTTP/1.1 200 \r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))
            closed.release()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:
        listener.settimeout(20)
        serving = threads.submit(serve, listener)
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "secret") as client:
            for _ in range(2):
                assert client.call("status") == 7
                assert closed.acquire(timeout=20)
        serving.result()


def test_wrong_secrets_and_places_are_said(tmp_path: Path) -> None:
    async def scene(node: Node, shown: dict[str, str]) -> None:
        def refused(*where: Any) -> str:
            with pytest.raises(RemoteError) as error, Client(*where) as client:
                client.call("status")
            assert error.value.code == jsonrpc.FORBIDDEN
            return str(error.value)

        assert "a new start makes a new cookie" in await asyncio.to_thread(refused, shown["rpc_http"], "wrong")
        assert "a new start makes a new cookie" in await asyncio.to_thread(refused, shown["rpc_http"])
        async with AsyncClient(shown["rpc_http"], "wrong") as client:
            with pytest.raises(RemoteError, match="a new start makes a new cookie"):
                await client.call("status")
            with pytest.raises(RemoteError, match="a new start makes a new cookie"):
                await anext(client.events())

    with_node(tmp_path, scene)
    with pytest.raises(ConfigError, match="reached from other machines"):
        Client("http://203.0.113.5:80", "x")
    with pytest.raises(
        ConfigError, match=r"'https://127.0.0.1:1' is no place of the RPC: it is http://IP:PORT on loopback"
    ):
        Client("https://127.0.0.1:1", "x")
    with pytest.raises(ConfigError, match=r"give a file as Path\(...\)") as raised:
        AsyncClient("http://127.0.0.1:1", "se/cret")
    assert "se/cret" not in str(raised.value)
    with pytest.raises(NoNode, match="cannot be read"):
        Client("http://127.0.0.1:1", tmp_path / "nothing")
    (tmp_path / "noise").write_bytes(b"\xff\xfe")
    for secret in ("sécret", "one\r\nX-More: two", tmp_path / "noise"):
        with pytest.raises(ConfigError, match="characters that no secret does") as raised:
            AsyncClient("http://127.0.0.1:1", secret)
        assert str(secret) not in str(raised.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            pytest.raises(NoNode, match="did not answer in"),
            Client(f"http://127.0.0.1:{port}", "x", timeout_s=0.1) as client,
        ):
            client.call("status")
    with pytest.raises(NoNode, match=r"no node answers on .* start one with"):
        Client(f"http://127.0.0.1:{port}", "x")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"nonsense\r\n\r\n", "does not speak HTTP"),
        (b"", "no node answers"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "does not speak HTTP|no node answers"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "HTTP status 200"),
        (b"HTTP/1.1 502 Bad\r\ncontent-length: 4\r\n\r\nhtml", "HTTP status 502"),
    ],
)
def test_what_is_no_node(answer: bytes, words: str) -> None:
    def serve() -> None:
        caller, _ = server.accept()
        with caller:
            caller.recv(65536)
            caller.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Client(url, "x") as client, pytest.raises((NoNode, RemoteError), match=words):
            client.call("status")
        thread.join()


def test_events_are_put_together_from_any_pieces() -> None:
    stream = b': hello\n\ndata: {"kind":"a"}\n\n:\n\ndata: {"kind":"b"}\n\n'
    for size in range(1, 20):
        lines = EventLines()
        found = [e for at in range(0, len(stream), size) for e in lines.take(stream[at : at + size])]
        assert found == [{"kind": "a"}, {"kind": "b"}]


def test_tokens_are_stored_hashed_and_privately(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "new" / "rpc.tokens")
    secret = file.add("wallet", Scope.WRITE)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert secret not in file.path.read_text()
    assert [(token.name, token.scope) for token in file.tokens()] == [("wallet", "write")]
    with pytest.raises(UserError, match="there is a token wallet already"):
        file.add("wallet", Scope.READ)
    with pytest.raises(UserError, match="there is no token 'other'"):
        file.remove("other")
    for name in ("", "a b", "x" * 41, "../x", "ä"):
        with pytest.raises(UserError, match="is no name of a token"):
            file.add(name, Scope.READ)
    for number in range(MAX_TOKENS - 1):
        file.add(str(number), Scope.READ)
    with pytest.raises(UserError, match="remove one"):
        file.add("more", Scope.READ)


BAD_FILES = ["", "{}", "[1]", '[{"name":"a","scope":"root","hash":"' + "0" * 64 + '","created":""}]', "[" * 70_000]
BAD_FILES += ['[{"name":"a","scope":"read","hash":"x","created":""}]']


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_damaged_file_opens_nothing(tmp_path: Path, text: str) -> None:
    file = TokenFile(tmp_path / "rpc.tokens")
    file.path.write_text(text)
    file.path.chmod(0o600)
    assert file.tokens() == ()
    with pytest.raises(UserError, match="damaged or open to others"):
        file.add("a", Scope.READ)


def test_a_file_that_others_may_read_opens_nothing(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "rpc.tokens")
    file.add("a", Scope.READ)
    assert len(file.tokens()) == 1
    file.path.chmod(0o644)
    assert TokenFile(file.path).tokens() == ()
    assert file.tokens() == ()  # by who has it read already, too


def test_a_file_that_was_changed_and_dated_back_is_read_again(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "rpc.tokens")
    file.add("a", Scope.READ)
    before = file.path.stat()
    assert [token.name for token in file.tokens()] == ["a"]
    file.path.write_bytes(file.path.read_bytes().replace(b'"a"', b'"b"'))
    os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [token.name for token in file.tokens()] == ["b"]


def test_tokens_from_the_command_line(tmp_path: Path) -> None:
    def obscura(*words: str) -> Any:
        return CliRunner().invoke(root, ["--network", "dev", "--data-dir", str(tmp_path), "token", *words])

    assert "there are no tokens" in obscura("list").output
    made = obscura("add", "wallet", "--scope", "write", "--json")
    secret = json.loads(made.output)["secret"]
    assert TokenFile(tmp_path / "dev" / "rpc.tokens").tokens()[0].name == "wallet"
    assert secret not in obscura("list").output
    assert json.loads(obscura("list", "--json").output)[0]["scope"] == "write"
    assert obscura("add", "wallet").exit_code == 1
    assert obscura("add", "x", "--scope", "root").exit_code == 2
    assert obscura("remove", "wallet").output == "removed wallet\n"
    assert obscura("remove", "wallet").exit_code == 1


def test_changes_at_the_same_time_lose_nothing_and_bring_nothing_back(tmp_path: Path) -> None:
    def change(number: int) -> None:
        file = TokenFile(tmp_path / "rpc.tokens")
        file.add(f"kept{number}", Scope.READ)
        file.add(f"gone{number}", Scope.ADMIN)
        file.remove(f"gone{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(change, range(6)))
    assert sorted(token.name for token in TokenFile(tmp_path / "rpc.tokens").stored()) == [
        f"kept{number}" for number in range(6)
    ]
