"""``python -m bench.links_worker ADDRESS``: open links one beside the other, and close each once it is established."""

from __future__ import annotations

import asyncio
import sys
import time

from bench.worker import BareNode, commands, node, run, say
from obscura.shaping.padding import Rule

AT_ONCE = 32  # dials in flight


async def open_some(ours: BareNode, address: str, count: int) -> None:
    """``count`` links, opened and closed one after the other."""
    for _ in range(count):
        ours.disconnect(await ours.connect(address))


async def dial(folder: str, address: str) -> None:
    async with node(folder, Rule.NONE) as ours:
        say(ready=True)
        async for command in commands():
            count, cpu, start = command["count"], time.process_time(), time.monotonic()
            shares = [count // AT_ONCE + (i < count % AT_ONCE) for i in range(AT_ONCE)]
            await asyncio.gather(*(open_some(ours, address, share) for share in shares))
            say(seconds=time.monotonic() - start, cpu=time.process_time() - cpu)


if __name__ == "__main__":
    run(lambda folder: dial(folder, sys.argv[1]))
