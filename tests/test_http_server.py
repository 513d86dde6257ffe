"""The operator's HTTP server: what web pages, other programs of this machine, slow and broken clients get from it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h11
import pytest

from obscura.daemon import jsonrpc, web
from obscura.daemon.events import Broadcast
from obscura.daemon.gate import Gate
from obscura.daemon.http_rpc import RpcRoutes
from obscura.daemon.http_server import HttpServer
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.scope import Scope
from obscura.daemon.tokens import TokenFile, new_secret
from obscura.daemon.web import Access, Answer, Loopback, Request, Route
from obscura.errors import ConfigError, UserError
from obscura.limits import HTTP_HEAD_BYTES, HTTP_STREAMS, MAX_SESSIONS, RPC_LINE_BYTES, SESSION_S


class Got(NamedTuple):
    """An answer as a client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A raw connection; answers are read by h11's client side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.client = h11.Connection(h11.CLIENT)

    async def ask(self, raw: bytes, method: str = "GET") -> Got:
        """The answer to these bytes. ``method`` is what they are, as far as it decides about a body."""
        self.client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self.client.send(h11.EndOfMessage())
        self.writer.write(raw)
        got = await self.read()
        if self.client.our_state is h11.DONE and self.client.their_state is h11.DONE:
            self.client.start_next_cycle()
        return got

    async def read(self) -> Got:
        head: h11.Response | None = None
        body = b""
        while True:
            event = self.client.next_event()
            if event is h11.NEED_DATA:
                self.client.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return Got(head.status_code, {n.decode(): v.decode() for n, v in head.headers}, bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionError

    async def is_closed(self) -> bool:
        try:
            return not await self.reader.read()
        except ConnectionError:
            return True


class Host:
    """A server with the RPC's routes and some to play with."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.clock = 0.0
        self.calls: list[str] = []
        self.gate_open = asyncio.Event()
        self.broadcast = Broadcast()
        registry = MethodRegistry()
        registry.method("echo", Scope.READ)(self.echo)
        registry.method("act", Scope.WRITE)(self.act)
        registry.method("rule", Scope.ADMIN)(self.rule)
        self.cookie = new_secret()
        self.tokens = TokenFile(folder / "data" / "rpc.tokens")
        self.gate = Gate(self.cookie, self.tokens, lambda: self.clock)
        beat_s = limits.pop("beat_s", 30.0)
        routes = {
            **RpcRoutes(registry, self.broadcast, self.gate, beat_s=beat_s).routes,
            ("GET", "/open"): Route(self.open, Access.OPEN),
            ("GET", "/wait"): Route(self.wait),
            ("GET", "/bug"): Route(self.bug, Access.OPEN),
            ("GET", "/big"): Route(self.big, Access.OPEN),
            ("GET", "/page"): web.static(b"<p>", "text/html"),
            ("GET", "/ruled"): Route(self.open, scope=Scope.ADMIN),
        }
        self.server = HttpServer(Loopback("127.0.0.1", 0), routes, self.gate, **limits)

    def echo(self, text: str) -> str:
        self.calls.append(text)
        return text

    def act(self) -> str:
        self.calls.append("act")
        return "acted"

    def rule(self) -> str:
        self.calls.append("rule")
        return "ruled"

    async def open(self, request: Request) -> Answer:
        return Answer(200, b"open", web.TEXT)

    async def wait(self, request: Request) -> Answer:
        await self.gate_open.wait()
        return Answer(200, b"waited", web.TEXT)

    async def bug(self, request: Request) -> Answer:
        raise KeyError("secret-peer-address")

    async def big(self, request: Request) -> Answer:
        return Answer(200, bytes(32 << 20), web.TEXT)

    @property
    def name(self) -> str:
        return str(self.server.at)

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection(*self.server.at)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()

    def request(self, method: str, path: str, body: bytes = b"", secret: str | None = None, **headers: str) -> bytes:
        """A good request, or one with a header changed, taken out ("") or added."""
        wanted = {"host": self.name}
        if secret is not None:
            wanted["authorization"] = f"Bearer {secret}"
        if body:
            wanted |= {"content-type": web.JSON, "content-length": str(len(body))}
        wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in wanted.items() if value]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body

    async def ask(self, method: str, path: str, *args: Any, **kwargs: Any) -> Got:
        async with self.wire() as wire:
            return await wire.ask(self.request(method, path, *args, **kwargs), method)

    async def raw(self, raw: bytes) -> Got:
        async with self.wire() as wire:
            return await wire.ask(raw)

    async def call(self, method: str, secret: str | None, **params: Any) -> Got:
        return await self.ask("POST", "/rpc", call(method, **params), secret)


def call(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()


def run(folder: Path, scene: Callable[[Host], Awaitable[None]], **limits: Any) -> None:
    async def play() -> None:
        host = Host(folder, **limits)
        async with asyncio.timeout(30), host.server:
            await scene(host)

    asyncio.run(play())


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something has happened; ``run`` bounds the time."""
    while not holds():  # noqa: ASYNC110  # what is waited for has no event of its own
        await asyncio.sleep(0)


# --- What it is for -------------------------------------------------------------------------------------------------


def test_a_call_is_answered_with_the_cookie(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        got = await host.call("echo", host.cookie, text="x")
        assert (got.status, got.json) == (200, {"jsonrpc": "2.0", "result": "x", "id": 1})
        batch = b"[" + call("echo", text="a") + b"," + call("rule") + b"," + call("nonsense") + b"]"
        told = (await host.ask("POST", "/rpc", batch, host.cookie)).json
        assert [item.get("result") for item in told] == ["a", "ruled", None]
        assert told[2]["error"]["code"] == jsonrpc.METHOD_NOT_FOUND
        notice = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": ["n"]}).encode()
        assert (await host.ask("POST", "/rpc", notice, host.cookie))[::2] == (204, b"")
        assert host.calls[-1] == "n"
        assert (await host.ask("POST", "/rpc", b"nonsense", host.cookie)).json["error"]["code"] == jsonrpc.PARSE_ERROR
        assert (await host.ask("POST", "/rpc", b"", host.cookie)).json["error"]["code"] == jsonrpc.PARSE_ERROR
        refused = (await host.call("events.subscribe", host.cookie)).json["error"]
        assert refused["message"] == "events need a connection that stays open"

    run(tmp_path, scene)


def test_a_connection_serves_request_after_request_also_sent_at_once(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        one, two = (host.request("POST", "/rpc", call("echo", text=text), host.cookie) for text in ("one", "two"))
        async with host.wire() as wire:
            assert (await wire.ask(one, "POST")).json["result"] == "one"
            assert (await wire.ask(two + one, "POST")).json["result"] == "two"
            assert (await wire.ask(b"", "POST")).json["result"] == "one"
            assert (await wire.ask(host.request("GET", "/open", connection="close"))).body == b"open"
            assert await wire.is_closed()

    run(tmp_path, scene)


def test_a_client_that_waits_to_be_told_to_go_on_is_told_after_its_secret_was_seen(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        request = host.request("POST", "/rpc", call("echo", text="x"), host.cookie, expect="100-continue")
        head, body = request.split(b"\r\n\r\n")
        async with host.wire() as wire:
            wire.writer.write(head + b"\r\n\r\n")
            assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            assert (await wire.ask(body, "POST")).json["result"] == "x"
        assert (await host.raw(head.replace(host.cookie.encode(), b"wrong") + b"\r\n\r\n")).status == 401

    run(tmp_path, scene)


def test_every_answer_forbids_storing_framing_guessing_and_reading_by_others(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        for got in (
            await host.ask("GET", "/open"),
            await host.raw(b"nonsense\r\n\r\n"),
        ):
            assert got.headers["cache-control"] == "no-store"
            assert got.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in got.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
            assert not [name for name in got.headers if name.startswith("access-control-") or name == "server"]

    run(tmp_path, scene)


# --- Web pages that the operator looks at -----------------------------------------------------------------------------

STRANGE_HOSTS = [
    "evil.example",
    "evil.example:PORT",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1.evil.example:PORT",
    "[::1]:PORT",
]
STRANGE_HOSTS += [
    "127.0.0.2:PORT",
    "localhost",
    "localhost:PORT.",
    "user@127.0.0.1:PORT",
    "127.0.0.1:PORT,evil",
    "0.0.0.0:PORT",
]


@pytest.mark.parametrize("name", STRANGE_HOSTS)
def test_a_name_that_leads_here_by_a_strangers_dns_is_refused(tmp_path: Path, name: str) -> None:
    async def scene(host: Host) -> None:
        named = name.replace("PORT", str(host.server.at.port))
        for path in ("/rpc", "/open", "/nothing"):
            got = await host.ask("POST", path, call("act"), host.cookie, host=named)
            assert got.status == 421
        assert host.calls == []

    run(tmp_path, scene)


def test_localhost_is_a_name_of_this_machine(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        assert (await host.ask("GET", "/open", host=f"LOCALHOST:{host.server.at.port}")).status == 200

    run(tmp_path, scene)


STRANGE_ORIGINS = [
    "http://evil.example",
    "null",
    "https://HOST",
    "http://localhost:1",
    "http://HOST.evil.example",
    "HOST",
]


@pytest.mark.parametrize("origin", STRANGE_ORIGINS)
def test_a_page_of_another_origin_is_refused_even_with_the_secret(tmp_path: Path, origin: str) -> None:
    async def scene(host: Host) -> None:
        named = origin.replace("HOST", host.name)
        for path in ("/rpc", "/login", "/open"):
            assert (await host.ask("POST", path, call("act"), host.cookie, origin=named)).status == 403
        assert host.calls == []

    run(tmp_path, scene)


def test_the_own_page_may_ask_and_one_of_the_same_site_may_not(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        own = {"origin": f"http://{host.name}", "sec_fetch_site": "same-origin"}
        assert (await host.ask("POST", "/rpc", call("act"), host.cookie, **own)).json["result"] == "acted"
        for site in ("cross-site", "same-site", "anything"):
            assert (await host.ask("GET", "/open", sec_fetch_site=site)).status == 403

    run(tmp_path, scene)


def test_a_preflight_is_not_answered_and_a_form_is_not_taken(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        got = await host.ask("OPTIONS", "/rpc", access_control_request_method="POST")
        assert (got.status, got.headers["allow"]) == (405, "POST")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            got = await host.ask("POST", "/rpc", call("act"), host.cookie, content_type=kind)
            assert got.status == 415
        assert (await host.ask("GET", "/rpc", secret=host.cookie)).status == 405
        assert host.calls == []

    run(tmp_path, scene)


def test_no_refusal_of_a_head_request_has_a_body(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        assert (await host.ask("HEAD", "/open"))[::2] == (405, b"")
        assert (await host.ask("HEAD", "/open", x="x" * HTTP_HEAD_BYTES))[::2] == (431, b"")
        twice = host.request("HEAD", "/open").replace(b"\r\n\r\n", b"\r\nhost: other\r\n\r\n")
        async with host.wire() as wire:
            assert (await wire.ask(twice, "HEAD"))[::2] == (400, b"")

    run(tmp_path, scene)


# --- Other programs of this machine -----------------------------------------------------------------------------------


def test_without_the_right_secret_there_is_no_call(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        wrong = ["", "x", host.cookie[:-1], host.cookie + "x", host.cookie.swapcase(), "é", "a" * 8_000]
        for secret in wrong:
            got = await host.call("act", secret)
            assert got.status == 401
            assert got.headers["www-authenticate"] == "Bearer"
            assert host.cookie not in got.body.decode()
        for value in (f"Basic {host.cookie}", host.cookie, f"Bearer{host.cookie}", "Bearer"):
            assert (await host.ask("POST", "/rpc", call("act"), authorization=value)).status == 401
        assert (await host.call("act", None)).status == 401
        assert (await host.ask("GET", f"/events?secret={host.cookie}")).status == 401
        assert (await host.ask("GET", "/wait", cookie=f"{web.PAGE_COOKIE}={host.cookie}")).status == 401
        assert host.calls == []

    run(tmp_path, scene)


def test_a_token_does_what_its_scope_says_and_no_more(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        secrets = {scope: host.tokens.add(scope.label, scope) for scope in Scope}
        needs = {"echo": Scope.READ, "act": Scope.WRITE, "rule": Scope.ADMIN}
        for scope, secret in secrets.items():
            for method, needed in needs.items():
                params = {"text": "x"} if method == "echo" else {}
                told = (await host.call(method, secret, **params)).json
                assert ("result" in told) == (scope >= needed)
                if scope < needed:
                    assert told["error"]["code"] == jsonrpc.FORBIDDEN
            batch = b"[" + call("rule") + b"," + call("echo", text="y") + b"]"
            told = (await host.ask("POST", "/rpc", batch, secret)).json
            assert ("error" in told[0]) == (scope < Scope.ADMIN)
            assert (await host.ask("GET", "/ruled", secret=secret)).status == (200 if scope is Scope.ADMIN else 403)
        assert host.calls.count("rule") == 2

    run(tmp_path, scene)


def test_a_removed_token_ends_at_once_on_connections_streams_and_logins_too(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        secret = host.tokens.add("wallet", Scope.READ)
        login = host.gate.login(secret)
        assert login is not None
        async with host.wire() as wire, host.wire() as stream:
            request = host.request("POST", "/rpc", call("echo", text="x"), secret)
            assert (await wire.ask(request, "POST")).status == 200
            stream.writer.write(host.request("GET", "/events", secret=secret))
            await stream.reader.readuntil(b"events follow")
            TokenFile(host.tokens.path).remove("wallet")  # as another process does it
            assert (await wire.ask(request, "POST")).status == 401
            host.broadcast.publish({"kind": "secret"})
            rest = await stream.reader.read()
            assert rest.endswith(b"\r\n0\r\n\r\n")
            assert b"secret" not in rest
        assert (await host.call("echo", login.key, text="x")).status == 401
        assert not host.gate.opens_pages(login.page)

    run(tmp_path, scene)


def test_a_browser_logs_in_and_its_page_cookie_opens_pages_only(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        assert (await host.ask("GET", "/page")).status == 401
        assert (await host.ask("POST", "/login", b'{"secret":"wrong"}')).status == 401
        for bad in (b"", b"{}", b"[]", b'{"secret":1}', b'{"secret":"a","more":1}', b"[" * 900):
            assert (await host.ask("POST", "/login", bad)).status == 400
        got = await host.ask("POST", "/login", json.dumps({"secret": host.cookie}).encode())
        assert got.status == 200
        assert got.json["scope"] == "admin"
        set_cookie = got.headers["set-cookie"]
        assert set_cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
        page = set_cookie.partition(";")[0]
        key = got.json["key"]
        shown = await host.ask("GET", "/page", cookie=page)
        assert shown.status == 200
        assert "script-src 'self'" in shown.headers["content-security-policy"]
        assert "unsafe" not in shown.headers["content-security-policy"]
        assert (await host.ask("POST", "/rpc", call("act"), cookie=page)).status == 401
        assert (await host.call("act", page.partition("=")[2])).status == 401
        assert (await host.call("act", key)).json["result"] == "acted"
        assert (await host.ask("GET", "/page", cookie=f"{web.PAGE_COOKIE}={key}")).status == 401
        assert (await host.ask("GET", "/page", cookie="a=b; \x01; ;=")).status in (400, 401)
        assert (await host.ask("POST", "/logout", secret=key)).status == 204
        assert (await host.call("act", key)).status == 401
        assert (await host.ask("GET", "/page", cookie=page)).status == 401

    run(tmp_path, scene)


def test_logins_end_with_time_and_are_limited_in_number(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        logins = [host.gate.login(host.cookie) for _ in range(MAX_SESSIONS + 1)]
        holds = [host.gate.scope_of(login.key) is not None for login in logins if login is not None]
        assert holds == [False] + [True] * MAX_SESSIONS
        host.clock = SESSION_S
        assert not any(host.gate.scope_of(login.key) for login in logins if login is not None)
        assert host.gate.scope_of(host.cookie) is Scope.ADMIN

    run(tmp_path, scene)


def test_a_small_token_logs_nobody_else_out(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        reader = host.tokens.add("reader", Scope.READ)
        owners = [host.gate.login(host.cookie) for _ in range(3)]
        for _ in range(2 * MAX_SESSIONS):
            assert host.gate.login(reader) is not None
        assert [host.gate.scope_of(login.key) for login in owners if login is not None] == [Scope.ADMIN] * 3

    run(tmp_path, scene)


def test_small_tokens_leave_the_owner_streams(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        reader = host.tokens.add("reader", Scope.READ)
        writers = []
        for _ in range(HTTP_STREAMS // 2):
            stream, writer = await asyncio.open_connection(*host.server.at)
            writers.append(writer)
            writer.write(host.request("GET", "/events", secret=reader))
            await stream.readuntil(b": events follow")
        assert (await host.ask("GET", "/events", secret=reader)).status == 503
        stream, writer = await asyncio.open_connection(*host.server.at)
        writer.write(host.request("GET", "/events", secret=host.cookie))
        assert (await stream.readuntil(b": events follow")).startswith(b"HTTP/1.1 200 ")
        for each in (*writers, writer):
            each.close()

    run(tmp_path, scene)


# --- Requests that mean two things ------------------------------------------------------------------------------------

SMUGGLED = {
    "both lengths": "POST /rpc HTTP/1.1\r\n{host}{auth}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked": "POST /rpc HTTP/1.1\r\n{host}{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "odd coding": "POST /rpc HTTP/1.1\r\n{host}{auth}Transfer-Encoding: xchunked\r\n\r\n",
    "two lengths": "POST /rpc HTTP/1.1\r\n{host}{auth}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "signed length": "POST /rpc HTTP/1.1\r\n{host}{auth}Content-Length: +4\r\n\r\nabcd",
    "negative length": "POST /rpc HTTP/1.1\r\n{host}{auth}Content-Length: -4\r\n\r\nabcd",
    "long length": "POST /rpc HTTP/1.1\r\n{host}{auth}Content-Length: " + "9" * 5_000 + "\r\n\r\n",
    "two hosts": "GET /open HTTP/1.1\r\n{host}Host: evil.example\r\n\r\n",
    "no host": "GET /open HTTP/1.1\r\n\r\n",
    "old": "GET /open HTTP/1.0\r\n{host}\r\n",
    "ancient": "GET /open\r\n\r\n",
    "whole address": "GET http://evil.example/open HTTP/1.1\r\n{host}\r\n",
    "two secrets": "GET /wait HTTP/1.1\r\n{host}Authorization: Bearer x\r\n{auth}\r\n",
    "two origins": "GET /open HTTP/1.1\r\n{host}Origin: http://evil.example\r\nOrigin: http://{name}\r\n\r\n",
    "space before colon": "GET /open HTTP/1.1\r\nHost : x\r\n{host}\r\n",
    "folded": "GET /open HTTP/1.1\r\n{host}X: a\r\n b\r\nOrigin:\r\n http://evil.example\r\n\r\n",
    "nul": "GET /open HTTP/1.1\r\n{host}X: a\0b\r\n\r\n",
    "dots": "GET /../open HTTP/1.1\r\n{host}\r\n",
    "escaped": "GET /%6fpen HTTP/1.1\r\n{host}\r\n",
    "slashes": "GET //open HTTP/1.1\r\n{host}\r\n",
    "long head": "GET /open HTTP/1.1\r\n{host}X: " + "x" * 40_000 + "\r\n\r\n",
    "many headers": "GET /open HTTP/1.1\r\n{host}" + "X: x\r\n" * 20_000,
    "tls": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 200,
    "next message": "GET /open HTTP/1.1\r\n{host}Content-Length: 23\r\n\r\nGET /ruled HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("text", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_a_request_of_two_meanings_is_refused_and_ends_the_connection(tmp_path: Path, text: str) -> None:
    async def scene(host: Host) -> None:
        auth = f"Authorization: Bearer {host.cookie}\r\n"
        sent = text.format(host=f"Host: {host.name}\r\n", auth=auth, name=host.name)
        async with host.wire() as wire:
            got = await wire.ask(sent.encode("latin-1"))
            assert 400 <= got.status < 600
            assert got.headers["connection"] == "close"
            assert await wire.is_closed()
        assert (await host.ask("GET", "/open")).status == 200

    run(tmp_path, scene)


def test_a_head_over_the_limit_is_refused_also_where_it_comes_at_once(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        assert (await host.ask("GET", "/open", x="x" * (HTTP_HEAD_BYTES - 1_000))).status == 200
        assert (await host.ask("GET", "/open", x="x" * HTTP_HEAD_BYTES)).status == 431

    run(tmp_path, scene)


def test_a_body_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        got = await host.ask(
            "POST", "/rpc", secret=host.cookie, content_length=str(RPC_LINE_BYTES + 1), content_type=web.JSON
        )
        assert got.status == 413
        got = await host.ask("POST", "/rpc", secret="wrong", content_length=str(RPC_LINE_BYTES), content_type=web.JSON)
        assert got.status == 401  # nothing of it was waited for
        assert (await host.ask("POST", "/login", b'{"secret":"' + b"x" * 1_000 + b'"}')).status == 413
        assert (await host.ask("GET", "/open", b"{}")).status == 413
        text = "x" * (1 << 20)
        assert (await host.call("echo", host.cookie, text=text)).json["result"] == text

    run(tmp_path, scene)


# --- Slow clients, and many of them -----------------------------------------------------------------------------------


def test_who_says_nothing_or_not_all_of_it_is_cut(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        half = host.request("POST", "/rpc", call("act"), host.cookie)
        for sent in (b"", half[:20], half[:-5]):
            async with host.wire() as wire:
                wire.writer.write(sent)
                assert await wire.is_closed()
        async with host.wire() as wire:
            assert (await wire.ask(host.request("GET", "/open"))).status == 200
            assert await wire.is_closed()  # idle
        assert host.calls == []

    run(tmp_path, scene, head_s=0.05, idle_s=0.05, stall_s=0.05)


def test_drops_of_a_head_do_not_buy_time(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with host.wire() as wire:
            ends = asyncio.create_task(wire.is_closed())
            wire.writer.write(b"GET /open HTTP/1.1\r\n")
            while not ends.done():
                wire.writer.write(b"X")
                await asyncio.sleep(0)

    run(tmp_path, scene, head_s=0.2)


def test_who_takes_no_answer_is_cut(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        _, writer = await asyncio.open_connection(*host.server.at, limit=1)
        writer.write(host.request("GET", "/big"))
        await until(lambda: bool(host.server._clients))
        await asyncio.gather(*host.server._clients)
        writer.transport.abort()

    run(tmp_path, scene, stall_s=0.1)


def test_strangers_cannot_keep_the_owner_out(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with host.wire() as mine:
            await mine.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")
            strangers = [await asyncio.open_connection(*host.server.at) for _ in range(40)]
            assert (await mine.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")).status == 200
            assert (await host.call("act", host.cookie)).status == 200
            assert len(host.server._clients) <= 4
            for _, writer in strangers:
                writer.close()

    run(tmp_path, scene, max_clients=4)


def test_strangers_who_come_at_once_are_ended_before_their_task_begins(tmp_path: Path) -> None:
    """They stayed open beside the limit, without a time: file after file until the node had none left for links."""

    async def scene(host: Host) -> None:
        strangers = [socket.create_connection(host.server.at) for _ in range(40)]  # the loop takes them in one turn
        await until(lambda: len(host.server._clients) == 4)
        loop, ended = asyncio.get_running_loop(), 0
        for stranger in strangers[:36]:
            stranger.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                assert await loop.sock_recv(stranger, 1) == b""
            ended += 1
        assert ended == 36
        for stranger in strangers:
            stranger.close()

    run(tmp_path, scene, max_clients=4)


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
def test_small_tokens_cannot_keep_the_owner_out(tmp_path: Path, scope: Scope) -> None:
    """Idle connections that had shown one held every place for a minute each, and each had it again by asking in time."""

    async def scene(host: Host) -> None:
        token = host.tokens.add("small", scope)
        async with host.wire() as mine, AsyncExitStack() as stack:
            assert (await mine.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")).status == 200
            for _ in range(10):
                guest = await stack.enter_async_context(host.wire())
                said = await guest.ask(host.request("POST", "/rpc", call("echo", text="a"), token), "POST")
                assert said.status == 200
            # A stranger that comes meanwhile does not take the place of the one that is to show the owner's secret.
            async with host.wire() as late, host.wire(), host.wire():
                await until(lambda: len(host.server._strangers) == 3)
                assert (await late.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")).status == 200
            assert (await mine.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")).status == 200
            assert len(host.server._clients) <= 8

    run(tmp_path, scene, max_clients=8)


def test_a_connection_that_showed_the_owners_secret_keeps_its_place_whatever_it_shows_then(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        token = host.tokens.add("small", Scope.READ)
        async with host.wire() as one, host.wire() as two:
            for secret in (token, host.cookie, token):
                for wire in (one, two):
                    said = await wire.ask(host.request("POST", "/rpc", call("echo", text="a"), secret), "POST")
                    assert said.status == 200
            async with host.wire() as late:
                assert await late.is_closed()

    run(tmp_path, scene, max_clients=2)


def test_places_that_owners_hold_are_not_taken(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with host.wire() as one, host.wire() as two:
            for wire in (one, two):
                assert (await wire.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")).status == 200
            async with host.wire() as late:
                assert await late.is_closed()
            assert (await one.ask(host.request("POST", "/rpc", call("act"), host.cookie), "POST")).status == 200

    run(tmp_path, scene, max_clients=2)


# --- Events ---------------------------------------------------------------------------------------------------------


async def event(wire: Wire) -> Any:
    while True:
        line = await wire.reader.readline()
        if line.startswith(b"data: "):
            return json.loads(line[6:])


def test_events_come_as_they_happen_those_that_were_asked_for(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with host.wire() as every, host.wire() as some:
            every.writer.write(host.request("GET", "/events", secret=host.cookie))
            some.writer.write(host.request("GET", "/events?kinds=b,never", secret=host.cookie))
            for wire in (every, some):
                head = await wire.reader.readuntil(b"\r\n\r\n")
                assert b"content-type: text/event-stream" in head
                await wire.reader.readuntil(b"events follow\n\n")
            for number, kind in enumerate("abab"):
                host.broadcast.publish({"kind": kind, "number": number})
            assert [(await event(every))["number"] for _ in range(4)] == [0, 1, 2, 3]
            assert [(await event(some))["number"] for _ in range(2)] == [1, 3]
        await until(lambda: len(host.broadcast) == 0)  # both left

    run(tmp_path, scene)


def test_a_reader_that_resets_its_stream_leaves_no_fault_in_the_loop(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with host.wire() as wire:
            wire.writer.write(host.request("GET", "/events", secret=host.cookie))
            await wire.reader.readuntil(b"events follow\n\n")
            reset = struct.pack("ii", 1, 0)  # on, no time to linger
            wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            wire.writer.transport.abort()
            await until(lambda: not len(host.broadcast))
        for _ in range(5):
            await asyncio.sleep(0)  # the connection's task ends
        gc.collect()
        assert faults == []

    run(tmp_path, scene)


def test_a_silent_stream_shows_that_it_lives(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        async with host.wire() as wire:
            wire.writer.write(host.request("GET", "/events", secret=host.cookie))
            await wire.reader.readuntil(b"events follow\n\n")
            for _ in range(3):
                await wire.reader.readuntil(b":\n\n")
            host.broadcast.publish({"kind": "a"})
            assert await event(wire) == {"kind": "a"}
            host.broadcast.close()
            assert (await wire.reader.read()).endswith(b"0\r\n\r\n")

    run(tmp_path, scene, beat_s=0.01)


def test_streams_that_are_asked_for_at_once_are_counted_too(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        reader = host.tokens.add("reader", Scope.READ)
        wires = [Wire(*await asyncio.open_connection(*host.server.at)) for _ in range(HTTP_STREAMS * 2)]
        for wire in wires:
            wire.writer.write(host.request("GET", "/events", secret=reader))
        heads = [await wire.reader.readuntil(b"\r\n") for wire in wires]
        assert sum(head.startswith(b"HTTP/1.1 200 ") for head in heads) == HTTP_STREAMS // 2
        assert len(host.broadcast) == HTTP_STREAMS // 2
        for wire in wires:
            wire.writer.close()
        await until(lambda: not len(host.broadcast))
        again = [Wire(*await asyncio.open_connection(*host.server.at)) for _ in range(HTTP_STREAMS // 2)]
        for wire in again:
            wire.writer.write(host.request("GET", "/events", secret=reader))
            assert (await wire.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            wire.writer.close()

    run(tmp_path, scene)


def test_streams_are_limited_and_leave_places_for_calls(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        wires = [Wire(*await asyncio.open_connection(*host.server.at)) for _ in range(HTTP_STREAMS)]
        for wire in wires:
            wire.writer.write(host.request("GET", "/events", secret=host.cookie))
            await wire.reader.readuntil(b"events follow")
        assert (await host.ask("GET", "/events", secret=host.cookie)).status == 503
        assert (await host.call("act", host.cookie)).status == 200
        wires[0].writer.close()
        await until(lambda: len(host.broadcast) < HTTP_STREAMS)
        assert (await host.call("act", host.cookie)).status == 200
        for wire in wires[1:]:
            wire.writer.close()

    run(tmp_path, scene)


# --- Faults, and the end ----------------------------------------------------------------------------------------------


def test_a_bug_says_nothing_outside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(host: Host) -> None:
        got = await host.ask("GET", "/bug")
        assert (got.status, got.json) == (500, {"error": "internal error; the node's log has more"})

    run(tmp_path, scene)
    assert "KeyError" in caplog.text
    assert "secret-peer-address" not in caplog.text


def test_leaving_cuts_whoever_is_there(tmp_path: Path) -> None:
    async def play() -> None:
        host = Host(tmp_path)
        async with asyncio.timeout(30):
            async with host.server:
                reader, writer = await asyncio.open_connection(*host.server.at)
                writer.write(host.request("GET", "/wait", secret=host.cookie))
                await until(lambda: bool(host.server._clients))
            assert await Wire(reader, writer).is_closed()
            writer.close()

    asyncio.run(play())


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    async def scene(host: Host) -> None:
        with pytest.raises(
            UserError, match=f"^{host.name} cannot be listened on: Address already in use; choose another port$"
        ):
            async with HttpServer(host.server.at, {}):
                pass

    run(tmp_path, scene)


LOOPBACK = [("127.0.0.1:8470", "127.0.0.1:8470"), ("127.9.9.9:0", "127.9.9.9:0"), ("[::1]:1", "[::1]:1")]
ELSEWHERE = ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "203.0.113.5:80", "[fe80::1]:1", "10.0.0.1:1"]
NO_ADDRESS = [
    "",
    "8470",
    "localhost:1",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:65536",
    "::1:1:",
    "127.0.0.1:-1",
]
NO_ADDRESS += ["127.0.0.1:" + "1" * 5_000, "[127.0.0.1:1", "127.1:1", "127.0.0.1:1:1"]


@pytest.mark.parametrize(("text", "shown"), LOOPBACK)
def test_loopback_addresses(text: str, shown: str) -> None:
    assert str(Loopback.parse(text, "rpc-http")) == shown


@pytest.mark.parametrize("text", ELSEWHERE)
def test_an_address_that_others_reach_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics: .* is reached from other machines and has no encryption"):
        Loopback.parse(text, "metrics")


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="rpc-http: "):
        Loopback.parse(text, "rpc-http")
