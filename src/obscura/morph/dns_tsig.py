"""TSIG: messages signed with a shared secret (RFC 8945), HMAC-SHA256 alone. Here the secret is known to whoever knows the
node's key, so that it keeps strangers out and nothing else; what authenticates is the channel inside.
"""

from __future__ import annotations

import hmac
from struct import Struct
from typing import Final

import msgspec

from obscura.errors import Violation
from obscura.morph.dns_message import ANY_CLASS, HEADER, RECORD_TAIL, TSIG, Record, read_name

HMAC_SHA256: Final = b"\x0bhmac-sha256\0"
MAC_BYTES: Final = 32
FUDGE_S: Final = 300  # seconds that clocks may differ (RFC 8945, 10)
BADSIG, BADKEY, BADTIME = 16, 17, 18

_TIMES: Final = Struct("!HIH")  # time signed 48 bits, fudge
_ENDS: Final = Struct("!HHH")  # original id, error, size of other data


class Signature(msgspec.Struct, frozen=True, gc=False):
    """What a TSIG says. ``key`` and ``algorithm`` are lower case."""

    key: bytes
    algorithm: bytes
    time: int  # unix seconds
    fudge: int
    mac: bytes
    original_id: int
    error: int
    other: bytes


class Key(msgspec.Struct, frozen=True):
    """``name`` in wire form, lower case."""

    name: bytes
    secret: bytes


def read_signature(wire: bytes, record: Record) -> Signature:
    """Take the TSIG of a message apart. Raises ``Violation``."""
    end = record.end
    algorithm, at = read_name(wire[:end], end - len(record.data))
    if at + 10 > end:
        raise Violation("a short TSIG")
    high, low, fudge = _TIMES.unpack_from(wire, at)
    size = int.from_bytes(wire[at + 8 : at + 10], "big")
    at += 10
    mac = wire[at : at + size]
    at += size
    if at + 6 > end:
        raise Violation("a short TSIG")
    original_id, error, other = _ENDS.unpack_from(wire, at)
    if at + 6 + other != end:
        raise Violation("a TSIG of another size")
    return Signature(
        record.name.lower(), algorithm.lower(), high << 32 | low, fudge, mac, original_id, error, wire[at + 6 : end]
    )


def _record(name: bytes, algorithm: bytes, time: int, mac: bytes, id: int, error: int) -> bytes:
    times = _TIMES.pack(time >> 32, time & 0xFFFFFFFF, FUDGE_S)
    data = algorithm + times + len(mac).to_bytes(2, "big") + mac + _ENDS.pack(id, error, 0)
    return name + RECORD_TAIL.pack(TSIG, ANY_CLASS, 0, len(data)) + data


def attach(wire: bytes, record: bytes) -> bytes:
    """The message with one more additional record."""
    count = int.from_bytes(wire[10:12], "big") + 1
    return b"".join((wire[:10], count.to_bytes(2, "big"), wire[12:], record))


def _digest(secret: bytes, pieces: tuple[bytes, ...]) -> bytes:
    return hmac.digest(secret, b"".join(pieces), "sha256")


def _variables(key: bytes, time: int) -> bytes:
    """What is signed beside a message without an error (RFC 8945, 4.3.3)."""
    times = _TIMES.pack(time >> 32, time & 0xFFFFFFFF, FUDGE_S)
    return key + ANY_CLASS.to_bytes(2, "big") + bytes(4) + HMAC_SHA256 + times + bytes(4)


def sign(
    wire: bytes, key: Key, time: int, before: bytes | None = None, *, goes_on: bool = False
) -> tuple[bytes, bytes]:
    """The message signed, and its MAC. ``before``: the MAC of the request, or, where it ``goes_on``, of the last message."""
    chained = b"" if before is None else len(before).to_bytes(2, "big") + before
    said = _TIMES.pack(time >> 32, time & 0xFFFFFFFF, FUDGE_S) if goes_on else _variables(key.name, time)
    mac = _digest(key.secret, (chained, wire, said))
    return attach(wire, _record(key.name, HMAC_SHA256, time, mac, int.from_bytes(wire[:2], "big"), 0)), mac


def size_of(key: Key) -> int:
    """Bytes of a TSIG as ``sign`` makes it."""
    return len(key.name) + RECORD_TAIL.size + len(HMAC_SHA256) + 10 + MAC_BYTES + 6


def signed_part(wire: bytes, key: Key) -> tuple[bytes, bytes] | None:
    """The message without its TSIG, and its MAC, if this is a request that ``sign`` made with the same key."""
    at = len(wire) - size_of(key)
    if at < HEADER.size or wire[10:12] == bytes(2):
        return None
    body = at + len(key.name) + RECORD_TAIL.size + len(HMAC_SHA256)
    size = size_of(key) - len(key.name) - RECORD_TAIL.size
    if wire[at:body] != key.name + RECORD_TAIL.pack(TSIG, ANY_CLASS, 0, size) + HMAC_SHA256:
        return None
    high, low, _ = _TIMES.unpack_from(wire, body)
    mac = wire[body + 10 : body + 10 + MAC_BYTES]
    sizes = FUDGE_S.to_bytes(2, "big") + MAC_BYTES.to_bytes(2, "big")
    if wire[body + 6 : body + 10] != sizes or wire[body + 10 + MAC_BYTES :] != wire[:2] + bytes(4):
        return None
    count = int.from_bytes(wire[10:12], "big") - 1
    bare = b"".join((wire[:10], count.to_bytes(2, "big"), wire[HEADER.size : at]))
    right = _digest(key.secret, (bare, _variables(key.name, high << 32 | low)))
    return (bare, mac) if hmac.compare_digest(right, mac) else None


def refused(wire: bytes, signature: Signature, name: bytes, error: int, now: int) -> bytes:
    """An answer with a TSIG that says what was wrong and is not signed itself (RFC 8945, 5.3.2)."""
    return attach(wire, _record(name, signature.algorithm, now, b"", int.from_bytes(wire[:2], "big"), error))
