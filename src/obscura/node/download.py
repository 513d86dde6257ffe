"""Which block is asked of whom: several peers at once within a moving window, and another one where one does not deliver.

Each peer is asked along the chain that it showed itself, so that a branch whose blocks nobody sends never keeps those of
another one away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from obscura.ledger.chain import Chain
from obscura.limits import (
    BLOCK_BYTES_WAITING,
    BLOCK_PATIENCE_S,
    BLOCK_REST_S,
    BLOCK_WINDOW,
    BLOCKS_IN_FLIGHT,
    BYTES_IN_FLIGHT,
    MOST_IN_FLIGHT,
    SYNC_TICK_S,
)
from obscura.node.blocks import Blocks
from obscura.node.blocksource import Request, Source, Walked
from obscura.node.chainpeer import ChainPeer
from obscura.node.durations import Durations
from obscura.node.effects import AwaitRoom, Disconnect, Effect, LinkId, Send
from obscura.wire.messages.blocks import InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData


class Download:
    """The blocks in flight. Pure: every method returns what shall be sent."""

    def __init__(self, blocks: Blocks, prefers_compact: Callable[[], bool] = lambda: False) -> None:
        """``prefers_compact``: whether transactions wait here of which the next block may consist."""
        self._blocks = blocks
        self._chain: Chain = blocks.chain
        self._sources: dict[LinkId, Source] = {}
        self._prefers_compact = prefers_compact
        self._requests: dict[bytes, Request] = {}
        self.waits = Durations()  # from asking for a block to having it
        self._patience = BLOCK_PATIENCE_S[0]
        self._tick = inf

    @property
    def in_flight(self) -> int:
        """Blocks asked for."""
        return len(self._requests)

    def in_flight_of(self, link: LinkId) -> int:
        """Blocks asked of one peer."""
        source = self._sources.get(link)
        return len(source.in_flight) if source is not None else 0

    def owes(self, link: LinkId) -> bool:
        """Whether this peer was asked for blocks that have not come."""
        source = self._sources.get(link)
        return source is not None and bool(source.in_flight or source.late)

    def is_expected_of(self, link: LinkId, block_id: bytes) -> bool:
        """Whether this peer was asked for it."""
        source = self._sources.get(link)
        return source is not None and (block_id in source.in_flight or block_id in source.late)

    def owed(self, link: LinkId, ids: Iterable[bytes]) -> None:
        """Somebody else asked this peer for these, and waits for them no longer: they may come all the same."""
        source = self._sources.get(link)
        if source is not None:
            for block_id in ids:
                source.add_late(block_id)
            source.forget_late()

    # --- Links --------------------------------------------------------------------------------------------------------

    def joined(self, peer: ChainPeer) -> None:
        self._sources[peer.link] = Source(peer)

    def left(self, link: LinkId, now: float) -> list[Effect]:
        source = self._sources.pop(link, None)
        return [] if source is None or not self._release(source) else self.assign(now)

    # --- Asking -------------------------------------------------------------------------------------------------------

    def assign(self, now: float) -> list[Effect]:
        """Give every peer what it can be asked for."""
        effects: list[Effect] = []
        walked: Walked = {}
        for source in sorted(self._sources.values(), key=lambda source: len(source.in_flight)):
            effects += self._fill(source, now, walked)
        return effects

    def fill(self, link: LinkId, now: float) -> list[Effect]:
        """Give one peer what it can be asked for, unless it has enough to do: many blocks in one question cost less."""
        source = self._sources.get(link)
        return [] if source is None or len(source.in_flight) > self._depth() // 2 else self._fill(source, now, {})

    def moved(self) -> None:
        """Tip or best chain changed so that heights below some cursor may be wanted again."""
        for source in self._sources.values():
            source.cursor = 0

    def _fill(self, source: Source, now: float, walked: Walked) -> list[Effect]:
        room = min(self._depth() - len(source.in_flight), self._room())
        best = self._target(source, now)
        if room <= 0 or best is None or (source.overtaken and self._has_better(now)):
            return []
        chain = self._chain
        wanted: list[bytes] = []
        if source.aim is not None and source.aim != best:  # heights of another branch say nothing of this one
            fork = chain.height(chain.fork_point(source.aim, best))
            source.cursor, source.whole = min(source.cursor, fork + 1), min(source.whole, fork)
        source.aim = best
        source.whole = max(source.whole, chain.height(chain.fork_point(chain.tip, best)))
        while source.whole < chain.height(best) and chain.has_body(self._at(source, best, source.whole + 1)):
            source.whole += 1  # a long branch is whole far above the fork before it has more work than the tip
        end = min(chain.height(best), source.whole + BLOCK_WINDOW)
        begin = height = max(source.cursor, source.whole + 1)
        low, high = walked.get(best, (begin, begin))
        height = max(begin, high) if low <= begin else begin
        leaves_none = True
        while len(wanted) < room and height <= end:
            block_id = self._at(source, best, height)
            if block_id not in self._requests and not chain.has_body(block_id):
                if block_id in source.excluded:
                    leaves_none = False
                else:
                    wanted.append(block_id)
                    self._requests[block_id] = Request(source.peer.link, height, now)
            height += 1
        source.cursor = height
        if leaves_none:
            walked[best] = begin, height
        if not wanted:
            return []
        return [self._ask(source, wanted, now)]

    def _has_better(self, now: float) -> bool:
        """Whether blocks can be had of somebody who was not overtaken.

        Security: else whoever lets something long drip is asked for block after block, each of which another one gives later.
        """
        return any(not other.overtaken and self._target(other, now) is not None for other in self._sources.values())

    def _target(self, source: Source, now: float) -> bytes | None:
        """The peer's best header, if its blocks are wanted."""
        best, chain = source.peer.best, self._chain
        if best is None or now < source.rests_until or chain.is_bad(best):
            return None
        return best if chain.work(best) > chain.work(chain.tip) else None

    def _ask(self, source: Source, wanted: Sequence[bytes], now: float) -> Send:
        if not source.in_flight:
            source.progress = now
        for block_id in wanted:
            source.in_flight[block_id] = None
        if self._tick == inf:
            self._tick = now + SYNC_TICK_S
        kind = InventoryKind.BLOCK
        if len(wanted) == 1 and source.peer.has_compact and self._prefers_compact():
            is_next = self._chain.height(wanted[0]) == self._chain.tip_height + 1
            kind = InventoryKind.COMPACT_BLOCK if is_next else kind
        return Send(source.peer.link, GetData(tuple(InventoryItem(kind, block_id) for block_id in wanted)))

    def _depth(self) -> int:
        """Blocks to have in flight at one peer: more where they are small, so that its answers follow each other closely."""
        return min(MOST_IN_FLIGHT, max(BLOCKS_IN_FLIGHT, int(BYTES_IN_FLIGHT / self._blocks.size_expected)))

    def _room(self) -> int:
        """How many more blocks may be asked for before too many bytes wait."""
        if not self._requests and not self._blocks.unkept_bytes:
            return BLOCKS_IN_FLIGHT
        left = BLOCK_BYTES_WAITING - self._blocks.unkept_bytes
        return int(left / self._blocks.size_expected) - len(self._requests)

    def _at(self, source: Source, best: bytes, height: int) -> bytes:
        chain = self._chain
        if chain.on_best(best):
            return chain.at(height)
        if source.path_to != best:
            source.path = chain.reorganisation(chain.best, best).connect
            source.path_to = best
        above = height - (chain.height(best) - len(source.path)) - 1
        return source.path[above] if above >= 0 else chain.ancestor(best, height)

    # --- What comes ---------------------------------------------------------------------------------------------------

    def expect(self, link: LinkId, block_id: bytes, height: int, now: float) -> bool:
        """Somebody else asked this peer for the block (a compact one, say). Whether it was free to be asked for."""
        source = self._sources.get(link)
        if source is None or block_id in self._requests:
            return False
        self._requests[block_id] = Request(link, height, now)
        if not source.in_flight:
            source.progress = now
        source.in_flight[block_id] = None
        if self._tick == inf:
            self._tick = now + SYNC_TICK_S
        return True

    def arrived(self, link: LinkId, block_id: bytes, now: float) -> bool:
        """A block came. Whether it had been asked of this peer."""
        source = self._sources.get(link)
        if source is None or not source.answers(block_id):
            return False
        source.moved = source.progress = now
        source.gave, source.overtaken, source.lacks = True, False, 0
        request = self._requests.pop(block_id, None)
        if request is not None:
            self.waits.observe(now - request.since)
            if request.link != link and (other := self._sources.get(request.link)) is not None:
                self._move_to_late(other, [block_id])  # the other one may still send it
        self._patience = max(BLOCK_PATIENCE_S[0], self._patience * 0.9)
        return True

    def settled(self, link: LinkId, block_id: bytes) -> None:
        """The block is there, and this peer gives it no more: it owes nothing for it, and may be asked for others."""
        source, request = self._sources.get(link), self._requests.get(block_id)
        if source is not None:
            source.answers(block_id)
        if request is not None and request.link == link:
            del self._requests[block_id]

    def came(self, block_id: bytes) -> None:
        """The block is here, from somebody who was not asked for it; whoever was asked may still send it."""
        request = self._requests.pop(block_id, None)
        other = self._sources.get(request.link) if request is not None else None
        if other is not None:
            self._move_to_late(other, [block_id])

    def progressed(self, link: LinkId, now: float) -> None:
        """Bytes of the peer keep coming: in their order the blocks that it was asked for come too."""
        source = self._sources.get(link)
        if source is not None:
            source.moved = source.progress = now

    def failed(self, link: LinkId, block_id: bytes, now: float) -> list[Effect]:
        """The peer does not have the block, or what it gave was not it: another one is asked."""
        self._fail(link, block_id, now)
        return self.assign(now)

    def lacks(self, link: LinkId, ids: Iterable[bytes], now: float) -> list[Effect]:
        """The peer says in one message that it does not have these: once for all it is looked who may be asked for them."""
        expected = [block_id for block_id in ids if self.is_expected_of(link, block_id)]
        for block_id in expected:
            self._fail(link, block_id, now)
        return self.assign(now) if expected else []

    def _fail(self, link: LinkId, block_id: bytes, now: float) -> None:
        source = self._sources.get(link)
        if source is not None and block_id in self._blocks.lost:
            source.answers(block_id)  # an old one that ``Refetch`` asked for: whoever pruned it has the new ones
        elif source is not None:
            source.excluded[block_id] = None
            source.again_at = now + BLOCK_REST_S
            source.lacks += 1
            source.answers(block_id)
            # Pruned, or its disk fails: it lacks others too.
            if source.lacks >= BLOCKS_IN_FLIGHT and source.rests_until <= now:
                source.rests_until = now + BLOCK_REST_S
                self._release(source)
            if self._tick == inf:
                self._tick = now + SYNC_TICK_S
        request = self._requests.get(block_id)
        if request is not None and request.link == link:
            del self._requests[block_id]
        if block_id in self._chain and block_id not in self._requests:
            self._reopen(self._chain.height(block_id))

    # --- Time ---------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        return self._tick

    def due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for source in list(self._sources.values()):
            if source.in_flight and now - source.progress >= self._patience:
                effects += self._stalled(source, now)
        effects += self._steal(now)
        for source in self._sources.values():
            if source.again_at <= now:  # what it lacked came perhaps meanwhile
                source.excluded.clear()
                source.again_at, source.cursor = inf, 0
        effects += self.assign(now)
        looks_again = any(source.rests_until > now or source.again_at < inf for source in self._sources.values())
        self._tick = now + SYNC_TICK_S if self._requests or looks_again else inf
        return effects

    def _stalled(self, source: Source, now: float) -> list[Effect]:
        """A peer gives nothing. If nobody else could, it gets more time, up to a limit."""
        tried = self._patience
        self._patience = min(2 * tried, BLOCK_PATIENCE_S[1])
        others = [s for s in self._sources.values() if s is not source and self._target(s, now) is not None]
        if not others and tried < BLOCK_PATIENCE_S[1]:
            return []
        self._release(source)
        source.rests_until = now + BLOCK_REST_S
        if source.peer.peer.is_manual:
            return []
        source.judged_at, source.waited_s = now, tried
        return [AwaitRoom(source.peer.link, 0)]

    def room(self, link: LinkId, now: float) -> list[Effect]:
        """Nothing waits for the peer. Who has our question and gives nothing is ended; else it was behind what we give."""
        source = self._sources.get(link)
        if source is None or source.judged_at == -inf:
            return []
        judged_at, source.judged_at = source.judged_at, -inf
        if judged_at == now:
            return [Disconnect(link, f"no block for {source.waited_s:.0f} s")]
        source.rests_until = now
        return self.assign(now)

    def _steal(self, now: float) -> list[Effect]:
        """The lowest block in flight holds up a peer that could give it and has nothing else to do: ask that one too.

        What seems to come is waited for longer, and then asked of a peer that owes nothing: the way here may be all that is slow,
        and the same for everybody. Security: whom we chose ourselves is asked first, and who has given a block before others. Of
        many that dial us and only seem to give it, each would be waited for twice as long as the one before.
        """
        effects: list[Effect] = []
        movers = [source for source in self._sources.values() if now - source.moved < BLOCK_PATIENCE_S[0]]
        coming = {block_id for source in movers for block_id in (*source.in_flight, *source.late)}
        slow = [  # looked for once, not by each peer: the window has a thousand, and a node 125 peers
            (block_id, request)
            for block_id, request in self._requests.items()
            if now - request.since >= request.wait_s(block_id in coming)
        ]
        slow.sort(key=lambda found: found[1].height)
        for source in sorted(self._sources.values(), key=lambda source: (source.peer.peer.is_inbound, not source.gave)):
            best = self._target(source, now)
            if best is None or len(source.in_flight) >= BLOCKS_IN_FLIGHT // 2:
                continue
            fitting = (
                (block_id, request)
                for block_id, request in slow
                if request.since < now  # nobody took it just now
                and request.link != source.peer.link
                and (block_id not in coming or not (source.in_flight or source.late))
                and block_id not in source.excluded
                and block_id not in source.late  # asked before, and perhaps only slow
                and request.height <= self._chain.height(best)
                and self._at(source, best, request.height) == block_id
            )
            block_id, request = next(fitting, (b"", None))
            if request is None:
                continue
            loser = self._sources.get(request.link)
            if loser is not None:
                self._move_to_late(loser, [block_id])
            request.link, request.since, request.asked = source.peer.link, now, request.asked + 1
            effects.append(self._ask(source, [block_id], now))
            if loser is not None and block_id in coming:
                if loser.overtaken:  # it has given none in between: its others may be long in coming too
                    self._release(loser)
                loser.overtaken = True
        return effects

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _release(self, source: Source) -> bool:
        """Nothing is expected of this peer any more; whether anything was."""
        heights = []
        for block_id in source.in_flight:
            request = self._requests.get(block_id)
            if request is not None and request.link == source.peer.link:
                del self._requests[block_id]
                heights.append(request.height)
        self._move_to_late(source, list(source.in_flight))
        if heights:
            self._reopen(min(heights))
        return bool(heights)

    def _move_to_late(self, source: Source, ids: Iterable[bytes]) -> None:
        for block_id in ids:
            source.expect_no_more(block_id)
        source.forget_late()

    def _reopen(self, height: int) -> None:
        for source in self._sources.values():
            source.cursor = min(source.cursor, height)
