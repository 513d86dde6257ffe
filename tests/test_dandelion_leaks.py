"""What a prober tries to learn of the stem phase through every other door: it must see what it would see without one.

Two equal nodes are asked the same things; one of them holds a transaction in the stem phase.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable

import msgspec
import pytest

from obscura.errors import DecodeError
from obscura.ledger.chain import Chain
from obscura.ledger.mining import filler_transaction
from obscura.limits import COMPACT_VERSION
from obscura.node.compact import compact_form
from obscura.node.core import Core
from obscura.node.dandelion import Dandelion
from obscura.node.effects import Effect, Keep, Notify, Send
from obscura.node.public import RelayPool
from obscura.node.relay import ChainRelay
from obscura.node.stem import StemTerms
from obscura.wire.message import Message
from obscura.wire.messages.blocks import (
    Block,
    BlockTxn,
    CmpctBlock,
    GetBlockTxn,
    Inv,
    InventoryItem,
    InventoryKind,
    SendCmpct,
)
from obscura.wire.messages.transactions import GetData, MempoolRequest, StemTx, Tx
from small_chains import easy_ledger, mined_block
from stem_bench import FOREVER, Bench

LEDGER = easy_ledger()
SECRET = filler_transaction(random.Random(1))
OTHER = filler_transaction(random.Random(2))
SECRET_ID = LEDGER.decode_transaction(SECRET).id


def conflicting() -> bytes:
    """Spends what the secret one spends and pays something else: its last byte before the lock time differs."""
    spent = set(LEDGER.decode_transaction(SECRET).spends)
    for position in range(len(SECRET) - 5, 0, -1):
        made = SECRET[:position] + bytes([SECRET[position] ^ 1]) + SECRET[position + 1 :]
        with contextlib.suppress(DecodeError):
            found = LEDGER.decode_transaction(made)
            if found.fault is None and found.id != SECRET_ID and spent & set(found.spends):
                return made
    raise AssertionError("no conflicting transaction")


def child() -> bytes:
    """Spends what the secret one pays: whoever knows the parent could treat it otherwise than one of an unknown parent."""
    [first, *_] = LEDGER.decode_transaction(OTHER).spends
    made = OTHER.replace(first, SECRET_ID + bytes(4), 1)
    assert SECRET_ID + bytes(4) in LEDGER.decode_transaction(made).spends
    return made


class Prober:
    """A node of the real parts with chain and mempool, two successors, an edge of the victim and one of the prober."""

    VICTIM, PROBER = 101, 102

    def __init__(self, holds_secret: bool, q: float = 0.0) -> None:
        rng = random.Random(1)
        self.now = 0.0
        self.chain = Chain(LEDGER)
        self.relay = ChainRelay(self.chain, rng, lambda: 1_800_000_000 + int(self.now))
        self.asked = 0
        pool = _CountingPool(self)
        self.dandelion = Dandelion(rng, pool, StemTerms(q=q, epoch_s=FOREVER))
        self.core = Core([self.relay, self.dandelion])
        template = Bench()._template
        negotiated = msgspec.structs.replace(template.negotiated, peer_compact=SendCmpct(False, COMPACT_VERSION))
        self.peers = {}
        for link in (1, 2, self.VICTIM, self.PROBER):
            peer = msgspec.structs.replace(template, link=link, is_inbound=link > 100, negotiated=negotiated)
            self.peers[link] = peer
            self.core.established(peer, 0.0)
        if holds_secret:
            sent = self.tell(self.VICTIM, StemTx(SECRET))
            assert [type(effect) for effect in sent] == [Send]

    def diffuses(self, link: int) -> bool:
        return self.dandelion._faces[self.peers[link].face].diffuses(link)

    def tell(self, link: int, message: Message) -> list[Effect]:
        return list(self.core.received(self.peers[link], message, self.now))

    def seen(self, messages: list[Message]) -> list[str]:
        """All effects of the prober's messages, and of the hour after them, but for what goes to successors as stemtx."""
        effects = [effect for message in messages for effect in self.tell(self.PROBER, message)]
        end = self.now + 3600
        while self.core.deadline() <= end:
            self.now = max(self.now, self.core.deadline())
            effects += self.core.due(self.now)
        shown = [e for e in effects if not (isinstance(e, Send) and isinstance(e.message, StemTx))]
        return sorted(repr(e) for e in shown if not isinstance(e, Keep))


class _CountingPool(RelayPool):
    """Counts the questions, for the time that they take."""

    def __init__(self, prober: Prober) -> None:
        super().__init__(prober.relay.transactions, LEDGER)
        self._prober = prober

    def fault(self, transaction, now):  # type: ignore[no-untyped-def]
        self._prober.asked += 1
        return super().fault(transaction, now)


def of(kind: int) -> tuple[InventoryItem, ...]:
    return (InventoryItem(kind, SECRET_ID),)


def block_with(raw: bytes) -> bytes:
    return mined_block(LEDGER, Chain(LEDGER), LEDGER.block_id(LEDGER.genesis), [LEDGER.decode_transaction(raw)])


def compact_block() -> CmpctBlock:
    """Of a block that has it: whoever has it too need not ask for it."""
    return compact_form(LEDGER.decode_block(block_with(SECRET)), 7)


def offered(raw: bytes) -> list[Message]:
    """A transaction as an honest peer brings it: announced, then sent."""
    return [Inv((InventoryItem(InventoryKind.TX, LEDGER.decode_transaction(raw).id),)), Tx(raw)]


DOORS: dict[str, Callable[[], list[Message]]] = {
    "getdata": lambda: [GetData(of(InventoryKind.TX))],
    "getdata of another kind": lambda: [GetData(of(0x40000001))],
    "inv": lambda: [Inv(of(InventoryKind.TX))],
    "mempool": lambda: [MempoolRequest()],
    "the transaction itself": lambda: offered(SECRET),
    "the transaction itself, unasked": lambda: [Tx(SECRET)],
    "a conflicting transaction": lambda: offered(conflicting()),
    "a conflicting stem transaction": lambda: [StemTx(conflicting())],
    "a child of it": lambda: offered(child()),
    "a child of it in the stem phase": lambda: [StemTx(child())],
    "a compact block that has it": lambda: [compact_block()],
    "the same in the stem phase from another peer": lambda: [StemTx(SECRET)],
    "a block that has it": lambda: [Block(block_with(SECRET))],
    "a block that conflicts with it": lambda: [Block(block_with(conflicting()))],
    "transactions of a block": lambda: [GetBlockTxn(SECRET_ID, (0,))],
    "transactions that nobody asked for": lambda: [BlockTxn(SECRET_ID, (SECRET,))],
}


@pytest.mark.parametrize("door", DOORS)
def test_nothing_differs_for_whoever_asks(door: str) -> None:
    messages = DOORS[door]()
    assert Prober(True).seen(messages) == Prober(False).seen(messages)


def test_the_control_differs_once_it_is_public() -> None:
    """The comparison above can fail: a transaction of the mempool shows."""
    public = Prober(False)
    for message in offered(SECRET):
        public.tell(Prober.VICTIM, message)
    asked: list[Message] = [Inv(of(InventoryKind.TX))]
    assert public.seen(asked) != Prober(False).seen(asked)


def test_the_control_of_a_compact_block_differs_too() -> None:
    """A node asks for what it lacks, and for nothing once the transaction is public."""
    public = Prober(False)
    for message in offered(SECRET):
        public.tell(Prober.VICTIM, message)
    kinds = [
        {type(e.message) for e in node.tell(Prober.PROBER, compact_block()) if isinstance(e, Send)} & {GetBlockTxn}
        for node in (public, Prober(True), Prober(False))
    ]
    assert kinds == [set(), {GetBlockTxn}, {GetBlockTxn}]


def test_getdata_is_answered_only_to_whom_it_was_announced() -> None:
    node = Prober(False)
    for message in offered(OTHER):
        node.tell(1, message)
    assert len(node.relay.transactions.mempool) == 1
    other = (InventoryItem(InventoryKind.TX, LEDGER.decode_transaction(OTHER).id),)
    assert not any(isinstance(e, Send) and isinstance(e.message, Tx) for e in node.tell(Prober.PROBER, GetData(other)))


def test_known_and_unknown_stem_transactions_cost_the_same_questions_and_leave_alike() -> None:
    known, unknown = Prober(True), Prober(False)
    known.asked = unknown.asked = 0
    both = [node.tell(Prober.PROBER, StemTx(SECRET)) for node in (known, unknown)]
    assert known.asked == unknown.asked == 1
    assert [type(effect) for effect in both[0]] == [type(effect) for effect in both[1]] == [Send]


def test_it_is_in_no_event_no_description_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    node = Prober(False)
    effects = node.tell(Prober.VICTIM, StemTx(SECRET))
    assert not any(isinstance(effect, Notify) for effect in effects)
    assert node.relay.status() == Prober(False).relay.status()
    assert node.core.describe(Prober.VICTIM, 0.0) == Prober(False).core.describe(Prober.VICTIM, 0.0)
    assert not caplog.records


def test_it_is_not_among_what_is_kept_on_the_disk() -> None:
    node = Prober(True)
    end = node.now + 300
    effects: list[Effect] = []
    while node.core.deadline() <= end:
        node.now = max(node.now, node.core.deadline())
        effects += node.core.due(node.now)
    assert not any(isinstance(e, Keep) and any(t.id == SECRET_ID for t in e.transactions) for e in effects)


def test_what_a_block_has_is_public_and_its_embargo_does_nothing() -> None:
    node = Prober(False, q=0.2)
    node.tell(next(link for link in (Prober.VICTIM, Prober.PROBER) if not node.diffuses(link)), StemTx(SECRET))
    assert not len(node.relay.transactions.mempool)
    transaction = LEDGER.decode_transaction(SECRET)
    node.relay.transactions.confirmed([transaction], 0.0)
    effects: list[Effect] = []
    while node.core.deadline() <= 20_000:
        node.now = max(node.now, node.core.deadline())
        effects += node.core.due(node.now)
    assert not any(isinstance(e, Send) and isinstance(e.message, StemTx) for e in effects)
    assert not len(node.relay.transactions.mempool)
    assert not node.tell(Prober.PROBER, StemTx(SECRET))
