"""Two nodes in one process, a link between them, and a message of one's own (the example of the README)."""

import asyncio
import tempfile
from pathlib import Path

from obscura import Config, Node


async def main() -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        listening = Config(network="dev", data_dir=Path(one), listen=("127.0.0.1:0",))
        async with Node(listening) as alice, Node(Config(network="dev", data_dir=Path(two), listen=())) as bob:
            peer = await bob.connect(alice.addresses[0])
            print("linked, session", peer.session_id.hex()[:16], "features", *peer.negotiated.flags.names)
            print(f"round trip {await bob.ping(peer) * 1000:.2f} ms")


asyncio.run(main())
