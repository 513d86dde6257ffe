"""Carrier ``http``: a page and its cookie, then a session whose bearer token is flight 1 (design 8; RFC 9112, 6455).

The server is a web site for everybody (``website``). One resource of it wants a token; who brings a right one gets a WebSocket,
or, if the request did not ask for one, goes on with requests (``exchange``); everybody else, whatever was wrong, the same 401.
"""

from __future__ import annotations

import random
import re
from math import inf

from obscura.errors import Violation
from obscura.limits import (
    BODY_S,
    CLIENT_HEADER_S,
    KEEPALIVE_S,
    MAX_PICTURE,
    POLL_END_S,
    PROXIED_COOKIES,
    PROXY_READ_S,
    RENEWED_BYTES,
    SITE_WRITE_BYTES,
)
from obscura.morph import websocket
from obscura.morph.carrier import CarrierEvent, Data, Flight
from obscura.morph.exchange import ANSWER_TYPE, PICTURE_TYPE, Exchange, encode_answer
from obscura.morph.request import Request
from obscura.morph.tokens import cookie_of, decode_token, encode_token
from obscura.morph.webserver import Mode, WebServer
from obscura.morph.website import Website, head, refuse
from obscura.morph.websocket import FrameReader, accept_of, frame
from obscura.wire.address import CarrierNumber

_TOKEN = re.compile(rb"[Bb]earer ([A-Za-z0-9_-]{16,8192})")
_BAD_FRAME = b"\x03\xea"  # close code 1002
_NORMAL = b"\x03\xe8"  # close code 1000
_HEAD = 1 << 10  # bytes that are looked through for a head at once


class HttpServer(WebServer):
    """The server's side of one connection: nginx to everybody, the WebSocket behind it to those with a right token."""

    NUMBER = CarrierNumber.HTTP
    KEEPS_CONNECTIONS = True  # all requests of a visitor come on one

    def __init__(
        self,
        rng: random.Random,
        site: Website,
        *,
        binding: bytes = b"",
        by_cookie: bool = True,
        is_misplaced: bool = False,
    ) -> None:
        """``binding``: of the TLS session around it, or of what goes before the cookie that binds ``by_cookie``.

        ``is_misplaced``: this is cleartext on a TLS port, which nginx tells everybody.
        """
        super().__init__(rng, site, is_misplaced=is_misplaced)
        self._binding = binding
        self._by_cookie = by_cookie
        self._frames = FrameReader(masked=True)
        self._pongs = 0  # bytes of answers to pings, since something was last written
        self._has_tried = False
        self._is_upgraded = False  # to a WebSocket, whose bytes leave at once, the last ones too
        self._latest = 0.0  # when the session was last given something to say or to hold
        self._exchange: Exchange | None = None  # the session in requests and answers

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._mode is Mode.OPEN or self._mode is Mode.SILENT:
            if self._buffer:
                data = bytes(self._buffer) + bytes(data)
                self._buffer.clear()
            return self._unframe(data)
        if self._exchange is not None and self._mode is not Mode.OVER:
            return self._exchanged(data, now)
        return super().receive(data, now)

    def send_flight(self, flight: bytes, now: float) -> None:
        request = self._asked
        assert request is not None, "an answer without a flight"
        key = request.field(b"sec-websocket-key")
        dress = self._site.dress
        if key is None:
            self._exchange = Exchange(self._rng)
            body = encode_answer(dress.answer, encode_token(flight))
            more = self._cookie_for(request, now)
            self._put(
                [head(self._site, 200, kind=ANSWER_TYPE, size=len(body), connection=b"keep-alive", more=more), body]
            )
            self._mode, self._deadline = Mode.HEAD, now + KEEPALIVE_S
            self._goes_on = bool(self._buffer)
            return
        fields = [
            (b"Upgrade", b"websocket"),
            (b"Sec-WebSocket-Accept", accept_of(key)),
            (b"Set-Cookie", dress.cookie + b"=" + encode_token(flight) + dress.attributes),
        ]
        self._put([head(self._site, 101, connection=b"upgrade", more=fields)])
        self._mode = Mode.OPEN
        self._is_upgraded = True
        self._deadline = inf

    def send(self, data: bytes, now: float) -> None:
        if self._mode is Mode.OPEN:
            self._put([frame(data, None)])
        elif self._exchange is not None and not self._exchange.is_silent:
            self._exchange.pile.put(data)
            self._latest = now

    def _some(self) -> list[bytes]:
        self._pongs = 0
        exchange = self._exchange
        if exchange is not None and exchange.has_word:
            self._release(exchange, self._latest)
        return self._given() if self._is_upgraded or exchange is not None else super()._some()

    def refuse(self, now: float) -> None:
        self._has_tried = True
        if self._mode is Mode.VERDICT:
            assert self._asked is not None
            self._mode = Mode.HEAD
            self._answer_unauthorised(self._asked, now)
            self._goes_on = True
        elif self._mode is Mode.OPEN:
            self._mode = Mode.SILENT
            self._deadline = now + PROXY_READ_S
        elif self._exchange is not None:
            self._break_off(self._exchange, now)

    def end(self, now: float) -> list[CarrierEvent]:
        if self._mode is Mode.OPEN:
            self._put([frame(_NORMAL, None, websocket.CLOSE)])
        elif self._exchange is not None:
            return self._end_exchange(self._exchange, now)
        return self._over()

    def due(self, now: float) -> list[CarrierEvent]:
        exchange = self._exchange
        if now < self._deadline or exchange is None or not exchange.is_held:
            return super().due(now)
        if exchange.is_silent:
            self._give_up(now)
        else:
            self._release(exchange, now)
        return self._serve(now)

    @property
    def is_full(self) -> bool:
        return super().is_full or self._pongs > SITE_WRITE_BYTES

    @property
    def is_busy(self) -> bool:
        return super().is_busy and self._exchange is None

    @property
    def is_blocked(self) -> bool:
        exchange = self._exchange
        return exchange is not None and exchange.pile.size >= MAX_PICTURE and not exchange.has_word

    # --- The protected resource -------------------------------------------------------------------------------------

    def _on_protected(self, request: Request, now: float) -> Flight | None:
        if self._exchange is not None and self._exchange.takes(request):
            self._on_message(self._exchange, request, now)
            return None
        flight = self._flight_of(request, now)
        return super()._on_protected(request, now) if flight is None else flight

    def _flight_of(self, request: Request, now: float) -> Flight | None:
        """The flight that a request brings, if it can be one and none was tried on this connection."""
        token = _TOKEN.fullmatch(request.field(b"authorization") or b"")
        key = request.field(b"sec-websocket-key")
        is_upgrade = (request.field(b"upgrade") or b"").lower() == b"websocket"
        if is_upgrade != (key is not None) or not (is_upgrade or (self.KEEPS_CONNECTIONS and request.keeps_alive)):
            return None
        if is_upgrade and request.field(b"sec-websocket-version") != b"13":
            return None
        if self._has_tried or token is None or request.method != b"GET" or request.length or request.is_chunked:
            return None
        binding = self._binding
        if self._by_cookie:
            cookie = cookie_of(request, self._site.dress.cookie)
            if not cookie or not self._is_issued(cookie, now):
                return None
            binding += cookie
        if not binding:
            return None
        self._has_tried = True
        self._asked = request
        self._mode = Mode.VERDICT
        self._deadline = inf
        return Flight(decode_token(token[1]), binding, RENEWED_BYTES)

    # --- Requests and answers of a session --------------------------------------------------------------------------

    def _on_message(self, exchange: Exchange, request: Request, now: float) -> None:
        """A request of the session. One that was not waited for is answered now."""
        if exchange.is_held:
            self._release(exchange, now)
        self._asked = request
        exchange.ends = exchange.ends or not request.keeps_alive
        if request.length:
            self._mode, self._body = Mode.UPLOAD, request.length
            exchange.reader.begin(request.length)
            self._deadline = now + BODY_S
        else:
            self._hold(exchange, now, exchange.hold_s())

    def _exchanged(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        """Bytes of the session: bodies go past the buffer, which gets little more than heads."""
        events: list[CarrierEvent] = []
        view = memoryview(data)
        while view:
            if self._mode is Mode.UPLOAD and not self._buffer:
                piece, view = view[: self._body], view[self._body :]
                self._uploaded(piece, now, events)
                continue
            piece = view[:_HEAD] if self._mode is Mode.HEAD and not self._is_hung else view
            view = view[len(piece) :]
            self._buffer += piece
            events += self._serve(now)
        return events

    def _upload(self, now: float, events: list[CarrierEvent]) -> None:
        piece = bytes(memoryview(self._buffer)[: self._body])
        if piece:
            del self._buffer[: len(piece)]
            self._uploaded(memoryview(piece), now, events)

    def _uploaded(self, piece: memoryview, now: float, events: list[CarrierEvent]) -> None:
        exchange = self._exchange
        assert exchange is not None, "who uploads has a session"
        self._body -= len(piece)
        self._deadline = now + BODY_S
        if opened := exchange.reader.read(piece):
            events.append(Data(opened))
        if not self._body:
            self._mode = Mode.HEAD
            self._hold(exchange, now, 0.0)

    @property
    def _is_hung(self) -> bool:
        return self._exchange is not None and self._exchange.is_silent

    def _hold(self, exchange: Exchange, now: float, hold_s: float) -> None:
        exchange.is_held, exchange.is_prompt = True, not hold_s
        self._deadline = now + hold_s
        self._latest = now
        if exchange.ends:
            self._release(exchange, now)

    def _release(self, exchange: Exchange, now: float) -> None:
        """Answer the request that waits."""
        exchange.is_held, self._asked = False, None
        if exchange.pile.size or exchange.is_prompt:
            exchange.is_busy()
        body = exchange.pile.take() if exchange.pile.size else []
        closes = exchange.ends and not exchange.pile.size
        connection = b"close" if closes else b"keep-alive"
        status, kind, size = (200, PICTURE_TYPE, sum(map(len, body))) if body else (204, None, None)
        self._put([head(self._site, status, kind=kind, size=size, connection=connection, more=[]), *body])
        self._deadline = now + KEEPALIVE_S
        if closes:
            self._buffer.clear()
            self._mode = Mode.OVER
            self._deadline = now

    def _break_off(self, exchange: Exchange, now: float) -> None:
        """The channel failed: a request that waits does so until nginx gives up; others are a stranger's."""
        if exchange.is_held:
            exchange.is_silent = True
            self._deadline = now + PROXY_READ_S
            return
        self._exchange = None
        if self._mode is Mode.UPLOAD and self._asked is not None:
            self._asked.length = self._body
            self._answer_unauthorised(self._asked, now)
            self._goes_on = True

    def _give_up(self, now: float) -> None:
        """nginx has waited long enough for its application."""
        self._exchange = None
        answer = refuse(self._site, 504, self._asked, [])
        self._asked = None
        self._answer(None, answer.pieces, keeps=answer.keeps_alive, now=now)

    def _end_exchange(self, exchange: Exchange, now: float) -> list[CarrierEvent]:
        exchange.ends = True
        if exchange.is_held:
            self._release(exchange, now)
        elif not exchange.pile.size and self._mode is Mode.HEAD:
            return self._over()
        if self._mode is Mode.OVER:
            return self._over()
        self._deadline = now + POLL_END_S
        return []

    # --- The WebSocket ----------------------------------------------------------------------------------------------

    def _unframe(self, data: bytes | memoryview) -> list[CarrierEvent]:
        events: list[CarrierEvent] = []
        try:
            for opcode, piece in self._frames.receive(data):
                if self._mode is Mode.SILENT:
                    continue
                if opcode == websocket.BINARY:
                    events.append(Data(piece))
                elif opcode == websocket.PING:
                    self._put([pong := frame(bytes(piece), None, websocket.PONG)])
                    self._pongs += len(pong)
                elif opcode == websocket.CLOSE:
                    self._put([frame(bytes(piece[:2]), None, websocket.CLOSE)])
                    return events + self._over()
        except Violation:
            if self._mode is Mode.OPEN:
                self._put([frame(_BAD_FRAME, None, websocket.CLOSE)])
            return events + self._over()
        return events


class ProxiedServer(HttpServer):
    """The server's side behind a proxy that ends TLS (``binding=cookie``): cleartext HTTP for the channel of carrier tls.

    A proxy may bring each request on a connection of its own, so a cookie is known to the whole listener: for a minute, to
    one token.
    """

    NUMBER = CarrierNumber.TLS
    KEEPS_CONNECTIONS = False

    def _issue(self, value: bytes, now: float) -> None:
        issued = self._site.issued
        while issued and (len(issued) >= PROXIED_COOKIES or next(iter(issued.values())) + CLIENT_HEADER_S < now):
            del issued[next(iter(issued))]
        issued[value] = now

    def _is_issued(self, value: bytes, now: float) -> bool:
        return self._site.issued.pop(value, -inf) + CLIENT_HEADER_S >= now
