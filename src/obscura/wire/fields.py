"""Reading and writing the integers and strings of the wire: little-endian unless a name says otherwise.

The reader consumes and cannot overrun: a read past the end raises ``DecodeError``, and a length read from the
wire is checked against a limit *and* against what is there before anything is allocated.
"""

from __future__ import annotations

from struct import Struct

from obscura.errors import DecodeError

U8, U16, U32, U64 = (Struct(f"<{code}") for code in "BHIQ")
U16BE = Struct(">H")


class Reader:
    """A cursor over one payload.

    >>> r = Reader(bytes.fromhex("fd0001ff"))
    >>> r.compact_size(300), r.rest()
    (256, b'\\xff')
    """

    __slots__ = ("_data", "_end", "_pos")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0
        self._end = len(data)

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self._end - self._pos

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._pos

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self._pos + size
        if end > self._end:
            raise DecodeError(f"{size} bytes wanted, {self.left} there")
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def _number(self, form: Struct) -> int:
        end = self._pos + form.size
        if end > self._end:
            raise DecodeError(f"{form.size} bytes wanted, {self.left} there")
        (value,) = form.unpack_from(self._data, self._pos)
        self._pos = end
        return int(value)

    def u8(self) -> int:
        """The next byte."""
        return self._number(U8)

    def u16(self) -> int:
        """The next two bytes, little-endian."""
        return self._number(U16)

    def u16_be(self) -> int:
        """The next two bytes, big-endian."""
        return self._number(U16BE)

    def u32(self) -> int:
        """The next four bytes, little-endian."""
        return self._number(U32)

    def u64(self) -> int:
        """The next eight bytes, little-endian."""
        return self._number(U64)

    def compact_size(self, limit: int) -> int:
        """Bitcoin's CompactSize, at most ``limit``, in its shortest form (as Bitcoin Core demands)."""
        first = self.u8()
        if first < 0xFD:
            value, least = first, 0
        elif first == 0xFD:
            value, least = self.u16(), 0xFD
        elif first == 0xFE:
            value, least = self.u32(), 0x10000
        else:
            value, least = self.u64(), 0x100000000
        if value < least:
            raise DecodeError("CompactSize not in its shortest form")
        if value > limit:
            raise DecodeError(f"count {value} over the limit {limit}")
        return value

    def count(self, limit: int, least_item_bytes: int) -> int:
        """A CompactSize that counts items of ``least_item_bytes`` or more: no more than can still follow."""
        value = self.compact_size(limit)
        if value * least_item_bytes > self.left:
            raise DecodeError(f"{value} items announced, {self.left} bytes there")
        return value

    def rest(self) -> bytes:
        """Everything not read yet."""
        return self.take(self.left)

    def finish(self) -> None:
        """Raise ``DecodeError`` if bytes are left over."""
        if self.left:
            raise DecodeError(f"{self.left} bytes too many")


def compact_size(value: int) -> bytes:
    """Bitcoin's CompactSize, shortest form."""
    if value < 0xFD:
        return U8.pack(value)
    if value <= 0xFFFF:
        return b"\xfd" + U16.pack(value)
    if value <= 0xFFFFFFFF:
        return b"\xfe" + U32.pack(value)
    return b"\xff" + U64.pack(value)


def printable(text: str) -> str:
    """Text of a peer, safe to show: what could move a cursor or turn a line is escaped, as is ``\\``."""
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode() for c in text)
