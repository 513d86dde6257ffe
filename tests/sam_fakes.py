"""A SAM bridge for tests of the wire: the lines as i2pd 2.45 has them, streams between the sessions of this one bridge."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Callable

from obscura.transport.sam_words import Destination, PrivateDestination
from obscura.wire.address import Endpoint, Network

LOOPBACK = bytes((127, 0, 0, 1))
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def private_destination(seed: int, *, kind: int = 7) -> PrivateDestination:
    """One with an Ed25519 certificate (or another ``kind``), as long as i2pd's."""
    noise = random.Random(seed).randbytes
    public = noise(384) + bytes((5, 0, 4)) + kind.to_bytes(2, "big") + bytes(2)
    return PrivateDestination(base64.b64encode(public + noise(256 + 32), altchars=b"-~").decode())


class FakeSam:
    """``answers`` may answer a line in its place: a text, or None for the usual; ``""`` hangs up."""

    def __init__(
        self, answers: Callable[[str], str | None] = lambda line: None, *, version: str = "3.0", tunnels_s: float = 0.0
    ) -> None:
        self.answers = answers
        self.version = version
        self.tunnels_s = tunnels_s  # seconds until a session is there
        self.asked: list[str] = []
        self.sessions: dict[str, Destination] = {}
        self.names: dict[str, Destination] = {}  # address book
        self.made = 0
        self.place = Endpoint(Network.IPV4, LOOPBACK, 1)
        self.controls: list[asyncio.StreamWriter] = []
        self.dialled: list[tuple[str, str]] = []  # from host, to host
        self._accepts: dict[str, list[Streams]] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[FakeSam]:
        server = await asyncio.start_server(self._client, "127.0.0.1", port, limit=1 << 16)
        self.place = Endpoint(Network.IPV4, LOOPBACK, server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()
            self.hang_up()

    @property
    def clients(self) -> int:
        """Connections that are open."""
        return len(self._writers)

    @property
    def accepts(self) -> int:
        """Connections that wait for a stream."""
        return sum(not writer.is_closing() for waiting in self._accepts.values() for _, writer in waiting)

    def hang_up(self) -> None:
        """End all connections, as a router that is killed does."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lose_sessions(self) -> None:
        """End the control connections alone."""
        for writer in self.controls:
            writer.transport.abort()

    def lose_accepts(self) -> None:
        """End the connections that wait for streams alone."""
        for waiting in self._accepts.values():
            for _, writer in waiting:
                writer.transport.abort()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, EOFError, ValueError):
            await self._serve(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own: str | None = None
        try:
            while line := (await reader.readline()).decode().rstrip("\n"):
                self.asked.append(line)
                words = dict(part.partition("=")[::2] for part in line.split())
                said = self.answers(line)
                if said is not None:
                    writer.write(said.encode("latin-1"))
                    if not said:
                        return
                    continue
                if line.startswith("SESSION CREATE"):
                    await asyncio.sleep(self.tunnels_s)
                    own = self._create(words, writer)
                elif line.startswith("STREAM"):
                    await self._stream(line, words, reader, writer)
                    return
                else:
                    writer.write(self._answer(line, words).encode() + b"\n")
        finally:
            if own is not None:
                self.sessions.pop(own, None)
                for _, waiting in self._accepts.pop(own, []):
                    waiting.transport.abort()

    def _answer(self, line: str, words: dict[str, str]) -> str:
        if line.startswith("HELLO"):
            return f"HELLO REPLY RESULT=OK VERSION={self.version}"
        if line.startswith("DEST GENERATE"):
            self.made += 1
            key = private_destination(self.made)
            return f"DEST REPLY PUB={key.public.text} PRIV={key.text}"
        assert line.startswith("NAMING LOOKUP"), line
        known = {**{each.host: each for each in self.sessions.values()}, **self.names}
        found = known.get(words["NAME"])
        name = words["NAME"]
        return f"NAMING REPLY RESULT=OK NAME={name} VALUE={found.text}" if found else _ABSENT.format(name=name)

    def _create(self, words: dict[str, str], writer: asyncio.StreamWriter) -> str | None:
        if words["ID"] in self.sessions:
            writer.write(b"SESSION STATUS RESULT=DUPLICATED_ID\n")
            return None
        self.made += 1
        is_new = words["DESTINATION"] == "TRANSIENT"
        key = private_destination(self.made) if is_new else PrivateDestination(words["DESTINATION"])
        self.sessions[words["ID"]] = key.public
        self.controls.append(writer)
        writer.write(f"SESSION STATUS RESULT=OK DESTINATION={key.text}\n".encode())
        return words["ID"]

    async def _stream(
        self, line: str, words: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        own = self.sessions.get(words["ID"])
        if own is None:
            writer.write(b"STREAM STATUS RESULT=INVALID_ID\n")
            return
        if line.startswith("STREAM ACCEPT"):
            writer.write(b"STREAM STATUS RESULT=OK\n")
            waits = self._accepts.setdefault(words["ID"], [])
            waits.append((reader, writer))
            while (reader, writer) in waits:
                # It went away before anybody came, whether it had read the answer or not.
                if reader.at_eof() or writer.is_closing():
                    waits.remove((reader, writer))
                    return
                await asyncio.sleep(0.01)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            return
        to = Destination.parse(words["DESTINATION"])
        waiting = [each for name, found in self.sessions.items() if found == to for each in self._accepts.get(name, [])]
        if to not in self.sessions.values():
            writer.write(b"STREAM STATUS RESULT=CANT_REACH_PEER\n")
            return
        writer.write(b"STREAM STATUS RESULT=OK\n")  # before anybody has accepted, as i2pd does
        self.dialled.append((own.host, to.host))
        if not waiting:
            await reader.read()
            return
        there, back = waiting[0]
        for pairs in self._accepts.values():
            if waiting[0] in pairs:
                pairs.remove(waiting[0])
        more = " FROM_PORT=0 TO_PORT=0" if self.version >= "3.2" else ""
        back.write(f"{own.text}{more}\n".encode())
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


_ABSENT = "NAMING REPLY RESULT=INVALID_KEY NAME={name}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
