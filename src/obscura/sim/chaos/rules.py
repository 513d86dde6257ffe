"""What no fault may break, looked at after every step of every honest node."""

from __future__ import annotations

from collections.abc import Iterable

from obscura.ledger.network import display_id
from obscura.limits import MAX_OWN_BROADCASTS, MEMORY_BUDGET, MEMPOOL_BYTES, SEND_QUEUE_MAX, STEM_BYTES
from obscura.node.broadcast import Stage
from obscura.node.core import Reaction
from obscura.node.effects import Effect, LinkId
from obscura.node.face import Purpose
from obscura.node.peer import Peer
from obscura.sim.chaos.mining import relay_of
from obscura.sim.chaos.order import Order
from obscura.sim.network import SimNode
from obscura.wire.message import Message
from obscura.wire.messages.blocks import BlockTxn, CmpctBlock, Inv, InventoryKind
from obscura.wire.messages.transactions import StemTx, Tx

MOST_LINKS = 125 + 40  # inbound ones, and room for all others
LINGER_S = 600.0  # that a link which ended may still be in memory, pretending to be a server
LONGEST_MOVE_S = 400.0  # a link goes on over its new connection by then, or over the old one
MOST_AT_ONCE = 20_000  # turns of all nodes in one instant
MOST_STEMMED_TO = 2  # peers, linked all the while, that get a transaction from a node: a successor, and the other one


class Broken(Exception):
    """A rule does not hold: which one, where and when."""


class Rules:
    """Watches the honest nodes of one network."""

    def __init__(self, honest: int) -> None:
        self.honest = honest
        self.private: dict[bytes, bytes] = {}  # own transactions that nobody has published: id -> bytes
        self.own: dict[bytes, int] = {}  # id -> who submitted it
        self._given_up: set[bytes] = set()
        self._acknowledged: dict[int, bytes] = {}  # node -> the tip that its application was told
        self._told: dict[int, int] = {}  # how many notices of a node were looked at
        self._receipts: dict[int, int] = {}
        self._stemmed: dict[tuple[int, bytes], set[LinkId]] = {}
        self._ended: dict[tuple[int, LinkId], float] = {}  # since when a link in memory has ended
        self._moving: dict[tuple[int, LinkId], float] = {}  # since when a link is half way to another connection
        self._order = Order()
        self._instant, self._turns = 0.0, 0
        self.moves = 0
        self.discouraged_hostile = self.ended_for_faults = 0

    # --- Lives of nodes -----------------------------------------------------------------------------------------------

    def started(self, node: SimNode) -> None:
        """A node begins, perhaps again: what it acknowledged before must be there."""
        number = node.number
        self._told[number] = self._receipts[number] = 0
        self._stemmed = {key: to for key, to in self._stemmed.items() if key[0] != number}
        self._ended = {key: since for key, since in self._ended.items() if key[0] != number}
        self._moving = {key: since for key, since in self._moving.items() if key[0] != number}
        tip = self._acknowledged.get(number)
        chain = relay_of(node).chain
        if tip is not None and not (tip in chain and chain.has_body(tip)):
            raise Broken(f"node {number} lost block {display_id(tip)}, of which it had told its application")
        self._watch_sending(node)
        self._watch_serving(node)

    def submitted(self, node: SimNode, id: bytes, raw: bytes, is_private: bool = True) -> None:
        """An own transaction of an honest node is on its way."""
        self.own[id] = node.number
        if is_private:
            self.private[id] = raw

    def watch_publishing(self, node: SimNode) -> None:
        """What any node, a hostile one too, makes public is private no more."""
        own = node.assembly.own_transactions
        assert own is not None
        pool, publish = own.dandelion._pool, own.dandelion._pool.publish

        def published(transaction, source, face, now):  # type: ignore[no-untyped-def]
            self.private.pop(transaction.id, None)
            return publish(transaction, source, face, now)

        pool.publish = published  # type: ignore[method-assign]

    def _watch_sending(self, node: SimNode) -> None:
        engine, send = node.assembly.engine, node.assembly.engine.send

        def watched(link: LinkId, message: Message, now: float) -> bool:
            self._sends(node, link, message)
            is_queued = send(link, message, now)
            if is_queued:
                self._order.sent(node, link, message)
            return is_queued

        engine.send = watched  # type: ignore[method-assign,assignment]

    def _watch_serving(self, node: SimNode) -> None:
        routes = node.assembly.core.routes

        def watched(react: Reaction) -> Reaction:
            def reaction(peer: Peer, message: Message, now: float) -> Iterable[Effect] | None:
                wrong = self._order.served(node, peer.link, message)
                if wrong is not None:
                    raise Broken(wrong)
                return react(peer, message, now)

            return reaction

        for kind, react in routes.items():
            if issubclass(kind, Message):  # a breach of what was agreed comes of no message
                routes[kind] = watched(react)

    # --- At every step ------------------------------------------------------------------------------------------------

    def _sends(self, node: SimNode, link: LinkId, message: Message) -> None:
        if node.number >= self.honest:
            return
        if type(message) is StemTx:
            self._stems(node, link, message.raw)
            return
        for id in self._ids_told(node, message):
            if id in self.private:
                raise Broken(f"node {node.number} told of a transaction in its stem phase by {type(message).TYPE}")

    def _stems(self, node: SimNode, link: LinkId, raw: bytes) -> None:
        peer = node.assembly.core.peers.get(link)
        if peer is not None and (peer.is_inbound or peer.purpose is not Purpose.FULL):
            raise Broken(f"node {node.number} sent stemtx to a peer that it did not choose")
        id = relay_of(node).chain.ledger.decode_transaction(raw).id
        if id in self.private:
            # Who is gone does not count: others take the places of both successors then.
            to = {link} | (self._stemmed.get((node.number, id), set()) & node.assembly.core.peers.keys())
            self._stemmed[node.number, id] = to
            if len(to) > MOST_STEMMED_TO:
                raise Broken(f"node {node.number} sent one stemtx to {len(to)} peers")

    def _ids_told(self, node: SimNode, message: Message) -> Iterable[bytes]:
        if isinstance(message, Inv):
            return [item.hash for item in message.items if item.kind == InventoryKind.TX]
        if isinstance(message, Tx):
            return [relay_of(node).chain.ledger.decode_transaction(message.raw).id]
        if isinstance(message, CmpctBlock | BlockTxn):
            encoded = message.encode()
            return [id for id, raw in self.private.items() if raw in encoded]
        return ()

    def after_turn(self, node: SimNode) -> None:
        """The node has done something."""
        self._count_turn(node.network.kernel.now)
        if node.number >= self.honest:
            return
        self._hear(node)
        engine = node.assembly.engine
        held = sum(link.memory for link in engine.links.values())
        if held > MEMORY_BUDGET or len(engine.links) > MOST_LINKS:
            raise Broken(f"node {node.number} holds {held} bytes for {len(engine.links)} links")
        now = node.network.kernel.now
        for id, link in engine.links.items():
            if engine.waiting(id) > SEND_QUEUE_MAX:
                raise Broken(f"node {node.number} has {engine.waiting(id)} bytes waiting for one link")
            if link.has_ended and now - self._ended.setdefault((node.number, id), now) > LINGER_S:
                raise Broken(f"node {node.number} keeps a link that ended {LINGER_S / 60:.0f} min ago")
        self._watch_moves(node, now)
        pool = relay_of(node).transactions.mempool
        own = node.assembly.own_transactions
        assert own is not None
        if (
            pool.bytes > MEMPOOL_BYTES
            or own.dandelion._bytes.total() > STEM_BYTES
            or len(own._own) > MAX_OWN_BROADCASTS
        ):
            raise Broken(f"node {node.number} keeps more transactions than it may")
        stems = own.dandelion._stems.values()
        if own.dandelion._bytes.total() != sum(stem.cost for stem in stems if stem.edge is not None):
            raise Broken(
                f"node {node.number} charges its peers for stem transactions that it does not hold, or for less"
            )

    def _watch_moves(self, node: SimNode, now: float) -> None:
        sessions = node.assembly.engine._handover._sessions
        if len(sessions) > len(node.assembly.core.peers):
            raise Broken(f"node {node.number} keeps {len(sessions)} sessions for {len(node.assembly.core.peers)} peers")
        for link, session in sessions.items():
            key = node.number, link
            if session.next is None:
                self._moving.pop(key, None)
            elif now - self._moving.setdefault(key, now) > LONGEST_MOVE_S:
                raise Broken(
                    f"node {node.number} has a link that is half way to another connection for {LONGEST_MOVE_S:g} s"
                )

    def _count_turn(self, now: float) -> None:
        """A deadline that stays in the past keeps a real processor busy for ever, and virtual time where it is."""
        self._turns = self._turns + 1 if now == self._instant else 0
        self._instant = now
        if self._turns > MOST_AT_ONCE:
            raise Broken("time stands still: some deadline is always due")

    def _hear(self, node: SimNode) -> None:
        number = node.number
        for notice in node.told[self._told[number] :]:
            if notice.kind == "tip":
                self._acknowledged[number] = relay_of(node).blocks.tip
            elif notice.kind == "rotated":
                self.moves += notice.fields["address"] is not None  # told at both ends, with it where it was begun
            elif notice.kind == "peer-disconnected":
                self.ended_for_faults += "too many faults" in notice.fields["reason"]
                self._order.ended(node, notice.fields["peer"])
            elif notice.kind == "discouraged":
                self._discouraged(node)
        self._told[number] = len(node.told)
        for receipt in node.receipts[self._receipts[number] :]:
            if receipt.stage is Stage.EXPIRED:
                self._given_up.add(receipt.id)
                self.private.pop(receipt.id, None)
        self._receipts[number] = len(node.receipts)

    def _discouraged(self, node: SimNode) -> None:
        reputation = node.assembly.neighbours.reputation
        for other in node.network.nodes:
            if reputation.is_discouraged(other.address.endpoint, node.network.kernel.now):
                if other.number < self.honest:
                    why = [notice.fields["why"] for notice in node.told if notice.kind in ("penalty", "discouraged")]
                    raise Broken(f"node {node.number} discourages honest node {other.number}: {why[-1]}")
                self.discouraged_hostile += 1

    # --- At the end ---------------------------------------------------------------------------------------------------

    def nobody_is_alone(self, nodes: Iterable[SimNode]) -> None:
        """Minutes after the faults every honest node has links again: none waits for hours."""
        for node in nodes:
            if node.number < self.honest and node.is_running and not node.assembly.core.peers:
                raise Broken(f"node {node.number} has no link, though nothing is in its way any more")

    def liars_are_known(self, liars: Iterable[SimNode]) -> None:
        """Who has told lies and garbage every few seconds since the start has lost a link by it.

        Not always his good name: what comes over a link without a known key, or from a host with several, is held against none.
        """
        if any(True for _ in liars) and not self.ended_for_faults:
            raise Broken("nobody ends a link on which lies are told every few seconds")

    def unfinished(self, honest: list[SimNode]) -> str | None:
        """What is still owed once the faults are over; None = nothing."""
        tips = {relay_of(node).blocks.tip for node in honest}
        most = max(relay_of(node).chain.work(relay_of(node).blocks.tip) for node in honest)
        if len(tips) > 1:
            heights = [relay_of(node).blocks.tip_height for node in honest]
            return f"the honest nodes have {len(tips)} tips, at heights {heights}"
        for number, told in self._acknowledged.items():
            chain = relay_of(honest[number]).chain
            if told not in chain or chain.work(told) > most:
                return f"node {number} had more work than all have now"
        mined = _mined(honest[0])
        for id, owner in self.own.items():
            if id in self._given_up:
                continue
            without = [node.number for node in honest if id not in relay_of(node).transactions.mempool]
            if without and id in mined:
                continue
            if without:
                return f"transaction {display_id(id)} of node {owner} is not at {without}, and nobody was told"
        return None


def _mined(node: SimNode) -> set[bytes]:
    """Ids of all transactions in the blocks of a node's chain."""
    relay = relay_of(node)
    chain = relay.chain
    ids: set[bytes] = set()
    assert node.archive is not None
    for height in range(1, relay.blocks.tip_height + 1):
        block_id = relay.blocks.at(height)
        if block_id not in node.archive.blocks:
            raise Broken(
                f"node {node.number} has no block {display_id(block_id)} on its disk, of its acknowledged chain"
            )
        block = chain.ledger.decode_block(node.archive.blocks[block_id])
        ids.update(transaction.id for transaction in block.transactions)
    return ids
