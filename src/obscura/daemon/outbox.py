"""Own transactions while they are private: a file of the owner alone, and receipts for whoever submitted them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import msgspec

from obscura.daemon.datadir import DataDir
from obscura.errors import ConfigError, UserError
from obscura.limits import MAX_OWN_BROADCASTS
from obscura.node.broadcast import Receipt, Stage, Submission
from obscura.node.effects import Effect

FILE = "outbox"


class FileOutbox:
    """The file ``outbox`` (0600) of the data directory: gone from it once public. Each change is on the disk when it returns."""

    def __init__(self, folder: DataDir) -> None:
        self._folder = folder
        self._kept: dict[bytes, Submission] = {}
        path = folder.path / FILE
        if path.exists():
            try:
                kept = msgspec.msgpack.decode(path.read_bytes(), type=list[Submission])
            except (OSError, msgspec.MsgspecError) as error:
                raise ConfigError(
                    f"{path} cannot be read: {error}; it holds own transactions that are not public"
                ) from None
            self._kept = {submission.id: submission for submission in kept}

    def keep(self, submission: Submission) -> None:
        """Raises ``UserError`` where the disk does not take it: then it is not kept, nor sent after a restart."""
        before = dict(self._kept)
        self._kept[submission.id] = submission
        try:
            self._write()
        except OSError as error:
            self._kept = before
            raise UserError(f"{self._folder.path / FILE} cannot be written: {error.strerror}") from None

    def forget(self, id: bytes) -> None:
        if self._kept.pop(id, None) is not None:
            with contextlib.suppress(OSError):  # the next change takes it out too; else it is told of once more
                self._write()

    def kept(self) -> list[Submission]:
        return list(self._kept.values())

    def _write(self) -> None:
        self._folder.write(FILE, msgspec.msgpack.encode(list(self._kept.values())))


class Following:
    """The receipts of one own transaction from the first one on: ``async for``. ``id`` in the order of the wire."""

    def __init__(self, receipts: Receipts, id: bytes) -> None:
        self.id = id
        self._receipts = receipts

    async def __aiter__(self) -> AsyncIterator[Receipt]:
        index = 0
        while True:
            for receipt in await self._receipts.after(self.id, index):
                index += 1
                yield receipt
                if receipt.final:
                    return


class Receipts:
    """What was told of own transactions; of the oldest whose last step was told it forgets."""

    def __init__(self) -> None:
        self._told: dict[bytes, list[Receipt]] = {}
        self._changed: dict[bytes, asyncio.Event] = {}
        self._is_over = False

    def close(self) -> None:
        """The node stops, so that no step follows: whoever waits for one hears of it."""
        self._is_over = True
        for changed in self._changed.values():
            changed.set()

    def add(self, receipt: Receipt) -> None:
        """One more step; the first of a transaction that is sent once more begins anew."""
        told = self._told.get(receipt.id)
        if told and (receipt.stage is Stage.QUEUED or told[-1].final):  # public already: it is not queued again
            del self._told[receipt.id]
        self._told.setdefault(receipt.id, []).append(receipt)
        self._changed.setdefault(receipt.id, asyncio.Event()).set()
        if len(self._told) > 2 * MAX_OWN_BROADCASTS:
            over = (id for id, told in self._told.items() if told[-1].final)  # there is one: fewer may be under way
            oldest = next(over, next(iter(self._told)))
            del self._told[oldest]
            self._changed.pop(oldest).set()

    def taken(self, effects: Iterable[Effect]) -> list[Effect]:
        """Keep the receipts among the effects; the others."""
        others: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Receipt):
                self.add(effect)
            else:
                others.append(effect)
        return others

    async def after(self, id: bytes, index: int, timeout_s: float | None = None) -> list[Receipt]:
        """Receipts from ``index`` on, at least one unless the time is over first; behind the last step, that one.

        Raises ``UserError`` for unknown ids, and where the node stopped before the next step.
        """
        if id not in self._told:
            raise UserError("no such transaction was sent by this node since it started")
        while len(self._told.get(id, ())) <= index:
            if id in self._told and self._told[id][-1].final:  # begun anew, and over, while it was followed
                return self._told[id][-1:]
            changed = self._changed.get(id)
            if changed is None:
                return []
            if self._is_over:
                raise UserError("the node stopped before this transaction's last step: its next start goes on with it")
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), timeout_s)
            except TimeoutError:
                return []
        return self._told[id][index:]
