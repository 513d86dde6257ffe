"""A real link of two nodes at a level, seen from between: do lengths or gaps of what is sent tell an idle link from a busy one?

    python tools/shaping_on_the_wire.py [level] [seconds of each phase] [--keep-port PORT]

A relay on loopback notes time and length of everything that it passes on from the first node to the second, first while the link
is idle, then while it carries messages of several lengths in random bunches. Lengths are compared as sets, gaps by a
Kolmogorov-Smirnov test. The level `none` is the control: exact sizes, at once, no cover. With --keep-port the relay listens
there, for `tshark -i lo -f "tcp port PORT"` beside it; `phases` are the unix times of both phases.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy import stats

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.shaping.levels import CustomKnobs
from obscura.wire.address import Address
from obscura.wire.message import Message
from obscura.wire.messages.blocks import GetHeaders
from obscura.wire.messages.network import Ping

Seen = list[tuple[float, int]]


async def relay(port: int, target: int, seen: Seen) -> asyncio.Server:
    """Pass everything on; note what comes from the dialling side."""
    now = asyncio.get_running_loop().time

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notes: bool) -> None:
        while data := await reader.read(1 << 20):
            if notes:
                seen.append((now(), len(data)))
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, far_writer, True), pump(far_reader, writer, False), return_exceptions=True)

    return await asyncio.start_server(serve, "127.0.0.1", port)


def config(level: str, folder: Path, *listen: str) -> Config:
    """A quiet node of the level."""
    fields: dict[str, Any] = {"privacy": level}
    if level == "none":
        off = (0, 0)
        bare = CustomKnobs(rule="none", dummy_ms=off, chaff_ms=off, jitter_ms=off, burst=off, burst_hold_ms=off)
        fields = {"privacy": "custom", "privacy_custom": bare}
    return Config(network="dev", data_dir=folder, listen=listen, max_outbound=0, **fields)


def something(rng: random.Random) -> Message:
    """Of 28 or of some hundred bytes."""
    if rng.random() < 0.7:
        return Ping(rng.getrandbits(64))
    return GetHeaders(1, tuple(rng.randbytes(32) for _ in range(rng.randrange(1, 30))), bytes(32))


async def main(level: str, seconds: float, port: int) -> int:
    with tempfile.TemporaryDirectory(prefix="obscura-wire-") as folder:
        listening = config(level, Path(folder) / "a", "127.0.0.1:0?carrier=plain")
        dialling = config(level, Path(folder) / "b")
        seen: Seen = []
        async with Node(listening) as far, Node(dialling) as near:
            place = far.addresses[0]
            server = await relay(port, place.port, seen)
            through = server.sockets[0].getsockname()[1]
            peer = await near.connect(Address(place.key, "127.0.0.1", through))
            await asyncio.sleep(3)
            seen.clear()
            began = time.time()
            await asyncio.sleep(seconds)
            idle, half = list(seen), time.time()
            seen.clear()
            rng = random.Random(1)
            end = near.now() + seconds
            while near.now() < end:
                for _ in range(rng.randrange(1, 20)):
                    near.send(peer, something(rng))
                await asyncio.sleep(rng.expovariate(2))
            busy, ended = list(seen), time.time()
            server.close()
    gaps = [[later[0] - earlier[0] for earlier, later in pairwise(one)] for one in (idle, busy)]
    report = {
        "level": level,
        "phases": {"idle": [began, half], "busy": [half, ended]},
        "idle": {"writes": len(idle), "lengths": sorted({size for _, size in idle})[:20]},
        "busy": {"writes": len(busy), "lengths": sorted({size for _, size in busy})[:20]},
        "gaps_ks_p": float(stats.ks_2samp(*gaps).pvalue) if all(len(one) > 5 for one in gaps) else None,
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    kept = int(sys.argv[sys.argv.index("--keep-port") + 1]) if "--keep-port" in sys.argv else 0
    if kept:
        words.remove(str(kept))
    sys.exit(asyncio.run(main(words[0] if words else "high", float(words[1]) if len(words) > 1 else 30.0, kept)))
