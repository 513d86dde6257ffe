"""A web site for strangers, on one connection: requests in, answers out, as nginx 1.22 gives them (RFC 9112).

What its protected resources do is the subclass's to say; here they want a token, and no token is right.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from enum import Enum
from math import inf

from obscura.errors import Violation
from obscura.limits import (
    BODY_S,
    CLIENT_HEADER_S,
    KEEPALIVE_MOST_S,
    KEEPALIVE_REQUESTS,
    KEEPALIVE_S,
    LINGER_S,
    MAX_REQUEST_BODY,
    SITE_STEP,
    SITE_UNREAD_BYTES,
    SITE_WRITE_BYTES,
    TLS_RECORD,
    UPSTREAM_LOOK_S,
    UPSTREAM_LOOK_SHARE,
)
from obscura.morph.carrier import Carrier, CarrierEvent, Finished, Flight, coalesced
from obscura.morph.forwarding import Reply, UploadReader, forwarded
from obscura.morph.request import HTTP_10, ChunkedBody, Refusal, Request, RequestReader
from obscura.morph.tokens import cookie_of
from obscura.morph.website import TO_HTTPS, Answer, Website, refuse, respond


class Mode(Enum):
    """What is expected next."""

    HEAD = 1  # a request is awaited
    BODY = 2  # an answered request's body is discarded
    VERDICT = 3  # flight 1 is with the channel
    OPEN = 4  # the WebSocket carries the channel
    SILENT = 5  # the WebSocket is of no use any more; its application is silent
    UPLOAD = 6  # the body of a request of the session arrives
    FORWARD = 7  # a request is on its way to the site behind, or its answer is
    OVER = 8
    LOOK = 9  # a request waits for its answer until its body, as far as it is there, was looked at


_OWN_ANSWERS = (Mode.HEAD, Mode.BODY, Mode.LOOK, Mode.OVER)  # whoever ends the own side gets these all the same
_IN_CHUNKS = (Mode.BODY, Mode.LOOK, Mode.FORWARD)  # perhaps


class WebServer(Carrier):
    """The side of one connection that everybody sees."""

    def __init__(self, rng: random.Random, site: Website, *, is_misplaced: bool = False) -> None:
        """``is_misplaced``: this is cleartext on a TLS port, which nginx tells everybody."""
        self._rng = rng
        self._site = site
        self._is_misplaced = is_misplaced
        self._upstream = site.upstream
        self._reader = RequestReader()
        self._buffer = bytearray()
        self._out: deque[bytes | memoryview] = deque()
        self._waiting = 0  # bytes of _out
        self._part = bytearray()  # taken off _out, and less than a record of TLS
        self._mode = Mode.HEAD
        self._deadline = inf
        self._began: float | None = None  # the first request
        self._requests = 0
        self._body = 0  # bytes of a request's body still to come
        self._chunks: ChunkedBody | None = None  # or it comes in chunks
        self._body_until = inf
        self._closes = False  # after the body
        self._issued = b""  # the cookie of this connection
        self._asked: Request | None = None  # the request that waits for its answer
        self._upload_reader: UploadReader | None = None  # of a request for the site behind
        self._reply: Reply | None = None
        self._heard = 0.0  # when that site was asked, or last said something
        self._goes_on = False  # something is left in the buffer that nobody has looked at
        self._has_peer_ended = False

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[CarrierEvent]:
        self._deadline = now + CLIENT_HEADER_S
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._mode is not Mode.OVER:
            self._buffer += data
        return self._serve(now)

    def end(self, now: float) -> list[CarrierEvent]:
        return self._over()

    def due(self, now: float) -> list[CarrierEvent]:
        if self._reply is not None:
            pass  # a look at what the site behind says
        elif now >= self._deadline:
            self._buffer.clear()
            self._mode = Mode.OVER
        elif not self._goes_on and not self._waiting:
            return []
        return self._serve(now)

    def _given(self) -> list[bytes]:
        """All that waits to be written."""
        pieces = [bytes(piece) for piece in self._out]
        self._out.clear()
        self._waiting = 0
        return pieces

    def _some(self) -> list[bytes]:
        """What is written now; an empty piece stands behind each answer that is whole."""
        if self._waiting <= SITE_WRITE_BYTES:
            return self._given()
        pieces, left = [], SITE_WRITE_BYTES
        while left:
            piece = self._out.popleft()
            if len(piece) > left:
                self._out.appendleft(memoryview(piece)[left:])
                piece = memoryview(piece)[:left]
            pieces.append(bytes(piece))
            left -= len(piece)
        self._waiting -= SITE_WRITE_BYTES
        return pieces

    def take(self) -> list[bytes]:
        return coalesced([piece for piece in self._some() if piece])

    def take_answers(self) -> list[bytes]:
        """What ``take`` gives, for TLS: each answer by itself, as nginx writes it, and whole records of one that goes on."""
        found = []
        for piece in self._some():
            self._part += piece
            if not piece:
                found.append(bytes(self._part))
                self._part.clear()
        size = len(self._part)
        size -= size % TLS_RECORD if self._waiting else 0
        found.append(bytes(self._part[:size]))
        del self._part[:size]
        return found

    def eof(self, now: float) -> list[CarrierEvent]:
        self._has_peer_ended = True
        return [] if self.is_busy else self._over()

    def deadline(self) -> float:
        return 0.0 if self._goes_on or self._waiting else self._deadline  # now: one write was not enough

    @property
    def is_full(self) -> bool:
        return len(self._buffer) > SITE_UNREAD_BYTES

    @property
    def is_busy(self) -> bool:
        return self._goes_on and self._mode in _OWN_ANSWERS

    # --- What a subclass knows of the protected resources ------------------------------------------------------------

    def _on_protected(self, request: Request, now: float) -> Flight | None:
        """A request for one of them: the flight that it brings, or it is answered."""
        self._answer_unauthorised(request, now)
        return None

    def _upload(self, now: float, events: list[CarrierEvent]) -> None:
        """Use what is there of a body that is wanted."""

    @property
    def _is_hung(self) -> bool:
        """Whether an answer is owed that comes late, so that no further request is looked at."""
        return False

    # --- The site ---------------------------------------------------------------------------------------------------

    def _serve(self, now: float) -> list[CarrierEvent]:
        """Answer what is in the buffer, one request after the other, and not faster than the answers are read."""
        events = self._answer_some(now)
        if self._has_peer_ended and not self._goes_on and self._mode not in (Mode.OVER, Mode.VERDICT):
            events += self._over()
        return events

    def _answer_some(self, now: float) -> list[CarrierEvent]:
        """Some of it: answers that fill a write, or what takes a millisecond or two to look at."""
        self._goes_on = False
        events: list[CarrierEvent] = []
        reader = self._reader
        last = reader.lines + SITE_STEP[0]
        while self._waiting <= SITE_WRITE_BYTES and reader.lines < last:
            if self._mode is Mode.LOOK:
                self._look(now)
            if self._mode is Mode.BODY:
                self._discard(now)
            elif self._mode is Mode.FORWARD:
                if self._forward(now):
                    continue  # its end is looked at once all of it is out
            elif self._mode is Mode.UPLOAD:
                self._upload(now, events)
            if self._mode is not Mode.HEAD:
                body = self._upload_reader if self._mode is Mode.FORWARD else self._chunks
                self._goes_on = self._mode in _IN_CHUNKS and body is not None and body.rests
                return events + (self._over() if self._mode is Mode.OVER else [])
            if self._is_hung:
                return events
            if self._buffer and self._deadline == inf:
                self._deadline = now + CLIENT_HEADER_S
            found = reader.read(self._buffer, last - reader.lines) if self._buffer else None
            if found is None:
                self._goes_on = bool(self._buffer) and reader.rests
                return events
            reader.lines += SITE_STEP[1]
            flight = self._on_head(found, now)
            if flight is not None:
                return [*events, flight]
        self._goes_on = True
        return events

    def _on_head(self, found: Request | Refusal, now: float) -> Flight | None:
        self._requests += 1
        if self._began is None:
            self._began = now
        request = found.request if isinstance(found, Refusal) else found
        is_protected = isinstance(found, Request) and found.path in self._site.dress.paths
        if (
            request is not None
            and not is_protected
            and (self._requests >= KEEPALIVE_REQUESTS or now - self._began > KEEPALIVE_MOST_S)
        ):
            request.keeps_alive = False
        if self._is_misplaced and (isinstance(found, Request) or found.status == 413):
            answer = refuse(self._site, TO_HTTPS, request, [])
        elif isinstance(found, Refusal):
            answer = refuse(self._site, found.status, found.request, [])
        elif found.path in self._site.dress.paths:
            return self._on_protected(found, now)
        elif self._upstream is not None:
            self._asked, self._mode = found, Mode.FORWARD
            self._upload_reader = UploadReader(found)
            self._deadline = now + BODY_S
            expected = found.field(b"expect") if found.version > HTTP_10 else None
            if expected is not None and expected.lower() == b"100-continue":
                self._put([b"HTTP/1.1 100 Continue\r\n\r\n", b""])
            return None
        else:
            self._reply_to(found, now)
            return None
        self._answer(request, answer.pieces, keeps=answer.keeps_alive, now=now)
        return None

    def _forward(self, now: float) -> bool:
        """Bring the request behind as soon as it is whole, then its answer back as it comes; whether that is done."""
        request, reader = self._asked, self._upload_reader
        assert request is not None
        assert reader is not None
        assert self._upstream is not None, "_on_head has seen to it"
        try:
            if self._reply is None and reader.read(self._buffer):
                ticket = self._upstream.ask(forwarded(request, bytes(reader.body)))
                self._reply = Reply(ticket, request, self._site, self._cookie_for(request, now))
                self._heard = now
        except Violation:
            request.keeps_alive = False
            status = 413 if len(reader.body) > MAX_REQUEST_BODY else 400
            self._forget()
            self._put(refuse(self._site, status, request, []).pieces)
            self._mode = Mode.OVER
            return True
        reply = self._reply
        if reply is None:
            self._deadline = now + BODY_S
            return False
        status = reply.ticket.failure
        try:
            pieces = [] if status else reply.pieces()
        except Violation:
            status = 502
        if status:
            answer = refuse(self._site, status, request, [])
            pieces, reply.is_over, reply.keeps = answer.pieces, True, answer.keeps_alive
        self._put(pieces)
        if reply.is_over:
            self._put([b""])
            self._forget()
            self._asked = None
            self._mode = Mode.HEAD if reply.keeps else Mode.OVER
            self._deadline = inf if self._buffer else now + KEEPALIVE_S
        else:
            self._heard = now if pieces else self._heard
            least, most = UPSTREAM_LOOK_S
            self._deadline = now + min(max(least, (now - self._heard) * UPSTREAM_LOOK_SHARE), most)
        return reply.is_over

    def _forget(self) -> None:
        if self._reply is not None:
            self._reply.ticket.drop()
        self._reply = self._upload_reader = None

    def _reply_to(self, request: Request, now: float) -> None:
        """Answer it; a body in chunks is looked at before."""
        if request.is_chunked:
            self._asked, self._mode, self._chunks = request, Mode.LOOK, ChunkedBody()
        else:
            self._reply_now(request, now, is_body=True)

    def _look(self, now: float) -> None:
        request, chunks = self._asked, self._chunks
        assert request is not None
        assert chunks is not None
        try:
            chunks.skip(self._buffer)
        except Violation:
            self._reply_now(request, now, is_body=False)
        else:
            if not chunks.rests:
                self._reply_now(request, now, is_body=True)

    def _reply_now(self, request: Request, now: float, *, is_body: bool) -> None:
        request.keeps_alive = request.keeps_alive and is_body
        if request.path in self._site.dress.paths:
            challenge = (b"WWW-Authenticate", b'Bearer realm="' + self._site.dress.realm + b'"')
            answer = refuse(self._site, 401, request, [challenge])
        else:
            answer = self._page(request, now, is_body=is_body)
        self._answer(request, answer.pieces, keeps=answer.keeps_alive, now=now)

    def _page(self, request: Request, now: float, *, is_body: bool) -> Answer:
        """A page or an error; a body that is none spoils both, and who waits with it is asked for it."""
        answer = respond(self._site, request, self._cookie_for(request, now), self.own_host)
        if answer.is_file and not is_body:
            return refuse(self._site, 400, request, [])
        expected = request.field(b"expect") if request.version > HTTP_10 else None
        if answer.is_file and expected is not None and expected.lower() == b"100-continue":
            answer.pieces[:0] = [b"HTTP/1.1 100 Continue\r\n\r\n", b""]
        return answer

    def _answer_unauthorised(self, request: Request, now: float) -> None:
        self._reply_to(request, now)

    def _answer(self, request: Request | None, pieces: Iterable[bytes], *, keeps: bool, now: float) -> None:
        self._put(pieces)
        self._put([b""])
        self._asked = None
        body = request.length if request is not None else 0
        if body or (request is not None and request.is_chunked):
            if request is None or not request.is_chunked:
                self._chunks = None
            elif self._mode is not Mode.LOOK:  # else it goes on where it is
                self._chunks = ChunkedBody()
            self._mode = Mode.BODY
            self._closes = not keeps
            self._body = body
            self._body_until = now + LINGER_S[1]
            self._deadline = now + LINGER_S[0]
        elif keeps:
            self._mode = Mode.HEAD
            self._deadline = inf if self._buffer else now + KEEPALIVE_S
        else:
            self._mode = Mode.OVER

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
        self._mode = Mode.OVER if self._closes else Mode.HEAD
        self._deadline = inf if self._buffer else now + KEEPALIVE_S

    def _issue(self, value: bytes, now: float) -> None:
        self._issued = value

    def _is_issued(self, value: bytes, now: float) -> bool:
        return value == self._issued

    def _cookie_for(self, request: Request, now: float) -> list[tuple[bytes, bytes]]:
        """A visitor without our cookie gets one, as ``add_header Set-Cookie "name=$request_id"`` behind a ``map`` does."""
        dress = self._site.dress
        if cookie_of(request, dress.cookie):
            return []
        value = self._rng.getrandbits(128).to_bytes(16, "big").hex().encode()
        self._issue(value, now)
        return [(b"Set-Cookie", dress.cookie + b"=" + value + dress.attributes)]

    def _put(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._out.append(piece)
            self._waiting += len(piece)

    def _over(self) -> list[CarrierEvent]:
        lingers = self._mode is Mode.OVER and bool(self._buffer)  # as nginx does where it leaves bytes unread
        self._mode = Mode.OVER
        self._deadline = inf
        self._forget()
        return [Finished(lingers=lingers)]
