"""How many frames of each type passed, and their bytes; private types are never counted by name."""

from __future__ import annotations

from obscura.limits import HEADER_BYTES

Tally = dict[bytes, list[int]]  # padded name -> frames, bytes with their headers
OTHER = b"other"  # unknown and malformed frames: a peer chooses their names


def count(tally: Tally, name: bytes, payload_bytes: int) -> None:
    """Count one frame."""
    seen = tally.get(name)
    if seen is None:
        tally[name] = [1, HEADER_BYTES + payload_bytes]
    else:
        seen[0] += 1
        seen[1] += HEADER_BYTES + payload_bytes


def add(total: Tally, part: Tally) -> None:
    """Add one tally to another."""
    for name, (frames, size) in part.items():
        seen = total.setdefault(name, [0, 0])
        seen[0] += frames
        seen[1] += size
