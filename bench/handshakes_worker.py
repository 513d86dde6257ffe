"""``python -m bench.handshakes_worker listen|dial [ADDRESS]``: channels over TCP with nothing above them."""

from __future__ import annotations

import asyncio
import sys
import time
from random import SystemRandom

from bench.worker import commands, run, say
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.connection import Connection, Dialling, Ended, Listening, Opened
from obscura.handshake.features import BUILT, CORE
from obscura.handshake.machine import Offer
from obscura.limits import PROTOCOL_VERSION, READ_CHUNK
from obscura.morph.plain import Plain
from obscura.shaping.levels import Knobs, padneg
from obscura.transport import tcp
from obscura.wire.address import Address, CarrierNumber
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.messages.network import Version

AT_ONCE = 16  # connections in flight
NETWORK = b"obscura bench"
CLEARNET = 0


class Ends:
    """The owner of the sockets of one side: one connection each, until its channel is up."""

    def __init__(self, static: StaticKey, *, dials: bool) -> None:
        self.receive_buffer = memoryview(bytearray(READ_CHUNK))
        self.leaving: dict[tcp.Socket, None] = {}
        self._rng = SystemRandom()
        self._dials = dials
        self._security: Dialling | Listening = (
            Dialling(NETWORK, CLEARNET, static.public)
            if dials
            else Listening(NETWORK, CLEARNET, static, False, ReplayCache(), lambda: True)
        )
        self._connections: dict[tcp.Socket, Connection] = {}
        self._flags = BUILT.with_(CORE)
        self.done: dict[object, asyncio.Future[None]] = {}

    def _offer(self) -> Offer:
        flags = self._flags
        version = Version(
            protocol_version=PROTOCOL_VERSION,
            timestamp=int(time.time()),
            feature_flags=flags.features,
            privacy_feature_flags=flags.privacy,
            user_agent="bench",
            best_block_hash=bytes(32),
            best_block_height=0,
            nonce=self._rng.getrandbits(64),
            extensions=(),
        )
        return Offer(version=version, padneg=padneg(Knobs()), demanded=CORE)

    def socket_up(self, link: tcp.Socket) -> None:
        connection = Connection(
            Plain(self._rng, client=self._dials),
            self._security,
            self._offer(),
            CATALOGUE,
            self._rng,
            lambda: int(time.time()),
            initiator=self._dials,
            now=time.monotonic(),
        )
        self._connections[link] = connection
        connection.start(time.monotonic())
        link.write(connection.flush(time.monotonic()))

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None:
        now = time.monotonic()
        connection = self._connections.get(link)
        if connection is None:
            return
        events = connection.receive(data, now)
        link.write(connection.flush(now))
        for event in events:
            if isinstance(event, Ended):
                raise AssertionError(event)
            if isinstance(event, Opened) and self._dials:
                del self._connections[link]
                link.shut()
                self.done.pop(link.tag).set_result(None)

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None:
        """So little is written that it does not matter."""

    def socket_down(self, link: tcp.Socket) -> None:
        self._connections.pop(link, None)
        link.shut()


async def listen() -> None:
    """Answer whoever knows the key; each command is answered when it comes."""
    static = StaticKey.generate(SystemRandom())
    here = Address(static.public, "127.0.0.1", 0, CarrierNumber.PLAIN)
    server, port = await tcp.listen(Ends(static, dials=False), here, None)
    say(address=f"{port} {static.secret().hex()}")
    async for _ in commands():
        pass
    server.close()


async def dial(address: str) -> None:
    """Open channels, ``AT_ONCE`` beside each other."""
    port, secret = address.split()
    static = StaticKey.from_bytes(bytes.fromhex(secret))
    ends, there = Ends(static, dials=True), Address(static.public, "127.0.0.1", int(port), CarrierNumber.PLAIN)
    loop = asyncio.get_running_loop()

    async def some(lane: int, count: int) -> None:
        for number in range(count):
            tag = lane, number
            done = ends.done[tag] = loop.create_future()
            why = await tcp.dial(ends, there, tag)
            if why is not None:
                raise AssertionError(why)
            await done

    say(ready=True)
    async for command in commands():
        start, count = time.monotonic(), command["count"]
        await asyncio.gather(*(some(lane, count // AT_ONCE + (lane < count % AT_ONCE)) for lane in range(AT_ONCE)))
        say(seconds=time.monotonic() - start)


if __name__ == "__main__":
    run(lambda folder: listen() if sys.argv[1] == "listen" else dial(sys.argv[2]))
