"""The chain over the links: the one part that hears of headers, blocks, inventories and transactions (design 4, 9, 12).

It passes each message to what owns the matter (headers, download, serving, compact blocks, transactions, the older way) and the
steps of the acknowledged tip to whoever must hear of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from obscura.errors import DecodeError
from obscura.ledger.chain import Chain
from obscura.ledger.network import display_id
from obscura.ledger.port import Fault, FaultKind, Transaction
from obscura.limits import (
    BAD_BLOCK_POINTS,
    MEMPOOL_ASKED,
    UNREQUESTED_POINTS,
)
from obscura.linkevents import Arriving
from obscura.node.announcing import Announcing
from obscura.node.blocks import KNOWN, Blocks, NewTip
from obscura.node.chainpeer import ChainPeer
from obscura.node.compactrelay import CompactRelay
from obscura.node.core import Part, Reaction, Received
from obscura.node.download import Download
from obscura.node.effects import Credit, Effect, LinkId, Merit, Notify, Penalise, Send, Waiting
from obscura.node.face import Face, Purpose
from obscura.node.headers import HeaderSync, answer_getheaders
from obscura.node.mempool import Verdict
from obscura.node.older import OlderWay, answer_getblocks
from obscura.node.peer import Peer
from obscura.node.reentry import Reentry
from obscura.node.refetch import Refetch
from obscura.node.serving import Serving, Wanted
from obscura.node.shown import Shown
from obscura.node.transactions import TransactionRelay
from obscura.wire.messages.blocks import (
    Block,
    BlockTxn,
    CmpctBlock,
    GetBlocks,
    GetBlockTxn,
    GetHeaders,
    Headers,
    Inv,
    InventoryKind,
    SendCmpct,
)
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, Tx

_BLOCK_KINDS = frozenset((InventoryKind.BLOCK, InventoryKind.COMPACT_BLOCK))


class ChainRelay(Part):
    """A node's chain and mempool, and what it does with its peers about them."""

    def __init__(
        self,
        chain: Chain,
        rng: random.Random,
        unix: Callable[[], int],
        waiting: Iterable[Waiting] = (),
        faces: Iterable[Face] = (Face.CLEARNET,),
    ) -> None:
        self.chain = chain
        self.blocks = Blocks(chain, unix)
        self._shown = Shown(self.blocks, rng, faces)
        self.transactions = TransactionRelay(
            chain.ledger, rng, unix, self.blocks.next_token, waiting, faces, self._shown.news
        )
        self.download = Download(self.blocks, lambda: len(self.transactions.mempool) > 0)
        self._peers: dict[LinkId, ChainPeer] = {}
        # Links that others dialled, by face: counted together, links of one would show by what is asked at another.
        self._inbound: Counter[Face] = Counter()
        self._headers = HeaderSync(self.blocks, rng, self.download.owes, self._shown)
        self._serving = Serving(self.blocks, self.transactions.may_have, self._gives)
        self._compact = CompactRelay(
            self.blocks, self.download, self.transactions.public, rng, self._headers.refused_early
        )
        self._older = OlderWay(self.blocks, self._shown)
        self._reentry = Reentry(self.blocks, self.transactions)
        self._refetch = Refetch(self.blocks, self.download, self._peers, rng)
        self._announcing = Announcing(self.blocks, self._peers, self._compact, self._older, self._shown)

    def reactions(self) -> Mapping[type[Received], Reaction]:
        reactions: dict[type[Received], Reaction] = {
            Headers: self.on_headers,
            GetHeaders: self.on_getheaders,
            GetBlocks: self.on_getblocks,
            Block: self.on_block,
            Inv: self.on_inv,
            GetData: self.on_getdata,
            NotFound: self.on_notfound,
            Tx: self.on_tx,
            MempoolRequest: self.on_mempool,
            SendCmpct: self.on_sendcmpct,
            CmpctBlock: self.on_cmpctblock,
            GetBlockTxn: self.on_getblocktxn,
            BlockTxn: self.on_blocktxn,
        }
        return {message: self._of_members(reaction) for message, reaction in reactions.items()}

    def _of_members(self, reaction: Reaction) -> Reaction:
        """Links that only test an address take no part."""

        def guarded(peer: Peer, message: Any, now: float) -> Iterable[Effect] | None:
            return reaction(peer, message, now) if peer.link in self._peers else None

        return guarded

    # --- What the application asks ------------------------------------------------------------------------------------

    def best_block(self, face: Face | None = None) -> tuple[bytes, int]:
        """Id and height of the acknowledged tip, or of what a face shows of it."""
        tip = self.blocks.tip if face is None else self._shown.tip(face)
        return tip, self.chain.height(tip)

    def submit_block(self, raw: bytes, now: float) -> tuple[list[Effect], Fault | None]:
        """A block from the application. Without a fault it is on its way to the archive."""
        effects, fault = self.blocks.accept(raw)
        if fault is not None:
            return effects, None if fault is KNOWN else fault
        self.download.came(self.chain.ledger.block_id(raw[: self.chain.ledger.header_bytes]))
        self.download.moved()
        return effects + self.download.assign(now), None

    def submit_transaction(self, transaction: Transaction, now: float) -> tuple[Verdict, list[Effect]]:
        """A transaction of our own: into the mempool, kept over a restart, announced."""
        return self.transactions.admit(transaction, None, now, own=True)

    # --- Links --------------------------------------------------------------------------------------------------------

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        if peer.purpose is Purpose.FEELER:
            return ()
        state = self._peers[peer.link] = ChainPeer(peer)
        told = peer.negotiated.peer.best_block_hash
        if told in self.chain and not self.chain.is_bad(told):
            state.best = told
        self.download.joined(state)
        self._refetch.joined(now)
        if peer.purpose is Purpose.FULL:
            self._inbound[peer.face] += peer.is_inbound
            self.transactions.joined(peer, now)
        self._serving.joined(peer.link)
        effects = self._headers.joined(state, now)
        if peer.purpose is Purpose.FULL and self._may_have_missed(peer):
            effects.append(Send(peer.link, MempoolRequest()))
        return effects

    def _may_have_missed(self, peer: Peer) -> bool:
        """Whether transactions were announced here or there while the two of us were apart: nobody announces anything twice.

        Whom we dial is asked always, which is rare, and joins what two parts of a network know. Of those who dial us some may
        keep the link for blocks alone, and answer nothing.
        """
        return not peer.is_inbound or self._inbound[peer.face] <= MEMPOOL_ASKED

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        link = peer.link
        if self._peers.pop(link, None) is None:
            return ()
        self._inbound[peer.face] -= peer.is_inbound
        self._serving.left(link)
        self._compact.left(link)
        self._older.left(link)
        effects = self._headers.left(link, now)
        effects += self.transactions.left(link, now)
        return effects + self.download.left(link, now)

    def on_arriving(self, peer: Peer, arriving: Arriving, now: float) -> Iterable[Effect]:
        self.download.progressed(peer.link, now)
        self._headers.progressed(peer.link, arriving.type, now)
        self._compact.progressed(peer.link, now)
        return ()

    def describe(self, link: LinkId, now: float) -> Mapping[str, Any]:
        peer = self._peers.get(link)
        if peer is None:
            return {}
        height = self.chain.height(peer.best) if peer.best is not None else None
        return {"best_header_height": height, "blocks_in_flight": self.download.in_flight_of(link)}

    def status(self) -> dict[str, Any]:
        """What `obscura status` shows of the chain."""
        return {
            "height": self.blocks.tip_height,
            "tip": display_id(self.blocks.tip),
            "headers": self.chain.best_height,
            "blocks_in_flight": self.download.in_flight,
            "mempool_transactions": len(self.transactions.mempool),
            "mempool_bytes": self.transactions.mempool.bytes,
        }

    # --- Headers ------------------------------------------------------------------------------------------------------

    def on_headers(self, peer: Peer, message: Headers, now: float) -> Iterable[Effect]:
        self.download.owed(peer.link, self._older.left(peer.link))  # slow, but it does answer
        effects = self._headers.take(peer.link, message.headers, now)
        return effects + self.download.assign(now)

    def on_getheaders(self, peer: Peer, message: GetHeaders, now: float) -> Iterable[Effect]:
        return answer_getheaders(self._shown, self.blocks, self._peers[peer.link], message)

    def on_getblocks(self, peer: Peer, message: GetBlocks, now: float) -> Iterable[Effect]:
        return answer_getblocks(self._shown, self.blocks, self._peers[peer.link], message)

    # --- Blocks -------------------------------------------------------------------------------------------------------

    def on_block(self, peer: Peer, message: Block, now: float) -> Iterable[Effect]:
        ledger, link = self.chain.ledger, peer.link
        raw = message.raw
        block_id = ledger.block_id(raw[: ledger.header_bytes])
        is_older = self._older.arrived(link, block_id)
        is_asked = self.download.arrived(link, block_id, now) or is_older
        if not is_asked and not self._compact.is_late(link, block_id):
            return (Penalise(link, UNREQUESTED_POINTS, "a block that nobody asked for"),)
        self._compact.arrived(link, block_id)
        if is_older or block_id not in self.chain:
            effects = self._older_block(link, block_id, raw, now)
        elif self.chain.has_body(block_id) and block_id not in self.blocks.lost:
            effects = []  # somebody else was faster
        else:
            effects = self._judged(link, block_id, *self.blocks.accept(raw), now)
        return effects + self.download.fill(link, now)

    def _judged(
        self, link: LinkId, block_id: bytes, effects: list[Effect], fault: Fault | None, now: float
    ) -> list[Effect]:
        """What follows from a block of a peer, after it was looked at."""
        if fault is None:
            peer = self._peers[link]
            if self._headers.caught_up and self.chain.tip == block_id:
                effects += self._compact.delivered(peer, now)
            peer.showed(self.chain, block_id)
            return [*effects, Credit(link, Merit.BLOCK)]
        if fault is KNOWN or fault.kind is FaultKind.EARLY:
            return effects
        effects.append(Penalise(link, BAD_BLOCK_POINTS, f"a block: {fault.reason}"))
        if fault.kind is FaultKind.INVALID:
            self.download.moved()
        return effects + self.download.failed(link, block_id, now)

    def _older_block(self, link: LinkId, block_id: bytes, raw: bytes, now: float) -> list[Effect]:
        ledger, chain = self.chain.ledger, self.chain
        header = raw[: ledger.header_bytes]
        if block_id in chain and chain.has_body(block_id):
            return self._older.go_on(link, now)
        if block_id not in chain:
            parent = ledger.parent_id(header)
            if parent not in chain:
                return self._older.unconnected(link)
            if chain.work(parent) + ledger.work(header) < chain.enough_work():
                return self._older.go_on(link, now)
        effects = self._judged(link, block_id, *self.blocks.accept(raw), now)
        return effects + self._older.go_on(link, now)

    # --- Inventories --------------------------------------------------------------------------------------------------

    def on_inv(self, peer: Peer, message: Inv, now: float) -> Iterable[Effect]:
        link = peer.link
        ids = [item.hash for item in message.items if item.kind == InventoryKind.TX]
        effects = self.transactions.announced(link, ids, now) if ids else []
        blocks = [item.hash for item in message.items if item.kind == InventoryKind.BLOCK]
        if not blocks:
            return effects
        if link in self._older:
            return effects + self._older.told(link, blocks, now)
        newest = blocks[-1]
        if newest not in self.chain:
            return effects + self._headers.ask(link, now)
        if not self.chain.is_bad(newest):
            self._peers[link].showed(self.chain, newest)
            effects += self.download.fill(link, now)
        return effects

    def on_getdata(self, peer: Peer, message: GetData, now: float) -> Iterable[Effect]:
        wanted = []
        for item in message.items:
            if item.kind == InventoryKind.COMPACT_BLOCK:
                wanted.append(self._compact.wanted(item, peer.face, self._shown.tip(peer.face)))
            elif item.kind in _KNOWN_KINDS:
                wanted.append(Wanted(item))
        return self._serving.ask(peer.link, wanted)

    def _gives(self, link: LinkId, block_id: bytes) -> bool:
        peer = self._peers.get(link)
        return peer is not None and self._shown.gives(peer.peer.face, block_id)

    def on_notfound(self, peer: Peer, message: NotFound, now: float) -> Iterable[Effect]:
        link = peer.link
        ids = [item.hash for item in message.items if item.kind == InventoryKind.TX]
        effects = self.transactions.not_found(link, ids, now)
        lacked: dict[bytes, None] = {}
        for item in message.items:
            if item.kind in _BLOCK_KINDS:
                if self._older.arrived(link, item.hash):
                    effects += self._older.go_on(link, now)
                elif whole := self._compact.not_found(link, item.hash):
                    effects += whole
                else:
                    lacked[item.hash] = None
        return effects + self.download.lacks(link, lacked, now)

    # --- Transactions -------------------------------------------------------------------------------------------------

    def on_tx(self, peer: Peer, message: Tx, now: float) -> Iterable[Effect]:
        return self.transactions.take(peer.link, message.raw, now)

    def on_mempool(self, peer: Peer, message: MempoolRequest, now: float) -> Iterable[Effect]:
        self.transactions.tell_all(peer.link, now)
        return ()

    # --- Compact blocks -----------------------------------------------------------------------------------------------

    def on_sendcmpct(self, peer: Peer, message: SendCmpct, now: float) -> Iterable[Effect]:
        self._compact.on_sendcmpct(self._peers[peer.link], message)
        return ()

    def on_cmpctblock(self, peer: Peer, message: CmpctBlock, now: float) -> Iterable[Effect]:
        link, ledger = peer.link, self.chain.ledger
        if not self._peers[link].has_compact:
            return (Penalise(link, UNREQUESTED_POINTS, "a compact block that was not negotiated"),)
        parent = ledger.parent_id(message.header)
        if parent not in self.chain:
            return self._headers.ask(link, now)
        if self.chain.is_bad(parent):
            return (Penalise(link, BAD_BLOCK_POINTS, "a compact block on a bad one"),)
        effects = self._compact.take(self._peers[link], message, now)
        return [*(effects or ()), *self.download.fill(link, now)]

    def on_getblocktxn(self, peer: Peer, message: GetBlockTxn, now: float) -> Iterable[Effect]:
        wanted = self._compact.wanted_transactions(message, self._shown.tip(peer.face))
        return self._serving.ask(peer.link, [wanted])

    def on_blocktxn(self, peer: Peer, message: BlockTxn, now: float) -> Iterable[Effect]:
        effects = self._compact.on_blocktxn(self._peers[peer.link], message, now)
        return effects + self.download.fill(peer.link, now)

    # --- The archive --------------------------------------------------------------------------------------------------

    def on_kept(self, token: int, now: float) -> Iterable[Effect]:
        steps = self.blocks.kept(token)
        effects: list[Effect] = []
        for step in steps:
            if step.way.disconnect:
                effects.append(self._reorganised(step))
                self.download.moved()
            effects += self._reentry.follow(step, now)
        if steps:
            effects += self._announcing.tell(steps[-1], now)
            tip = self.blocks.tip
            effects.append(Notify("tip", {"id": display_id(tip), "height": self.blocks.tip_height}))
            effects += self._headers.resume(now)
        return effects + self.download.assign(now)

    def on_fetched(self, token: int, raw: bytes | None, now: float) -> Iterable[Effect]:
        return self.blocks.fetched(token, raw, now)

    def on_room(self, peer: Peer, now: float) -> Iterable[Effect]:
        link = peer.link
        return [*self.download.room(link, now), *self._headers.room(link, now), *self._serving.room(link)]

    def _reorganised(self, step: NewTip) -> Notify:
        old, chain = step.way.disconnect[0], self.chain
        fields = {
            "from": display_id(old),
            "to": display_id(step.tip),
            "fork_height": chain.height(old) - len(step.way.disconnect),
            "disconnected": len(step.way.disconnect),
            "connected": len(step.way.connect),
        }
        return Notify("reorganisation", fields)

    # --- Time ---------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        return min(
            self._headers.deadline(),
            self.download.deadline(),
            self.transactions.deadline(),
            self._compact.deadline(),
            self._older.deadline(),
            self._announcing.deadline(),
            self._shown.deadline(),
            self._reentry.deadline(),
            self._refetch.deadline(),
        )

    def due(self, now: float) -> Iterable[Effect]:
        effects: list[Effect] = []
        for owner in (
            self._headers,
            self.download,
            self.transactions,
            self._compact,
            self._older,
            self._announcing,
            self._reentry,
            self._refetch,
        ):
            if owner.deadline() <= now:
                effects += owner.due(now)
        for face in list(self._shown.due(now)):
            effects += self._announcing.show(face)
            if self._shown.tip(face) == self.blocks.tip:  # else what it shows next goes with the blocks that follow
                self.transactions.shown(face)
        for link in self._headers.take_silent():
            effects += self._older.start(link, self._peers[link].peer.face)
        return effects


_KNOWN_KINDS = _BLOCK_KINDS | {InventoryKind.TX}


def transaction_of(chain: Chain, raw: bytes) -> Transaction | None:
    """A transaction of the application, if its bytes are one."""
    try:
        return chain.ledger.decode_transaction(raw)
    except DecodeError:
        return None
