"""The dialler's side of the web carriers: what one widespread library sends, field by field (aiohttp 3.8 on Python 3.11).

It is the client that this software can be without pretending: the same TLS library, the same language, both requests on one
connection. Nothing of the channel is sent before the cover's opening is complete.
"""

from __future__ import annotations

import random
import re
from enum import Enum
from math import inf
from typing import Final

from obscura.errors import Violation
from obscura.limits import MAX_ANSWER_HEAD, MAX_FIRST_PAGE, SITE_WRITE_BYTES, TOKEN_BYTES
from obscura.morph import websocket
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready, coalesced
from obscura.morph.tokens import decode_token, encode_token, websocket_key
from obscura.morph.websocket import FrameReader, accept_of, frame
from obscura.wire.address import CarrierNumber

AGENT: Final = b"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 aiohttp/3.8.4\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3})(?: [^\r\n]*)?\r?\n")
COOKIE = re.compile(rb"([^=;\s]{1,64})=([A-Za-z0-9._~%+-]{16,1024})(?:;|$)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\r\n]*)?\r\n")
_CLOSE = b"\x03\xe8"


class Mode(Enum):
    """How far a visit is."""

    PAGE = 1  # the first page is awaited
    FLIGHT = 2  # the channel's first flight is awaited
    ANSWER = 3  # the upgrade's answer is awaited
    OPEN = 4
    OVER = 5


class HttpClient(Carrier):
    """One visit: the first page for its cookie, unless TLS binds already; then the WebSocket."""

    NUMBER = CarrierNumber.HTTP

    def __init__(
        self, rng: random.Random, host: bytes, path: bytes, *, binding: bytes = b"", fetches: bool = True
    ) -> None:
        """``host``: the Host field. ``binding``: what comes before the cookie in the binding; all of it without ``fetches``."""
        self._rng = rng
        self._host = host
        self._path = path
        self._binding = binding
        self._fetches = fetches
        self._buffer = bytearray()
        self._frames = FrameReader(masked=False)
        self._pongs = 0  # bytes of answers to pings, since something was last written
        self._out: list[bytes] = []
        self._key = b""
        self._cookie = b""
        self._mode = Mode.PAGE if fetches else Mode.FLIGHT
        self._given_up = inf

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[CarrierEvent]:
        if not self._fetches:
            return [Ready(self._binding, TOKEN_BYTES)]
        self._out.append(b"GET / HTTP/1.1\r\nHost: " + self._host + b"\r\n" + AGENT + b"\r\n")
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._mode is Mode.OPEN:
            return self._unframe(data)
        if self._mode is Mode.OVER:
            return []
        self._buffer += data
        try:
            return self._on_page() if self._mode is Mode.PAGE else self._on_answer(now)
        except Violation:
            return self._over()

    def send_flight(self, flight: bytes, now: float) -> None:
        self._key = websocket_key(self._rng)
        cookie = b"Cookie: " + self._cookie + b"\r\n" if self._cookie else b""
        self._out.append(
            b"GET " + self._path + b" HTTP/1.1\r\nHost: " + self._host + b"\r\n"
            b"Authorization: Bearer " + encode_token(flight) + b"\r\n"
            b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + self._key + b"\r\n" + AGENT + cookie + b"\r\n"
        )  # fmt: skip
        self._mode = Mode.ANSWER

    def send(self, data: bytes, now: float) -> None:
        if self._mode is Mode.OPEN:
            self._out.append(frame(data, self._rng))

    def take(self) -> list[bytes]:
        self._pongs = 0
        out, self._out = self._out, []
        return coalesced(out)

    def refuse(self, now: float) -> None:
        self._mode = Mode.OVER
        self._given_up = now

    def end(self, now: float) -> list[CarrierEvent]:
        if self._mode is Mode.OPEN:
            self._out.append(frame(_CLOSE, self._rng, websocket.CLOSE))
        return self._over()

    def eof(self, now: float) -> list[CarrierEvent]:
        return self._over()

    def deadline(self) -> float:
        return self._given_up

    def due(self, now: float) -> list[CarrierEvent]:
        return self._over() if now >= self._given_up else []

    @property
    def is_full(self) -> bool:
        return self._pongs > SITE_WRITE_BYTES

    # --- The opening ------------------------------------------------------------------------------------------------

    def _head(self) -> tuple[int, dict[bytes, bytes]] | None:
        """Status and fields (the first of each name) of a whole answer head, which is taken; None: more is needed."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MAX_ANSWER_HEAD:
            if len(self._buffer) > MAX_ANSWER_HEAD:
                raise Violation("an endless head")
            return None
        text = bytes(self._buffer[: end + 2])
        status = _STATUS.match(text)
        if status is None:
            raise Violation("no HTTP")
        fields: dict[bytes, bytes] = {}
        for line in text[status.end() :].split(b"\r\n"):
            name, _, value = line.partition(b":")
            fields.setdefault(name.lower(), value.strip())
        return int(status[1]), fields

    def _on_page(self) -> list[CarrierEvent]:
        found = self._head()
        if found is None:
            return []
        status, fields = found
        cookie = COOKIE.match(fields.get(b"set-cookie", b""))
        if status != 200 or cookie is None:
            raise Violation("a site without a cookie")
        start = self._buffer.find(b"\r\n\r\n") + 4
        end = self._body_end(fields, start)
        if end is None:
            return []
        del self._buffer[:end]
        self._cookie = cookie[1] + b"=" + cookie[2]
        self._mode = Mode.FLIGHT
        return [Ready(self._binding + cookie[2], TOKEN_BYTES)]

    def _body_end(self, fields: dict[bytes, bytes], at: int) -> int | None:
        """Where the body that begins at ``at`` ends; None: more is needed."""
        if len(self._buffer) - at > MAX_FIRST_PAGE:
            raise Violation("an endless page")
        if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
            length = fields.get(b"content-length", b"")
            if not length.isdigit() or len(length) > 9 or int(length) > MAX_FIRST_PAGE:
                raise Violation("a page without an end")
            return at + int(length) if len(self._buffer) >= at + int(length) else None
        while True:
            chunk = _CHUNK.match(self._buffer, at)
            if chunk is None:
                if len(self._buffer) > at + 64:
                    raise Violation("no chunk")
                return None
            size = int(chunk[1], 16)
            at = chunk.end() + size + 2
            if len(self._buffer) < at:
                return None
            if not size:
                return at

    def _on_answer(self, now: float) -> list[CarrierEvent]:
        found = self._head() if self._mode is Mode.ANSWER else None
        if found is None:
            return []
        status, fields = found
        cookie = COOKIE.match(fields.get(b"set-cookie", b""))
        if status != 101 or cookie is None or fields.get(b"sec-websocket-accept") != accept_of(self._key):
            raise Violation("not let in")
        rest = bytes(self._buffer[self._buffer.find(b"\r\n\r\n") + 4 :])
        self._buffer.clear()
        self._mode = Mode.OPEN
        return [Flight(decode_token(cookie[2])), *self._unframe(rest)]

    # --- The WebSocket ----------------------------------------------------------------------------------------------

    def _unframe(self, data: bytes | memoryview) -> list[CarrierEvent]:
        events: list[CarrierEvent] = []
        try:
            for opcode, piece in self._frames.receive(data):
                if opcode == websocket.BINARY:
                    events.append(Data(piece))
                elif opcode == websocket.PING:
                    self._out.append(frame(bytes(piece), self._rng, websocket.PONG))
                    self._pongs += len(self._out[-1])
                elif opcode == websocket.CLOSE:
                    return events + self._over()
        except Violation:
            return events + self._over()
        return events

    def _over(self) -> list[CarrierEvent]:
        self._mode = Mode.OVER
        self._given_up = inf
        return [Finished()]
