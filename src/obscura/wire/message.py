"""What every message is: a frozen value with a type name, a maximum size, a phase, an encoding both ways."""

from __future__ import annotations

import re
from enum import Flag
from typing import Annotated, Any, ClassVar, Self

import msgspec

from obscura.errors import DecodeError
from obscura.wire.fields import U8, U16, U32, U64

# The range of an integer field is that of the struct beside it; the JSON form reads it (u64 become decimal
# strings there).
Uint8 = Annotated[int, U8]
Uint16 = Annotated[int, U16]
Uint32 = Annotated[int, U32]
Uint64 = Annotated[int, U64]
HASH_BYTES = 32
Hash = Annotated[bytes, HASH_BYTES]  # byte order as on the wire

TYPE_BYTES = 12
_TYPE = re.compile(rb"[a-z0-9]{1,12}")
_PADDED_TYPE = re.compile(rb"[a-z0-9]+\x00*")


class Phase(Flag):
    """When a message is legal on a link (specification, Handshake Sequence)."""

    OPENING = 1  # before both veracks; a violation afterwards
    ESTABLISHED = 2  # after both veracks; a violation before
    ALWAYS = 3


class Message(msgspec.Struct, frozen=True, gc=False):
    """Base of all messages, itself the encoding of an empty one. A subclass is one row of the catalogue.

    ``TYPE`` is the name on the wire (``[a-z0-9]{1,12}``), ``MAX_SIZE`` the largest payload in bytes,
    ``PHASE`` when it is legal; ``NAME`` follows from ``TYPE``: the 12 bytes of the frame's header.
    ``PRIVATE``: that one passed is told nowhere: not counted as anything but cover.
    ``decode(encode(m)) == m`` for every message; ``encode(decode(b)) == b`` for every payload that decodes.
    """

    TYPE: ClassVar[str]
    NAME: ClassVar[bytes]
    MAX_SIZE: ClassVar[int]
    PHASE: ClassVar[Phase] = Phase.ESTABLISHED
    PRIVATE: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "TYPE" in cls.__dict__:
            cls.NAME = padded_type(cls.TYPE)

    def encode(self) -> bytes:
        """The payload. ``ValueError`` or ``struct.error`` if a field is out of its range."""
        return b""

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """The message of a payload of at most ``MAX_SIZE`` bytes. Raises ``DecodeError`` and nothing else."""
        if payload:
            raise DecodeError(f"{cls.TYPE} is empty, not {len(payload)} bytes")
        return cls()


class RawMessage(Message, frozen=True, gc=False):
    """A message whose payload is the ledger's encoding and not looked into here."""

    raw: bytes

    def encode(self) -> bytes:
        return self.raw

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        return cls(payload)


def padded_type(name: str) -> bytes:
    """The 12 bytes of a type name in a header. ``ValueError`` if the name is not ``[a-z0-9]{1,12}``."""
    raw = name.encode("utf-8", "replace") if isinstance(name, str) else b""
    if not _TYPE.fullmatch(raw):
        raise ValueError(f"a message type is 1 to 12 of a-z and 0-9, not {str(name)[:40]!a}")
    return raw.ljust(TYPE_BYTES, b"\0")


def type_of(padded: bytes) -> str | None:
    """The type name in 12 bytes of a frame's header; ``None`` if other bytes are there."""
    return padded.rstrip(b"\0").decode() if _PADDED_TYPE.fullmatch(padded) else None
