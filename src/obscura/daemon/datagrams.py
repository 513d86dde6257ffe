"""A name server's other half: UDP on the same port, with the same zone and the same answers (RFC 7766, 5).

One that speaks TCP alone would be unusual. Nothing of the channel passes here.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from obscura.errors import UserError
from obscura.morph.dns_answer import NameServer
from obscura.wire.address import join_host_port


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, name_server: NameServer) -> None:
        self._name_server = name_server
        self._rng = random.SystemRandom()
        self._transport: asyncio.DatagramTransport | None = None
        self._is_paused = False

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # what a datagram endpoint has

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        transport = self._transport
        if transport is None or not addr[1] or self._is_paused:
            return  # a socket that takes nothing: answers are lost, as datagrams are
        answer, _ = self._name_server.answer(data, self._rng, is_tcp=False)
        if answer is not None:
            transport.sendto(answer, addr)


async def dns_datagrams(name_server: NameServer, host: str, port: int) -> asyncio.DatagramTransport:
    """Answer at this address until the transport is closed. Raises ``UserError``."""
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(name_server), local_addr=(host, port))
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise UserError(
            f"cannot listen on {join_host_port(host, port)} for UDP, where name servers answer too: {why}; "
            "choose another address with --listen"
        ) from None
    return transport
