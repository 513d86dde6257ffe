"""Channel bytes as the signatures of a signed zone's records (RFC 4034, 3): the hot path, written by hand.

Each RRSIG carries up to 256 bytes, the size of a signature by an RSA key of 2,048 bits; the last one of a message says how many
in the low 16 bits of its expiration, XOR a mask that only those can compute who know the listener's channel key. Every few
signatures begin a new owner with an address record that they belong to; in an update all of them stand at the zone's own name.
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
from obscura.morph.dns_message import HEADER, IN, RRSIG, SOA, A, labels

SIGNATURE: Final = 256  # bytes of one signature
_PER_OWNER: Final = 4  # signatures of one name
_COVERED: Final = (1, 28, 16, 47)  # A, AAAA, TXT, NSEC
_COVERED_AT_APEX: Final = (6, 2, 48, 47)  # SOA, NS, DNSKEY, NSEC: what every signed zone has there
_ZONE: Final = (0xC000 | HEADER.size).to_bytes(2, "big")  # the name in an update's first question
# Type, class, TTL, size; covered, algorithm, labels, TTL, the high half of the expiration.
_HEAD: Final = Struct("!HHIHHBBIH")
_TAIL: Final = Struct("!HHIH")  # type, class, TTL, size
_KIND: Final = Struct("!HxxxxxxH")  # the same, type and size alone
_ADDRESS_BYTES: Final = 14  # of an address record behind its name
_RSASHA256: Final = 8
_POINTABLE: Final = 0x4000  # offsets that a pointer reaches
_VALID_S: Final = 30 * 86_400 + 3_600
_NAMES: Final = (
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
_HOSTS: Final = tuple(bytes((len(name),)) + name for name in _NAMES)  # 32 labels


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

    __slots__ = ("_address", "_apex_heads", "_heads", "_origin", "_rng", "_size", "_tail", "room")

    def __init__(self, origin: bytes, style: Style, rng: random.Random) -> None:
        self._origin = origin
        self._rng = rng
        self._address = _TAIL.pack(A, IN, style.ttl, 4) + b"\x0a" + rng.randbytes(2)
        count = len(labels(origin)) + 1
        self._size = 18 + len(origin) + SIGNATURE  # of an RRSIG's data

        def heads(types: tuple[int, ...], count: int) -> list[bytes]:
            high = style.expiration >> 16
            return [
                _HEAD.pack(RRSIG, IN, style.ttl, self._size, covered, _RSASHA256, count, style.ttl, high)
                for covered in types
            ]

        self._heads = heads(_COVERED, count)
        self._apex_heads = heads(_COVERED_AT_APEX, count - 1)
        self._tail = style.inception.to_bytes(4, "big") + style.tag.to_bytes(2, "big") + origin
        each = self._size + 10 + 8 + 8  # with its name, and its share of an address record
        self.room = max(1, (DNS_MESSAGE_BYTES - 2 * len(origin) - 400) // each) * SIGNATURE

    def records(self, data: bytes | memoryview, mask: int, start: int, origin_at: int | None) -> tuple[bytes, int]:
        """Records that carry ``data`` (1..``room`` bytes), and how many they are.

        ``start``: where they begin in the message; ``origin_at``: where its origin stands before them, None = nowhere.
        """
        rng, origin, heads, tail = self._rng, self._origin, self._heads, self._tail
        view = memoryview(data)
        count = -(-len(view) // SIGNATURE)
        low = self._low(len(view), count, mask)
        index = rng.getrandbits(5)
        pieces: list[bytes | memoryview] = []
        here, owners = start, 0
        for number in range(0, count, _PER_OWNER):
            host = _HOSTS[index]
            if origin_at is None:
                origin_at = here + len(host)
                owner = host + origin
            else:
                owner = host + (0xC000 | origin_at).to_bytes(2, "big")
            short = (0xC000 | here).to_bytes(2, "big") if here < _POINTABLE else owner
            pieces.append(owner + self._address + bytes((index + 10,)))
            for at, head in zip(range(number, min(number + _PER_OWNER, count)), heads, strict=False):
                begin = at * SIGNATURE
                pieces += (short, head, low[2 * at : 2 * at + 2], tail, view[begin : begin + SIGNATURE])
            owners += 1
            here += len(owner) + _ADDRESS_BYTES + _PER_OWNER * (len(short) + 10 + self._size)
            index = (index + 1) & 31
        if rest := count * SIGNATURE - len(view):
            pieces.append(rng.randbytes(rest))
        return b"".join(pieces), count + owners

    def update(self, data: bytes | memoryview, mask: int) -> tuple[bytes, int]:
        """The same for an update: signatures of the zone's own name, which stands in its first question.

        BIND refuses whatever update brings signatures of other names, even to who has the secret.
        """
        view, heads, tail = memoryview(data), self._apex_heads, self._tail
        count = -(-len(view) // SIGNATURE)
        low = self._low(len(view), count, mask)
        pieces: list[bytes | memoryview] = []
        for at in range(count):
            begin = at * SIGNATURE
            pieces += (_ZONE, heads[at & 3], low[2 * at : 2 * at + 2], tail, view[begin : begin + SIGNATURE])
        if rest := count * SIGNATURE - len(view):
            pieces.append(self._rng.randbytes(rest))
        return b"".join(pieces), count

    def _low(self, size: int, count: int, mask: int) -> bytes:
        """The low halves of the expirations of ``count`` signatures that carry ``size`` bytes."""
        last = count - 1
        return self._rng.randbytes(2 * last) + ((size - last * SIGNATURE) ^ mask).to_bytes(2, "big")

    def carried(self, wire: bytes, at: int, count: int, masks: Masks) -> tuple[bytes, int]:
        """What ``count`` records from ``at`` on carry, and how many of them are SOA. Raises ``Violation``."""
        pieces: list[memoryview] = []
        view = memoryview(wire)
        soas = expiration = 0
        unpack, wanted, most = _KIND.unpack_from, self._size, len(wire)
        try:
            for _ in range(count):
                while (size := wire[at]) < 0xC0:
                    at += 1 + size
                    if not size:
                        at -= 2
                        break
                at += 2
                kind, size = unpack(wire, at)
                end = at + 10 + size
                if kind == RRSIG:
                    if size != wanted or end > most:
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
