"""Which autonomous system announces an IP address, from a file in Bitcoin's asmap format.

The file is a program of a binary trie, read bit by bit, the lowest bit of each byte first. It is interpreted for the 128
bits of an IPv6 address (IPv4 as ``::ffff:a.b.c.d``), highest bit first. Instructions, each a variable-length number and its
arguments:

    RETURN   asn          the answer
    JUMP     offset       take one address bit; 1 = skip ``offset`` bits of the program, 0 = go on
    MATCH    pattern      its bits below the highest one are compared with as many address bits; different = the default answer
    DEFAULT  asn          the answer from here on if no other is found

Source: the description in Bitcoin Core's ``util/asmap.cpp``. A number is a class (unary, of growing bit widths) and that many
bits.
"""

from __future__ import annotations

from obscura.errors import UserError
from obscura.limits import ASMAP_BYTES

_RETURN, _JUMP, _MATCH, _DEFAULT = range(4)
_TYPE = (0, (0, 0, 1))
_ASN = (1, (15, 16, 17, 18, 19, 20, 21, 22, 23, 24))
_PATTERN = (2, (1, 2, 3, 4, 5, 6, 7, 8))
_OFFSET = (17, tuple(range(5, 31)))
_ADDRESS_BITS = 128


class AsmapError(UserError):
    """The file is no asmap, or a broken one."""


class Asmap:
    """An asmap program; checked once as a whole, so that no lookup can run astray. Raises ``AsmapError``."""

    def __init__(self, data: bytes) -> None:
        if not 0 < len(data) <= ASMAP_BYTES:
            raise AsmapError(f"an asmap has 1 to {ASMAP_BYTES} bytes, not {len(data)}")
        self._data = data
        self._bits = 8 * len(data)
        self._check()

    def asn(self, address: bytes) -> int:
        """The ASN of 16 bytes of address; 0 = none. Takes at most one step per program bit passed, 128 of them branches."""
        bits = int.from_bytes(address, "big")
        left = _ADDRESS_BITS
        at = default = 0
        while True:
            kind, at = self._number(at, _TYPE)
            if kind == _RETURN:
                return self._number(at, _ASN)[0]
            if kind == _DEFAULT:
                default, at = self._number(at, _ASN)
            elif kind == _JUMP:
                offset, at = self._number(at, _OFFSET)
                left -= 1
                if left < 0:
                    return default
                if bits >> left & 1:
                    at += offset
            else:
                pattern, at = self._number(at, _PATTERN)
                size = pattern.bit_length() - 1
                left -= size
                if left < 0 or (bits >> left) & ((1 << size) - 1) != pattern - (1 << size):
                    return default

    def _number(self, at: int, law: tuple[int, tuple[int, ...]]) -> tuple[int, int]:
        """A number at a bit position and the position behind it. Raises ``AsmapError`` beyond the end."""
        value, classes = law
        for index, width in enumerate(classes):
            is_last = index == len(classes) - 1
            if not is_last:
                more, at = self._bit(at), at + 1
                if more:
                    value += 1 << width
                    continue
            for shift in range(width - 1, -1, -1):
                value += self._bit(at) << shift
                at += 1
            break
        return value, at

    def _bit(self, at: int) -> int:
        if at >= self._bits:
            raise AsmapError("the asmap ends inside an instruction")
        return self._data[at >> 3] >> (at & 7) & 1

    def _check(self) -> None:
        """Every instruction once, in order: jumps go forwards to a place that is reached, all paths end, nothing trails."""
        at = 0
        waiting: list[tuple[int, int]] = []  # targets of jumps, the nearest last, and the address bits left there
        left = _ADDRESS_BITS
        is_reached = True
        while True:
            if not is_reached:
                if not waiting:
                    break
                target, left = waiting.pop()
                if target != at:
                    raise AsmapError("a jump of the asmap does not meet the next branch")
            is_reached = True
            kind, at = self._number(at, _TYPE)
            if kind == _RETURN:
                _, at = self._number(at, _ASN)
                is_reached = False
            elif kind == _DEFAULT:
                _, at = self._number(at, _ASN)
            elif kind == _JUMP:
                offset, at = self._number(at, _OFFSET)
                left -= 1
                if waiting and at + offset >= waiting[-1][0]:
                    raise AsmapError("jumps of the asmap cross each other")
                waiting.append((at + offset, left))
            else:
                pattern, at = self._number(at, _PATTERN)
                left -= pattern.bit_length() - 1
            if left < 0:
                raise AsmapError("the asmap asks for more than the 128 bits of an address")
        if self._bits - at > 7 or any(self._bit(n) for n in range(at, self._bits)):
            raise AsmapError("the asmap goes on behind its end")
