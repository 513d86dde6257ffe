"""Local control: JSON-RPC over a Unix socket, one text per line. Whoever may open it owns the node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import stat
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

from obscura.daemon import jsonrpc
from obscura.daemon.datadir import socket_address
from obscura.daemon.events import Broadcast, Subscription
from obscura.daemon.jsonrpc import RpcError
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.stream_server import StreamServer
from obscura.errors import UserError
from obscura.limits import RPC_CONNECTIONS, RPC_IN_FLIGHT, RPC_LEAVE_S, RPC_LINE_BYTES, RPC_STALL_S

log = logging.getLogger(__name__)
READ_BYTES = 64 << 10


class ControlServer(StreamServer):
    """The control socket of one node, open inside ``async with``. Leaving cuts every client and removes it.

    Its three limits are parameters for tests. Raises ``UserError`` if it cannot be had (see ``listening``).
    """

    def __init__(
        self,
        path: Path,
        registry: MethodRegistry,
        broadcast: Broadcast,
        *,
        max_line: int = RPC_LINE_BYTES,
        max_clients: int = RPC_CONNECTIONS,
        stall_s: float = RPC_STALL_S,
    ) -> None:
        super().__init__()
        self.path = path
        self.registry = registry
        self.broadcast = broadcast
        self.max_line = max_line
        self.max_clients = max_clients
        self.stall_s = stall_s

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        listener = stack.enter_context(listening(self.path, self.max_clients))
        server = await asyncio.start_unix_server(self._accept, sock=listener)
        stack.callback(server.close)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, reader, writer)
        patience_s = self.stall_s
        try:
            if len(self._clients) > self.max_clients:
                told = f"{self.max_clients} clients are connected already: close one of them"
                await client.send(jsonrpc.failure(RpcError(jsonrpc.TOO_MANY_CLIENTS, told)))
            else:
                await client.serve()
        except asyncio.CancelledError:  # the node stops, which a client that does not read must not hold up
            patience_s = min(patience_s, RPC_LEAVE_S)
            raise
        except Exception as error:
            log.error("a control client ended by %s", type(error).__name__)
        finally:
            await client.close(patience_s)


class Client:
    """One connection: its calls run side by side and are answered as they finish, matched by id."""

    def __init__(self, server: ControlServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._free = asyncio.Semaphore(RPC_IN_FLIGHT)
        self._tasks = asyncio.TaskGroup()
        self._subscription: Subscription | None = None
        self._pump: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer until the client ends its side; calls that are under way then are still answered."""
        async with self._tasks:
            try:
                async for text in read_lines(self._reader, self._server.max_line, self._server.stall_s):
                    await self._free.acquire()
                    self._tasks.create_task(self._answer(text))
            except RpcError as error:
                await self.send(jsonrpc.failure(error))
            except ConnectionError:
                pass
            finally:
                self.unsubscribe()

    async def _answer(self, text: bytes) -> None:
        try:
            answer = await self._server.registry.respond(text, self)
            if answer is not None:
                await self._write(answer)
        finally:
            self._free.release()

    async def send(self, answer: dict[str, object]) -> None:
        """Send one answer; a client that does not take it in time is cut."""
        await self._write(jsonrpc.line(answer))

    async def _write(self, line: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(line)
        try:
            async with asyncio.timeout(self._server.stall_s):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
        except ConnectionError:
            pass

    async def close(self, patience_s: float) -> None:
        """Send what is left, if the client takes it in time, and end."""
        self._writer.close()
        try:
            async with asyncio.timeout(patience_s):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except ConnectionError:
            pass

    def subscribe(self, kinds: Collection[str] | None) -> None:
        """Send events as notifications from now on (``rpc.Session``)."""
        self.unsubscribe()
        self._subscription = self._server.broadcast.subscribe(kinds)
        self._pump = self._tasks.create_task(self._send_events(self._subscription))

    def unsubscribe(self) -> bool:
        """Stop that; whether there was a subscription (``rpc.Session``)."""
        if self._subscription is None or self._pump is None:
            return False
        self._subscription.close()
        self._pump.cancel()
        self._subscription = self._pump = None
        return True

    async def _send_events(self, subscription: Subscription) -> None:
        """A subscriber that does not read is not cut: its queue fills, and then it is told what it lost."""
        with contextlib.suppress(ConnectionError):
            async for event in subscription:
                self._writer.write(jsonrpc.line(jsonrpc.notification("event", event)))
                await self._writer.drain()


async def read_lines(reader: asyncio.StreamReader, max_bytes: int, stall_s: float) -> AsyncIterator[bytes]:
    """The lines of a stream, without ends and blank ones; an unfinished last line is dropped, never executed.

    Raises ``RpcError`` for a line over ``max_bytes`` or unfinished ``stall_s`` seconds after its first byte.
    """
    loop = asyncio.get_running_loop()
    held = bytearray()
    deadline: float | None = None
    too_long = RpcError(jsonrpc.TOO_LARGE, f"a request is at most {max_bytes} bytes long")
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await reader.read(READ_BYTES)
        except TimeoutError:
            raise RpcError(jsonrpc.INVALID_REQUEST, f"the line was not finished in {stall_s:g} s") from None
        if not chunk:
            return
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            if len(held) + len(end) > max_bytes:
                raise too_long
            text = bytes(held + end).strip()
            held.clear()
            deadline = None
            if text:
                yield text
        held += rest
        if len(held) > max_bytes:
            raise too_long
        if held and deadline is None:
            deadline = loop.time() + stall_s


@contextlib.contextmanager
def listening(path: Path, backlog: int = RPC_CONNECTIONS) -> Iterator[socket.socket]:
    """A listening socket with mode 0600 at ``path``, gone after the block; a crash's leftover is removed.

    Raises ``UserError`` if something listens there already, or if what is there is no socket.
    """
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(socket_address(path))
            _remove_stale(path, address)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.setblocking(False)
            listener.bind(address)
            stack.callback(path.unlink, missing_ok=True)
            path.chmod(0o600)  # nobody can connect in between: it does not listen yet
            listener.listen(backlog)
        except OSError as error:
            raise UserError(f"the control socket {path} cannot be opened: {error.strerror}") from None
        yield listener


def _remove_stale(path: Path, address: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UserError(f"{path} is not a socket: move it away or choose another --data-dir")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # a full backlog: somebody is there
            try:
                probe.connect(address)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                return
    raise UserError(f"a node already answers on {path}: stop it or choose another --data-dir")
