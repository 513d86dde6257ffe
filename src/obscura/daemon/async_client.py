"""A client of a node's RPC for programs with an event loop: many calls at once, and events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from obscura.daemon import jsonrpc
from obscura.daemon.datadir import socket_address
from obscura.daemon.events import Broadcast
from obscura.daemon.http_client import AsyncHttpLine, Secret, is_url
from obscura.daemon.nonode import NoNode, silent


class AsyncClient:
    """``async with AsyncClient(path) as node: await node.call("status")``. Places, secrets and errors as in ``client.Client``."""

    def __init__(self, where: Path | str, secret: Secret = None) -> None:
        self._line = (
            AsyncHttpLine(where, secret) if isinstance(where, str) and is_url(where) else _SocketLine(Path(where))
        )

    async def __aenter__(self) -> AsyncClient:
        if isinstance(self._line, _SocketLine):
            await self._line.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._line, _SocketLine):
            await self._line.close()

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a method, with parameters by position or by name (not both)."""
        if args and kwargs:
            raise TypeError("JSON-RPC takes parameters by position or by name, not both")
        params = list(args) or kwargs
        if isinstance(self._line, _SocketLine):
            return await self._line.ask(method, params)
        return await self._line.ask(jsonrpc.request(method, params, 1))

    def events(self, kinds: Collection[str] | None = None) -> AsyncIterator[dict[str, Any]]:
        """Events from the first step of ``async for`` on, until the node goes. One stream per client."""
        return self._line.events(kinds)


class _SocketLine:
    """The control socket: calls side by side, matched by id, and events between the answers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events = Broadcast()
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None]

    async def open(self) -> None:
        try:
            with socket_address(self._path) as address:
                reader, self._writer = await asyncio.open_unix_connection(address, limit=jsonrpc.ANSWER_BYTES)
        except OSError:
            raise silent(self._path.parent) from None
        self._reading = asyncio.create_task(self._read(reader))

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def ask(self, method: str, params: list[Any] | dict[str, Any]) -> Any:
        if self._reading.done():
            raise self._gone()
        self._calls += 1
        id = self._calls
        self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(jsonrpc.request(method, params, id))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
            return jsonrpc.result(await self._waiting[id])
        finally:
            del self._waiting[id]

    async def events(self, kinds: Collection[str] | None) -> AsyncIterator[dict[str, Any]]:
        subscription = self._events.subscribe()
        try:
            await self.ask("events.subscribe", {"kinds": None if kinds is None else list(jsonrpc.one_or_many(kinds))})
            async for event in subscription:
                yield dict(event)
        finally:
            subscription.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                told = msgspec.json.decode(line, type=dict[str, Any])
                if told.get("method") == "event":
                    self._events.publish(told["params"])
                    continue
                waiting = self._waiting.get(told.get("id") or self._calls)
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
        except (ConnectionError, ValueError, msgspec.MsgspecError):
            pass
        finally:
            self._events.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(self._gone())

    def _gone(self) -> NoNode:
        return NoNode(f"the node on {self._path.parent} went away; `obscura status` shows if it runs")
