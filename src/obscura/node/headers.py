"""Headers first: who is asked for headers, what becomes of them, and what is answered (specification, *getheaders*, *headers*).

While we are behind, one peer leads; the others are asked once it has nothing more, and cost little then.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import inf

from obscura.ledger.chain import Chain
from obscura.ledger.port import Fault, FaultKind
from obscura.ledger.presync import OTHER_CHAIN, HeadersPresync, Pass
from obscura.limits import (
    BAD_BLOCK_POINTS,
    EARLY_AGAIN_S,
    HEADERS_LEAD,
    HEADERS_S,
    MAX_UNCONNECTING,
    PRESYNC_AGAIN,
    PROTOCOL_VERSION,
    UNCONNECTING_POINTS,
)
from obscura.node.blocks import Blocks
from obscura.node.chainpeer import ChainPeer
from obscura.node.effects import AwaitRoom, Disconnect, Effect, LinkId, Penalise, Send
from obscura.node.face import Face
from obscura.node.shown import Shown
from obscura.node.timers import Timers
from obscura.wire.messages.blocks import GetHeaders, Headers

NO_STOP = bytes(32)


class _State:
    __slots__ = ("answers", "judged_at", "last", "moves_until", "paused", "peer", "presync", "recounts", "unconnecting")

    def __init__(self, peer: ChainPeer) -> None:
        self.peer = peer
        self.presync: HeadersPresync | None = None
        self.unconnecting = 0
        self.recounts = 0  # how often its work was counted from the start again
        self.answers = False  # it has answered getheaders once
        self.judged_at = -inf  # when its answer was late, and it is not known whether our question has left
        self.paused = False  # it has more, but we are too far behind with blocks
        self.moves_until = 0.0  # bytes came lately: what was asked for may be behind them
        self.last: bytes | None = None  # the newest header of a full message


class HeaderSync:
    """Asks for headers, one peer after the other, and takes them."""

    def __init__(self, blocks: Blocks, rng: random.Random, owes_blocks: Callable[[LinkId], bool], shown: Shown) -> None:
        """``owes_blocks``: whether blocks were asked of a link, which may come before its answer to getheaders."""
        self._owes_blocks = owes_blocks
        self._shown = shown
        self._blocks = blocks
        self._chain: Chain = blocks.chain
        self._rng = rng
        self._most = Headers.most(self._chain.ledger.header_bytes)  # in one message
        self._states: dict[LinkId, _State] = {}
        self._waiting: dict[LinkId, None] = {}  # not asked yet
        self._leader: LinkId | None = None
        self._timers: Timers[LinkId] = Timers()  # of those asked
        self._early: Timers[LinkId] = Timers()  # of those to be asked again, when a header's time may have come
        self.caught_up = False  # some peer had nothing more for us
        self._silent: list[LinkId] = []

    # --- Asking -------------------------------------------------------------------------------------------------------

    def joined(self, peer: ChainPeer, now: float) -> list[Effect]:
        self._states[peer.link] = _State(peer)
        self._waiting[peer.link] = None
        return self._lead(now)

    def left(self, link: LinkId, now: float) -> list[Effect]:
        self._states.pop(link, None)
        self._waiting.pop(link, None)
        self._timers.clear(link)
        self._early.clear(link)
        if self._leader != link:
            return []
        self._leader = None
        return self._lead(now)

    def ask(self, link: LinkId, now: float, locator: Sequence[bytes] | None = None) -> list[Effect]:
        """getheaders from ``locator``, else from below the best header: so the answer shows whether the peer has that one.

        A face of several asks from below what it shows: whoever tells it of a block that is not known would see what is new.
        """
        state = self._states.get(link)
        if state is None or (state.presync is not None and locator is None):
            return []  # whose work is being counted will come to what it announces meanwhile
        self._waiting.pop(link, None)
        self._timers.set(link, now + HEADERS_S)
        if locator is None:
            newest = self._shown.asks_from(state.peer.peer.face, self._chain.best)
            below = self._chain.ancestor(newest, max(0, self._chain.height(newest) - 1))
            locator = self._chain.locator(below)
        return [Send(link, GetHeaders(PROTOCOL_VERSION, tuple(locator), NO_STOP))]

    def _lead(self, now: float) -> list[Effect]:
        if self.caught_up:
            return [effect for link in list(self._waiting) for effect in self.ask(link, now)]
        if self._leader is not None or not self._waiting:
            return []
        self._leader = next(iter(self._waiting))
        return self.ask(self._leader, now)

    def _finished(self, link: LinkId, now: float) -> list[Effect]:
        """The peer has no more for now."""
        self.caught_up = True
        if self._leader == link:
            self._leader = None
        return self._lead(now)

    def resume(self, now: float) -> list[Effect]:
        """The tip came nearer to the best header: peers that were paused may go on."""
        if self._chain.best_height - self._blocks.tip_height > HEADERS_LEAD // 2:
            return []
        effects: list[Effect] = []
        for link, state in self._states.items():
            if state.paused:
                state.paused = False
                best = state.peer.best
                locator = self._chain.locator(best) if best is not None else None
                effects += self.ask(link, now, locator)
        return effects

    def refused_early(self, link: LinkId, now: float) -> None:
        """A header of the peer is from the future, or our clock is behind: that passes, and nobody need announce it again."""
        if link not in self._early:
            self._early.set(link, now + self._rng.uniform(*EARLY_AGAIN_S))

    def progressed(self, link: LinkId, type: str, now: float) -> None:
        """Bytes of the peer keep coming, of a message of this type just now."""
        state = self._states.get(link)
        # An older peer may say anything else for ever.
        if state is not None and (state.answers or type == Headers.TYPE):
            state.moves_until = now + HEADERS_S

    def deadline(self) -> float:
        return min(self._timers.deadline(), self._early.deadline())

    def due(self, now: float) -> list[Effect]:
        """Peers that did not answer: one that always did before is ended, one that never did is asked the older way.

        Who is slow is waited for, but leads no longer. Who has blocks to give first is slow perhaps, and no more: the
        download watches over that.
        """
        effects = [effect for link in list(self._early.due(now)) for effect in self.ask(link, now)]
        for link in self._timers.due(now):
            state = self._states[link]
            if now < state.moves_until:
                self._timers.set(link, state.moves_until)
            else:
                if not state.answers:
                    state.presync = None
                    self._silent.append(link)
                elif self._owes_blocks(link):
                    self._timers.set(link, now + HEADERS_S)
                else:
                    state.judged_at = now
                    effects.append(AwaitRoom(link, 0))
            if self._leader == link:
                self._leader = None
                effects += self._lead(now)
        return effects

    def room(self, link: LinkId, now: float) -> list[Effect]:
        """Nothing waits for the peer: our question has left. Just now, if that is not at once: it was behind what we give."""
        state = self._states.get(link)
        if state is None or state.judged_at == -inf:
            return []
        judged_at, state.judged_at = state.judged_at, -inf
        if judged_at < now:
            self._timers.set(link, now + HEADERS_S)
            return []
        state.presync = None
        return [] if state.peer.peer.is_manual else [Disconnect(link, "no answer to getheaders")]

    def take_silent(self) -> list[LinkId]:
        """Peers that never answered getheaders, each of them once."""
        silent, self._silent = self._silent, []
        return [link for link in silent if link in self._states]

    # --- Taking -------------------------------------------------------------------------------------------------------

    def take(self, link: LinkId, headers: Sequence[bytes], now: float) -> list[Effect]:
        """The headers of one message, asked for or announced."""
        state = self._states.get(link)
        if state is None:
            return []
        state.answers = True
        if state.presync is not None and headers and self._is_beside(state.presync, headers[0]):
            effects = self._stray(state)
            is_anew = len(headers) == self._most and self._chain.ledger.parent_id(headers[0]) in self._chain
            if effects or not is_anew or not self._recounts(state):
                return effects
        self._timers.clear(link)
        state.judged_at = -inf
        if not headers:
            state.presync = None
            return self._finished(link, now)
        if len(headers[0]) != self._chain.ledger.header_bytes:
            return [Penalise(link, BAD_BLOCK_POINTS, "headers of the wrong size")]
        chain, ledger = self._chain, self._chain.ledger
        if any(ledger.parent_id(header) != ledger.block_id(before) for before, header in pairwise(headers)):
            # Else the work of those that follow a strong header would buy memory for others that follow a weak one.
            return [
                Penalise(link, BAD_BLOCK_POINTS, "headers that do not follow each other"),
                *self._finished(link, now),
            ]
        if state.presync is not None:
            return self._presync(state, state.presync, headers, now)
        parent = ledger.parent_id(headers[0])
        if parent not in chain:
            return self._unconnected(state, headers, now)
        state.unconnecting = 0
        last = ledger.block_id(headers[-1])
        if last not in chain and not chain.is_bad(parent):
            enough = chain.enough_work()
            if chain.work(parent) + sum(map(ledger.work, headers)) < enough:
                return self._weak(state, parent, headers, enough, now)
            if chain.work(parent) < enough and (fault := self._unproven(parent, headers)) is not None:
                return [*self._refused(link, fault, now), *self._finished(link, now)]
        return self._add(state, headers, now)

    def _unproven(self, parent: bytes, headers: Sequence[bytes]) -> Fault | None:
        """What shows that headers do not have the work which they claim: one that lies must not bring the others in."""
        ledger, height = self._chain.ledger, self._chain.height(parent)
        for step, (before, header) in enumerate(pairwise([self._chain.header(parent), *headers]), 1):
            if (fault := ledger.check_step(height + step, before, header)) is not None:
                return fault
        return None

    def _is_beside(self, presync: HeadersPresync, header: bytes) -> bool:
        """Whether it is no answer to what the count asked for: announced meanwhile, or asked for before the count began."""
        ledger = self._chain.ledger
        return len(header) == ledger.header_bytes and ledger.parent_id(header) != presync.locator[0]

    def _recounts(self, state: _State) -> bool:
        """Give up the count for another one, a few times: the peer's chain became another one between two messages."""
        if state.recounts == PRESYNC_AGAIN:
            return False
        state.recounts += 1
        state.presync = None
        return True

    def _stray(self, state: _State) -> list[Effect]:
        """Headers that connect to nothing are nobody's fault, now and then."""
        state.unconnecting += 1
        if state.unconnecting < MAX_UNCONNECTING:
            return []
        state.unconnecting = 0
        why = "headers again and again that connect to nothing"
        return [Penalise(state.peer.link, UNCONNECTING_POINTS, why)]

    def _unconnected(self, state: _State, headers: Sequence[bytes], now: float) -> list[Effect]:
        effects = self._stray(state)
        if len(headers) == self._most:
            return [*effects, *self._finished(state.peer.link, now)]  # it does not follow our locator
        return effects + self.ask(state.peer.link, now)

    def _weak(self, state: _State, parent: bytes, headers: Sequence[bytes], enough: int, now: float) -> list[Effect]:
        """Too little work so far to be worth memory: count it first, if there is more to come."""
        if len(headers) < self._most:
            return self._finished(state.peer.link, now)
        state.presync = HeadersPresync(self._chain, parent, enough, self._rng)
        return self._presync(state, state.presync, headers, now)

    def _presync(self, state: _State, presync: HeadersPresync, headers: Sequence[bytes], now: float) -> list[Effect]:
        link = state.peer.link
        state.unconnecting = 0
        step = presync.receive(headers)
        if step.fault is OTHER_CHAIN and self._recounts(state):
            return self.ask(link, now)
        if step.fault is not None:
            state.presync = None
            return [Penalise(link, BAD_BLOCK_POINTS, step.fault.reason), *self._finished(link, now)]
        effects: list[Effect] = []
        if step.headers:
            effects, fault = self._blocks.add_headers(step.headers)
            if fault is not None:
                state.presync = None
                return effects + self._refused(link, fault, now) + self._finished(link, now)
            state.peer.showed(self._chain, self._chain.ledger.block_id(step.headers[-1]))
        if presync.state is Pass.ENDED:
            state.presync = None
            return effects + self._finished(link, now)
        if presync.state is Pass.DONE:
            state.presync = None
            return effects + self.ask(link, now, self._chain.locator(state.peer.best))
        return effects + self.ask(link, now, presync.locator)

    def _add(self, state: _State, headers: Sequence[bytes], now: float) -> list[Effect]:
        link, chain = state.peer.link, self._chain
        effects, fault = self._blocks.add_headers(headers)
        if fault is not None:
            for block_id in map(chain.ledger.block_id, headers):
                if block_id in chain:
                    state.peer.showed(chain, block_id)  # what came before the refused one can be had of the peer
            return effects + self._refused(link, fault, now) + self._finished(link, now)
        last = chain.ledger.block_id(headers[-1])
        state.peer.showed(chain, last)
        height = chain.height(last)
        if len(headers) < self._most or last == state.last:
            return effects + self._finished(link, now)
        state.last = last
        if height - self._blocks.tip_height > HEADERS_LEAD:
            state.paused = True
            return effects + self._finished(link, now)
        return effects + self.ask(link, now, chain.locator(last))

    def _refused(self, link: LinkId, fault: Fault, now: float) -> list[Effect]:
        if fault.kind is FaultKind.EARLY:
            self.refused_early(link, now)
            return []
        points = UNCONNECTING_POINTS if fault.kind is FaultKind.ORPHAN else BAD_BLOCK_POINTS
        return [Penalise(link, points, f"a header: {fault.reason}")]


def served_ids(
    shown: Shown, blocks: Blocks, face: Face, locator: Sequence[bytes], stop: bytes, limit: int
) -> list[bytes]:
    """What getheaders and getblocks are answered with: ids below the end that the face shows, never more."""
    chain, end = blocks.chain, shown.end(face)
    if not locator:
        return [stop] if shown.gives(face, stop) else []
    if chain.on_best(end):
        ids = chain.after(shown.known(face, locator), stop, limit, whole=True)
        return ids[: bisect_right(ids, chain.height(end), key=chain.height)]
    start = 0  # more work is claimed elsewhere, but nobody has shown its blocks: we go on serving our own chain
    for entry in locator:
        if entry in chain and chain.height(entry) <= chain.height(end):
            height = chain.height(entry)
            if chain.ancestor(end, height) == entry:
                start = height
                break
    ids = chain.reorganisation(chain.ancestor(end, start), end).connect[:limit]
    return ids[: ids.index(stop) + 1] if stop in ids else ids


def answer_getheaders(shown: Shown, blocks: Blocks, peer: ChainPeer, message: GetHeaders) -> Iterable[Effect]:
    """The headers that the peer lacks; an empty message says that there are none."""
    most = Headers.most(blocks.chain.ledger.header_bytes)
    ids = served_ids(shown, blocks, peer.peer.face, message.locator, message.stop_hash, most)
    if ids:
        peer.sent = ids[-1]
    return (Send(peer.link, Headers(tuple(map(blocks.chain.header, ids)))),)
