"""A store that cannot be used says so in one sentence that tells what to do, and loses nothing acknowledged."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from obscura.errors import UserError
from obscura.ledger.chain import Chain
from obscura.limits import STORE_PAGE
from obscura.store import schema
from obscura.store.check import check_structure
from obscura.store.faults import (
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreFull,
    StoreLocked,
    StoreNewer,
    StoreReadOnly,
    translated,
)
from obscura.store.sqlite import FILE_NAME, LOCK_NAME, Store, StoredTransaction
from small_chains import easy_ledger, extend

NETWORK, OTHER = b"\7" * 32, b"\x08" * 32


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with Store.open(tmp_path, NETWORK) as store:
        store.put_block(b"\1" * 32, bytes(200_000), 1).result()
    return tmp_path


def change(directory: Path, sql: str) -> None:
    connection = sqlite3.connect(directory / FILE_NAME)
    connection.execute(sql)
    connection.commit()
    connection.close()


def test_another_networks_store(made: Path) -> None:
    with pytest.raises(StoreForeign, match="another network"):
        Store.open(made, OTHER)
    Store.open(made, NETWORK).close()


def test_another_programs_database(tmp_path: Path) -> None:
    change(tmp_path, "CREATE TABLE songs (title TEXT)")
    with pytest.raises(StoreForeign, match="another program"):
        Store.open(tmp_path, NETWORK)


def test_a_later_versions_store(made: Path) -> None:
    change(made, f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(StoreNewer, match="later version"):
        Store.open(made, NETWORK)


def test_an_older_store_is_brought_forward(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: "CREATE TABLE extra (x)", 2: "INSERT INTO extra VALUES (5); "})
    with Store.open(made, NETWORK) as store:
        assert store._read("SELECT x FROM extra") == [(5,)]
        assert store.block(b"\1" * 32) == bytes(200_000)
    monkeypatch.setattr(schema, "MIGRATIONS", {3: "nonsense"})
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(StoreError):
        Store.open(made, NETWORK)
    monkeypatch.setattr(schema, "VERSION", schema.VERSION - 1)
    Store.open(made, NETWORK).close()  # a migration that failed changed nothing


@pytest.mark.parametrize("content", [b"no database at all", bytes(100_000), b"SQLite format 3\0" + b"\xff" * 5000])
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StoreCorrupt, match="move the file away"):
        Store.open(tmp_path, NETWORK)


def test_pages_overwritten(made: Path) -> None:
    path = made / FILE_NAME
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 32768):
            file.seek(page * 32768)
            file.write(os.urandom(32768))
    with pytest.raises(StoreCorrupt), Store.open(made, NETWORK) as store:
        store.block(b"\1" * 32)


def test_cut_short(made: Path) -> None:
    os.truncate(made / FILE_NAME, (made / FILE_NAME).stat().st_size - 3 * 32768)
    with pytest.raises(StoreCorrupt), Store.open(made, NETWORK) as store:
        store.block(b"\1" * 32)


@pytest.mark.parametrize("place", ["/dev/full", "/dev/null/store", "/proc/obscura-store", "/sys/obscura-store"])
def test_a_place_that_cannot_be_written(place: str) -> None:
    with pytest.raises(StoreReadOnly, match="make it writable"):
        Store.open(Path(place), NETWORK)


def test_the_lock_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(StoreReadOnly):
        Store.open(tmp_path, NETWORK)


def test_the_database_is_no_file(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StoreReadOnly):
        Store.open(tmp_path, NETWORK)


def test_a_database_opened_for_reading_only(made: Path) -> None:
    connection = sqlite3.connect(f"file:{made / FILE_NAME}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("DELETE FROM meta")
    connection.close()
    assert isinstance(translated(caught.value, made), StoreReadOnly)


def test_a_second_process_is_refused_and_told_who_holds_it(made: Path) -> None:
    with Store.open(made, NETWORK):
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            Store.open(made, NETWORK)
        script = f"""if True:
            from pathlib import Path
            from obscura.store.sqlite import Store
            Store.open(Path({str(made)!r}), {NETWORK!r})
        """
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
        assert f"StoreLocked: {made} is in use by process {os.getpid()}" in other.stderr
    Store.open(made, NETWORK).close()


def test_a_full_disk_loses_nothing_acknowledged(made: Path) -> None:
    """SQLite's own limit of pages stands for the disk: the same error reaches us."""
    done = [b"\1" * 32]
    with Store.open(made, NETWORK) as store:
        store._write(lambda c: c.execute("PRAGMA max_page_count = 60").fetchall()).result()
        for number in range(2, 40):
            future = store.put_block(bytes([number]) * 32, bytes([number]) * 100_000, number)
            if future.exception() is not None:
                break
            done.append(bytes([number]) * 32)
        assert isinstance(future.exception(), StoreFull)
        assert isinstance(store.fault, StoreFull)
        assert "free space" in str(store.fault)
        assert isinstance(store.put("a/b", b"small").exception(), StoreFull), "nothing is written after a gap"
        assert all(store.has_block(i) for i in done)
        assert not store.has_block(bytes([number]) * 32)
    with Store.open(made, NETWORK) as store:
        assert all(store.has_block(i) for i in done)
        assert store.get("a/b") is None
        assert store.body_bytes == 200_000 + 100_000 * (len(done) - 1)
        store.put_block(bytes([number]) * 32, b"there is room again", number).result()
    assert 5 < len(done) < 38


CHILD = """
import resource, signal, sys
from pathlib import Path
from obscura.store.sqlite import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with Store.open(Path(sys.argv[1]), b"\\7" * 32) as store:
    for number in range(100):
        store.put_block(number.to_bytes(32, "big"), bytes(100_000), number).result()
        print(number, flush=True)
"""


def test_a_limit_of_the_system_on_file_sizes(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), "3000000"], capture_output=True, text=True, check=False, timeout=60
    )
    assert "StoreFull: no room to write" in ran.stderr
    acknowledged = [int(line) for line in ran.stdout.split()]
    assert 5 < len(acknowledged) < 40
    with Store.open(tmp_path, NETWORK) as store:
        assert all(store.block(n.to_bytes(32, "big")) == bytes(100_000) for n in acknowledged)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_FULL", StoreFull),
        ("SQLITE_IOERR_WRITE", StoreFull),
        ("SQLITE_CORRUPT_INDEX", StoreCorrupt),
        ("SQLITE_NOTADB", StoreCorrupt),
        ("SQLITE_IOERR_SHORT_READ", StoreCorrupt),
        ("SQLITE_READONLY_DBMOVED", StoreReadOnly),
        ("SQLITE_CANTOPEN_ISDIR", StoreReadOnly),
        ("SQLITE_BUSY", StoreLocked),
        ("SQLITE_IOERR_FSYNC", StoreError),
        ("", StoreError),
    ],
)
def test_every_error_becomes_a_sentence_for_the_user(name: str, kind: type[StoreError]) -> None:
    error = sqlite3.OperationalError("what it says")
    error.sqlite_errorname = name
    fault = translated(error, Path("/data/chain.sqlite"))
    assert type(fault) is kind
    assert isinstance(fault, UserError)
    assert str(fault).count("\n") == 0
    assert "/data/chain.sqlite" in str(fault)


def test_a_disk_that_fails_is_not_told_as_full_alone() -> None:
    """SQLite has one code for a quota, a limit on file sizes and a disk that takes nothing."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_WRITE"
    said = str(translated(error, Path("/data/chain.sqlite")))
    assert "or its disk fails (disk I/O error)" in said
    assert "free space" in said
    error.sqlite_errorname = "SQLITE_FULL"
    assert "fails" not in str(translated(error, Path("/data/chain.sqlite")))


HARDER = """
UPDATE headers SET header = CAST(substr(header, 1, 72) || x'ffff7f04' || substr(header, 77) AS BLOB) WHERE seq =
"""
ALTERED = {
    "one inside the chain": f"{HARDER} 2",
    "the last of the chain": f"{HARDER} 4",
    "the last of a branch": f"{HARDER} 5",
    "one that is cut short": "UPDATE headers SET header = substr(header, 1, 79) WHERE seq = 5",
    "one that is gone": "DELETE FROM headers WHERE seq = 2",
}


@pytest.mark.parametrize("how", ALTERED)
def test_altered_headers_are_damage_and_not_another_chain(how: str, tmp_path: Path) -> None:
    ledger = easy_ledger()
    chain = Chain(ledger)
    ids = [*extend(ledger, chain, chain.genesis, 4), *extend(ledger, chain, chain.genesis, 1, salt=1)]
    with Store.open(tmp_path, NETWORK) as store:
        store.put_headers([chain.header(block_id) for block_id in ids])
        for height, block_id in enumerate(ids[:4], 1):
            store.put_block(block_id, b"body", height)
        store.set_tip(ids[3], 4).result()
        assert store.load_chain(ledger).tip == ids[3]
    change(tmp_path, ALTERED[how])
    with Store.open(tmp_path, NETWORK) as store, pytest.raises(StoreCorrupt, match=r"a header: .* move the file away"):
        store.load_chain(ledger)


@pytest.mark.parametrize(
    ("sql", "height"),
    [("UPDATE meta SET value = zeroblob(40) WHERE key = 'tip'", 4), ("DELETE FROM headers WHERE seq = 4", 3)],
)
def test_a_tip_that_no_header_has_costs_nothing(sql: str, height: int, tmp_path: Path) -> None:
    ledger = easy_ledger()
    chain = Chain(ledger)
    ids = extend(ledger, chain, chain.genesis, 4)
    with Store.open(tmp_path, NETWORK) as store:
        store.put_headers([chain.header(block_id) for block_id in ids])
        for at, block_id in enumerate(ids, 1):
            store.put_block(block_id, b"body", at)
        store.set_tip(ids[3], 4).result()
    change(tmp_path, sql)
    with Store.open(tmp_path, NETWORK) as store:
        assert store.load_chain(ledger).tip == ids[height - 1]
        store.put_headers([chain.header(ids[3])] if height == 3 else [])
        store.set_tip(ids[3], 4).result()
    with Store.open(tmp_path, NETWORK) as store:
        assert store.load_chain(ledger).tip == ids[3]


def of_other_kinds(directory: Path, sql: str) -> bytes:
    """A store with one of each; the id of its block and header."""
    ledger = easy_ledger()
    chain = Chain(ledger)
    (block_id,) = extend(ledger, chain, chain.genesis, 1)
    with Store.open(directory, NETWORK) as store:
        store.put_headers([chain.header(block_id)])
        store.put_block(block_id, b"body", 1)
        store.put_transactions([StoredTransaction(b"id", b"raw", 1.0, own=True)])
        store.set_tip(block_id, 1).result()
    change(directory, sql)
    return block_id


def read_all(directory: Path, block_id: bytes) -> None:
    """As a start, a verification and a peer do."""
    with Store.open(directory, NETWORK) as store:
        store.load_chain(easy_ledger())
        store.transactions()
        assert [step.damaged for step in store.verify()] == [block_id]
        store.block(block_id)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE headers SET header = 7",
        "UPDATE meta SET value = 7 WHERE key = 'tip'",
        "UPDATE transactions SET id = 7",
        "UPDATE transactions SET raw = 1.5",
        "UPDATE transactions SET arrival = x'00'",
        "UPDATE blocks SET raw = NULL",
    ],
)
def test_a_value_of_another_kind_is_damage(sql: str, tmp_path: Path) -> None:
    """SQLite keeps the kind of each value beside it, in bits that can flip like others."""
    block_id = of_other_kinds(tmp_path, sql)
    for _ in range(2):  # no lock is left by the first one
        with pytest.raises(StoreCorrupt, match="is damaged"):
            read_all(tmp_path, block_id)


@pytest.mark.parametrize("table", ["headers", "blocks"])
def test_rows_out_of_order_are_damage_and_not_read_for_ever(table: str, tmp_path: Path) -> None:
    ledger = easy_ledger()
    chain = Chain(ledger)
    with Store.open(tmp_path, NETWORK) as store:
        for height, block_id in enumerate(extend(ledger, chain, chain.genesis, 3), 1):
            store.put_headers([chain.header(block_id)])
            store.put_block(block_id, b"body", height)
    raw = bytearray((tmp_path / FILE_NAME).read_bytes())
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    page = (root - 1) * STORE_PAGE
    cell = page + int.from_bytes(raw[page + 12 : page + 14], "big")  # the third one: its size, then its number
    assert raw[cell + 1] == 3
    raw[cell + 1] = 1
    (tmp_path / FILE_NAME).write_bytes(raw)
    with Store.open(tmp_path, NETWORK) as store, pytest.raises(StoreCorrupt, match="is damaged"):
        assert len(list(islice(store.verify() if table == "blocks" else store.headers(), 20))) < 20


def test_bytes_that_became_text_are_the_same_bytes(tmp_path: Path) -> None:
    block_id = of_other_kinds(tmp_path, "UPDATE headers SET header = CAST(header AS TEXT)")
    with Store.open(tmp_path, NETWORK) as store:
        assert store.load_chain(easy_ledger()).best == block_id


def test_a_schema_that_is_no_text_is_damage(made: Path) -> None:
    raw = (made / FILE_NAME).read_bytes()
    (made / FILE_NAME).write_bytes(raw.replace(b"indexbodies", b"indexb\xe7dies"))
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="is damaged"):
            Store.open(made, NETWORK)
    checked = check_structure(made, 5.0)
    assert checked is not None
    assert "is damaged" in (checked.fault or "")
