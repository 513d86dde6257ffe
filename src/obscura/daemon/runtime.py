"""The process of ``obscura run``: event loop, signals, log, and a word when the node is up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from obscura.daemon import logs
from obscura.daemon.config import Config
from obscura.daemon.fronts import fronts
from obscura.daemon.node import Node
from obscura.daemon.reload import Load, reload_and_log
from obscura.daemon.supervisor import Supervisor, raise_open_files, warn_of_root
from obscura.limits import KEPT_FREE_BYTES

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop

    new_event_loop = uvloop.new_event_loop
except ImportError:  # the extra [fast] is not installed
    new_event_loop = asyncio.new_event_loop

log = logging.getLogger(__name__)

Told = Callable[[Mapping[str, Any]], None]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def run(config: Config, *, ready: Told, load: Load | None = None) -> int:
    """Run a node until SIGTERM, SIGINT or the method ``stop``. ``ready`` gets what a caller needs to reach it.

    ``load`` reads the configuration again, at SIGHUP or when asked by RPC. A signal ends every link and the store cleanly, within
    ``STOP_S`` and what a last commit takes; the same signal a second time ends the process at once, as a crash would.

    The exit status. Raises ``UserError`` if the node cannot start.
    """
    logs.begin(config.log_level, config.log_format, is_unsafe=config.unsafe_logs)
    keep_freed_memory()
    raise_open_files()
    sys.unraisablehook = _not_shown
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(Node(config), ready, load))


def _not_shown(ignored: Any) -> None:
    """Python would print what it could not raise, with a stranger's bytes where ``ssl`` cannot read the name in a ClientHello."""
    log.debug("ignored: %s", ignored.exc_type.__name__)


def keep_freed_memory() -> None:
    """Let this process keep memory that it freed, up to ``KEPT_FREE_BYTES``; for a whole process, so not a library's to call.

    glibc gives it back at once, and a megabyte that is sent or received would be cleared page by page by the kernel again each
    time, which takes longer than its two hashes (docs/performance.md). Where there is no glibc, nothing happens.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    set_option(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
    set_option(_M_MMAP_THRESHOLD, KEPT_FREE_BYTES)


async def _serve(node: Node, ready: Told, load: Load | None) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, node, loop, number)
    asked = asyncio.Event()
    if load is not None:
        loop.add_signal_handler(signal.SIGHUP, asked.set)  # while it starts there is nothing to change
    supervisor = Supervisor()
    async with contextlib.AsyncExitStack() as life:
        if not await _begun(node, life):
            return 0
        shown = await life.enter_async_context(fronts(node, load))
        await life.enter_async_context(supervisor.served())
        if load is not None:
            loop.add_signal_handler(signal.SIGHUP, reload_and_log, node, load)
            if asked.is_set():
                reload_and_log(node, load)
        ready(
            {
                "network": node.network.name,
                "addresses": [str(address) for address in node.addresses],
                "rpc": str(node.data_dir.rpc_socket),
                **shown,
            }
        )
        warn_of_root()  # a node that is up: what hinders its start is to be one sentence
        await node.stopped.wait()
    if node.fault is not None:
        raise node.fault
    return 0


async def _begun(node: Node, life: contextlib.AsyncExitStack) -> bool:
    """Enter the node. False: its end was asked for before; reading a large store takes longer than supervisors wait for that."""
    starting = asyncio.ensure_future(life.enter_async_context(node))
    asked = asyncio.ensure_future(node.stopped.wait())
    try:
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        starting.cancel()  # nothing, where it is done
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    return not starting.cancelled()


def _on_signal(node: Node, loop: asyncio.AbstractEventLoop, number: int) -> None:
    node.stop()
    loop.remove_signal_handler(number)  # the second one ends the process as it always would
