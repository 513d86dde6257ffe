"""The specification's older way to blocks: getblocks, inv, getdata, block. For peers that do not answer getheaders."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf

from obscura.ledger.chain import Chain
from obscura.limits import BLOCKS_IN_FLIGHT, HEADERS_S, MAX_GETBLOCKS, PROTOCOL_VERSION
from obscura.node.blocks import Blocks
from obscura.node.chainpeer import ChainPeer
from obscura.node.effects import Effect, LinkId, Send
from obscura.node.face import Face
from obscura.node.headers import NO_STOP, served_ids
from obscura.node.shown import Shown
from obscura.wire.messages.blocks import GetBlocks, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData


class _Link:
    __slots__ = ("face", "in_flight", "late", "progress", "told", "wanted")

    def __init__(self, face: Face) -> None:
        self.face = face
        self.wanted: deque[bytes] = deque()
        self.in_flight: dict[bytes, None] = {}
        self.late: dict[bytes, None] = {}  # asked for and no longer waited for: they may come all the same
        self.told = 0  # ids in the newest inv: as many as there can be mean that there are more
        self.progress = inf  # when its last block came, or when it was asked


class OlderWay:
    """Blocks in the order in which such a peer tells of them."""

    def __init__(self, blocks: Blocks, shown: Shown) -> None:
        self._chain: Chain = blocks.chain
        self._shown = shown
        self._links: dict[LinkId, _Link] = {}

    def __contains__(self, link: object) -> bool:
        return link in self._links

    def start(self, link: LinkId, face: Face) -> list[Effect]:
        """From now on this peer is asked the older way."""
        return self._ask_list(link, self._links.setdefault(link, _Link(face)))

    def left(self, link: LinkId) -> Iterable[bytes]:
        """The peer is gone, or answers getheaders after all: what it was asked for, and may send all the same."""
        state = self._links.pop(link, None)
        return () if state is None else (*state.late, *state.in_flight)

    def told(self, link: LinkId, ids: Iterable[bytes], now: float) -> list[Effect]:
        """An inv of blocks."""
        state = self._links[link]
        listed = list(ids)[:MAX_GETBLOCKS]
        state.told = len(listed)
        known = {*state.wanted, *state.in_flight}
        fresh = [b for b in listed if b not in known and not (b in self._chain and self._chain.has_body(b))]
        state.wanted += fresh[: max(0, 2 * MAX_GETBLOCKS - len(state.wanted))]
        return self._ask(link, state, now)

    def arrived(self, link: LinkId, block_id: bytes) -> bool:
        """A block came. Whether it had been asked of this peer."""
        state = self._links.get(link)
        if state is None:
            return False
        if state.in_flight.pop(block_id, b"") is None:
            return True
        if state.late.pop(block_id, b"") is not None:
            return False
        if not state.late:
            state.told = MAX_GETBLOCKS  # it is slow, no more: what follows is to be asked for
        return True

    def go_on(self, link: LinkId, now: float) -> list[Effect]:
        """After a block was taken, or is not there."""
        state = self._links.get(link)
        return [] if state is None else self._ask(link, state, now)

    def unconnected(self, link: LinkId) -> list[Effect]:
        """The parent of a block is not known: something is missing before it."""
        state = self._links.get(link)
        if state is None:
            return []
        state.wanted.clear()
        return self._ask_list(link, state)

    def _ask(self, link: LinkId, state: _Link, now: float) -> list[Effect]:
        if state.in_flight:
            state.progress = now
            return []
        wanted = [state.wanted.popleft() for _ in range(min(BLOCKS_IN_FLIGHT, len(state.wanted)))]
        state.progress = now if wanted else inf
        if wanted:
            state.in_flight = dict.fromkeys(wanted)
            return [Send(link, GetData(tuple(InventoryItem(InventoryKind.BLOCK, block) for block in wanted)))]
        if state.told == MAX_GETBLOCKS:
            state.told = 0
            return self._ask_list(link, state)
        return []

    def _ask_list(self, link: LinkId, state: _Link) -> list[Effect]:
        locator = self._chain.locator(self._shown.asks_from(state.face, self._chain.tip))
        return [Send(link, GetBlocks(PROTOCOL_VERSION, tuple(locator), NO_STOP))]

    def deadline(self) -> float:
        return min((state.progress + HEADERS_S for state in self._links.values()), default=inf)

    def due(self, now: float) -> list[Effect]:
        """What did not come is waited for no longer, and the list asked for again at the next inv."""
        for state in self._links.values():
            if now >= state.progress + HEADERS_S:
                state.late |= state.in_flight  # a slow peer is no fault
                for block_id in list(state.late)[:-MAX_GETBLOCKS]:
                    del state.late[block_id]
                state.in_flight = {}
                state.wanted.clear()
                state.progress = inf
        return []


def answer_getblocks(shown: Shown, blocks: Blocks, peer: ChainPeer, message: GetBlocks) -> Iterable[Effect]:
    """Ids of the blocks that the peer lacks, the oldest first, 500 at most."""
    ids = served_ids(shown, blocks, peer.peer.face, message.locator, message.stop_hash, MAX_GETBLOCKS)
    if not ids:
        return ()
    return (Send(peer.link, Inv(tuple(InventoryItem(InventoryKind.BLOCK, block_id) for block_id in ids))),)
