"""SOCKS5 as a client: the bytes of RFC 1928 and 1929, tor's extended errors as sentences, proxies that misbehave."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from obscura.transport import socks5
from obscura.transport.socks5 import Credentials, SocksFault
from tor_fakes import FakeSocks, local

DEADLINE_S = 20.0
ONION = "a" * 56 + ".onion"
PAIR = Credentials("user", "secret")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


def fault_of(proxy: FakeSocks, host: str = ONION, credentials: Credentials | None = PAIR) -> SocksFault:
    """How a connection through this proxy fails."""
    found: list[SocksFault] = []

    async def scenario() -> None:
        async with proxy.running():
            with pytest.raises(SocksFault) as caught:
                await socks5.connect(proxy.place, host, 19733, credentials, timeout_s=5.0)
            found.append(caught.value)

    run(scenario)
    return found[0]


@pytest.mark.parametrize("host", [ONION, "node.example", "203.0.113.5", "2001:db8::1"])
@pytest.mark.parametrize("credentials", [PAIR, None])
def test_bytes_go_both_ways_and_none_is_lost(host: str, credentials: Credentials | None) -> None:
    async def scenario() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"the server speaks first ")  # right behind the proxy's answer
            writer.write(await reader.readexactly(4))
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            far = server.sockets[0].getsockname()[:2]
            async with FakeSocks({f"{host}:443": far}).running() as proxy:
                sock = await socks5.connect(proxy.place, host, 443, credentials, timeout_s=5.0)
                with sock:
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(sock, b"ping")
                    got = b""
                    while more := await loop.sock_recv(sock, 100):
                        got += more
        assert got == b"the server speaks first ping"
        login = (b"", b"") if credentials is None else (b"user", b"secret")
        assert proxy.asked == [(f"{host}:443", *login)]
        assert proxy.raw == [bytes((5, 1, 0 if credentials is None else 2))]  # one method: no quiet downgrade

    run(scenario)


@pytest.mark.parametrize("reply", list(socks5.REPLIES))
def test_every_error_is_a_sentence(reply: int) -> None:
    fault = fault_of(FakeSocks({f"{ONION}:19733": reply}))
    assert str(fault) == socks5.REPLIES[reply]
    assert fault.reply == reply
    assert fault.is_offline == (reply == 0x03), "only a proxy without a network says nothing of the host"


def test_an_absent_service_and_a_missing_key_are_told_apart() -> None:
    assert "no such onion service" in socks5.REPLIES[0xF0]
    assert "client-keys" in socks5.REPLIES[0xF4]
    assert len(set(socks5.REPLIES.values())) == len(socks5.REPLIES)


def test_an_error_that_nobody_knows_is_named() -> None:
    assert "0x99" in str(fault_of(FakeSocks({f"{ONION}:19733": 0x99})))


def test_a_proxy_that_is_not_there_is_no_fault_of_the_host() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused

        async def scenario() -> None:
            with pytest.raises(SocksFault, match="no SOCKS proxy listens at 127") as caught:
                await socks5.connect(local(taken.getsockname()[1]), ONION, 1, timeout_s=5.0)
            assert caught.value.is_offline

        run(scenario)


@pytest.mark.parametrize(
    ("methods", "credentials", "why"),
    [((0,), PAIR, "does not take a user"), ((2,), None, "wants a user"), ((), PAIR, "does not take a user")],
)
def test_a_proxy_that_would_share_circuits_is_refused(
    methods: tuple[int, ...], credentials: Credentials | None, why: str
) -> None:
    proxy = FakeSocks(methods=methods)
    fault = fault_of(proxy, credentials=credentials)
    assert why in str(fault)
    assert fault.is_offline
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("stage", "sent"),
    [
        ("method", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("method", b"\x04\x5a"),
        ("method", b""),
        ("login", b"\x01\x01"),
        ("login", b"\x01"),
        ("reply", b"\x05\x00\x00"),
        ("reply", b"\x05\x00\x00\x07"),
        ("reply", b"\x04\x00\x00\x01"),
        ("reply", b"\x05\x00\x00\x03\x20short"),
    ],
)
def test_what_is_no_proxy_ends_in_a_fault(stage: str, sent: bytes) -> None:
    proxy = FakeSocks()
    proxy.broken = {stage: sent}
    assert fault_of(proxy).is_offline


def test_a_silent_proxy_is_given_up_in_time() -> None:
    async def scenario() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            with pytest.raises(SocksFault, match="no connection within 0 s") as caught:
                await socks5.connect(local(server.sockets[0].getsockname()[1]), ONION, 1, timeout_s=0.05)
            assert caught.value.is_offline  # it has not even heard of the host

    run(scenario)


def test_a_proxy_that_finds_nobody_in_time_says_something_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(*args: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socks5, "_ask", late)
    fault = fault_of(FakeSocks())
    assert fault.is_late
    assert not fault.is_offline


@pytest.mark.parametrize("host", ["", "x" * 256])
def test_a_host_that_does_not_fit_is_not_cut(host: str) -> None:
    assert "1 to 255 bytes" in str(fault_of(FakeSocks(), host=host))


def test_fresh_credentials_never_repeat() -> None:
    rng = random.Random(1)
    assert len({Credentials.fresh(rng) for _ in range(1_000)}) == 1_000
    assert all(0 < len(text) < 256 for text in Credentials.fresh(rng))
