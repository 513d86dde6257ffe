"""What is known of other nodes, over a restart: the address book with its secret key, the anchors, the bans."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from obscura.daemon.datadir import write_atomic
from obscura.errors import UserError
from obscura.limits import PEERS_FILE_BYTES, PEERS_SAVED_S
from obscura.node.assembly import Neighbours
from obscura.node.bans import Ban
from obscura.node.book import BookState, Place

log = logging.getLogger(__name__)

_MAGIC = b"obscura peers 1\n"
_DIGEST = 16


class PeerState(msgspec.Struct, frozen=True):
    """The content of the file."""

    book: BookState
    anchors: list[Place]
    bans: list[Ban]


class PeerStore:
    """``peers.dat``: a line that names its version, a checksum, MessagePack. Written as a whole, old or new after a crash.

    A file that is damaged or of another version is set aside as ``peers.dat.damaged``, said in the log, and not fatal: the node
    finds peers anew.
    """

    def __init__(self, path: Path, near: Neighbours) -> None:
        self._path = path
        self._near = near
        self._writing: asyncio.Future[None] | None = None  # in a thread, which cancelling does not stop
        self._is_wanted = asyncio.Event()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Load now; write now and then, after each decision of the operator, and at the end. Raises ``UserError``."""
        self.load()
        task = asyncio.create_task(self._write_regularly())
        try:
            yield
        finally:
            task.cancel()
            if self._writing is not None:
                await asyncio.wait({self._writing})  # else it would replace what is written now
            self.write(self.encode())

    async def _write_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_wanted.wait(), PEERS_SAVED_S)
            self._is_wanted.clear()
            self._writing = asyncio.ensure_future(asyncio.to_thread(self.write, self.encode()))
            await asyncio.shield(self._writing)

    def load(self) -> None:
        """Give what is stored to the node's parts. Raises ``UserError`` if the file is there and cannot be read."""
        near = self._near
        near.bans.changed = self._is_wanted.set
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            state = decoded(raw)
            near.bans.restore(state.bans)
            near.book.restore(state.book)
        except ValueError as error:
            aside = self._path.with_name(self._path.name + ".damaged")
            self._path.replace(aside)
            log.warning("%s is set aside as %s and begun anew: %s", self._path.name, aside.name, error)
            return
        near.slots.restore_anchors(state.anchors)

    def encode(self) -> bytes:
        """The file's bytes for what the parts know now."""
        near = self._near
        state = PeerState(near.book.state(), near.slots.anchors, near.bans.in_force())
        body = msgspec.msgpack.encode(state)
        return _MAGIC + blake2b(body, digest_size=_DIGEST).digest() + body

    def write(self, raw: bytes) -> None:
        """Replace the file; a full disk is said in the log and costs nothing else."""
        try:
            write_atomic(self._path, raw)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path.name, error.strerror)


def decoded(raw: bytes) -> PeerState:
    """The state in a file's bytes. Raises ``ValueError`` that says what is wrong."""
    if len(raw) > PEERS_FILE_BYTES:
        raise ValueError(f"it has more than {PEERS_FILE_BYTES} bytes")
    if not raw.startswith(_MAGIC):
        raise ValueError("it is of another version, or no such file")
    start = len(_MAGIC) + _DIGEST
    body = raw[start:]
    if blake2b(body, digest_size=_DIGEST).digest() != raw[len(_MAGIC) : start]:
        raise ValueError("its checksum is wrong")
    try:
        return msgspec.msgpack.decode(body, type=PeerState)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
