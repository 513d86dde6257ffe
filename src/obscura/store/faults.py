"""What can be wrong with a store, each with what to do about it; and how SQLite's errors become one of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from obscura.errors import UserError


class StoreError(UserError):
    """The store cannot be used as it is."""


class StoreCorrupt(StoreError):
    """What was read is not what was written."""


class StoreForeign(StoreError):
    """The store belongs to another network or another program."""


class StoreNewer(StoreError):
    """A later version of the program wrote the store."""


class StoreReadOnly(StoreError):
    """The place cannot be written to."""


class StoreFull(StoreError):
    """There is no room left, or nothing can be written for a reason that looks the same. Everything acknowledged is safe."""


class StoreLocked(StoreError):
    """Another process uses the store."""


def full(path: Path) -> StoreFull:
    """There is no room on the disk, or in the quota."""
    return StoreFull(
        f"no room to write {path}: free space on that disk (or raise its quota), or set prune, then start again"
    )


def unwritten(path: Path, why: str) -> StoreFull:
    """The system took no bytes, and SQLite does not pass on why: a quota or a limit on files, or a disk that fails."""
    return StoreFull(
        f"no room to write {path}, or its disk fails ({why}): free space on that disk (or raise its quota or the limit on "
        "file sizes), or set prune, then start again; if there is room, look at the system's log and replace the disk"
    )


def corrupt(path: Path, what: str) -> StoreCorrupt:
    """The file is not what was written."""
    return StoreCorrupt(
        f"{path} is damaged ({what}): check the disk, then move the file away and start again; blocks are fetched anew"
    )


def read_only(path: Path, why: str) -> StoreReadOnly:
    """The file or its directory cannot be written."""
    return StoreReadOnly(f"{path} cannot be written ({why}): make it writable for this user or choose another data-dir")


def translated(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> StoreError:
    """The fault behind an error of SQLite, or behind one whose text has parts of a damaged file in it."""
    if isinstance(error, UnicodeDecodeError):
        return corrupt(path, "what is in it is no text")
    name = getattr(error, "sqlite_errorname", None) or ""
    if name == "SQLITE_FULL":
        return full(path)
    if name == "SQLITE_IOERR_WRITE":
        return unwritten(path, str(error))
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ")):
        return corrupt(path, str(error))
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return read_only(path, str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreLocked(f"{path} is in use by another program: end it, then start again")
    return StoreError(f"{path} cannot be used: {error}; look at the disk and the system's log")
