"""Branches that grow, end and overtake each other at nodes that stay linked: all come to the most work, whoever had what.

And so do transactions: each is in a block of that chain or waits everywhere, however often it was mined on a branch that
was left.
"""

from __future__ import annotations

from random import Random

import pytest

from chain_nodes import SETTINGS, archive_of, easy_ledger, network, relay_of, submit, transactions
from obscura.ledger.mining import block_template
from obscura.ledger.port import Transaction
from obscura.limits import MEMPOOL_KEEP_S
from obscura.sim.network import SimNode
from small_chains import START, mined

LEDGER = easy_ledger()
STEPS = 20
SETTLED_S = 90.0  # longer than anything that a node waits for before it asks somebody else


class World:
    """Some nodes, linked one after the other while each of them mines at its tip or below it, some of what waits there."""

    def __init__(self, seed: int, nodes: int, more_links: int) -> None:
        self.rng = rng = Random(seed)
        self.net = network(seed, latency=rng.choice((0.001, 0.02, 0.3)))
        delays = {"write_s": rng.choice((0.001, 0.01, 0.2)), "read_s": 0.002}
        self.nodes = [self.net.add(SETTINGS, archive=archive_of(LEDGER, **delays)) for _ in range(nodes)]
        self.blocks: dict[bytes, bytes] = {}
        self.sent: list[Transaction] = []
        self._links: list[tuple[int, int]] = []
        waiting = [(number, rng.randrange(number)) for number in range(1, nodes)]  # a tree, and some more
        waiting += [(one, other) for one, other in (rng.sample(range(nodes), 2) for _ in range(more_links))]
        rng.shuffle(waiting)
        self._waiting = waiting

    def wait(self, *seconds: float) -> None:
        """Let one of these times pass."""
        self.net.kernel.run(until=self.net.kernel.now + self.rng.choice(seconds))

    def grow(self) -> None:
        for step in range(STEPS):
            if self._waiting and (self.rng.random() < 0.4 or STEPS - step <= len(self._waiting)):
                self._links.append(self._waiting.pop())
                self._link(*self._links[-1])
            node = self.rng.choice(self.nodes)
            back = self.rng.randint(0, min(relay_of(node).chain.tip_height, 8)) if self.rng.random() < 0.5 else 0
            self.mine(node, back, self.rng.randint(1, back + 3))
            self.wait(0.01, 0.3, 2.0, 10.0)
        self.wait(SETTLED_S)

    def _link(self, one: int, other: int) -> None:
        dialler, listener = self.rng.sample((self.nodes[one], self.nodes[other]), 2)
        dialler.connect(listener.address)

    def mine(self, node: SimNode, back: int, count: int) -> None:
        """``count`` blocks on the one that is ``back`` below the node's tip, one at a time."""
        relay = relay_of(node)
        base = relay.chain.ancestor(relay.chain.tip, relay.chain.tip_height - back)
        for _ in range(count):
            there = self.inside(base)
            waits = [entry.transaction for entry in relay.transactions.mempool if entry.transaction.id not in there]
            chosen = [transaction for transaction in waits if self.rng.random() < 0.4]
            raw = block_template(LEDGER, relay.chain.branch(base), chosen, START, self.rng)
            raw = mined(raw[:80]) + raw[80:]
            base = LEDGER.block_id(raw[:80])
            self.blocks[base] = raw
            submit(node, raw)
            self.wait(0.0, 0.0, 0.05, 0.5)

    def inside(self, tip: bytes) -> set[bytes]:
        """Ids of all transactions of a chain."""
        ids: set[bytes] = set()
        while (raw := self.blocks.get(tip)) is not None:
            ids.update(transaction.id for transaction in LEDGER.decode_block(raw).transactions)
            tip = raw[4:36]
        return ids

    def send(self, transaction: Transaction) -> None:
        node = self.rng.choice(self.nodes)
        node.apply(relay_of(node).submit_transaction(transaction, self.net.kernel.now)[1])
        self.sent.append(transaction)

    def restart(self) -> None:
        """A node crashes once it has written what waits; its links are made anew."""
        self.wait(2 * MEMPOOL_KEEP_S)
        which = self.rng.randrange(len(self.nodes))
        self.nodes[which].crash()
        self.nodes[which] = self.net.restart(self.nodes[which], SETTINGS)
        for link in self._links:
            if which in link:
                self._link(*link)

    def faults(self) -> list[str]:
        """Whatever a node held against another one: all are honest, and links end by a crash alone."""
        return [told.kind for node in self.nodes for told in node.told if told.kind in ("discouraged", "penalty")]


def come_together(world: World) -> bytes:
    """All nodes have the chain with the most work of all headers, on their disks; its tip, if it is one."""
    chains = [relay_of(node).chain for node in world.nodes]
    assert {chain.work(chain.tip) for chain in chains} == {max(chain.work(chain.best) for chain in chains)}
    assert {relay_of(node).blocks.tip for node in world.nodes} == {chain.tip for chain in chains}
    assert world.faults() == []
    return chains[0].tip


@pytest.mark.parametrize("seed", range(16))
def test_all_come_to_the_most_work(seed: int) -> None:
    nodes = Random(f"nodes {seed}").randint(2, 6)
    world = World(seed, nodes, nodes - 1)
    world.grow()
    come_together(world)


@pytest.mark.parametrize("seed", range(24))
def test_every_transaction_waits_everywhere_or_is_in_the_chain(seed: int) -> None:
    """Three nodes: with more of them one may not be among those that are asked for what was missed."""
    world = World(seed, 3, 1)
    unsent = transactions(24, seed)
    for _ in range(4):
        for transaction in [unsent.pop() for _ in range(6)]:
            world.send(transaction)
            world.wait(0.01, 0.3, 2.0)
            if world.rng.random() < 0.3:
                world.mine(world.nodes[0], 0, 1)
        world.grow()
        world.restart()
    world.wait(SETTLED_S)
    world.mine(world.nodes[0], 0, 1)  # no two chains have equal work
    world.wait(SETTLED_S)
    mined_ids = world.inside(come_together(world))
    for node in world.nodes:
        waits = {entry.transaction.id for entry in relay_of(node).transactions.mempool}
        assert waits == {transaction.id for transaction in world.sent} - mined_ids
