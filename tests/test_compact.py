"""Compact blocks (BIP152): published vectors of what is under it, reconstruction, and two nodes that use it."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec
import pytest
from siphashc import siphash

from chain_nodes import (
    SETTINGS,
    Scripted,
    archive_of,
    chain_of,
    easy_ledger,
    network,
    nothing,
    relay_of,
    submit,
    told,
    transactions,
)
from obscura import limits
from obscura.errors import DecodeError
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template
from obscura.ledger.port import Block, Ledger, Transaction
from obscura.node import compactrelay
from obscura.node.compact import (
    Reconstruction,
    compact_form,
    read_transactions,
    short_id,
    short_id_key,
    transactions_of,
)
from obscura.node.face import Face
from obscura.sim.network import SimNode
from obscura.wire.messages.blocks import Block as BlockMessage
from obscura.wire.messages.blocks import (
    BlockTxn,
    CmpctBlock,
    GetBlockTxn,
    GetHeaders,
    Headers,
    InventoryItem,
    InventoryKind,
    SendCmpct,
)
from obscura.wire.messages.transactions import GetData, NotFound
from shared_data import real_blocks
from small_chains import START, mined

LEDGER = easy_ledger()
INSIDE = transactions(20, 7)

# The first lines of the reference output (Aumasson, Bernstein: SipHash, vectors_sip64); key 00..0f, input 00..n-1.
SIPHASH = ["310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785", "b7877127e09427cf"]
SIPHASH_15 = "e545be4961ca29a1"


def block_with(inside: list[Transaction], seed: int = 1) -> Block:
    chain = Chain(LEDGER)
    raw = block_template(LEDGER, chain.branch(chain.best), inside, START, Random(seed))
    return LEDGER.decode_block(mined(raw[:80]) + raw[80:])


BLOCK = block_with(INSIDE)


def test_siphash_is_the_published_one() -> None:
    key = bytes(range(16))
    found = [siphash(key, bytes(range(size))).to_bytes(8, "little").hex() for size in (0, 1, 2, 3, 4, 15)]
    assert found == [*SIPHASH, SIPHASH_15]


def test_short_ids_drop_the_two_highest_bytes() -> None:
    key = short_id_key(BLOCK.header, 5)
    assert len(key) == 16
    assert short_id(key, bytes(32)) == siphash(key, bytes(32)).to_bytes(8, "little")[:6]
    assert short_id_key(BLOCK.header, 6) != key


@pytest.mark.parametrize("here", [0, 1, 19, 20])
def test_a_block_is_put_together_from_what_waits_and_what_is_asked_for(here: int) -> None:
    found = Reconstruction(LEDGER, compact_form(BLOCK, 99), [*INSIDE[:here], *transactions(30, 8)])
    assert found.missing == tuple(range(here + 1, 21))
    answer = transactions_of(BLOCK, found.missing)
    assert answer is not None
    assert found.fill(read_transactions(LEDGER, BlockTxn.decode(answer.encode())))
    assert found.block().raw == BLOCK.raw
    assert LEDGER.check_block(found.block(), 1) is None


def test_real_blocks_go_through_their_compact_form() -> None:
    for raw in real_blocks("mainnet-block-277647.bin"):
        block = LEDGER.decode_block(raw)
        message = CmpctBlock.decode(compact_form(block, 1).encode())
        assert Reconstruction(LEDGER, message, block.transactions[1:]).block().raw == raw


def test_the_wrong_number_of_transactions_fills_nothing() -> None:
    found = Reconstruction(LEDGER, compact_form(BLOCK, 99), INSIDE[:10])
    assert not found.fill(INSIDE[:9])
    assert len(found.missing) == 10


def test_a_collision_among_our_transactions_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    message = compact_form(BLOCK, 99)
    clash = INSIDE[3]
    twin = transactions(1, 55)[0]
    key = short_id_key(BLOCK.header, 99)

    def colliding(given_key: bytes, witness_id: bytes) -> bytes:
        return short_id(key, clash.witness_id if witness_id == twin.witness_id else witness_id)

    monkeypatch.setattr("obscura.node.compact.short_id", colliding)
    assert Reconstruction(LEDGER, message, [*INSIDE, twin]).missing == (4,)


def test_a_collision_within_the_block_asks_for_all_of_it() -> None:
    message = compact_form(BLOCK, 99)
    same = CmpctBlock(message.header, message.nonce, (message.short_ids[0],) * 20, message.prefilled)
    assert Reconstruction(LEDGER, same, INSIDE).is_ambiguous


CONTRADICTIONS = {
    "nothing at all": (b"", b"\x00"),
    "a prefilled index behind the end": (b"", b"\x01\x05" + BLOCK.transactions[0].raw),
    "a prefilled transaction cut short": (b"", b"\x01\x00" + BLOCK.transactions[0].raw[:-1]),
    "bytes behind it": (b"", b"\x01\x00" + BLOCK.transactions[0].raw + b"\0"),
    "a count that lies": (b"", b"\xfe\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_compact_block_that_contradicts_itself_is_malformed(case: str) -> None:
    _, prefilled = CONTRADICTIONS[case]
    with pytest.raises(DecodeError):
        Reconstruction(LEDGER, CmpctBlock(BLOCK.header, 1, (), prefilled), INSIDE)


def test_indexes_that_are_not_in_the_block_get_no_answer() -> None:
    assert transactions_of(BLOCK, [0, 21]) is None


# --- Between nodes ----------------------------------------------------------------------------------------------------


def give(node: SimNode, waiting: list[Transaction]) -> None:
    """Transactions that wait at a node."""
    for transaction in waiting:
        node.apply(relay_of(node).submit_transaction(transaction, node.network.kernel.now)[1])


class Ear:
    """What a node is sent, by type, seen at its routes."""

    def __init__(self, node: SimNode) -> None:
        self.heard: list[object] = []
        routes = node.assembly.core.routes
        for kind, reaction in list(routes.items()):
            routes[kind] = self._listening(reaction)

    def _listening(self, reaction):  # type: ignore[no-untyped-def]
        def heard(peer, message, now):  # type: ignore[no-untyped-def]
            self.heard.append(message)
            return reaction(peer, message, now)

        return heard

    def count(self, kind: type) -> int:
        return sum(type(message) is kind for message in self.heard)

    def asked_kinds(self) -> list[int]:
        return [item.kind for message in self.heard if type(message) is GetData for item in message.items]


@pytest.mark.parametrize("missing", [0, 4])
def test_a_new_block_costs_only_what_is_missing(missing: int) -> None:
    net = network()
    maker, node = (net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(2))
    maker.connect(node.address)
    net.kernel.run(until=1.0)
    give(node, INSIDE[missing:])
    at_maker, at_node = Ear(maker), Ear(node)
    submit(maker, BLOCK.raw)
    net.kernel.run(until=net.kernel.now + 2.0)
    assert relay_of(node).blocks.tip == BLOCK.id
    assert at_node.count(CmpctBlock) == 1
    assert at_node.count(BlockMessage) == 0
    assert at_maker.count(GetBlockTxn) == (missing > 0)
    assert "last_block_s" in node.assembly.core.describe(node.peers[0].link, net.kernel.now), "its merit"
    assert not len(relay_of(node).transactions.mempool)


def test_who_brings_blocks_first_may_send_them_unasked() -> None:
    net = network()
    makers = [net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(5)]
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    ears = [Ear(maker) for maker in makers]
    for maker in makers:
        maker.connect(node.address)
    net.kernel.run(until=2.0)
    blocks: list[bytes] = []
    for number in range(5):
        blocks += chain_of(LEDGER, 1, seed=60 + number, parent=blocks)
        submit(makers[number], blocks[-1])
        net.kernel.run(until=net.kernel.now + 2.0)
    chosen = [[m.announce for m in ear.heard if type(m) is SendCmpct] for ear in ears]
    assert sum(told[-1:] == [True] for told in chosen) == limits.HIGH_BANDWIDTH_PEERS, chosen
    assert [True, False] in chosen
    heard = Ear(node)
    blocks += chain_of(LEDGER, 1, seed=70, parent=blocks)
    submit(makers[4], blocks[-1])
    net.kernel.run(until=net.kernel.now + 2.0)
    assert heard.count(CmpctBlock) == 1
    assert not ears[4].asked_kinds()[1:] or ears[4].asked_kinds()[-1] != InventoryKind.COMPACT_BLOCK
    assert relay_of(node).blocks.tip == LEDGER.block_id(blocks[-1][:80])


def test_while_many_blocks_come_from_many_peers_each_goes_on_reading_what_we_say() -> None:
    net = network()
    blocks = chain_of(LEDGER, 60)
    makers = [net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(5)]
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    for maker in makers:
        maker.connect(node.address)
    net.kernel.run(until=2.0)
    for number, raw in enumerate(blocks):
        submit(makers[number % 5], raw)
        net.kernel.run(until=net.kernel.now + 1.0)
        assert relay_of(node).blocks.tip == LEDGER.block_id(raw[:80])
    late = [link.meter.late for maker in makers for link in maker.assembly.engine.links.values()]
    assert late == [0] * 5, "nothing is read of a peer while something of it waits for its rate"


def liar_with(**answers: object) -> Scripted:
    base = {
        GetHeaders: lambda peer, message: [Headers((BLOCK.header,))],
        GetData: nothing,
        GetBlockTxn: nothing,
        SendCmpct: nothing,
    }
    return Scripted({**base, **answers.get("more", {})}, greet=answers.get("greet", ()))  # type: ignore[arg-type, dict-item]


def test_a_peer_that_withholds_the_missing_ones_is_asked_for_the_whole_block() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    part = liar_with(greet=[compact_form(BLOCK, 1)], more={GetHeaders: nothing})
    player = net.add(SETTINGS, parts=[part])
    make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=5.0)
    assert len(part.of(GetBlockTxn)) == 1
    net.kernel.run(until=12.0)
    asked = [item for message in part.of(GetData) for item in message.items]  # type: ignore[attr-defined]
    assert asked == [InventoryItem(InventoryKind.BLOCK, BLOCK.id)]
    player.send(player.peers[0].link, BlockMessage(BLOCK.raw))
    net.kernel.run(until=13.0)
    assert relay_of(node).blocks.tip == BLOCK.id


def test_a_peer_that_has_not_the_missing_ones_is_asked_for_the_whole_block_at_once() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    none = NotFound((InventoryItem(InventoryKind.COMPACT_BLOCK, BLOCK.id),))
    part = liar_with(
        greet=[compact_form(BLOCK, 1)],
        more={
            GetHeaders: nothing,
            GetBlockTxn: lambda peer, message: [none],
            GetData: lambda peer, message: [BlockMessage(BLOCK.raw)],
        },
    )
    player = net.add(SETTINGS, parts=[part])
    make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=2.0)
    assert relay_of(node).blocks.tip == BLOCK.id
    net.kernel.run(until=2.0 + 2 * limits.COMPACT_S)
    assert not told(node, "penalty"), "it was asked once"


def make_compact(player: SimNode) -> None:
    """Let a played peer, which has no chain, offer compact blocks in its handshake."""
    engine = player.assembly.engine
    usual = engine._offer_for
    engine._offer_for = lambda *args: msgspec.structs.replace(
        usual(*args), compact=SendCmpct(False, limits.COMPACT_VERSION)
    )


def test_wrong_transactions_lead_to_the_whole_block_and_not_to_a_verdict() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    wrong = block_with(transactions(20, 99), 2)

    def lie(peer: object, message: GetBlockTxn) -> list[BlockTxn | None]:
        found = transactions_of(wrong, message.indexes)
        assert found is not None
        return [BlockTxn(BLOCK.id, found.transactions)]

    part = liar_with(
        greet=[compact_form(BLOCK, 1)],
        more={GetHeaders: nothing, GetBlockTxn: lie, GetData: lambda peer, message: [BlockMessage(BLOCK.raw)]},
    )
    player = net.add(SETTINGS, parts=[part])
    make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=3.0)
    assert relay_of(node).blocks.tip == BLOCK.id
    assert not told(node, "penalty")


@pytest.mark.parametrize("ambiguous", [False, True], ids=["transactions are missing", "ids collide"])
def test_a_compact_block_is_looked_at_once(ambiguous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[CmpctBlock] = []

    class Counted(Reconstruction):
        def __init__(self, ledger: Ledger, message: CmpctBlock, waiting: Iterable[Transaction]) -> None:
            looks.append(message)
            super().__init__(ledger, message, waiting)

    monkeypatch.setattr(compactrelay, "Reconstruction", Counted)
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    form = compact_form(BLOCK, 1)
    if ambiguous:
        form = msgspec.structs.replace(form, short_ids=(bytes(6),) * 20)
    part = liar_with(greet=[form] * 50, more={GetHeaders: nothing})
    player = net.add(SETTINGS, parts=[part])
    make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=3.0)
    assert len(looks) == 1, "each goes through the whole mempool"
    assert len(part.of(GetBlockTxn)) == (not ambiguous)


def test_a_compact_block_that_comes_again_where_the_first_led_to_nothing_is_asked_for_whole() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    part = liar_with(greet=[compact_form(BLOCK, 1)], more={GetHeaders: nothing})
    player = net.add(SETTINGS, parts=[part])
    make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=2.0 + limits.COMPACT_S)
    whole = InventoryItem(InventoryKind.BLOCK, BLOCK.id)
    assert [message.items for message in part.of(GetData)] == [(whole,)]  # type: ignore[attr-defined]
    player.send(player.peers[0].link, compact_form(BLOCK, 2))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert [message.items for message in part.of(GetData)] == [(whole,)] * 2  # type: ignore[attr-defined]


FAULTS = {
    "not negotiated": (False, compact_form(BLOCK, 1), limits.UNREQUESTED_POINTS),
    "blocktxn unasked": (True, BlockTxn(BLOCK.id, b"\0"), limits.UNREQUESTED_POINTS),
    "contradiction": (True, CmpctBlock(BLOCK.header, 1, (), b"\0"), limits.MALFORMED_POINTS),
    "no work": (True, CmpctBlock(BLOCK.header[:72] + b"\xff\xff\x00\x1d" + bytes(4), 1, (), b"\0"), 100),
}


@pytest.mark.parametrize("case", FAULTS)
def test_compact_faults_cost_points(case: str) -> None:
    is_compact, message, points = FAULTS[case]
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER))
    player = net.add(SETTINGS, parts=[liar_with(greet=[message], more={GetHeaders: nothing})])
    if is_compact:
        make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=2.0)
    assert [notice["points"] for notice in told(node, "penalty")] == [points]


def test_a_block_does_not_show_at_one_face_what_came_in_through_another() -> None:
    net = network()
    both = msgspec.structs.replace(SETTINGS, faces=frozenset({Face.CLEARNET, Face.ONION}))
    node = net.add(both, archive=archive_of(LEDGER))
    relay = relay_of(node).transactions
    for transaction in INSIDE:
        relay.admit(transaction, None, 0.0)
        relay._sides[Face.CLEARNET].entering.set(transaction.id, 100.0)  # public at the other face alone until then
    part = liar_with(greet=[compact_form(BLOCK, 1)], more={GetHeaders: nothing})
    player = net.add(SETTINGS, parts=[part])
    make_compact(player)
    player.connect(node.address)
    net.kernel.run(until=2.0)
    (asked,) = part.of(GetBlockTxn)
    assert len(asked.indexes) == len(INSIDE)  # type: ignore[attr-defined]


def test_faces_have_no_nonce_in_common() -> None:
    node = network().add(SETTINGS, archive=archive_of(LEDGER))
    compact = relay_of(node)._compact
    nonces = {compact.form(BLOCK, face).nonce for face in Face for _ in range(2)}
    assert len(nonces) == len(Face)


def test_deep_blocks_are_sent_whole() -> None:
    blocks = chain_of(LEDGER, 20)
    ids = [LEDGER.block_id(raw[:80]) for raw in blocks]
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, blocks))
    ask = [
        GetData(tuple(InventoryItem(InventoryKind.COMPACT_BLOCK, ids[at]) for at in (0, 19))),
        GetBlockTxn(ids[0], (0,)),
        GetBlockTxn(ids[19], (0,)),
    ]
    got: list[type] = []

    def noted(peer: object, message: object) -> None:
        got.append(type(message))

    part = Scripted({BlockMessage: noted, CmpctBlock: noted, BlockTxn: noted, GetHeaders: nothing}, greet=ask)
    player = net.add(SETTINGS, parts=[part])
    player.connect(node.address)
    net.kernel.run(until=3.0)
    assert got == [BlockMessage, CmpctBlock, BlockMessage, BlockTxn]


def test_how_deep_a_block_is_does_not_show_a_tip_that_the_face_does_not_show_yet() -> None:
    blocks = chain_of(LEDGER, limits.COMPACT_DEPTH + 2)
    net = network()
    both = msgspec.structs.replace(SETTINGS, faces=frozenset({Face.CLEARNET, Face.ONION}))
    node = net.add(both, archive=archive_of(LEDGER, blocks[:-1]))
    got: list[type] = []

    def noted(peer: object, message: object) -> None:
        got.append(type(message))

    part = Scripted({BlockMessage: noted, CmpctBlock: noted, GetHeaders: nothing})
    player = net.add(SETTINGS, parts=[part])
    player.connect(node.address)
    net.kernel.run(until=1.0)
    submit(node, blocks[-1])
    question = GetData((InventoryItem(InventoryKind.COMPACT_BLOCK, LEDGER.block_id(blocks[0][:80])),))
    for _ in range(60):
        player.send(player.peers[0].link, question)
        net.kernel.run(until=net.kernel.now + 0.05)
    net.kernel.run(until=net.kernel.now + 1.0)
    last = got.count(CmpctBlock)
    assert got == [CmpctBlock] * last + [BlockMessage] * (60 - last)
    assert last > 1, "the face has shown the new block later than it came"
