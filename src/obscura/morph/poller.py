"""The dialler's side of a web session in requests and answers (``exchange``): for networks that break WebSockets."""

from __future__ import annotations

from obscura.errors import Violation
from obscura.limits import MAX_PICTURE, POLL_END_S
from obscura.morph.carrier import CarrierEvent, Data, Finished, Flight, coalesced
from obscura.morph.exchange import LEAST_PICTURE, PICTURE_TYPE, PictureReader, Pile, decode_answer
from obscura.morph.tokens import decode_token, encode_token
from obscura.morph.visitor import AGENT, COOKIE, HttpClient, Mode


class PollingClient(HttpClient):
    """A visit that goes on with requests, one after the other."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self._pile = Pile()
        self._is_asking = False  # a request is out
        self._left = 0  # bytes of an answer's body still to come
        self._reader = PictureReader()
        self._closes = False  # the server, after this answer
        self._is_ending = False  # nothing more is asked once all is said

    def send_flight(self, flight: bytes, now: float) -> None:
        self._out.append(self._request(b"GET", b"Authorization: Bearer " + encode_token(flight) + b"\r\n"))
        self._mode = Mode.ANSWER

    def send(self, data: bytes, now: float) -> None:
        if self._mode is Mode.OPEN and not self._is_ending:
            self._pile.put(data)

    def take(self) -> list[bytes]:
        if self._mode is Mode.OPEN and not self._is_asking:
            if self._pile.size:
                self._post()
            elif not self._is_ending:
                self._out.append(self._request(b"GET"))
                self._is_asking = True
        out, self._out = self._out, []
        return coalesced(out)

    def end(self, now: float) -> list[CarrierEvent]:
        """What waits is said first, the last of it in a request that ends the connection."""
        if self._mode is not Mode.OPEN or not (self._is_asking or self._pile.size):
            return self._over()
        if not self._is_ending:
            self._is_ending = True
            self._given_up = now + POLL_END_S
        return []

    @property
    def is_blocked(self) -> bool:
        return self._is_asking and self._pile.size >= MAX_PICTURE

    def _request(self, method: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
        """The head of a request for the protected resource, fields in the library's order."""
        cookie = b"Cookie: " + self._cookie + b"\r\n" if self._cookie else b""
        line = method + b" " + self._path + b" HTTP/1.1\r\nHost: " + self._host + b"\r\n"
        return line + before + AGENT + cookie + after + b"\r\n"

    def _post(self) -> None:
        body = self._pile.take()
        after = b"Content-Length: %d\r\nContent-Type: %s\r\n" % (sum(map(len, body)), PICTURE_TYPE)
        if self._is_ending and not self._pile.size:
            after += b"Connection: close\r\n"
        self._out += [self._request(b"POST", after=after), *body]
        self._is_asking = True

    # --- Answers ----------------------------------------------------------------------------------------------------

    def _on_answer(self, now: float) -> list[CarrierEvent]:
        if self._mode is not Mode.ANSWER:
            return []
        end = self._buffer.find(b"\r\n\r\n") + 4
        found = self._head()
        if found is None:
            return []
        status, fields = found
        if status != 200:
            raise Violation("not let in")
        body_end = self._body_end(fields, end)
        if body_end is None:
            return []
        token = decode_answer(bytes(self._buffer[end:body_end]))
        if token is None:
            raise Violation("no answer to a login")
        cookie = COOKIE.match(fields.get(b"set-cookie", b""))
        if cookie is not None:
            self._cookie = cookie[1] + b"=" + cookie[2]
        rest = bytes(self._buffer[body_end:])
        self._buffer.clear()
        self._mode = Mode.OPEN
        return [Flight(decode_token(token)), *self._unframe(rest)]

    def _unframe(self, data: bytes | memoryview) -> list[CarrierEvent]:
        events: list[CarrierEvent] = []
        view = memoryview(data)
        try:
            while view and not (events and isinstance(events[-1], Finished)):
                view = self._on_body(view, events) if self._left else self._on_head(view, events)
        except Violation:
            events += self._over()
        return events

    def _on_body(self, view: memoryview, events: list[CarrierEvent]) -> memoryview:
        piece = view[: self._left]
        self._left -= len(piece)
        if said := self._reader.read(piece):
            events.append(Data(said))
        if not self._left:
            self._answered(events)
        return view[len(piece) :]

    def _on_head(self, view: memoryview, events: list[CarrierEvent]) -> memoryview:
        """Take an answer's head; what follows it is left."""
        self._buffer += view
        found = self._head()
        if found is None:
            return view[:0]
        status, fields = found
        end = self._buffer.find(b"\r\n\r\n") + 4
        rest = memoryview(bytes(memoryview(self._buffer)[end:]))
        self._buffer.clear()
        length = fields.get(b"content-length", b"")
        if not self._is_asking or status not in (200, 204):
            raise Violation("no session any more")
        self._closes = fields.get(b"connection", b"").lower() == b"close"
        if status == 204:
            self._answered(events)
        elif not length.isdigit() or len(length) > 9 or not LEAST_PICTURE <= int(length) <= MAX_PICTURE:
            raise Violation("no picture")
        else:
            self._left = int(length)
            self._reader.begin(self._left)
        return rest

    def _answered(self, events: list[CarrierEvent]) -> None:
        self._is_asking = False
        if self._closes or (self._is_ending and not self._pile.size):
            events += self._over()
