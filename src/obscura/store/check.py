"""A look at a store's structure from outside: read-only, beside a node that writes to it."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from obscura.store.sqlite import FILE_NAME

_STEPS = 100_000  # instructions of SQLite's machine between looks at the clock


class Checked(NamedTuple):
    """What came of it. ``is_complete`` False: the time was over before everything was read."""

    fault: str | None
    size: int  # bytes, with what is not moved from the write-ahead log to the file yet
    is_complete: bool = True


def check_structure(directory: Path, seconds: float) -> Checked | None:
    """SQLite's quick check of a directory's store; None if there is no store. Blocks for at most about ``seconds``.

    It does not look into blocks (`obscura chain verify` does).
    """
    path = directory / FILE_NAME
    if not path.exists():
        return None
    log = path.with_name(f"{FILE_NAME}-wal")
    size = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    end = time.monotonic() + seconds
    try:
        connection = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, timeout=1.0)
    except sqlite3.Error as error:
        return Checked(f"{path} cannot be opened: {error}", size)
    try:
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return Checked(None, size, is_complete=False)
        return Checked(f"{path} cannot be read: {error}", size)
    except sqlite3.Error as error:
        return Checked(f"{path} is damaged: {error}", size)
    except UnicodeDecodeError:  # what SQLite says has parts of the file in it
        return Checked(f"{path} is damaged: what is in it is no text", size)
    finally:
        connection.close()
    return Checked(None if said == "ok" else f"{path} is damaged: {str(said).splitlines()[0]}", size)
