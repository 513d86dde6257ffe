# ruff: noqa: E501
"""What a prober may send to a web server: name and pieces to write one after the other."""

from __future__ import annotations

import random
from itertools import islice, product

from mutated import mutants

HOST = b"Host: h\r\n"


def _get(path: bytes = b"/", fields: bytes = b"", *, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return method + b" " + path + b" " + version + b"\r\n" + HOST + fields + b"\r\n"


def _flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def _requests(protected: bytes, page: bytes, etag: bytes, modified: bytes) -> list[bytes]:
    """Right ones, each with other fields that a server reads."""
    return [
        _get(page, b"Range: bytes=0-1, 5-9\r\n"), _get(page, b"If-Range: " + modified + b"\r\nRange: bytes=-20\r\n"),
        _get(page, b'If-None-Match: "x", W/' + etag + b"\r\n"), _get(page, b"If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT\r\n"),
        _get(page, b"If-Unmodified-Since: Tue Nov 14 22:13:20 2023\r\n"), _get(page, b"If-Modified-Since: Tue Nov 14 22:13:20 2023\r\n"),
        _get(page, b"If-Modified-Since: " + modified + b"\r\nIf-Match: " + etag + b"\r\n"),
        _get(page, b"Content-Length: 5\r\nExpect: 100-continue\r\n", method=b"POST") + b"hello" + _get(b"/none"),
        _get(b"/folder/", b"Transfer-Encoding: chunked\r\n") + b"5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n" + _get(b"/none"),
        _get(protected, b"Authorization: Bearer abcdefghij\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nCookie: session=a\r\n"),
        b"GET http://h:80/folder/../index.html?x=1#y HTTP/1.1\r\nHost: h:80\r\nAccept-Encoding: gzip;q=0.5\r\nConnection: close\r\n\r\n",
        _get(b"/folder/./%70age.html;x?y=/../z"), _get(b"/none") + _get(b"/folder"),
        _get(b"/", b"Connection: keep-alive\r\n", version=b"HTTP/1.0") + _get(b"/folder", version=b"HTTP/1.0"),
        _get(b"/", b"Accept-Encoding: gzip, deflate\r\nReferer: http://a/\r\n", method=b"HEAD") + _get(b"/"), b"GET /folder//page.html\r\n",
        _get(protected + b"/x?y", b"Authorization: Basic YTpi\r\n"), _get(b"//folder/..//%2e%2e/a%20b?q#f", method=b"OPTIONS"),
    ]  # fmt: skip


def tables(protected: bytes, page: bytes, etag: bytes, modified: bytes) -> dict[str, list[bytes]]:
    """All probes. ``page``: the path of a text file of 1,000 bytes or more, with its tag and time."""
    probes: dict[str, list[bytes]] = {}

    def put(name: str, *pieces: bytes) -> None:
        assert name not in probes, name
        probes[name] = list(pieces)

    methods = b"GET HEAD POST PUT DELETE OPTIONS TRACE CONNECT PATCH PROPFIND MKCOL FOO A-B A_B get Get G3T".split()
    paths = [
        b"/",
        page,
        b"/none",
        b"/folder",
        b"/folder/",
        b"/empty",
        b"/empty/",
        protected,
        protected + b"/",
        b"/index.html",
    ]
    for method, path in product(methods, paths):
        put(f"{method.decode()} {path.decode()}", _get(path, method=method))
    for version, path in product((b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9"), paths):
        put(f"{version.decode()} {path.decode()}", _get(path, version=version))
    for version in (b"HTTP/0.9 HTTP/2.0 HTTP/2 HTTP/1 HTTP/1. HTTP/1.1x HTTP/10.1 HTTP/11.1 HTTP/01.1 HTTP/1.10 HTTP/1.999 "
                    b"http/1.1 HTTPS/1.1 HTTP/-1 HTTP/x HTTP1.1 RTSP/1.0 SIP/2.0 H HT HTTP/ HTTP/9.9").split():  # fmt: skip
        put(f"version {version.decode()}", _get(version=version))
        put(f"version {version.decode()} cut", b"GET / " + version)
    for number, line in enumerate(
        [
            b"GET /\r\n", b"GET /\n", b"GET / \r\n", b"GET  /  HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /none\r\n", b"HEAD /\r\n", b"POST /\r\n",
            b"GET\r\n", b"GET \r\n", b" GET / HTTP/1.1\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\n\n\nGET / HTTP/1.1\nHost: h\n\n",
            b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\n\n", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /\tHTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1 x\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\rHost: h\r\n\r\n", b"GET index.html HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", b"GET ? HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", b"GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", b"GET http://other/none HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http://h:80/ HTTP/1.1\r\n\r\n", b"GET http://h?x HTTP/1.1\r\nHost: h\r\n\r\n", b"GET HTTP://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", b"GET http:/h/ HTTP/1.1\r\nHost: h\r\n\r\n", b"GET http:// HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http://[::1]/ HTTP/1.1\r\nHost: h\r\n\r\n", b"GET http://h:x/ HTTP/1.1\r\nHost: h\r\n\r\n", b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00", b"\x16", b"\x16\x03\x01\x00\x05hello", b"\x80\x2e",
            b"SSH-2.0-x\r\n", b"EHLO x\r\n", b"QUIT\r\n", b"HELP\r\n\r\n", b"A", b"G", b"GE", b"GET", b"GET ", b"GET /", b"-", b"_", b"a", b"1", b"{", b"<",
            b"\xff", b"\r", b"\n", b"\r\n", b" ", b"\t", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nH",
        ]
    ):  # fmt: skip
        put(f"line {number} {line[:24]!r}", line)
    for target in (
        b"/../ /.. /a/../ /a/.. /a/../../ /./ /. /.../ // //// //none /%2e%2e/ /%2e%2e%2f /%00 /%0 /% /%zz /%41 /%2f /%2F%2F "
        b"/folder/../ /folder/.. /folder/. /folder/./ /folder// /folder//page.html /folder/page.html /folder/%70age.html "
        b"/?a=b /folder?a=b /folder/?a=b /#x /folder#x /index.html/ /index.html/x /page.txt/ /.hidden /folder%20x /a%20b "
        b"/%25 /+ /a;b /a&b /~x /folder/..%2f /..;/ /%c0%ae/ /\\ /a\\..\\b /.git/config /robots.txt /favicon.ico "
        b"/FOLDER/ /folder/PAGE.HTML /picture.png /data.json /style.css /script.js /none.html /noext /folder?%zz /?%00 /x%"
    ).split():
        put(f"target {target.decode()}", _get(target))
    for number, fields in enumerate(
        [
            b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n",
            b"Connection: keep-alive, close\r\n", b"Connection: foo\r\n", b"Host: x\r\n", b"X-A: b\r\nX-A: c\r\n", b"X_A: b\r\n", b"X-A:b\r\n", b"X-A : b\r\n",
            b"X-A\r\n", b": b\r\n", b" X: b\r\n", b"X: a\r\n b\r\n", b"X: a\x00b\r\n", b"X\x00: b\r\n", b"X\xff: b\r\n", b"X: \xff\r\n", b"X: \x01\r\n",
            b"X: a\rb\r\n", b"X: a\r\r\n", b"X:\r\n", b"X: \r\n", b"X(: b\r\n", b"X\x7f: b\r\n", b"X: \x7f\r\n", b"Content-Length: 0\r\n",
            b"Content-Length: x\r\n", b"Content-Length: -1\r\n", b"Content-Length: +1\r\n", b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: 1048577\r\n", b"Content-Length: 1048576\r\n", b"Content-Length: \r\n", b"Content-Length: 0\r\nContent-Length: 0\r\n",
            b"Content-Length: 5\r\n", b"Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: h\r\n", b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: Chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: \r\n",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n", b"Transfer-Encoding: chunked\r\n\r\nxx\r\n",
            b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"Expect: x\r\n", b"Cookie: a=b\r\n", b"Accept: text/html\r\n", b"Authorization: Basic YTpi\r\n",
            b"Authorization: Bearer abcd\r\n", b"Authorization: \r\n", b"Range: bytes=0-9\r\n", b"Range: bytes=0-0\r\n", b"Range: bytes=-5\r\n", b"Range: bytes=5-\r\n",
            b"Range: bytes=0-99999\r\n", b"Range: bytes=99999-\r\n", b"Range: bytes=-0\r\n", b"Range: bytes=5-1\r\n", b"Range: bytes=0-1,3-4\r\n",
            b"Range: bytes=0-1, 5-6, 8-9\r\n", b"Range: bytes=0-,0-\r\n", b"Range: bytes=a-b\r\n", b"Range: bytes=\r\n", b"Range: bytes\r\n", b"Range: octets=0-1\r\n",
            b"Range: BYTES=0-1\r\n", b"Range: bytes = 0-1\r\n", b"Range: bytes=0-1,99999-\r\n", b"Range: bytes= 0 - 1 \r\n", b"Range: bytes=--1\r\n", b"Range: bytes=0\r\n",
            b"Range: bytes=99999-,99998-\r\n", b"Range: bytes=0-1;\r\n",
            b"If-Range: " + etag + b"\r\nRange: bytes=0-1\r\n", b'If-Range: "x"\r\nRange: bytes=0-1\r\n', b"If-Range: " + modified + b"\r\nRange: bytes=0-1\r\n",
            b"If-Range: x\r\nRange: bytes=0-1\r\n", b"If-None-Match: " + etag + b"\r\n", b"If-None-Match: W/" + etag + b"\r\n", b"If-None-Match: *\r\n",
            b'If-None-Match: "x"\r\n', b'If-None-Match: "x", ' + etag + b"\r\n", b"If-None-Match: x\r\n", b"If-None-Match: \r\n", b"If-Match: " + etag + b"\r\n",
            b"If-Match: *\r\n", b'If-Match: "x"\r\n', b"If-Match: W/" + etag + b"\r\n", b"If-Modified-Since: " + modified + b"\r\n",
            b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", b"If-Modified-Since: Wed, 01 Jan 2031 00:00:00 GMT\r\n", b"If-Modified-Since: x\r\n",
            b"If-Modified-Since: " + modified + b'\r\nIf-None-Match: "x"\r\n', b"If-Modified-Since: x\r\nIf-None-Match: " + etag + b"\r\n",
            b"If-Unmodified-Since: " + modified + b"\r\n", b"If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", b"If-Unmodified-Since: x\r\n",
            b"Accept-Encoding: gzip\r\n", b"Accept-Encoding: gzip, deflate, br\r\n", b"Accept-Encoding: deflate\r\n", b"Accept-Encoding: gzip;q=0\r\n",
            b"Accept-Encoding: gzip;q=0.5\r\n", b"Accept-Encoding: GZIP\r\n", b"Accept-Encoding: *\r\n", b"Accept-Encoding: gzip;q=1.0\r\n", b"Accept-Encoding: xgzip\r\n",
            b"Accept-Encoding: gzip\r\nVia: x\r\n", b"Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n", b"User-Agent: Mozilla/5.0 (compatible; MSIE 9.0)\r\n",
            b"User-Agent: Mozilla/5.0 Chrome/100.0 Safari/537.36\r\n", b"User-Agent: Opera/9.8 MSIE 6.0\r\n", b"User-Agent: a\r\nUser-Agent: b\r\n",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n", b"X: " + b"a" * 900 + b"\r\n", b"X: " + b"a" * 8000 + b"\r\n",
            b"X: " + b"a" * 8187 + b"\r\n", b"X: " + b"a" * 8188 + b"\r\n", b"X: " + b"a" * 8189 + b"\r\n", b"X: " + b"a" * 9000 + b"\r\n", b"X: b\r\n" * 200,
            b"X: " + b"a" * 8189, b"X: " + b"a" * 20000, (b"X: " + b"a" * 4000 + b"\r\n") * 7, (b"X: " + b"a" * 4000 + b"\r\n") * 9, (b"X: " + b"a" * 7900 + b"\r\n") * 4, (b"X: " + b"a" * 7900 + b"\r\n") * 5,
            b"X: b\r\n" * 6000,
        ]
    ):  # fmt: skip
        # On 413 the fields of the real server's protected location differ with how it asks for the token.
        for path in (page, b"/", b"/none", *((protected,) if b"1048577" not in fields else ())):
            put(f"fields {number} {path.decode()} {fields[:30]!r}", _get(path, fields))
        if number < 60:
            put(f"fields {number} POST {fields[:30]!r}", _get(page, fields, method=b"POST"))
            put(f"fields {number} HTTP/1.0 {fields[:30]!r}", _get(page, fields, version=b"HTTP/1.0"))
    for name in b"""Host Connection Content-Length Transfer-Encoding Authorization If-Modified-Since If-Unmodified-Since If-Match
        If-None-Match Content-Type Range If-Range Expect Upgrade User-Agent Referer Accept Accept-Encoding Cookie Via Date TE Trailer
        Keep-Alive X-Forwarded-For Proxy-Connection Sec-WebSocket-Key Origin Pragma Cache-Control""".split():
        put(f"twice {name!r}", _get(page, (name + b": 0\r\n") * 2))
        put(f"empty {name!r}", _get(page, name + b":\r\n"))
        put(f"zipped page {name!r}", _get(b"/", b"Accept-Encoding: gzip\r\n" + name + b": 0\r\n", method=b"HEAD"))
        put(f"zipped {name!r}", _get(b"/none", b"Accept-Encoding: gzip\r\n" + name + b": 0\r\n", method=b"HEAD"))
    for name, lead, rest in product((b"gzip", b"xgzip", b"xgzipxgzip gzip", b"a, GZip"), (b"", b" ", b";", b" ; ", b",", b"-"), (
        b"", b"q", b"q=", b"q=0", b"q=1", b"q=1,", b"q=2", b"q=0.", b"q=1.", b"q=0.0", b"q=0.001", b"q=0.0001", b"q=0.100 ", b"q=1.000",
        b"q=1.0000", b"q=1.001", b"Q=0.5", b"q =1", b"q= 1", b"q=1;x", b"q=0.5x", b"x=1", b"gzip", b",gzip", b"q=0,gzip",
    )):  # fmt: skip
        put(
            f"encoding {name!r} {lead!r} {rest!r}",
            _get(b"/", b"Accept-Encoding: " + name + lead + rest + b"\r\n", method=b"HEAD"),
        )
    asked = _get(
        b"/",
        b"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: a/1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    )
    for bit in range(8 * len(asked)):
        put(f"bit {bit} of a request", _flipped(asked, bit))
    for host in (b"h h:80 H h: h:x h. .h h..h h/ h@x [::1] [::1]:80 [::1 127.0.0.1 -h _h h_x h%20 \xff h,x *").split():
        put(f"host {host!r}", b"GET /folder HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    put("host empty", b"GET / HTTP/1.1\r\nHost: \r\n\r\n")
    put("host spaces", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
    for size in (
        1,
        100,
        1000,
        1010,
        1015,
        1020,
        1023,
        1024,
        1025,
        2000,
        8100,
        8170,
        8175,
        8176,
        8177,
        8178,
        8179,
        8180,
        8190,
        8192,
        8200,
        9000,
        20000,
    ):
        put(f"long path {size}", _get(b"/" + b"a" * size))
        put(f"long path cut {size}", b"GET /" + b"a" * size)
        put(f"long method {size}", b"A" * size)
    put("pipelined", _get() * 3 + _get(fields=b"Connection: close\r\n") + _get())
    put("pipelined bad", _get() + b"\x00\x01")
    put("pipelined 401", _get(protected) * 2 + _get())
    put("pipelined heads", _get(method=b"HEAD") * 5)
    put("many", _get(b"/none") * 1005)
    put("slowly", *[bytes((each,)) for each in _get(b"/none")])
    put("body in pieces", _get(b"/", b"Content-Length: 10\r\n", method=b"POST"), b"hello", b"world", _get())
    put("body too long", _get(b"/", b"Content-Length: 3\r\n", method=b"POST"), b"helloworld", _get())
    put(
        "chunks in pieces",
        _get(b"/", b"Transfer-Encoding: chunked\r\n", method=b"POST"),
        b"5\r\nhel",
        b"lo\r\n0\r\n",
        b"\r\n",
        _get(),
    )
    for name, broken in {
        "byte": b"\x00", "bytes": b"\x00" * 10, "version": b"GET / HTTP/2.0\r\n\r\n", "field": b"GET / HTTP/1.1\r\nX\x00", "host": b"GET / HTTP/1.1\r\n\r\n",
        "length": _get(fields=b"Content-Length: x\r\n"), "long": b"GET /" + b"a" * 9000, "closing": _get(fields=b"Connection: close\r\n") + b"GET",
        "closed": _get(fields=b"Connection: close\r\n"), "old": b"GET /\r\n", "large": _get(fields=b"Content-Length: 2000000\r\n"), "501": _get(fields=b"Transfer-Encoding: x\r\n"),
        "412": _get(page, b"If-Match: x\r\n"), "trace": _get(method=b"TRACE"), "twice": _get(fields=b"Host: h\r\nX: y\r\n"),
    }.items():  # fmt: skip
        put(f"after an error: {name}", broken, b"hello", b"world", b"hello", b"world")
    for number, data in enumerate(islice(mutants(_requests(protected, page, etag, modified), random.Random(8)), 1_000)):
        put(f"mutant {number}", data)
    rng = random.Random(7)
    for size in (
        1,
        2,
        3,
        5,
        8,
        16,
        24,
        41,
        48,
        50,
        56,
        64,
        100,
        128,
        221,
        256,
        500,
        512,
        1000,
        1024,
        2047,
        2048,
        4096,
        8192,
        16000,
    ):
        for turn in range(4):
            put(f"random {size} {turn}", rng.randbytes(size))
            put(f"printable {size} {turn}", bytes(rng.choices(b"abcdefGET /HTTP1.:\r\n ", k=size)))
    opening = _get(protected, b"Authorization: Bearer " + b"QUJD" * 60 + b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: DRIsBJcaLpNGAXKrj2W42g==\r\nCookie: a=b\r\n")  # fmt: skip
    put("opening", opening)
    for at in range(len(opening)):
        flipped = bytearray(opening)
        flipped[at] ^= 1 << rng.randrange(8)
        put(f"opening flipped at {at}", bytes(flipped))
    return probes
