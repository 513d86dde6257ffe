"""Sockets that somebody else opens for us: what a proxy, tor and an I2P router have in common."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from obscura.limits import HELPER_KEEP_ALIVE

OpenSocket = Callable[[str, int], Awaitable[socket.socket]]  # host (a name too), port; raises ``ThroughFault``


class ThroughFault(OSError):
    """No connection, and why in one phrase. ``is_offline``: the helper itself cannot be used, which says nothing of the host."""

    def __init__(self, why: str, *, is_offline: bool = False, is_late: bool = False) -> None:
        super().__init__(why)
        self.is_offline = is_offline
        self.is_late = is_late  # the time was over


def keep_alive(sock: socket.socket) -> None:
    """See that the helper's machine is still there, for who waits on an idle TCP connection to it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), HELPER_KEEP_ALIVE, strict=True):
        option = getattr(socket, name, None)  # not every system has each
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
