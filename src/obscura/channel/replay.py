"""Recorded first flights are not answered twice (design 6, Flights): the cache of representatives seen per
epoch.
"""

from __future__ import annotations

from hashlib import sha256

from obscura.limits import EPOCH_S, REPLAY_ENTRIES, REPLAY_KEPT


def epoch_of(unix: int) -> int:
    """The replay epoch of a unix time in seconds."""
    return unix // EPOCH_S


class ReplayCache:
    """One set of SHA256(R)[:8] per header epoch; flights of the epochs -1, 0 and +1 around now are taken.

    Sets outlive their epochs, and what is as old as a set that was dropped is refused: a clock that steps forward and back again
    opens no recorded flight.
    In memory alone: after a restart a flight of the last 20 minutes can be answered once more, with fresh
    keys that its thief cannot use. The raw 32 bytes are hashed, since the map to a point ignores two bits.
    """

    __slots__ = ("_dropped", "_most", "_seen")

    def __init__(self, most: int = REPLAY_ENTRIES) -> None:
        self._seen: dict[int, set[bytes]] = {}
        self._most = most
        self._dropped = -1  # the newest epoch whose set is gone

    def admit(self, representative: bytes, epoch: int, unix: int) -> bool:
        """Whether a flight with this header is new and timely; if so, it is kept. A full set refuses."""
        if abs(epoch - epoch_of(unix)) > 1 or epoch <= self._dropped:
            return False
        seen = self._seen.setdefault(epoch, set())
        mark = sha256(representative).digest()[:8]
        if mark in seen or len(seen) >= self._most:
            return False
        seen.add(mark)
        if len(self._seen) > REPLAY_KEPT:
            self._dropped = min(self._seen)
            del self._seen[self._dropped]
        return True
