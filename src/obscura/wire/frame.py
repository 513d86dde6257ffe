"""Frames: size, type and checksum before a payload (specification, Message Format; design 3).

The decoder is fed the content of one record after another and gives typed messages. It judges a frame as soon
as its 20-byte header is complete, before anything is kept; what it keeps afterwards are the bytes that
arrived, never a buffer whose size a length field chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from struct import Struct

import msgspec

from obscura.errors import DecodeError, Violation
from obscura.limits import HEADER_BYTES, MAX_UNKNOWN_PAYLOAD
from obscura.wire.message import Message, padded_type, type_of
from obscura.wire.tally import OTHER, Tally, count

_HEADER = Struct("<I12s4s")
# bytes; smaller pieces of a payload are merged, so that an object for each costs no multiple of it
_SMALL_PIECE = 4 << 10

Decode = Callable[[bytes], Message]


def _not_admitted(payload: bytes) -> Message:
    raise AssertionError("no payload is smaller than nothing")


_NOT_ADMITTED: tuple[int, Decode] = (-1, _not_admitted)


class Kinds(msgspec.Struct, frozen=True):
    """What one phase of a link admits. The catalogue makes them; a decoder reads them."""

    admitted: Mapping[bytes, tuple[int, Decode]]  # padded name -> (largest payload in bytes, decode)
    illegal: frozenset[bytes] = frozenset()  # padded names of known types that this phase does not admit
    unknown_ok: bool = True  # False: an unknown type is a violation
    strict: bool = False  # True: malformed is a violation
    phase: str = "established"  # for the text of a violation


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """A frame that the link survives: wrong checksum, or a payload that does not follow its encoding."""

    type: str
    size: int
    checksum: bytes
    reason: str
    payload: bytes | None = None  # only where the decoder keeps payloads


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """An intact frame of a type that the catalogue does not have: an extension perhaps; ignored, counted."""

    type: str
    size: int
    checksum: bytes
    payload: bytes | None = None  # only where the decoder keeps payloads


Item = Message | Unknown | Malformed | Violation


class _Begun:
    """A frame whose payload is not complete: its header, a running hash, and the pieces that arrived."""

    __slots__ = (
        "_hash",
        "_keep",
        "_pieces",
        "_small",
        "checksum",
        "decode",
        "missing",
        "size",
        "strict",
        "type",
    )

    def __init__(self, type: str, size: int, checksum: bytes, decode: Decode | None, strict: bool, keep: bool) -> None:
        self.type = type
        self.size = size
        self.missing = size
        self.checksum = checksum
        self.decode = decode
        self.strict = strict
        self._keep = keep
        self._hash = sha256()
        self._pieces: list[bytes | memoryview] = []
        self._small = bytearray()

    def take(self, data: bytes | memoryview, start: int, end: int) -> int:
        """Use what belongs to this frame; the position behind it."""
        stop = min(end, start + self.missing)
        self.missing -= stop - start
        if not self._keep:
            self._hash.update(memoryview(data)[start:stop])
            return stop
        piece = memoryview(data)[start:stop]
        self._hash.update(piece)
        if len(piece) < _SMALL_PIECE:
            self._small += piece
        else:
            self._flush()
            # A view of the caller's bytes saves a copy, but keeps all of them alive: only where most of them are ours.
            is_worth_it = isinstance(data, bytes) and 2 * len(piece) >= len(data)
            self._pieces.append(piece if is_worth_it else bytes(piece))
        return stop

    def _flush(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small.clear()

    def payload(self) -> bytes:
        """All of it, in one object; empty if it is not kept."""
        self._flush()
        return b"".join(self._pieces)

    def is_intact(self) -> bool:
        """Whether the checksum in the header is that of the payload."""
        return sha256(self._hash.digest()).digest()[:4] == self.checksum


class FrameDecoder:
    """Bytes of one direction of a link in, items out; the same items at any fragmentation.

    ``kinds`` may be replaced between two items: the next header is judged by the new ones. With
    ``keep_unknown`` the payloads of unknown and malformed frames are kept and shown (for tools; a link does
    not need them).
    """

    __slots__ = ("_begun", "_dead", "_head", "_keep_unknown", "_tally", "kinds")

    def __init__(self, kinds: Kinds, keep_unknown: bool = False, tally: Tally | None = None) -> None:
        self.kinds = kinds
        self._tally = {} if tally is None else tally  # frames that were given out
        self._keep_unknown = keep_unknown
        self._head = b""  # the begin of a header, at most 19 bytes
        self._begun: _Begun | None = None
        self._dead = False

    @property
    def pending(self) -> tuple[int, int] | None:
        """Of an incomplete frame: bytes there, and bytes in all (20 while its header is incomplete)."""
        if self._begun is not None:
            size = HEADER_BYTES + self._begun.size
            return size - self._begun.missing, size
        return (len(self._head), HEADER_BYTES) if self._head else None

    @property
    def coming(self) -> str | None:
        """Type of the frame of which some is there, "" as long as it is not known; None = of none."""
        if self._begun is not None:
            return self._begun.type
        return "" if self._head else None

    def clear(self) -> None:
        """Let go of what is there of a frame, and give nothing more."""
        self._dead, self._head, self._begun = True, b"", None

    def receive(self, data: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[Item]:
        """The items that ``data[start:end]`` completes. Exhaust it before the next call; then reuse ``data``.

        A ``Violation`` is the last item ever: afterwards the decoder gives nothing.
        """
        if end is None:
            end = len(data)
        pos = start
        if self._head and not self._dead:
            pos, fault = self._fill_head(data, pos, end)
            if fault is not None:
                yield fault
            elif self._head:
                return
        # The hot path is the inner loop; it leaves whatever is not a whole, legal, intact, decodable frame to
        # the outer one. Frames of one type in a row are counted at once: a call for each is a tenth of its time.
        unpack_header, digest = _HEADER.unpack_from, sha256
        while not self._dead:
            if self._begun is not None:
                pos = self._begun.take(data, pos, end)
                if self._begun.missing:
                    return
                yield self._finish(self._begun)
                continue
            if not isinstance(data, bytes):  # a slice of bytes costs half of one of a view: one copy for all frames
                data, pos, end = bytes(data[pos:end]), 0, end - pos
            kinds, alike, frames, first, message = self.kinds, b"", 0, pos, None
            limit, decode = _NOT_ADMITTED
            try:
                while True:
                    body = pos + HEADER_BYTES
                    if body > end:
                        self._head = data[pos:end]
                        return
                    size, name, checksum = unpack_header(data, pos)
                    if name != alike:
                        self._count(message, frames, pos - first)
                        alike, frames, first, message = name, 0, pos, None
                        limit, decode = kinds.admitted.get(name, _NOT_ADMITTED)
                    stop = body + size
                    if size > limit or stop > end:
                        break
                    payload = data[body:stop]
                    if digest(digest(payload).digest()).digest()[:4] != checksum:
                        break
                    try:
                        message = decode(payload)
                    except DecodeError:
                        break
                    frames += 1
                    pos = stop
                    yield message
                    if self.kinds is not kinds:
                        self._count(message, frames, pos - first)
                        kinds, alike, frames, message = self.kinds, b"", 0, None
            finally:
                self._count(message, frames, pos - first)
            fault = self._begin(size, name, checksum)
            if fault is not None:
                yield fault
            pos = body

    def _count(self, last: Message | None, frames: int, size: int) -> None:
        """Count frames of the type of ``last``, ``size`` bytes in all."""
        if last is not None and not last.PRIVATE:
            count(self._tally, last.NAME, size, frames)

    def _fill_head(self, data: bytes | memoryview, pos: int, end: int) -> tuple[int, Violation | None]:
        """Complete the header that an earlier chunk began, and judge it."""
        stop = min(end, pos + HEADER_BYTES - len(self._head))
        self._head += data[pos:stop]
        fault = None
        if len(self._head) == HEADER_BYTES:
            fault = self._begin(*_HEADER.unpack(self._head))
            self._head = b""
        return stop, fault

    def _begin(self, size: int, name: bytes, checksum: bytes) -> Violation | None:
        """Judge a header: begin its frame, or say why the link ends."""
        kinds = self.kinds
        limit, decode = kinds.admitted.get(name, (MAX_UNKNOWN_PAYLOAD, None))
        shown = type_of(name)
        fault = None
        if shown is None:
            fault = "a frame's type has other bytes than a-z and 0-9"
        elif decode is None and (name in kinds.illegal or not kinds.unknown_ok):
            fault = f"{shown} is not legal in the {kinds.phase} phase"
        elif size > limit:
            fault = f"{shown} of {size} bytes, over its limit of {limit}"
        else:
            keep = decode is not None or self._keep_unknown
            self._begun = _Begun(shown, size, checksum, decode, kinds.strict, keep)
        return None if fault is None else self._end(fault)

    def _finish(self, frame: _Begun) -> Item:
        """The item of a frame that is complete."""
        item = self._item(frame)
        if not isinstance(item, Message):
            count(self._tally, OTHER, HEADER_BYTES + frame.size)
        elif not item.PRIVATE:
            count(self._tally, item.NAME, HEADER_BYTES + frame.size)
        return item

    def _item(self, frame: _Begun) -> Item:
        self._begun = None
        intact = frame.is_intact()
        kept = frame.payload() if self._keep_unknown or (intact and frame.decode is not None) else None
        if not intact:
            reason = "wrong checksum"
        elif frame.decode is None or kept is None:
            return Unknown(frame.type, frame.size, frame.checksum, kept)
        else:
            try:
                return frame.decode(kept)
            except DecodeError as error:
                reason = str(error)
        if frame.strict:
            return self._end(f"malformed {frame.type}: {reason}")
        return Malformed(frame.type, frame.size, frame.checksum, reason, kept if self._keep_unknown else None)

    def _end(self, reason: str) -> Violation:
        self._dead = True
        return Violation(reason)


def checksum_of(payload: bytes) -> bytes:
    """First 4 bytes of the double SHA-256 (specification, Message Format)."""
    return sha256(sha256(payload).digest()).digest()[:4]


def frame_parts(message: Message) -> tuple[bytes, bytes]:
    """Header and payload, for a writer that takes both without joining them."""
    payload = message.encode()
    checksum = sha256(sha256(payload).digest()).digest()[:4]
    return _HEADER.pack(len(payload), message.NAME, checksum), payload


def encode_frame(message: Message) -> bytes:
    """The frame of a message. A payload over ``MAX_SIZE`` is the caller's fault and not looked for here."""
    return b"".join(frame_parts(message))


def encode_raw(type: str, payload: bytes, checksum: bytes | None = None) -> bytes:
    """The frame of any payload, under any checksum. ``ValueError`` if ``type`` is not ``[a-z0-9]{1,12}``."""
    return (
        _HEADER.pack(len(payload), padded_type(type), checksum_of(payload) if checksum is None else checksum) + payload
    )
