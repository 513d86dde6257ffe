"""Files of blocks (u32 LE length, then the block, and so on), and taking one into a store that no node holds."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from obscura.daemon.archive import write
from obscura.errors import UserError
from obscura.ledger.network import Network
from obscura.limits import BLOCK_BYTES_WAITING, MAX_BLOCK
from obscura.node.blocks import KNOWN, Blocks
from obscura.node.effects import Keep
from obscura.store.sqlite import Store


class Imported(msgspec.Struct):
    """How far an import is."""

    offset: int = 0  # bytes of the file that are done
    total: int = 0  # bytes of the file
    new: int = 0  # blocks
    known: int = 0


def blocks_in(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file from ``offset`` on, each with the offset behind it. Raises ``UserError``."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while prefix := file.read(4):
                size = int.from_bytes(prefix, "little")
                if len(prefix) < 4 or not 0 < size <= MAX_BLOCK:
                    raise UserError(f"{path} is no file of blocks: at byte {offset} there is no length of a block")
                raw = file.read(size)
                if len(raw) < size:
                    raise UserError(f"{path} is cut short in the block at byte {offset}")
                offset += 4 + size
                yield offset, raw
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def file_size(path: Path) -> int:
    """Bytes of a file. Raises ``UserError``, also for a pipe: opening one waits for who writes, and the node with it."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError("no file has a NUL in its name") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is no plain file: write the blocks into one")
    return found.st_size


def import_blocks(store: Store, network: Network, path: Path) -> Iterator[Imported]:
    """Check the blocks of a file and keep them, one ``Imported`` for each; when it ends all is on the disk.

    Raises ``UserError`` at the first block that is refused, with those before it kept.
    """
    blocks = Blocks(store.load_chain(network.ledger), lambda: int(time.time()))
    done = Imported(total=file_size(path))
    last = store.flush()
    for offset, raw in blocks_in(path):
        effects, fault = blocks.accept(raw)
        for effect in effects:
            if isinstance(effect, Keep):
                last = write(store, effect)
        if fault is not None and fault is not KNOWN:
            last.result()
            raise UserError(f"the block at byte {done.offset} of {path} is refused: {fault.reason}")
        done.offset = offset
        done.known += fault is KNOWN
        done.new += fault is None
        if store.waiting_bytes > BLOCK_BYTES_WAITING:
            last.result()
        yield done
    last.result()
