"""The rule by which a censor was seen to block fully encrypted traffic, from the first bytes that a client sends.

Wu and others, *How the Great Firewall of China Detects and Blocks Fully Encrypted Traffic* (USENIX Security 2023), algorithm 1: a
connection is blocked unless one of five exemptions holds for its first data packet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FEW_BITS, _MANY_BITS = 3.4, 4.6  # set bits per byte between which data counts as encrypted
_PRINTABLE = re.compile(rb"[\x20-\x7e]")
_LONG_RUN = re.compile(rb"[\x20-\x7e]{21}")  # more than 20 in a row
_PROTOCOL = re.compile(rb"[\x16\x17]\x03[\x00-\x09]|GET |PUT |POST|HEAD", re.DOTALL)


def exemption(first: bytes) -> str | None:
    """Why a connection that begins with these bytes is let through; ``None``: it is blocked."""
    if not first:
        return "nothing was sent"
    density = int.from_bytes(first, "big").bit_count() / len(first)
    if density <= _FEW_BITS or density >= _MANY_BITS:
        return "bits per byte"
    if len(first) >= 6 and len(_PRINTABLE.findall(first[:6])) == 6:
        return "six printable bytes first"
    if len(_PRINTABLE.findall(first)) * 2 > len(first):
        return "mostly printable"
    if _LONG_RUN.search(first):
        return "a run of printable bytes"
    if _PROTOCOL.match(first):
        return "TLS or HTTP"
    return None


def blocked(firsts: Iterable[bytes]) -> int:
    """How many of these connections are blocked."""
    return sum(exemption(first) is None for first in firsts)
