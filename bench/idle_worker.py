"""``python -m bench.idle_worker accept|open link|bare [ADDRESS]``: one end of many idle links."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress

from bench.worker import ON_PLAIN, commands, node, run, say
from obscura.shaping.padding import Rule

AT_ONCE = 16
SETTLE_S = 0.5  # seconds in which the last links finish what they began


class Silent(asyncio.Protocol):
    """A connection that nobody uses."""

    __slots__ = ()


async def accept(folder: str, kind: str) -> None:
    """Listen, and collect garbage when asked."""
    if kind == "bare":
        server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
        say(address=str(server.sockets[0].getsockname()[1]))
        await collecting()
    else:
        async with node(folder, Rule.NONE, ON_PLAIN) as ours:
            say(address=str(ours.addresses[0]))
            await collecting()


async def collecting() -> None:
    """Answer each command once the process has come to rest."""
    async for _ in commands():
        await asyncio.sleep(SETTLE_S)
        gc.collect()
        say(rest=True)


async def open_links(folder: str, kind: str, address: str) -> None:
    """Open as many as asked for, and keep them."""
    loop = asyncio.get_running_loop()
    say(ready=True)
    if kind == "bare":
        transports = []
        async for command in commands():
            for _ in range(command["open"]):
                transports.append((await loop.create_connection(Silent, "127.0.0.1", int(address)))[0])
            say(opened=len(transports))
        return
    async with node(folder, Rule.NONE) as ours:
        slots = asyncio.Semaphore(AT_ONCE)

        async def connect() -> None:
            async with slots:
                await ours.connect(address)

        with suppress(asyncio.CancelledError):
            async for command in commands():
                await asyncio.gather(*(connect() for _ in range(command["open"])))
                say(opened=len(ours.peers()))


def main(role: str, kind: str, *address: str) -> None:
    if role == "accept":
        run(lambda folder: accept(folder, kind))
    else:
        run(lambda folder: open_links(folder, kind, address[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
