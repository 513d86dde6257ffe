"""Transactions that a node had or heard of and lost: by a crash just after a reorganisation, or by being away."""

from __future__ import annotations

from random import Random

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
    transactions,
)
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template
from obscura.ledger.port import Transaction
from obscura.limits import MAX_RELAYED_TX, REENTRY_DEPTH
from obscura.node import reentry
from obscura.node.effects import Dial
from obscura.node.face import Face, Purpose
from obscura.node.mempool import Verdict
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.messages.blocks import GetHeaders, Headers, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound
from small_chains import START, mined

LEDGER = easy_ledger()
START_BLOCKS = chain_of(LEDGER, 5)
LOST, MINED, OTHERS = transactions(3, 90)


def block_with(parents: list[bytes], *inside: Transaction) -> bytes:
    chain = Chain(LEDGER)
    for raw in parents:
        assert chain.add(raw[:80], START + 10**9) is None
    raw = block_template(LEDGER, chain.branch(chain.best), inside, START, Random(1))
    return mined(raw[:80]) + raw[80:]


LEFT = block_with(START_BLOCKS, LOST, MINED)


def longer(count: int) -> list[bytes]:
    """A branch beside ``LEFT`` with one of its transactions."""
    first = block_with(START_BLOCKS, MINED)
    return [first, *chain_of(LEDGER, count - 1, seed=91, parent=[*START_BLOCKS, first])]


def pool(node: SimNode) -> set[bytes]:
    return {entry.transaction.id for entry in relay_of(node).transactions.mempool}


def crashed_after_reorganisation(net: SimNetwork, count: int) -> SimNode:
    """A node whose disk has the new tip, and nothing of what waits again since."""
    node = net.add(SETTINGS, archive=archive_of(LEDGER, [*START_BLOCKS, LEFT], read_s=1.0))
    net.kernel.run(until=5.0)
    for raw in longer(count):
        submit(node, raw)
        net.kernel.run(until=net.kernel.now + 0.01)
    assert not pool(node), "the blocks are still being read"
    node.crash()
    return node


@pytest.mark.parametrize(("count", "comes_back"), [(2, True), (30, True), (REENTRY_DEPTH + 3, False)])
def test_what_left_the_chain_waits_again_after_a_crash(count: int, comes_back: bool) -> None:
    net = network()
    again = net.restart(crashed_after_reorganisation(net, count), SETTINGS)
    net.kernel.run(until=net.kernel.now + 200.0)
    assert pool(again) == ({LOST.id} if comes_back else set())


def test_what_was_told_and_mined_before_anyone_fetched_it_is_told_again_when_it_waits_again() -> None:
    """Whoever asked for it meanwhile got notfound, and nobody else has it: that was all that anybody ever heard of it."""
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, START_BLOCKS))
    ear = Scripted({GetHeaders: nothing, Headers: nothing, MempoolRequest: nothing, Inv: nothing, NotFound: nothing})
    peer = net.add(SETTINGS, parts=[ear])
    node.connect(peer.address)
    net.kernel.run(until=5.0)
    node.apply(relay_of(node).submit_transaction(LOST, net.kernel.now)[1])
    net.kernel.run(until=40.0)
    submit(node, LEFT)
    net.kernel.run(until=41.0)
    wanted = (InventoryItem(InventoryKind.TX, LOST.id),)
    peer.send(peer.peers[0].link, GetData(wanted))
    net.kernel.run(until=60.0)
    assert NotFound(wanted) in ear.of(NotFound)
    for raw in longer(2):
        submit(node, raw)
    net.kernel.run(until=100.0)
    assert pool(node) == {LOST.id}
    assert [message.items for message in ear.of(Inv)].count(wanted) == 2  # type: ignore[attr-defined]


def test_what_was_mined_just_before_a_crash_does_not_wait_again() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, START_BLOCKS))
    for transaction in (LOST, OTHERS):
        node.apply(relay_of(node).submit_transaction(transaction, 0.0)[1])
    net.kernel.run(until=10.0)
    submit(node, LEFT)
    net.kernel.run(until=10.5)
    assert pool(node) == {OTHERS.id}
    node.crash()
    again = net.restart(node, SETTINGS)
    net.kernel.run(until=30.0)
    assert pool(again) == {OTHERS.id}
    again.crash()
    assert pool(net.restart(again, SETTINGS)) == {OTHERS.id}, "nor on the disk"


def test_what_came_back_for_a_moment_and_was_mined_is_not_left_on_the_disk() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, START_BLOCKS))
    node.apply(relay_of(node).submit_transaction(LOST, 0.0)[1])
    net.kernel.run(until=10.0)
    assert node.archive is not None
    assert LOST.id in node.archive.transactions
    submit(node, LEFT)
    branch = longer(2)
    for raw in branch:
        submit(node, raw)
    net.kernel.run(until=11.0)
    assert pool(node) == {LOST.id}
    submit(node, block_with([*START_BLOCKS, *branch], LOST))
    net.kernel.run(until=30.0)
    assert not pool(node)
    assert not node.archive.transactions


def test_what_a_block_has_is_not_taken_from_a_peer_after_a_restart() -> None:
    """The peer is on a branch without it, and nothing waits here that would be a reason to look at the newest blocks."""
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, [*START_BLOCKS, LEFT]))
    other = net.add(SETTINGS, archive=archive_of(LEDGER, START_BLOCKS))
    other.apply(relay_of(other).submit_transaction(LOST, 0.0)[1])
    net.kernel.run(until=5.0)
    other.connect(node.address)
    net.kernel.run(until=60.0)
    assert not pool(node)


def test_what_two_reorganisations_in_a_row_took_and_left_waits_again() -> None:
    """The second one comes while the blocks of the first are still being read: that they have it does not count for both."""
    net = network()
    first = chain_of(LEDGER, 1, seed=92, parent=START_BLOCKS)
    node = net.add(SETTINGS, archive=archive_of(LEDGER, [*START_BLOCKS, *first], read_s=1.0))
    net.kernel.run(until=10.0)
    after = chain_of(LEDGER, 1, seed=93, parent=[*START_BLOCKS, LEFT])
    for raw in (LEFT, *after, *longer(3)):
        submit(node, raw)
    net.kernel.run(until=10.5)
    assert relay_of(node).blocks.tip == LEDGER.block_id(longer(3)[-1][:80])
    net.kernel.run(until=60.0)
    assert pool(node) == {LOST.id}


def test_what_left_the_chain_may_come_again_though_the_mempool_was_full() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, [*START_BLOCKS, LEFT]))
    net.kernel.run(until=10.0)
    relay = relay_of(node)
    room, relay.transactions.mempool._max_bytes = relay.transactions.mempool._max_bytes, MAX_RELAYED_TX
    for raw in longer(2):
        submit(node, raw)
    net.kernel.run(until=60.0)
    assert not pool(node)
    relay.transactions.mempool._max_bytes = room
    assert relay.submit_transaction(MINED, net.kernel.now)[0] is Verdict.KNOWN, "it is in the new chain"
    assert relay.submit_transaction(LOST, net.kernel.now)[0] is Verdict.ACCEPTED


def test_what_the_oldest_block_of_a_long_branch_has_does_not_wait_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reentry, "KEPT_BLOCKS", 3)
    net = network()
    left = [LEFT, *chain_of(LEDGER, 5, seed=95, parent=[*START_BLOCKS, LEFT])]
    node = net.add(SETTINGS, archive=archive_of(LEDGER, [*START_BLOCKS, *left]))
    net.kernel.run(until=10.0)
    for raw in longer(7):
        submit(node, raw)
    net.kernel.run(until=60.0)
    assert pool(node) == {LOST.id}


def test_what_two_blocks_at_once_have_does_not_wait_again_for_a_reorganisation_before_them() -> None:
    """Nothing waits when they come, as the blocks that were left are still being read."""
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, [*START_BLOCKS, LEFT], read_s=1.0))
    net.kernel.run(until=10.0)
    branch = longer(3)
    with_lost = block_with([*START_BLOCKS, *branch], LOST)
    after = chain_of(LEDGER, 1, seed=94, parent=[*START_BLOCKS, *branch, with_lost])
    for raw in branch:
        submit(node, raw)
    assert relay_of(node).chain.add(with_lost[:80], START + 10**9) is None
    for raw in (*after, with_lost):  # as from two peers
        submit(node, raw)
    net.kernel.run(until=60.0)
    assert relay_of(node).blocks.tip == LEDGER.block_id(after[-1][:80])
    assert not pool(node)


def test_a_branch_without_all_its_blocks_brings_nothing_back() -> None:
    net = network()
    archive = archive_of(LEDGER, [*START_BLOCKS, LEFT, *longer(3)])
    del archive.blocks[LEDGER.block_id(LEFT[:80])]
    node = net.add(SETTINGS, archive=archive)
    net.kernel.run(until=10.0)
    assert not pool(node)


def test_whoever_was_away_hears_what_waits_though_others_dialled_and_something_waits_here() -> None:
    net = network()
    one, other = (net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(2))
    for node, transaction in ((one, OTHERS), (other, MINED)):
        node.apply(relay_of(node).submit_transaction(transaction, 0.0)[1])
    first = one.connect(other.address)
    net.kernel.run(until=60.0)
    assert pool(one) == pool(other) == {OTHERS.id, MINED.id}
    one.disconnect(first)
    third = net.add(SETTINGS, archive=archive_of(LEDGER))
    third.connect(one.address)
    net.kernel.run(until=120.0)
    one.apply(relay_of(one).submit_transaction(LOST, net.kernel.now)[1])
    net.kernel.run(until=200.0)
    assert LOST.id in pool(third)
    assert LOST.id not in pool(other)
    one.connect(other.address)  # ``other`` is dialled, and some transactions wait there
    net.kernel.run(until=260.0)
    assert LOST.id in pool(other)


def test_whoever_was_dialled_for_blocks_alone_dials_one_full_link_itself() -> None:
    """The wire does not say what a link is for: a node with such links only told everybody of its transactions in vain."""
    net = network()
    node, *others = (net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(4))
    for other in others:
        other.apply([Dial(node.address, purpose=Purpose.BLOCKS, face=Face.CLEARNET)])
    net.kernel.run(until=5.0)
    assert [peer.is_inbound for peer in node.peers] == [True] * 3
    node.assembly.book.add_seeds([other.address for other in others], True, Face.CLEARNET, net.kernel.now)
    node.turn()
    net.kernel.run(until=120.0)
    assert [peer.purpose for peer in node.peers if not peer.is_inbound] == [Purpose.FULL], (
        "on one machine one is enough"
    )
    node.apply(relay_of(node).submit_transaction(LOST, net.kernel.now)[1])
    net.kernel.run(until=180.0)
    assert [LOST.id in pool(other) for other in others].count(True) == 1


def test_peers_that_dialled_for_blocks_alone_are_not_all_that_is_asked() -> None:
    """They look like any other and answer nothing: whoever came back had asked three of them, and nobody else."""
    net = network()
    node, *others = (net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(5))
    for number, waiting in ((0, OTHERS), (-1, LOST)):  # something waits here already
        [node, *others][number].apply(relay_of([node, *others][number]).submit_transaction(waiting, 0.0)[1])
    for other in others[:3]:
        other.apply([Dial(node.address, purpose=Purpose.BLOCKS, face=Face.CLEARNET)])
    first, second = (net.add(SETTINGS, archive=archive_of(LEDGER)) for _ in range(2))
    first.connect(others[3].address)
    net.kernel.run(until=60.0)
    assert LOST.id in pool(first), "it has been told already"
    node.connect(others[3].address)
    second.connect(node.address)
    net.kernel.run(until=120.0)
    assert pool(node) == pool(second) == {OTHERS.id, LOST.id}
