"""The archive of a simulated node: in memory, with the disk's delays, and losing at a crash what was not acknowledged."""

from __future__ import annotations

from collections.abc import Callable

from obscura.ledger.chain import Chain
from obscura.ledger.port import Ledger
from obscura.node.broadcast import Submission
from obscura.node.effects import Fetch, Keep, Waiting


class MemoryOutbox:
    """The file of own transactions that are not public yet, on the disk when ``keep`` returns."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Submission] = {}

    def keep(self, submission: Submission) -> None:
        self._kept[submission.id] = submission

    def forget(self, id: bytes) -> None:
        self._kept.pop(id, None)

    def kept(self) -> list[Submission]:
        return list(self._kept.values())


class MemoryArchive:
    """What is on one node's disk. Survives the node that wrote it; ``load_chain`` and ``transactions`` start the next one."""

    def __init__(self, ledger: Ledger, *, write_s: float = 0.0, read_s: float = 0.0) -> None:
        self.ledger = ledger
        self.write_s = write_s  # virtual seconds until a write is acknowledged
        self.read_s = read_s
        self.headers: list[bytes] = []
        self.blocks: dict[bytes, bytes] = {}
        self.refused: set[bytes] = set()
        self.tip: tuple[bytes, int] | None = None
        self.transactions: dict[bytes, Waiting] = {}
        self.outbox = MemoryOutbox()
        self._pending: dict[bytes, bytes] = {}
        if ledger.genesis_block:
            self.blocks[ledger.block_id(ledger.genesis)] = ledger.genesis_block

    def load_chain(self) -> Chain:
        """The header tree as it was kept."""
        self._pending.clear()
        chain = Chain(self.ledger)
        chain.restore(self.headers, self.blocks.__contains__, self.refused, self.tip and self.tip[0])
        return chain

    def keep(self, keep: Keep, later: Callable[[float, Callable[[], None]], None], kept: Callable[[int], None]) -> None:
        """Write, ``write_s`` from now."""
        if keep.block is not None:
            self._pending[keep.block[0]] = keep.block[1]

        def write() -> None:
            self._write(keep)
            kept(keep.token)

        later(self.write_s, write)

    def _write(self, keep: Keep) -> None:
        self.headers += keep.headers
        if keep.block is not None:
            block_id, raw, _ = keep.block
            self.blocks[block_id] = raw
            self._pending.pop(block_id, None)
        if keep.refused is not None:
            self.refused.add(keep.refused)
        if keep.tip is not None:
            self.tip = keep.tip
        self.transactions.update({waiting.id: waiting for waiting in keep.transactions})
        for transaction_id in keep.dropped:
            self.transactions.pop(transaction_id, None)

    def fetch(
        self,
        fetch: Fetch,
        later: Callable[[float, Callable[[], None]], None],
        fetched: Callable[[int, bytes | None], None],
    ) -> None:
        """Read, ``read_s`` from now."""
        raw = self._pending.get(fetch.block_id) or self.blocks.get(fetch.block_id)
        later(self.read_s, lambda: fetched(fetch.token, raw))
