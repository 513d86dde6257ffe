"""Compact block relay between peers (BIP152, version 2): who sends us blocks unasked, and what becomes of a compact one.

Only public transactions are used: a block must not show what waits in a stem pool.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from hashlib import sha256

from obscura.errors import DecodeError
from obscura.ledger.port import Block, FaultKind, Transaction
from obscura.limits import (
    BAD_BLOCK_POINTS,
    BLOCKTXN_DEPTH,
    COMPACT_DEPTH,
    COMPACT_S,
    COMPACT_VERSION,
    HIGH_BANDWIDTH_PEERS,
    MALFORMED_POINTS,
    RATES,
    UNREQUESTED_POINTS,
)
from obscura.node.blocks import KNOWN, Blocks
from obscura.node.chainpeer import ChainPeer
from obscura.node.compact import Reconstruction, compact_form, read_transactions, transactions_of
from obscura.node.download import Download
from obscura.node.effects import Credit, Effect, LinkId, Merit, Penalise, Send
from obscura.node.face import Face
from obscura.node.ratelimit import TokenBucket
from obscura.node.serving import Wanted
from obscura.node.timers import Timers
from obscura.wire.fields import U64
from obscura.wire.message import Message
from obscura.wire.messages.blocks import (
    BlockTxn,
    CmpctBlock,
    GetBlockTxn,
    InventoryItem,
    InventoryKind,
    SendCmpct,
)
from obscura.wire.messages.transactions import GetData

_REMEMBERED = 16  # blocks per link
_NEAR = 2  # heights above the tip within which a compact block is put together at once


class CompactRelay:
    """Compact blocks both ways."""

    def __init__(
        self,
        blocks: Blocks,
        download: Download,
        public: Callable[[Face], Iterable[Transaction]],
        rng: random.Random,
        refused_early: Callable[[LinkId, float], None],
    ) -> None:
        """``public``: what waits and may be known at a face. ``refused_early`` hears of peers with headers from the future."""
        self._refused_early = refused_early
        self._blocks = blocks
        self._download = download
        self._public = public
        self._rng = rng
        self._secret = rng.randbytes(32)
        # By face: whom we choose and how often, else who is first at one face would see a link of another lose its place.
        self._chosen: dict[Face, list[LinkId]] = defaultdict(list)  # our high-bandwidth peers, the newest last
        self._choices: dict[Face, TokenBucket] = defaultdict(_choices)
        self._open: dict[LinkId, Reconstruction] = {}
        self._timers: Timers[LinkId] = Timers()
        self._overdue: dict[LinkId, dict[bytes, None]] = {}  # blocks of which blocktxn was asked, and is not waited for
        self._tried: dict[LinkId, dict[bytes, None]] = {}  # blocks whose compact form was looked at already

    def left(self, link: LinkId) -> None:
        self._give_up(link)
        self._overdue.pop(link, None)
        self._tried.pop(link, None)
        for chosen in self._chosen.values():
            if link in chosen:
                chosen.remove(link)

    def _give_up(self, link: LinkId) -> None:
        """No longer wait for blocktxn: it may come all the same."""
        self._timers.clear(link)
        found = self._open.pop(link, None)
        if found is not None:
            _remember(self._overdue.setdefault(link, {}), found.block_id)

    # --- Who sends unasked --------------------------------------------------------------------------------------------

    def delivered(self, peer: ChainPeer, now: float) -> list[Effect]:
        """The peer was the first with a new tip: it may send the next one unasked (BIP152, high-bandwidth mode)."""
        link, face = peer.link, peer.peer.face
        chosen = self._chosen[face]
        if not peer.has_compact or link in chosen or not self._choices[face].take(1, now):
            return []
        chosen.append(link)
        effects: list[Effect] = [Send(link, SendCmpct(True, COMPACT_VERSION))]
        if len(chosen) > HIGH_BANDWIDTH_PEERS:
            effects.append(Send(chosen.pop(0), SendCmpct(False, COMPACT_VERSION)))
        return effects

    def on_sendcmpct(self, peer: ChainPeer, message: SendCmpct) -> None:
        """The peer changes how it wants to hear of blocks."""
        if message.version == COMPACT_VERSION and peer.has_compact:
            peer.wants_compact = message.announce

    # --- What we send -------------------------------------------------------------------------------------------------

    def form(self, block: Block, face: Face) -> CmpctBlock:
        """A block in its compact form: the same for all peers of a face, and nothing that two faces have in common."""
        nonce = sha256(self._secret + bytes([face]) + block.id).digest()[: U64.size]
        return compact_form(block, int.from_bytes(nonce, "little"))

    def wanted(self, item: InventoryItem, face: Face, tip: bytes) -> Wanted:
        """A getdata for a compact block: what is deep below ``tip``, which the face shows, is sent whole."""
        is_near = self._depth(item.hash, tip) <= COMPACT_DEPTH
        return Wanted(item, (lambda block: self.form(block, face)) if is_near else None)

    def wanted_transactions(self, message: GetBlockTxn, tip: bytes) -> Wanted:
        """A getblocktxn: of blocks deep below ``tip`` all is sent."""
        item = InventoryItem(InventoryKind.COMPACT_BLOCK, message.block_hash)

        def chosen(block: Block) -> Message | None:
            return transactions_of(block, message.indexes)

        return Wanted(item, chosen if self._depth(message.block_hash, tip) <= BLOCKTXN_DEPTH else None)

    def _depth(self, block_id: bytes, tip: bytes) -> int:
        chain = self._blocks.chain
        return chain.height(tip) - chain.height(block_id) if block_id in chain else 0

    # --- What comes ---------------------------------------------------------------------------------------------------

    def take(self, peer: ChainPeer, message: CmpctBlock, now: float) -> list[Effect] | None:
        """A compact block whose parent is known. None: nothing to do now, it was as good as its header."""
        blocks, chain, link = self._blocks, self._blocks.chain, peer.link
        block_id = chain.ledger.block_id(message.header)
        if block_id not in chain and not self._is_worth_it(message.header):
            return []
        effects, fault = blocks.add_headers([message.header])
        if fault is not None:
            if fault.kind is FaultKind.EARLY:
                self._refused_early(link, now)
                return effects
            return [*effects, Penalise(link, BAD_BLOCK_POINTS, f"a header: {fault.reason}")]
        peer.showed(chain, block_id)
        asked = self._download.is_expected_of(link, block_id)
        if chain.has_body(block_id):
            if asked:
                self._download.arrived(link, block_id, now)
            return None
        height = chain.height(block_id)
        is_near = height <= chain.tip_height + _NEAR
        if not asked:
            is_next = is_near and chain.work(block_id) > chain.work(chain.tip)
            if not is_next or link in self._open:
                return effects
            if not self._download.expect(link, block_id, height, now):
                return effects + self._take_whole(peer, message, block_id, now)
        if not is_near:
            return effects  # asked for whole
        tried = self._tried.setdefault(link, {})
        if block_id in tried:  # each look goes through the whole mempool: one for each block and link
            is_awaited = link in self._open and self._open[link].block_id == block_id
            return effects if is_awaited else [*effects, self._ask_whole(link, block_id)]
        _remember(tried, block_id)
        try:
            found = Reconstruction(chain.ledger, message, self._public(peer.peer.face))
        except DecodeError as error:
            return [
                *effects,
                Penalise(link, MALFORMED_POINTS, f"a compact block: {error}"),
                *self._download.failed(link, block_id, now),
            ]
        return effects + self._go_on(peer, found, now)

    def _take_whole(self, peer: ChainPeer, message: CmpctBlock, block_id: bytes, now: float) -> list[Effect]:
        """Somebody else was asked for the block, who is perhaps slow or never gives it: taken if nothing of it is missing.

        Only of peers chosen to send unasked, and not while it is being put together: each look goes through the whole mempool.
        """
        link, face = peer.link, peer.peer.face
        tried = self._tried.setdefault(link, {})
        is_open = any(found.block_id == block_id for found in self._open.values())
        if link not in self._chosen[face] or is_open or block_id in tried:
            return []
        _remember(tried, block_id)
        try:
            found = Reconstruction(self._blocks.chain.ledger, message, self._public(face))
        except DecodeError as error:
            return [Penalise(link, MALFORMED_POINTS, f"a compact block: {error}")]
        if found.missing or found.is_ambiguous:
            return []
        effects, fault = self._blocks.accept_decoded(found.block())
        if fault is None:
            self._download.came(block_id)
            effects += [*self.delivered(peer, now), Credit(link, Merit.BLOCK)]
        return effects

    def _is_worth_it(self, header: bytes) -> bool:
        chain, ledger = self._blocks.chain, self._blocks.chain.ledger
        return chain.work(ledger.parent_id(header)) + ledger.work(header) >= chain.enough_work()

    def _go_on(self, peer: ChainPeer, found: Reconstruction, now: float) -> list[Effect]:
        missing = found.missing
        if found.is_ambiguous:
            return [self._ask_whole(peer.link, found.block_id)]
        if not missing:
            return self._complete(peer, found, now)
        if peer.link in self._open:  # one at a time: the other one's transactions are on their way
            return [self._ask_whole(peer.link, found.block_id)]
        self._open[peer.link] = found
        self._timers.set(peer.link, now + COMPACT_S)
        return [Send(peer.link, GetBlockTxn(found.block_id, missing))]

    def on_blocktxn(self, peer: ChainPeer, message: BlockTxn, now: float) -> list[Effect]:
        """The transactions that were missing."""
        link, found = peer.link, self._open.get(peer.link)
        if found is None or found.block_id != message.block_hash:
            if self._overdue.get(link, {}).pop(message.block_hash, b"") is None:
                return []
            return [Penalise(link, UNREQUESTED_POINTS, "blocktxn that nobody asked for")]
        del self._open[link]
        self._timers.clear(link)
        try:
            fits = found.fill(read_transactions(self._blocks.chain.ledger, message))
        except DecodeError:
            fits = False
        if not fits:
            return [
                Penalise(link, MALFORMED_POINTS, "blocktxn is not what was asked for"),
                *self._download.failed(link, found.block_id, now),
            ]
        return self._complete(peer, found, now)

    def _complete(self, peer: ChainPeer, found: Reconstruction, now: float) -> list[Effect]:
        effects, fault = self._blocks.accept_decoded(found.block())
        if fault is not None and fault.kind is FaultKind.BODY:
            return [*effects, self._ask_whole(peer.link, found.block_id)]  # a collision of short ids: nobody's fault
        self._download.arrived(peer.link, found.block_id, now)
        if fault is None:
            effects += [*self.delivered(peer, now), Credit(peer.link, Merit.BLOCK)]
        elif fault is not KNOWN:
            effects += self._download.failed(peer.link, found.block_id, now)
        return effects

    def _ask_whole(self, link: LinkId, block_id: bytes) -> Send:
        return Send(link, GetData((InventoryItem(InventoryKind.BLOCK, block_id),)))

    def is_late(self, link: LinkId, block_id: bytes) -> bool:
        """Whether a whole block answers getblocktxn after the wait for that: it was deep below the peer's tip by then."""
        return self._overdue.get(link, {}).pop(block_id, b"") is None

    def not_found(self, link: LinkId, block_id: bytes) -> list[Effect]:
        """The peer does not give the missing ones: it is asked for the whole block. Nothing where it was not asked for any."""
        found = self._open.get(link)
        if found is None or found.block_id != block_id:
            return []
        self._give_up(link)
        return [self._ask_whole(link, block_id)]

    # --- Time ---------------------------------------------------------------------------------------------------------

    def arrived(self, link: LinkId, block_id: bytes) -> None:
        """The whole block came: its compact form is of no use any more."""
        found = self._open.get(link)
        if found is not None and found.block_id == block_id:
            self._give_up(link)

    def progressed(self, link: LinkId, now: float) -> None:
        """Bytes of the peer keep coming, what was missing among them."""
        if link in self._timers:
            self._timers.set(link, now + COMPACT_S)

    def deadline(self) -> float:
        return self._timers.deadline()

    def due(self, now: float) -> list[Effect]:
        """Peers that did not send what was missing are asked for the whole block; the download watches over that."""
        effects: list[Effect] = []
        for link in self._timers.due(now):
            found = self._open[link]
            self._give_up(link)
            if self._blocks.chain.has_body(found.block_id):
                self._download.settled(link, found.block_id)
            else:
                effects.append(self._ask_whole(link, found.block_id))
        return effects


def _choices() -> TokenBucket:
    """Over its rate of sendcmpct a peer reads nothing more of us, for minutes while many blocks come from many peers."""
    return TokenBucket(RATES["sendcmpct"][0], RATES["sendcmpct"][1] / 2, now=0.0)


def _remember(ids: dict[bytes, None], block_id: bytes) -> None:
    ids[block_id] = None
    if len(ids) > _REMEMBERED:
        del ids[next(iter(ids))]
