"""The caller's side of the RPC over HTTP, blocking and not: calls as POST, events as a stream. Both read answers by h11."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import msgspec

from obscura.daemon import jsonrpc
from obscura.daemon.jsonrpc import RemoteError
from obscura.daemon.nonode import START, NoNode
from obscura.daemon.web import JSON, Loopback
from obscura.errors import ConfigError

SCHEME = "http://"
READ_BYTES = 64 << 10

Secret = str | Path | None


def is_url(where: object) -> bool:
    """Whether it names an HTTP server, not a socket's path."""
    return isinstance(where, str) and "://" in where


class Place:
    """Where a node's HTTP is, and the secret that opens it: a text, or the file that holds it (the cookie)."""

    def __init__(self, url: str, secret: Secret) -> None:
        if not url.startswith(SCHEME):
            raise ConfigError(
                f"{url!a} is no place of the RPC: it is {SCHEME}IP:PORT on loopback, or the path of a socket"
            )
        if isinstance(secret, str) and "/" in secret:
            # It is not shown: it may be a secret after all.
            raise ConfigError("the secret holds a slash, which no secret does: give a file as Path(...)")
        self.url = url
        self.at = Loopback.parse(url.removeprefix(SCHEME).rstrip("/"), "the address of the RPC")
        if isinstance(secret, Path):
            try:
                secret = secret.read_text(errors="replace")
            except OSError as error:
                raise NoNode(
                    f"{secret} cannot be read: {error.strerror}; the cookie is there while the node runs"
                ) from None
        self._secret = (secret or "").strip()
        if not (self._secret.isascii() and self._secret.isprintable()):
            raise ConfigError("the secret holds characters that no secret does: give the token as it was printed")

    def head(self, method: str, target: str, body: bytes = b"") -> h11.Request:
        """The head of a request."""
        headers = [("host", str(self.at))]
        if self._secret:
            headers.append(("authorization", f"Bearer {self._secret}"))
        if body:
            headers += [("content-type", JSON), ("content-length", str(len(body)))]
        return h11.Request(method=method, target=target, headers=headers)

    def gone(self) -> NoNode:
        """Nobody answers, or no longer."""
        return NoNode(f"no node answers on {self.url}: start one with `{START} --set rpc-http={self.at}`")


class Exchange:
    """One connection's protocol: requests to bytes, bytes to answers."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._http = h11.Connection(h11.CLIENT)
        self.status = 0
        self.is_over = False  # the answer is complete

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        """The bytes of the next request."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self.status, self.is_over = 0, False
        parts = [self._http.send(self._place.head(method, target, body))]
        parts += [self._http.send(h11.Data(data=body))] if body else []
        return b"".join(part or b"" for part in (*parts, self._http.send(h11.EndOfMessage())))

    def take(self, data: bytes) -> bytes:
        """What of the answer's body these bytes bring; empty ``data`` is the server's end. Raises ``NoNode``."""
        body = b""
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Response):
                    self.status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self.is_over = True
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    raise self._place.gone()
        except h11.ProtocolError:
            if not data:
                raise self._place.gone() from None
            raise NoNode(f"what answers on {self._place.url} does not speak HTTP") from None
        return body

    @property
    def may_go_on(self) -> bool:
        """Whether the connection takes another request."""
        return self._http.our_state is self._http.their_state and self._http.our_state in (h11.IDLE, h11.DONE)


def result(status: int, body: bytes) -> Any:
    """The result in an answer to a call. Raises ``RemoteError``."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError):
        raise RemoteError(jsonrpc.INTERNAL_ERROR, f"the node answered with HTTP status {status}") from None
    if status != 200:
        code = jsonrpc.FORBIDDEN if status in (401, 403) else jsonrpc.INTERNAL_ERROR
        raise RemoteError(code, str(found.get("error", f"HTTP status {status}")))
    return jsonrpc.result(found)


def events_target(kinds: Collection[str] | None) -> str:
    """The path of an event stream."""
    return "/events" if kinds is None else f"/events?kinds={quote(','.join(jsonrpc.one_or_many(kinds)), safe=',')}"


class EventLines:
    """Server-Sent Events: pieces of a stream in, events out."""

    def __init__(self) -> None:
        self._held = b""

    def take(self, piece: bytes) -> list[dict[str, Any]]:
        """The events that the piece completes."""
        *lines, self._held = (self._held + piece).split(b"\n")
        found = [line.removeprefix(b"data:") for line in lines if line.startswith(b"data:")]
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in found]


class HttpLine:
    """One blocking connection, made anew when the server has ended it between two calls."""

    def __init__(self, url: str, secret: Secret, timeout_s: float) -> None:
        self._place = Place(url, secret)
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._exchange = Exchange(self._place)
        self._connect()

    def _connect(self) -> socket.socket:
        self.close()
        try:
            self._socket = socket.create_connection((self._place.at.host, self._place.at.port), self._timeout_s)
        except OSError:
            raise self._place.gone() from None
        self._exchange = Exchange(self._place)
        return self._socket

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, request: bytes, number: int) -> Any:
        """The result of a call that is encoded already; raises ``RemoteError``, ``NoNode``."""
        body = b""
        for piece in self._answer("POST", "/rpc", request):
            body += piece
            if len(body) > jsonrpc.ANSWER_BYTES:
                raise NoNode(f"the answer of {self._place.url} is larger than {jsonrpc.ANSWER_BYTES} bytes")
        return result(self._exchange.status, body)

    def events(self, kinds: Collection[str] | None) -> Iterator[dict[str, Any]]:
        """Events as they happen. The connection serves nothing else afterwards."""
        lines, body = EventLines(), b""
        for piece in self._answer("GET", events_target(kinds), b""):
            if self._exchange.status != 200:
                body += piece
                continue
            if self._socket is not None:
                self._socket.settimeout(None)
            yield from lines.take(piece)
        if self._exchange.status != 200:
            result(self._exchange.status, body)
        raise self._place.gone()

    def _answer(self, method: str, target: str, body: bytes) -> Iterator[bytes]:
        may_go_on = self._socket is not None and self._exchange.may_go_on and not _is_readable(self._socket)
        connection = self._socket if self._socket is not None and may_go_on else self._connect()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the reason may wait to be read
                connection.sendall(self._exchange.request(method, target, body))
            while not self._exchange.is_over:
                piece = self._exchange.take(connection.recv(READ_BYTES))
                if piece:
                    yield piece
        except TimeoutError:
            raise NoNode(f"the node on {self._place.url} did not answer in {self._timeout_s:g} s") from None
        except ConnectionError:
            raise self._place.gone() from None


def _is_readable(connection: socket.socket) -> bool:
    """Whether something came that nobody asked for: the server's end after ``HTTP_IDLE_S`` without a call, or its node's."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(0))


class AsyncHttpLine:
    """The same for an event loop: a connection for each call, so that many go on at once."""

    def __init__(self, url: str, secret: Secret) -> None:
        self._place = Place(url, secret)

    async def ask(self, request: bytes) -> Any:
        """The result of a call that is encoded already; raises ``RemoteError``, ``NoNode``."""
        exchange, body = Exchange(self._place), b""
        async with contextlib.aclosing(self._answer(exchange, "POST", "/rpc", request)) as pieces:
            async for piece in pieces:
                body += piece
        return result(exchange.status, body)

    async def events(self, kinds: Collection[str] | None) -> AsyncIterator[dict[str, Any]]:
        """Events as they happen, until the node goes."""
        exchange, lines, body = Exchange(self._place), EventLines(), b""
        async with contextlib.aclosing(self._answer(exchange, "GET", events_target(kinds), b"")) as pieces:
            async for piece in pieces:
                if exchange.status != 200:
                    body += piece
                    continue
                for event in lines.take(piece):
                    yield event
        if exchange.status != 200:
            result(exchange.status, body)

    async def _answer(self, exchange: Exchange, method: str, target: str, body: bytes) -> AsyncGenerator[bytes, None]:
        try:
            reader, writer = await asyncio.open_connection(*self._place.at)
        except OSError:
            raise self._place.gone() from None
        try:
            writer.write(exchange.request(method, target, body))
            while not exchange.is_over:
                piece = exchange.take(await reader.read(READ_BYTES))
                if piece:
                    yield piece
        except ConnectionError:
            raise self._place.gone() from None
        finally:
            writer.close()
