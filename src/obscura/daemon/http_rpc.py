"""The routes of the RPC over HTTP: calls, events as they happen (Server-Sent Events), the login of a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import msgspec

from obscura.daemon import web
from obscura.daemon.events import Broadcast, Event
from obscura.daemon.gate import Gate
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.scope import Scope
from obscura.daemon.web import Access, Answer, Request, Route, Routes
from obscura.limits import HTTP_BEAT_S, HTTP_STREAMS, RPC_LINE_BYTES

LOGIN_BYTES = 1_000  # of a body that holds one secret


class _LoginWish(msgspec.Struct, forbid_unknown_fields=True):
    secret: str


class RpcRoutes:
    """``POST /rpc``, ``GET /events``, ``POST /login``, ``POST /logout``. ``beat_s`` (s) is a parameter for tests."""

    def __init__(
        self, registry: MethodRegistry, broadcast: Broadcast, gate: Gate, *, beat_s: float = HTTP_BEAT_S
    ) -> None:
        self._registry = registry
        self._broadcast = broadcast
        self._gate = gate
        self._beat_s = beat_s
        self._streams = 0

    @property
    def routes(self) -> Routes:
        """Paths and what answers them."""
        return {
            ("POST", "/rpc"): Route(self._call, max_body=RPC_LINE_BYTES),
            ("GET", "/events"): Route(self._events),
            ("POST", "/login"): Route(self._login, Access.OPEN, max_body=LOGIN_BYTES),
            ("POST", "/logout"): Route(self._logout),
        }

    async def _call(self, request: Request) -> Answer:
        """A JSON-RPC text, as the control socket takes it; 204 where nothing in it wants an answer."""
        told = await self._registry.respond(request.body, None, request.scope or Scope.READ)
        return Answer(204) if told is None else Answer(200, told)

    async def _login(self, request: Request) -> Answer:
        try:
            wish = msgspec.json.decode(request.body, type=_LoginWish)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return web.error(400, 'send {"secret": "..."}')
        login = self._gate.login(wish.secret)
        if login is None:
            return web.error(401, "that is neither the cookie of this run nor a token")
        cookie = f"{web.PAGE_COOKIE}={login.page}; HttpOnly; SameSite=Strict; Path=/"
        body = msgspec.json.encode({"key": login.key, "scope": login.scope.label})
        return Answer(200, body, web.JSON, (("set-cookie", cookie),))

    async def _logout(self, request: Request) -> Answer:
        self._gate.logout(request.headers["authorization"].partition(" ")[2].strip())
        gone = f"{web.PAGE_COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0"
        return Answer(204, headers=(("set-cookie", gone),))

    async def _events(self, request: Request) -> Answer:
        """All events, or those of ``?kinds=a,b``, until either side ends it."""
        most = HTTP_STREAMS if request.scope is Scope.ADMIN else HTTP_STREAMS // 2  # small tokens leave the owner some
        if self._streams >= most:
            return web.error(503, f"{most} event streams are open already: close one of them")
        asked = parse_qs(request.query).get("kinds")
        kinds = None if asked is None else [kind for text in asked for kind in text.split(",")]
        stream = self._stream(request, kinds)
        await anext(stream)  # counted now: others ask before this one's answer is sent
        return Answer(200, stream, web.EVENTS)

    async def _stream(self, request: Request, kinds: list[str] | None) -> AsyncIterator[bytes]:
        subscription = self._broadcast.subscribe(kinds)
        self._streams += 1
        try:
            yield b""
            yield b": events follow\n\n"
            while True:
                try:
                    async with asyncio.timeout(self._beat_s):
                        said = (
                            b"data: " + msgspec.json.encode(shown(await anext(subscription), request.scope)) + b"\n\n"
                        )
                except TimeoutError:
                    said = b":\n\n"
                except StopAsyncIteration:
                    return
                if not request.may_go_on():
                    return
                yield said
        finally:
            self._streams -= 1
            subscription.close()


def shown(event: Event, scope: Scope | None) -> Event:
    """The event as a caller of that scope gets it: who may only look is not told which transactions are the node's own."""
    if scope is not None and scope >= Scope.WRITE:
        return event
    return {name: value for name, value in event.items() if name != "own"}
