"""TCP parameters of this node's sockets (specification, *TCP Parameter Randomization*).

What user space may set is buffers, keep-alive, Nagle's algorithm and the hop limit. Order of options, window and window scale in
a SYN, timestamps and retransmission are the kernel's: a profile of another system says so, and is no disguise by itself.
"""

from __future__ import annotations

import random
import socket
import sys
from typing import Literal, NamedTuple

from obscura.limits import EPOCH_S

ProfileName = Literal["host", "random", "linux", "windows", "macos"]
RANDOM_BUFFER = (8_192, 10_240)  # bytes; the published range of the profile `random`, as those below
RANDOM_IDLE_S = (30, 90)
RANDOM_INTERVAL_S = (5, 15)
RANDOM_PROBES = (3, 9)


class KeepAlive(NamedTuple):
    """Seconds of silence before the first probe, seconds between probes, probes; None = the system's."""

    idle_s: int | None = None
    interval_s: int | None = None
    probes: int | None = None


class TcpValues(NamedTuple):
    """What one socket gets. None leaves a field to the system, which then sizes its buffers by itself."""

    no_delay: bool = True
    keep_alive: KeepAlive | None = None
    receive_buffer: int | None = None
    send_buffer: int | None = None
    hop_limit: int | None = None


STOCK = TcpValues()  # nothing but no delay
# What common programs of a Linux system have: nothing, the system's, curl's, that of programs in Go. All leave buffers alone.
HOST_KEEP_ALIVES = (None, KeepAlive(), KeepAlive(60, 60), KeepAlive(15, 15, 9))
_SYSTEMS: dict[str, TcpValues] = {
    "linux": TcpValues(keep_alive=KeepAlive(7_200, 75, 9), hop_limit=64),
    "windows": TcpValues(keep_alive=KeepAlive(7_200, 1, 10), receive_buffer=65_536, send_buffer=65_536, hop_limit=128),
    "macos": TcpValues(keep_alive=KeepAlive(7_200, 75, 8), receive_buffer=131_072, send_buffer=131_072, hop_limit=64),
}
_KERNELS = (
    "order of options in the SYN",
    "window scale",
    "timestamps",
    "initial window",
    "retransmission times",
    "IP id",
)
CANNOT_IMITATE: dict[str, tuple[str, ...]] = {
    "host": (),
    "random": ("window scale and window of the SYN follow from the small buffers, as no stock system's do",),
    "linux": () if sys.platform == "linux" else _KERNELS,
    "windows": () if sys.platform == "win32" else _KERNELS,
    "macos": () if sys.platform == "darwin" else _KERNELS,
}


class TcpProfile:
    """Draws the values of a profile, anew in each epoch, so that all links of ten minutes agree."""

    def __init__(self, name: ProfileName, rng: random.Random) -> None:
        self.name = name
        self._rng = rng
        self._epoch: int | None = None
        self._values = TcpValues()

    def values(self, now: float) -> TcpValues:
        """The values of the epoch of ``now``."""
        epoch = int(now // EPOCH_S)
        if epoch != self._epoch:
            self._epoch = epoch
            self._values = self._draw()
        return self._values

    def _draw(self) -> TcpValues:
        rng = self._rng
        if self.name == "host":
            return TcpValues(keep_alive=rng.choice(HOST_KEEP_ALIVES))
        if self.name == "random":
            keep_alive = KeepAlive(*(rng.randint(*span) for span in (RANDOM_IDLE_S, RANDOM_INTERVAL_S, RANDOM_PROBES)))
            buffers = rng.randint(*RANDOM_BUFFER), rng.randint(*RANDOM_BUFFER)
            return TcpValues(keep_alive=keep_alive, receive_buffer=buffers[0], send_buffer=buffers[1])
        return _SYSTEMS[self.name]


def apply(sock: socket.socket, values: TcpValues) -> None:
    """Set the values. Before ``connect`` or ``listen``, since the buffers decide what the SYN says; accepted sockets inherit."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, values.no_delay)
    keep_alive = values.keep_alive
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keep_alive is not None)
    options = [
        (socket.SOL_SOCKET, "SO_RCVBUF", values.receive_buffer),
        (socket.SOL_SOCKET, "SO_SNDBUF", values.send_buffer),
    ]
    if keep_alive is not None:
        options += [
            (socket.IPPROTO_TCP, "TCP_KEEPIDLE", keep_alive.idle_s),
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL", keep_alive.interval_s),
            (socket.IPPROTO_TCP, "TCP_KEEPCNT", keep_alive.probes),
        ]
    if sock.family == socket.AF_INET6:
        options.append((socket.IPPROTO_IPV6, "IPV6_UNICAST_HOPS", values.hop_limit))
    else:
        options.append((socket.IPPROTO_IP, "IP_TTL", values.hop_limit))
    for level, name, value in options:
        option = getattr(socket, name, None)  # not every system has each
        if option is not None and value is not None:
            sock.setsockopt(level, option, value)


def read_back(sock: socket.socket) -> TcpValues:
    """What the socket really has. Linux reports twice the buffer that was asked for, and has least sizes of its own."""
    keep_alive = None
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        read = (
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        )
        keep_alive = KeepAlive(*read)
    is_v6 = sock.family == socket.AF_INET6
    hops = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if is_v6 else (socket.IPPROTO_IP, socket.IP_TTL)
    return TcpValues(
        no_delay=bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
        keep_alive=keep_alive,
        receive_buffer=sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        send_buffer=sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        hop_limit=sock.getsockopt(*hops),
    )
