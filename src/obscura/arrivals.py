"""Whether something long keeps coming over a link (design 10): whom that is true of is slow, and not silent."""

from __future__ import annotations

from obscura.channel.records import Opener
from obscura.limits import ARRIVING, CELL
from obscura.linkevents import Arriving
from obscura.wire.frame import FrameDecoder


class Arrivals:
    """Counts bytes of frames, and tells once in a while that they come: ``ARRIVING``.

    Security: dummies and padding are nothing that comes, else one header and a dummy now and then would be waited for without
    end. Of a record that is not complete nobody can know; what is there of one counts behind one that was mostly frames.
    """

    __slots__ = ("_ahead", "_came", "_told_at", "_was_full")

    def __init__(self) -> None:
        self._came = 0  # bytes of something long, since it was told
        self._ahead = 0  # those among them that are of a record which is not complete
        self._was_full = False  # the last record was mostly frames
        self._told_at: float | None = None

    def read(self, frames: int, size: int) -> None:
        """A record of ``size`` bytes is complete, ``frames`` of them of frames."""
        self._came = max(0, self._came + frames - self._ahead)
        self._ahead, self._was_full = 0, 2 * frames >= size

    def told(self, opener: Opener | None, decoder: FrameDecoder, now: float) -> tuple[Arriving, ...]:
        """A chunk was read: if a frame lacks some yet, or more than a cell is held of a record, that something comes."""
        coming, held = decoder.coming, 0 if opener is None else opener.held
        if coming is None and held <= CELL:
            self._came = self._ahead = 0
            return ()
        if self._was_full:
            self._came, self._ahead = self._came + held - self._ahead, held
        if self._told_at is None:
            self._told_at = now
        enough, least_s = ARRIVING
        if self._came < enough or now < self._told_at + least_s:
            return ()
        self._came, self._told_at = 0, now
        return (Arriving(coming or ""),)
