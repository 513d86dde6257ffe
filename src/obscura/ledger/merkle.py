"""The merkle root of a block's ids, and the trap in it (CVE-2012-2459)."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from operator import eq

_EMPTY = bytes(32)


def merkle_root(ids: Iterable[bytes]) -> tuple[bytes, bool]:
    """The root, and whether two equal hashes stood side by side.

    An odd row repeats its last hash, so a list with its tail repeated has the same root as the list itself.
    Two equal neighbours that were *given* mean that: such a body is refused without condemning the header.
    """
    row = list(ids)
    repeated = False
    while len(row) > 1:
        left, right = row[::2], row[1::2]
        repeated = repeated or any(map(eq, left, right))
        if len(left) > len(right):
            right.append(left[-1])
        row = [sha256(sha256(a + b).digest()).digest() for a, b in zip(left, right, strict=True)]
    return (row[0] if row else _EMPTY), repeated
