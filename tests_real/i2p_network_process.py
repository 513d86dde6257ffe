"""Two nodes over a private I2P network of several routers, in a network namespace of their own; see test_i2p_network.py.

    unshare -rn python i2p_network_process.py FOLDER

Tunnels have one hop inwards and none outwards: before 2.51 i2pd may leave a destination unpublished otherwise. Prints what was
seen as JSON; packets that wanted out of the namespace are counted by the kernel.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from namespace_process import no_routes

from i2p_network import I2pNetwork, Router
from obscura.daemon.config import Config
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.mining import mine
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.ledger.mining import filler_transaction
from obscura.wire.address import Address

DEADLINE_S = 150.0


def config(folder: Path, router: Router) -> Config:
    """A node that knows of nothing but one of the routers."""
    settings = I2pSettings(sam=router.sam, inbound_length=1, outbound_length=0)
    return Config(network="dev", data_dir=folder, i2p="auto", only_net=("i2p",), i2p_router=settings, max_outbound=0)


def own(node: Node) -> Address:
    """The node's destination."""
    (address,) = node.addresses
    return address


async def until(is_so: Callable[[], object]) -> None:
    """Look again and again."""
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.05)


def is_found(node: Node) -> bool:
    """Whether others can find the node's destination, and it can dial."""
    shown = node.routes.show()["i2p"]
    return bool(shown["connected"] and shown["published"])


async def live(folder: Path, network: I2pNetwork) -> dict[str, Any]:
    """Link, synchronise, pass a transaction, ask for somebody who is not there."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    first, second = network.clients
    async with Node(config(folder / "a", first)) as alice, Node(config(folder / "b", second)) as bob:
        await until(lambda: is_found(alice) and is_found(bob))
        ready_s = loop.time() - began
        async for _ in mine(alice, 12, 0, alice.now() + 60):
            pass
        peer = await bob.connect(own(alice))
        await until(lambda: bob.relay.best_block() == alice.relay.best_block())
        sent = bob.broadcast(filler_transaction(random.Random(1), 300), "anonymity-only")
        await until(lambda: sent.id in alice.relay.transactions.mempool)
        try:
            absent = str(await bob.connect(f"obscura://{'a' * 52}.b32.i2p:0"))
        except Unreachable as error:
            absent = str(error)
        return {
            "ready_s": round(ready_s, 1),
            "rtt_ms": round(await bob.ping(peer) * 1000, 1),
            "height": bob.relay.best_block()[1],
            "pattern": peer.pattern,
            "absent": absent,
        }


async def bounded(folder: Path, network: I2pNetwork) -> dict[str, Any]:
    """The same, but not for ever."""
    async with asyncio.timeout(DEADLINE_S):
        return await live(folder, network)


def main() -> None:
    """The network up, the nodes' life, what was seen."""
    folder = Path(sys.argv[1])
    with I2pNetwork(folder / "routers") as network:
        before = no_routes()
        seen = asyncio.run(bounded(folder, network))
        left = no_routes() - before
    sys.stdout.write(json.dumps({"up_s": round(network.took_s, 1), "left": left, **seen}) + "\n")


if __name__ == "__main__":
    main()
