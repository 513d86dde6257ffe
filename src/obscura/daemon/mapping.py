"""Has the router map the node's listening ports while the node runs (PCP, NAT-PMP), and tells the node what it says.

Off unless ``port-mapping = "auto"``: the router, and whoever can read its table, learns that this machine listens there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, ip_address
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from obscura.daemon.events import Broadcast
from obscura.errors import ConfigError
from obscura.limits import (
    PORT_MAPPING_AGAIN_S,
    PORT_MAPPING_LOOK_S,
    PORT_MAPPING_PORT,
    PORT_UNMAPPED_S,
    PORT_UNMAPPED_TRIES,
)
from obscura.node.assembly import Assembly
from obscura.node.dialable import Way, face_of
from obscura.node.effects import Effect
from obscura.node.face import Face
from obscura.transport.portmap import Mapped, PortMapper
from obscura.wire.address import Address, CarrierNumber

ROUTES = Path("/proc/net/route")
_Here = tuple[IPv4Address, IPv4Address]  # a router, our address on the way to it
_UP, _GATEWAY = 1, 2  # flags of a route


def check_mapping(
    mapping: Literal["auto", "off"], gateway: str | None, *, network: str, clearnet: Way, faces: frozenset[Face]
) -> IPv4Address | None:
    """The router of the configuration, if it names one. Raises ``ConfigError`` where a mapping contradicts other keys."""
    if mapping == "off":
        if gateway is not None:
            raise ConfigError('gateway is for port-mapping = "auto": set that too, or leave it out')
        return None
    if network == "dev":
        raise ConfigError("port-mapping: the network dev lives on loopback, which no router reaches")
    if Face.CLEARNET not in faces or clearnet is not Way.DIRECT:
        raise ConfigError(
            "port-mapping: clearnet is left out or goes through a proxy, so no router may learn of this node"
        )
    if gateway is None:
        return None
    try:
        return IPv4Address(gateway)
    except AddressValueError:
        raise ConfigError(f"gateway = {gateway}: give the router's IPv4 address, such as 192.168.1.1") from None


def default_gateway(table: str) -> IPv4Address | None:
    """The router of the default route with the least metric, from the text of ``/proc/net/route``; private ones alone.

    A gateway with a public address is a data centre's and maps nothing; it shall not learn of us either.
    """
    found = []
    for line in table.splitlines()[1:]:
        try:
            _, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
            host = IPv4Address(bytes.fromhex(gateway)[::-1])
            if not (int(destination, 16) or int(mask, 16)) and int(flags, 16) & (_UP | _GATEWAY) == _UP | _GATEWAY:
                found.append((int(metric), host))
        except ValueError:
            continue
    return next((host for _, host in sorted(found) if not host.is_global), None)


def mappable(listening: Sequence[Address]) -> list[Address]:
    """Listening addresses that only a router's mapping makes reachable: clearnet, IPv4, wildcard or private."""
    found: dict[tuple[str, int], Address] = {}  # covers that share a port have one mapping
    for address in listening:
        if face_of(address) is not Face.CLEARNET or address.is_loopback or address.carrier is CarrierNumber.BARE:
            continue
        host = ip_address(address.host)
        if isinstance(host, IPv4Address) and not host.is_global:
            found.setdefault((address.host, address.port), address)
    return list(found.values())


class _Answers(asyncio.DatagramProtocol):
    """Datagrams of one router; the socket is connected, and others' are passed over here once more."""

    def __init__(self, gateway: IPv4Address, receive: Callable[[bytes], None]) -> None:
        self._gateway = str(gateway)
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr[:2] == (self._gateway, PORT_MAPPING_PORT):
            self._receive(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there (ICMP): the mapper's own times decide."""


def _clock() -> float:
    """Monotonic seconds that go on while the machine is suspended, as a router's do (the loop's own stand still on Linux)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class _Port:
    """One listening port: its mapper, its socket, and what came of it."""

    def __init__(
        self, listening: Address, rng: random.Random, changed: Callable[[Address, Mapped | None, str], None]
    ) -> None:
        self._listening = listening
        self._rng = rng
        self._changed = changed

    async def keep(self, gateway: Callable[[], IPv4Address | None]) -> None:
        """Ask for ever, one router after the other (a network may change); ended by cancelling, which removes the mapping."""
        while True:
            here = self._here(gateway)
            if here is None:
                self._changed(self._listening, None, "there is no route to a router with a private IPv4 address")
            else:
                with contextlib.suppress(OSError):  # no network now
                    await self._with(here, gateway)
            until = _clock() + PORT_MAPPING_AGAIN_S
            while True:
                if _clock() >= until or self._is_elsewhere(here, gateway):
                    break
                await asyncio.sleep(PORT_MAPPING_LOOK_S)

    def _here(self, gateway: Callable[[], IPv4Address | None]) -> _Here | None:
        """The router of now, and our address on the way to it; None = there is no way to any."""
        router = gateway()
        if router is None:
            return None
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            if not ip_address(self._listening.host).is_unspecified:
                way.bind((self._listening.host, 0))
            way.connect((str(router), PORT_MAPPING_PORT))  # sends nothing
            return router, IPv4Address(way.getsockname()[0])
        return None

    def _is_elsewhere(self, before: _Here | None, gateway: Callable[[], IPv4Address | None]) -> bool:
        """Whether another router is in charge, or we have another address behind it. Without a network nothing is known."""
        now = self._here(gateway)
        return now is not None and now != before

    async def _with(self, here: _Here, gateway: Callable[[], IPv4Address | None]) -> None:
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        router, client = here
        mapper = PortMapper(client, self._listening.port, self._rng, _clock())

        def receive(data: bytes) -> None:
            mapper.receive(data, _clock())
            news.set()

        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Answers(router, receive),
            local_addr=(str(client), 0),
            remote_addr=(str(router), PORT_MAPPING_PORT),
        )
        try:
            await self._drive(mapper, transport, news, lambda: self._is_elsewhere(here, gateway))
        finally:
            await self._remove(mapper, transport, news)
            transport.close()

    async def _drive(
        self,
        mapper: PortMapper,
        transport: asyncio.DatagramTransport,
        news: asyncio.Event,
        is_elsewhere: Callable[[], bool],
    ) -> None:
        """Until the router was of no use for long, or is none of ours any more: then everything is looked at anew."""
        told: tuple[Any, str] = (None, mapper.fault)
        while True:
            for datagram in mapper.due(_clock()):
                transport.sendto(datagram)
            mapped = mapper.mapped
            now = (None if mapped is None else mapped[:2], mapper.fault)
            if now != told:
                told = now
                self._changed(self._listening, mapped, mapper.fault or f"by {mapper.protocol}")
            if mapped is None and mapper.deadline() - _clock() > PORT_MAPPING_AGAIN_S / 2:
                return
            news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(PORT_MAPPING_LOOK_S, max(0.0, mapper.deadline() - _clock()))):
                    await news.wait()
            if is_elsewhere():  # the socket leads to the router of before, and what that one maps is reached by nobody
                if told[0] is not None:
                    self._changed(self._listening, None, "this machine is in another network")
                return

    async def _remove(self, mapper: PortMapper, transport: asyncio.DatagramTransport, news: asyncio.Event) -> None:
        for _ in range(PORT_UNMAPPED_TRIES):
            for datagram in mapper.end():
                transport.sendto(datagram)
            if mapper.is_removed:
                return
            news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PORT_UNMAPPED_S):
                    await news.wait()


class Owner(Protocol):
    """The node, as far as mappings need it."""

    @property
    def assembly(self) -> Assembly: ...

    events_out: Broadcast

    def now(self) -> float: ...

    def apply(self, effects: Iterable[Effect]) -> None: ...


@contextlib.asynccontextmanager
async def mapped(listening: Sequence[Address], gateway: IPv4Address | None, owner: Owner) -> AsyncIterator[None]:
    """Keep the mappings of what listens while this is entered. ``gateway`` None = that of the default route.

    The events ``port-mapped`` and ``port-not-mapped`` say what came of it; peers are told when the own address changed.
    """
    near, rng = owner.assembly.neighbours, random.SystemRandom()

    def told(kind: str, fields: dict[str, Any]) -> None:
        owner.events_out.publish({"kind": kind, **fields})

    def router() -> IPv4Address | None:
        if gateway is not None:
            return gateway
        try:
            return default_gateway(ROUTES.read_text())
        except OSError:
            return None

    def changed(place: Address, mapping: Mapped | None, why: str) -> None:
        outside = None
        if mapping is not None:
            outside = msgspec.structs.replace(place, host=str(mapping.host), port=mapping.port)
            told("port-mapped", {"port": place.port, "address": str(outside), "how": why})
        else:
            told("port-not-mapped", {"port": place.port, "why": why})
        if near.own.set_mapped(place, outside) and outside is not None:
            owner.apply(near.gossip.announce_all(owner.now(), Face.CLEARNET))

    places = mappable(listening)
    if not places:
        told("port-not-mapped", {"why": "this node listens on no IPv4 address that a router could map"})
    tasks = [asyncio.get_running_loop().create_task(_Port(place, rng, changed).keep(router)) for place in places]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
