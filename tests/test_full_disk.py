"""A whole node whose disk is full: it says so and ends, what it acknowledged is there, and with room again it goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from obscura.daemon.node import Node
from test_chain_node import CHILD, Acknowledged, call, config, dev_blocks, in_file, until

LONG = 40  # blocks of 95,000 bytes
ROOM = 2_000_000  # bytes that a file may have: SQLite gets the error that a full disk gives


async def run_out(folder: Path, address: str) -> tuple[Acknowledged, str]:
    """A child that syncs until it has no room; what it acknowledged, and its last word."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(folder), address, str(ROOM), stdout=pipe, stderr=pipe
    )
    out, err = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode == 1, err
    told = Acknowledged()
    for line in out.splitlines():
        told.hear(line)
    return told, err.decode()


def test_a_node_without_room_says_so_ends_and_has_what_it_acknowledged(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Node(config(tmp_path / "server")) as server:
            await call(server, "chain.import", str(in_file(tmp_path / "blocks", dev_blocks(LONG, 95_000))))
            folder, address = tmp_path / "child", str(server.addresses[0])
            told, said = await run_out(folder, address)
            assert "no room to write" in said
            assert "free space on that disk" in said
            assert 0 < told.height < LONG
            height = told.is_kept(folder)
            # Started again without more room: the same, and nothing is lost.
            again, said = await run_out(folder, address)
            assert "no room to write" in said
            assert again.is_kept(folder) >= height
            async with Node(config(folder)) as freed:
                checked = await call(freed, "chain.verify")
                assert (checked["damaged"], checked["done"]) == ([], True)
                await freed.connect(server.addresses[0])
                await until(lambda: freed.relay.blocks.tip_height == LONG)

    asyncio.run(scene())
