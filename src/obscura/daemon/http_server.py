"""HTTP/1.1 on loopback for the node's operator: one route table, and the checks that every request has to pass.

Against web pages that the operator looks at: the ``Host`` must be ours (a name that an attacker points at 127.0.0.1 is not),
an ``Origin`` must be this server itself, no answer allows another one to read it. Against other programs on this machine:
secrets (``gate``), limits of size, time and number, no body before the secret was seen. h11 reads and writes the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from http.cookies import CookieError, SimpleCookie
from typing import Any

import h11

from obscura.daemon import web
from obscura.daemon.gate import Gate
from obscura.daemon.scope import Scope
from obscura.daemon.stream_server import StreamServer
from obscura.daemon.web import Access, Answer, Loopback, Request, Route, Routes
from obscura.errors import UserError
from obscura.limits import HTTP_CONNECTIONS, HTTP_HEAD_BYTES, HTTP_HEAD_S, HTTP_IDLE_S, RPC_STALL_S
from obscura.wire.address import join_host_port

log = logging.getLogger(__name__)
READ_BYTES = 64 << 10
REFUSED_S = 1.0  # seconds that a refused client has to take the answer
# Headers that decide something: twice given they might mean two things to two readers.
SINGLE = {"authorization", "content-length", "content-type", "cookie", "expect", "host", "origin", "transfer-encoding"}
ALWAYS = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
)
CLOSED_POLICY = ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")


class HttpServer(StreamServer):
    """The routes of one loopback address, open inside ``async with``; leaving cuts every connection.

    Without a ``gate`` only open routes answer. Times (s) and numbers are parameters for tests. Raises ``UserError`` if the
    address cannot be had.
    """

    def __init__(
        self,
        at: Loopback,
        routes: Routes,
        gate: Gate | None = None,
        *,
        max_clients: int = HTTP_CONNECTIONS,
        head_s: float = HTTP_HEAD_S,
        idle_s: float = HTTP_IDLE_S,
        stall_s: float = RPC_STALL_S,
    ) -> None:
        super().__init__()
        self.at = at
        self.routes = routes
        self.gate = gate
        self.head_s, self.idle_s, self.stall_s = head_s, idle_s, stall_s
        self._max_clients = max_clients
        self._strangers: dict[asyncio.Task[None], None] = {}  # that have shown no secret yet, oldest first
        self._guests: dict[asyncio.Task[None], None] = {}  # that have shown none of scope admin, first shown first

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        try:
            server = await asyncio.start_server(self._accept, self.at.host, self.at.port)
        except OSError as error:  # whose own text repeats the address, in Python's form
            why = os.strerror(error.errno) if error.errno else "it cannot be had"
            raise UserError(f"{self.at} cannot be listened on: {why}; choose another port") from None
        stack.callback(server.close)
        self.at = Loopback(self.at.host, server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://{self.at}"

    @property
    def hosts(self) -> frozenset[str]:
        """What a ``Host`` may say."""
        return frozenset({str(self.at), join_host_port("localhost", self.at.port)})

    def trust(self, client: asyncio.Task[None], scope: Scope) -> None:
        """The connection has shown a secret: others go before it when places are wanted."""
        if scope is Scope.ADMIN:
            self._forget(client)
        elif client in self._strangers:
            del self._strangers[client]
            self._guests[client] = None

    def _forget(self, client: asyncio.Task[None]) -> None:
        self._strangers.pop(client, None)
        self._guests.pop(client, None)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= self._max_clients:
            # The owner who comes is a stranger at first: guests who held all places but one would leave no time to show more.
            guests_go = not self._strangers or len(self._guests) > self._max_clients // 2
            oldest = next(iter(self._guests if guests_go else self._strangers), None)
            if oldest is None:
                writer.transport.abort()
                return
            self._forget(oldest)
            oldest.cancel()
        task = self._begin(self._serve(reader, writer))
        self._strangers[task] = None
        task.add_done_callback(self._forget)
        # Of many that come in one turn of the loop some go before their task has begun, and such a task runs no `finally`.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Connection(self, reader, writer).serve()
        except (ConnectionError, TimeoutError):
            pass
        except Exception as error:
            log.error("an HTTP connection ended by %s", type(error).__name__)
        finally:
            with contextlib.suppress(ConnectionError, TimeoutError):
                writer.close()
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()


class _Refused(Exception):
    """The request is answered with this, and the connection ends."""

    def __init__(self, status: int, told: str, *headers: tuple[str, str]) -> None:
        super().__init__(told)
        self.answer = web.error(status, told, headers)


class Connection:
    """One connection: request after request, each answered before the next is read."""

    def __init__(self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HTTP_HEAD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._is_head = False  # the request is HEAD: its answer, an error whatever the path, has no body

    async def serve(self) -> None:
        """Until either side ends it."""
        wait_s = self._server.head_s
        try:
            while (head := await self._head(wait_s)) is not None:
                await self._send(await self._answered(head))
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
                wait_s = self._server.idle_s
        except _Refused as refused:
            await self._last(refused.answer)
        except h11.RemoteProtocolError as fault:
            status = fault.error_status_hint
            told = "the request's head is too long" if status == 431 else "this is not HTTP/1.1 as RFC 9112 has it"
            await self._last(web.error(status, told))

    # --- Requests -----------------------------------------------------------------------------------------------------

    async def _head(self, wait_s: float) -> h11.Request | None:
        """The next request's head; None when the client has ended."""
        deadline = self._loop.time() + wait_s
        begun = False
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._is_head = event.method == b"HEAD"
                # h11 limits unfinished ones.
                if sum(len(name) + len(value) for name, value in event.headers) > HTTP_HEAD_BYTES:
                    raise h11.RemoteProtocolError("a long head", error_status_hint=431)
                return event
            if event is not h11.NEED_DATA:
                return None
            await self._fill(deadline, HTTP_HEAD_BYTES)
            if not begun:
                begun, deadline = True, self._loop.time() + self._server.head_s

    async def _fill(self, deadline: float, most: int) -> None:
        async with asyncio.timeout_at(deadline):
            self._http.receive_data(await self._reader.read(most))

    async def _answered(self, head: h11.Request) -> Answer:
        headers = _headers(head)
        method, target = head.method.decode(), head.target.decode("latin-1")
        self._check_sender(headers)
        path, _, query = target.partition("?")
        route = self._route(method, path)
        scope, secret = self._admit(route, headers)
        body = await self._body(route, headers)
        request = Request(method, path, query, headers, body, scope, lambda: self._may_go_on(route, secret))
        try:
            return await route.answer(request)
        except UserError as error:
            return web.error(400, str(error))
        except Exception as error:
            log.error("fault in the HTTP route %s: %s", path, type(error).__name__)
            return web.error(500, "internal error; the node's log has more")

    def _check_sender(self, headers: dict[str, str]) -> None:
        """Whether the request was meant for this server, and not sent by somebody else's web page."""
        host = headers.get("host", "").lower()
        if host not in self._server.hosts:
            raise _Refused(
                421, f"this server is {self._server.at}, and the Host of the request is not; ask for that address"
            )
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            raise _Refused(403, "pages of other origins may not ask this server")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _Refused(403, "pages of other sites may not ask this server")

    def _route(self, method: str, path: str) -> Route:
        routes = self._server.routes
        route = routes.get((method, path))
        if route is not None:
            return route
        allowed = sorted(known for known, place in routes if place == path)
        if not allowed:
            raise _Refused(404, "there is nothing at this path")
        raise _Refused(405, f"this path takes {', '.join(allowed)}", ("allow", ", ".join(allowed)))

    def _admit(self, route: Route, headers: dict[str, str]) -> tuple[Scope | None, str]:
        """What the secret opens, and the secret; refuses whoever has none, or too small a one."""
        gate = self._server.gate
        if route.access is Access.OPEN:
            return None, ""
        if gate is None:
            raise _Refused(404, "there is nothing at this path")
        if route.access is Access.PAGE:
            if not gate.opens_pages(page_cookie(headers)):
                leads = [("refresh", "0; url=/")] if ("GET", "/") in self._server.routes else []  # to the form
                raise _Refused(401, "log in first", *leads)
            return None, ""
        secret = bearer(headers)
        scope = gate.scope_of(secret)
        if scope is None:
            told = "show the cookie or a token as `Authorization: Bearer SECRET`; a new start makes a new cookie"
            raise _Refused(401, told, ("www-authenticate", "Bearer"))
        if scope < route.scope:
            raise _Refused(403, f"this needs the scope {route.scope.label}; the token has {scope.label}")
        task = asyncio.current_task()
        assert task is not None
        self._server.trust(task, scope)
        return scope, secret

    def _may_go_on(self, route: Route, secret: str) -> bool:
        if route.access is not Access.SECRET or self._server.gate is None:
            return True
        scope = self._server.gate.scope_of(secret)
        return scope is not None and scope >= route.scope

    async def _body(self, route: Route, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            raise _Refused(411, "say the size of the body in Content-Length")
        size = int(headers.get("content-length", "0"))  # h11 has checked that it is a number
        if size > route.max_body:
            raise _Refused(413, f"a body is at most {route.max_body} bytes here")
        if size and headers.get("content-type", "").partition(";")[0].strip().lower() != web.JSON:
            raise _Refused(415, f"the body is to be {web.JSON}")
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        deadline = self._loop.time() + self._server.stall_s
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                await self._fill(deadline, READ_BYTES)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise ConnectionError

    # --- Answers ------------------------------------------------------------------------------------------------------

    async def _last(self, answer: Answer) -> None:
        """Answer if that is still possible, and end; what still comes is discarded for a moment, lest it resets the answer."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send(answer._replace(headers=(*answer.headers, ("connection", "close"))))
        self._writer.write_eof()
        async with asyncio.timeout(REFUSED_S):
            while await self._reader.read(READ_BYTES):
                pass

    async def _send(self, answer: Answer) -> None:
        body = answer.body
        headers: list[tuple[str, str]] = [*ALWAYS, *answer.headers]
        if not any(name == CLOSED_POLICY[0] for name, _ in answer.headers):
            headers.append(CLOSED_POLICY)
        if body or answer.status != 204:
            headers.append(("content-type", answer.kind))
        if not isinstance(body, bytes):
            headers.append(("connection", "close"))
        elif answer.status != 204:
            headers.append(("content-length", str(len(body))))
        head = self._sent(h11.Response(status_code=answer.status, headers=_encoded(headers)))
        if isinstance(body, bytes):
            content = self._sent(h11.Data(data=body)) if body and not self._is_head else b""
            await self._write(head + content + self._sent(h11.EndOfMessage()))
        else:
            await self._stream(head, body)

    async def _stream(self, head: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Send pieces as they come, until they end, or the client does (or says anything more, which ends a stream too)."""
        left: asyncio.Future[Any] = asyncio.ensure_future(self._reader.read(1))
        piece: asyncio.Future[Any] | None = None
        try:
            await self._write(head)
            while True:
                piece = asyncio.ensure_future(anext(pieces, None))
                await asyncio.wait({piece, left}, return_when=asyncio.FIRST_COMPLETED)
                if left.done():
                    return
                if (data := piece.result()) is None:
                    await self._write(self._sent(h11.EndOfMessage()))
                    return
                await self._write(self._sent(h11.Data(data=data)))
        finally:
            waiting = [left] if piece is None else [left, piece]
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)  # a reset is an end, and no fault to log a trace of
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def _sent(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            async with asyncio.timeout(self._server.stall_s):
                await self._writer.drain()


def _headers(head: h11.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in found and name in SINGLE:
            raise _Refused(400, f"the header {name} may come once only")
        found[name] = value
    if head.http_version != b"1.1":
        raise _Refused(505, "this server speaks HTTP/1.1")
    return found


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def bearer(headers: dict[str, str]) -> str:
    """The secret of ``Authorization: Bearer``; empty if there is none."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


def page_cookie(headers: dict[str, str]) -> str:
    """The page cookie of a login; empty if there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(web.PAGE_COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
