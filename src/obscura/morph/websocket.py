"""WebSocket frames (RFC 6455) as a stream of bytes: where a message ends means nothing to the channel.

Own code on the hot path; the tests compare it with a library both ways.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from typing import Final

from obscura.errors import Violation
from obscura.morph.masking import masked

BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_CONTINUATION: Final = 0
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_MAX_CONTROL: Final = 125  # bytes (RFC 6455, 5.5)


def accept_of(key: bytes) -> bytes:
    """``Sec-WebSocket-Accept`` of a ``Sec-WebSocket-Key``, both as in the header (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def frame(data: bytes, rng: random.Random | None, opcode: int = BINARY) -> bytes:
    """One whole frame. With ``rng`` it is a client's: masked by 4 fresh bytes."""
    size = len(data)
    bit = 0 if rng is None else 0x80
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, bit | 126, size >> 8, size & 0xFF))
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8, "big")
    if rng is None:
        return head + data
    key = rng.getrandbits(32).to_bytes(4, "little")
    return head + key + masked(data, key)


class FrameReader:
    """Takes frames apart. ``masked``: whether the peer is a client and must mask.

    Holds no message, only the head of a frame or one control frame (<= 139 bytes), so that no length needs a limit.
    """

    __slots__ = ("_head", "_key", "_left", "_masked")

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = b""  # of a frame or a control frame, incomplete
        self._left = 0  # bytes of the current data frame still to come
        self._key = b""

    def receive(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes | memoryview]]:
        """Opcode and bytes: BINARY for a piece of data, CLOSE, PING and PONG whole. ``Violation`` for what RFC 6455 forbids."""
        view = memoryview(data)
        if self._head:
            view = memoryview(self._head + bytes(view))
            self._head = b""
        at, end = 0, len(view)
        while at < end:
            if self._left:
                take = min(self._left, end - at)
                self._left -= take
                yield BINARY, self._unmasked(view[at : at + take])
                at += take
                continue
            start = self._start(view, at, end)
            if start is None:
                self._head = bytes(view[at:])
                return
            opcode, size, body = start
            if opcode >= CLOSE:
                if end - body < size:
                    self._head = bytes(view[at:])
                    return
                payload = bytes(view[body : body + size])
                yield opcode, bytes(masked(payload, self._key)) if self._masked else payload
                at = body + size
            else:
                self._left = size
                at = body

    def _start(self, view: memoryview, at: int, end: int) -> tuple[int, int, int] | None:
        """Opcode, size and offset of the payload of the frame at ``at``; its key is kept. None: more is needed."""
        if end - at < 2:
            return None
        first, second = view[at], view[at + 1]
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70 or bool(second & 0x80) is not self._masked:
            raise Violation("WebSocket: reserved bits, or masked the wrong way")
        if opcode not in (_CONTINUATION, BINARY, CLOSE, PING, PONG):
            raise Violation(f"WebSocket: opcode {opcode}")
        if opcode >= CLOSE and (size > _MAX_CONTROL or not first & 0x80):
            raise Violation("WebSocket: a control frame that is long or cut")
        body = at + 2 + (0 if size < 126 else 2 if size == 126 else 8)
        key_end = body + 4 if self._masked else body
        if end < key_end:
            return None
        if size >= 126:
            size = int.from_bytes(view[at + 2 : body], "big")
            if size >> 63:
                raise Violation("WebSocket: a negative length")
        if self._masked:
            self._key = bytes(view[body:key_end])
        return opcode, size, key_end

    def _unmasked(self, piece: memoryview) -> bytes | memoryview:
        if not self._masked:
            return piece
        key = self._key
        if self._left and (turn := len(piece) % 4):
            self._key = key[turn:] + key[:turn]
        return masked(piece, key)
