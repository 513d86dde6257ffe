"""Which sockets let a small piece wait for the acknowledgement of the one before (Nagle): those of programs that do."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.transport import tcp


@pytest.mark.parametrize(("carrier", "said"), [("ssh", [True, True, False, False]), ("tls", []), ("plain", [])])
def test_ssh_says_tcp_nodelay_once_there_is_a_session(
    carrier: str, said: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    gather = tcp.Socket.gather

    def noted(self: tcp.Socket, gathers: bool) -> None:
        gather(self, gathers)
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        assert bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) != gathers
        told.append(gathers)

    monkeypatch.setattr(tcp.Socket, "gather", noted)

    async def link() -> None:
        place = f"127.0.0.1:0?carrier={carrier}"
        listener = Node(Config(network="dev", data_dir=tmp_path / "a", listen=(place,)))
        dialler = Node(Config(network="dev", data_dir=tmp_path / "b", listen=()))
        async with listener, dialler:
            await dialler.connect(str(listener.addresses[0]))

    asyncio.run(link())
    assert sorted(told, reverse=True) == said
