"""The chain on the disk: headers, blocks, waiting transactions and small values in one SQLite file (design 12).

Writes return a future that is done when the data is on the disk; a crash at any instant loses nothing
acknowledged, and what is there after it is exactly what the first n writes made. Reads block for as long as
the disk takes and may come from any thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from zlib import crc32

import msgspec

from obscura import limits
from obscura.ledger.chain import UNKNOWN_TIP, Chain
from obscura.ledger.port import ID_BYTES, Ledger
from obscura.store import schema
from obscura.store.faults import StoreCorrupt, StoreError, StoreLocked, corrupt, full, read_only, translated
from obscura.store.writer import Writer

FILE_NAME = "chain.sqlite"
LOCK_NAME = "chain.lock"
_NO_SPACE = (28, 122, 27)  # ENOSPC, EDQUOT, EFBIG


class StoredTransaction(msgspec.Struct, frozen=True):
    """A transaction of the mempool that outlives a restart."""

    id: bytes
    raw: bytes
    arrival: float  # unix seconds
    own: bool


class Progress(msgspec.Struct, frozen=True):
    """How far a verification is."""

    done: int  # blocks
    total: int
    damaged: bytes | None  # id of the block just looked at, if it is not what was written


class Store:
    """One network's chain in one directory. One process at a time; ``close`` or ``with`` ends it."""

    def __init__(self, path: Path, lock: IO[str], connection: sqlite3.Connection, prune: int | None) -> None:
        """Use ``Store.open``."""
        self.path = path
        self._lock_file = lock
        self._prune = prune
        self._connection = connection  # the writer's alone, from here on
        self._body_bytes = self._stored_body_bytes = _number(schema.get(connection, "body-bytes"))
        self._pending: dict[bytes, bytes] = {}
        self._damaged: set[bytes] = set()  # bodies that were read and are not what was written
        self.forgotten: tuple[bytes, ...] = ()  # damaged ones that opening with ``repair`` dropped
        self._reads = schema.connect(path)
        self._reads_lock = threading.Lock()
        tip = self.tip()
        self._tip_height = tip[1] if tip else -1
        self._writer = Writer(connection, path, self._before_commit)  # its thread begins, so nothing may fail after it

    @classmethod
    def open(cls, directory: Path, network_id: bytes, prune: int | None = None, repair: bool = False) -> Store:
        """Open or make the store of a network in ``directory``.

        ``prune``: bytes of block bodies to keep at most; the newest ``limits.KEPT_BLOCKS`` heights stay in
        any case. After a crash the newest bodies are read again; a damaged one is a ``StoreCorrupt``, or with
        ``repair`` it is forgotten, to be fetched anew. Raises a child of ``StoreError`` that says what to do.
        """
        path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _close_to_others(path)
            lock = _lock(directory / LOCK_NAME)
        except OSError as error:
            raise (full(path) if error.errno in _NO_SPACE else read_only(path, str(error.strerror))) from None
        connection = None
        try:
            connection = schema.connect(path)
            schema.prepare(connection, path, network_id)
            forgotten: tuple[bytes, ...] = ()
            if schema.get(connection, "clean") != b"\1":
                forgotten = tuple(_check_newest(connection, path, repair))
            schema.put(connection, "clean", b"\0")
            store = cls(path, lock, connection, prune)
            store.forgotten = forgotten
            return store
        except (sqlite3.Error, StoreError, UnicodeDecodeError) as error:
            if connection:
                connection.close()
            lock.close()
            raise (error if isinstance(error, StoreError) else translated(error, path)) from None

    def close(self) -> None:
        """Commit what waits, mark the end as clean, let go of the directory. Calling it again does nothing."""
        if self._lock_file.closed:
            return
        self._writer.close()
        try:
            if self._writer.fault is None:
                schema.put(self._connection, "clean", b"\1")
        except sqlite3.Error:
            pass  # the next start reads the newest bodies again, that is all
        finally:
            with self._reads_lock:  # a start that is given up may still read
                self._reads.close()
            self._connection.close()
            self._lock_file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def fault(self) -> StoreError | None:
        """Why writing ended, if it did: nothing is written any more until the store is opened again."""
        return self._writer.fault

    @property
    def waiting_bytes(self) -> int:
        """Bytes of bodies not on the disk yet: whoever brings more waits while this is large."""
        return self._writer.waiting_bytes

    @property
    def body_bytes(self) -> int:
        """Bytes of all bodies kept."""
        return self._body_bytes

    # --- writing: each future is done when the data is on the disk

    def put_headers(self, headers: Sequence[bytes]) -> Future[None]:
        """Headers that are new, parents before children (what ``Chain.add_all`` returned)."""
        rows = [(header,) for header in headers]
        return self._write(
            lambda c: c.executemany("INSERT INTO headers (header) VALUES (?)", rows), sum(map(len, headers))
        )

    def put_block(self, block_id: bytes, raw: bytes, height: int) -> Future[None]:
        """A checked block. ``block`` gives it from now on. Known ones change nothing, pruned and damaged ones come back."""
        self._pending[block_id] = raw
        checksum = crc32(raw)

        def write(connection: sqlite3.Connection) -> None:
            row = (block_id, height, len(raw), checksum, raw)
            freed = 0
            if block_id in self._damaged:
                freed = _empty(connection, block_id)
                self._damaged.discard(block_id)
            self._body_bytes += len(raw) * connection.execute(_PUT_BLOCK, row).rowcount - freed

        future = self._write(write, len(raw))
        future.add_done_callback(lambda _: self._pending.pop(block_id, None))
        return future

    def forget_blocks(self, ids: Iterable[bytes]) -> Future[None]:
        """Drop blocks as if they had never come, so that they are fetched again."""
        wanted = list(ids)

        def write(connection: sqlite3.Connection) -> None:
            for block_id in wanted:
                self._body_bytes -= _forget(connection, block_id)

        return self._write(write)

    def refuse(self, block_id: bytes) -> Future[None]:
        """Remember that a block can never be valid."""
        return self._write(lambda c: c.execute("INSERT OR IGNORE INTO refused VALUES (?)", (block_id,)))

    def set_tip(self, block_id: bytes, height: int) -> Future[None]:
        """The end of the best chain. Pruning counts from it."""

        def write(connection: sqlite3.Connection) -> None:
            schema.put(connection, "tip", block_id + height.to_bytes(8, "little"))
            self._tip_height = height

        return self._write(write)

    def put_transactions(self, transactions: Iterable[StoredTransaction]) -> Future[None]:
        """Transactions of the mempool."""
        rows = [(t.id, t.raw, t.arrival, t.own) for t in transactions]
        sql = "INSERT OR REPLACE INTO transactions VALUES (?, ?, ?, ?)"
        return self._write(lambda c: c.executemany(sql, rows), sum(len(row[1]) for row in rows))

    def drop_transactions(self, ids: Iterable[bytes]) -> Future[None]:
        """Transactions that are no longer waiting."""
        rows = [(transaction_id,) for transaction_id in ids]
        return self._write(lambda c: c.executemany("DELETE FROM transactions WHERE id = ?", rows))

    def put(self, key: str, value: bytes | None) -> Future[None]:
        """A small value of another part, under ``part/name``; ``None`` removes it."""
        name = _foreign_key(key)
        return self._write(lambda c: schema.put(c, name, value))

    def flush(self) -> Future[None]:
        """Done when everything written before is on the disk."""
        return self._write(lambda _: None)

    # --- reading: what is committed, and bodies that still wait

    def load_chain(self, ledger: Ledger) -> Chain:
        """The header tree as it was stored. Raises ``StoreCorrupt`` for headers that nobody can have put.

        A tip that no header has costs nothing: the work of the blocks says which it is, and the next one is put in its place.
        """
        chain = Chain(ledger)
        bodies = {row[0] for row in self._read("SELECT id FROM blocks")}
        refused = [row[0] for row in self._read("SELECT id FROM refused")]
        tip = self.tip()
        fault = chain.restore(self.headers(), bodies.__contains__, refused, tip and tip[0])
        if fault is not None and fault is not UNKNOWN_TIP:
            raise corrupt(self.path, f"a header: {fault.reason}")
        return chain

    def headers(self) -> Iterator[bytes]:
        """All headers in the order in which they were put."""
        last = 0
        while rows := self._read("SELECT seq, header FROM headers WHERE seq > ? ORDER BY seq LIMIT 5000", last):
            for seq, header in rows:
                last = self._behind(last, seq)
                yield self._as_written(header, "a header")

    def block(self, block_id: bytes) -> bytes | None:
        """A block's bytes, ``None`` if they are not there (never put, or pruned). Raises ``StoreCorrupt``."""
        waiting = self._pending.get(block_id)
        if waiting is not None:
            return waiting
        rows = self._read("SELECT checksum, raw FROM blocks WHERE id = ? AND size > 0", block_id)
        if not rows:
            return None
        checksum, raw = rows[0]
        if not _is_intact(raw, checksum):
            self._damaged.add(block_id)
            raise _damaged(self.path, block_id)
        return bytes(raw)

    def is_damaged(self, block_id: bytes) -> bool:
        """Whether its body was read here and is not what was written: ``put_block`` mends it."""
        return block_id in self._damaged

    def has_block(self, block_id: bytes) -> bool:
        """Whether ``block`` would give it."""
        if block_id in self._pending:
            return True
        return bool(self._read("SELECT 1 FROM blocks WHERE id = ? AND size > 0", block_id))

    def tip(self) -> tuple[bytes, int] | None:
        """Id and height given to ``set_tip`` last."""
        rows = self._read("SELECT value FROM meta WHERE key = 'tip'")
        if not rows:
            return None
        value = self._as_written(rows[0][0], "the tip")
        return value[:ID_BYTES], _number(value[ID_BYTES:])

    def transactions(self) -> list[StoredTransaction]:
        """The mempool as stored, in order of arrival."""
        rows = self._read("SELECT id, raw, arrival, own FROM transactions ORDER BY arrival, rowid")
        if not all(isinstance(arrival, float) for _, _, arrival, _ in rows):
            raise corrupt(self.path, "the time of a transaction")
        what = "a transaction"
        return [
            StoredTransaction(self._as_written(i, what), self._as_written(raw, what), arrival, bool(own))
            for i, raw, arrival, own in rows
        ]

    def get(self, key: str) -> bytes | None:
        """A value given to ``put``."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", _foreign_key(key))
        return rows[0][0] if rows else None

    def verify(self, is_sound: Callable[[bytes, bytes], bool] = lambda block_id, raw: True) -> Iterator[Progress]:
        """Read every body again: its checksum, and what ``is_sound(id, raw)`` says. One ``Progress`` for each."""
        ((total,),) = self._read("SELECT count(*) FROM blocks WHERE size > 0")
        last = done = 0
        while rows := self._read(_NEXT_BODY, last):
            seq, block_id, checksum, raw = rows[0]
            last = self._behind(last, seq)
            done += 1
            sound = _is_intact(raw, checksum) and is_sound(block_id, raw)
            if not sound:
                self._damaged.add(block_id)
            yield Progress(done, max(done, total), None if sound else block_id)

    # --- inside

    def _write(self, operation: Callable[[sqlite3.Connection], object], size: int = 0) -> Future[None]:
        def run(connection: sqlite3.Connection) -> None:
            operation(connection)

        return self._writer.submit(run, size)

    def _read(self, sql: str, *parameters: bytes | int | str) -> list[Any]:
        try:
            with self._reads_lock:
                return self._reads.execute(sql, parameters).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise translated(error, self.path) from None

    def _behind(self, last: int, seq: int) -> int:
        """The number of a row that was asked for as one behind ``last``. Where it is not, reading on would never end."""
        if seq <= last:
            raise corrupt(self.path, "rows are not in their order")
        return seq

    def _as_written(self, value: object, what: str) -> bytes:
        """Bytes were put there. SQLite checks no types: a flipped bit makes a number or nothing of them."""
        if not isinstance(value, bytes):
            raise corrupt(self.path, f"{what} is not what was written")
        return value

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        if self._prune is not None:
            self._drop_old(connection, self._prune)
            _shorten(connection)
        if self._body_bytes != self._stored_body_bytes:
            schema.put(connection, "body-bytes", self._body_bytes.to_bytes(8, "little"))
            self._stored_body_bytes = self._body_bytes

    def _drop_old(self, connection: sqlite3.Connection, target: int) -> None:
        """Lowest heights first; the freed pages take the next bodies, so the file stops growing."""
        if self._body_bytes <= target:
            return
        newest = self._tip_height - limits.KEPT_BLOCKS
        for _ in range(limits.STORE_PRUNED_PER_COMMIT):
            row = connection.execute(_OLDEST_BODY, (newest,)).fetchone()
            if row is None or self._body_bytes <= target:
                break
            connection.execute("UPDATE blocks SET raw = NULL, size = 0 WHERE seq = ?", (row[0],))
            self._body_bytes -= row[1]


_PUT_BLOCK = """
INSERT INTO blocks (id, height, size, checksum, raw) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
size = excluded.size, checksum = excluded.checksum, raw = excluded.raw WHERE size = 0
"""
_OLDEST_BODY = "SELECT seq, size FROM blocks WHERE size > 0 AND height <= ? ORDER BY height LIMIT 1"
_NEXT_BODY = "SELECT seq, id, checksum, raw FROM blocks WHERE seq > ? AND size > 0 ORDER BY seq LIMIT 1"
_NEWEST_BODIES = "SELECT id, checksum, raw FROM blocks WHERE size > 0 ORDER BY seq DESC LIMIT ?"


def _shorten(connection: sqlite3.Connection) -> None:
    """Give the disk back, step by step, what pruning freed and the next bodies will not need."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free > limits.STORE_FREE_PAGES:
        for _ in range(limits.STORE_FREE_PAGES // 4):
            connection.execute("PRAGMA incremental_vacuum(1)")  # the module takes one step per call, so one page


def _close_to_others(path: Path) -> None:
    """The file and its logs, made by SQLite with its mode, are the owner's: they say which transactions are own ones."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if each.exists() and each.stat().st_mode & 0o077 and each.stat().st_uid == os.geteuid():
            each.chmod(0o600)


def _lock(path: Path) -> IO[str]:
    """Hold the directory until the file is closed or the process ends. Raises ``StoreLocked``, ``OSError``."""
    file = open(path, "a+", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise StoreLocked(f"{path.parent} is in use by process {holder}: end it, or choose another data-dir") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _check_newest(connection: sqlite3.Connection, path: Path, repair: bool) -> list[bytes]:
    """Read the newest bodies again after a crash; the damaged ones, which are forgotten."""
    forgotten = []
    rows = connection.execute(_NEWEST_BODIES, (limits.STORE_CHECKED_BLOCKS,)).fetchall()
    for block_id, checksum, raw in rows:
        if _is_intact(raw, checksum):
            continue
        if not repair:
            raise _damaged(path, block_id)
        left = _number(schema.get(connection, "body-bytes")) - _forget(connection, block_id)
        schema.put(connection, "body-bytes", max(left, 0).to_bytes(8, "little"))
        forgotten.append(block_id)
    return forgotten


def _empty(connection: sqlite3.Connection, block_id: bytes) -> int:
    """Take a damaged body out of its row; the size it had. 0: the file's structure does not allow it, and nothing changes."""
    row = connection.execute("SELECT size FROM blocks WHERE id = ?", (block_id,)).fetchone()
    connection.execute("SAVEPOINT emptied")
    freed = int(row[0]) if row else 0
    try:
        connection.execute("UPDATE blocks SET raw = NULL, size = 0 WHERE id = ?", (block_id,))
    except sqlite3.DatabaseError as error:
        if not (getattr(error, "sqlite_errorname", None) or "").startswith("SQLITE_CORRUPT"):
            raise  # a full disk, say: what the writer has to hear of
        connection.execute("ROLLBACK TO emptied")
        freed = 0
    connection.execute("RELEASE emptied")
    return freed


def _forget(connection: sqlite3.Connection, block_id: bytes) -> int:
    """Drop a block; the size its body had."""
    row = connection.execute("SELECT size FROM blocks WHERE id = ?", (block_id,)).fetchone()
    connection.execute("DELETE FROM blocks WHERE id = ?", (block_id,))
    return int(row[0]) if row else 0


def _is_intact(raw: object, checksum: object) -> bool:
    return isinstance(raw, bytes) and crc32(raw) == checksum


def _damaged(path: Path, block_id: bytes) -> StoreError:
    return StoreCorrupt(
        f"{path} is damaged (block {block_id[::-1].hex()} is not what was written): check the disk; "
        "a node that runs asks its peers for it anew"
    )


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw or b"", "little")


def _foreign_key(key: str) -> str:
    if "/" not in key:
        raise ValueError("a key is part/name: bare names are the store's own")
    return key
