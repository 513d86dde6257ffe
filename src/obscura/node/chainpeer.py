"""What the parts of the chain share about one link."""

from __future__ import annotations

from obscura.ledger.chain import Chain
from obscura.limits import COMPACT_VERSION
from obscura.node.peer import Peer


class ChainPeer:
    """One link as the chain sees it. ``best`` and ``sent`` are ids of headers in our tree, or None."""

    __slots__ = ("best", "has_compact", "link", "peer", "sent", "wants_compact")

    def __init__(self, peer: Peer) -> None:
        compact = peer.negotiated.peer_compact
        self.peer = peer
        self.link = peer.link
        self.best: bytes | None = None  # the header with the most work that the peer has shown
        self.sent: bytes | None = None  # the newest header that we have shown to the peer
        self.has_compact = compact is not None and compact.version == COMPACT_VERSION
        self.wants_compact = self.has_compact and compact is not None and compact.announce

    def showed(self, chain: Chain, block_id: bytes) -> bool:
        """The peer has this header. Whether that is more than was known of it."""
        if self.best is not None and chain.work(block_id) <= chain.work(self.best):
            return False
        self.best = block_id
        return True

    def knows(self, chain: Chain, block_id: bytes) -> bool:
        """Whether the peer has this header, by what was said so far."""
        height = chain.height(block_id)
        return any(
            known is not None and chain.height(known) >= height and chain.ancestor(known, height) == block_id
            for known in (self.best, self.sent)
        )
