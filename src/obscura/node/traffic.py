"""Traffic of a node since its start, links that ended included: frames by type, bytes of the wire, times of handshakes.

Nothing here tells of the stem: its frames are in no tally (``Message.PRIVATE``), only in the bytes of the wire, where whoever
watches the wire sees them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from obscura.node.durations import Durations
from obscura.node.link import SENT, Link, sent
from obscura.wire.tally import Tallies, Tally


class Flow(NamedTuple):
    """One direction: frames by type, and bytes of the wire."""

    tally: Tally
    wire: int


class Traffic:
    """What one engine's links did."""

    def __init__(self) -> None:
        self.handshakes = Durations()
        self.tallies = Tallies({}, {})
        self.sent_before = dict.fromkeys(SENT, 0)  # bytes, on links that ended
        self._wire_sent = self._wire_received = 0  # the same

    def ended(self, link: Link) -> None:
        """A link is forgotten."""
        connection = link.connection
        if connection is not None:
            self._wire_sent += connection.wire_sent
            self._wire_received += connection.wire_received
            for name, amount in sent(connection).items():
                self.sent_before[name] += amount

    def all_sent(self, links: Iterable[Link]) -> dict[str, int]:
        """Bytes sent since the start, by what they were: of links too that are being made, or left, so that no sum goes back."""
        amounts = [self.sent_before, *(sent(link.connection) for link in links if link.connection is not None)]
        return {name: sum(each[name] for each in amounts) for name in SENT}

    def total(self, links: Iterable[Link]) -> tuple[Flow, Flow]:
        """Sent and received, with what the links that stand did so far."""
        connections = [link.connection for link in links if link.connection is not None]
        wire_sent = self._wire_sent + sum(connection.wire_sent for connection in connections)
        wire_received = self._wire_received + sum(connection.wire_received for connection in connections)
        return Flow(self.tallies.sent, wire_sent), Flow(self.tallies.received, wire_received)
