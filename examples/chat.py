"""A chat over the gossip network: what one says reaches everybody, over however many nodes in between.

Run it: python examples/chat.py                             four nodes in a row, in one process
Or between machines, a line of input for each thing said:
        python examples/chat.py --data-dir /tmp/a --listen '0.0.0.0:8443?carrier=tls'
        python examples/chat.py --data-dir /tmp/b obscura://KEY@HOST:8443?carrier=tls

Links are encrypted and shaped; what is said is flooded, so every node of the chat can read it, and who says much can be found by
who has many links. A chat that hides its authors would relay as transactions are relayed (docs/dandelion.md).
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Self

from obscura import Config, Node
from obscura.errors import DecodeError, UserError
from obscura.node.effects import Effect, Send
from obscura.node.peer import Peer
from obscura.wire.message import Message

CHATS = 0x200  # the feature bit of nodes that pass it on
ID_BYTES, MOST_BYTES = 16, 400
REMEMBERED = 10_000  # ids, so that nothing goes round for ever


class Said(Message, frozen=True):
    """A random id, then UTF-8 text."""

    TYPE: ClassVar[str] = "said"
    MAX_SIZE: ClassVar[int] = ID_BYTES + MOST_BYTES

    id: bytes
    text: str

    def encode(self) -> bytes:
        return self.id + self.text.encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        if len(payload) <= ID_BYTES:
            raise DecodeError("nothing is said")
        try:
            return cls(payload[:ID_BYTES], payload[ID_BYTES:].decode())
        except UnicodeDecodeError:
            raise DecodeError("what is said is not UTF-8") from None


class Chat:
    """One node's part in it."""

    def __init__(self, node: Node, hear: Callable[[str], None]) -> None:
        self._node, self._hear = node, hear
        self._seen: dict[bytes, None] = {}
        node.register(Said, self.on_said, feature=CHATS)

    def say(self, text: str) -> None:
        said = Said(os.urandom(ID_BYTES), text.encode()[:MOST_BYTES].decode(errors="ignore"))
        self._node.apply(self._spread(said, None))

    def on_said(self, peer: Peer, said: Said, now: float) -> Iterable[Effect]:
        if said.id in self._seen:
            return ()
        # A stranger's text must not steer a terminal.
        self._hear("".join(c if c.isprintable() else "?" for c in said.text))
        return self._spread(said, peer)

    def _spread(self, said: Said, source: Peer | None) -> list[Effect]:
        self._seen[said.id] = None
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        peers = (peer for peer in self._node.peers() if peer.negotiated.flags.features & CHATS)
        return [Send(peer.link, said) for peer in peers if source is None or peer.link != source.link]


async def in_one_process() -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = ("ann", "ben", "cem", "dot")
        heard: asyncio.Queue[str] = asyncio.Queue()
        nodes = [
            Node(Config(network="dev", data_dir=Path(folder, n), listen=("127.0.0.1:0",), max_outbound=0))
            for n in names
        ]
        chats = [
            Chat(node, lambda text, name=name: heard.put_nowait(f"{name} hears: {text}"))  # type: ignore[misc]
            for node, name in zip(nodes, names, strict=True)
        ]
        async with nodes[0], nodes[1], nodes[2], nodes[3]:
            for one, next_one in pairwise(nodes):
                await one.connect(next_one.addresses[0])
            chats[0].say("is anybody there?")
            for _ in names[1:]:
                print(await asyncio.wait_for(heard.get(), 20))
            chats[3].say("yes, three links away")
            for _ in names[1:]:
                print(await asyncio.wait_for(heard.get(), 20))


async def for_people(data_dir: str, listen: list[str], addresses: list[str], network: str) -> None:
    node = Node(Config(network=network, data_dir=Path(data_dir), listen=tuple(listen), connect=tuple(addresses)))
    chat = Chat(node, lambda text: print(">", text, flush=True))
    async with node, asyncio.TaskGroup() as tasks:
        company = tasks.create_task(tell_company(node))
        for address in node.addresses:
            print("others join with:", address, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            chat.say(line.strip() or " ")
            await asyncio.sleep(0)
        for peer in node.peers():  # what was said leaves before the node does
            await node.drained(peer)
        company.cancel()


async def tell_company(node: Node) -> None:
    async for _ in node.events({"peer-connected", "peer-disconnected"}):
        print(f"({len(node.peers())} linked)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A chat over the gossip network.")
    parser.add_argument("addresses", nargs="*", help="obscura:// addresses of others")
    parser.add_argument("--data-dir", help="where this node keeps its keys; without it: four nodes in one process")
    parser.add_argument("--listen", action="append", default=[], metavar="HOST:PORT", help="where others may join")
    parser.add_argument("--network", default="dev")
    given = parser.parse_args()
    if given.data_dir is None and (given.addresses or given.listen):
        parser.error("give --data-dir too")
    try:
        if given.data_dir is None:
            asyncio.run(in_one_process())
        else:
            asyncio.run(for_people(given.data_dir, given.listen, given.addresses, given.network))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
