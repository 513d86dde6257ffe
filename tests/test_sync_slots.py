"""Synchronisation over links in slots of the level high, 4 kB/s each way: it takes minutes, and nobody is ended for that."""

from __future__ import annotations

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
from obscura.node.face import Face
from obscura.node.recording import AnyRecord, Comes, Tape
from obscura.node.slots import OutboundLimits
from obscura.shaping.levels import CONSTANT_SLOT_MS, LEVELS, Knobs, PrivacyLevel
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Block, BlockTxn, GetBlocks, GetHeaders, Headers
from obscura.wire.messages.transactions import GetData
from rotating import Numbered
from small_chains import START, mined

LEDGER = easy_ledger()
BLOCKS = chain_of(LEDGER, 10)
LONG = chain_of(LEDGER, 2_050, seed=2)  # 2,000 headers take 40 s
HIGH = LEVELS[PrivacyLevel.HIGH]
CONSTANT = msgspec.structs.replace(HIGH, slot_ms=CONSTANT_SLOT_MS)
LATENCY_S = 0.5


def block_of(size: int) -> bytes:
    """The next block, about ``size`` bytes of transactions that nobody has heard of."""
    chain = Chain(LEDGER)
    for raw in BLOCKS:
        assert chain.add(raw[:80], START + 10**9) is None
    raw = block_template(LEDGER, chain.branch(chain.best), transactions(size // 2_000, 5, 2_000), START, Random(1))
    return mined(raw[:80]) + raw[80:]


LARGE = block_of(900_000)  # 225 s
NEXT = block_of(2_000)


def node_with(net: SimNetwork, blocks: list[bytes], dials: SimNode | None = None, knobs: Knobs = HIGH) -> SimNode:
    """A node that keeps one link, to ``dials``, by itself: no operator has asked for it."""
    outbound = OutboundLimits(0 if dials is None else 1, 0, False)
    settings = msgspec.structs.replace(SETTINGS, knobs=knobs, outbound=outbound)
    node = net.add(settings, archive=archive_of(LEDGER, blocks))
    if dials is not None:
        node.assembly.book.add_seeds([dials.address], True, Face.CLEARNET, net.kernel.now)
        node.turn()
    return node


def count(node: SimNode, kind: type[Message]) -> list[Message]:
    """All messages of a type that come to a node from now on."""
    routes, seen = node.assembly.core.routes, []
    honestly = routes[kind]

    def counted(peer, message, now):  # type: ignore[no-untyped-def]
        seen.append(message)
        return honestly(peer, message, now)

    routes[kind] = counted
    return seen


@pytest.mark.parametrize("knobs", [HIGH, CONSTANT])
def test_a_large_block_is_waited_for_as_long_as_it_comes_on(knobs: Knobs) -> None:
    net = network(latency=LATENCY_S)
    peer = node_with(net, BLOCKS, knobs=knobs)
    node = node_with(net, BLOCKS, peer, knobs)
    net.kernel.run(until=30.0)
    blocks = count(node, Block)
    submit(peer, LARGE)
    net.kernel.run(until=30.0 + 300.0)
    assert relay_of(node).blocks.tip == LEDGER.block_id(LARGE[:80])
    assert len(blocks) == 1
    assert told(node, "peer-disconnected") == []


def test_a_capture_says_that_a_block_comes_on() -> None:
    net = network(latency=LATENCY_S)
    peer, records = node_with(net, BLOCKS), list[AnyRecord]()
    node = node_with(net, BLOCKS)
    node.assembly.engine.connection_of = Tape(records.append, 0.0).connection_of
    node.connect(peer.address)
    net.kernel.run(until=30.0)
    submit(peer, LARGE)
    net.kernel.run(until=60.0)
    assert {record.type for record in records if isinstance(record, Comes)} == {"block"}


def test_many_headers_are_waited_for_as_long_as_they_come_on() -> None:
    net = network(latency=LATENCY_S)
    node = node_with(net, [], node_with(net, LONG))
    older = count(net.nodes[0], GetBlocks)
    while relay_of(node).chain.best_height < len(LONG):
        assert net.kernel.now < 400.0
        net.kernel.run(until=net.kernel.now + 1.0)
    assert net.kernel.now > 2 * limits.HEADERS_S
    assert told(node, "peer-disconnected") == []
    assert older == []


def test_headers_behind_a_large_block_are_waited_for() -> None:
    net = network(latency=LATENCY_S)
    peer = node_with(net, BLOCKS)
    node = node_with(net, BLOCKS, peer)
    net.kernel.run(until=30.0)
    submit(peer, LARGE)
    net.kernel.run(until=60.0)
    answers = count(node, Headers)
    node.apply(relay_of(node)._headers.ask(node.peers[0].link, net.kernel.now))
    net.kernel.run(until=30.0 + 300.0)
    assert told(node, "peer-disconnected") == []
    assert len(answers) == 1


def test_missing_transactions_of_a_compact_block_are_waited_for_as_long_as_they_come_on() -> None:
    net = network(latency=LATENCY_S)
    peer = node_with(net, BLOCKS[:-1])
    node = node_with(net, BLOCKS[:-1], peer)
    net.kernel.run(until=30.0)
    submit(peer, BLOCKS[-1])  # whoever is first with a block may send the next one unasked
    net.kernel.run(until=60.0)
    missing, whole = count(node, BlockTxn), count(node, Block)
    submit(peer, LARGE)
    net.kernel.run(until=60.0 + 300.0)
    assert relay_of(node).blocks.tip == LEDGER.block_id(LARGE[:80])
    assert (len(missing), len(whole)) == (1, 0)


def test_who_is_slow_with_headers_leads_no_longer() -> None:
    net = network(latency=LATENCY_S)
    first, second = node_with(net, LONG), node_with(net, LONG)
    node = node_with(net, [])
    node.connect(first.address)
    net.kernel.run(until=5.0)
    asked = count(second, GetHeaders)
    node.connect(second.address)
    net.kernel.run(until=15.0)
    assert asked == []
    net.kernel.run(until=5.0 + limits.HEADERS_S)
    assert len(asked) == 1


def test_who_talks_all_the_time_and_gives_no_block_keeps_it_from_nobody() -> None:
    def shows(peer: object, message: GetHeaders) -> list[Message]:
        return [Headers((NEXT[:80],)), Numbered(0, 4_000_000)]  # a quarter of an hour

    net = network(latency=LATENCY_S)
    settings = msgspec.structs.replace(SETTINGS, knobs=HIGH, outbound=OutboundLimits(0, 0, False))
    talker = net.add(settings, parts=[Scripted({GetHeaders: shows, GetData: nothing})])
    node = node_with(net, BLOCKS)
    node.connect(talker.address)
    net.kernel.run(until=60.0)
    assert relay_of(node).download.in_flight == 1
    node.connect(node_with(net, [*BLOCKS, NEXT]).address)
    net.kernel.run(until=60.0 + 10.0)
    assert relay_of(node).blocks.tip == LEDGER.block_id(NEXT[:80])


def test_many_who_dial_and_talk_keep_a_block_no_longer_than_one() -> None:
    def shows(peer: object, message: GetHeaders) -> list[Message]:
        return [Headers((NEXT[:80],)), Numbered(0, 4_000_000)]

    net = network(latency=LATENCY_S)
    settings = msgspec.structs.replace(SETTINGS, knobs=HIGH, outbound=OutboundLimits(0, 0, False))
    node = node_with(net, BLOCKS)
    for _ in range(4):
        net.add(settings, parts=[Scripted({GetHeaders: shows, GetData: nothing})]).connect(node.address)
    net.kernel.run(until=1.0)
    honest = node_with(net, [*BLOCKS, NEXT])
    node.connect(honest.address)
    net.kernel.run(until=60.0)
    assert relay_of(node).blocks.tip == LEDGER.block_id(NEXT[:80])


@pytest.mark.parametrize("size", [4_000_000, 2_600_000])  # 33 minutes; 21, so that little waits when the pong is late
def test_a_pong_behind_much_else_is_waited_for_at_both_ends(size: int) -> None:
    net = network(latency=LATENCY_S)
    peer = node_with(net, BLOCKS)
    node = node_with(net, BLOCKS, peer)
    net.kernel.run(until=30.0)
    for number in range(2):
        peer.send(peer.peers[0].link, Numbered(number, size))
    net.kernel.run(until=30.0 + 3_600.0)
    assert told(node, "peer-disconnected") == []
    for end in (node, peer):
        (shown,) = end.assembly.engine.describe(net.kernel.now)
        assert shown["ping_ms"] < 2_000 * LATENCY_S + 2_000


def test_who_says_nothing_more_is_dead_whatever_came_before() -> None:
    net = network(latency=LATENCY_S)
    peer = node_with(net, BLOCKS)
    node = node_with(net, BLOCKS, peer)
    net.kernel.run(until=30.0)
    peer.send(peer.peers[0].link, Numbered(0, 1_000_000))
    net.kernel.run(until=60.0)
    peer.is_running = False  # without a word
    net.kernel.run(until=60.0 + limits.PING_INTERVAL_S + limits.PING_DEAD_S)
    (ended,) = told(node, "peer-disconnected")
    assert ended["reason"] == "closed by this node: no pong for 20 minutes"
