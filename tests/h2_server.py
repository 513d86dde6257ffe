"""An HTTP/2 server over TLS on loopback that does to a client what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions

Headers = list[tuple[str, str]]
Behaviour = Callable[["Session", int, dict[str, str], bytes], Awaitable[None]]


class Session:
    """One connection. ``requests`` has the headers and body of each request."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))

    async def flush(self) -> None:
        self.writer.write(self.http.data_to_send())
        await self.writer.drain()

    async def raw(self, data: bytes) -> None:
        """Send bytes that no state machine would."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, stream: int, body: bytes, status: int = 200, kind: str | None = None, **more: str) -> None:
        """A whole answer, in as many frames as it takes and as fast as the client's window allows."""
        head = [(":status", str(status)), ("content-type", "application/dns-message" if kind is None else kind)]
        self.http.send_headers(stream, [*head, *((name.replace("_", "-"), value) for name, value in more.items())])
        while body:
            room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
            if not room:
                await self.flush()
                self.http.receive_data(await self.reader.read(65_536) or b"")
                continue
            self.http.send_data(stream, body[:room])
            body = body[room:]
        self.http.end_stream(stream)
        await self.flush()

    async def run(self) -> None:
        self.http.initiate_connection()
        await self.flush()
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        while raw := await self.reader.read(65_536):
            for event in self.http.receive_data(raw):
                stream = getattr(event, "stream_id", 0)
                if isinstance(event, h2.events.RequestReceived):
                    heads[stream], bodies[stream] = dict(event.headers), b""
                elif isinstance(event, h2.events.DataReceived):
                    bodies[stream] += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    self.server.requests.append((heads[stream], bodies[stream]))
                    self.server.asked.set()
                    await self.server.behaviour(self, stream, heads[stream], bodies[stream])
            await self.flush()


class Server:
    """What it has seen: the SNI names, the connections, the requests."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.names: list[str | None] = []
        self.connections = 0
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.port = 0
        self.asked = asyncio.Event()  # a whole request has come
        self.emptied = asyncio.Event()  # no connection is left
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, h2.exceptions.H2Error, asyncio.CancelledError):
                await Session(self, reader, writer).run()
        finally:
            self._tasks.discard(task)
            if not self._tasks:
                self.emptied.set()
            writer.transport.abort()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)


@contextlib.asynccontextmanager
async def serving(
    behaviour: Behaviour, certificate: tuple[Path, Path], protocols: tuple[str, ...] = ("h2",), host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    """A server for the length of the block; ``certificate``: files of the chain and the key."""
    server = Server(behaviour)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(list(protocols))
    context.sni_callback = lambda _link, name, _context: server.names.append(name)
    listening = await asyncio.start_server(server.serve, host, 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await server.end()
