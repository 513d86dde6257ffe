"""What ``TransactionRelay`` remembers of one link."""

from __future__ import annotations

from math import inf

from obscura.node.knowers import Bit
from obscura.node.peer import Peer
from obscura.node.side import Side

Audience = int  # whose announcements go together: a link (above 0), or all inbound links of a face (below 0)


class TxPeer:
    """One link that we do not keep for blocks alone; whoever dialled us may, and says nothing of it."""

    __slots__ = (
        "announcements",
        "audience",
        "bit",
        "in_flight",
        "late",
        "mempool_at",
        "paused_until",
        "queue",
        "side",
        "takes_part",
    )

    def __init__(self, peer: Peer, side: Side, bit: Bit) -> None:
        self.side = side
        self.bit = bit  # of this link in what is remembered of each transaction
        self.audience: Audience = -int(peer.face) if peer.is_inbound else peer.link
        self.queue: dict[bytes, None] = {}  # to be told at the audience's next time
        self.announcements: dict[bytes, None] = {}  # told to us, not asked of this peer yet
        self.in_flight: dict[bytes, None] = {}
        self.late: dict[bytes, int] = {}  # answers that may still come, beside the one in flight
        self.paused_until = 0.0
        self.mempool_at = -inf
        self.takes_part = not peer.is_inbound  # whoever was dialled by us has to; who dialled us has shown it

    @property
    def is_dialled(self) -> bool:
        """Whether we made the link: those who dial us may be many, and give nothing of what they announce."""
        return self.audience > 0

    @property
    def owed(self) -> int:
        """Answers that are to come: each question has one, however late."""
        return len(self.in_flight) + len(self.late)

    def expect_no_more(self, transaction_id: bytes) -> None:
        """Asked of this peer, and not waited for any longer: it may come all the same."""
        if self.in_flight.pop(transaction_id, b"") is None:
            self.late[transaction_id] = self.late.get(transaction_id, 0) + 1

    def answers(self, transaction_id: bytes) -> bool:
        """One answer of as many as it was asked for. Whether there was any left: what it told again was perhaps asked again."""
        if self.in_flight.pop(transaction_id, b"") is None:
            return True
        owed = self.late.pop(transaction_id, 0)
        if owed > 1:
            self.late[transaction_id] = owed - 1
        return owed > 0
