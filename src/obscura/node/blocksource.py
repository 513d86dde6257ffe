"""What ``Download`` remembers of one peer and of one block in flight."""

from __future__ import annotations

from math import inf

from obscura.limits import BLOCK_PATIENCE_S, BLOCK_STEAL_S, MOST_IN_FLIGHT
from obscura.node.chainpeer import ChainPeer
from obscura.node.effects import LinkId
from obscura.node.owed import Owed

# Header -> heights from one up to another below which nothing of its branch is left to be asked for: each peer would look
# through the same thousand, after each block that one of them lacks.
Walked = dict[bytes, tuple[int, int]]
_LATE = 2 * MOST_IN_FLIGHT  # ids remembered as asked of a peer that somebody else was asked for since


class Source(Owed):
    """One peer."""

    __slots__ = (
        "again_at",
        "aim",
        "cursor",
        "excluded",
        "gave",
        "judged_at",
        "lacks",
        "moved",
        "overtaken",
        "path",
        "path_to",
        "peer",
        "progress",
        "rests_until",
        "waited_s",
        "whole",
    )

    def __init__(self, peer: ChainPeer) -> None:
        super().__init__()
        self.peer = peer
        self.excluded: dict[bytes, None] = {}  # blocks that it does not have, or gave wrongly; until ``again_at``
        self.again_at = inf
        self.lacks = 0  # of them, since it gave one
        self.aim: bytes | None = None  # the header at whose branch ``cursor`` looked
        self.cursor = 0  # heights below it are asked for or there
        self.whole = 0  # up to this height of that branch all blocks are there
        self.progress = inf  # when its last block came, or when it was first asked
        self.moved = -inf  # when a block came of it, or bytes of something long
        self.gave = False  # a block that it was asked for, ever
        self.overtaken = False  # somebody else was asked for one that seemed to come, and it has given none since
        self.rests_until = 0.0
        self.waited_s = 0.0
        self.judged_at = -inf  # when it had given nothing for too long, unless our question has not left
        self.path: list[bytes] = []  # ids from the fork with the best chain upwards, where its chain is not that
        self.path_to = b""

    def forget_late(self) -> None:
        """Of many the oldest."""
        while len(self.late) > _LATE:
            del self.late[next(iter(self.late))]


class Request:
    """One block in flight."""

    __slots__ = ("asked", "height", "link", "since")

    def __init__(self, link: LinkId, height: int, since: float) -> None:
        self.link = link
        self.height = height
        self.since = since
        self.asked = 1  # peers, one after the other

    def wait_s(self, comes: bool) -> float:
        """Seconds until another peer is asked too, whether the block seems to come or not: each copy slows down the others."""
        if not comes:
            return BLOCK_STEAL_S
        return min(BLOCK_PATIENCE_S[0] * 2.0 ** (self.asked - 1), BLOCK_PATIENCE_S[1])
