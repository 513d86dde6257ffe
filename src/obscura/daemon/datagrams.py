"""A name server's other half: UDP on the same port, with the same zone and the same answers (RFC 7766, 5).

One that speaks TCP alone would be unusual. Nothing of the channel passes here. Sources can be forged, so there is a budget, and
beyond it nothing is answered: an overloaded server's silence, which no ordinary rate of questions meets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import OrderedDict, deque
from collections.abc import Generator
from typing import Any

from obscura.daemon.logs import log_fault
from obscura.errors import UserError
from obscura.limits import DNS_UDP_ALL, DNS_UDP_BYTES, DNS_UDP_GROUP, DNS_UDP_GROUPS, DNS_UDP_WAITING
from obscura.morph.dns_answer import Answer, NameServer
from obscura.node.admission import group_of
from obscura.node.ratelimit import TokenBucket
from obscura.wire.address import endpoint_seen, join_host_port

log = logging.getLogger(__name__)
Sender = tuple[str | Any, int]
Answering = Generator[None, None, Answer]


class Budget:
    """What may be answered, by the network group that a datagram says it is from, and in all."""

    def __init__(self, now: float) -> None:
        self._all = TokenBucket(*DNS_UDP_ALL, now)
        self._groups: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def take(self, host: str, size: int, now: float) -> bool:
        """Whether a request of ``size`` bytes may be answered now."""
        cost = float(1 + size // DNS_UDP_BYTES[0])
        group = group_of(endpoint_seen(host, 1))
        return (group is None or self._bucket(group, now).take(cost, now)) and self._all.take(cost, now)

    def _bucket(self, group: bytes, now: float) -> TokenBucket:
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = TokenBucket(*DNS_UDP_GROUP, now)
            if len(self._groups) > DNS_UDP_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return found


class Datagrams(asyncio.DatagramProtocol):
    """One socket. A request is looked at in steps, and large ones leave room for the rest of the loop."""

    def __init__(self, name_server: NameServer, loop: asyncio.AbstractEventLoop) -> None:
        self._name_server = name_server
        self._loop = loop
        self._rng = random.SystemRandom()
        self._budget = Budget(loop.time())
        self._waiting: deque[tuple[bytes, Sender]] = deque()
        self._at_hand: tuple[Answering, Sender] | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._is_paused = False

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # what a datagram endpoint has

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._at_hand = None
        self._waiting.clear()

    def datagram_received(self, data: bytes, addr: Sender) -> None:
        if not addr[1] or self._is_paused:
            return  # a socket that takes nothing: answers are lost, as datagrams are
        if len(self._waiting) >= DNS_UDP_WAITING or not self._budget.take(addr[0], len(data), self._loop.time()):
            return
        is_idle = self._at_hand is None and not self._waiting
        self._waiting.append((data, addr))
        if is_idle:
            self._look()

    def _look(self) -> None:
        """A step; what needs more of them goes on in the next turn."""
        if self._at_hand is None and self._waiting:
            data, addr = self._waiting.popleft()
            self._at_hand = self._name_server.answering(data, self._rng, is_tcp=False, by=addr[0]), addr
        if self._at_hand is None or self._transport is None:
            return
        answering, addr = self._at_hand
        try:
            next(answering)
        except StopIteration as answered:
            self._at_hand = None
            if answered.value.wire is not None:
                self._transport.sendto(answered.value.wire, addr)
        except Exception as fault:  # a defect of ours costs the answer, not the ear for others
            self._at_hand = None
            log_fault(log, "an answer over UDP", fault)
        if self._at_hand is not None or self._waiting:
            self._loop.call_soon(self._look)


async def dns_datagrams(name_server: NameServer, host: str, port: int) -> asyncio.DatagramTransport:
    """Answer at this address until the transport is closed. Raises ``UserError``."""
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Datagrams(name_server, loop), local_addr=(host, port)
        )
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise UserError(
            f"cannot listen on {join_host_port(host, port)} for UDP, where name servers answer too: {why}; "
            "choose another address with --listen"
        ) from None
    return transport
