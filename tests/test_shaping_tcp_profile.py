"""TCP profiles read back from real sockets: dialled, listening, accepted."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import get_args

import pytest

from obscura.limits import PATH_LOST_S
from obscura.transport import tcp
from obscura.transport.profile import (
    CANNOT_IMITATE,
    HOST_KEEP_ALIVES,
    RANDOM_BUFFER,
    RANDOM_IDLE_S,
    RANDOM_INTERVAL_S,
    KeepAlive,
    ProfileName,
    TcpProfile,
    TcpValues,
    read_back,
)
from obscura.wire.address import Address

NAMES = get_args(ProfileName)


class Owner:
    """Keeps what comes up."""

    def __init__(self) -> None:
        self.receive_buffer = memoryview(bytearray(1_024))
        self.leaving: dict[tcp.Socket, None] = {}
        self.up: list[tcp.Socket] = []
        self.both = asyncio.Event()

    def socket_up(self, link: tcp.Socket) -> None:
        self.up.append(link)
        if len(self.up) == 2:
            self.both.set()

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None: ...

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None: ...

    def socket_down(self, link: tcp.Socket) -> None: ...


async def connected(values: TcpValues, host: str) -> dict[str, TcpValues]:
    """Read back after a real connection: of the listening, the accepted and the dialled socket."""
    owner = Owner()
    place = Address.parse(f"{host}:0?carrier=plain", listening=True)
    server, port = await tcp.listen(owner, place, "accepted", values)
    found = {"listening": read_back(server.sockets[0])}
    assert await tcp.dial(owner, Address.parse(f"obscura://{host}:{port}?carrier=plain"), "dialled", values) is None
    await owner.both.wait()
    for link in owner.up:
        assert link._transport is not None
        found[str(link.tag)] = read_back(link._transport.get_extra_info("socket"))
        link.abort()
    server.close()
    return found


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
def test_a_dialled_socket_gives_up_a_path_that_is_gone_and_an_accepted_one_is_as_the_cover_server_has_it() -> None:
    async def patience() -> dict[str, int]:
        owner = Owner()
        server, port = await tcp.listen(owner, Address.parse("127.0.0.1:0?carrier=plain", listening=True), "accepted")
        assert await tcp.dial(owner, Address.parse(f"obscura://127.0.0.1:{port}?carrier=plain"), "dialled") is None
        await owner.both.wait()
        found = {}
        for link in owner.up:
            assert link._transport is not None
            sock = link._transport.get_extra_info("socket")
            found[str(link.tag)] = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            link.abort()
        server.close()
        return found

    assert asyncio.run(patience()) == {"accepted": 0, "dialled": PATH_LOST_S * 1_000}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_every_socket_has_the_values_of_its_profile(name: ProfileName, host: str) -> None:
    for seed in range(3):
        values = TcpProfile(name, random.Random(seed)).values(0.0)
        for got in asyncio.run(connected(values, host)).values():
            assert got.no_delay is True
            assert (got.keep_alive is None) == (values.keep_alive is None)
            if values.keep_alive is not None and got.keep_alive is not None:
                assert all(have == want for have, want in zip(got.keep_alive, values.keep_alive, strict=True) if want)
            if values.receive_buffer and values.send_buffer:  # Linux reports the double
                assert got.receive_buffer in (values.receive_buffer, 2 * values.receive_buffer)
                assert got.send_buffer in (values.send_buffer, 2 * values.send_buffer)
            if values.hop_limit:
                assert got.hop_limit == values.hop_limit


def test_another_value_would_be_noticed() -> None:
    found = asyncio.run(connected(TcpValues(keep_alive=KeepAlive(61, 7, 4), receive_buffer=9_000), "127.0.0.1"))
    assert {got.keep_alive for got in found.values()} == {KeepAlive(61, 7, 4)}
    assert found["dialled"].receive_buffer == 18_000
    assert asyncio.run(connected(TcpValues(), "127.0.0.1"))["dialled"].keep_alive is None


def test_values_are_drawn_per_epoch_and_within_their_ranges() -> None:
    profile = TcpProfile("random", random.Random(1))
    assert profile.values(0.0) == profile.values(599.0) != profile.values(600.0)
    for epoch in range(200):
        values = profile.values(epoch * 600.0)
        assert values.keep_alive is not None
        assert RANDOM_IDLE_S[0] <= (values.keep_alive.idle_s or 0) <= RANDOM_IDLE_S[1]
        assert RANDOM_INTERVAL_S[0] <= (values.keep_alive.interval_s or 0) <= RANDOM_INTERVAL_S[1]
        assert RANDOM_BUFFER[0] <= (values.receive_buffer or 0) <= RANDOM_BUFFER[1]
    host = TcpProfile("host", random.Random(1))
    assert {host.values(epoch * 600.0).keep_alive for epoch in range(100)} == set(HOST_KEEP_ALIVES)


def test_the_host_profile_leaves_the_syn_alone() -> None:
    """Buffers set by hand would change window and scale of the SYN, and switch the system's own sizing off."""
    with socket.socket() as stock:
        default = stock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    found = asyncio.run(connected(TcpProfile("host", random.Random(1)).values(0.0), "127.0.0.1"))
    assert found["listening"].receive_buffer == default


def test_what_cannot_be_imitated_is_said() -> None:
    assert set(CANNOT_IMITATE) == set(NAMES)
    assert any("timestamps" in said for said in CANNOT_IMITATE["windows"])
    assert CANNOT_IMITATE["host"] == ()
