"""Sealed records without a length: each one announces, inside the seal, the size of the next (design 6,
Records carry no length).

record = ChaCha20-Poly1305(k, n, flags u8 | (next size - 1) u16 | used u16 | frame bytes | zeros)
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from obscura.channel.noise import NONCE, rekeyed
from obscura.errors import ChannelFault
from obscura.limits import (
    FIRST_RECORD,
    MAX_RECORD,
    MIN_RECORD,
    RECORD_OVERHEAD,
    REKEY_RECORDS,
    REKEY_S,
)

REKEY: Final = 1  # flag: I rekey after this record
LAST: Final = 2  # flag: last record of this direction
_HEADER: Final = Struct("<BHH")
_BODY: Final = _HEADER.size
_ZEROS: Final = memoryview(bytes(MAX_RECORD))


class Sealer:
    """The sending direction of a link. ``size`` is what the last record promised for the next one."""

    __slots__ = ("_associated_data", "_cipher", "_counter", "_key", "_key_since", "_left", "_now", "ended", "size")

    def __init__(self, key: bytes, *, first_size: int = FIRST_RECORD, associated_data: bytes = b"") -> None:
        """``associated_data`` belongs to record 0 alone."""
        self._key = key
        self._cipher: ChaCha20Poly1305 | None = None
        self._associated_data = associated_data
        self._counter = 0
        self._left = REKEY_RECORDS  # records that this key may still seal
        self._key_since: float | None = None
        self._now = 0.0
        self.size = first_size
        self.ended = False

    @property
    def capacity(self) -> int:
        """Frame bytes that the next record can hold."""
        return self.size - RECORD_OVERHEAD

    def due_rekey(self, now: float) -> bool:
        """Whether the next record should be sealed with ``rekey=True`` (time or count). Ask before each
        record.
        """
        if self._key_since is None:
            self._key_since = now
        self._now = now
        return self._left == 1 or now - self._key_since >= REKEY_S

    def rest(self) -> None:
        """Nothing is sealed for a while: a cipher takes 2 KiB of memory, and 2 us to make again from its key."""
        self._cipher = None

    def seal(self, body: bytes | memoryview, next_size: int, *, rekey: bool = False, last: bool = False) -> bytes:
        """The next record, ``size`` bytes, with at most ``capacity`` frame bytes; none at all makes a
        dummy.

        The last record a key may seal rekeys by itself. ``last`` ends the direction; ``next_size`` is not
        used then. ``ValueError`` if the body does not fit, ``next_size`` is not in 64..65,536, or the
        direction has ended.
        """
        used = len(body)
        padding = self.size - RECORD_OVERHEAD - used
        if padding < 0 or self.ended:
            raise ValueError("the body does not fit the record" if padding < 0 else "this direction has ended")
        if last:
            next_size = MIN_RECORD
        elif not MIN_RECORD <= next_size <= MAX_RECORD:
            raise ValueError(f"next record of {next_size} bytes")
        rekey = rekey or self._left == 1
        head = _HEADER.pack(REKEY * rekey | LAST * last, next_size - 1, used)
        nonce = NONCE.pack(0, self._counter)
        cipher = self._cipher
        if cipher is None:
            cipher = self._cipher = ChaCha20Poly1305(self._key)
        record = cipher.encrypt(nonce, b"".join((head, body, _ZEROS[:padding])), self._associated_data)
        self._associated_data = b""
        self._counter += 1
        self._left -= 1
        self.size = next_size
        self.ended = last
        if rekey:
            self._key = rekeyed(self._key)
            self._cipher = None
            self._left = REKEY_RECORDS
            self._key_since = None if self._key_since is None else self._now
        return record


class Opener:
    """The receiving direction of a link. Holds at most one partial record between calls."""

    __slots__ = (
        "_associated_data",
        "_cipher",
        "_counter",
        "_failed",
        "_held",
        "_key",
        "_left",
        "_partial",
        "_size",
        "ended",
    )

    def __init__(self, key: bytes, *, first_size: int = FIRST_RECORD, associated_data: bytes = b"") -> None:
        """``associated_data`` belongs to record 0 alone."""
        self._key = key
        self._cipher: ChaCha20Poly1305 | None = None
        self._associated_data = associated_data
        self._counter = 0
        self._left = REKEY_RECORDS
        self._size = first_size
        self._partial: bytearray | None = None  # of the size of the whole record
        self._held = 0  # bytes of it that are there
        self._failed = False
        self.ended = False

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[tuple[bytes, int, int]]:
        """The records that ``data`` completes: ``(plaintext, start, end)``, frame bytes being
        ``plaintext[start:end]``.

        ``start == end`` is a dummy. Must be iterated to its end before the next call, and ``data`` is not
        looked at afterwards. ``ChannelFault`` for anything wrong, then and on every later call; what came
        before it was authentic. After ``ended`` further bytes are discarded.
        """
        if self._failed:
            raise ChannelFault("the channel has failed")
        view = memoryview(data)
        position = 0
        if self._partial is not None:
            position = self._fill(self._partial, view)
            if self._held < self._size:
                return
            record, self._partial, self._held = self._partial, None, 0
            yield self._open(record)
        while not self.ended and len(view) - position >= self._size:
            end = position + self._size
            record_view = view[position:end]
            position = end
            yield self._open(record_view)
        if position < len(view) and not self.ended:
            self._partial = bytearray(self._size)
            self._fill(self._partial, view[position:])

    @property
    def held(self) -> int:
        """Bytes that are there of a record that is not complete."""
        return self._held

    def rest(self) -> None:
        """Nothing is opened for a while: as with a ``Sealer``."""
        self._cipher = None

    def _fill(self, partial: bytearray, view: memoryview) -> int:
        """Copy what the partial record still lacks; the number of bytes taken."""
        taken = min(len(view), self._size - self._held)
        partial[self._held : self._held + taken] = view[:taken]
        self._held += taken
        return taken

    def _open(self, record: bytearray | memoryview) -> tuple[bytes, int, int]:
        nonce = NONCE.pack(0, self._counter)
        cipher = self._cipher
        if cipher is None:
            cipher = self._cipher = ChaCha20Poly1305(self._key)
        try:
            plain = cipher.decrypt(nonce, record, self._associated_data)
        except InvalidTag:
            raise self._fault("wrong tag in a record") from None
        flags, next_size, used = _HEADER.unpack_from(plain)
        next_size += 1
        if flags > REKEY | LAST or used > self._size - RECORD_OVERHEAD:
            raise self._fault("wrong record header")
        if flags & LAST:
            self.ended = True
        elif next_size < MIN_RECORD:
            raise self._fault("next record too small")
        self._associated_data = b""
        self._counter += 1
        self._left -= 1
        self._size = next_size
        if flags & REKEY:
            self._key = rekeyed(self._key)
            self._cipher = None
            self._left = REKEY_RECORDS
        elif not self._left and not self.ended:
            raise self._fault("key used for too many records")
        return plain, _BODY, _BODY + used

    def _fault(self, text: str) -> ChannelFault:
        self._failed = True
        self._partial = None
        return ChannelFault(text)
