"""``python -m bench.blocks_worker serve LEVEL BLOCKS BYTES | sync LEVEL ADDRESS``: one end of the figures of bench.blocks."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.worker import commands, run, say
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template, filled, grind
from obscura.store.sqlite import Store

TIME = 1_760_000_000  # of the blocks: not before the genesis


def config(folder: Path, level: str, *, listens: bool) -> Config:
    """A node of the development network."""
    listen = ("127.0.0.1:0?carrier=plain",) if listens else ()
    return Config(network="dev", data_dir=folder, privacy=level, listen=listen, log_level="error")  # type: ignore[arg-type]


async def serve(folder: str, level: str, blocks: int, block_bytes: int) -> None:
    """Make a chain with transactions of about 700 bytes, and serve it until the pipe closes."""
    async with Node(config(Path(folder), level, listens=True)) as ours:
        ledger, rng, size = ours.network.ledger, random.Random(1), 0
        assert isinstance(ledger, BitcoinLedger)
        chain = Chain(ledger)
        for _ in range(blocks):
            inside = filled(rng, block_bytes) if block_bytes else []
            raw = block_template(ledger, chain.branch(chain.best), inside, TIME, rng)
            header = grind(raw[: ledger.header_bytes], 1 << 20)
            assert header is not None
            raw = header + raw[ledger.header_bytes :]
            chain.add(header, TIME)
            effects, fault = ours.relay.submit_block(raw, ours.now())
            assert fault is None, fault
            ours.apply(effects)
            size += len(raw)
            await ours.archive.room()
        await ours.archive.written(ours.relay.blocks.newest_token)
        say(address=str(ours.addresses[0]), bytes=size)
        async for _ in commands():
            pass


async def sync(folder: str, level: str, address: str) -> None:
    """``sync``: get that many blocks into a fresh store. ``store``: write that many from memory."""
    async for command in commands():
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            if "sync" in command:
                seconds = await _sync(Path(fresh), level, address, command["sync"])
            else:
                seconds = await asyncio.to_thread(_store, Path(fresh), command["store"], command["block_bytes"])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        say(seconds=seconds, memory_kib=memory)


async def _sync(folder: Path, level: str, address: str, height: int) -> float:
    async with Node(config(folder, level, listens=False)) as ours:
        tips = ours.events({"tip"})
        start = time.monotonic()
        await ours.connect(address)
        async for told in tips:
            if told["height"] == height:
                break
        return time.monotonic() - start


def _store(folder: Path, blocks: int, block_bytes: int) -> float:
    raws = [os.urandom(block_bytes) for _ in range(min(blocks, 16))]
    with Store.open(folder, bytes(32)) as store:
        start = time.monotonic()
        written = [store.put_block(number.to_bytes(32, "big"), raws[number % 16], number) for number in range(blocks)]
        for future in written:
            future.result()
        return time.monotonic() - start


if __name__ == "__main__":
    role, level, *arguments = sys.argv[1:]
    if role == "serve":
        run(lambda folder: serve(folder, level, int(arguments[0]), int(arguments[1])))
    else:
        run(lambda folder: sync(folder, level, arguments[0]))
