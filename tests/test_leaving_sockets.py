"""Sockets that are on their way out hold a descriptor each, in no slot: how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.transport import tcp

LAST = b"GET / HTTP/1.0\r\n\r\nand something that nobody reads"


def test_strangers_that_linger_take_no_more_descriptors_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "LEAVING_SOCKETS", 3)

    async def go() -> None:
        config = Config(network="dev", data_dir=tmp_path, listen=("127.0.0.1:0?carrier=http",))
        async with Node(config) as node, contextlib.AsyncExitStack() as until:
            readers = []
            for _ in range(6):
                reader, writer = await asyncio.open_connection("127.0.0.1", node.addresses[0].port)
                until.callback(writer.close)
                writer.write(LAST)
                with contextlib.suppress(ConnectionError):
                    assert (await reader.read()).startswith(b"HTTP/1.1 200")  # to the end of the node's side
                readers.append(reader)
            assert len(tcp.LEAVING) == 3
            assert not node.engine.links
        assert not tcp.LEAVING

    async def soon() -> None:
        async with asyncio.timeout(60):
            await go()

    asyncio.run(soon())
