"""Carrier ``http``: a page and its cookie, then a WebSocket whose bearer token is flight 1 (design 8; RFC 9112, 6455).

The server is a web site for everybody (``website``). One resource of it wants a token; who brings a right one gets the WebSocket,
everybody else, whatever was wrong, the same 401.
"""

from __future__ import annotations

import random
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Iterable
from enum import Enum
from math import inf

from obscura.errors import Violation
from obscura.limits import (
    CLIENT_HEADER_S,
    KEEPALIVE_MOST_S,
    KEEPALIVE_REQUESTS,
    KEEPALIVE_S,
    LINGER_S,
    PROXIED_COOKIES,
    PROXY_READ_S,
    RENEWED_BYTES,
    SITE_UNREAD_BYTES,
    SITE_WRITE_BYTES,
)
from obscura.morph import websocket
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, coalesced
from obscura.morph.request import HTTP_10, ChunkedBody, Refusal, Request, RequestReader
from obscura.morph.website import TO_HTTPS, Answer, Website, head, refuse, respond
from obscura.morph.websocket import FrameReader, accept_of, frame
from obscura.wire.address import CarrierNumber

_TOKEN = re.compile(rb"[Bb]earer ([A-Za-z0-9_-]{16,8192})")
_BAD_FRAME = b"\x03\xea"  # close code 1002
_NORMAL = b"\x03\xe8"  # close code 1000


def encode_token(flight: bytes) -> bytes:
    """A flight as text: base64url without padding (RFC 4648, 5)."""
    return urlsafe_b64encode(flight).rstrip(b"=")


def decode_token(text: bytes) -> bytes:
    """The flight of a text that has the alphabet of ``encode_token``; b"" for a length that no text has."""
    return b"" if len(text) % 4 == 1 else urlsafe_b64decode(text + b"=" * (-len(text) % 4))


class _Mode(Enum):
    HEAD = 1  # a request is awaited
    BODY = 2  # an answered request's body is discarded
    VERDICT = 3  # flight 1 is with the channel
    OPEN = 4  # the WebSocket carries the channel
    SILENT = 5  # the WebSocket is of no use any more; its application is silent
    OVER = 6


class HttpServer(Carrier):
    """The server's side of one connection: nginx to everybody, the WebSocket behind it to those with a right token."""

    NUMBER = CarrierNumber.HTTP

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
        self._rng = rng
        self._site = site
        self._binding = binding
        self._by_cookie = by_cookie
        self._is_misplaced = is_misplaced
        self._reader = RequestReader()
        self._frames = FrameReader(masked=True)
        self._buffer = bytearray()
        self._out: deque[bytes | memoryview] = deque()
        self._waiting = 0  # bytes of _out
        self._mode = _Mode.HEAD
        self._deadline = inf
        self._began: float | None = None  # the first request
        self._requests = 0
        self._body = 0  # bytes of a request's body still to come
        self._chunks: ChunkedBody | None = None  # or it comes in chunks
        self._body_until = inf
        self._closes = False  # after the body
        self._issued = b""  # the cookie of this connection
        self._has_tried = False
        self._asked: Request | None = None  # the request with the flight
        self._goes_on = False  # something is left in the buffer that nobody has looked at

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[CarrierEvent]:
        self._deadline = now + CLIENT_HEADER_S
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._mode is _Mode.OPEN or self._mode is _Mode.SILENT:
            if self._buffer:
                data = bytes(self._buffer) + bytes(data)
                self._buffer.clear()
            return self._unframe(data)
        if self._mode is not _Mode.OVER:
            self._buffer += data
        return self._serve(now)

    def send_flight(self, flight: bytes, now: float) -> None:
        request = self._asked
        assert request is not None, "an answer without a flight"
        key = request.field(b"sec-websocket-key") or b""
        dress = self._site.dress
        fields = [
            (b"Upgrade", b"websocket"),
            (b"Sec-WebSocket-Accept", accept_of(key)),
            (b"Set-Cookie", dress.cookie + b"=" + encode_token(flight) + dress.attributes),
        ]
        self._put([head(self._site, 101, connection=b"upgrade", more=fields)])
        self._mode = _Mode.OPEN
        self._deadline = inf

    def send(self, data: bytes, now: float) -> None:
        if self._mode is _Mode.OPEN:
            self._put([frame(data, None)])

    def take(self) -> list[bytes]:
        if self._mode is _Mode.OPEN or self._waiting <= SITE_WRITE_BYTES:
            pieces = [bytes(piece) for piece in self._out]
            self._out.clear()
            self._waiting = 0
            return coalesced(pieces)
        pieces, size = [], 0
        while self._out and size < SITE_WRITE_BYTES:
            piece = self._out.popleft()
            if len(piece) > SITE_WRITE_BYTES:
                self._out.appendleft(memoryview(piece)[SITE_WRITE_BYTES:])
                piece = memoryview(piece)[:SITE_WRITE_BYTES]
            pieces.append(bytes(piece))
            size += len(piece)
        self._waiting -= size
        return coalesced(pieces)

    def refuse(self, now: float) -> None:
        self._has_tried = True
        if self._mode is _Mode.VERDICT:
            assert self._asked is not None
            self._mode = _Mode.HEAD
            self._answer_unauthorised(self._asked, now)
            self._goes_on = True
        elif self._mode is _Mode.OPEN:
            self._mode = _Mode.SILENT
            self._deadline = now + PROXY_READ_S

    def end(self, now: float) -> list[CarrierEvent]:
        if self._mode is _Mode.OPEN:
            self._put([frame(_NORMAL, None, websocket.CLOSE)])
        return self._over()

    def eof(self, now: float) -> list[CarrierEvent]:
        return self._over()

    def deadline(self) -> float:
        return 0.0 if self._goes_on or self._waiting else self._deadline  # now: one write was not enough

    def due(self, now: float) -> list[CarrierEvent]:
        if now >= self._deadline:
            self._buffer.clear()
            self._mode = _Mode.OVER
        elif not self._goes_on and not self._waiting:
            return []
        return self._serve(now)

    @property
    def is_full(self) -> bool:
        return len(self._buffer) > SITE_UNREAD_BYTES

    # --- The site ---------------------------------------------------------------------------------------------------

    def _serve(self, now: float) -> list[CarrierEvent]:
        """Answer what is in the buffer, one request after the other, and not faster than the answers are read."""
        self._goes_on = False
        while self._waiting <= SITE_WRITE_BYTES:
            if self._mode is _Mode.BODY:
                self._discard(now)
            if self._mode is not _Mode.HEAD:
                return self._over() if self._mode is _Mode.OVER else []
            if self._buffer and self._deadline == inf:
                self._deadline = now + CLIENT_HEADER_S
            found = self._reader.read(self._buffer) if self._buffer else None
            if found is None:
                return []
            flight = self._on_head(found, now)
            if flight is not None:
                return [flight]
        self._goes_on = True
        return []

    def _on_head(self, found: Request | Refusal, now: float) -> Flight | None:
        self._requests += 1
        if self._began is None:
            self._began = now
        request = found.request if isinstance(found, Refusal) else found
        if request is not None and (self._requests >= KEEPALIVE_REQUESTS or now - self._began > KEEPALIVE_MOST_S):
            request.keeps_alive = False
        if self._is_misplaced and (isinstance(found, Request) or found.status == 413):
            answer = refuse(self._site, TO_HTTPS, request, [])
        elif isinstance(found, Refusal):
            answer = refuse(self._site, found.status, found.request, [])
        elif found.path in self._site.dress.paths:
            flight = self._flight_of(found, now)
            if flight is not None:
                return flight
            self._answer_unauthorised(found, now)
            return None
        else:
            answer = self._page(found, now)
        self._answer(request, answer.pieces, keeps=answer.keeps_alive, now=now)
        return None

    def _page(self, request: Request, now: float) -> Answer:
        """A page or an error; a body that is none spoils both, and who waits with it is asked for it."""
        is_body = not request.is_chunked or self._is_body(bytearray(self._buffer))
        request.keeps_alive = request.keeps_alive and is_body
        answer = respond(self._site, request, self._cookie_for(request, now))
        if answer.is_file and not is_body:
            return refuse(self._site, 400, request, [])
        expected = request.field(b"expect") if request.version > HTTP_10 else None
        if answer.is_file and expected is not None and expected.lower() == b"100-continue":
            answer.pieces.insert(0, b"HTTP/1.1 100 Continue\r\n\r\n")
        return answer

    @staticmethod
    def _is_body(buffer: bytearray) -> bool:
        try:
            ChunkedBody().skip(buffer)
        except Violation:
            return False
        return True

    def _answer_unauthorised(self, request: Request, now: float) -> None:
        if request.is_chunked and not self._is_body(bytearray(self._buffer)):
            request.keeps_alive = False
        challenge = (b"WWW-Authenticate", b'Bearer realm="' + self._site.dress.realm + b'"')
        answer = refuse(self._site, 401, request, [challenge])
        self._answer(request, answer.pieces, keeps=answer.keeps_alive, now=now)

    def _answer(self, request: Request | None, pieces: Iterable[bytes], *, keeps: bool, now: float) -> None:
        self._put(pieces)
        self._asked = None
        body = request.length if request is not None else 0
        if body or (request is not None and request.is_chunked):
            self._mode = _Mode.BODY
            self._closes = not keeps
            self._body = body
            self._chunks = ChunkedBody() if request is not None and request.is_chunked else None
            self._body_until = now + LINGER_S[1]
            self._deadline = now + LINGER_S[0]
        elif keeps:
            self._mode = _Mode.HEAD
            self._deadline = inf if self._buffer else now + KEEPALIVE_S
        else:
            self._mode = _Mode.OVER

    def _discard(self, now: float) -> None:
        if self._chunks is not None:
            try:
                is_over = self._chunks.skip(self._buffer)
            except Violation:
                is_over = self._closes = True
        else:
            taken = min(self._body, len(self._buffer))
            del self._buffer[:taken]
            self._body -= taken
            is_over = not self._body
        if not is_over:
            self._deadline = min(now + LINGER_S[0], self._body_until)
            return
        self._mode = _Mode.OVER if self._closes else _Mode.HEAD
        self._deadline = inf if self._buffer else now + KEEPALIVE_S

    def _issue(self, value: bytes, now: float) -> None:
        self._issued = value

    def _is_issued(self, value: bytes, now: float) -> bool:
        return value == self._issued

    def _cookie_for(self, request: Request, now: float) -> list[tuple[bytes, bytes]]:
        """A visitor without our cookie gets one, as ``add_header Set-Cookie "name=$request_id"`` behind a ``map`` does."""
        dress = self._site.dress
        if _cookie(request, dress.cookie):
            return []
        value = self._rng.getrandbits(128).to_bytes(16, "big").hex().encode()
        self._issue(value, now)
        return [(b"Set-Cookie", dress.cookie + b"=" + value + dress.attributes)]

    def _flight_of(self, request: Request, now: float) -> Flight | None:
        """The flight that a request brings, if it can be one and none was tried on this connection."""
        token = _TOKEN.fullmatch(request.field(b"authorization") or b"")
        key = request.field(b"sec-websocket-key")
        is_upgrade = (request.field(b"upgrade") or b"").lower() == b"websocket"
        if not is_upgrade or request.field(b"sec-websocket-version") != b"13" or request.length or request.is_chunked:
            return None
        if self._has_tried or token is None or key is None or request.method != b"GET":
            return None
        binding = self._binding
        if self._by_cookie:
            cookie = _cookie(request, self._site.dress.cookie)
            if not cookie or not self._is_issued(cookie, now):
                return None
            binding += cookie
        if not binding:
            return None
        self._has_tried = True
        self._asked = request
        self._mode = _Mode.VERDICT
        self._deadline = inf
        return Flight(decode_token(token[1]), binding, RENEWED_BYTES)

    # --- The WebSocket ----------------------------------------------------------------------------------------------

    def _unframe(self, data: bytes | memoryview) -> list[CarrierEvent]:
        events: list[CarrierEvent] = []
        try:
            for opcode, piece in self._frames.receive(data):
                if self._mode is _Mode.SILENT:
                    continue
                if opcode == websocket.BINARY:
                    events.append(Data(piece))
                elif opcode == websocket.PING:
                    self._put([frame(bytes(piece), None, websocket.PONG)])
                elif opcode == websocket.CLOSE:
                    self._put([frame(bytes(piece[:2]), None, websocket.CLOSE)])
                    return events + self._over()
        except Violation:
            if self._mode is _Mode.OPEN:
                self._put([frame(_BAD_FRAME, None, websocket.CLOSE)])
            return events + self._over()
        return events

    # --- Both -------------------------------------------------------------------------------------------------------

    def _put(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._out.append(piece)
            self._waiting += len(piece)

    def _over(self) -> list[CarrierEvent]:
        lingers = self._mode is _Mode.OVER and bool(self._buffer)  # as nginx does where it leaves bytes unread
        self._mode = _Mode.OVER
        self._deadline = inf
        return [Finished(lingers=lingers)]


class ProxiedServer(HttpServer):
    """The server's side behind a proxy that ends TLS (``binding=cookie``): cleartext HTTP for the channel of carrier tls.

    A proxy may bring each request on a connection of its own, so a cookie is known to the whole listener: for a minute, to
    one token.
    """

    NUMBER = CarrierNumber.TLS

    def _issue(self, value: bytes, now: float) -> None:
        issued = self._site.issued
        while issued and (len(issued) >= PROXIED_COOKIES or next(iter(issued.values())) + CLIENT_HEADER_S < now):
            del issued[next(iter(issued))]
        issued[value] = now

    def _is_issued(self, value: bytes, now: float) -> bool:
        return self._site.issued.pop(value, -inf) + CLIENT_HEADER_S >= now


def _cookie(request: Request, name: bytes) -> bytes:
    """The value of a cookie of a request, b"" without."""
    for key, text in request.fields:
        if key == b"cookie":
            for part in text.split(b";"):
                found, equals, value = part.strip().partition(b"=")
                if equals and found == name:
                    return value
    return b""


def websocket_key(rng: random.Random) -> bytes:
    """A fresh ``Sec-WebSocket-Key``."""
    return b64encode(rng.getrandbits(128).to_bytes(16, "big"))
