"""Connections to the web site behind the web listeners (``cover.upstream``)."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from urllib.parse import urlsplit

from obscura.errors import ConfigError
from obscura.limits import PROXY_READ_S, UPSTREAM_AHEAD, UPSTREAM_REQUESTS
from obscura.morph.behind import Ticket, Upstream


class _Fetch(Ticket):
    """One request, in a task of its own. Not more than ``UPSTREAM_AHEAD`` bytes are read before they are taken."""

    def __init__(self, host: str, port: int, request: bytes, room: asyncio.Semaphore) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._failure = 0
        self._has_begun = False
        self._is_done = False
        self._task = asyncio.get_running_loop().create_task(self._run(host, port, request, room))

    async def _run(self, host: str, port: int, request: bytes, room: asyncio.Semaphore) -> None:
        writer = None
        try:
            async with room:
                async with asyncio.timeout(PROXY_READ_S):
                    reader, writer = await asyncio.open_connection(host, port)
                    writer.write(request)
                    await writer.drain()
                while True:
                    async with asyncio.timeout(PROXY_READ_S):
                        piece = await reader.read(64 << 10)
                    if not piece:
                        return
                    self._has_begun = True
                    self._pieces.append(piece)
                    self._held += len(piece)
                    if self._held >= UPSTREAM_AHEAD:
                        self._may_read.clear()
                        await self._may_read.wait()
        except TimeoutError:
            self._failure = 504
        except OSError:
            self._failure = 502
        finally:
            self._is_done = True
            if writer is not None:
                writer.close()

    @property
    def failure(self) -> int:
        return 0 if self._has_begun else self._failure

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        self._may_read.set()
        return data

    @property
    def is_over(self) -> bool:
        return self._is_done and not self._pieces

    def drop(self) -> None:
        self._task.cancel()


class HttpUpstream(Upstream):
    """A site at an IP address."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._room = asyncio.Semaphore(UPSTREAM_REQUESTS)

    def ask(self, request: bytes) -> Ticket:
        return _Fetch(self._host, self._port, request, self._room)


def upstream_place(text: str, *, only_loopback: bool = False) -> tuple[str, int]:
    """Host and port of ``http://IP[:PORT]``. Raises ``ConfigError``.

    ``only_loopback``: this node may not reach anything else without its anonymity networks.
    """
    try:
        parts = urlsplit(text)
        port = 80 if parts.port is None else parts.port
        address = ip_address(parts.hostname or "")
    except ValueError:
        raise ConfigError(f"cover.upstream = {text}: write http://IP:PORT, names are not looked up") from None
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.username is not None or not port:
        raise ConfigError(f"cover.upstream = {text}: write http://IP:PORT and nothing behind it")
    if only_loopback and not address.is_loopback:
        raise ConfigError(
            f"cover.upstream = {text}: with only-net or a proxy no byte may leave by another way, so it must be on this "
            "machine (127.0.0.1)"
        )
    return str(address), port
