"""A stranger's request to the site behind this one, and its answer: what nginx's proxy_pass does with both (RFC 9110, 7.6).

As nginx by default: the body is read first, HTTP/1.0 is spoken to the site, one connection for each request, whose end is the
answer's. Who asks is not told on: no field is added.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from obscura.errors import Violation
from obscura.limits import MAX_ANSWER_HEAD, MAX_REQUEST_BODY
from obscura.morph.behind import Ticket
from obscura.morph.request import HTTP_09, HTTP_10, ChunkedBody, Request
from obscura.morph.website import Website, date_of

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})((?: [^\r\n]*)?)\r?\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([^\r\n\0]*?)[ \t]*")
_HOPS: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"transfer-encoding", b"proxy-connection", b"expect"}
)
_OWN: Final = frozenset({b"server", b"date", b"content-length", b"content-type", b"x-pad", b"status"})
_COOKIE_STATUS: Final = frozenset({200, 201, 204, 206, 301, 302, 303, 304, 307, 308})  # that add_header applies to


class Head(msgspec.Struct):
    """What the site behind said before the body."""

    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]

    def field(self, name: bytes) -> bytes | None:
        """The first value."""
        return next((value for key, value in self.fields if key.lower() == name), None)


class UploadReader:
    """The body of a request, as long as may be."""

    def __init__(self, request: Request) -> None:
        self._left = request.length
        self._chunks = ChunkedBody() if request.is_chunked else None
        self.body = bytearray()

    @property
    def rests(self) -> bool:
        """Whether the last ``read`` has left some of the body that is there."""
        return self._chunks is not None and self._chunks.rests

    def read(self, buffer: bytearray) -> bool:
        """Take it off ``buffer``; whether it is whole. ``Violation`` for chunks that are none, or too much."""
        if self._chunks is not None:
            is_whole = self._chunks.skip(buffer, self.body)
            if len(self.body) > MAX_REQUEST_BODY:
                raise Violation("a body of more than 1 MiB")
            return is_whole
        taken = min(self._left, len(buffer))
        self.body += buffer[:taken]
        del buffer[:taken]
        self._left -= taken
        return not self._left


def forwarded(request: Request, body: bytes) -> bytes:
    """The request as it goes to the site behind."""
    lines = [b"%s %s HTTP/1.0" % (request.method, request.target)]
    host = request.field(b"host")
    if host:
        lines.append(b"Host: " + host)
    lines.append(b"Connection: close")
    if body or request.length or request.is_chunked:
        lines.append(b"Content-Length: %d" % len(body))
    for name, value in request.fields:
        if name not in _HOPS and name not in (b"host", b":host", b"content-length"):
            lines.append(b"%s: %s" % (b"-".join(part.capitalize() for part in name.split(b"-")), value))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def read_head(buffer: bytearray) -> Head | None:
    """Take the head of an answer; None: more is needed. ``Violation`` if it is none."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_ANSWER_HEAD:
            raise Violation("an endless head")
        return None
    text = bytes(buffer[: end + 2])
    found = _STATUS.match(text)
    if found is None:
        raise Violation("no HTTP")
    fields = []
    for line in text[found.end() : -2].split(b"\r\n") if found.end() < len(text) else []:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Violation("no field")
        fields.append((field[1], field[2]))
    del buffer[: end + 4]
    return Head(int(found[1]), found[2], fields)


class Reply:
    """The answer on its way to the visitor. ``pieces`` gives what to write; ``is_over`` and ``keeps`` say what follows."""

    def __init__(self, ticket: Ticket, request: Request, site: Website, cookie: list[tuple[bytes, bytes]]) -> None:
        self.ticket = ticket
        self._request = request
        self._site = site
        self._cookie = cookie
        self._buffer = bytearray()
        self._head: Head | None = None
        self._left: int | None = None  # bytes of a body of a known length
        self._is_chunked = False
        self.is_over = False
        self.keeps = request.keeps_alive and request.version > HTTP_09

    def pieces(self) -> list[bytes]:
        """What can be written now. ``Violation`` for an answer that is none, before anything of it was written."""
        out: list[bytes] = []
        said = self.ticket.take()
        self._buffer += said
        if self._head is None:
            self._head = read_head(self._buffer) if self._buffer else None
            if self._head is None:
                if self.ticket.is_over:
                    raise Violation("no answer")
                return out
            out += self._begin(self._head)
        if self._buffer and not self.is_over:
            out += self._body(bytes(self._buffer))
        self._buffer.clear()
        if self.ticket.is_over and not self.is_over:
            self.is_over = True
            if self._is_chunked:
                out.append(b"0\r\n\r\n")
            self.keeps = self.keeps and not self._left
        return out

    def _begin(self, head: Head) -> list[bytes]:
        request, length = self._request, head.field(b"content-length")
        if head.field(b"transfer-encoding") is not None or head.status < 200:
            raise Violation("not as HTTP/1.0 answers")
        if length is not None and not (length.isdigit() and len(length) < 16):
            raise Violation("no length")
        is_bare = request.method == b"HEAD" or head.status in (204, 304)
        self._left = None if length is None or is_bare else int(length)
        self._is_chunked = length is None and not is_bare and request.version > HTTP_10
        self.keeps = self.keeps and (is_bare or length is not None or self._is_chunked)
        self.is_over = is_bare or self._left == 0
        return [] if request.version == HTTP_09 else [self._shown(head, length)]

    def _shown(self, head: Head, length: bytes | None) -> bytes:
        lines = [
            b"HTTP/1.1 %d%s" % (head.status, head.reason),
            b"Server: nginx/1.22.1",
            b"Date: " + date_of(self._site.unix()),
        ]
        if (kind := head.field(b"content-type")) is not None:
            lines.append(b"Content-Type: " + kind)
        if length is not None:
            lines.append(b"Content-Length: " + length)
        if self._is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        lines.append(b"Connection: keep-alive" if self.keeps else b"Connection: close")
        lines += [
            name + b": " + value
            for name, value in head.fields
            if name.lower() not in _HOPS | _OWN and not name.lower().startswith(b"x-accel-")
        ]
        if head.status in _COOKIE_STATUS:
            lines += [name + b": " + value for name, value in self._cookie]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _body(self, data: bytes) -> list[bytes]:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.is_over = not self._left
        return [b"%x\r\n%s\r\n" % (len(data), data)] if self._is_chunked else [data]
