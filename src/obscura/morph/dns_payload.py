"""Channel bytes as the signatures of a signed zone's records (RFC 4034, 3): the hot path, written by hand.

Each RRSIG carries up to 256 bytes, the size of a signature by an RSA key of 2,048 bits; the last one of a message says how many
in the low 16 bits of its expiration, XOR a mask that only those can compute who know the listener's channel key. Every few
signatures begin a new owner with an address record that they belong to.
"""

from __future__ import annotations

import random
import struct
from hashlib import blake2b
from struct import Struct
from typing import Final

import msgspec

from obscura.errors import Violation
from obscura.limits import DNS_MESSAGE_BYTES
from obscura.morph.dns_message import IN, RRSIG, SOA, A, labels

SIGNATURE: Final = 256  # bytes of one signature
_PER_OWNER: Final = 4  # signatures of one name
_COVERED: Final = (1, 28, 16, 47)  # A, AAAA, TXT, NSEC
_HEAD: Final = Struct(
    "!HHIHHBBIIIH"
)  # type, class, TTL, size; covered, algorithm, labels, TTL, expiration, inception, tag
_TAIL: Final = Struct("!HHIH")  # type, class, TTL, size
_RSASHA256: Final = 8
_POINTABLE: Final = 0x4000  # offsets that a pointer reaches
_VALID_S: Final = 30 * 86_400 + 3_600
_HOSTS: Final = (
    *(
        b"www",
        b"mail",
        b"ns1",
        b"ns2",
        b"ftp",
        b"vpn",
        b"db1",
        b"db2",
        b"app1",
        b"app2",
        b"web1",
        b"web2",
        b"git",
        b"ldap",
    ),
    *(
        b"host1",
        b"host2",
        b"host3",
        b"host4",
        b"node1",
        b"node2",
        b"node3",
        b"pc11",
        b"pc12",
        b"pc13",
        b"pc14",
        b"srv1",
    ),
    *(b"srv2", b"srv3", b"nas", b"print1", b"print2", b"cam1"),
)


class Style(msgspec.Struct, frozen=True):
    """What the signatures of one zone have in common."""

    ttl: int
    expiration: int
    inception: int
    tag: int


def style_of(signature: bytes) -> Style:
    """Of the zone whose SOA has this RRSIG data."""
    return Style(*struct.unpack_from("!IIIH", signature, 4))


class Masks:
    """One direction's masks, in the order of its messages. ``key``: the listener's channel key."""

    __slots__ = ("_count", "_key")

    def __init__(self, key: bytes, binding: bytes, *, upward: bool) -> None:
        seed = blake2b(binding, key=key, person=b"obscura dns/1", digest_size=32).digest()
        self._key = blake2b(b"up" if upward else b"down", key=seed, digest_size=32).digest()
        self._count = 0

    def next(self) -> int:
        """16 bits."""
        self._count += 1
        return int.from_bytes(blake2b(self._count.to_bytes(8, "big"), key=self._key, digest_size=2).digest(), "big")


class Payload:
    """Both ways between bytes and the records of one zone. ``room``: bytes that one message takes."""

    __slots__ = ("_labels", "_net", "_origin", "_rng", "_size", "_style", "room")

    def __init__(self, origin: bytes, style: Style, rng: random.Random) -> None:
        self._origin = origin
        self._style = style
        self._rng = rng
        self._labels = len(labels(origin)) + 1
        self._net = b"\x0a" + rng.randbytes(2)
        self._size = 18 + len(origin) + SIGNATURE  # of an RRSIG's data
        each = self._size + 10 + 8 + 8  # with its name, and its share of an address record
        self.room = max(1, (DNS_MESSAGE_BYTES - 2 * len(origin) - 400) // each) * SIGNATURE

    def records(
        self, data: bytes | memoryview, mask: int, start: int, origin_at: int | None
    ) -> tuple[list[bytes], int]:
        """Records that carry ``data`` (1..``room`` bytes), and how many they are.

        ``start``: where they begin in the message; ``origin_at``: where its origin stands before them, None = nowhere.
        """
        rng, style, origin = self._rng, self._style, self._origin
        view = memoryview(data)
        count = -(-len(view) // SIGNATURE)
        jitter = memoryview(rng.randbytes(2 * count)).cast("H")
        expiration = style.expiration & 0xFFFF0000
        first = rng.getrandbits(5)
        pieces: list[bytes] = []
        here, total, short = start, count, b""
        for number in range(count):
            if number % _PER_OWNER == 0:
                index = (first + number // _PER_OWNER) & 31
                host = _HOSTS[index]
                name = bytes((len(host),)) + host
                if origin_at is None:
                    origin_at = here + len(name)
                    owner = name + origin
                else:
                    owner = name + (0xC000 | origin_at).to_bytes(2, "big")
                short = (0xC000 | here).to_bytes(2, "big") if here < _POINTABLE else owner
                pieces.append(owner + _TAIL.pack(A, IN, style.ttl, 4) + self._net + bytes((index + 10,)))
                here += len(pieces[-1])
                total += 1
            low = jitter[number] if number < count - 1 else (len(view) - number * SIGNATURE) ^ mask
            head = _HEAD.pack(
                RRSIG, IN, style.ttl, self._size,
                _COVERED[number % _PER_OWNER], _RSASHA256, self._labels, style.ttl, expiration | low, style.inception, style.tag,
            )  # fmt: skip
            pieces.append(short + head + origin)
            pieces.append(view[number * SIGNATURE : (number + 1) * SIGNATURE])  # type: ignore[arg-type]  # joined by the caller
            here += len(short) + 10 + self._size
        if rest := count * SIGNATURE - len(view):
            pieces.append(rng.randbytes(rest))
        return pieces, total

    def carried(self, wire: bytes, at: int, count: int, masks: Masks) -> tuple[bytes, int]:
        """What ``count`` records from ``at`` on carry, and how many of them are SOA. Raises ``Violation``."""
        pieces: list[memoryview] = []
        view = memoryview(wire)
        soas = expiration = 0
        try:
            for _ in range(count):
                while size := wire[at]:
                    at += 2 if size >= 0xC0 else 1 + size
                    if size >= 0xC0:
                        break
                else:
                    at += 1
                kind, _, _, size = _TAIL.unpack_from(wire, at)
                end = at + 10 + size
                if kind == RRSIG:
                    if size != self._size or end > len(wire):
                        raise Violation("a signature of another size")
                    pieces.append(view[end - SIGNATURE : end])
                    expiration = at + 18
                elif kind == SOA:
                    soas += 1
                at = end
        except (IndexError, struct.error):
            raise Violation("records that go over the end") from None
        if not pieces:
            return b"", soas
        fill = int.from_bytes(wire[expiration + 2 : expiration + 4], "big") ^ masks.next()
        if not 0 < fill <= SIGNATURE:
            raise Violation("a signature that is filled in no way")
        pieces[-1] = pieces[-1][:fill]
        return b"".join(pieces), soas
