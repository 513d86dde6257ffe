"""The bridge between the core's ``Keep`` and ``Fetch`` and the store: its writer's thread, one thread that reads, the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

from obscura.ledger.network import display_id
from obscura.ledger.port import Ledger
from obscura.limits import BLOCK_BYTES_WAITING
from obscura.node.effects import DAMAGED, Fetch, Keep, Waiting
from obscura.store.faults import StoreError
from obscura.store.sqlite import Store, StoredTransaction

_ROOM_POLL_S = 0.005
_ASKED_ANEW = "block %s is damaged on the disk: peers are asked for it anew; check the disk"

log = logging.getLogger(__name__)


def write(store: Store, keep: Keep) -> Future[None]:
    """Hand one ``Keep`` to the store, in order; done when all of it is on the disk."""
    last: Future[None] | None = None
    if keep.headers:
        last = store.put_headers(keep.headers)
    if keep.block is not None:
        last = store.put_block(*keep.block)
    if keep.refused is not None:
        last = store.refuse(keep.refused)
    if keep.tip is not None:
        last = store.set_tip(*keep.tip)
    if keep.transactions:
        last = store.put_transactions(StoredTransaction(t.id, t.raw, t.arrival, t.own) for t in keep.transactions)
    if keep.dropped:
        last = store.drop_transactions(keep.dropped)
    return last if last is not None else store.flush()


async def opened(store: Callable[[], Store]) -> Store:
    """The store, opened in a thread, which cancelling does not stop: whoever is cancelled meanwhile leaves it closed again."""
    opening = asyncio.ensure_future(asyncio.to_thread(store))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with contextlib.suppress(StoreError):
            await asyncio.to_thread((await opening).close)
        raise


class ArchiveOwner(Protocol):
    """Who hears of it. All calls come on the loop."""

    def archive_kept(self, token: int) -> None:
        """Everything up to this token is on the disk."""

    def archive_fetched(self, token: int, raw: bytes | None) -> None:
        """What a fetch found."""

    def archive_failed(self, fault: StoreError) -> None:
        """Nothing more can be written."""


class Archive:
    """One node's store, seen from its loop. Nothing here blocks but ``close``, which runs elsewhere."""

    def __init__(self, store: Store, ledger: Ledger, loop: asyncio.AbstractEventLoop, owner: ArchiveOwner) -> None:
        self.store = store
        for block_id in store.forgotten:
            log.error(_ASKED_ANEW, display_id(block_id))
        self._genesis = (ledger.block_id(ledger.genesis), ledger.genesis_block or None)
        self._loop = loop
        self._owner = owner
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._kept = 0  # highest token on the disk; written by the store's thread
        self._is_telling = False
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._has_failed = False
        self._fetched: deque[tuple[int, bytes | None]] = deque()  # by the reading thread, for the loop
        self._is_giving = False

    def waiting(self) -> list[Waiting]:
        """The mempool as it was kept."""
        return [Waiting(t.id, t.raw, t.arrival, t.own) for t in self.store.transactions()]

    # --- Writing ------------------------------------------------------------------------------------------------------

    def keep(self, keep: Keep) -> None:
        """Hand everything to the writer, in order; the last part of it acknowledges all."""
        write(self.store, keep).add_done_callback(partial(self._written, keep.token))

    def _written(self, token: int, written: Future[None]) -> None:
        """In the writer's thread. One wake-up of the loop for many acknowledgements."""
        fault = written.exception()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            if isinstance(fault, StoreError):
                self._loop.call_soon_threadsafe(self._fail, fault)
                return
            self._kept = token
            if not self._is_telling:
                self._is_telling = True
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_telling = False
        kept = self._kept
        while self._waiters and self._waiters[0][0] <= kept:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
        self._owner.archive_kept(kept)

    def _fail(self, fault: StoreError) -> None:
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(fault)
        self._waiters.clear()
        if not self._has_failed:
            self._has_failed = True
            self._owner.archive_failed(fault)

    async def written(self, token: int) -> None:
        """Return once everything up to ``token`` is on the disk. Raises ``StoreError``."""
        if self.store.fault is not None:
            raise self.store.fault
        if token > self._kept:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append((token, waiter))
            await waiter

    async def room(self) -> None:
        """Let others have their turn, and return once not too much waits for the disk. Raises ``StoreError``."""
        await asyncio.sleep(0)
        while self.store.waiting_bytes > BLOCK_BYTES_WAITING // 2:
            if self.store.fault is not None:
                raise self.store.fault
            await asyncio.sleep(_ROOM_POLL_S)

    # --- Reading ------------------------------------------------------------------------------------------------------

    def fetch(self, fetch: Fetch) -> None:
        """Read a block in the reading thread."""
        if fetch.block_id == self._genesis[0]:
            self._loop.call_soon(self._owner.archive_fetched, fetch.token, self._genesis[1])
        else:
            self._reader.submit(self._read, fetch)

    def _read(self, fetch: Fetch) -> None:
        raw: bytes | None = None
        try:
            raw = self.store.block(fetch.block_id)
        except StoreError as fault:
            if self.store.is_damaged(fetch.block_id):
                raw = DAMAGED
                log.error(_ASKED_ANEW, display_id(fetch.block_id))
            else:
                log.error("a block cannot be read: %s", fault)
        self._fetched.append((fetch.token, raw))
        with contextlib.suppress(RuntimeError):  # the loop has ended
            if not self._is_giving:
                self._is_giving = True
                self._loop.call_soon_threadsafe(self._give)

    def _give(self) -> None:
        """On the loop: all that was read meanwhile, in one turn."""
        self._is_giving = False
        while self._fetched:
            self._owner.archive_fetched(*self._fetched.popleft())

    async def block(self, block_id: bytes) -> bytes | None:
        """A block's bytes, if they are there. Raises ``StoreError``."""
        if block_id == self._genesis[0]:
            return self._genesis[1]
        return await asyncio.wrap_future(self._reader.submit(self.store.block, block_id))

    async def close(self) -> None:
        """Write what waits, and let go of the store."""
        await asyncio.to_thread(self._reader.shutdown)
        await asyncio.to_thread(self.store.close)
