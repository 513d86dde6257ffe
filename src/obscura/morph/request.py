"""HTTP/1.1 requests of strangers, read as nginx 1.22 reads them: what is wrong is noticed at the same byte (RFC 9112).

A prober counts the bytes that a server takes before it answers, so a line is checked while it is still incomplete.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from obscura.errors import Violation
from obscura.limits import (
    CLIENT_HEADER_BUFFER,
    LARGE_HEADER_BUFFER,
    LARGE_HEADER_BUFFERS,
    MAX_REQUEST_BODY,
    SITE_STEP,
)

HTTP_09: Final = 9
HTTP_10: Final = 1_000
HTTP_11: Final = 1_001
TOO_LARGE: Final = 494  # nginx's own number for headers that are; shown as 400


def _nested(atoms: list[str]) -> str:
    """A pattern for every prefix of a sequence."""
    pattern = ""
    for atom in reversed(atoms):
        pattern = f"(?:{atom}{pattern})?"
    return pattern


_PATH = r"/[^\x00-\x20\x7f]*+"
_HOST = r"(?:\[[A-Za-z0-9:._~!$&'()*+,;=-]*+\]?|[A-Za-z0-9.-]*+)(?::[0-9]*+)?"
_REST = rf"(?:{_PATH}|\?[^\x00-\x20\x7f]*+)?"
_SCHEME = "[A-Za-z][A-Za-z0-9+.-]*+"
_TARGET = rf"(?:{_PATH}|{_SCHEME}://{_HOST}{_REST})"
_TARGET_BEGUN = _SCHEME + _nested([":", "/"])
_VERSION = _nested(["H", "T", "T", "P", "/", "1", r"\.", "[0-9]", "[0-9]{0,2}", " *+", r"\r"])
_LINE_SO_FAR = re.compile(
    rf"[\r\n]*+(?:[A-Z_-]++(?: ++(?:{_TARGET}(?:\r| ++(?:\r|{_VERSION})?)?|{_TARGET_BEGUN})?)?)?".encode()
)
_LATER_VERSION = re.compile(rf"[\r\n]*+[A-Z_-]++ ++{_TARGET} ++HTTP/(?:[2-9]|1[0-9])".encode())
_METHOD = re.compile(rb"[\r\n]*+([A-Z_-]++) ")
_LINE = re.compile(
    rf"([A-Z_-]++) ++(?:({_PATH})|{_SCHEME}://({_HOST})({_REST}))"
    rf"(?: ++HTTP/1\.([0-9]{{1,3}}) *+| *+)\r?\n".encode()
)
_HEADER_SO_FAR = re.compile(rb"(?:[^\x00-\x20\x7f:][^\x00-\x20\x7f:]*+(?:\r++|:[^\x00\r\n]*+\r*+)?|\r)?")
_HEADER = re.compile(rb"([^\x00-\x20\x7f:]++)(?:: *+([^\x00\r\n]*+))?\r*+\n")
_LINE_BYTES: Final = 64  # of a line that counts as one
_KNOWN_NAME = re.compile(rb"[A-Za-z0-9-]+")  # others are passed over (ignore_invalid_headers, underscores_in_headers)


class Request(msgspec.Struct):
    """One request. ``path`` is decoded and merged as nginx does it; ``fields`` have lower-case names, in order."""

    method: bytes
    target: bytes
    path: bytes
    version: int
    fields: list[tuple[bytes, bytes]]
    keeps_alive: bool = False
    length: int = 0  # bytes of its body
    is_chunked: bool = False

    def field(self, name: bytes) -> bytes | None:
        """The first value of a header field."""
        return next((value for key, value in self.fields if key == name), None)


class Refusal(msgspec.Struct, frozen=True):
    """What cannot be served: the status, and what is known of the request by then."""

    status: int
    request: Request | None = None


class RequestReader:
    """The head of one request at a time. ``buffer`` is shared with whoever reads what comes after it.

    ``lines``: how many were read so far, a long one as several. ``rests``: the last ``read`` has left some that are there.
    """

    __slots__ = ("_at", "_buffers", "_capacity", "_request", "_start", "lines", "rests")

    def __init__(self) -> None:
        self.lines = 0
        self.rests = False
        self._at = 0  # where the next line begins
        self._start = 0  # where nginx's current buffer begins
        self._capacity = CLIENT_HEADER_BUFFER
        self._buffers = 0  # large ones in use
        self._request: Request | None = None

    def read(self, buffer: bytearray, most: int = SITE_STEP[0]) -> Request | Refusal | None:
        """Take a whole head off ``buffer``; None: more is needed, or ``most`` lines were read. A ``Refusal`` is the last."""
        last = self.lines + most
        while True:
            self.rests = self.lines >= last
            if self.rests:
                return None
            self.lines += 1
            if self._request is None and not self._skip_empty_lines(buffer):
                return None
            end = buffer.find(b"\n", self._at) + 1
            refusal = self._measure(end or len(buffer), is_whole=end > 0)
            line = bytes(buffer[self._at : end or None])
            if refusal is None or (end == 0 and self._request is None):
                wrong = self._wrong(line, is_whole=end > 0)
                refusal = wrong or refusal
            if refusal is not None:
                return refusal if refusal.request is not None else Refusal(refusal.status, _begun(line))
            if not end:
                return None
            done = self._line(line)
            self._at = end
            self.lines += len(line) // _LINE_BYTES
            if done is not None:
                del buffer[:end]
                self._reset(end)
                return done

    def _reset(self, taken: int) -> None:
        self._start = max(0, self._start - taken)
        self._at = 0
        self._capacity, self._buffers, self._start = CLIENT_HEADER_BUFFER, 0, 0
        self._request = None

    @staticmethod
    def _skip_empty_lines(buffer: bytearray) -> bool:
        """Whether there is anything else."""
        rest = buffer.lstrip(b"\r\n")
        del buffer[: len(buffer) - len(rest)]
        return bool(rest)

    def _measure(self, end: int, *, is_whole: bool) -> Refusal | None:
        """Follow nginx's buffers: a line must lie in one of them, and there are few."""
        while end - self._start > self._capacity or (not is_whole and end - self._start == self._capacity):
            if self._at == self._start and self._capacity == LARGE_HEADER_BUFFER:
                return Refusal(414 if self._request is None else TOO_LARGE, self._request)
            if self._buffers == LARGE_HEADER_BUFFERS:
                return Refusal(TOO_LARGE, self._request)
            self._buffers += 1
            self._start = self._at
            self._capacity = LARGE_HEADER_BUFFER
        return None

    def _wrong(self, line: bytes, *, is_whole: bool) -> Refusal | None:
        body = line[:-1] if is_whole else line
        if self._request is not None:
            return None if _HEADER_SO_FAR.fullmatch(body) else Refusal(400, self._request)
        if _LATER_VERSION.match(line):
            return Refusal(505)
        if not _LINE_SO_FAR.fullmatch(body) or (is_whole and not _LINE.fullmatch(line)):
            return Refusal(400)
        return None

    def _line(self, line: bytes) -> Request | Refusal | None:
        if self._request is None:
            return self._request_line(line)
        if line in (b"\n", b"\r\n"):
            return judge(self._request)
        found = _HEADER.fullmatch(line)
        if found is None:
            return Refusal(400, self._request)
        if _KNOWN_NAME.fullmatch(found[1]):
            name, value = found[1].lower(), (found[2] or b"").rstrip(b" ")
            if name in _SINGLE and self._request.field(name) is not None:
                return Refusal(400, self._request)
            self._request.fields.append((name, value))
            if name == b"host" and host_of(value) is None:
                return Refusal(400, self._request)
        return None

    def _request_line(self, line: bytes) -> Request | Refusal | None:
        found = _LINE.fullmatch(line)
        assert found is not None, "_wrong has let it pass"
        method, path, host, rest, minor = found.groups()
        target = path if path is not None else rest if rest.startswith(b"/") else b"/" + rest
        decoded = decoded_path(target)
        request = Request(method, target, decoded or b"", HTTP_09 if minor is None else 1_000 + int(minor), [])
        if decoded is None or (host is not None and host_of(host) is None):
            return Refusal(400, request)
        if minor is None:
            return request if method == b"GET" else Refusal(400, request)
        if host is not None:
            request.fields.append((b":host", host))
        self._request = request
        return None


def _begun(line: bytes) -> Request | None:
    """What is known of a request whose line is wrong: the method, if it is whole (an answer to HEAD has no body)."""
    found = _METHOD.match(line)
    return Request(found[1], b"", b"", HTTP_10, []) if found is not None else None


_SINGLE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"if-modified-since", b"if-unmodified-since"}
    | {b"if-match", b"if-none-match", b"if-range", b"expect"}
)


def host_of(field: bytes) -> bytes | None:
    """The host of a Host field in lower case, without port and final dot; None for what nginx refuses."""
    if _NO_HOST.search(field):
        return None
    end = (field.find(b"]") + 1 or -1) if field.startswith(b"[") else field.find(b":")
    host = (field if end < 0 else field[:end]).removesuffix(b".")
    return host.lower() or None


def judge(request: Request) -> Request | Refusal:
    """The checks of a whole head, in nginx's order; sets what follows from the fields."""
    fields = dict(request.fields)
    tokens = fields.get(b"connection", b"").lower()
    if request.version > HTTP_10 and b"host" not in fields:
        return Refusal(400, request)
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if length is not None:
        if not length.isdigit() or len(length) > 18:
            return Refusal(400, request)
        request.length = int(length)
    if coding is not None:
        if request.version < HTTP_11:
            return Refusal(400, request)
        if coding.lower() != b"chunked":
            return Refusal(501, request)
        if length is not None:
            return Refusal(400, request)
        request.is_chunked = True
    if request.method in (b"TRACE", b"CONNECT"):
        return Refusal(405, request)
    request.keeps_alive = (
        b"close" not in tokens if request.version > HTTP_10 else b"keep-alive" in tokens and b"close" not in tokens
    )
    if request.length > MAX_REQUEST_BODY:
        return Refusal(413, request)
    return request


_CHUNK = re.compile(rb"(0?[0-7]?[0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_ZEROS = re.compile(rb"00++")  # found in place: a copy of the buffer for each chunk would cost the square of its size
_CHUNK_SO_FAR = re.compile(rb"0?[0-7]?[0-9A-Fa-f]{0,15}[ \t]*(?:;[^\r\n]*)?\r?")
_TRAILERS = re.compile(rb"(?:[^\r\n]+\r?\n)*\r?\n")
_LONE_CR = re.compile(rb"\r[^\n]")
_MAX_TRAILERS = 1 << 10


class ChunkedBody:
    """Passes over a body in chunks (RFC 9112, 7.1). ``rests``: the last ``skip`` has left some that are there."""

    __slots__ = ("_is_broken", "_is_last", "_is_over", "_left", "_needs_end", "rests")

    def __init__(self) -> None:
        self.rests = False
        self._is_over = self._is_broken = False
        self._left = 0  # bytes of the current chunk
        self._needs_end = False  # its line end is awaited
        self._is_last = False

    def skip(self, buffer: bytearray, kept: bytearray | None = None) -> bool:
        """Whether the body is over; it has been taken off ``buffer`` then, and added to ``kept``. ``Violation`` if it is none.

        Either stays so. Of many chunks some are passed over; ``rests`` is true then.
        """
        self.rests = False
        if self._is_over:
            return True
        try:
            self._is_over = not self._is_broken and self._skip(buffer, kept)
        except Violation:
            self._is_broken = True
        if self._is_broken:
            raise Violation("no body in chunks")
        return self._is_over

    def _skip(self, buffer: bytearray, kept: bytearray | None) -> bool:
        for _ in range(SITE_STEP[0]):
            if self._left:
                taken = min(self._left, len(buffer))
                if kept is not None:
                    kept += buffer[:taken]
                del buffer[:taken]
                self._left -= taken
                if self._left:
                    return False
                self._needs_end = True
            if self._needs_end:
                end = 2 if buffer.startswith(b"\r") else 1
                if len(buffer) < end:
                    return False
                if bytes(buffer[:end]) not in (b"\n", b"\r\n"):
                    raise Violation("a chunk without its end")
                del buffer[:end]
                self._needs_end = False
            if self._is_last:
                trailers = _TRAILERS.match(buffer)
                if trailers is None:
                    if len(buffer) > _MAX_TRAILERS or _LONE_CR.search(buffer):
                        raise Violation("endless trailers, or none")
                    return False
                del buffer[: trailers.end()]
                return True
            zeros = _ZEROS.match(buffer)
            if zeros is not None:
                del buffer[: zeros.end() - 1]  # as many as come are read, as nginx does, and none is kept
            head = _CHUNK.match(buffer)
            if head is None:
                if not _CHUNK_SO_FAR.fullmatch(buffer[:_MAX_TRAILERS]):
                    raise Violation("no chunk")
                return False
            size = int(head[1], 16)
            del buffer[: head.end()]
            self._is_last = size == 0
            self._left = size
        self.rests = True
        return False


_QUERY = re.compile(rb"[?#].*", re.DOTALL)
_NO_HOST = re.compile(rb"[\x00-\x20\x7f/]|\.\.")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def decoded_path(target: bytes) -> bytes | None:
    """The path that is looked up: escapes decoded, ``//``, ``.`` and ``..`` resolved; None for what is refused."""
    path = _QUERY.sub(b"", target)
    if len(_ESCAPE.findall(path)) != path.count(b"%"):
        return None
    path = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), path)
    if b"\0" in path:
        return None
    kept: list[bytes] = []
    segments = path[1:].split(b"/")
    for at, segment in enumerate(segments):
        is_last = at == len(segments) - 1
        if segment == b"..":
            if not kept:
                return None
            kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
            continue
        if is_last:
            kept.append(b"")
    return b"/" + b"/".join(kept)
