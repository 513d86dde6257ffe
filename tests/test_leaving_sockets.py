"""Sockets that are on their way out hold a descriptor each, in no slot: how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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
            assert len(node._sockets.leaving) == 3
            assert not node.engine.links
        assert not node._sockets.leaving

    async def soon() -> None:
        async with asyncio.timeout(60):
            await go()

    asyncio.run(soon())


def test_what_lingers_at_one_node_ends_nothing_of_another_one_in_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "LEAVING_SOCKETS", 3)

    async def go() -> None:
        listen = ("127.0.0.1:0?carrier=http",)
        one, other = (Node(Config(network="dev", data_dir=tmp_path / name, listen=listen)) for name in "ab")
        async with one, other, contextlib.AsyncExitStack() as until:
            for node, count in ((one, 2), (other, 6)):
                for _ in range(count):
                    reader, writer = await asyncio.open_connection("127.0.0.1", node.addresses[0].port)
                    until.callback(writer.close)
                    writer.write(LAST)
                    with contextlib.suppress(ConnectionError):
                        await reader.read()
            assert [len(node._sockets.leaving) for node in (one, other)] == [2, 3]

    async def soon() -> None:
        async with asyncio.timeout(60):
            await go()

    asyncio.run(soon())


def test_a_visitor_who_has_gone_before_the_last_word_costs_its_socket_alone(tmp_path: Path) -> None:
    """The answer to a closed socket is a reset, on loopback within the same call: the own side cannot be ended any more."""

    async def go() -> None:
        config = Config(network="dev", data_dir=tmp_path, listen=("127.0.0.1:0?carrier=http",))
        async with Node(config) as node:
            place = ("127.0.0.1", node.addresses[0].port)
            with socket.create_connection(place) as hasty:
                hasty.sendall(LAST)
            reader, writer = await asyncio.open_connection(*place)
            writer.write(LAST)
            assert (await reader.read()).startswith(b"HTTP/1.1 200")  # the node still answers
            writer.close()
            assert node.fault is None

    async def soon() -> None:
        async with asyncio.timeout(60):
            await go()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # without uvloop, which says it in another way
        runner.run(soon())
