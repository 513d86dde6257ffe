"""What the process and whatever supervises it have to say to each other: readiness, life signs, open files, root.

The words are those of sd_notify(3): one datagram each to the Unix socket that ``NOTIFY_SOCKET`` names, if it names one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, MutableMapping

log = logging.getLogger(__name__)


class Supervisor:
    """Who started the process, as far as the environment tells."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Takes its variables out of ``environ``: they are for this process, not for a tor that it starts."""
        place = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + place[1:] if place.startswith("@") else place
        span, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        is_ours = not pid or pid == str(os.getpid())
        self.watchdog_s = int(span) / 1e6 if is_ours and span.isdecimal() and int(span) else None

    def tell(self, *words: str) -> None:
        """Send ``READY=1`` and the like. Never raises: a supervisor that is gone is not the node's trouble."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.sendto("\n".join(words).encode(), self._address)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """``READY=1`` now, a life sign in half the time that the watchdog allows, ``STOPPING=1`` when the block ends."""
        self.tell("READY=1")
        signs = asyncio.create_task(self._live(self.watchdog_s / 2)) if self.watchdog_s else None
        try:
            yield
        finally:
            self.tell("STOPPING=1")
            if signs:
                signs.cancel()

    async def _live(self, every_s: float) -> None:
        while True:  # from the node's own loop: one that hangs says nothing
            self.tell("WATCHDOG=1")
            await asyncio.sleep(every_s)


def raise_open_files() -> None:
    """Allow as many open files as the system lets this process have: every link is one. For a process, not for a library."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit of open files stays at %d: %s", soft, error)
        return
    log.info("limit of open files raised from %d to %s", soft, "no limit" if hard == resource.RLIM_INFINITY else hard)


def warn_of_root() -> None:
    """Say that root is more than a node needs."""
    if os.geteuid() == 0:
        log.warning(
            "running as root, which nothing here needs: a user of its own keeps a fault of this program to its data"
        )
