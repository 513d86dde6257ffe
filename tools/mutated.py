"""What was right, changed here and there: how finely a server reads shows in what it makes of it. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_PARTS = (  # that mean something in requests of the web; to others they are noise
    *(b"\r\n", b"\n", b" ", b"\t", b",", b";", b"=", b"0", b"-", b":", b"/", b"..", b"%2f", b"%00", b"\0", b"\x7f", b"\xff"),
    *(b'"', b"?", b"#"),
    *(b"chunked", b"gzip", b"close", b"HTTP/1.0", b"Host: h\r\n", b"Range: bytes=1-2\r\n", b"Content-Length: 0\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"9" * 19),
)  # fmt: skip


def mutants(right: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """One of ``right`` after the other, by chance, each with one to three changes. Never ends."""
    while True:
        data = rng.choice(right)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = _changed(data, rng) or b"G"
        yield data


def _changed(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.randrange(1, 12))
    which = rng.randrange(6)
    if which == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if which == 1:
        return data[:at] + data[end:]
    if which == 2:
        return data[:at] + rng.choice(_PARTS) + data[at:]
    if which == 3:
        return data[:at] + rng.randbytes(1) + data[at + 1 :]
    if which == 4:
        return data[:end] + data[at:end] + data[end:]
    lines = data.split(b"\r\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\r\n".join(lines)
