"""How many frames of each type passed, and their bytes; private types are never counted by name."""

from __future__ import annotations

from typing import NamedTuple

from obscura.limits import HEADER_BYTES

Tally = dict[bytes, list[int]]  # padded name -> frames, bytes with their headers
OTHER = b"other"  # unknown and malformed frames: a peer chooses their names


class Tallies(NamedTuple):
    """Both directions, of a link alone or of all links of a node: each of a thousand links on its own would hold 2 KiB."""

    sent: Tally
    received: Tally


def count(tally: Tally, name: bytes, payload_bytes: int) -> None:
    """Count one frame."""
    seen = tally.get(name)
    if seen is None:
        tally[name] = [1, HEADER_BYTES + payload_bytes]
    else:
        seen[0] += 1
        seen[1] += HEADER_BYTES + payload_bytes
