"""What the node's two servers for its operator share: a task for each connection, and an end that cuts them all."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import Self


class StreamServer(ABC):
    """A server that is open inside ``async with``: leaving closes it and cuts every client."""

    def __init__(self) -> None:
        self._clients: set[asyncio.Task[None]] = set()
        self._held = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._cut_clients)
            await self._open(stack)
            self._held = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.aclose()

    @abstractmethod
    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        """Begin to accept; ``stack`` gets what ends that. Raises ``UserError`` if it cannot."""

    def _begin(self, serving: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Serve a client in a task of its own."""
        task = asyncio.get_running_loop().create_task(serving)
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        return task

    async def _cut_clients(self) -> None:
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
