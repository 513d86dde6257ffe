"""A boring web site, answered as nginx 1.22.1 (Debian 12) answers: what every stranger gets on a web carrier.

``tests_real/test_carrier_web.py`` compares it with the real server, byte for byte, over hundreds of probes.
"""

from __future__ import annotations

import re
import zlib
from calendar import monthrange, timegm
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import msgspec

from obscura.limits import CHUNK_OF_BODY, GZIP_LEAST, ZIPPED_PAGES
from obscura.morph.behind import Upstream
from obscura.morph.dress import Dress
from obscura.morph.request import HTTP_09, HTTP_10, TOO_LARGE, Request, host_of

SERVER: Final = b"nginx/1.22.1"
TO_HTTPS: Final = 497  # nginx's own number: cleartext on a TLS port; shown as 400

REASONS: Final = {
    101: b"Switching Protocols",
    200: b"OK",
    204: b"No Content",
    206: b"Partial Content",
    301: b"Moved Permanently",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Not Allowed",
    408: b"Request Time-out",
    412: b"Precondition Failed",
    413: b"Request Entity Too Large",
    414: b"Request-URI Too Large",
    416: b"Requested Range Not Satisfiable",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    504: b"Gateway Time-out",
    505: b"HTTP Version Not Supported",
}
INDEX: Final = (b"index.html", b"index.htm", b"index.nginx-debian.html")
_TITLES: Final = {401: b"401 Authorization Required"}
_MORE: Final = {
    TOO_LARGE: (b"Request Header Or Cookie Too Large", b"Request Header Or Cookie Too Large"),
    TO_HTTPS: (
        b"The plain HTTP request was sent to HTTPS port",
        b"The plain HTTP request was sent to HTTPS port",
    ),
}
_CLOSING: Final = frozenset({400, 413, 414, 501, 505, TOO_LARGE, TO_HTTPS})  # after these the connection is not kept
_ZIPPED: Final = frozenset({403, 404})  # errors whose pages are compressed
_FRIENDLY: Final = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n" * 6

TYPES: Final = {
    "html": b"text/html", "htm": b"text/html", "css": b"text/css", "xml": b"text/xml", "gif": b"image/gif",
    "jpeg": b"image/jpeg", "jpg": b"image/jpeg", "js": b"application/javascript", "txt": b"text/plain",
    "png": b"image/png", "svg": b"image/svg+xml", "webp": b"image/webp", "ico": b"image/x-icon",
    "json": b"application/json", "woff": b"font/woff", "woff2": b"font/woff2", "pdf": b"application/pdf",
    "zip": b"application/zip", "mp3": b"audio/mpeg", "mp4": b"video/mp4", "webm": b"video/webm",
}  # fmt: skip  # a part of nginx's mime.types; the rest is application/octet-stream


class Page(msgspec.Struct, frozen=True):
    """One file of the site. ``modified`` in unix seconds."""

    body: bytes
    kind: bytes
    modified: int

    @property
    def etag(self) -> bytes:
        """nginx's form: time and size in hexadecimal."""
        return b'"%x-%x"' % (self.modified, len(self.body))


class Website(msgspec.Struct):
    """What one listener shows: files by path, folders, and the resources that nobody may use without a token."""

    pages: dict[bytes, Page]
    folders: frozenset[bytes]  # paths that end in a slash
    dress: Dress
    unix: Callable[[], int]
    port: int = 0  # where it listens, for redirects; 0 = the scheme's own
    issued: dict[bytes, float] = {}  # cookies behind a proxy, and when; each is good for one token
    upstream: Upstream | None = None  # the site behind, which answers instead of the pages
    multipart: int = 0  # multipart answers given so far, as nginx numbers them


class Answer(msgspec.Struct):
    """A response in pieces to write, and whether the connection goes on after it."""

    pieces: list[bytes]
    keeps_alive: bool
    is_file: bool = False  # nginx looks at the request's body before it sends one


def date_of(unix: int) -> bytes:
    """IMF-fixdate."""
    return formatdate(unix, usegmt=True).encode()


def error_page(status: int, agent: bytes = b"") -> bytes:
    """nginx's own page of an error, with what it adds for browsers that would show their own."""
    shown = 400 if status in _MORE else status
    title = _TITLES.get(status) or b"%d %s" % (shown, REASONS[shown])
    heading, more = title, b""
    if status in _MORE:
        title = b"400 " + _MORE[status][0]
        heading, more = b"400 Bad Request", b"<center>" + _MORE[status][1] + b"</center>\r\n"
    page = b"<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n%s" % (
        title,
        heading,
        more,
    )
    page += b"<hr><center>%s</center>\r\n</body>\r\n</html>\r\n" % SERVER
    return page + (_FRIENDLY if status >= 400 and _is_padded(agent) else b"")


def _is_padded(agent: bytes) -> bool:
    if b"Opera" in agent:
        return False
    return b"MSIE " in agent or b"Chrome/" in agent


def head(
    site: Website,
    status: int,
    *,
    kind: bytes | None = None,
    size: int | None = None,
    modified: int | None = None,
    location: bytes | None = None,
    chunked: bool = False,
    connection: bytes,
    more: list[tuple[bytes, bytes]],
) -> bytes:
    """Status line and fields in nginx's order."""
    lines = [
        b"HTTP/1.1 %d %s" % (status, REASONS[status]),
        b"Server: " + SERVER,
        b"Date: " + date_of(site.unix()),
    ]
    if kind is not None:
        lines.append(b"Content-Type: " + kind)
    if size is not None:
        lines.append(b"Content-Length: %d" % size)
    if modified is not None:
        lines.append(b"Last-Modified: " + date_of(modified))
    if location is not None:
        lines.append(b"Location: " + location)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    lines.append(b"Connection: " + connection)
    lines += [name + b": " + value for name, value in more]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refuse(site: Website, status: int, request: Request | None, more: list[tuple[bytes, bytes]]) -> Answer:
    """An error's answer. ``request`` is None where its first line could not be read."""
    agent = (request.field(b"user-agent") if request is not None else None) or b""
    version = request.version if request is not None else HTTP_10
    body = error_page(status, agent if version >= HTTP_10 else b"")
    keeps = request is not None and request.keeps_alive and status not in _CLOSING
    if version == HTTP_09:
        return Answer([body], False)
    shown = 400 if status in _MORE else status
    is_head = request is not None and request.method == b"HEAD"
    if request is not None and status in _ZIPPED and _is_zipped(request, b"text/html", len(body)):
        more = [*more, (b"Content-Encoding", b"gzip")]
        fields = head(site, shown, kind=b"text/html", chunked=not is_head, connection=_kept(keeps), more=more)
        return Answer([fields] if is_head else [fields, *_chunked(_zipped(body))], keeps)
    fields = head(site, shown, kind=b"text/html", size=len(body), connection=_kept(keeps), more=more)
    return Answer([fields] if is_head else [fields, body], keeps)


def _kept(keeps: bool) -> bytes:
    return b"keep-alive" if keeps else b"close"


def respond(site: Website, request: Request, cookie: list[tuple[bytes, bytes]], own_host: str) -> Answer:
    """The answer to a request for a file. ``cookie``: the fields that a good answer carries beside nginx's own.

    ``own_host``: where the connection came in, for redirects of who names no host.
    """
    path = request.path
    is_allowed = request.method in (b"GET", b"HEAD", b"POST")
    if path.endswith(b"/"):
        if path not in site.folders:
            return refuse(site, 404, request, [])
        if not is_allowed:
            return refuse(site, 405, request, [])
        index = next((path + name for name in INDEX if path + name in site.pages), None)
        if index is None:
            return refuse(site, 403, request, [])
        path = index
    page = site.pages.get(path)
    if page is None:
        if path + b"/" in site.folders:
            if not is_allowed:
                return refuse(site, 405, request, [])
            return _redirect(site, request, cookie, own_host)
        return refuse(site, 404, request, [])
    if not is_allowed or request.method == b"POST":
        return refuse(site, 405, request, [])
    answer = _file(site, request, page, cookie)
    answer.is_file = True
    return answer


def _redirect(site: Website, request: Request, cookie: list[tuple[bytes, bytes]], own_host: str) -> Answer:
    host = host_of(request.field(b":host") or request.field(b"host") or b"") or own_host.encode()
    query = request.target.partition(b"#")[0].partition(b"?")[2]
    scheme = b"https" if site.dress.is_tls else b"http"
    port = b":%d" % site.port if site.port not in (0, 443 if site.dress.is_tls else 80) else b""
    location = scheme + b"://" + host + port + request.path + b"/" + (b"?" + query if query else b"")
    body = error_page(301)
    if request.version == HTTP_09:
        return Answer([body], False)
    keeps = request.keeps_alive
    fields = head(site, 301, kind=b"text/html", size=len(body), location=location, connection=_kept(keeps), more=cookie)
    return Answer([fields] if request.method == b"HEAD" else [fields, body], keeps)


def _file(site: Website, request: Request, page: Page, cookie: list[tuple[bytes, bytes]]) -> Answer:
    keeps = request.keeps_alive
    failed = _condition(request, page)
    if failed == 412:
        return Answer(refuse(site, 412, request, []).pieces, False)  # whatever its Connection field says
    etag = (b"ETag", page.etag)
    if failed == 304:
        fields = head(site, 304, modified=page.modified, connection=_kept(keeps), more=[etag, *cookie])
        return Answer([fields], keeps)
    if request.version == HTTP_09:
        return Answer([page.body], False)
    is_head = request.method == b"HEAD"
    if _is_zipped(request, page.kind, len(page.body)):
        weak = (b"ETag", b"W/" + page.etag)
        more = [weak, *cookie, (b"Content-Encoding", b"gzip")]
        fields = head(
            site, 200, kind=page.kind, modified=page.modified, chunked=not is_head, connection=_kept(keeps), more=more
        )
        return Answer([fields] if is_head else [fields, *_chunked(_zipped(page.body))], keeps)
    ranges = _ranges(request, page)
    if ranges is None:
        return refuse(site, 416, request, [*cookie, (b"Content-Range", b"bytes */%d" % len(page.body))])
    if ranges:
        return _partial(site, request, page, ranges, [etag, *cookie])
    more = [etag, *cookie, (b"Accept-Ranges", b"bytes")]
    fields = head(
        site, 200, kind=page.kind, size=len(page.body), modified=page.modified, connection=_kept(keeps), more=more
    )
    return Answer([fields] if is_head or not page.body else [fields, page.body], keeps)


def _partial(
    site: Website, request: Request, page: Page, ranges: list[tuple[int, int]], more: list[tuple[bytes, bytes]]
) -> Answer:
    size, kind = len(page.body), page.kind
    if len(ranges) == 1:
        start, end = ranges[0]
        more = [*more, (b"Content-Range", b"bytes %d-%d/%d" % (start, end - 1, size))]
        body = page.body[start:end]
    else:
        site.multipart += 1
        boundary = b"%020d" % site.multipart
        parts = [
            b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s"
            % (boundary, kind, start, end - 1, size, page.body[start:end])
            for start, end in ranges
        ]
        body = b"".join(parts) + b"\r\n--" + boundary + b"--\r\n"
        kind = b"multipart/byteranges; boundary=" + boundary
    keeps = request.keeps_alive
    fields = head(site, 206, kind=kind, size=len(body), modified=page.modified, connection=_kept(keeps), more=more)
    return Answer([fields] if request.method == b"HEAD" else [fields, body], keeps)


# --- Conditions, ranges, compression ----------------------------------------------------------------------------------


_MONTHS = {b"F": 2, b"S": 9, b"O": 10, b"N": 11, b"D": 12}  # what one letter tells
_CLOCK = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES = (
    re.compile(rb"[^, ]*, *(?P<day>[0-9]{2}) (?P<month>...) (?P<year>[0-9]{4}) " + _CLOCK, re.DOTALL),
    re.compile(rb"[^, ]*, *(?P<day>[0-9]{2})-(?P<month>...)-(?P<year>[0-9]{2}) " + _CLOCK, re.DOTALL),
    re.compile(rb"[^, ]* +(?P<month>[^ ]..). ?(?P<day>[0-9]{1,2}) " + _CLOCK + rb" (?P<year>[0-9]{4})", re.DOTALL),
)


def _time(text: bytes) -> int | None:
    """Unix time of a date as nginx reads it: no name of a day, a month by its first letters, nothing after the time."""
    found = next(filter(None, (date.match(text) for date in _DATES)), None)
    if found is None:
        return None
    month = _month(found["month"])
    year, day, hour, minute, second = (int(found[name]) for name in ("year", "day", "hour", "minute", "second"))
    if len(found["year"]) == 2:
        year += 2_000 if year < 70 else 1_900
    if month is None or not year or hour > 23 or minute > 59 or second > 59 or day > monthrange(year, month)[1]:
        return None
    return timegm((year, month, day, hour, minute, second))


def _month(name: bytes) -> int | None:
    first, second, third = name[:1], name[1:2], name[2:]
    if first == b"J":
        return 1 if second == b"a" else 6 if third == b"n" else 7
    if first == b"M":
        return 3 if third == b"r" else 5
    if first == b"A":
        return 4 if second == b"p" else 8
    return _MONTHS.get(first)


_BETWEEN_TAGS = re.compile(rb",[ \t,]*+")  # once over the field, however many commas a stranger sends


def _matches(header: bytes, etag: bytes, *, weakly: bool) -> bool:
    if header == b"*":
        return True
    for each in _BETWEEN_TAGS.split(header):
        tag = each.rstrip(b" \t")
        if (tag.removeprefix(b"W/") if weakly else tag) == etag:
            return True
    return False


def _condition(request: Request, page: Page) -> int:
    """0, 304 or 412 (RFC 9110, 13.2.2, with ``if_modified_since exact``)."""
    since = request.field(b"if-unmodified-since")
    if since is not None and ((when := _time(since)) is None or page.modified > when):
        return 412
    match = request.field(b"if-match")
    if match is not None and not _matches(match, page.etag, weakly=False):
        return 412
    none, modified = request.field(b"if-none-match"), request.field(b"if-modified-since")
    if none is None and modified is None:
        return 0
    if modified is not None and _time(modified) != page.modified:
        return 0
    if none is not None and not _matches(none, page.etag, weakly=True):
        return 0
    return 304


_RANGE = re.compile(rb" *+([0-9]*+) *+- *+([0-9]*+) *+")  # once over the field, however many spaces a stranger sends


def _ranges(request: Request, page: Page) -> list[tuple[int, int]] | None:
    """Ranges to send, [] for all of it, None if none can be satisfied."""
    text = request.field(b"range")
    if text is None or len(text) < 7 or text[:6].lower() != b"bytes=":
        return []
    condition = request.field(b"if-range")
    if condition is not None:
        if len(condition) > 1 and condition.endswith(b'"'):
            if condition != page.etag:
                return []
        elif _time(condition) != page.modified:
            return []
    size = len(page.body)
    found: list[tuple[int, int]] = []
    for each in text[6:].split(b","):
        spec = _RANGE.fullmatch(each)
        if spec is None or not (spec[1] or spec[2]):
            return None
        first, last = (number.lstrip(b"0") for number in spec.groups())
        if max(len(first), len(last)) > 19 or max(int(first or 0), int(last or 0)) >= 1 << 63:
            return None
        if spec[1]:
            start = int(first or 0)
            end = min(int(last or 0) + 1, size) if spec[2] else size
        else:
            start, end = max(0, size - int(last or 0)), size
        if start < end:
            found.append((start, end))
    if not found:
        return None
    if sum(end - start for start, end in found) > size:
        return []
    return found


def _is_zipped(request: Request, kind: bytes, size: int) -> bool:
    accepted = request.field(b"accept-encoding")
    return (
        accepted is not None
        and kind == b"text/html"
        and size >= GZIP_LEAST
        and request.version > HTTP_10
        and request.field(b"via") is None
        and _accepts_gzip(accepted.lower())
    )


_GZIP_TAKEN = re.compile(
    rb" *(?:\Z|,|; *(?:\Z|q=(?:1(?:\.0{0,3})?|0\.(?=[0-9]{0,2}[1-9])[0-9]{1,3})(?:\Z|[, ])))"  # what is no quality is none
)


def _accepts_gzip(accepted: bytes) -> bool:
    """As nginx reads the field: the first gzip that begins a word decides."""
    start = 0
    while (at := accepted.find(b"gzip", start)) >= 0:
        if at == start or accepted[at - 1] in b", ":
            return _GZIP_TAKEN.match(accepted, at + 4) is not None
        start = at + 4  # what stands right behind it begins a word, too
    return False


@lru_cache(ZIPPED_PAGES)
def _zipped(body: bytes) -> bytes:
    """As nginx compresses: level 1, window and memory just large enough. Once for each page, else requests of a few bytes for a
    large one would cost much.
    """
    window, memory = 15, 8
    while len(body) < (1 << (window - 1)) - 262 and window > 9:
        window -= 1
        memory -= 1
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + window, max(memory, 1), zlib.Z_DEFAULT_STRATEGY)
    return packer.compress(body) + packer.flush()


def _chunked(body: bytes) -> list[bytes]:
    chunks = [body[at : at + CHUNK_OF_BODY] for at in range(0, len(body), CHUNK_OF_BODY)]
    return [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks] + [b"0\r\n\r\n"]
