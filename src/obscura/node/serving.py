"""What a peer asked for by getdata and getblocktxn, given no faster than it reads: nothing is fetched for a full queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from obscura.errors import DecodeError
from obscura.ledger.port import Block
from obscura.limits import (
    BLOCKS_WANTED,
    MAX_INVENTORY,
    MOST_IN_FLIGHT,
    SEND_QUEUE_LOW,
    SERVING_FETCHES,
    UNREQUESTED_POINTS,
)
from obscura.node.blocks import Blocks
from obscura.node.effects import AwaitRoom, Effect, LinkId, Penalise, Send
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Block as BlockMessage
from obscura.wire.messages.blocks import InventoryItem, InventoryKind
from obscura.wire.messages.transactions import NotFound, Tx

_NOTFOUND_AT_ONCE = 1_000  # items in one notfound


class Wanted(msgspec.Struct, frozen=True):
    """One thing that a peer asked for. ``form``: what of the block is sent, None = all of it."""

    item: InventoryItem
    form: Callable[[Block], Message | None] | None = None


class _Link:
    __slots__ = ("blocks", "fetching", "is_full", "wanted")

    def __init__(self) -> None:
        self.wanted: deque[Wanted] | None = None  # an empty one would take 760 bytes
        self.blocks = 0  # of them
        self.fetching = 0
        self.is_full = False  # we wait for room


class Serving:
    """The queue of each link. Transactions are looked up when their turn comes, blocks are fetched then."""

    def __init__(
        self,
        blocks: Blocks,
        transaction: Callable[[LinkId, bytes], bytes | None],
        gives: Callable[[LinkId, bytes], bool],
    ) -> None:
        """``gives``: whether a block may be given over a link."""
        self._blocks = blocks
        self._gives = gives
        self._transaction = transaction
        self._links: dict[LinkId, _Link] = {}

    def joined(self, link: LinkId) -> None:
        self._links[link] = _Link()

    def left(self, link: LinkId) -> None:
        self._links.pop(link, None)

    def ask(self, link: LinkId, wanted: Sequence[Wanted]) -> list[Effect]:
        """The peer wants these, in this order."""
        state = self._links.get(link)
        if state is None:
            return []
        state.blocks += sum(w.item.kind != InventoryKind.TX for w in wanted)
        waiting = 0 if state.wanted is None else len(state.wanted)
        if state.blocks > BLOCKS_WANTED or waiting + len(wanted) > MAX_INVENTORY:  # who reads slowly has all the time
            what = "blocks asked for than a window holds" if state.blocks > BLOCKS_WANTED else "asked for than is read"
            state.wanted, state.blocks = None, 0
            return [Penalise(link, UNREQUESTED_POINTS, f"more {what}")]
        if state.wanted is None:
            state.wanted = deque()
        state.wanted += wanted
        return self._serve(link, state)

    def room(self, link: LinkId) -> list[Effect]:
        """Little waits for the peer."""
        state = self._links.get(link)
        if state is None:
            return []
        state.is_full = False
        return self._serve(link, state)

    def _serve(self, link: LinkId, state: _Link) -> list[Effect]:
        effects: list[Effect] = []
        missing: list[InventoryItem] = []
        sent = 0
        ahead = int(SEND_QUEUE_LOW / self._blocks.size_expected)  # small blocks are read by the handful
        most = min(max(SERVING_FETCHES, ahead), MOST_IN_FLIGHT)
        while (queue := state.wanted) and not state.is_full and state.fetching < most:
            wanted = queue[0]
            if wanted.item.kind != InventoryKind.TX:
                queue.popleft()
                state.blocks -= 1
                effects += self._fetch(link, state, wanted, missing)
                continue
            if state.fetching:
                break  # in the order asked
            queue.popleft()
            raw = self._transaction(link, wanted.item.hash)
            if raw is None:
                missing.append(wanted.item)
                continue
            effects.append(Send(link, Tx(raw)))
            sent += len(raw)
            if sent >= SEND_QUEUE_LOW:
                state.is_full = True
                effects.append(AwaitRoom(link))
        state.wanted = state.wanted or None
        for at in range(0, len(missing), _NOTFOUND_AT_ONCE):
            effects.append(Send(link, NotFound(tuple(missing[at : at + _NOTFOUND_AT_ONCE]))))
        return effects

    def _fetch(self, link: LinkId, state: _Link, wanted: Wanted, missing: list[InventoryItem]) -> Iterable[Effect]:
        block_id = wanted.item.hash
        if not self._gives(link, block_id):
            missing.append(wanted.item)
            return ()
        state.fetching += 1

        def then(raw: bytes | None, now: float) -> Iterable[Effect]:
            return self._fetched(link, state, wanted, raw)

        return (self._blocks.fetch(block_id, then),)

    def _fetched(self, link: LinkId, state: _Link, wanted: Wanted, raw: bytes | None) -> Iterable[Effect]:
        if self._links.get(link) is not state:
            return ()  # the link is gone
        state.fetching -= 1
        if raw is None:
            return (Send(link, NotFound((wanted.item,))), *self._serve(link, state))
        message: Message | None = BlockMessage(raw)
        if wanted.form is not None:
            try:
                message = wanted.form(self._blocks.chain.ledger.decode_block(raw))
            except DecodeError:
                message = None
        if message is None:
            return (
                Penalise(link, UNREQUESTED_POINTS, "transactions asked for that the block does not have"),
                *self._serve(link, state),
            )
        state.is_full = True
        return (Send(link, message), AwaitRoom(link))
