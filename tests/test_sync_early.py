"""Blocks whose time is too far ahead: not taken, not held against anybody, and asked for again once their time may have come."""

from __future__ import annotations

from random import Random

from chain_nodes import SETTINGS, Scripted, archive_of, chain_of, easy_ledger, network, relay_of, submit, told
from obscura import limits
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template
from obscura.sim.network import UNIX_AT_START, SimNetwork, SimNode
from obscura.wire.messages.blocks import CmpctBlock, GetHeaders, Headers
from small_chains import mined

LEDGER = easy_ledger()
BLOCKS = chain_of(LEDGER, 20)
VALID_AT = 400.0  # virtual seconds from which the newest block is not too far ahead
AHEAD_S = limits.MAX_FUTURE_S + VALID_AT


def from_the_future() -> bytes:
    """A block after ``BLOCKS``."""
    chain = Chain(LEDGER)
    for raw in BLOCKS:
        assert chain.add(raw[:80], UNIX_AT_START) is None
    raw = block_template(LEDGER, chain.branch(chain.best), (), UNIX_AT_START + AHEAD_S, Random(1))
    return mined(raw[:80]) + raw[80:]


EARLY = from_the_future()
HEADERS = [raw[:80] for raw in [*BLOCKS, EARLY]]
OLD_TIP, TIP = (LEDGER.block_id(header) for header in HEADERS[-2:])


def node_with(net: SimNetwork, blocks: list[bytes]) -> SimNode:
    return net.add(SETTINGS, archive=archive_of(LEDGER, blocks))


def assert_that_it_comes(net: SimNetwork, node: SimNode) -> None:
    """Not before its time, and soon after it, though nobody announces anything any more."""
    net.kernel.run(until=VALID_AT - 1.0)
    assert relay_of(node).blocks.tip == OLD_TIP
    net.kernel.run(until=VALID_AT + limits.EARLY_AGAIN_S[1] + 5.0)
    assert relay_of(node).blocks.tip == TIP
    assert told(node, "penalty") == []


def test_headers_from_the_future_are_asked_for_again() -> None:
    net = network()
    peer, node = node_with(net, [*BLOCKS, EARLY]), node_with(net, [])
    node.connect(peer.address)
    assert_that_it_comes(net, node)


def test_a_compact_block_from_the_future_is_asked_for_again() -> None:
    net = network()
    peer, node = node_with(net, BLOCKS[:-1]), node_with(net, BLOCKS[:-1])
    peer.clock_error_s = VALID_AT
    node.connect(peer.address)
    net.kernel.run(until=5.0)
    submit(peer, BLOCKS[-1])  # whoever is first with a block may send the next one unasked
    net.kernel.run(until=10.0)
    routes, compact = node.assembly.core.routes, []
    honestly = routes[CmpctBlock]
    routes[CmpctBlock] = lambda sender, message, now: compact.append(message) or honestly(sender, message, now)
    submit(peer, EARLY)
    net.kernel.run(until=20.0)
    assert [LEDGER.block_id(message.header) for message in compact] == [TIP]
    assert_that_it_comes(net, node)


def test_whoever_shows_a_future_again_and_again_is_asked_about_it_rarely() -> None:
    net = network()
    liar = Scripted({GetHeaders: lambda peer, message: [Headers(tuple(HEADERS))] * 5})
    node, other = node_with(net, []), net.add(SETTINGS, parts=[liar])
    node.connect(other.address)
    net.kernel.run(until=VALID_AT - 10.0)
    least, most = limits.EARLY_AGAIN_S
    assert VALID_AT / most - 1 <= len(liar.got) <= VALID_AT / least + 1
