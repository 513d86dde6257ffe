"""The file of ``obscura run --capture DIR``: what each link received, for ``obscura replay`` (``obscura.node.recording``).

It holds what the channel is there to hide: addresses of peers, and transactions that are still in their stem phase, by the link
that they came from. So it is never made unless it is asked for, is readable by the owner alone, says so at the start and in
``obscura status``, and ends by itself at a size. It never overwrites, and a full disk ends the capture, not the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import obscura
from obscura.daemon.config import Config
from obscura.daemon.logs import from_home
from obscura.errors import UserError
from obscura.ledger.chain import Chain
from obscura.limits import CAPTURE_FLUSH_S, CAPTURE_HEADERS, CAPTURE_STATE
from obscura.node.assembly import Assembly, Settings
from obscura.node.core import Part
from obscura.node.effects import Effect, Waiting
from obscura.node.peer import Peer
from obscura.node.recording import FULL, MAGIC, STOPPED, AnyRecord, Begin, End, Known, Tape, Waits, pack

log = logging.getLogger(__name__)
FILE = "capture"


class Capture(Part):
    """The capture of one run of a node, or nothing: without a directory every method does nothing."""

    def __init__(self, config: Config, now: float) -> None:
        """Begin the file. Raises ``UserError`` if it is there already or cannot be made."""
        self.is_on = config.capture is not None
        self.ended: str | None = None  # why nothing more is written
        self.bytes = 0
        self._start = now
        self._max = config.capture_mb * 1_000_000
        self._file: int | None = None
        self._buffer: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tape = Tape(self._put, now)
        self._end_of: Callable[[str], End] | None = None
        if config.capture is not None:
            self.path = config.capture.expanduser().absolute() / FILE
            self._file = _made(self.path)
            self._write(MAGIC)
            log.warning(
                "everything that peers send is being written to a capture, transactions that are still private among it: "
                "keep it to yourself and remove it when you are done"
            )

    def dice(self, part: str, rng: random.Random) -> random.Random:
        """What ``assemble`` takes."""
        return self._tape.dice(part, rng) if self.is_on else rng

    def begin(self, network: str, settings: Settings, assembly: Assembly, waiting: Iterable[Waiting]) -> None:
        """Write down what the node is and has, and from now on what its links bring. ``network``: how a replay finds it."""
        relay = assembly.relay
        if not self.is_on or relay is None:
            return

        def end(why: str) -> End:
            pool = sorted(entry.transaction.id for entry in relay.transactions.mempool)
            digest = sha256(b"".join(pool)).digest()
            at = time.monotonic() - self._start
            return End(at, why, relay.blocks.tip_height, relay.blocks.tip, len(pool), digest)

        self._end_of = end
        self._tape.put(
            Begin(
                software=obscura.__version__,
                network=from_home(network),  # a file's path says whose it is
                network_id=settings.network_id,
                unix=int(time.time()),
                is_dev=settings.is_dev,
                faces=tuple(sorted(settings.faces)),
                max_inbound=settings.max_inbound,
                rate_factor=settings.rate_factor,
                spacing_s=settings.spacing_s,
                knobs=settings.knobs,
            )
        )
        for known in _known(relay.chain):
            self._tape.put(known)
        for entry in waiting:
            self._tape.put(Waits(entry.id, entry.raw, entry.arrival))
        assembly.engine.connection_of = self._tape.connection_of

    def on_penalty(self, peer: Peer, points: int, why: str, now: float) -> Iterable[Effect]:
        if self.is_on:
            self._tape.blame(peer.link, points, why, now)
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        if self.is_on:
            self._tape.closed(peer.link, now)
        return ()

    def show(self) -> dict[str, Any] | None:
        """What ``obscura status`` says of it; None without one."""
        return {"file": str(self.path), "bytes": self.bytes, "ended": self.ended} if self.is_on else None

    def close(self) -> None:
        """The node has ended."""
        self._finish(STOPPED)

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _put(self, record: AnyRecord) -> None:
        if self._file is None:
            return
        data = pack(record)
        if self.bytes + len(data) > self._max - CAPTURE_STATE:
            log.warning("the capture has its %d MB: nothing more is written", self._max // 1_000_000)
            self._finish(FULL)
            return
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._buffer.append(data)
        self.bytes += len(data)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CAPTURE_FLUSH_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data, self._buffer = b"".join(self._buffer), []
        try:
            while data and self._file is not None:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            log.warning("the capture ends: %s", error.strerror)
            self.ended = f"it could not be written: {error.strerror}"
            self._shut()

    def _finish(self, why: str) -> None:
        if self._file is None:
            return
        self.ended = why
        if self._end_of is not None:
            self._buffer.append(pack(self._end_of(why)))
        self._flush()
        self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextlib.contextmanager
def captured(config: Config, now: float) -> Iterator[Capture]:
    """The capture of a run, ended with it."""
    capture = Capture(config, now)
    try:
        yield capture
    finally:
        capture.close()


def _made(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        what = f"{path} is there already; remove it or" if path.parent.is_dir() else f"{path.parent} is no directory;"
        raise UserError(f"capture: {what} choose another directory") from None
    except OSError as error:
        raise UserError(f"capture: {path} cannot be made: {error.strerror}; choose another directory") from None


def _known(chain: Chain) -> Iterator[Known]:
    """All headers of a chain above its genesis block, parents first."""
    ids = [chain.at(height) for height in range(1, chain.best_height + 1)]
    for start in range(0, len(ids), CAPTURE_HEADERS):
        some = ids[start : start + CAPTURE_HEADERS]
        yield Known(tuple(map(chain.header, some)), bytes(map(chain.has_body, some)), chain.tip)
