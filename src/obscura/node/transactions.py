"""Transactions between peers: announced at random times, asked for once, answered only to whom they were announced (design 9).

Everything here is public already: it knows the mempool and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from math import inf

from obscura.errors import DecodeError
from obscura.ledger.network import display_id
from obscura.ledger.port import Ledger, Transaction
from obscura.limits import (
    BAD_TX_POINTS,
    MALFORMED_POINTS,
    MEMPOOL_REQUEST_S,
    MEMPOOL_SWEEP_S,
    TX_ANNOUNCED,
    TX_IN_FLIGHT,
    TX_INBOUND_MEAN_S,
    TX_INV,
    TX_OUTBOUND_MEAN_S,
    TX_PAUSE_S,
    TX_REFUSED,
    TX_SECOND_SOURCE_S,
    TX_SOURCES,
    UNREQUESTED_POINTS,
)
from obscura.node.effects import Credit, Effect, LinkId, Merit, Notify, Penalise, Send, Waiting
from obscura.node.face import Face
from obscura.node.mempool import Entry, Mempool, Source, Verdict
from obscura.node.peer import Peer
from obscura.node.rolling import Rolling
from obscura.node.saving import Saving
from obscura.node.side import Side, crossing_s
from obscura.node.timers import Timers
from obscura.node.txpeer import Audience, TxPeer
from obscura.wire.messages.blocks import Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData


class TransactionRelay:
    """Keeps the mempool and tells of it."""

    def __init__(
        self,
        ledger: Ledger,
        rng: random.Random,
        unix: Callable[[], int],
        next_token: Callable[[], int],
        waiting: Iterable[Waiting] = (),
        faces: Iterable[Face] = (Face.CLEARNET,),
        news: Callable[[float], None] = lambda now: None,
    ) -> None:
        """``news`` is told that something left: where there are several faces, each is to call ``shown`` some time later."""
        self.mempool = Mempool(ledger)
        self._ledger = ledger
        self._rng = rng
        self._unix = unix
        self._links: dict[LinkId, TxPeer] = {}
        several = sorted(faces)
        self._sides = {face: Side(face, shows_late=len(several) > 1) for face in several}
        self._news = news
        self._confirmed: Rolling[bool] = Rolling(TX_REFUSED)  # a block of the chain has it
        self._tellings: Timers[Audience] = Timers()
        self._pauses: Timers[LinkId] = Timers()
        self._saving = Saving(self.mempool, next_token)
        for transaction_id in self._saving.restore(ledger, waiting):
            self._waits(transaction_id)

    def _waits(self, transaction_id: bytes) -> None:
        for side in self._sides.values():
            side.waits(transaction_id)

    def _side(self, face: Face) -> Side:
        if face not in self._sides:
            self._sides[face] = Side(face)
            for entry in self.mempool:
                self._sides[face].waits(entry.transaction.id)
        return self._sides[face]

    # --- Links --------------------------------------------------------------------------------------------------------

    def joined(self, peer: Peer, now: float) -> None:
        """A link is up. It is told of what nobody on its face has fetched yet, at a random time."""
        side = self._side(peer.face)
        side.links[peer.link] = None
        state = self._links[peer.link] = TxPeer(peer, side, side.knowers.join())
        if side.unfetched:
            state.queue.update(dict.fromkeys(side.unfetched))
            self._plan(state.audience, now)

    def left(self, link: LinkId, now: float) -> list[Effect]:
        state = self._links.pop(link, None)
        if state is None:
            return []
        side = state.side
        side.knowers.leave(state.bit)
        del side.links[link]
        self._tellings.clear(link)
        self._pauses.clear(link)
        for transaction_id in state.announcements:
            side.forget_source(transaction_id, link)
        effects: list[Effect] = []
        for transaction_id in state.in_flight:
            effects += self._ask_another(side, transaction_id, now)
        return effects

    # --- Announcements of others --------------------------------------------------------------------------------------

    def announced(self, link: LinkId, ids: Iterable[bytes], now: float) -> list[Effect]:
        """The peer has these transactions."""
        state = self._links.get(link)
        if state is None:
            return []  # a link for blocks alone
        state.takes_part = True
        side = state.side
        for transaction_id in ids:
            self._has(state, transaction_id)
            state.queue.pop(transaction_id, None)
            if self.is_public(transaction_id, side.face) or transaction_id in side.refused:
                continue
            if transaction_id in state.in_flight or transaction_id in state.announcements:
                continue
            sources = side.sources.setdefault(transaction_id, [])
            if len(state.announcements) < TX_ANNOUNCED and (state.is_dialled or len(sources) < TX_SOURCES):
                sources.insert(0 if state.is_dialled else len(sources), link)
                state.announcements[transaction_id] = None
            elif not sources:
                del side.sources[transaction_id]
        return self._ask(link, state, now)

    def _ask(self, link: LinkId, state: TxPeer, now: float) -> list[Effect]:
        room = TX_IN_FLIGHT - state.owed
        if not state.announcements or now < state.paused_until:
            return []
        if room <= 0:
            state.paused_until = now + TX_PAUSE_S
            self._pauses.set(link, state.paused_until)
            return []
        side = state.side
        wanted = list(islice((each for each in state.announcements if each not in side.asked), room))
        for transaction_id in wanted:
            del state.announcements[transaction_id]
            side.forget_source(transaction_id, link)
            state.in_flight[transaction_id] = None
            side.asked[transaction_id] = (link, now)
        items = tuple(InventoryItem(InventoryKind.TX, transaction_id) for transaction_id in wanted)
        return [Send(link, GetData(items))] if items else []

    def _ask_another(self, side: Side, transaction_id: bytes, now: float) -> list[Effect]:
        """Whoever was asked does not deliver."""
        side.asked.pop(transaction_id, None)
        for link in side.sources.get(transaction_id, []):
            effects = self._ask(link, self._links[link], now)
            if effects:
                return effects
        return []

    def not_found(self, link: LinkId, ids: Iterable[bytes], now: float) -> list[Effect]:
        """The peer no longer has them."""
        state = self._links.get(link)
        if state is None:
            return []
        effects: list[Effect] = []
        for transaction_id in ids:
            was_awaited = transaction_id in state.in_flight
            state.answers(transaction_id)
            if was_awaited:
                effects += self._ask_another(state.side, transaction_id, now)
        if state.owed <= TX_IN_FLIGHT // 2:  # an answer like any other: it may be asked for the rest
            state.paused_until = 0.0
            effects += self._ask(link, state, now)
        return effects

    # --- Transactions of others ---------------------------------------------------------------------------------------

    def take(self, link: LinkId, raw: bytes, now: float) -> list[Effect]:
        """A transaction of a peer."""
        state = self._links.get(link)
        if state is None:
            return [Penalise(link, UNREQUESTED_POINTS, "a transaction over a link for blocks")]
        try:
            transaction = self._ledger.decode_transaction(raw)
        except DecodeError as error:
            return [Penalise(link, MALFORMED_POINTS, f"a transaction: {error}")]
        transaction_id = transaction.id
        is_late = transaction_id not in state.in_flight
        if not state.answers(transaction_id):
            return [Penalise(link, UNREQUESTED_POINTS, "a transaction that nobody asked for")]
        self._has(state, transaction_id)
        side = state.side
        verdict, effects = self.admit(transaction, link, now, face=side.face)
        if verdict is not Verdict.SHARE:
            self._settled(side, transaction_id)
        elif not is_late:
            effects += self._ask_another(side, transaction_id, now)
        if verdict is Verdict.ACCEPTED:
            effects.append(Credit(link, Merit.TRANSACTION))
        elif verdict not in (Verdict.KNOWN, Verdict.SHARE):  # for want of room at one peer it may come from any other
            side.refused[transaction_id] = True
            if verdict.is_fault:
                effects.append(Penalise(link, BAD_TX_POINTS, f"a transaction: {verdict.value}"))
        if state.owed in (0, TX_IN_FLIGHT // 2):
            state.paused_until = 0.0
            effects += self._ask(link, state, now)
        return effects

    def _settled(self, side: Side, transaction_id: bytes) -> None:
        """Nobody on this face needs to be asked for it any more."""
        asked = side.asked.pop(transaction_id, None)
        if asked is not None and asked[0] in self._links:
            self._links[asked[0]].expect_no_more(transaction_id)
        for link in side.sources.pop(transaction_id, ()):
            self._links[link].announcements.pop(transaction_id, None)

    # --- The mempool --------------------------------------------------------------------------------------------------

    def admit(
        self, transaction: Transaction, source: Source, now: float, *, own: bool = False, face: Face | None = None
    ) -> tuple[Verdict, list[Effect]]:
        """Into the mempool and announced, from a peer, a block or ourselves: through one face now, the others later.

        Through a face that is named it may be new though it is here already.
        """
        verdict, gone = Verdict.KNOWN, list[Entry]()
        if transaction.id not in self._confirmed:  # else it was asked for before a block had it
            verdict, gone = self.mempool.add(transaction, source, self._unix(), own)
        self._went(gone, now)
        if verdict is Verdict.KNOWN and face is not None and self._side(face).is_news(transaction):
            self._enter(self._side(face), transaction.id, now)
            return Verdict.ACCEPTED, []
        if verdict is not Verdict.ACCEPTED:
            return verdict, []
        transaction_id = transaction.id
        self._waits(transaction_id)
        self._saving.came(transaction_id, now, own=own)
        self._spread(transaction_id, source, now, face)
        fields = {"id": display_id(transaction_id), "bytes": len(transaction.raw), "own": own}
        return verdict, [Notify("transaction", fields)]

    def _spread(self, transaction_id: bytes, source: Source, now: float, face: Face | None = None) -> None:
        first = self._side_of(source) if face is None else self._side(face)
        for side in self._sides.values():
            if side.stay(transaction_id):
                continue
            if side is not first:
                side.entering.set(transaction_id, now + crossing_s(self._rng))
            else:
                self._enter(side, transaction_id, now)

    def announce_again(self, transaction_id: bytes, face: Face | None, now: float) -> None:
        """A waiting transaction of which an earlier run perhaps told nobody is announced as if it had just come, at the face."""
        if transaction_id in self.mempool:
            self._spread(transaction_id, None, now, face)

    def _side_of(self, source: Source) -> Side:
        """Where a transaction is public first: where it came from, or at a random one of the faces that have links."""
        state = self._links.get(source) if isinstance(source, int) else None
        if state is not None:
            return state.side
        sides = [side for side in self._sides.values() if side.links] or list(self._sides.values())
        return sides[0] if len(sides) == 1 else self._rng.choice(sides)

    def _enter(self, side: Side, transaction_id: bytes, now: float) -> None:
        """From now on it is public at this face."""
        side.entering.clear(transaction_id)
        knowing = side.knowers.knowing(transaction_id)
        for link in side.links:
            state = self._links[link]
            if not knowing & state.bit:
                state.queue[transaction_id] = None
                self._plan(state.audience, now)
        if not side.knowers.having(transaction_id):
            side.unfetched[transaction_id] = inf

    def confirmed(self, transactions: Sequence[Transaction], now: float) -> None:
        """A block of the chain has these."""
        ids = [transaction.id for transaction in transactions]
        self._confirmed.add_all(ids, True)
        for side in self._sides.values():
            for transaction_id in ids:
                side.leave(transaction_id, None)
        self._went(self.mempool.confirm(transactions), now)
        self._leave(now)

    def unconfirmed(self, transactions: Iterable[Transaction]) -> None:
        """A block that is no longer in the chain had these: they may come again."""
        for transaction in transactions:
            self._confirmed.discard(transaction.id)

    def _went(self, entries: Sequence[Entry], now: float) -> None:
        for entry in entries:
            self._saving.went(entry.transaction.id, now)
            for side in self._sides.values():
                side.leave(entry.transaction.id, entry.transaction)
        if entries:
            self._leave(now)

    def _leave(self, now: float) -> None:
        """Something left: a single face shows it at once."""
        for side in self._sides.values():
            self._lose(side, side.take_left(all=not side.shows_late))
        self._news(now)

    def shown(self, face: Face) -> None:
        """The face shows why it left."""
        self._lose(self._sides[face], self._sides[face].take_left(all=True))

    def _lose(self, side: Side, left: Iterable[bytes]) -> None:
        for transaction_id in left:
            side.lose(transaction_id)
            if (side.asked or side.sources) and transaction_id in self._confirmed:
                self._settled(side, transaction_id)

    def save(self) -> list[Effect]:
        """What changed since the last time, for the disk."""
        return self._saving.save()

    # --- Own announcements --------------------------------------------------------------------------------------------

    def may_have(self, link: LinkId, transaction_id: bytes) -> bytes | None:
        """What getdata gets: a transaction that waits and was announced to this very peer."""
        state = self._links.get(link)
        if state is None or not state.side.knowers.was_told(transaction_id, state.bit):
            return None
        entry = self.mempool.get(transaction_id)
        transaction = state.side.leaving.get(transaction_id) if entry is None else entry.transaction
        if transaction is not None:
            self._has(state, transaction_id)
        state.takes_part = True
        return None if transaction is None else transaction.raw

    def _has(self, state: TxPeer, transaction_id: bytes) -> None:
        """The peer has it, so that others can get it from there."""
        state.side.knowers.heard(transaction_id, state.bit)
        state.side.unfetched.pop(transaction_id, None)

    def public(self, face: Face) -> Iterable[Transaction]:
        """What waits and is public at that face: what else waits here came in through another one."""
        side = self._side(face)
        leaving = (transaction for transaction in side.leaving.values() if transaction is not None)
        waiting = chain(leaving, (entry.transaction for entry in self.mempool))
        return (transaction for transaction in waiting if transaction.id not in side.entering)

    def is_public(self, transaction_id: bytes, face: Face) -> bool:
        """Whether it waits, or a block that came lately has it, as far as the face shows."""
        side = self._side(face)
        return side.has(transaction_id, self.mempool) or side.is_confirmed(transaction_id, self._confirmed)

    def is_confirmed(self, transaction_id: bytes) -> bool:
        """Whether a block that came lately has it."""
        return transaction_id in self._confirmed

    def holders(self, transaction_id: bytes) -> int:
        """Peers that are here and have it: they announced it, or fetched it here."""
        return sum(side.knowers.having(transaction_id).bit_count() for side in self._sides.values())

    def is_told(self, transaction_id: bytes, answered: Callable[[LinkId], float]) -> bool:
        """Whether a peer has fetched or announced it, or has read of it here and does not want it: it has it already.

        ``answered``: when the newest message was sent to a peer that it has answered. Links for blocks alone look like others:
        what is told to them is nothing.
        """
        for side in self._sides.values():
            if transaction_id in side.entering:
                continue
            told = side.unfetched.get(transaction_id)
            if told is None:
                return True
            readers = [self._links[link] for link in side.links if answered(link) >= told]
            if any(r.takes_part and side.knowers.was_told(transaction_id, r.bit) for r in readers):
                return True
        return False

    def tell_all(self, link: LinkId, now: float) -> None:
        """The peer asked for the mempool: it hears of everything when its time comes, as of anything new."""
        state = self._links.get(link)
        if state is None or now - state.mempool_at < MEMPOOL_REQUEST_S:
            return
        state.mempool_at, state.takes_part = now, True
        for transaction in self.public(state.side.face):
            if not state.side.knowers.knowing(transaction.id) & state.bit:
                state.queue[transaction.id] = None
        if state.queue:
            self._plan(state.audience, now)

    def _plan(self, audience: Audience, now: float) -> None:
        """An exponential wait has no memory: drawn when there is something to tell, it is a Poisson process all the same."""
        if audience not in self._tellings:
            mean = TX_INBOUND_MEAN_S if audience < 0 else TX_OUTBOUND_MEAN_S
            self._tellings.set(audience, now + self._rng.expovariate(1 / mean))

    def _tell(self, link: LinkId, state: TxPeer, now: float) -> list[Effect]:
        chosen = list(islice(state.queue, TX_INV))
        for transaction_id in chosen:
            del state.queue[transaction_id]
        if state.queue:
            self._plan(state.audience, now)
        chosen = [transaction_id for transaction_id in chosen if state.side.has(transaction_id, self.mempool)]
        self._rng.shuffle(chosen)  # the order of arrival says where they came from
        for transaction_id in chosen:
            state.side.knowers.told(transaction_id, state.bit)
            if transaction_id in state.side.unfetched:
                state.side.unfetched[transaction_id] = now
        items = tuple(InventoryItem(InventoryKind.TX, transaction_id) for transaction_id in chosen)
        return [Send(link, Inv(items))] if items else []

    # --- Time ---------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        when = min(self._tellings.deadline(), self._pauses.deadline(), self._saving.at)
        for side in self._sides.values():
            when = min(when, side.deadline())
        return when

    def due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for side in self._sides.values():
            for transaction_id in list(side.entering.due(now)):
                self._enter(side, transaction_id, now)
        for audience in list(self._tellings.due(now)):
            links = [audience] if audience > 0 else [k for k, s in self._links.items() if s.audience == audience]
            for link in links:
                effects += self._tell(link, self._links[link], now)
        for link in list(self._pauses.due(now)):
            effects += self._ask(link, self._links[link], now)
        for side in self._sides.values():
            effects += self._ask_others(side, now)
        if self._saving.at <= now:
            self._went(self._saving.expired(self._unix(), now), now)
            effects += self.save()
            self._saving.at = now + MEMPOOL_SWEEP_S if len(self.mempool) else inf
        return effects

    def _ask_others(self, side: Side, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while side.asked:
            transaction_id, (link, since) = next(iter(side.asked.items()))
            if now < since + TX_SECOND_SOURCE_S:
                break  # as in ``deadline``: a difference may round the other way, and never end
            self._links[link].expect_no_more(transaction_id)
            effects += self._ask_another(side, transaction_id, now)
        return effects
