"""A small router of our own for tests: answers PCP and NAT-PMP over UDP, or as a plain function. Run: python router.py HOST"""

from __future__ import annotations

import asyncio
import sys
from ipaddress import IPv4Address
from typing import cast

from obscura.limits import PORT_MAPPING_PORT
from obscura.transport.portmap import (
    PcpAnswer,
    PcpRequest,
    PmpAddressAnswer,
    PmpAddressRequest,
    PmpAnswer,
    PmpRefusal,
    PmpRequest,
    decode_request,
)

OUTSIDE = IPv4Address("8.8.4.4")


class Router:
    """Grants every mapping on an external port of its own choice. ``speaks``: which protocols it knows."""

    def __init__(self, *, speaks: tuple[str, ...] = ("pcp", "nat-pmp"), outside: IPv4Address = OUTSIDE) -> None:
        self.speaks = speaks
        self.outside = outside
        self.ports: dict[int, int] = {}  # internal -> external
        self.requests: list[PcpRequest | PmpAddressRequest | PmpRequest] = []
        self.lifetime_s = 3_600

    def answer(self, data: bytes) -> bytes | None:
        request = decode_request(data)
        self.requests.append(request)
        if isinstance(request, PcpRequest):
            if "pcp" not in self.speaks:
                return PmpRefusal(1, 1, 9).encode() if "nat-pmp" in self.speaks else None
            port, life = self._map(request.internal_port, request.lifetime_s)
            return PcpAnswer(0, life, 9, request.nonce, request.internal_port, port, self.outside).encode()
        if "nat-pmp" not in self.speaks:
            return None
        if isinstance(request, PmpAddressRequest):
            return PmpAddressAnswer(9, self.outside).encode()
        return PmpAnswer(9, request.internal_port, *self._map(request.internal_port, request.lifetime_s)).encode()

    def _map(self, internal: int, lifetime_s: int) -> tuple[int, int]:
        if not lifetime_s:
            self.ports.pop(internal, None)
            return 0, 0
        return self.ports.setdefault(internal, 49_152 + internal % 1_000), self.lifetime_s


class Serving(asyncio.DatagramProtocol):
    """The router on a real socket."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._router.answer(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


async def serve(router: Router, host: str) -> asyncio.DatagramTransport:
    """Answer on ``host`` until the transport is closed."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Serving(router), (host, PORT_MAPPING_PORT))
    return transport


async def main() -> None:
    await serve(Router(), sys.argv[1])
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
