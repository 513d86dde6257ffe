"""A crawler: asks each node it reaches for addresses, goes to those, and prints a table of who answered.

Run it: python examples/crawler.py                          a private network of eight nodes, in one process
        python examples/crawler.py --network test ADDRESS   a network of others, from that node on

It is polite: one link at a time, one question on each, a pause between two, an end after a number of nodes, and never twice to
the same. Who crawls makes a list of people, and nodes know it: the public network is refused unless you say that you may.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Set
from pathlib import Path

from obscura import Address, Config, Node
from obscura.errors import UserError
from obscura.wire.address import Endpoint

ANSWER_S = 3.0  # for the addresses of one node
NODES = 8


async def crawl(crawler: Node, start: list[Address], most: int, pause_s: float) -> list[tuple[str, ...]]:
    """Rows of what was found, at most ``most``. ``pause_s`` between two links."""
    queue, seen = list(start), {address.endpoint for address in start}
    rows: list[tuple[str, ...]] = []
    while queue and len(rows) < most:
        address = queue.pop(0)
        place = f"{address.host}:{address.port}"
        try:
            peer = await asyncio.wait_for(crawler.connect(address), 30)
        except (UserError, TimeoutError) as error:
            rows.append((place, "-", "-", "-", str(error)[:50]))
        else:
            found = await told(crawler, seen)  # every node asks for addresses on a link that it made
            seen |= {new.endpoint for new in found}
            queue += found
            said = peer.negotiated.peer
            rows.append((place, said.user_agent, str(said.best_block_height), str(len(found)), "answered"))
            with contextlib.suppress(UserError):  # it may have gone by itself
                crawler.disconnect(peer)
        await asyncio.sleep(pause_s)
    return rows


async def told(crawler: Node, seen: Set[Endpoint | None]) -> list[Address]:
    """What the node has told that was not seen before; nothing if nothing comes in time."""
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        book = [entry.address(random.SystemRandom()) for entry in crawler.assembly.book.entries()]
        if new := [address for address in book if address.endpoint not in seen]:
            return new
        await asyncio.sleep(0.05)
    return []


def show(rows: list[tuple[str, ...]]) -> None:
    table = [("NODE", "SOFTWARE", "HEIGHT", "NEW", "STATE"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("".join(c if c.isprintable() else "?" for c in line).rstrip())


async def private_network() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as life:
            nodes: list[Node] = []
            for number in range(NODES):  # each makes links with the two before it
                home = Path(folder, str(number))
                node = Node(Config(network="dev", data_dir=home, listen=("127.0.0.1:0",), max_outbound=0))
                await life.enter_async_context(node)
                for other in nodes[-2:]:
                    await node.connect(other.addresses[0])
                nodes.append(node)
            quiet = Config(network="dev", data_dir=Path(folder, "crawler"), listen=(), max_outbound=0, unlisted=True)
            crawler = await life.enter_async_context(Node(quiet))
            rows = await crawl(crawler, [nodes[-1].addresses[0]], most=20, pause_s=0.05)
            show(rows)
            print(
                f"{len(rows)} of {NODES} nodes: each tells a quarter of what it knows, and all who ask the same quarter"
            )
            assert len(rows) > 1, "nobody told anything"


async def public(network: str, addresses: list[str], most: int, pause_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Config(network=network, data_dir=Path(folder), listen=(), max_outbound=0, unlisted=True)
        async with Node(config) as crawler:
            show(await crawl(crawler, [Address.parse(text) for text in addresses], most, pause_s))


def main() -> None:
    parser = argparse.ArgumentParser(description="Walk the addresses that nodes tell.")
    parser.add_argument("addresses", nargs="*", help="where to begin; nothing: a private network in this process")
    parser.add_argument("--network", default="dev")
    parser.add_argument("--most", type=int, default=50, help="nodes visited at most")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two links")
    parser.add_argument("--i-may-crawl-people", action="store_true", help="needed for the public network")
    given = parser.parse_args()
    if given.network not in ("dev", "test") and not given.network.endswith(".toml") and not given.i_may_crawl_people:
        sys.exit(f"error: {given.network} is a network of people: think, then give --i-may-crawl-people")
    try:
        asyncio.run(
            public(given.network, given.addresses, given.most, given.pause) if given.addresses else private_network()
        )
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
