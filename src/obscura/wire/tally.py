"""How many frames of each type passed, and their bytes; private types are never counted by name."""

from __future__ import annotations

from typing import NamedTuple

Tally = dict[bytes, list[int]]  # padded name -> frames, bytes with their headers
OTHER = b"other"  # unknown and malformed frames: a peer chooses their names


class Tallies(NamedTuple):
    """Both directions, of a link alone or of all links of a node: each of a thousand links on its own would hold 2 KiB."""

    sent: Tally
    received: Tally


def count(tally: Tally, name: bytes, size: int, frames: int = 1) -> None:
    """Count frames of one type, ``size`` bytes in all with their headers."""
    seen = tally.get(name)
    if seen is None:
        tally[name] = [frames, size]
    else:
        seen[0] += frames
        seen[1] += size
