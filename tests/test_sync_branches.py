"""Branches that grow, end and overtake each other at nodes that stay linked: all come to the most work, whoever had what."""

from __future__ import annotations

from random import Random

import pytest

from chain_nodes import SETTINGS, archive_of, easy_ledger, network, relay_of, submit
from obscura.ledger.mining import block_template
from obscura.sim.network import SimNetwork, SimNode
from small_chains import START, mined

LEDGER = easy_ledger()
STEPS = 20
SETTLED_S = 90.0  # longer than anything that a node waits for before it asks somebody else


def mine(node: SimNode, back: int, count: int, rng: Random) -> None:
    """``count`` blocks on the one that is ``back`` below the node's tip, one at a time."""
    chain = relay_of(node).chain
    base = chain.ancestor(chain.tip, chain.tip_height - back)
    for _ in range(count):
        raw = block_template(LEDGER, chain.branch(base), [], START, rng)
        raw = mined(raw[:80]) + raw[80:]
        submit(node, raw)
        base = LEDGER.block_id(raw[:80])
        node.network.kernel.run(until=node.network.kernel.now + rng.choice((0.0, 0.0, 0.05, 0.5)))


def grown(seed: int) -> SimNetwork:
    """Some nodes, linked one after the other while each of them mines at its tip or below it."""
    rng = Random(seed)
    net = network(seed, latency=rng.choice((0.001, 0.02, 0.3)))
    nodes = [
        net.add(SETTINGS, archive=archive_of(LEDGER, write_s=0.01, read_s=0.002)) for _ in range(rng.randint(2, 6))
    ]
    links = [(number, rng.randrange(number)) for number in range(1, len(nodes))]  # a tree, and some more
    links += [(one, other) for one, other in (rng.sample(range(len(nodes)), 2) for _ in nodes[1:])]
    rng.shuffle(links)
    for step in range(STEPS):
        if links and (rng.random() < 0.4 or STEPS - step <= len(links)):
            one, other = rng.sample(links.pop(), 2)
            nodes[one].connect(nodes[other].address)
        node = rng.choice(nodes)
        back = rng.randint(0, min(relay_of(node).chain.tip_height, 8)) if rng.random() < 0.5 else 0
        mine(node, back, rng.randint(1, back + 3), rng)
        net.kernel.run(until=net.kernel.now + rng.choice((0.01, 0.3, 2.0, 10.0)))
    net.kernel.run(until=net.kernel.now + SETTLED_S)
    return net


@pytest.mark.parametrize("seed", range(16))
def test_all_come_to_the_most_work(seed: int) -> None:
    nodes = grown(seed).nodes
    chains = [relay_of(node).chain for node in nodes]
    assert {chain.work(chain.tip) for chain in chains} == {max(chain.work(chain.best) for chain in chains)}
    assert {relay_of(node).blocks.tip for node in nodes} == {chain.tip for chain in chains}, "on the disk as well"
    assert not [
        told for node in nodes for told in node.told if told.kind in ("discouraged", "penalty", "peer-disconnected")
    ]
