"""Tor's control protocol (control-spec) as far as a node needs it: authentication, onion services, circuits, events.

The lines are tor's own; nothing here starts a process or decides when to try again (``obscura.daemon.tor``).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from obscura.errors import UserError
from obscura.limits import TOR_COOKIE_BYTES, TOR_LINE_BYTES, TOR_POW_RATE, TOR_REPLY_BYTES, TOR_REPLY_LINES, TOR_REPLY_S
from obscura.transport.through import keep_alive
from obscura.transport.tor_words import KEY_TYPE, endpoint_of, is_private_key, progress_of, quoted, unquoted, x25519_key
from obscura.wire.address import Endpoint

_SERVER = b"Tor safe cookie authentication server-to-controller hash"
_CONTROLLER = b"Tor safe cookie authentication controller-to-server hash"
_UNKNOWN = frozenset({510, 512, 513})  # the command, or one of its words, is not known to this tor


class TorFault(UserError):
    """Tor cannot be used, or refused something; one sentence for the operator."""

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


class Reply(NamedTuple):
    """A positive answer: its lines without status codes, a data block below its line."""

    status: int
    lines: tuple[str, ...]

    def value(self, key: str) -> str | None:
        """What follows ``key=``, unquoted; None if there is none."""
        for line in self.lines:
            name, equals, value = line.partition("=")
            if equals and name == key:
                return unquoted(value)
        return None


class OnionService(NamedTuple):
    """What tor publishes: 56 characters, and the private key as tor writes it (``ED25519-V3:BASE64``)."""

    name: str
    private_key: str


class TorControl:
    """One control connection. ``on_event`` gets the text of each asynchronous reply, such as ``HS_DESC UPLOADED ...``.

    Onion services that were added live as long as the connection.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._asked: deque[asyncio.Future[Reply | TorFault]] = deque()  # what it has not answered yet, in order
        self._left = (0, 0)  # lines and bytes that the reply under way may still have
        self._one_at_a_time = asyncio.Lock()
        self._task = asyncio.get_running_loop().create_task(self._read())
        self.closed = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        place: Endpoint | Path,
        *,
        password: str | None = None,
        on_event: Callable[[str], None] = lambda text: None,
    ) -> AsyncIterator[TorControl]:
        """An authenticated connection to a control port or Unix socket. Raises ``TorFault``."""
        try:
            async with asyncio.timeout(TOR_REPLY_S):
                if isinstance(place, Path):
                    reader, writer = await asyncio.open_unix_connection(place, limit=TOR_LINE_BYTES)
                else:
                    reader, writer = await asyncio.open_connection(place.host_text, place.port, limit=TOR_LINE_BYTES)
                    keep_alive(writer.get_extra_info("socket"))
        except PermissionError:
            raise TorFault(f"tor's control socket {place} may not be opened: {_JOIN_GROUP}") from None
        except OSError:
            raise TorFault(f"no tor listens for control at {place}: is ControlPort set in its torrc?") from None
        control = cls(reader, writer, on_event)
        try:
            await control.authenticate(password)
            yield control
        finally:
            await control.close()

    async def close(self) -> None:
        """End the connection, and with it the onion services that were added through it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, command: str) -> Reply:
        """One command and its answer. Raises ``TorFault`` with tor's own words for a negative one."""
        if "\r" in command or "\n" in command:
            raise ValueError("a command is one line")
        async with self._one_at_a_time:
            if self.closed.is_set():
                raise TorFault("the control connection to tor is gone")
            asked: asyncio.Future[Reply | TorFault] = asyncio.get_running_loop().create_future()
            self._asked.append(asked)  # where a cancelled one stays: its answer is not that of the next question
            try:
                self._writer.write(command.encode() + b"\r\n")
                async with asyncio.timeout(TOR_REPLY_S):
                    await self._writer.drain()
                    answer = await asked
            except TimeoutError:
                self._task.cancel()  # a late answer must not be taken for that to another question
                raise TorFault(f"tor did not answer within {TOR_REPLY_S:.0f} s") from None
            except OSError:
                raise TorFault("the control connection to tor broke") from None
        if isinstance(answer, TorFault):
            raise answer
        return answer

    async def get(self, key: str) -> str:
        """A ``GETINFO`` value; a data block as it is. Raises ``TorFault``."""
        answer = await self.ask(f"GETINFO {key}")
        return answer.lines[0].partition("=")[2].removeprefix("\n")

    # --- Authentication (control-spec 3.5, 3.21, 3.24) ----------------------------------------------------------------

    async def authenticate(self, password: str | None = None) -> None:
        """By password if one is given, else by whatever tor offers: nothing, safe cookie, cookie. Raises ``TorFault``.

        Security: the method COOKIE hands over the file that the other side names, so it is for Unix sockets alone, which stand
        where only tor may put one. Whoever has the port of a tor that is down would be given tor's own cookie, or one of our
        channel keys, which have 32 bytes too (control-spec 3.24). Every tor with services of version 3 offers SAFECOOKIE.
        """
        answer = await self.ask("PROTOCOLINFO 1")
        line = next((line for line in answer.lines if line.startswith("AUTH ")), "")
        found = re.match(r'AUTH METHODS=([A-Z,]+)(?: COOKIEFILE=("(?:[^"\\]|\\.)*"))?', line)
        if found is None:
            raise TorFault("what listens at tor's control port does not say how to authenticate: is it tor?")
        methods = found[1].split(",")
        if password is not None:
            await self._log_in(quoted(password), "the password is wrong: see tor-daemon.password")
        elif "NULL" in methods:
            await self._log_in("", "tor wants no authentication, and refuses")
        elif found[2] is not None and "SAFECOOKIE" in methods:
            proof = await self._prove(await asyncio.to_thread(_read_cookie, Path(unquoted(found[2]))))
            await self._log_in(proof.hex(), "the cookie is wrong: it is not that of the tor that listens here")
        elif found[2] is not None and "COOKIE" in methods:
            if self._writer.get_extra_info("socket").family != socket.AF_UNIX:
                raise TorFault(
                    "what listens at tor's control port wants the cookie itself, which no tor of today does: "
                    "is it tor? If it is, set ControlSocket in its torrc, or tor-daemon.password"
                )
            cookie = await asyncio.to_thread(_read_cookie, Path(unquoted(found[2])))
            await self._log_in(cookie.hex(), "the cookie is wrong: it is not that of the tor that listens here")
        else:
            raise TorFault("tor wants a password on its control port: set tor-daemon.password")

    async def _log_in(self, proof: str, refused: str) -> None:
        try:
            await self.ask(f"AUTHENTICATE {proof}".rstrip())
        except TorFault as fault:
            if fault.status == 515:
                raise TorFault(f"tor refuses us: {refused}", fault.status) from None
            raise

    async def _prove(self, cookie: bytes) -> bytes:
        """Show that we know the cookie to whoever shows that it does."""
        ours = secrets.token_bytes(32)
        answer = await self.ask(f"AUTHCHALLENGE SAFECOOKIE {ours.hex()}")
        found = re.search(r"SERVERHASH=([0-9A-F]{64}) SERVERNONCE=([0-9A-F]{64})\b", answer.lines[0], re.IGNORECASE)
        if found is None:
            raise TorFault("tor's answer to the challenge cannot be understood")
        message = cookie + ours + bytes.fromhex(found[2])
        if not hmac.compare_digest(hmac.digest(_SERVER, message, hashlib.sha256), bytes.fromhex(found[1])):
            raise TorFault("what listens at the control port does not know tor's cookie: it is not that tor")
        return hmac.digest(_CONTROLLER, message, hashlib.sha256)

    # --- Onion services (control-spec 3.27) -----------------------------------------------------------------------------

    async def add_onion(
        self,
        port: int,
        target: Endpoint,
        private_key: str | None = None,
        *,
        clients: Iterable[bytes] = (),
        is_defended: bool = True,
    ) -> OnionService:
        """Publish an onion service whose ``port`` leads to ``target``; ``private_key`` None makes a new one.

        ``clients``: public x25519 keys of those who are admitted, none = everybody. ``is_defended``: with proof of work where
        this tor can. Raises ``TorFault``.
        """
        admitted = [base64.b32encode(x25519_key(key)).decode().rstrip("=") for key in clients]
        words = [f"ADD_ONION {private_key or f'NEW:{KEY_TYPE}'}"]
        words += ["Flags=V3Auth"] if admitted else []
        rate, burst = TOR_POW_RATE
        defence = [f"PoWDefensesEnabled=1 PoWQueueRate={rate} PoWQueueBurst={burst}"] if is_defended else []
        place = [f"Port={port},{target}", *(f"ClientAuthV3={key}" for key in admitted)]
        try:
            answer = await self.ask(" ".join(words + defence + place))
        except TorFault as fault:
            if not defence or fault.status not in _UNKNOWN:
                raise
            answer = await self.ask(" ".join(words + place))
        name, made = answer.value("ServiceID"), answer.value("PrivateKey")
        key = made or private_key
        if name is None or key is None or not is_private_key(key):
            raise TorFault("tor's answer to ADD_ONION cannot be understood")
        return OnionService(name, key)

    async def remove_onion(self, name: str) -> None:
        """Take an onion service off the network. Raises ``TorFault``."""
        await self.ask(f"DEL_ONION {name}")

    async def admit_to(self, name: str, private_key: bytes) -> None:
        """Let this tor reach an onion service that admits only those with a key. Raises ``TorFault``."""
        text = base64.b64encode(x25519_key(private_key)).decode()
        await self.ask(f"ONION_CLIENT_AUTH_ADD {name.removesuffix('.onion')} x25519:{text}")

    async def fetch_anew(self, name: str) -> None:
        """Have the descriptor of an onion service fetched again: the one at hand may be stale. Raises ``TorFault``."""
        await self.ask(f"HSFETCH {name.removesuffix('.onion')}")

    # --- What tor is doing ------------------------------------------------------------------------------------------------

    async def listen_for(self, *events: str) -> None:
        """Have these events told from now on. Raises ``TorFault``."""
        await self.ask(f"SETEVENTS {' '.join(events)}")

    async def socks(self) -> list[Endpoint]:
        """Where it takes SOCKS connections over TCP, on its own machine. Raises ``TorFault``.

        Security: a place elsewhere is not tor's, and whoever named it would hear of everything that we dial.
        """
        found = re.findall(r'"([^"]*)"', await self.get("net/listeners/socks"))
        peer = self._writer.get_extra_info("peername")
        own = peer[0] if isinstance(peer, tuple) else "127.0.0.1"  # of a Unix socket: this machine
        places = [place for place in map(endpoint_of, found) if place is not None]
        here = [Endpoint.of(own, p.port) if not any(p.host) else p for p in places]  # of 0.0.0.0: where we found it
        return [place for place in here if place is not None and (place.is_loopback or place.host_text == own)]

    async def bootstrapped(self) -> tuple[int, str]:
        """Per cent, and tor's word for what it is at. Raises ``TorFault``."""
        return progress_of(await self.get("status/bootstrap-phase"))

    async def circuits_by_target(self) -> dict[str, set[str]]:
        """Circuit numbers of the open streams to each ``host:port``. Raises ``TorFault``."""
        found: dict[str, set[str]] = {}
        for line in (await self.get("stream-status")).splitlines():
            words = line.split()
            if len(words) >= 4 and words[1] == "SUCCEEDED":
                found.setdefault(words[3], set()).add(words[2])
        return found

    # --- Lines --------------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                status, lines = await self._reply()
                if 600 <= status < 700:
                    self._on_event("\n".join(lines))
                    continue
                if not self._asked:  # it would be taken for that to the next question
                    raise ValueError("an answer to nothing")
                is_taken = 200 <= status < 300
                answer = Reply(status, tuple(lines)) if is_taken else TorFault(f"tor answers: {lines[-1]}", status)
                if not (asked := self._asked.popleft()).done():
                    asked.set_result(answer)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # gone, or no control protocol
            pass
        finally:
            self.closed.set()
            for asked in self._asked:
                if not asked.done():
                    asked.set_result(TorFault("the control connection to tor is gone"))

    async def _reply(self) -> tuple[int, list[str]]:
        """Status of the last line and all texts (control-spec 2.3). Raises ``ValueError`` for what is no reply."""
        lines: list[str] = []
        self._left = (TOR_REPLY_LINES, TOR_REPLY_BYTES)
        while True:
            line = await self._line()
            status, mark, text = int(line[:3]), line[3:4], line[4:]
            if mark == "+":
                text += "\n" + "\n".join([line async for line in self._data()])
            elif mark not in ("-", " "):
                raise ValueError("no mark behind the status")
            lines.append(text)
            if mark == " ":
                return status, lines

    async def _data(self) -> AsyncIterator[str]:
        while (line := await self._line()) != ".":
            yield line[1:] if line.startswith(".") else line

    async def _line(self) -> str:
        raw = await self._reader.readuntil(b"\n")
        self._left = (self._left[0] - 1, self._left[1] - len(raw))
        if min(self._left) < 0:
            raise ValueError("a reply that is too long")
        return raw.decode("utf-8", "replace").rstrip("\r\n")


_JOIN_GROUP = "add this user to the group that may (on Debian: adduser USER debian-tor, then log in anew)"


def _read_cookie(path: Path) -> bytes:
    """32 bytes and nothing else, so that nothing is proved of any other file."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            cookie = file.read(TOR_COOKIE_BYTES + 1) or b""
    except PermissionError:
        raise TorFault(f"tor's cookie {path} may not be read: {_JOIN_GROUP}") from None
    except OSError as error:
        raise TorFault(f"tor's cookie {path} cannot be read: {(error.strerror or 'fault').lower()}") from None
    if len(cookie) != TOR_COOKIE_BYTES:
        raise TorFault(f"tor's cookie {path} has not {TOR_COOKIE_BYTES} bytes: it is no cookie of tor")
    return cookie


def _at_once(path: str, flags: int) -> int:
    """It may be a pipe in which nobody writes."""
    return os.open(path, flags | os.O_NONBLOCK)
