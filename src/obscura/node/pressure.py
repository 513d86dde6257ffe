"""Back-pressure: from whom nothing is read for a while, when a link is looked at again, and what all links together may hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from obscura.connection import Connection
from obscura.limits import BLOCKED_POLL_S, SEND_QUEUE_HIGH, SEND_QUEUE_LOW, SEND_STALL_S
from obscura.node.face import Face
from obscura.node.io import Hold
from obscura.node.link import Link


def hold(link: Link, connection: Connection) -> Hold | None:
    """Who does not read, or sends over its rate, is not read from; None where nothing changes.

    Where a carrier's own flow control runs in the bytes that are read (ssh), not reading would stop both directions for ever.
    """
    link.is_slow = connection.waiting > (SEND_QUEUE_LOW if link.is_slow else SEND_QUEUE_HIGH)
    held = (link.is_slow and not connection.is_blocked) or connection.is_full or link.meter.is_behind
    if held == link.held:
        return None
    link.held = held
    return Hold(link.id, held)


def next_look(link: Link, connection: Connection, now: float) -> float:
    """When something of the link is due."""
    deadline = min(connection.deadline(), link.meter.deadline(now))
    if link.blocked_since is None:
        return deadline
    later = max(deadline, now + BLOCKED_POLL_S)  # a schedule that is due cannot be served now
    return min(later, link.blocked_since + SEND_STALL_S)


class Memory:
    """Bytes held for all peers. Each face has its share: a link of one must not end because of what another one holds."""

    def __init__(self, budget: int, faces: int) -> None:
        self._budget = budget // faces
        self._held: Counter[Face] = Counter()
        self.most = 0  # so far, of all faces

    def count(self, link: Link, held: int) -> bool:
        """Keep the sum. Whether that of the link's face is over the budget."""
        self._held[link.face] += held - link.memory
        link.memory = held
        self.most = max(self.most, sum(self._held.values()))
        return self._held[link.face] > self._budget


def greediest(links: Iterable[Link], face: Face) -> Link:
    """Who makes us hold most at a face, manual peers last."""
    return max((link for link in links if link.face is face), key=lambda link: (not link.manual, link.memory))
