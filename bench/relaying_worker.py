"""``python -m bench.relaying_worker middle | around ADDRESS PEERS``: the processes of bench.relaying."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.worker import ON_PLAIN, BareNode, commands, node, run, say
from obscura.ledger.mining import filler_transaction
from obscura.shaping.padding import Rule


async def middle(folder: str) -> None:
    """One node; ``cpu`` tells what it has used so far, ``decode`` what decoding alone costs."""
    async with node(folder, Rule.CELLS, ON_PLAIN) as ours:
        say(address=str(ours.addresses[0]))
        rng = random.Random(0)
        async for command in commands():
            if "decode" in command:
                raws = [filler_transaction(rng) for _ in range(command["decode"])]
                start = time.process_time()
                for raw in raws:
                    ours.network.ledger.decode_transaction(raw)
                say(cpu=time.process_time() - start)
            else:
                say(cpu=time.process_time())


async def around(folder: str, address: str, peers: int) -> None:
    """``relay``: the first node gets so many new transactions; told when all the others have them."""
    rng = random.Random(1)
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(node(str(Path(folder) / str(number)), Rule.CELLS))
            for number in range(peers)
        ]
        for ours in nodes:
            await ours.connect(address)
        say(ready=True)
        async for command in commands():
            wanted = len(nodes[0].relay.transactions.mempool) + command["relay"]
            first = nodes[0]
            for _ in range(command["relay"]):
                transaction = first.network.ledger.decode_transaction(filler_transaction(rng))
                first.apply(first.relay.transactions.admit(transaction, None, first.now())[1])
            while not all(_has(ours, wanted) for ours in nodes):  # noqa: ASYNC110 (the condition is the nodes')
                await asyncio.sleep(0.05)
            say(done=True)


def _has(ours: BareNode, wanted: int) -> bool:
    return len(ours.relay.transactions.mempool) >= wanted


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "middle":
        run(middle)
    else:
        run(lambda folder: around(folder, arguments[0], int(arguments[1])))
