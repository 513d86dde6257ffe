"""What ``TransactionRelay`` remembers of one link."""

from __future__ import annotations

from math import inf

from obscura.node.knowers import Bit
from obscura.node.owed import Owed
from obscura.node.peer import Peer
from obscura.node.side import Side

Audience = int  # whose announcements go together: a link (above 0), or all inbound links of a face (below 0)


class TxPeer(Owed):
    """One link that we do not keep for blocks alone; whoever dialled us may, and says nothing of it."""

    __slots__ = (
        "announcements",
        "audience",
        "bit",
        "mempool_at",
        "paused_until",
        "queue",
        "side",
        "takes_part",
    )

    def __init__(self, peer: Peer, side: Side, bit: Bit) -> None:
        super().__init__()
        self.side = side
        self.bit = bit  # of this link in what is remembered of each transaction
        self.audience: Audience = -int(peer.face) if peer.is_inbound else peer.link
        self.queue: dict[bytes, None] = {}  # to be told at the audience's next time
        self.announcements: dict[bytes, None] = {}  # told to us, not asked of this peer yet
        self.paused_until = 0.0
        self.mempool_at = -inf
        self.takes_part = not peer.is_inbound  # whoever was dialled by us has to; who dialled us has shown it

    @property
    def is_dialled(self) -> bool:
        """Whether we made the link: those who dial us may be many, and give nothing of what they announce."""
        return self.audience > 0
