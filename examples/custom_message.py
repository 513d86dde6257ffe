"""A message of one's own in twenty lines: its type, what happens when it comes, and a feature bit that says who understands it.

Run it: python examples/custom_message.py
"""

import asyncio
import tempfile
from pathlib import Path
from typing import ClassVar, Self

from obscura import Config, Node
from obscura.errors import DecodeError
from obscura.wire.message import Message

GREETS = 0x100  # a general feature bit; the application's own ones begin here


class Greeting(Message, frozen=True):
    """A name of up to 40 bytes. ``decode`` is the one place where a stranger's bytes are judged."""

    TYPE: ClassVar[str] = "greeting"
    MAX_SIZE: ClassVar[int] = 40

    name: str

    def encode(self) -> bytes:
        return self.name.encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        if not payload.isascii():
            raise DecodeError("a name that is not ASCII")  # costs the sender points, not us a link
        return cls(payload.decode())


async def main() -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        alice = Node(Config(network="dev", data_dir=Path(one), listen=("127.0.0.1:0",)))
        bob = Node(Config(network="dev", data_dir=Path(two), listen=()))
        heard: asyncio.Queue[str] = asyncio.Queue()
        alice.register(Greeting, lambda peer, message, now: heard.put_nowait(message.name), feature=GREETS)
        bob.register(Greeting, lambda peer, message, now: None, feature=GREETS)
        async with alice, bob:
            peer = await bob.connect(alice.addresses[0])
            print("both understand it:", "feature-bit-8" in peer.negotiated.flags.names)
            bob.send(peer, Greeting("bob"))
            print("alice hears:", await asyncio.wait_for(heard.get(), 20))


asyncio.run(main())
