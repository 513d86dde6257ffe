"""Traffic of a node since its start, links that ended included: frames by type, bytes of the wire, times of handshakes.

Nothing here tells of the stem: its frames are in no tally (``Message.PRIVATE``), only in the bytes of the wire, where whoever
watches the wire sees them too.
"""

from __future__ import annotations

from collections.abc import Iterable

from obscura.node.durations import Durations
from obscura.node.link import SENT, Link, sent
from obscura.wire.tally import Tally, add


class Flow:
    """One direction: frames by type, and bytes of the wire."""

    __slots__ = ("tally", "wire")

    def __init__(self) -> None:
        self.tally: Tally = {}
        self.wire = 0

    def take(self, tally: Tally, wire: int) -> None:
        """Add what a link did."""
        add(self.tally, tally)
        self.wire += wire


class Traffic:
    """What one engine's links did."""

    def __init__(self) -> None:
        self.handshakes = Durations()
        self.sent_before = dict.fromkeys(SENT, 0)  # bytes, on links that ended
        self._sent, self._received = Flow(), Flow()

    def ended(self, link: Link) -> None:
        """A link is forgotten."""
        _count(link, self._sent, self._received)
        if link.connection is not None:
            for name, amount in sent(link.connection).items():
                self.sent_before[name] += amount

    def total(self, links: Iterable[Link]) -> tuple[Flow, Flow]:
        """Sent and received, with what the links that stand did so far."""
        sent, received = Flow(), Flow()
        sent.take(self._sent.tally, self._sent.wire)
        received.take(self._received.tally, self._received.wire)
        for link in links:
            _count(link, sent, received)
        return sent, received


def _count(link: Link, sent: Flow, received: Flow) -> None:
    connection = link.connection
    if connection is not None:
        sent.take(connection.outbox.tally, connection.wire_sent)
        received.take(connection.tally, connection.wire_received)
