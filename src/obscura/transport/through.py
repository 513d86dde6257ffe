"""Sockets that somebody else opens for us: what a proxy, tor and an I2P router have in common."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

OpenSocket = Callable[[str, int], Awaitable[socket.socket]]  # host (a name too), port; raises ``ThroughFault``


class ThroughFault(OSError):
    """No connection, and why in one phrase. ``is_offline``: the helper itself cannot be used, which says nothing of the host."""

    def __init__(self, why: str, *, is_offline: bool = False, is_late: bool = False) -> None:
        super().__init__(why)
        self.is_offline = is_offline
        self.is_late = is_late  # the time was over
