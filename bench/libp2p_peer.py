"""``libp2p_peer.py receive|send SIZE [ADDRESS]``: one end of a py-libp2p link, run by the interpreter that has it.

TCP, Noise, yamux, all of them the library's defaults; one ``stream.write`` per message, as its users do. What favours it: its
receiver takes whatever has arrived and counts bytes; it parses and verifies no message.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from typing import Any

import trio
from libp2p import new_host
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

PROTOCOL = "/bench/1.0.0"
LIFE_S = 600
READ_BYTES = 256 << 10


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


async def command() -> dict[str, Any] | None:
    text = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return json.loads(text) if text else None


class Sink:
    def __init__(self) -> None:
        self.missing = 0
        self.done = trio.Event()

    async def on_stream(self, stream: Any) -> None:
        while data := await stream.read(READ_BYTES):
            self.missing -= len(data)
            if self.missing == 0:
                self.done.set()


async def receive(size: int) -> None:
    host, sink = new_host(), Sink()
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.set_stream_handler(PROTOCOL, sink.on_stream)
        place = str(host.get_transport_addrs()[0])
        say(address=place if "/p2p/" in place else f"{place}/p2p/{host.get_id()}")
        while (told := await command()) is not None:
            sink.missing, sink.done = told["expect"] * size, trio.Event()
            cpu = time.process_time()
            say(ready=True)
            await sink.done.wait()
            say(end=time.monotonic(), cpu=time.process_time() - cpu)


async def send(size: int, address: str) -> None:
    host, filler = new_host(), bytes(i % 251 for i in range(size - 8))
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        info = info_from_p2p_addr(Multiaddr(address))
        await host.connect(info)
        stream = await host.new_stream(info.peer_id, [PROTOCOL])
        say(connected=True)
        while (told := await command()) is not None:
            cpu, start = time.process_time(), time.monotonic()
            for number in range(told["send"]):
                await stream.write(number.to_bytes(8, "little") + filler)
            say(start=start, cpu=time.process_time() - cpu)


def main(role: str, size: str, *address: str) -> None:
    signal.alarm(LIFE_S)
    logging.disable(logging.CRITICAL)
    try:
        if role == "receive":
            trio.run(receive, int(size))
        else:
            trio.run(send, int(size), address[0])
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
