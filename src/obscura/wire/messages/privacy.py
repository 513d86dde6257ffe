"""Messages of the privacy enhancements: padneg, resume, resumed, rotate (design 7 and 8)."""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import ClassVar, Final, Self

import msgspec

from obscura.errors import DecodeError
from obscura.limits import MAX_OPENING_PAYLOAD, MAX_PADDING_RULES
from obscura.wire.fields import U8, U32, Reader
from obscura.wire.message import Message, Phase, Uint8, Uint32

# record size-1 low, high | dummy ms low, high | burst low, high | chaff ms low, high | slot size-1 | slot ms
# low, high
_TERMS = Struct("<HHIIBBIIHII")
_RESUME_ID_BYTES: Final = 16
_RESUME_MAC_BYTES: Final = 32


class ShapingTerms(msgspec.Struct, frozen=True, gc=False):
    """One side of ``padneg``: what a node sends, or what it accepts.

    ``rules``: 1 to 8 numbers of padding rules, the preferred one first (0 none, 1 cells, 2 uniform; others
    may come). Each pair is (low, high); (0, 0) turns a thing off. Sizes are bytes of a record on the wire, 1 to
    65,536. Absurd and crossed values are no fault: the agreement clamps them (``obscura.shaping.agreement``).
    """

    rules: tuple[Uint8, ...]
    record_size: tuple[int, int]
    dummy_ms: tuple[Uint32, Uint32]
    burst: tuple[Uint8, Uint8]
    chaff_ms: tuple[Uint32, Uint32]
    slot_size: int
    slot_ms: tuple[Uint32, Uint32]

    def encode(self) -> bytes:
        if not 1 <= len(self.rules) <= MAX_PADDING_RULES:
            raise ValueError(f"1 to {MAX_PADDING_RULES} padding rules")
        return (
            U8.pack(len(self.rules))
            + bytes(self.rules)
            + _TERMS.pack(
                self.record_size[0] - 1,
                self.record_size[1] - 1,
                *self.dummy_ms,
                *self.burst,
                *self.chaff_ms,
                self.slot_size - 1,
                *self.slot_ms,
            )
        )

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        count = reader.u8()
        if not 1 <= count <= MAX_PADDING_RULES:
            raise DecodeError(f"{count} padding rules")
        rules = tuple(reader.take(count))
        v = _TERMS.unpack(reader.take(_TERMS.size))
        return cls(rules, (v[0] + 1, v[1] + 1), v[2:4], v[4:6], v[6:8], v[8] + 1, v[9:11])


class PadNeg(Message, frozen=True, gc=False):
    """padneg: Padding Negotiation (specification, Connection Obfuscation).

    ``most`` is the cover in bytes per second that the sender accepts, 2^32-1 for no bound. ``rest`` is what a
    later version of the protocol appends: ignored, kept so that the encoding is exact.
    """

    TYPE: ClassVar[str] = "padneg"
    MAX_SIZE: ClassVar[int] = MAX_OPENING_PAYLOAD
    PHASE: ClassVar[Phase] = Phase.OPENING

    send: ShapingTerms
    accept: ShapingTerms
    most: Uint32
    rest: bytes = b""

    def encode(self) -> bytes:
        return self.send.encode() + self.accept.encode() + U32.pack(self.most) + self.rest

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        return cls(*_padneg_fields(payload))


@lru_cache(maxsize=32)
def _padneg_fields(payload: bytes) -> tuple[ShapingTerms, ShapingTerms, int, bytes]:
    """Shared: all nodes of a privacy level say the same, and each link keeps what its peer said."""
    reader = Reader(payload)
    return ShapingTerms.decode(reader), ShapingTerms.decode(reader), reader.u32(), reader.rest()


class _Resumption(Message, frozen=True, gc=False):
    MAX_SIZE: ClassVar[int] = _RESUME_ID_BYTES + _RESUME_MAC_BYTES
    PHASE: ClassVar[Phase] = Phase.OPENING

    id: bytes
    mac: bytes

    def encode(self) -> bytes:
        if len(self.id) != _RESUME_ID_BYTES or len(self.mac) != _RESUME_MAC_BYTES:
            raise ValueError(f"id has {_RESUME_ID_BYTES} bytes, mac {_RESUME_MAC_BYTES}")
        return self.id + self.mac

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        message = cls(reader.take(_RESUME_ID_BYTES), reader.take(_RESUME_MAC_BYTES))
        reader.finish()
        return message


class Resume(_Resumption, frozen=True, gc=False):
    """resume: Protocol Rotation, the session goes on over this link (specification, Protocol Morphing)."""

    TYPE: ClassVar[str] = "resume"


class Resumed(_Resumption, frozen=True, gc=False):
    """resumed: Protocol Rotation, the answer to resume (specification, Protocol Morphing)."""

    TYPE: ClassVar[str] = "resumed"


class Rotate(Message, frozen=True, gc=False):
    """rotate: Protocol Rotation, the responder asks for it (specification, Protocol Morphing)."""

    TYPE: ClassVar[str] = "rotate"
    MAX_SIZE: ClassVar[int] = 0
