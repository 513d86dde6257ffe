"""``python -m bench.carriers_worker receive NAME | send ADDRESS``: one end of a carrier alone, on the node's own sockets.

No channel and no frames: what goes into ``send`` at one end comes out as ``Data`` at the other, and is counted there.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

from bench.worker import commands, run, say
from obscura.channel.uniform import StaticKey
from obscura.daemon.covers import Covers, CoverSettings
from obscura.limits import FLUSH_BYTES, READ_CHUNK
from obscura.morph.carrier import Carrier, CarrierEvent, CarrierFactory, Data, Finished, Flight, Ready
from obscura.morph.kinds import CLIENTS
from obscura.transport import tcp
from obscura.wire.address import Address

NETWORK_ID = bytes(32)
KEY_SECRET = bytes(range(32))
RECORD = 64 << 10  # bytes that small messages are joined to, as a link's records join its frames


class End:
    """One connection: the carrier, its socket, its clock. Owner of its socket."""

    def __init__(self, make: CarrierFactory, *, is_client: bool) -> None:
        self.receive_buffer = memoryview(bytearray(READ_CHUNK))
        self.leaving: dict[tcp.Socket, None] = {}
        self._make = make
        self._is_client = is_client
        self._carrier: Carrier | None = None
        self._link: tcp.Socket | None = None
        self._is_writable = True
        self._timer: asyncio.TimerHandle | None = None
        self._messages: Iterator[bytes] = iter(())
        self.opened = asyncio.Event()
        self.sent = asyncio.Event()
        self.began = asyncio.Event()  # the first byte of a run left: a carrier that polls may have to wait for it
        self.first_write = 0.0
        self.arrived = asyncio.Event()
        self._expected, self._kept = inf, 0
        self.received = 0
        self.tail = bytearray()

    # --- The socket's owner -----------------------------------------------------------------------------------------

    def socket_up(self, link: tcp.Socket) -> None:
        self._link, self._carrier, self._is_writable = link, self._make(random.SystemRandom()), True
        self._on(self._carrier.start(time.monotonic()))
        if self._carrier.STREAMED:
            self.opened.set()
        self._step()

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None:
        assert self._carrier is not None
        self._on(self._carrier.receive(data, time.monotonic()))
        self._step()

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None:
        self._is_writable = is_writable
        self._step()

    def socket_down(self, link: tcp.Socket) -> None:
        link.shut()
        self._link = None

    # --- The carrier ------------------------------------------------------------------------------------------------

    def _on(self, events: list[CarrierEvent]) -> None:
        carrier, now = self._carrier, time.monotonic()
        assert carrier is not None
        for event in events:
            if type(event) is Data:
                self._count(event.data)
            elif isinstance(event, Ready) and not carrier.STREAMED:
                carrier.send_flight(bytes(event.flight_size[0]), now)
            elif isinstance(event, Flight):
                if not self._is_client:
                    carrier.send_flight(bytes(event.answer_size[0]), now)
                self.opened.set()
            elif isinstance(event, Finished) and self._link is not None:
                self._link.shut()

    def _count(self, data: bytes | memoryview) -> None:
        self.received += len(data)
        if self.received > self._expected - self._kept:
            self.tail += data
        if self.received >= self._expected:
            self.arrived.set()

    def _step(self) -> None:
        """Write what may be written, and note when the carrier wants to be asked again."""
        carrier, link = self._carrier, self._link
        if carrier is None or link is None:
            return
        self._write(link, carrier)
        while self._is_writable and not carrier.is_blocked and not self.sent.is_set():
            size, now = 0, time.monotonic()
            for message in self._messages:
                carrier.send(message, now)
                size += len(message)
                if size >= FLUSH_BYTES or carrier.is_blocked:
                    break
            else:
                self.sent.set()
            self._write(link, carrier)
        self._arm(carrier)

    def _write(self, link: tcp.Socket, carrier: Carrier) -> None:
        pieces = carrier.take()
        if pieces:
            if not self.began.is_set():
                self.first_write = time.monotonic()
                self.began.set()
            link.write(pieces)

    def _arm(self, carrier: Carrier) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = carrier.deadline()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, when - time.monotonic()), self._due) if when < inf else None

    def _due(self) -> None:
        assert self._carrier is not None
        self._on(self._carrier.due(time.monotonic()))
        self._step()

    # --- What a run does --------------------------------------------------------------------------------------------

    def expect(self, count: int, size: int) -> None:
        """From now on count what arrives, up to so many messages."""
        self.received, self._expected, self._kept = 0, count * size, size
        self.tail.clear()
        self.arrived.clear()

    def check(self, count: int, size: int) -> None:
        """Whether the last message is the one that was sent last."""
        last = bytes(self.tail[-size:])
        if self.received != count * size or last != next(messages(1, size, first=count - 1)):
            raise AssertionError("what arrived is not what was sent")

    async def send(self, count: int, size: int) -> None:
        """Give the carrier so many messages, as fast as the socket takes them."""
        self.sent.clear()
        self.began.clear()
        self._messages = joined(messages(count, size), RECORD) if size < 1_000 else messages(count, size)
        self._step()
        await self.sent.wait()


def messages(count: int, size: int, *, first: int = 0) -> Iterator[bytes]:
    """Distinct messages."""
    filler = bytes(i % 251 for i in range(size - 8))
    for number in range(first, first + count):
        yield number.to_bytes(8, "little") + filler


def joined(each: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Runs of about ``size`` bytes."""
    run: list[bytes] = []
    waiting = 0
    for message in each:
        run.append(message)
        waiting += len(message)
        if waiting >= size:
            yield b"".join(run)
            run, waiting = [], 0
    if run:
        yield b"".join(run)


async def receive(folder: str, name: str) -> None:
    """Listen with the carrier's stock cover; for each ``expect`` tell when so much has arrived."""
    place = Address.parse(f"127.0.0.1:0?{name}", listening=True)
    static = StaticKey.from_bytes(KEY_SECRET)
    make = Covers(CoverSettings(), Path(folder), NETWORK_ID).carrier_of(place, static, strangers=False)
    end = End(make, is_client=False)
    server, port = await tcp.listen(end, place, None)
    options = str(place).partition("?")[2]
    say(address=f"{Address(static.public, '127.0.0.1', port)}" + (f"?{options}" if options else ""))
    async for command in commands():
        count, size = command["expect"], command["size"]
        end.expect(count, size)
        cpu = time.process_time()
        say(ready=True)
        await end.arrived.wait()
        ended = time.monotonic()
        end.check(count, size)
        say(end=ended, cpu=time.process_time() - cpu)
    server.close()


async def send(address: Address) -> None:
    """Dial; for each ``send`` send so many messages."""
    end = End(lambda rng: CLIENTS[address.carrier](address, rng, NETWORK_ID), is_client=True)
    missed = await tcp.dial(end, address, None)
    if missed is not None:
        raise AssertionError(missed.why)
    async with asyncio.timeout(30):
        await end.opened.wait()
    say(connected=True)
    async for command in commands():
        cpu = time.process_time()
        await end.send(command["send"], command["size"])
        await end.began.wait()
        say(start=end.first_write, cpu=time.process_time() - cpu)


def main(role: str, text: str) -> None:
    if role == "receive":
        run(lambda folder: receive(folder, text))
    else:
        run(lambda folder: send(Address.parse(text)))


if __name__ == "__main__":
    main(*sys.argv[1:])
