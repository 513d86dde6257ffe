"""A disk that fails: the archive of a simulated node whose writes may end, at the next one or somewhere in the middle."""

from __future__ import annotations

from collections.abc import Callable

from obscura.ledger.port import Ledger
from obscura.node.effects import Keep
from obscura.sim.archive import MemoryArchive


class FailingArchive(MemoryArchive):
    """``fail_after`` more writes reach the disk; then ``on_failure`` is told once and nothing is written any more.

    It stands for a full disk or an error of the device: the store acknowledges nothing from there on, and the daemon ends.
    """

    def __init__(self, ledger: Ledger, *, write_s: float = 0.0, read_s: float = 0.0) -> None:
        super().__init__(ledger, write_s=write_s, read_s=read_s)
        self.fail_after: int | None = None  # None = the disk is well
        self.on_failure: Callable[[], None] = lambda: None

    def keep(self, keep: Keep, later: Callable[[float, Callable[[], None]], None], kept: Callable[[int], None]) -> None:
        if self.fail_after is None:
            super().keep(keep, later, kept)
            return
        if self.fail_after == 0:
            later(self.write_s, self.on_failure)
            return
        self.fail_after -= 1
        super().keep(keep, later, kept)

    def mend(self) -> None:
        """The disk is well again, with what was written."""
        self.fail_after = None
        self.on_failure = lambda: None
