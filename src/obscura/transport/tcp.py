"""TCP sockets under asyncio (or uvloop): bytes in and out, back-pressure both ways, nothing of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from typing import NamedTuple, Protocol

from obscura.errors import UserError
from obscura.limits import (
    CONNECT_S,
    LEAVING_SOCKETS,
    LINGER_S,
    PATH_LOST_S,
    RESET_S,
    SHUT_S,
    STALL_LOOK_S,
    WRITE_BUFFER,
)
from obscura.transport.profile import STOCK, TcpValues, apply
from obscura.transport.through import OpenSocket, ThroughFault
from obscura.wire.address import Address, Endpoint, endpoint_seen, join_host_port


class Owner(Protocol):
    """Who owns the sockets of one loop. Every method runs in the loop and must not block."""

    receive_buffer: memoryview
    leaving: dict[Socket, None]  # those that no link has any more, in order; of each owner, so that none ends another's

    def socket_up(self, link: Socket) -> None:
        """Connected, in either direction. ``link.tag`` is what it was made with."""

    def socket_bytes(self, link: Socket, data: memoryview) -> None:
        """Bytes arrived; ``data`` is the shared buffer and valid until this returns."""

    def socket_writable(self, link: Socket, is_writable: bool) -> None:
        """The write buffer is over its high-water mark, or below its low one again. False again: it is over, but has shrunk."""

    def socket_down(self, link: Socket) -> None:
        """The peer's side ended, or all of it; may be called twice."""


class Socket(asyncio.BufferedProtocol):
    """One connection. All sockets of an owner share one receive buffer, since bytes are used before the next read."""

    __slots__ = ("_far", "_left", "_lingers_until", "_look", "_owner", "_silence", "_transport", "gathers", "tag")

    def __init__(self, owner: Owner, tag: object, far: Endpoint | None = None) -> None:
        """``far``: where the peer is, if the socket itself leads to a proxy."""
        self.tag = tag
        self.gathers = False  # see ``gather``
        self._owner = owner
        self._far = far
        self._transport: asyncio.Transport | None = None
        self._silence: asyncio.TimerHandle | None = None  # the end of a socket whose own side has ended
        self._lingers_until = 0.0
        self._left = 0  # bytes in the write buffer when last looked at, while it is full
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP transport has both directions
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)  # type: ignore[union-attr]
        self._owner.socket_up(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._owner.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._silence is not None:
            self._discarded()
            return
        self._owner.socket_bytes(self, self._owner.receive_buffer[:nbytes])

    def pause_writing(self) -> None:
        self._owner.socket_writable(self, False)
        self._left = self._transport.get_write_buffer_size() if self._transport is not None else 0
        self._look_later()

    def resume_writing(self) -> None:
        self._stop_looking()
        self._owner.socket_writable(self, True)

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(STALL_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        """Tell a slow reader from one that has stopped: whoever took something gets the whole patience again."""
        if self._transport is None:
            return
        left = self._transport.get_write_buffer_size()
        if left < self._left:
            self._left = left
            self._owner.socket_writable(self, False)
        self._look_later()

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _discarded(self) -> None:
        """Bytes came after the own end: wait for more, but not for ever."""
        assert self._silence is not None
        loop = asyncio.get_running_loop()
        self._silence.cancel()
        left = min(LINGER_S[0], self._lingers_until - loop.time())
        self._silence = loop.call_later(max(0.0, left), self.abort)

    def eof_received(self) -> bool:
        if self._silence is not None:
            self._silence.cancel()
            return False
        self._owner.socket_down(self)
        return True  # what waits in the write buffer still leaves; the owner closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.leaving.pop(self, None)
        if self._silence is not None:
            self._silence.cancel()
        self._stop_looking()
        self._owner.socket_down(self)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport is None

    @property
    def own_host(self) -> str:
        """The own side's IP address; empty if the socket does not say."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return str(name[0]).partition("%")[0] if isinstance(name, tuple) else ""

    @property
    def remote(self) -> Endpoint | None:
        """Where the peer's side is; None if the socket does not say."""
        if self._far is not None:
            return self._far
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return endpoint_seen(str(name[0]), int(name[1])) if isinstance(name, tuple) else None

    def write(self, pieces: list[bytes], *, resets: bool = False) -> None:
        """Queue bytes; nothing happens once the socket is closing. ``resets``: the last ones before a reset; several pieces are
        then a program's several small writes.
        """
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if resets and len(pieces) > 1:
                pieces = self._write_last(transport, pieces)
            for piece in pieces:
                transport.write(piece)

    def gather(self, gathers: bool) -> None:
        """Whether a small piece waits for the acknowledgement of the one before (Nagle, RFC 896), as with programs that have not
        said TCP_NODELAY. Not where the socket leads to a proxy: what that sends on is its own.
        """
        if self._transport is not None and self._far is None:
            self.gathers = gathers
            with contextlib.suppress(OSError):  # the peer has gone
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not gathers)

    @staticmethod
    def _write_last(transport: asyncio.Transport, pieces: list[bytes]) -> list[bytes]:
        """As a program that knows nothing of TCP_NODELAY: what waits for an acknowledgement is lost in the reset. One call for
        each piece, since a loop may join them. What the system does not take at once is left.
        """
        sock = transport.get_extra_info("socket")
        left = list(pieces)
        with contextlib.suppress(OSError):  # it is full, or the peer has gone: the transport deals with that
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, False)
            while left and not transport.get_write_buffer_size():
                left[0] = left[0][os.write(sock.fileno(), left[0]) :]
                if left[0]:
                    break
                del left[0]
        return left

    def hold(self, held: bool) -> None:
        """Stop or go on reading."""
        if self._transport is not None and not self._transport.is_closing():
            if held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def shut(self, *, lingers: bool = False, resets: bool = False) -> None:
        """Close once what was written is out, but after a few seconds in which the peer takes nothing in any case.

        ``lingers``: end the own side, and close when the peer does or falls silent; what it still sends is discarded.
        ``resets``: as the system closes for a program that has left input unread.
        """
        transport = self._transport
        if transport is None:
            return
        leaving = self._owner.leaving
        leaving[self] = None
        while len(leaving) > LEAVING_SOCKETS:
            next(iter(leaving)).abort()
        if lingers and not transport.is_closing():
            loop = asyncio.get_running_loop()
            self._lingers_until = loop.time() + LINGER_S[1]
            self._silence = loop.call_later(LINGER_S[0], self.abort)
            transport.resume_reading()
            try:
                transport.write_eof()
            except OSError:  # the peer has reset it, and the loop does not know yet: asyncio's own raises here
                self.abort()
        else:
            loop = asyncio.get_running_loop()
            if left := transport.get_write_buffer_size():
                loop.call_later(SHUT_S, self._end_if_stuck, left)
            if resets and not transport.is_closing():
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                if transport.is_reading():
                    transport.pause_reading()
                loop.call_later(RESET_S, transport.close)
            else:
                transport.close()

    def _end_if_stuck(self, before: int) -> None:
        """Reset it if the peer has taken nothing of its last bytes, ``before`` when last looked at; a slow one gets them all."""
        left = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if 0 < left < before:
            asyncio.get_running_loop().call_later(SHUT_S, self._end_if_stuck, left)
        else:
            self.abort()

    def abort(self) -> None:
        """Close now."""
        self._owner.leaving.pop(self, None)
        if self._transport is not None:
            self._transport.abort()


class Missed(NamedTuple):
    """No connection: one phrase that says why, and whether this machine cannot make any, which says nothing of the peer."""

    why: str
    is_offline: bool = False


_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time
# No network, or no descriptor or memory of this machine's for one more socket: an address that was not even asked is not charged.
_OFFLINE = (
    *(errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL),
    *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
)


async def dial(
    owner: Owner, address: Address, tag: object, values: TcpValues = STOCK, through: OpenSocket | None = None
) -> Missed | None:
    """Open a connection; None, or why not. ``socket_up`` has been called when it is None.

    ``through`` opens the socket instead of this machine's own network, and gets names as they are.
    """
    if through is not None:
        return await _dial_through(owner, address, tag, through)
    endpoint = address.endpoint
    if endpoint is None:
        return Missed("its name is not looked up, give its IP address")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as until_owned:
        try:
            sock = until_owned.enter_context(_socket(endpoint.host_text, values))
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(sock, (endpoint.host_text, endpoint.port))
                _give_up_lost_paths(sock)
                await loop.create_connection(lambda: Socket(owner, tag), sock=sock)
            until_owned.pop_all()
        except OSError as error:
            return _missed(endpoint, error)
    return None


def _give_up_lost_paths(sock: socket.socket) -> None:
    """After a change of network no answer comes for what was sent from the old address, and no reset: the kernel would try on for
    a quarter of an hour. Dialled sockets alone: how long a listener tries is part of its cover.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, round(PATH_LOST_S * 1_000))


async def _dial_through(owner: Owner, address: Address, tag: object, through: OpenSocket) -> Missed | None:
    with contextlib.ExitStack() as until_owned:
        try:
            sock = until_owned.enter_context(await through(address.host, address.port))
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: Socket(owner, tag, address.endpoint), sock=sock)
            until_owned.pop_all()
        except ThroughFault as fault:
            return Missed(f"{join_host_port(address.host, address.port)}: {fault}", fault.is_offline)
        except OSError as error:
            why = f"{join_host_port(address.host, address.port)}: {_reason(error)}"
            return Missed(why, error.errno in _OFFLINE)
    return None


def _missed(endpoint: Endpoint, error: OSError) -> Missed:
    if isinstance(error, TimeoutError):
        return Missed(f"nothing answered at {endpoint} within {CONNECT_S:.0f} s")
    if isinstance(error, ConnectionRefusedError):
        return Missed(f"nothing listens at {endpoint}")
    return Missed(f"{endpoint} cannot be reached: {_reason(error)}", error.errno in _OFFLINE)


async def listen(owner: Owner, address: Address, tag: object, values: TcpValues = STOCK) -> tuple[asyncio.Server, int]:
    """Accept connections; the server and the port it has. Raises ``UserError`` if the address cannot be had."""
    endpoint = address.endpoint
    if endpoint is None:
        raise UserError(f"listen = {address.host}: give the IP address to listen on, not a name")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as until_listening:
        try:
            sock = until_listening.enter_context(_socket(endpoint.host_text, values))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((endpoint.host_text, endpoint.port))
            server = await loop.create_server(lambda: Socket(owner, tag), sock=sock, backlog=512)
        except OSError as error:
            raise UserError(
                f"cannot listen on {endpoint}: {_reason(error)}; choose another address with --listen"
            ) from None
        until_listening.pop_all()
    return server, server.sockets[0].getsockname()[1]


def _socket(host: str, values: TcpValues) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    apply(sock, values)
    return sock


def _reason(error: OSError) -> str:
    """What the system says, without what asyncio adds."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
