"""TCP sockets by themselves: who is slow, who has stopped, what is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from obscura.daemon.strangers import try_port
from obscura.errors import UserError
from obscura.transport import tcp
from obscura.wire.address import Address, CarrierNumber

DEADLINE_S = 20.0
MIB = 1 << 20


class Owner:
    """Notes what a socket says."""

    def __init__(self) -> None:
        self.receive_buffer = memoryview(bytearray(4_096))
        self.leaving: dict[tcp.Socket, None] = {}
        self.said: list[object] = []
        self.socket: tcp.Socket | None = None

    def socket_up(self, link: tcp.Socket) -> None:
        self.socket = link

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None:
        self.said.append(bytes(data))

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None:
        self.said.append(is_writable)

    def socket_down(self, link: tcp.Socket) -> None:
        self.said.append("down")


async def connected(owner: Owner) -> tuple[tcp.Socket, socket.socket]:
    """A socket of the owner, and its far end."""
    near, far = socket.socketpair()
    far.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: tcp.Socket(owner, 1), sock=near)
    assert owner.socket is not None
    return owner.socket, far


async def until(true: Callable[..., bool]) -> None:
    """Let the loop run until something is so."""
    while not true():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.001)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Within the deadline."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


def test_a_slow_reader_is_told_from_one_that_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STALL_LOOK_S", 0.002)

    async def scenario() -> None:
        loop, owner = asyncio.get_running_loop(), Owner()
        link, far = await connected(owner)
        link.write([bytes(8 * MIB)])
        assert owner.said == [False]
        looks = 0
        original = tcp.Socket._look_again

        def counted(self: tcp.Socket) -> None:
            nonlocal looks
            looks += 1
            original(self)

        monkeypatch.setattr(tcp.Socket, "_look_again", counted)
        link._stop_looking()
        link._look_later()
        await until(lambda: looks >= 5)  # nobody reads: nothing is said again
        assert owner.said == [False]
        for _ in range(4):
            said, taken = len(owner.said), 0
            while taken < MIB:
                taken += len(await loop.sock_recv(far, 256 << 10))
            await until(lambda before=said: len(owner.said) > before)
        assert set(owner.said) == {False}
        while owner.said[-1] is False:
            await loop.sock_recv(far, 256 << 10)
        assert owner.said == [False] * (len(owner.said) - 1) + [True]
        assert link._look is None
        link.abort()
        far.close()

    run(scenario)


def test_who_takes_the_last_bytes_slowly_is_waited_for_and_who_takes_none_is_reset() -> None:
    async def scenario() -> None:
        loop, owner = asyncio.get_running_loop(), Owner()
        link, far = await connected(owner)
        transport = link._transport
        assert transport is not None
        link.write([bytes(8 * MIB)])
        link.shut()
        for _ in range(3):
            before = transport.get_write_buffer_size()
            while transport.get_write_buffer_size() >= before:
                await loop.sock_recv(far, 256 << 10)
            link._end_if_stuck(before)
            assert link in owner.leaving, "some was taken since"
        link._end_if_stuck(transport.get_write_buffer_size())
        assert link not in owner.leaving
        far.close()

    run(scenario)


def test_a_lost_socket_looks_no_more() -> None:
    async def scenario() -> None:
        owner = Owner()
        link, far = await connected(owner)
        link.write([bytes(8 * MIB)])
        far.close()
        await until(lambda: "down" in owner.said)
        link.abort()
        await asyncio.sleep(0)
        assert link._look is None
        link.write([b"into the void"])
        link.hold(True)
        link.shut()

    run(scenario)


def test_a_system_without_ipv6_is_a_sentence_and_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoIpv6(socket.socket):
        def __init__(self, *given: Any, **named: Any) -> None:
            if given[:1] == (socket.AF_INET6,):
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(*given, **named)

    async def scenario() -> None:
        place = Address(None, "::1", 19_733, CarrierNumber.TLS)
        monkeypatch.setattr(socket, "socket", NoIpv6)
        with pytest.raises(UserError, match="address family not supported"):
            await tcp.listen(Owner(), place, 1)
        assert try_port(place).fault == "address family not supported by protocol"

    run(scenario)


class Neighbour(asyncio.Transport):
    """A connection from whoever gave itself this address."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 4_000, 0, 0)})

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


@pytest.mark.parametrize(
    ("host", "is_seen"), [("fd87:d87e:eb43::1", False), ("fd60:db4d:ddb5::1", False), ("fe80::1%eth0", True)]
)
def test_a_neighbour_whose_address_stands_for_a_tor_or_i2p_address_comes_up_as_one_without(
    host: str, is_seen: bool
) -> None:
    """Else its connection would be in no count, with no time at which it ends."""
    owner = Owner()
    socket_of_its = tcp.Socket(owner, 1)
    socket_of_its.connection_made(Neighbour(host))
    assert owner.socket is socket_of_its
    assert (owner.socket.remote is not None) is is_seen
