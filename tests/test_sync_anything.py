"""Whatever peers say, in any order: no reaction fails, and an honest peer's chain is reached afterwards."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain_nodes import SETTINGS, Scripted, archive_of, chain_of, easy_ledger, network, nothing, relay_of, transactions
from obscura import limits
from obscura.node.compact import compact_form, transactions_of
from obscura.wire.message import Message
from obscura.wire.messages.blocks import (
    Block,
    BlockTxn,
    CmpctBlock,
    GetBlocks,
    GetBlockTxn,
    GetHeaders,
    Headers,
    Inv,
    InventoryItem,
    SendCmpct,
)
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, Tx
from test_compact import make_compact

LEDGER = easy_ledger()
MAIN = chain_of(LEDGER, 12, fill=3)
SIDE = [*MAIN[:4], *chain_of(LEDGER, 6, seed=2, parent=MAIN[:4], fill=2)]
LOOSE = transactions(6, 90)
RAW = [*MAIN, *SIDE[4:]]
DECODED = [LEDGER.decode_block(raw) for raw in RAW]
BROKEN = [RAW[5][:-1], RAW[6][:80] + b"\x01" + RAW[5][81:], RAW[7][:100] + b"\xff" + RAW[7][101:]]

IDS = [LEDGER.block_id(LEDGER.genesis), *(block.id for block in DECODED), bytes(32), b"\xee" * 32]
TX_IDS = [t.id for t in LOOSE] + [t.id for block in DECODED[:4] for t in block.transactions]

block_ids = st.sampled_from(IDS)
hashes = st.sampled_from(IDS + TX_IDS)
blocks = st.sampled_from(DECODED)
items = st.lists(st.builds(InventoryItem, st.sampled_from([0, 1, 2, 4, 9]), hashes), max_size=6).map(tuple)
locators = st.lists(block_ids, max_size=4).map(tuple)
runs = st.integers(0, len(RAW)).flatmap(
    lambda start: st.integers(start, len(RAW)).map(lambda end: tuple(raw[:80] for raw in RAW[start:end]))
)
indexes = st.sets(st.integers(0, 5), max_size=4).map(lambda found: tuple(sorted(found)))


def blocktxn(block_id: bytes, source: object, chosen: tuple[int, ...]) -> BlockTxn:
    found = transactions_of(source, chosen)  # type: ignore[arg-type]
    return BlockTxn(block_id, b"\x01\x00" if found is None else found.transactions)


messages = st.one_of(
    st.builds(Headers, runs),
    st.builds(Inv, items),
    st.builds(GetData, items),
    st.builds(NotFound, items),
    st.builds(GetHeaders, st.just(1), locators, block_ids),
    st.builds(GetBlocks, st.just(1), locators, block_ids),
    st.builds(Block, st.sampled_from(RAW + BROKEN)),
    st.builds(Tx, st.sampled_from([t.raw for t in LOOSE] + [b"", b"\x01", DECODED[0].transactions[0].raw])),
    st.builds(MempoolRequest),
    st.builds(SendCmpct, st.booleans(), st.sampled_from([1, 2])),
    st.builds(compact_form, blocks, st.integers(0, 3)),
    st.builds(
        CmpctBlock, blocks.map(lambda block: block.header), st.just(0), st.just((b"abcdef",)), st.binary(max_size=9)
    ),
    st.builds(GetBlockTxn, block_ids, indexes),
    st.builds(blocktxn, block_ids, blocks, indexes),
)
said = st.lists(st.tuples(st.integers(0, 2), messages, st.sampled_from([0.0, 0.03, 0.5, 11.0, 70.0])), max_size=25)
GAPS = [GetHeaders, GetData, GetBlocks, GetBlockTxn, Inv, Headers, NotFound, Tx, Block, CmpctBlock, BlockTxn, SendCmpct]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(said)
def test_nothing_that_peers_say_breaks_a_node(script: list[tuple[int, Message, float]]) -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, MAIN[:2], write_s=0.01, read_s=0.01))
    players = []
    for number in range(3):
        part = Scripted(dict.fromkeys([*GAPS, MempoolRequest], nothing))
        player = net.add(SETTINGS, parts=[part])
        if number:
            make_compact(player)
        player.connect(node.address)
        players.append(player)
    net.kernel.run(until=1.0)
    for number, message, wait in script:
        peers = players[number].peers
        if peers:
            players[number].send(peers[0].link, message)
        net.kernel.run(until=net.kernel.now + wait)
    honest = net.add(SETTINGS, archive=archive_of(LEDGER, MAIN))
    node.connect(honest.address)
    end = net.kernel.now + 200.0
    while relay_of(node).blocks.tip != DECODED[11].id and net.kernel.now < end:
        net.kernel.run(until=net.kernel.now + 1.0)
    assert relay_of(node).blocks.tip == DECODED[11].id
    assert relay_of(node).blocks.unkept_bytes == 0
    assert relay_of(node).download.in_flight <= limits.MOST_IN_FLIGHT
