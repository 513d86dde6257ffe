"""A SOCKS5 proxy and a tor control port for tests, byte for byte as RFC 1928, RFC 1929 and the control-spec have them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from obscura.wire.address import Endpoint, Network

LOOPBACK = bytes((127, 0, 0, 1))
Target = int | tuple[str, int]  # a reply code, or where the connection really leads


def local(port: int) -> Endpoint:
    return Endpoint(Network.IPV4, LOOPBACK, port)


class FakeSocks:
    """Connects to whatever ``targets`` says of ``host:port``; everything else has no descriptor (0xF0)."""

    def __init__(self, targets: Mapping[str, Target] | None = None, *, methods: tuple[int, ...] = (0, 2)) -> None:
        self.targets = dict(targets or {})
        self.methods = methods
        self.asked: list[tuple[str, bytes, bytes]] = []  # host:port, user, password
        self.raw: list[bytes] = []  # what each client sent to be understood
        self.place = local(1)
        self.broken: dict[str, bytes] = {}  # stage -> what is sent instead of the answer, then the end

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeSocks]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.place = local(server.sockets[0].getsockname()[1])
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(2)
        offered = await reader.readexactly(head[1])
        self.raw.append(head + offered)
        chosen = next((method for method in offered if method in self.methods), 0xFF)
        if self._broke("method", writer):
            return
        writer.write(bytes((5, chosen)))
        user = password = b""
        if chosen == 2:
            version, size = await reader.readexactly(2)
            assert version == 1
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            if self._broke("login", writer):
                return
            writer.write(b"\x01\x00")
        elif chosen == 0xFF:
            return
        version, command, reserved, kind = await reader.readexactly(4)
        assert (version, command, reserved) == (5, 1, 0)
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        raw = await reader.readexactly(size)
        host = raw.decode() if kind == 3 else str(Endpoint({1: Network.IPV4, 4: Network.IPV6}[kind], raw, 0).host_text)
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((f"{host}:{port}", user, password))
        target = self.targets.get(f"{host}:{port}", 0xF0)
        if self._broke("reply", writer):
            return
        if isinstance(target, int):
            writer.write(bytes((5, target, 0, 1)) + bytes(6))
            return
        there, back = await asyncio.open_connection(*target)
        writer.write(bytes((5, 0, 0, 3, 4)) + b"exit" + bytes(2) + b"")
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    def _broke(self, stage: str, writer: asyncio.StreamWriter) -> bool:
        if stage in self.broken:
            writer.write(self.broken[stage])
        return stage in self.broken


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class FakeTor:
    """A control port: authenticates as a tor does, keeps the onion services of each connection, tells what it was asked."""

    def __init__(
        self,
        cookie: Path,
        *,
        methods: str = "COOKIE,SAFECOOKIE",
        secret: bytes = bytes(range(32)),
        password: str = "",
        knows_pow: bool = True,
        socks: Endpoint | None = None,
        answers: Callable[[str], str | None] = lambda line: None,
    ) -> None:
        """``secret`` is the cookie that it knows; ``answers`` may answer a line in its place."""
        self.cookie, self.methods, self.secret, self.password = cookie, methods, secret, password
        self.knows_pow, self.socks, self.answers = knows_pow, socks, answers
        self.asked: list[str] = []
        self.onions: dict[str, str] = {}  # name -> its words
        self.added = 0
        self.place = local(1)
        self.writers: set[asyncio.StreamWriter] = set()
        self.changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0, path: Path | None = None) -> AsyncIterator[FakeTor]:
        """``path``: of a Unix socket instead."""
        if path is not None:
            server: asyncio.Server = await asyncio.start_unix_server(self._client, path)
        else:
            server = await asyncio.start_server(self._client, "127.0.0.1", port)
            self.place = local(server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()
            self.hang_up()

    def hang_up(self) -> None:
        """End all connections, as a tor that is killed does."""
        for writer in self.writers:
            writer.transport.abort()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(is_so)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        own: list[str] = []
        with contextlib.suppress(OSError, EOFError):
            while line := (await reader.readline()).decode().rstrip("\r\n"):
                self.asked.append(line)
                answer = self.answers(line) or self._answer(line, own)
                writer.write(answer.replace("\n", "\r\n").encode() + b"\r\n")
                async with self.changed:
                    self.changed.notify_all()
        for name in own:
            self.onions.pop(name, None)
        self.writers.discard(writer)
        writer.close()

    def _answer(self, line: str, own: list[str]) -> str:
        word, _, rest = line.partition(" ")
        if word == "PROTOCOLINFO":
            path = str(self.cookie).replace("\\", "\\\\").replace('"', '\\"')
            file = f' COOKIEFILE="{path}"' if "COOKIE" in self.methods else ""
            return f'250-PROTOCOLINFO 1\n250-AUTH METHODS={self.methods}{file}\n250-VERSION Tor="0.4.9.11"\n250 OK'
        if word == "AUTHCHALLENGE":
            self._nonces = bytes.fromhex(rest.split()[1]), bytes(32)
            key = b"Tor safe cookie authentication server-to-controller hash"
            proof = hmac.digest(key, self.secret + b"".join(self._nonces), hashlib.sha256)
            return f"250 AUTHCHALLENGE SERVERHASH={proof.hex().upper()} SERVERNONCE={self._nonces[1].hex().upper()}"
        if word == "AUTHENTICATE":
            return "250 OK" if self._is_right(rest) else "515 Authentication failed: it did not match"
        if word == "GETINFO":
            known = {
                "net/listeners/socks": f'"{self.socks}" "unix:/run/tor/socks"' if self.socks else "",
                "status/bootstrap-phase": 'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"',
            }
            return f"250-{rest}={known[rest]}\n250 OK" if rest in known else f'552 Unrecognized key "{rest}"'
        if word == "ADD_ONION":
            return self._add(rest, own)
        return "250 OK" if word in ("SETEVENTS", "ONION_CLIENT_AUTH_ADD", "DEL_ONION") else f'510 Unknown "{word}"'

    def _is_right(self, proof: str) -> bool:
        if "NULL" in self.methods or (self.password and proof == f'"{self.password}"'):
            return True
        if "SAFECOOKIE" in self.methods:
            key = b"Tor safe cookie authentication controller-to-server hash"
            return proof == hmac.digest(key, self.secret + b"".join(self._nonces), hashlib.sha256).hex()
        return proof == self.secret.hex()

    def _add(self, rest: str, own: list[str]) -> str:
        if "PoW" in rest and not self.knows_pow:
            return '513 Invalid argument "PoWDefensesEnabled=1"'
        key, _, _ = rest.partition(" ")
        made = ""
        self.added += 1
        if key.startswith("NEW:"):
            key = "ED25519-V3:" + base64.b64encode(random.Random(self.added).randbytes(64)).decode()
            made = f"250-PrivateKey={key}\n"
        host = Endpoint(Network.TORV3, hashlib.sha256(key.encode()).digest(), 1).host_text
        name = host.removesuffix(".onion")
        self.onions[name] = rest
        own.append(name)
        return f"250-ServiceID={name}\n{made}250 OK\n650 HS_DESC UPLOADED {name} UNKNOWN $00~relay descriptor"
