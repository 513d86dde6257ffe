"""SAM v3 as a client: sessions, streams both ways and lookups of an I2P router. The lines are in ``sam_words``.

A session lives as long as its control connection. Every stream and every lookup is a connection of its own to the bridge; once
a stream's line was answered, that connection is the stream. Nothing here decides when to try again (``obscura.daemon.i2p``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Mapping

from obscura.limits import I2P_SESSION_S, SAM_LINE_BYTES, SAM_LOOKUP_S, SAM_REPLY_S
from obscura.transport import sam_words
from obscura.transport.sam_words import ABSENT, Destination, PrivateDestination, Reply, parse_reply
from obscura.transport.through import ThroughFault, keep_alive
from obscura.wire.address import Endpoint


class SamFault(ThroughFault):
    """The router cannot be used, or refused something; one phrase for the operator. ``result`` is the router's own word."""

    def __init__(self, why: str, *, result: str = "", is_offline: bool = False, is_late: bool = False) -> None:
        super().__init__(why, is_offline=is_offline, is_late=is_late)
        self.result = result


class Sam:
    """The SAM bridge that listens at one place."""

    def __init__(self, place: Endpoint) -> None:
        self.place = place
        self.version: str | None = None  # that the router chose last

    async def greet(self) -> None:
        """See whether it is there. Raises ``SamFault``."""
        async with self._greeted():
            pass

    async def generate(self) -> PrivateDestination:
        """A new destination; the router keeps nothing of it. Raises ``SamFault``."""
        async with self._greeted() as sock:
            reply = await _ask(sock, sam_words.generate(), "DEST REPLY", SAM_REPLY_S)
        return _private(reply.values.get("PRIV", ""))

    async def lookup(self, name: str) -> Destination:
        """The destination of a ``.b32.i2p`` name, compared with it, or of one in the router's address book. Raises ``SamFault``.

        The router asks through tunnels of its own, so that lookups say nothing of our sessions.
        """
        async with self._greeted() as sock:
            try:
                line = sam_words.lookup(name)
            except ValueError as fault:
                raise SamFault(str(fault)) from None
            reply = await _ask(sock, line, "NAMING REPLY", SAM_LOOKUP_S, ABSENT)
        if reply.result in ABSENT:
            raise SamFault(sam_words.RESULTS["KEY_NOT_FOUND"], result="KEY_NOT_FOUND")
        try:
            found = Destination.parse(reply.values.get("VALUE", ""))
        except ValueError:
            raise SamFault(_NOT_UNDERSTOOD, is_offline=True) from None
        if name.endswith(".b32.i2p") and found.host != name:
            raise SamFault("the I2P router answers with another destination than was asked for")
        return found

    @contextlib.asynccontextmanager
    async def session(
        self, rng: random.Random, options: Mapping[str, object], own: PrivateDestination | None = None
    ) -> AsyncIterator[Session]:
        """A session for streams, with the destination ``own`` or one that nobody used before. Raises ``SamFault``.

        It is there once its tunnels are: after 20 s with i2pd 2.45 at the earliest, after minutes if the router has just started.
        """
        name = rng.randbytes(8).hex()  # nobody can guess it, and no other node has it
        async with self._greeted() as sock:
            line = sam_words.create(name, own.text if own is not None else sam_words.TRANSIENT, options)
            reply = await _ask(sock, line, "SESSION STATUS", I2P_SESSION_S)
            made = _private(reply.values.get("DESTINATION", ""))
            if own is not None and made != own:
                raise SamFault("the I2P router made a session of another destination than was asked for")
            session = Session(self, name, made.public, sock)
            try:
                yield session
            finally:
                await session.end()

    @contextlib.asynccontextmanager
    async def _greeted(self) -> AsyncIterator[socket.socket]:
        """A connection to the bridge, closed at the end of the block. Raises ``SamFault``."""
        with await self.open() as sock:
            yield sock

    async def open(self) -> socket.socket:
        """A connection to the bridge that has said hello. Raises ``SamFault``."""
        host = self.place.host_text
        with contextlib.ExitStack() as until_greeted:
            try:
                sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            except OSError as error:  # no descriptor is free
                raise SamFault(f"no socket can be made: {error.strerror}", is_offline=True) from None
            until_greeted.enter_context(sock)
            sock.setblocking(False)
            try:
                async with asyncio.timeout(SAM_REPLY_S):
                    await asyncio.get_running_loop().sock_connect(sock, (host, self.place.port))
            except OSError:  # TimeoutError among it
                raise SamFault(
                    f"no I2P router listens for SAM at {self.place}: apt install i2pd, or set i2p-router.sam",
                    is_offline=True,
                ) from None
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)
            reply = await _ask(sock, sam_words.hello(), "HELLO REPLY", SAM_REPLY_S)
            self.version = reply.values.get("VERSION", "")[:16]
            until_greeted.pop_all()
        return sock


class Session:
    """Streams from and to one destination. Over when ``closed`` is set: the router ended, or ended it."""

    def __init__(self, sam: Sam, name: str, destination: Destination, control: socket.socket) -> None:
        self.destination = destination
        self.closed = asyncio.Event()
        self._sam = sam
        self._name = name
        self._control = control
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def connect(self, destination: Destination) -> socket.socket:
        """A stream. Raises ``SamFault``.

        Not to be taken for an answer of the peer: i2pd says OK once it knows where the peer is. Whoever speaks over the stream
        needs a time-out of its own.
        """
        with contextlib.ExitStack() as until_open:
            sock = until_open.enter_context(await self._sam.open())
            await _ask(sock, sam_words.connect(self._name, destination), "STREAM STATUS", SAM_LOOKUP_S)
            until_open.pop_all()
        return sock

    async def accept(self) -> tuple[socket.socket, Destination]:
        """The next stream that comes in, and from where. Raises ``SamFault``. Several may wait at once."""
        with contextlib.ExitStack() as until_open:
            sock = until_open.enter_context(await self._sam.open())
            await _ask(sock, sam_words.accept(self._name), "STREAM STATUS", SAM_REPLY_S)
            try:
                line = await _line(sock)  # as long as it takes; SAM 3.2 adds ports behind the destination
            except TimeoutError:  # the router's machine is gone
                raise SamFault(_GONE, is_offline=True) from None
            try:
                peer = Destination.parse((line.split() or [""])[0])
            except ValueError:
                raise SamFault(_NOT_UNDERSTOOD, is_offline=True) from None
            until_open.pop_all()
        return sock, peer

    async def end(self) -> None:
        """End the session; the router takes its streams down."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._control.close()

    async def _watch(self) -> None:
        """Nothing comes here but the end, and PING (SAM 3.2), which wants an answer."""
        try:
            while True:
                line = await _line(self._control)
                if line.partition(" ")[0] == "PING":
                    await _send(self._control, "PONG" + line[4:])
        except SamFault:
            pass
        finally:
            self.closed.set()


_NOT_UNDERSTOOD = "what listens at i2p-router.sam cannot be understood: is it the SAM bridge of an I2P router?"
_GONE = "the I2P router ended the connection"


def _private(text: str) -> PrivateDestination:
    try:
        return PrivateDestination.parse(text)
    except ValueError:
        raise SamFault("the I2P router gives no Ed25519 destination", is_offline=True) from None


async def _ask(
    sock: socket.socket, line: str, words: str, timeout_s: float, results: frozenset[str] = frozenset()
) -> Reply:
    """One line and its answer, which is to begin with ``words`` and be OK or one of ``results``. Raises ``SamFault``."""
    try:
        async with asyncio.timeout(timeout_s):
            await _send(sock, line)
            reply = parse_reply(await _line(sock))
    except TimeoutError:
        # It has said hello on this connection, and may wait for somebody itself: that says nothing of it.
        is_ours = words not in ("STREAM STATUS", "NAMING REPLY")
        why = f"the I2P router did not answer within {timeout_s:.0f} s"
        raise SamFault(why, is_offline=is_ours, is_late=True) from None
    is_good = reply.result == "OK" or (words == "DEST REPLY" and "PRIV" in reply.values)
    if reply.words != words:
        raise SamFault(_NOT_UNDERSTOOD, is_offline=True)
    if not is_good and reply.result not in results:
        raise SamFault(reply.why, result=reply.result, is_offline=words in ("HELLO REPLY", "SESSION STATUS"))
    return reply


async def _send(sock: socket.socket, line: str) -> None:
    try:
        await asyncio.get_running_loop().sock_sendall(sock, line.encode() + b"\n")
    except TimeoutError:
        raise
    except OSError:
        raise SamFault(_GONE, is_offline=True) from None


async def _line(sock: socket.socket) -> str:
    """One line and none of what follows, which is the peer's. Raises ``SamFault``.

    Security: byte by byte, so that nothing has to be given back, and no longer than a line may be.
    """
    loop = asyncio.get_running_loop()
    line = bytearray()
    while len(line) < SAM_LINE_BYTES:
        try:
            byte = await loop.sock_recv(sock, 1)
        except TimeoutError:
            raise
        except OSError:
            raise SamFault(_GONE, is_offline=True) from None
        if not byte:
            raise SamFault(_GONE, is_offline=True)
        if byte == b"\n":
            return line.decode("utf-8", "replace").rstrip("\r")
        line += byte
    raise SamFault(_NOT_UNDERSTOOD, is_offline=True)
