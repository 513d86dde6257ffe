"""Questions that wait behind what is sent: whoever has not got them yet is not ended for giving no answer."""

from __future__ import annotations

import msgspec

from chain_nodes import SETTINGS, archive_of, chain_of, easy_ledger, network, relay_of, submit, told
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.network import SimNetwork, SimNode

LEDGER = easy_ledger()
BLOCKS = chain_of(LEDGER, 4, fill=3_000)  # 0.9 MB each: at the level high each takes four minutes
NEXT = chain_of(LEDGER, 1, seed=2, parent=BLOCKS, fill=2)


def node_at(net: SimNetwork, level: PrivacyLevel, blocks: list[bytes], ledger: BitcoinLedger = LEDGER) -> SimNode:
    settings = msgspec.structs.replace(SETTINGS, knobs=LEVELS[level])
    return net.add(settings, archive=archive_of(ledger, blocks))


def dial(node: SimNode, other: SimNode) -> None:
    """As no operator asked for."""
    node.assembly.engine.dial(other.address, node.network.kernel.now)
    node.turn()


def behind(net: SimNetwork) -> tuple[SimNode, SimNode]:
    """A node that gives another one its blocks, which that one got elsewhere meanwhile."""
    giver, taker = node_at(net, PrivacyLevel.HIGH, BLOCKS), node_at(net, PrivacyLevel.STANDARD, [])
    dial(taker, giver)
    net.kernel.run(until=30.0)
    for raw in BLOCKS:
        submit(taker, raw)
    net.kernel.run(until=31.0)
    assert giver.assembly.engine.waiting(giver.peers[0].link) > 1_200_000
    return giver, taker


def test_a_question_for_a_block_behind_many_blocks_ends_no_link() -> None:
    net = network()
    giver, taker = behind(net)
    submit(taker, NEXT[0])
    net.kernel.run(until=1_500.0)
    assert told(giver, "peer-disconnected") == []
    assert relay_of(giver).blocks.tip_height == 5


def test_a_question_for_headers_behind_many_blocks_ends_no_link() -> None:
    net = network()
    giver, _ = behind(net)
    giver.apply(relay_of(giver)._headers.ask(giver.peers[0].link, net.kernel.now))
    net.kernel.run(until=1_500.0)
    assert told(giver, "peer-disconnected") == []
