"""``python -m bench.keys_worker initiator|responder``: the key operations of one side of Noise NK with Elligator keys, alone."""

from __future__ import annotations

import sys
import time
from random import SystemRandom

from bench.worker import commands, run, say
from obscura.channel.uniform import Ephemeral, StaticKey, agree, public_of


async def serve(side: str) -> None:
    rng = SystemRandom()
    static, peer = StaticKey.generate(rng), Ephemeral.generate(rng)
    say(ready=True)
    async for command in commands():
        start = time.monotonic()
        for _ in range(command["count"]):
            if side == "initiator":
                mine = Ephemeral.generate(rng)
                agree(mine.private, static.public)
                agree(mine.private, public_of(peer.representative))
            else:
                theirs = public_of(peer.representative)
                agree(static.private, theirs)
                agree(Ephemeral.generate(rng).private, theirs)
        say(seconds=time.monotonic() - start)


if __name__ == "__main__":
    run(lambda folder: serve(sys.argv[1]))
