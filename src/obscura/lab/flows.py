"""TCP flows as an observer has them: sizes, directions and times of packets with payload, and the numbers a classifier gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec

_FIRST = 40  # packets whose sizes and gaps are features one by one
_BURSTS = 12
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Packet(NamedTuple):
    """``size``: bytes of TCP payload, positive from the client, negative from the server. ``at``: seconds."""

    at: float
    size: int


class Flow(msgspec.Struct, frozen=True):
    """One connection. ``server``: the address by which its kind is known."""

    server: str
    packets: tuple[Packet, ...]


def read_flows(rows: Iterable[Sequence[str]]) -> list[Flow]:
    """Rows of tshark: stream, time, server's address, ports from and to, payload bytes; the service's port is lower."""
    found: dict[str, tuple[str, list[Packet]]] = {}
    for stream, at, server, source, target, size in rows:
        if int(size):
            direction = 1 if int(target) < int(source) else -1
            found.setdefault(stream, (server, []))[1].append(Packet(float(at), direction * int(size)))
    return [Flow(server, tuple(packets)) for server, packets in found.values()]


def features(flow: Flow) -> list[float]:
    """Sizes and gaps of the first packets, of the first bursts, and of the flow as a whole."""
    sizes = [packet.size for packet in flow.packets]
    gaps = [later.at - earlier.at for earlier, later in pairwise(flow.packets)]
    bursts = [sum(run) for _, run in groupby(sizes, key=lambda size: size > 0)]
    return [
        *size_features(sizes, bursts),
        *_padded(gaps, _FIRST),
        *_spread(gaps),
        flow.packets[-1].at - flow.packets[0].at,
    ]


def size_features(sizes: Sequence[int], bursts: Sequence[float]) -> list[float]:
    """What is in a flow without its times."""
    up = [size for size in sizes if size > 0]
    down = [-size for size in sizes if size < 0]
    return [
        *_padded(sizes, _FIRST),
        *_padded(bursts, _BURSTS),
        *(value for part in (up, down) for value in (len(part), sum(part), *_spread(part))),
        len(bursts),
    ]


def _padded(values: Sequence[float], count: int) -> list[float]:
    return [*map(float, values[:count]), *[0.0] * (count - len(values))]


def _spread(values: Sequence[float]) -> list[float]:
    ordered = sorted(values) or [0.0]
    return [float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) for share in _QUANTILES]
