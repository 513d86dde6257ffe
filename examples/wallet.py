"""A wallet that sends a transaction privately and follows it until the network has it: stem, another's diffusion, seen.

Run it: python examples/wallet.py
The relays here diffuse at once whatever is stemmed to them, so that it takes seconds; with the levels' own chance of one in ten
a transaction goes several hops before somebody diffuses it.
"""

import asyncio
import random
import tempfile
from pathlib import Path

from obscura import Config, Node
from obscura.ledger.mining import filler_transaction
from obscura.shaping.levels import CustomKnobs

WAIT_S = 60.0


def config(folder: str, name: str, **more: object) -> Config:
    data_dir = Path(folder, name)
    return Config(network="dev", data_dir=data_dir, listen=("127.0.0.1:0",), max_outbound=0, **more)  # type: ignore[arg-type]


async def pay(wallet: Node, transaction: bytes) -> bool:
    """Send it, tell each step; whether the network has it now."""
    following = wallet.broadcast(transaction, policy="private")
    print("sent", following.id[::-1].hex()[:16])
    async for receipt in following:
        told = receipt.describe()
        extra = {key: value for key, value in told.items() if key not in ("id", "stage", "final")}
        print("  ", told["stage"], extra or "")
        if told["stage"] in ("seen", "expired"):  # on the disk of others, or given up: show it to the user
            return bool(told["stage"] == "seen")
    return False


async def main() -> None:
    at_once = CustomKnobs(fluff_probability=1.0)
    with tempfile.TemporaryDirectory() as folder:
        relays = [Node(config(folder, f"relay{n}", privacy="custom", privacy_custom=at_once)) for n in range(3)]
        wallet = Node(config(folder, "wallet", privacy="standard"))
        async with relays[0], relays[1], relays[2], wallet:
            for number, relay in enumerate(relays):
                await wallet.connect(relay.addresses[0])
                await relay.connect(relays[number - 1].addresses[0])
            transaction = filler_transaction(random.Random())  # a real wallet builds and signs its own
            print("the network has it:", await asyncio.wait_for(pay(wallet, transaction), WAIT_S))


if __name__ == "__main__":
    asyncio.run(main())
