"""Honest peers whose answers come late: they are asked again or passed over, and it is never held against them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import pytest

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
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.network import Line, SimNetwork, SimNode
from obscura.wire.message import Message
from obscura.wire.messages.blocks import (
    Block,
    BlockTxn,
    CmpctBlock,
    GetBlocks,
    GetHeaders,
    Headers,
    Inv,
    InventoryItem,
    InventoryKind,
)
from obscura.wire.messages.transactions import GetData
from rotating import Numbered
from small_chains import START, mined

LEDGER = easy_ledger()
BLOCKS = chain_of(LEDGER, 10)


def block_with_news(*before: bytes) -> bytes:
    """The next block after ``before``, with transactions that nobody has heard of."""
    chain = Chain(LEDGER)
    for raw in (*BLOCKS, *before):
        assert chain.add(raw[:80], START + 10**9) is None
    raw = block_template(LEDGER, chain.branch(chain.best), transactions(3, 95 + len(before)), START, Random(1))
    return mined(raw[:80]) + raw[80:]


NEWS = block_with_news()
TIP = LEDGER.block_id(NEWS[:80])


def node_with(net: SimNetwork, blocks: list[bytes]) -> SimNode:
    return net.add(SETTINGS, archive=archive_of(LEDGER, blocks))


def count(node: SimNode, kind: type[Message], then: Callable[[], None] = lambda: None) -> list[Message]:
    """All messages of a type that come to a node from now on; ``then`` happens at each."""
    routes, seen = node.assembly.core.routes, []
    honestly = routes[kind]

    def counted(peer, message, now):  # type: ignore[no-untyped-def]
        seen.append(message)
        then()
        return honestly(peer, message, now)

    routes[kind] = counted
    return seen


@pytest.mark.parametrize("late_s", [5.0, 15.0, 60.0])
def test_a_slow_peer_may_answer_as_often_as_it_was_asked(late_s: float) -> None:
    net = network()
    peers = [node_with(net, BLOCKS) for _ in range(2)]
    node = node_with(net, BLOCKS)
    for peer in peers:
        node.connect(peer.address)
    net.kernel.run(until=10.0)

    def slow_down() -> None:
        net.weather = lambda a, b: late_s

    count(node, Headers, slow_down)
    blocks = count(node, Block)
    for peer in peers:
        submit(peer, NEWS)
    net.kernel.run(until=10.0 + 10 * late_s)
    assert relay_of(node).blocks.tip == TIP
    assert 1 <= len(blocks) <= 4
    assert told(node, "penalty") == []


def test_a_compact_block_of_which_nothing_is_missing_waits_for_nobody_who_was_asked() -> None:
    """Whoever was first with the header, talks and gives nothing would else keep each block for ten seconds at each node."""

    def shows(peer: object, message: GetHeaders) -> list[Message]:
        return [Headers((NEWS[:80],)), Numbered(0, 4_000_000)]

    net = network()
    peer, node = node_with(net, BLOCKS[:-1]), node_with(net, BLOCKS[:-1])
    node.connect(peer.address)
    net.kernel.run(until=5.0)
    submit(peer, BLOCKS[-1])
    net.kernel.run(until=10.0)
    for transaction in transactions(3, 95):
        node.apply(relay_of(node).submit_transaction(transaction, net.kernel.now)[1])
    knobs = LEVELS[PrivacyLevel.HIGH]
    talker = Scripted({GetHeaders: shows, GetData: nothing, Inv: nothing, Headers: nothing})
    talkers = net.add(msgspec.structs.replace(SETTINGS, knobs=knobs), parts=[talker])
    talkers.connect(node.address)
    net.kernel.run(until=13.0)
    assert relay_of(node).download.in_flight == 1
    submit(peer, NEWS)
    net.kernel.run(until=14.0)
    assert relay_of(node).blocks.tip == TIP
    assert relay_of(node).download.in_flight == 0
    talkers.send(talkers.peers[0].link, Block(NEWS))  # late, and asked for
    net.kernel.run(until=2_000.0)
    assert told(node, "penalty") == []


def test_a_block_of_the_application_is_asked_of_nobody_any_more() -> None:
    def shows(peer: object, message: GetHeaders) -> list[Message]:
        return [Headers((NEWS[:80],))]

    net = network()
    node = node_with(net, BLOCKS)
    for _ in range(2):
        silent = Scripted({GetHeaders: shows, GetData: nothing, Inv: nothing, Headers: nothing})
        node.connect(net.add(SETTINGS, parts=[silent]).address)
    net.kernel.run(until=1.0)
    assert relay_of(node).download.in_flight == 1
    submit(node, NEWS)
    net.kernel.run(until=100.0)
    assert relay_of(node).download.in_flight == 0
    assert len(node.peers) == 2
    assert told(node, "peer-disconnected") == []


def test_missing_transactions_of_a_compact_block_may_come_late() -> None:
    net = network()
    peer, node = node_with(net, BLOCKS[:-1]), node_with(net, BLOCKS[:-1])
    node.connect(peer.address)
    net.kernel.run(until=5.0)
    submit(peer, BLOCKS[-1])  # whoever is first with a block may send the next one unasked
    net.kernel.run(until=10.0)

    def slow_down() -> None:
        net.weather = lambda a, b: 12.0

    count(node, CmpctBlock, slow_down)
    answers, whole = count(node, BlockTxn), count(node, Block)
    submit(peer, NEWS)
    net.kernel.run(until=100.0)
    assert relay_of(node).blocks.tip == TIP
    assert (len(answers), len(whole)) == (1, 1)
    assert told(node, "penalty") == []


def test_missing_transactions_that_come_too_late_leave_nobody_in_debt() -> None:
    """Who seems to owe a block for ever is asked for none that somebody else seems to give, and owes headers for ever too."""
    net = network()
    peer, quick, node = (node_with(net, BLOCKS[:-1]) for _ in range(3))
    node.connect(peer.address)
    net.kernel.run(until=5.0)
    submit(peer, BLOCKS[-1])
    net.kernel.run(until=10.0)
    node.connect(quick.address)
    net.kernel.run(until=15.0)

    def slow_down() -> None:
        net.weather = lambda a, b: 12.0 if peer.number in (a, b) else 0.0

    count(node, CmpctBlock, slow_down)
    answers = count(node, BlockTxn)
    submit(peer, NEWS)
    net.kernel.run(until=15.5)
    submit(quick, NEWS)
    net.kernel.run(until=20.0)
    assert relay_of(node).blocks.tip == TIP
    net.kernel.run(until=100.0)
    assert len(answers) == 1
    assert [relay_of(node).download.owes(peer.link) for peer in node.peers] == [False, False]
    assert told(node, "penalty") == []


def test_a_block_that_became_deep_may_come_whole_and_late_for_its_missing_transactions() -> None:
    net = network()
    peer, node = node_with(net, BLOCKS[:-1]), node_with(net, BLOCKS[:-1])
    node.connect(peer.address)
    net.kernel.run(until=5.0)
    submit(peer, BLOCKS[-1])
    net.kernel.run(until=10.0)

    def slow_down() -> None:
        net.weather = lambda a, b: 12.0

    count(node, CmpctBlock, slow_down)
    whole = count(node, Block)
    submit(peer, NEWS)
    net.kernel.run(until=11.0)
    for raw in chain_of(LEDGER, limits.BLOCKTXN_DEPTH + 1, seed=3, parent=[*BLOCKS, NEWS]):
        submit(peer, raw)
    net.kernel.run(until=200.0)
    assert [LEDGER.block_id(message.raw[:80]) for message in whole].count(TIP) == 2  # type: ignore[attr-defined]
    assert told(node, "penalty") == []
    assert relay_of(node).blocks.tip == relay_of(peer).blocks.tip


def test_a_second_compact_block_does_not_end_the_wait_for_what_the_first_one_lacks() -> None:
    """Both are asked for in compact form if the node's own tip moves to another branch in between."""
    net = network(latency=0.3)
    peer, node = node_with(net, BLOCKS), node_with(net, BLOCKS)
    node.connect(peer.address)
    net.kernel.run(until=60.0)
    node.apply(relay_of(node).submit_transaction(transactions(1, 97)[0], net.kernel.now)[1])
    answers, whole = count(node, CmpctBlock), count(node, Block)
    submit(peer, NEWS)
    while not relay_of(node).download.in_flight:
        net.kernel.run(until=net.kernel.now + 0.01)
    submit(node, chain_of(LEDGER, 1, seed=98, parent=BLOCKS)[0])
    submit(peer, block_with_news(NEWS))
    net.kernel.run(until=65.0)
    assert (len(answers), len(whole)) == (2, 1)
    assert relay_of(node).blocks.tip == relay_of(peer).blocks.tip
    assert told(node, "penalty") == []


def test_transactions_of_a_block_that_nobody_asked_for_are_a_fault() -> None:
    net = network()
    peer, node = node_with(net, BLOCKS), node_with(net, BLOCKS)
    peer.connect(node.address)
    net.kernel.run(until=5.0)
    peer.send(peer.peers[0].link, BlockTxn(bytes(32), b"\x00"))
    net.kernel.run(until=10.0)
    assert len(told(node, "penalty")) == 1


@pytest.mark.parametrize("every_s", [5.0, 25.0])
def test_a_slow_peer_of_the_older_way_is_waited_for(every_s: float) -> None:
    net = network()
    ids = [LEDGER.block_id(LEDGER.genesis), *(LEDGER.block_id(raw[:80]) for raw in BLOCKS)]

    def listed(peer: object, message: GetBlocks) -> list[Inv]:
        start = next(ids.index(entry) for entry in message.locator if entry in ids) + 1
        items = tuple(InventoryItem(InventoryKind.BLOCK, block_id) for block_id in ids[start : start + 8])
        return [Inv(items)] if items else []

    part = Scripted({GetHeaders: nothing, GetBlocks: listed, GetData: nothing})
    node, old = node_with(net, []), net.add(SETTINGS, parts=[part])
    old.connect(node.address)
    net.kernel.run(until=limits.HEADERS_S + 1.0)
    sent = 0
    while relay_of(node).chain.tip_height < len(BLOCKS) and net.kernel.now < 60 * every_s:
        asked = [item.hash for message in part.of(GetData) for item in message.items]  # type: ignore[attr-defined]
        net.kernel.run(until=net.kernel.now + every_s)
        for block_id in asked[sent : sent + 1]:
            sent += 1
            old.send(old.peers[0].link, Block(BLOCKS[ids.index(block_id) - 1]))
        net.kernel.run(until=net.kernel.now + 0.1)
    assert told(node, "penalty") == []
    assert relay_of(node).chain.tip_height >= 8
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("gives_blocks", [True, False])
def test_headers_that_come_after_blocks_may_be_late(gives_blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Headers, "most", classmethod(lambda cls, header_bytes: 6))
    net = network()
    headers = [Headers(tuple(raw[:80] for raw in part)) for part in (BLOCKS[:6], BLOCKS[6:])]
    part = Scripted({GetHeaders: nothing, GetData: nothing}, greet=headers[:1])
    node, slow = node_with(net, []), net.add(SETTINGS, parts=[part])
    node.assembly.engine.dial(slow.address, net.kernel.now)
    node.turn()
    net.kernel.run(until=1.0)
    assert len(part.of(GetHeaders)) == 2
    for raw in BLOCKS[:5] if gives_blocks else []:
        net.kernel.run(until=net.kernel.now + limits.BLOCK_PATIENCE_S[0] - 1.0)
        slow.send(slow.peers[0].link, Block(raw))
    net.kernel.run(until=net.kernel.now + (1.0 if gives_blocks else 200.0))
    assert len(node.peers) == gives_blocks
    if gives_blocks:
        slow.send(slow.peers[0].link, headers[1])
        net.kernel.run(until=net.kernel.now + 1.0)
        assert relay_of(node).chain.best_height == len(BLOCKS)


@pytest.mark.parametrize("has_less_work", [True, False])
def test_blocks_that_were_asked_for_the_older_way_may_come_after_headers(has_less_work: bool) -> None:
    """Those of a branch with less work are wanted no more then, those of another one are asked for once more."""
    net = network()
    branch = chain_of(LEDGER, 6, seed=2, parent=BLOCKS[:2])
    part = Scripted({GetHeaders: nothing, GetBlocks: nothing, GetData: nothing})
    node, old = node_with(net, BLOCKS if has_less_work else BLOCKS[:2]), net.add(SETTINGS, parts=[part])
    old.connect(node.address)
    net.kernel.run(until=limits.HEADERS_S + 1.0)
    listed = tuple(InventoryItem(InventoryKind.BLOCK, LEDGER.block_id(raw[:80])) for raw in branch)
    for message in (Inv(listed), Headers(tuple(raw[:80] for raw in branch))):
        old.send(old.peers[0].link, message)
        net.kernel.run(until=net.kernel.now + 0.5)
    asked = [item.hash for message in part.of(GetData) for item in message.items]  # type: ignore[attr-defined]
    assert len(asked) == len(branch) * (1 if has_less_work else 2)
    for block_id in asked:
        old.send(old.peers[0].link, Block(next(raw for raw in branch if LEDGER.block_id(raw[:80]) == block_id)))
        net.kernel.run(until=net.kernel.now + 0.5)
    assert told(node, "penalty") == []
    assert relay_of(node).chain.tip_height == (10 if has_less_work else 8)


def large(size: int, *before: bytes) -> bytes:
    """The next block after ``before``, of about so many bytes."""
    chain = Chain(LEDGER)
    for raw in (*BLOCKS, *before):
        assert chain.add(raw[:80], START + 10**9) is None
    inside = transactions(size // 2_000, 70 + len(before), 2_000)
    raw = block_template(LEDGER, chain.branch(chain.best), inside, START, Random(1))
    return mined(raw[:80]) + raw[80:]


LARGE = large(900_000)


def test_a_block_that_comes_through_a_narrow_line_is_asked_of_few() -> None:
    """Each copy takes its part of the line: asked of everybody, a block that takes 45 s took nine minutes."""
    net = network(latency=0.3)
    peers = [node_with(net, [*BLOCKS, LARGE]) for _ in range(10)]
    node = node_with(net, BLOCKS)
    narrow = Line(net.kernel, 20_000.0)
    net.line = lambda a, b: narrow if b == node.number else None
    blocks = count(node, Block)
    for peer in peers:
        node.connect(peer.address)
    while relay_of(node).blocks.tip != LEDGER.block_id(LARGE[:80]):
        assert net.kernel.now < 180.0
        net.kernel.run(until=net.kernel.now + 1.0)
    net.kernel.run(until=600.0)
    assert len(blocks) <= 5
    assert told(node, "penalty") == []


@pytest.mark.parametrize("quick_first", [True, False])
def test_a_block_that_comes_slowly_is_asked_of_a_quicker_peer(quick_first: bool) -> None:
    net = network()
    slow, quick, node = (node_with(net, blocks) for blocks in ([*BLOCKS, LARGE], [*BLOCKS, LARGE], BLOCKS))
    net.line = lambda a, b: Line(net.kernel, 5_000.0) if a == slow.number else None
    node.connect(slow.address)
    while not relay_of(node).download.in_flight:
        net.kernel.run(until=net.kernel.now + 0.01)
    asked_at = net.kernel.now
    net.kernel.run(until=asked_at + (0.0 if quick_first else 30.0))
    node.connect(quick.address)
    net.kernel.run(until=asked_at + (12.0 if quick_first else 32.0))
    assert relay_of(node).blocks.tip == LEDGER.block_id(LARGE[:80])


@pytest.mark.parametrize(("blocks", "most_s"), [(1, 15.0), (400, 30.0)])
def test_those_who_only_seem_to_give_blocks_hold_up_little(blocks: int, most_s: float) -> None:
    """They let something long drip: each of seven was asked in turn, for twice as long as the one before, and again and again."""
    net, news = network(), chain_of(LEDGER, blocks, seed=5, parent=BLOCKS)
    node = node_with(net, BLOCKS)
    drip = Scripted({GetHeaders: nothing, GetData: lambda peer, message: [Block(bytes(3_900_000))]})
    drippers = [net.add(SETTINGS, parts=[drip]) for _ in range(7)]
    peers = [node_with(net, BLOCKS) for _ in range(3)]
    lines = {dripper.number: Line(net.kernel, 5e6) for dripper in drippers}
    net.line = lambda a, b: lines.get(a)
    for dripper in drippers:
        dripper.connect(node.address)
    net.kernel.run(until=2.0)
    for peer in peers:
        node.connect(peer.address)
    net.kernel.run(until=40.0)
    for dripper in drippers:
        dripper.send(dripper.peers[0].link, Headers(tuple(raw[:80] for raw in news)))
    net.kernel.run(until=40.5)
    assert drip.of(GetData)
    for line in lines.values():
        line._rate = 600.0
    for peer in peers:
        for raw in news:
            submit(peer, raw)
    net.kernel.run(until=40.5 + most_s)
    assert relay_of(node).blocks.tip == LEDGER.block_id(news[-1][:80])
    assert told(node, "penalty") == []
