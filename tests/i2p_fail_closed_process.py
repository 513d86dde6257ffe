"""A node that may use I2P alone, in a process of its own that notes every socket it touches; see test_i2p_fail_closed.py.

    python i2p_fail_closed_process.py FOLDER SAM PEER

Prints one JSON line: what was bound, connected to, looked up, sent to and started, from before the node to after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

from fail_closed_process import DIALS, _seen  # first: it watches from its import on
from obscura.daemon.config import Config
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.methods import local_control
from obscura.daemon.node import Node
from obscura.errors import UserError
from obscura.node.resolvers import SeedSettings


async def live(folder: str, sam: str, peer: str) -> list[str]:
    """A whole life: start, sessions, lookups, all kinds of dials, a link that works, the end. What the dials came to."""
    config = Config(
        network="dev",
        data_dir=folder,
        i2p="auto",
        only_net=("i2p",),
        i2p_router=I2pSettings(sam=sam),
        seeds=SeedSettings(names=("seeds.example",)),
        connect=(peer,),
    )
    said = []
    async with Node(config) as node, local_control(node):
        while not (node.routes.show()["i2p"]["published"] and node.peers()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await node.ping(node.peers()[0])
        for text in (*DIALS, "obscura://name.i2p:0"):
            try:
                async with asyncio.timeout(5):
                    await node.connect(text)
            except (UserError, TimeoutError) as error:
                said.append(str(error))
        with contextlib.suppress(TimeoutError, UserError):
            async with asyncio.timeout(3):
                await node.discovery.ask()
    return said


if __name__ == "__main__":
    dials = asyncio.run(live(*sys.argv[1:4]))
    print(json.dumps({"seen": _seen, "dials": dials}))
