"""The ALPN list of a ClientHello (RFC 8446, 4.1.2; RFC 7301): the one thing that OpenSSL would answer otherwise here.

nginx ends a handshake whose list has nothing of its own with alert 120; Python's ``ssl`` goes on without a protocol.
"""

from __future__ import annotations

from typing import Final

from obscura.limits import MAX_CLIENT_HELLO

NO_APPLICATION_PROTOCOL: Final = (
    b"\x15\x03\x03\x00\x02\x02\x78"  # a fatal alert, in the clear as all are before ServerHello
)
_ALPN: Final = 16
_GROUPS: Final = 10
_MISSING_EXTENSION: Final = b"\x6d"


def _message(records: bytes) -> bytes | None:
    """The body of the ClientHello in these records; None if it is not complete, or none."""
    body = bytearray()
    at = 0
    while at + 5 <= len(records) and records[at] == 0x16:
        size = int.from_bytes(records[at + 3 : at + 5], "big")
        body += records[at + 5 : at + 5 + size]
        at += 5 + size
    if len(body) < 4 or body[0] != 1:
        return None
    size = int.from_bytes(body[1:4], "big")
    return bytes(body[4 : 4 + size]) if len(body) >= 4 + size else None


def comes_first(alert: bytes, hello: bytes) -> bool:
    """Whether OpenSSL answers a hello with this before nginx is asked about protocols: what cannot be read does. What lacks an
    extension (missing_extension) does only if it is the groups; key shares, signatures and modes of keys are looked for later.
    """
    is_missing = alert[6:7] == _MISSING_EXTENSION
    return alert[:1] == b"\x15" and not (is_missing and _GROUPS in (_extensions(hello) or {}))


def offered_protocols(records: bytes) -> list[bytes] | None:
    """The protocols that the client offers, [] if it offers none; None while its hello is not complete or cannot be read."""
    found = _extensions(records)
    return None if found is None else _names(found.get(_ALPN, b"")[2:])


def _extensions(records: bytes) -> dict[int, bytes] | None:
    hello = _message(records[:MAX_CLIENT_HELLO])
    if hello is None:
        return None
    at = 34  # version, random
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        at += width + int.from_bytes(hello[at : at + width], "big")
    at += 2
    found: dict[int, bytes] = {}
    while at + 4 <= len(hello):
        kind, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        found.setdefault(kind, hello[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _names(text: bytes) -> list[bytes]:
    names = []
    while text:
        names.append(text[1 : 1 + text[0]])
        text = text[1 + text[0] :]
    return names
