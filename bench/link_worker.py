"""``python -m bench.link_worker receive|send SIZE RULE LOOP OPTIONS|ADDRESS``: one end of the link of bench.link."""

from __future__ import annotations

import asyncio
import sys
import time

from bench.worker import commands, node, run, say
from obscura.node.peer import Peer
from obscura.shaping.levels import PrivacyLevel
from obscura.shaping.padding import Rule
from obscura.wire.message import RawMessage
from obscura.wire.messages.blocks import Block
from obscura.wire.messages.transactions import Tx

BATCH_BYTES = 256 << 10  # what a sender queues before it waits for room


def kind(size: int) -> type[RawMessage]:
    """The message type of a payload size."""
    return Tx if size < 1_000 else Block


class Sink:
    """The reaction of the receiver: it counts, and looks at the last one."""

    def __init__(self) -> None:
        self.delivered = 0
        self.expected = -1
        self.last = b""
        self.done = asyncio.Event()

    def on_message(self, peer: Peer, message: RawMessage, now: float) -> None:
        self.delivered += 1
        if self.delivered == self.expected:
            self.last = message.raw
            self.done.set()


async def receive(folder: str, size: int, rule: Rule | PrivacyLevel, options: str) -> None:
    """Listen; for each ``expect`` tell when that many have been delivered."""
    async with node(folder, rule, f"127.0.0.1:0?{options}") as ours:
        sink = Sink()
        ours.assembly.core.routes[kind(size)] = sink.on_message  # in the place of the ledger's own
        say(address=str(ours.addresses[0]))
        async for command in commands():
            sink.delivered, sink.expected = 0, command["expect"]
            sink.done.clear()
            cpu = time.process_time()
            say(ready=True)
            await sink.done.wait()
            end = time.monotonic()
            if len(sink.last) != size or int.from_bytes(sink.last[:8], "little") != sink.expected - 1:
                raise AssertionError("the last message is not the one that was sent last")
            say(end=end, cpu=time.process_time() - cpu)


async def send(folder: str, size: int, rule: Rule | PrivacyLevel, address: str) -> None:
    """Connect; for each ``send`` build and send that many distinct messages."""
    message, filler, batch = kind(size), bytes(i % 251 for i in range(size - 8)), max(1, BATCH_BYTES // size)
    async with node(folder, rule) as ours:
        peer = await ours.connect(address)
        say(connected=True)
        async for command in commands():
            count, cpu, start = command["send"], time.process_time(), time.monotonic()
            for first in range(0, count, batch):
                for number in range(first, min(count, first + batch)):
                    ours.send(peer, message(number.to_bytes(8, "little") + filler))
                await ours.drained(peer)
            say(start=start, cpu=time.process_time() - cpu)


def main(role: str, size: str, rule: str, loop: str, place: str) -> None:
    padding = Rule[rule.upper()] if rule.upper() in Rule.__members__ else PrivacyLevel(rule)
    if role == "receive":
        run(lambda folder: receive(folder, int(size), padding, place), loop)
    else:
        run(lambda folder: send(folder, int(size), padding, place), loop)


if __name__ == "__main__":
    main(*sys.argv[1:])
