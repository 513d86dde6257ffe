"""Bitcoin's block header: 80 bytes."""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

import msgspec

from obscura.errors import DecodeError

HEADER_BYTES = 80
_FORM = Struct("<i32s32sIII")
_TIME = Struct("<I")


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields of a header; ids and hashes in the order of the wire."""

    version: int  # signed, 32 bits
    parent: bytes
    merkle_root: bytes
    time: int  # unix seconds
    bits: int  # compact target
    nonce: int

    def encode(self) -> bytes:
        return _FORM.pack(self.version, self.parent, self.merkle_root, self.time, self.bits, self.nonce)

    @classmethod
    def decode(cls, raw: bytes) -> Header:
        if len(raw) != HEADER_BYTES:
            raise DecodeError(f"a header of {len(raw)} bytes")
        return cls(*_FORM.unpack(raw))


def double_sha256(data: bytes) -> bytes:
    """SHA256 of SHA256, the hash behind every id."""
    return sha256(sha256(data).digest()).digest()


def time_of(header: bytes) -> int:
    """Time of an encoded header without decoding the rest."""
    return int(_TIME.unpack_from(header, 68)[0])


def bits_in(header: bytes) -> int:
    """Compact target of an encoded header without decoding the rest."""
    return int(_TIME.unpack_from(header, 72)[0])
