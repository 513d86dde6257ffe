"""The tables, their version, and the way from older ones to them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from obscura import limits
from obscura.store.faults import StoreForeign, StoreNewer

APPLICATION = 0x4F425343  # "OBSC", in the file's header: this is one of ours
VERSION = 1

# Bodies come last in their row, so the other columns are read without them. A pruned block keeps its row, size 0.
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE headers (seq INTEGER PRIMARY KEY, header BLOB NOT NULL);
CREATE TABLE blocks (
    seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, height INTEGER NOT NULL,
    size INTEGER NOT NULL, checksum INTEGER NOT NULL, raw BLOB
);
CREATE INDEX bodies ON blocks (height) WHERE size > 0;
CREATE TABLE refused (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE transactions (id BLOB PRIMARY KEY, raw BLOB NOT NULL, arrival REAL NOT NULL, own INTEGER NOT NULL);
"""

# MIGRATIONS[n] turns version n into n + 1, inside one transaction. One is added with each change of _TABLES.
MIGRATIONS: dict[int, str] = {}


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings that durability and speed depend on. Autocommit: transactions are explicit."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.text_factory = bytes  # one flipped bit makes text of a blob, which is perhaps no UTF-8
    connection.execute(f"PRAGMA page_size = {limits.STORE_PAGE}")  # of a new file; says nothing to an old one
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit returns when the log is on the disk
    connection.execute(f"PRAGMA wal_autocheckpoint = {limits.STORE_CHECKPOINT_PAGES}")
    return connection


def prepare(connection: sqlite3.Connection, path: Path, network_id: bytes) -> None:
    """Make or check the tables. Raises ``StoreForeign``, ``StoreNewer``, ``sqlite3.Error``."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        _run(connection, _TABLES, VERSION, ("network", network_id))
        return
    if application != APPLICATION:
        raise StoreForeign(f"{path} belongs to another program: choose another data-dir")
    if version > VERSION:
        raise StoreNewer(
            f"{path} was written by a later version (schema {version}, this one knows {VERSION}): "
            "use that version, or choose another data-dir"
        )
    stored = get(connection, "network")
    if stored != network_id:
        raise StoreForeign(f"{path} holds the chain of another network: choose another data-dir for this one")
    while version < VERSION:
        _run(connection, MIGRATIONS[version], version + 1)
        version += 1


def _run(connection: sqlite3.Connection, script: str, version: int, *meta: tuple[str, bytes]) -> None:
    """One script and the version it leads to, all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in script.split(";"):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def get(connection: sqlite3.Connection, key: str) -> bytes | None:
    """A value of ``meta``."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def put(connection: sqlite3.Connection, key: str, value: bytes | None) -> None:
    """Set or (``None``) remove a value of ``meta``."""
    if value is None:
        connection.execute("DELETE FROM meta WHERE key = ?", (key,))
    else:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
