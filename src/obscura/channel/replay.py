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

    Sets outlive their epochs, and flights of an epoch whose set was dropped are refused: a clock that steps forward and back
    again opens no recorded flight. What is furthest from now is dropped, whichever side of it: what a wrong clock has left must
    neither take the place of the present nor count as its past.
    In memory alone: after a restart a flight of the last 20 minutes can be answered once more, with fresh
    keys that its thief cannot use. The raw 32 bytes are hashed, since the map to a point ignores two bits.
    """

    __slots__ = ("_dropped", "_most", "_seen")

    def __init__(self, most: int = REPLAY_ENTRIES) -> None:
        self._seen: dict[int, set[bytes]] = {}
        self._most = most
        self._dropped: list[tuple[int, int]] = []  # spans of epochs whose sets are gone, in order

    def admit(self, representative: bytes, epoch: int, unix: int) -> bool:
        """Whether a flight with this header is new and timely; if so, it is kept. A full set refuses."""
        present = epoch_of(unix)
        if abs(epoch - present) > 1 or any(first <= epoch <= last for first, last in self._dropped):
            return False
        seen = self._seen.setdefault(epoch, set())
        mark = sha256(representative).digest()[:8]
        if mark in seen or len(seen) >= self._most:
            return False
        seen.add(mark)
        if len(self._seen) > REPLAY_KEPT:
            self._drop(max(self._seen, key=lambda kept: abs(kept - present)))
        return True

    def _drop(self, epoch: int) -> None:
        """Forget a set, and remember that. Epochs near each other are one span; of too many the oldest two are."""
        del self._seen[epoch]
        spans: list[tuple[int, int]] = []
        for first, last in sorted([*self._dropped, (epoch, epoch)]):
            if spans and first <= spans[-1][1] + REPLAY_KEPT:
                first, last = spans[-1][0], max(last, spans.pop()[1])
            spans.append((first, last))
        if len(spans) > REPLAY_KEPT:
            spans[:2] = [(spans[0][0], spans[1][1])]
        self._dropped = spans
