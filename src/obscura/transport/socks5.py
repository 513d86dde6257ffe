"""SOCKS5 (RFC 1928) as a client: a connected socket to a host that somebody else reaches for us.

Names go to the proxy as they are: nothing is ever looked up here. With ``credentials`` (RFC 1929) tor gives each pair a circuit
of its own. Tor's extended errors (proposal 304, ``ExtendedErrors`` of a SocksPort) come back as sentences.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from obscura.limits import SOCKS_CREDENTIAL_BYTES
from obscura.transport.through import ThroughFault
from obscura.wire.address import Endpoint

_VERSION, _CONNECT = 5, 1
_NO_LOGIN, _PASSWORD = 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NO_NETWORK = 0x03  # ENETUNREACH at the proxy, or a tor that is offline: like our own, it says nothing of the host

REPLIES: dict[int, str] = {
    0x01: "the proxy could not connect",
    0x02: "the proxy's rules forbid it",
    0x03: "the proxy has no network",
    0x04: "the host cannot be reached",
    0x05: "nothing listens there",
    0x06: "it took too long",
    0x07: "the proxy does not make connections",
    0x08: "the proxy does not know this kind of address",
    0xF0: "there is no such onion service now: it is down, or the address is mistyped",
    0xF1: "the onion service's descriptor is not valid",
    0xF2: "the onion service did not answer at its introduction points: it may have just restarted, try again",
    0xF3: "the onion service did not come to the rendezvous: it may be overloaded, try again",
    0xF4: "the onion service admits only those who have a key; yours is missing: see tor-daemon.client-keys",
    0xF5: "the onion service does not accept your key: compare tor-daemon.client-keys with what its operator gave you",
    0xF6: "this is no valid onion address",
    0xF7: "the onion service's introduction points did not answer in time: try again",
}


class SocksFault(ThroughFault):
    """``reply``: the proxy's own word, if it was that which refused."""

    def __init__(self, why: str, *, is_offline: bool = False, is_late: bool = False, reply: int | None = None) -> None:
        super().__init__(why, is_offline=is_offline, is_late=is_late)
        self.reply = reply


class Credentials(NamedTuple):
    """A user and a password of 1 to 255 bytes each."""

    user: str
    password: str

    @classmethod
    def fresh(cls, rng: random.Random) -> Credentials:
        """A pair that nobody used before: a circuit of its own."""
        return cls(rng.randbytes(SOCKS_CREDENTIAL_BYTES).hex(), rng.randbytes(SOCKS_CREDENTIAL_BYTES).hex())


async def connect(
    proxy: Endpoint, host: str, port: int, credentials: Credentials | None = None, *, timeout_s: float
) -> socket.socket:
    """A connected, non-blocking socket to ``host`` (a name or IP address) through ``proxy``. Raises ``SocksFault``.

    With ``credentials`` the proxy has to take them: a circuit that others share would be a quiet downgrade.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in proxy.host_text else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    is_asked = False  # for the host: before, only the proxy can be late
    with contextlib.ExitStack() as until_connected:
        until_connected.enter_context(sock)
        try:
            async with asyncio.timeout(timeout_s):
                with _proxy_is_there(proxy):
                    await asyncio.get_running_loop().sock_connect(sock, (proxy.host_text, proxy.port))
                await _negotiate(sock, credentials)
                is_asked = True
                await _ask(sock, host, port)
        except TimeoutError:
            why = f"no connection within {timeout_s:.0f} s"
            raise SocksFault(why, is_offline=not is_asked, is_late=True) from None
        except SocksFault:
            raise
        except OSError as error:
            raise SocksFault("the proxy broke the connection", is_offline=True) from error
        # Without it small frames wait for the acknowledgement of the last ones.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until_connected.pop_all()
    return sock


async def greet(proxy: Endpoint, *, timeout_s: float) -> str | None:
    """Whether a SOCKS5 proxy answers that would take us as we are: None, or why not. It is asked for no connection."""
    sock = socket.socket(socket.AF_INET6 if ":" in proxy.host_text else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    with sock:
        try:
            async with asyncio.timeout(timeout_s):
                with _proxy_is_there(proxy):
                    await asyncio.get_running_loop().sock_connect(sock, (proxy.host_text, proxy.port))
                await _negotiate(sock, None)
        except TimeoutError:
            return f"no answer within {timeout_s:.0f} s"
        except OSError as error:
            return str(error) or "the proxy broke the connection"
    return None


@contextlib.contextmanager
def _proxy_is_there(proxy: Endpoint) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise SocksFault(f"no SOCKS proxy listens at {proxy}", is_offline=True) from None


async def _negotiate(sock: socket.socket, credentials: Credentials | None) -> None:
    method = _NO_LOGIN if credentials is None else _PASSWORD
    await _send(sock, bytes((_VERSION, 1, method)))
    version, chosen = await _read(sock, 2)
    if version != _VERSION:
        raise SocksFault("it is no SOCKS5 proxy", is_offline=True)
    if chosen != method:
        wanted = "wants a user and a password" if credentials is None else "does not take a user and a password"
        raise SocksFault(f"the proxy {wanted}", is_offline=True)
    if credentials is None:
        return
    await _send(sock, b"\x01" + _counted(credentials.user) + _counted(credentials.password))
    _, status = await _read(sock, 2)
    if status:
        raise SocksFault("the proxy refuses the user and password", is_offline=True)


async def _ask(sock: socket.socket, host: str, port: int) -> None:
    await _send(sock, bytes((_VERSION, _CONNECT, 0)) + _place(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = await _read(sock, 4)
    if version != _VERSION:
        raise SocksFault("it is no SOCKS5 proxy", is_offline=True)
    if reply:
        why = REPLIES.get(reply, f"the proxy answers with the unknown error {reply:#04x}")
        raise SocksFault(why, reply=reply, is_offline=reply == _NO_NETWORK)
    if kind not in (_IPV4, _NAME, _IPV6):
        raise SocksFault("the proxy's answer cannot be understood", is_offline=True)
    size = {_IPV4: 4, _IPV6: 16}.get(kind) or (await _read(sock, 1))[0]
    await _read(sock, size + 2)  # where the proxy connected from, which is nothing to us


def _place(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return bytes((_NAME,)) + _counted(host)
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed


def _counted(text: str) -> bytes:
    raw = text.encode()
    if not 0 < len(raw) < 256:
        raise SocksFault("a host, user or password has 1 to 255 bytes in SOCKS5")
    return bytes((len(raw),)) + raw


async def _send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def _read(sock: socket.socket, count: int) -> bytes:
    """Exactly so many bytes and none of what follows, which belongs to the peer."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise SocksFault("the proxy ended the connection", is_offline=True)
        data += more
    return data
