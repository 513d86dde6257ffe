"""Whether something long keeps coming over a link (design 10): whom that is true of is slow, and not silent."""

from __future__ import annotations

from obscura.channel.records import Opener
from obscura.limits import ARRIVING, CELL
from obscura.linkevents import Arriving
from obscura.wire.frame import FrameDecoder


class Arrivals:
    """Counts bytes, and tells once in a while that they do: ``ARRIVING``."""

    __slots__ = ("_came", "_told_at")

    def __init__(self) -> None:
        self._came = 0  # bytes of something long, since it was told
        self._told_at: float | None = None

    def came(self, size: int, opener: Opener | None, decoder: FrameDecoder, now: float) -> tuple[Arriving, ...]:
        """``size`` bytes came and were read: of a frame that lacks some yet, or of a record of which more than a cell is held."""
        coming = decoder.coming
        if coming is None and (opener is None or opener.held <= CELL):
            self._came = 0
            return ()
        self._came += size
        if self._told_at is None:
            self._told_at = now
        enough, least_s = ARRIVING
        if self._came < enough or now < self._told_at + least_s:
            return ()
        self._came, self._told_at = 0, now
        return (Arriving(coming or ""),)
