"""Messages of DNS (RFC 1035, 4): what they are made of, and how they are written. ``dns_reading`` takes them apart.

A name is its uncompressed wire form. Lengths of labels are below every letter, so ``bytes.lower`` gives its canonical case.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from struct import Struct
from typing import Final

import msgspec

from obscura.errors import Violation

A, NS, MD, MF, CNAME, SOA, MB, MG, MR, PTR, MINFO, MX, TXT, AAAA, A6 = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 16, 28, 38
DNAME, OPT, DS, RRSIG, NSEC, DNSKEY, TKEY, TSIG, IXFR, AXFR, ANY = 39, 41, 43, 46, 47, 48, 249, 250, 251, 252, 255
IN, CH, HS, NONE, ANY_CLASS = 1, 3, 4, 254, 255
QUERY, NOTIFY, UPDATE = 0, 4, 5
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN, NOTAUTH = 0, 1, 2, 3, 4, 5, 6, 9
NOTZONE, BADVERS = 10, 16
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO: Final = 0x8000  # of the flags of OPT
MAX_NAME: Final = 255  # bytes (RFC 1035, 3.1)

HEADER: Final = Struct("!6H")
QUESTION_TAIL: Final = Struct("!HH")
RECORD_TAIL: Final = Struct("!HHIH")
# Types whose data ends in names that are compressed (RFC 1035, 4.1.4; RFC 3597, 4): bytes before them, how many, bytes behind.
NAMES_IN: Final = dict.fromkeys((NS, MD, MF, CNAME, MB, MG, MR, PTR), (0, 1, 0)) | {
    SOA: (0, 2, 20), MINFO: (0, 2, 0), MX: (2, 1, 0)
}  # fmt: skip
_NAMED_AT: Final = {
    RRSIG: 18,
    NSEC: 0,
    DNAME: 0,
}  # types with a name at an offset that is never compressed, but pointed at


class Question(msgspec.Struct, frozen=True, gc=False):
    """``name`` as the sender wrote it."""

    name: bytes
    type: int
    rdclass: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One resource record. ``at`` and ``end`` are its place in the message; ``data`` is as it stands there."""

    name: bytes
    type: int
    rdclass: int
    ttl: int
    data: bytes
    at: int = 0
    end: int = 0


class Message(msgspec.Struct, gc=False):
    """A whole message, taken apart. The sections are those of RFC 1035 or, by their other names, of RFC 2136."""

    wire: bytes
    id: int
    flags: int
    questions: list[Question]
    answers: list[Record]
    authority: list[Record]
    additional: list[Record]
    opt: Record | None = None
    tsig: Record | None = None
    names: dict[int, bytes] = msgspec.field(default_factory=dict)  # by the offset that a pointer leads to
    options: dict[int, bytes] | None = None  # of OPT, by code (``dns_reading``)
    more: dict[bytes, None] = msgspec.field(
        default_factory=dict
    )  # type and class of further questions about the same name
    rare: int = 0  # bytes of records that were shown to the library, as ``dns_reading`` counts them

    @classmethod
    def begun(cls, wire: bytes) -> Message:
        """Its header alone; ``wire`` has one."""
        id, flags, *_ = HEADER.unpack_from(wire)
        return cls(wire, id, flags, [], [], [], [])

    @property
    def opcode(self) -> int:
        """QUERY, UPDATE, ..."""
        return self.flags >> 11 & 15


def labels(name: bytes) -> list[bytes]:
    """The labels of a name, without the root."""
    found, at = [], 0
    while size := name[at]:
        found.append(name[at + 1 : at + 1 + size])
        at += 1 + size
    return found


def name_of(text: str) -> bytes:
    """The wire form of a plain host name, with or without its last dot. Raises ``ValueError``."""
    parts = [part.encode("ascii") for part in text.rstrip(".").split(".")] if text.rstrip(".") else []
    if any(not 0 < len(part) < 64 for part in parts):
        raise ValueError(f"{text!a} has an empty or a long label")
    name = b"".join(bytes((len(part),)) + part for part in parts) + b"\0"
    if len(name) > MAX_NAME:
        raise ValueError(f"{text!a} is too long")
    return name


def text_of(name: bytes) -> str:
    """For people."""
    return ".".join(label.decode("ascii", "backslashreplace") for label in labels(name)) or "."


def is_below(name: bytes, origin: bytes) -> bool:
    """Whether ``name`` is ``origin`` or below it; both lower case."""
    while len(name) >= len(origin):
        if name == origin:
            return True
        if not name[0]:
            return False
        name = name[1 + name[0] :]
    return False


def read_name(wire: bytes, at: int, known: dict[int, bytes] | None = None) -> tuple[bytes, int]:
    """A name and where it ends. Raises ``Violation``.

    Pointers go backwards only, each further than the one before, so that none can make a loop. ``known`` keeps where they
    lead, so that a message full of chains costs no more than its size.
    """
    pieces: list[bytes] = []
    passed: list[tuple[int, int]] = []  # targets, and how many pieces came before
    size, end, before, rest = 1, 0, at, b"\0"
    while True:
        if at >= len(wire):
            raise Violation("a name that goes over the end")
        kind = wire[at]
        if kind >= 0xC0:
            if at + 2 > len(wire):
                raise Violation("a name that goes over the end")
            target = (kind & 0x3F) << 8 | wire[at + 1]
            end = end or at + 2
            if target >= before:
                raise Violation("a pointer that does not go back")
            if known is not None and target in known:
                rest = known[target]
                break
            passed.append((target, len(pieces)))
            at = before = target
            continue
        if kind > 63:
            raise Violation("a label of a kind that does not exist")
        if not kind:
            end = end or at + 1
            break
        size += 1 + kind
        if size > MAX_NAME or at + 1 + kind > len(wire):
            raise Violation("a long name")
        pieces.append(wire[at : at + 1 + kind])
        at += 1 + kind
    if size - 1 + len(rest) > MAX_NAME:
        raise Violation("a long name")
    if known is not None:
        for target, count in passed:
            known[target] = b"".join(pieces[count:]) + rest
    return b"".join(pieces) + rest, end


def read_record(wire: bytes, at: int, known: dict[int, bytes] | None = None) -> Record:
    """The record at ``at``. Raises ``Violation``."""
    name, body = read_name(wire, at, known)
    start = body + RECORD_TAIL.size
    if start > len(wire):
        raise Violation("a record that goes over the end")
    kind, rdclass, ttl, size = RECORD_TAIL.unpack_from(wire, body)
    end = start + size
    if end > len(wire):
        raise Violation("data that goes over the end")
    return Record(name, kind, rdclass, ttl, wire[start:end], at, end)


class Writer:
    """Writes one message; names are compressed against all that stand before them, letter by letter alike (as BIND does)."""

    __slots__ = ("_counts", "_id", "_known", "flags", "wire")

    def __init__(self, id: int, flags: int) -> None:
        self._id = id
        self.flags = flags
        self._counts = [0, 0, 0, 0]
        self._known: dict[bytes, int] = {}
        self.wire = bytearray(HEADER.size)

    def _name(self, name: bytes) -> None:
        for start in (0, 1 + name[0]):
            rest = name[start:]
            known = self._known.get(rest)
            if known is not None and rest[0]:
                self._know(name, len(self.wire), until=start)
                self.wire += name[:start] + (0xC000 | known).to_bytes(2, "big")
                return
            if not rest[0]:
                break
        self._know(name, len(self.wire))
        self.wire += name

    def _know(self, name: bytes, at: int, until: int = MAX_NAME) -> None:
        """A name that begins at an offset: from now on pointers lead to it and to its parent, but to no more of it (BIND)."""
        for start in (0, 1 + name[0]):
            if start < until and start < len(name) - 1 and at + start < 0x4000:
                self._known[name[start:]] = at + start

    def question(self, question: Question) -> None:
        """Before all records."""
        self._counts[0] += 1
        self._name(question.name)
        self.wire += QUESTION_TAIL.pack(question.type, question.rdclass)

    def questions(self, tails: Collection[bytes], limit: int) -> None:
        """More about the name of the one question that was written, as many as fit. ``tails``: their types and classes."""
        name = (0xC000 | HEADER.size).to_bytes(2, "big") if self.wire[HEADER.size] else b"\0"
        room = max(0, limit - len(self.wire)) // (len(name) + QUESTION_TAIL.size)
        if len(tails) > room:
            self.flags |= TC
        self._counts[0] += min(room, len(tails))
        self.wire += b"".join([name + tail for tail in islice(tails, room)])

    def record(self, section: int, name: bytes, kind: int, rdclass: int, ttl: int, data: bytes) -> None:
        """``section``: 1 answer, 2 authority, 3 additional. ``data`` is uncompressed and of the right form."""
        self._counts[section] += 1
        self._name(name)
        tail = len(self.wire)
        self.wire += RECORD_TAIL.pack(kind, rdclass, ttl, 0)
        start = len(self.wire)
        if kind in NAMES_IN:
            before, count, _ = NAMES_IN[kind]
            self.wire += data[:before]
            at = before
            for _ in range(count):
                name, at = read_name(data, at)
                self._name(name)
            self.wire += data[at:]
        else:
            if kind in _NAMED_AT:
                self._know(*read_name(data, _NAMED_AT[kind])[:1], start + _NAMED_AT[kind])
            self.wire += data
        self.wire[tail + 8 : tail + 10] = (len(self.wire) - start).to_bytes(2, "big")

    def mark(self) -> tuple[int, list[int], dict[bytes, int]]:
        """Where ``back`` returns to."""
        return len(self.wire), self._counts.copy(), self._known.copy()

    def back(self, mark: tuple[int, list[int], dict[bytes, int]]) -> None:
        """Take back what was written since."""
        size, self._counts, self._known = mark
        del self.wire[size:]

    def done(self) -> bytes:
        """The whole message."""
        HEADER.pack_into(self.wire, 0, self._id, self.flags, *self._counts)
        return bytes(self.wire)
