"""An own transaction that was just made public outlives a crash: until others have it, nobody else can bring it back."""

from __future__ import annotations

import pytest

from chain_nodes import SETTINGS, archive_of, easy_ledger, network, relay_of, transactions
from obscura import limits
from obscura.node.broadcast import Policy, Stage
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
