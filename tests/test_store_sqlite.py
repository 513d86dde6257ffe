"""The store: what was written is there, in this process and the next; pruning; verification."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from concurrent.futures import wait
from pathlib import Path

import pytest

from obscura import limits
from obscura.ledger.chain import Chain
from obscura.store.faults import StoreCorrupt, StoreError
from obscura.store.sqlite import FILE_NAME, LOCK_NAME, Store, StoredTransaction
from small_chains import easy_ledger, extend, mined_block

NETWORK = b"\7" * 32
LEDGER = easy_ledger()
RNG = random.Random(1)


def block_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


def fill(store: Store, numbers: range, size: int = 1000) -> dict[bytes, bytes]:
    """Random bodies, one for each height; done when they are on the disk."""
    bodies = {block_id(n): RNG.randbytes(size) for n in numbers}
    done = [store.put_block(i, raw, n) for n, (i, raw) in zip(numbers, bodies.items(), strict=True)]
    for future in done:
        future.result()
    return bodies


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    waiting = [StoredTransaction(block_id(n), b"raw %d" % n, 100.5 - n, n == 2) for n in range(3)]
    with Store.open(tmp_path, NETWORK) as store:
        assert store.tip() is None
        bodies = fill(store, range(5))
        store.put_headers([b"first", b"second"])
        store.put_headers([b"third"])
        store.refuse(b"bad").result()
        store.set_tip(block_id(4), 4)
        store.put_transactions(waiting)
        store.drop_transactions([waiting[1].id])
        store.put("peers/book", b"\0\1")
        store.put("peers/none", b"gone")
        store.put("peers/none", None)
        store.flush().result()
    with Store.open(tmp_path, NETWORK) as store:
        assert list(store.headers()) == [b"first", b"second", b"third"]
        assert all(store.block(i) == raw and store.has_block(i) for i, raw in bodies.items())
        assert (store.block(b"?" * 32), store.has_block(b"?" * 32)) == (None, False)
        assert store.tip() == (block_id(4), 4)
        assert store.transactions() == [waiting[2], waiting[0]]
        assert (store.get("peers/book"), store.get("peers/none")) == (b"\0\1", None)
        assert store.body_bytes == 5000


def test_the_files_are_the_owners_alone_those_of_earlier_versions_too(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        for _ in range(2):
            with Store.open(tmp_path, NETWORK):
                modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("chain.*")}
            names = (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", LOCK_NAME)
            assert modes == dict.fromkeys(names, 0o600)
            (tmp_path / FILE_NAME).chmod(0o644)
    finally:
        os.umask(umask)


def test_a_block_is_there_before_it_is_on_the_disk(tmp_path: Path) -> None:
    with Store.open(tmp_path, NETWORK) as store:
        future = store.put_block(block_id(1), b"body", 1)
        assert store.block(block_id(1)) == b"body"
        assert store.has_block(block_id(1))
        future.result()
        assert store.block(block_id(1)) == b"body"
        store.flush().result()
        assert store.waiting_bytes == 0


def test_the_same_block_twice_counts_once(tmp_path: Path) -> None:
    with Store.open(tmp_path, NETWORK) as store:
        wait([store.put_block(block_id(1), b"body", 1) for _ in range(3)])
        assert store.body_bytes == 4
        store.forget_blocks([block_id(1), block_id(2)]).result()
        assert (store.body_bytes, store.has_block(block_id(1))) == (0, False)


def test_the_chain_comes_back(tmp_path: Path) -> None:
    chain = Chain(LEDGER)
    ids = extend(LEDGER, chain, chain.genesis, 12)
    side = extend(LEDGER, chain, ids[3], 3, salt=1)
    with Store.open(tmp_path, NETWORK) as store:
        store.put_headers([chain.header(i) for i in ids + side])
        for i in ids[:7]:
            chain.received(i)
            store.put_block(i, b"body", chain.height(i))
        chain.refuse(side[1])
        store.refuse(side[1])
    with Store.open(tmp_path, NETWORK) as store:
        again = store.load_chain(LEDGER)
    assert (again.best, again.tip, len(again)) == (chain.best, chain.tip, len(chain))
    assert again.missing(100) == chain.missing(100) == ids[7:]
    assert [again.is_bad(i) for i in side] == [False, True, True]


def test_many_headers_come_in_order(tmp_path: Path) -> None:
    headers = [n.to_bytes(80, "big") for n in range(12_001)]
    with Store.open(tmp_path, NETWORK) as store:
        store.put_headers(headers).result()
        assert list(store.headers()) == headers


def test_pruning_keeps_headers_and_the_newest_heights(tmp_path: Path) -> None:
    count = limits.KEPT_BLOCKS + 60
    with Store.open(tmp_path, NETWORK, prune=10_000) as store:
        store.put_headers([n.to_bytes(80, "big") for n in range(count)])
        bodies = fill(store, range(count))
        assert store.body_bytes == 1000 * count, "nothing goes before there is a tip to count from"
        store.set_tip(block_id(count - 1), count - 1).result()
        store.flush().result()
        kept = [store.has_block(i) for i in bodies]
        assert kept == [False] * 60 + [True] * limits.KEPT_BLOCKS
        assert store.body_bytes == 1000 * limits.KEPT_BLOCKS
        assert len(list(store.headers())) == count
        assert store.block(block_id(0)) is None
    with Store.open(tmp_path, NETWORK) as store:
        store.put_block(block_id(0), bodies[block_id(0)], 0).result()
        assert store.block(block_id(0)) == bodies[block_id(0)], "what was pruned may come back"
    with Store.open(tmp_path, NETWORK) as store:
        assert store.body_bytes == 1000 * (limits.KEPT_BLOCKS + 1)


def test_pruned_blocks_still_count_as_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEPT_BLOCKS", 2)
    chain = Chain(LEDGER)
    ids = extend(LEDGER, chain, chain.genesis, 6)
    with Store.open(tmp_path, NETWORK, prune=1) as store:
        store.put_headers([chain.header(i) for i in ids])
        for height, i in enumerate(ids, 1):
            store.put_block(i, b"body", height)
        store.set_tip(ids[-1], 6).result()
        store.flush().result()
        assert [store.has_block(i) for i in ids] == [False] * 4 + [True] * 2
        assert store.load_chain(LEDGER).tip == ids[-1]


def test_a_pruned_file_stops_growing_and_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEPT_BLOCKS", 2)
    monkeypatch.setattr(limits, "STORE_FREE_PAGES", 16)
    path = tmp_path / FILE_NAME
    with Store.open(tmp_path, NETWORK) as store:
        fill(store, range(60), 200_000)
    large = path.stat().st_size
    assert large > 12_000_000
    with Store.open(tmp_path, NETWORK, prune=1_000_000) as store:
        for height in range(60, 160):
            fill(store, range(height, height + 1), 200_000)
            store.set_tip(block_id(height), height).result()
        assert store.body_bytes <= 1_200_000
    assert path.stat().st_size < large / 3


def test_verification_names_what_is_damaged(tmp_path: Path) -> None:
    chain = Chain(LEDGER)
    raw = mined_block(LEDGER, chain, chain.genesis)
    good = LEDGER.block_id(raw[:80])
    with Store.open(tmp_path, NETWORK) as store:
        fill(store, range(3))
        store.put_block(good, raw, 3).result()
    damage(tmp_path, block_id(1))
    with Store.open(tmp_path, NETWORK) as store:
        progress = list(store.verify())
        assert [(p.done, p.total, p.damaged) for p in progress] == [
            (1, 4, None), (2, 4, block_id(1)), (3, 4, None), (4, 4, None),
        ]  # fmt: skip
        with pytest.raises(StoreCorrupt, match=f"block {block_id(1)[::-1].hex()} is not what was written"):
            store.block(block_id(1))
        sound = [p.damaged for p in store.verify(lambda i, body: LEDGER.block_id(body[:80]) == i)]
        assert sound == [block_id(0), block_id(1), block_id(2), None]


def damage(directory: Path, identity: bytes) -> None:
    """Change a body as a failing disk would: without the checksum."""
    connection = sqlite3.connect(directory / FILE_NAME)
    connection.execute("UPDATE blocks SET raw = zeroblob(size) WHERE id = ?", (identity,))
    connection.commit()
    connection.close()


def mark_crashed(directory: Path) -> None:
    connection = sqlite3.connect(directory / FILE_NAME)
    connection.execute("UPDATE meta SET value = x'00' WHERE key = 'clean'")
    connection.commit()
    connection.close()


def test_after_a_crash_the_newest_bodies_are_read_again(tmp_path: Path) -> None:
    count = limits.STORE_CHECKED_BLOCKS + 1
    with Store.open(tmp_path, NETWORK) as store:
        fill(store, range(count))
    damage(tmp_path, block_id(0))
    mark_crashed(tmp_path)
    Store.open(tmp_path, NETWORK).close()  # the oldest is not among the newest
    damage(tmp_path, block_id(count - 2))
    Store.open(tmp_path, NETWORK).close()  # it ended cleanly
    mark_crashed(tmp_path)
    with pytest.raises(StoreCorrupt, match="asks its peers for it anew"):
        Store.open(tmp_path, NETWORK)
    with Store.open(tmp_path, NETWORK, repair=True) as store:
        assert store.forgotten == (block_id(count - 2),)
        assert not store.has_block(block_id(count - 2))
        assert store.body_bytes == 1000 * (count - 1)
        fill(store, range(count - 2, count - 1))
    Store.open(tmp_path, NETWORK).close()


def test_a_damaged_body_is_taken_anew_and_nothing_else_changes(tmp_path: Path) -> None:
    with Store.open(tmp_path, NETWORK) as store:
        bodies = list(fill(store, range(3)).values())
    damage(tmp_path, block_id(1))
    with Store.open(tmp_path, NETWORK) as store:
        store.put_block(block_id(1), bodies[1], 1).result()
        with pytest.raises(StoreCorrupt):
            store.block(block_id(1))  # nobody knew of the damage: a block that is known changes nothing
        assert store.is_damaged(block_id(1))
        store.put_block(block_id(1), bodies[1], 1).result()
        assert not store.is_damaged(block_id(1))
        assert [store.block(block_id(n)) for n in range(3)] == bodies
        assert [p.damaged for p in store.verify()] == [None] * 3
        assert store.body_bytes == sum(map(len, bodies))
    with Store.open(tmp_path, NETWORK) as store:
        assert store.body_bytes == sum(map(len, bodies))


def test_closing_commits_and_is_final(tmp_path: Path) -> None:
    store = Store.open(tmp_path, NETWORK)
    futures = [store.put_block(block_id(n), RNG.randbytes(50_000), n) for n in range(50)]
    store.close()
    store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreError, match="closed"):
        store.put_block(block_id(99), b"late", 99).result()


def test_batches_are_bounded_and_order_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_BATCH_BYTES", 5_000)
    order: list[int] = []
    with Store.open(tmp_path, NETWORK) as store:
        for number in range(200):
            future = store.put_block(block_id(number), RNG.randbytes(1000), number)
            future.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        store.flush().result()
    assert order == list(range(200))


def test_an_operation_that_cannot_be_ends_writing_and_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path, NETWORK) as store:
        store.put_block(block_id(1), b"body", 1).result()
        with pytest.raises(StoreError):
            store.put_block(block_id(2), b"body", 2**70).result()
        assert store.fault is not None
        with pytest.raises(StoreError):
            store.flush().result()
        assert store.block(block_id(1)) == b"body"
        assert store.block(block_id(2)) is None


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    Store.open(tmp_path / "deep" / "data", NETWORK).close()
    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700


def test_bare_keys_are_the_stores_own(tmp_path: Path) -> None:
    with Store.open(tmp_path, NETWORK) as store:
        for attempt in (lambda: store.put("tip", b""), lambda: store.get("network")):
            with pytest.raises(ValueError):
                attempt()
        store.flush().result()
