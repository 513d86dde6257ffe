"""The one thread that writes: what waits for it is committed together, and acknowledged when it is on the disk."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from obscura import limits
from obscura.store.faults import StoreError, translated

Operation = Callable[[sqlite3.Connection], None]
_Entry = tuple[Operation, "Future[None]", int]


class Writer:
    """Runs operations in the order of ``submit``, many in one transaction.

    What is on the disk is always what the first n operations made. So the first failure is the last word:
    nothing after it is tried, every later ``submit`` fails with it at once, until the store is opened again.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, at_commit: Operation) -> None:
        self._connection = connection
        self._path = path
        self._at_commit = at_commit  # runs at the end of each transaction, inside it
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self.fault: StoreError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what was submitted and is not committed yet."""
        return self._waiting

    def submit(self, operation: Operation, size: int = 0) -> Future[None]:
        """Done when committed and on the disk; else it holds a ``StoreError``. From any thread."""
        future: Future[None] = Future()
        with self._lock:
            if self._closed or self.fault:
                future.set_exception(self.fault or StoreError(f"{self._path} is closed"))
            else:
                self._waiting += size
                self._queue.put((operation, future, size))
        return future

    def close(self) -> None:
        """Commit what waits and end the thread. The connection stays open."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._next_batch()
            if batch:
                self._commit(batch)

    def _next_batch(self) -> tuple[list[_Entry], bool]:
        """Wait for one entry, then take what else is there, up to a limit. ``True`` with the last one."""
        batch: list[_Entry] = []
        size = 0
        entry = self._queue.get()
        while entry is not None:
            batch.append(entry)
            size += entry[2]
            if size >= limits.STORE_BATCH_BYTES:
                return batch, False
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Entry]) -> None:
        if self.fault is None:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for operation, _, _ in batch:
                    operation(self._connection)
                self._at_commit(self._connection)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._fail(translated(error, self._path))
            except Exception as error:  # an operation's own mistake: whoever waits for it must hear of it
                self._fail(StoreError(f"{self._path} cannot be written: {error!r}"))
        with self._lock:
            self._waiting -= sum(size for _, _, size in batch)
        for _, future, _ in batch:
            if self.fault is None:
                future.set_result(None)
            else:
                future.set_exception(self.fault)

    def _fail(self, fault: StoreError) -> None:
        with self._lock:
            self.fault = fault
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            self._connection.execute("ROLLBACK")
