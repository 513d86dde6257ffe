"""The mask of a WebSocket's client (RFC 6455, 5.3): bytes XOR a repeated key of 4.

Python has no XOR of bytes. Large pieces go through numpy where it is installed (the extra [fast]), at several GB/s; else through
whole numbers, at about half a GB/s.
"""

from __future__ import annotations

from typing import Any, Final

numpy: Any
try:
    import numpy
except ImportError:  # the extra [fast] is not installed
    numpy = None

_PIECE: Final = 8 << 10  # bytes turned into one number at once: what the processor's first cache holds
_WORTH_AN_ARRAY: Final = 1 << 10  # bytes; below, numpy's calls take longer than the work
_ONES: Final = int.from_bytes(b"\1\0\0\0" * (_PIECE // 4), "little")  # times a key = the key, repeated


def masked(data: bytes | memoryview, key: bytes) -> bytes | memoryview:
    """``data`` XOR the repeated 4-byte ``key``, as a new buffer."""
    if numpy is not None and len(data) >= _WORTH_AN_ARRAY:
        return _by_array(data, key)
    if len(data) <= _PIECE:
        return _by_number(data, key)
    view = memoryview(data)
    return b"".join([_by_number(view[at : at + _PIECE], key) for at in range(0, len(view), _PIECE)])


def _by_number(data: bytes | memoryview, key: bytes) -> bytes:
    size = len(data)
    if size == _PIECE:
        mask = _ONES * int.from_bytes(key, "little")
    else:
        mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(data, "little") ^ mask).to_bytes(size, "little")


def _by_array(data: bytes | memoryview, key: bytes) -> memoryview:
    out = bytearray(data)
    whole = len(out) & ~7
    words = numpy.frombuffer(out, dtype=numpy.uint64, count=whole // 8)
    words ^= numpy.frombuffer(key * 2, dtype=numpy.uint64)[0]
    for at in range(whole, len(out)):
        out[at] ^= key[at & 3]
    return memoryview(out)
