"""An own transaction that was just made public outlives a crash: until others have it, nobody else can bring it back."""

from __future__ import annotations

import pytest

from chain_nodes import SETTINGS, archive_of, easy_ledger, network, relay_of, transactions
from obscura import limits
from obscura.node.broadcast import Policy, Stage
from obscura.node.effects import Dial
from obscura.node.face import Face, Purpose
from obscura.sim.network import SimNetwork, SimNode

LEDGER = easy_ledger()
OWN, OTHER = transactions(2, 77)
KEPT_S = limits.MEMPOOL_KEEP_S + 1.0  # the mempool is in the archive by then


@pytest.fixture(autouse=True)
def _nobody_asks_for_mempools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first links would bring everything about, whatever the node itself tells."""
    monkeypatch.setattr("obscura.node.relay.MEMPOOL_ASKED", 0)


def two() -> tuple[SimNetwork, SimNode, SimNode]:
    """The node, and a peer that has no reason to ask for its whole mempool."""
    net = network()
    node, peer = (net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(2))
    peer.apply(relay_of(peer).submit_transaction(OTHER, 0.0)[1])
    return net, node, peer


def send(node: SimNode, policy: Policy, wait_s: float | None = None) -> None:
    own = node.assembly.own_transactions
    assert own is not None
    node.apply(own.submit(OWN.raw, policy, wait_s, node.network.kernel.now)[1])


def has(node: SimNode) -> bool:
    return OWN.id in relay_of(node).transactions.mempool


def kept(node: SimNode) -> list[bytes]:
    assert node.archive is not None
    return [submission.id for submission in node.archive.outbox.kept()]


@pytest.mark.parametrize("alive_s", [0.001, KEPT_S], ids=["not-in-the-archive", "in-the-archive"])
@pytest.mark.parametrize(
    ("policy", "wait_s"), [(Policy.DIRECT, None), (Policy.PRIVATE, 0.0)], ids=["direct", "unprotected"]
)
def test_public_and_told_to_nobody_it_is_told_after_the_restart(
    policy: Policy, wait_s: float | None, alive_s: float
) -> None:
    net, node, peer = two()
    send(node, policy, wait_s)
    net.kernel.run(until=alive_s)
    assert has(node)
    node.crash()
    again = net.restart(node, SETTINGS)
    peer.connect(again.address)
    net.kernel.run(until=net.kernel.now + 60.0)
    assert has(peer)
    assert not [receipt for receipt in again.receipts if receipt.stage is Stage.STEMMED]
    net.kernel.run(until=net.kernel.now + 2 * limits.BROADCAST_SEEN_S)
    assert not kept(again)


def test_a_crash_with_links_before_their_time_to_be_told_has_come() -> None:
    net, node, peer = two()
    peer.connect(node.address)
    net.kernel.run(until=10.0)
    send(node, Policy.DIRECT)
    net.kernel.run(until=10.001)
    node.crash()
    assert not has(peer)
    again = net.restart(node, SETTINGS)
    peer.connect(again.address)
    net.kernel.run(until=net.kernel.now + 60.0)
    assert has(peer)


def test_while_nobody_is_there_to_hear_of_it_it_is_not_given_up() -> None:
    net, node, peer = two()
    send(node, Policy.DIRECT)
    net.kernel.run(until=10 * limits.BROADCAST_SEEN_S)
    assert kept(node) == [OWN.id]
    assert not any(receipt.final for receipt in node.receipts)
    again = net.restart(node, SETTINGS)
    peer.connect(again.address)
    net.kernel.run(until=net.kernel.now + 60.0)
    assert has(peer)


def test_made_public_by_another_it_stays_in_the_outbox_until_the_archive_has_it() -> None:
    """Whoever diffused it may crash or be cut off as well: then only its owner can bring it back."""
    net, node, peer = two()
    send(node, Policy.PRIVATE, 3_600.0)
    peer.apply(relay_of(peer).submit_transaction(OWN, 0.0)[1])
    peer.connect(node.address)
    while not has(node):
        assert net.kernel.now < 60.0
        net.kernel.run(until=net.kernel.now + 0.5)
    net.kernel.run(until=net.kernel.now + 2.0)
    assert node.archive is not None
    assert OWN.id not in node.archive.transactions
    assert kept(node) == [OWN.id]
    net.kernel.run(until=net.kernel.now + 2 * KEPT_S)
    assert OWN.id in node.archive.transactions
    assert not kept(node)


@pytest.mark.parametrize("dials", [True, False])
def test_a_peer_that_had_it_before_it_was_told_fetches_nothing_and_that_is_enough(dials: bool) -> None:
    """It does not announce back what it was told: what shows that it has it is that it answers, and asks for nothing."""
    net, node, peer = two()
    (node if dials else peer).connect((peer if dials else node).address)
    net.kernel.run(until=10.0)
    if not dials:
        net.kernel.run(until=70.0)
        assert OTHER.id in relay_of(node).transactions.mempool, "so it takes part in transactions"
    send(node, Policy.DIRECT)
    peer.apply(relay_of(peer).submit_transaction(OWN, net.kernel.now)[1])
    relay_of(peer).transactions._tellings.clear(peer.peers[0].link if not dials else -int(peer.peers[0].face))
    net.kernel.run(until=net.kernel.now + limits.BROADCAST_SEEN_S - 1.0)
    assert relay_of(node).transactions.holders(OWN.id) == 0
    assert not any(receipt.final for receipt in node.receipts)
    net.kernel.run(until=net.kernel.now + limits.PING_INTERVAL_S + 20.0)
    assert node.receipts[-1].final
    assert not kept(node)


def test_a_peer_for_blocks_alone_answers_too_and_that_is_nothing() -> None:
    net, node, peer = two()
    peer.apply([Dial(node.address, purpose=Purpose.BLOCKS, face=Face.CLEARNET)])
    send(node, Policy.DIRECT)
    net.kernel.run(until=10 * limits.PING_INTERVAL_S)
    assert len(node.peers) == 1
    assert kept(node) == [OWN.id]


def test_what_was_fetched_from_here_is_counted_as_seen() -> None:
    net, node, peer = two()
    peer.connect(node.address)
    send(node, Policy.DIRECT)
    net.kernel.run(until=50.0)
    assert has(peer)
    assert (node.receipts[-1].stage, node.receipts[-1].peers) == (Stage.SEEN, 1)
