"""Transactions between simulated nodes: who is told when, who is asked, what nobody learns."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from statistics import mean

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
from obscura.ledger.mining import block_template
from obscura.ledger.port import Transaction
from obscura.node.face import Purpose
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.messages.blocks import GetHeaders, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, Tx
from small_chains import START, mined

LEDGER = easy_ledger()
MANY = transactions(400, 70)


def node_in(net: SimNetwork) -> SimNode:
    return net.add(SETTINGS, archive=archive_of(LEDGER))


def give(node: SimNode, *waiting: Transaction) -> None:
    for transaction in waiting:
        node.apply(relay_of(node).submit_transaction(transaction, node.network.kernel.now)[1])


def pool(node: SimNode) -> set[bytes]:
    return {entry.transaction.id for entry in relay_of(node).transactions.mempool}


def items(*chosen: Transaction) -> tuple[InventoryItem, ...]:
    return tuple(InventoryItem(InventoryKind.TX, transaction.id) for transaction in chosen)


def player(net: SimNetwork, node: SimNode, **more: object) -> tuple[SimNode, Scripted]:
    """A played peer with a link to the node."""
    answers = {
        GetHeaders: nothing,
        MempoolRequest: nothing,
        GetData: nothing,
        Inv: nothing,
        NotFound: nothing,
        Tx: nothing,
    }
    part = Scripted({**answers, **more.get("answers", {})})  # type: ignore[dict-item]
    played = net.add(SETTINGS, parts=[part])
    played.connect(node.address)
    net.kernel.run(until=net.kernel.now + 1.0)
    return played, part


def mine(node: SimNode, *inside: Transaction) -> None:
    chain = relay_of(node).chain
    raw = block_template(LEDGER, chain.branch(chain.tip), inside, START + 10, Random(1))
    submit(node, mined(raw[:80]) + raw[80:])


def say(played: SimNode, message: object) -> None:
    played.send(played.peers[0].link, message)  # type: ignore[arg-type]


def asked(part: Scripted) -> list[bytes]:
    return [item.hash for message in part.of(GetData) for item in message.items]  # type: ignore[attr-defined]


def test_a_transaction_reaches_every_node_of_a_line() -> None:
    net = network()
    nodes = [node_in(net) for _ in range(5)]
    for one, other in pairwise(nodes):
        one.connect(other.address)
    net.kernel.run(until=2.0)
    give(nodes[0], MANY[0])
    give(nodes[4], MANY[1])
    net.kernel.run(until=90.0)
    assert all(pool(node) == {MANY[0].id, MANY[1].id} for node in nodes)
    assert [notice["own"] for notice in told(nodes[0], "transaction")] == [True, False]
    assert not any(told(node, "penalty") for node in nodes)


def test_a_mined_transaction_leaves_every_mempool() -> None:
    net = network()
    one, other = node_in(net), node_in(net)
    one.connect(other.address)
    net.kernel.run(until=1.0)
    give(one, *MANY[:3])
    net.kernel.run(until=40.0)
    assert len(pool(other)) == 3
    raw = chain_of(LEDGER, 1, fill=0)[0]
    submit(one, raw)
    net.kernel.run(until=41.0)
    assert len(pool(one)) == len(pool(other)) == 3
    mine(one, *MANY[:2])
    net.kernel.run(until=44.0)
    assert pool(one) == pool(other) == {MANY[2].id}


def test_what_was_asked_for_and_is_mined_before_it_comes_does_not_wait() -> None:
    net = network()
    node = node_in(net)
    played, part = player(net, node)
    say(played, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert asked(part) == [MANY[0].id]
    mine(node, MANY[0])
    say(played, Tx(MANY[0].raw))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert not pool(node)
    assert told(node, "penalty") == []


def test_announcements_keep_random_times_by_direction() -> None:
    outbound, inbound, together = [], [], []
    for seed in range(60):
        net = network(seed)
        node = node_in(net)
        listener = Scripted({Inv: nothing, GetHeaders: nothing, MempoolRequest: nothing})
        out = net.add(SETTINGS, parts=[listener])
        node.connect(out.address)
        ears = [Scripted({Inv: nothing, GetHeaders: nothing, MempoolRequest: nothing}) for _ in range(2)]
        for ear in ears:
            net.add(SETTINGS, parts=[ear]).connect(node.address)
        net.kernel.run(until=1.0)
        give(node, MANY[0])
        times: dict[int, float] = {}
        while len(times) < 3 and net.kernel.now < 120.0:
            net.kernel.run(until=net.kernel.now + 0.25)
            for number, part in enumerate((listener, *ears)):
                if part.of(Inv):
                    times.setdefault(number, net.kernel.now - 1.0)
        outbound.append(times[0])
        inbound.append(times[1])
        together.append(abs(times[1] - times[2]) <= 0.5)
    assert 1.2 < mean(outbound) < 3.0, "mean 2 s"
    assert 3.3 < mean(inbound) < 7.2, "mean 5 s"
    assert all(together), "inbound links hear of it together: more of them learn nothing more"


def test_only_whom_it_was_announced_to_gets_it() -> None:
    net = network()
    node = node_in(net)
    played, part = player(net, node)
    give(node, MANY[0])
    say(played, GetData(items(MANY[0])))
    while not part.of(NotFound) and net.kernel.now < 20:  # a burst may hold it for a while
        net.kernel.run(until=net.kernel.now + 0.1)
    assert not part.of(Tx)
    assert part.of(NotFound) == [NotFound(items(MANY[0]))], "as if it did not exist"
    while not part.of(Inv):
        net.kernel.run(until=net.kernel.now + 0.5)
    say(played, GetData(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 0.5)
    assert part.of(Tx) == [Tx(MANY[0].raw)]


def test_the_mempool_is_told_at_the_usual_times_and_rarely() -> None:
    net = network()
    node = node_in(net)
    give(node, *MANY[:5])
    first, told = player(net, node)
    net.kernel.run(until=29.0)
    assert len(told.of(Inv)) == 1, "what nobody has fetched yet is told to the first that comes"
    say(first, GetData(items(*MANY[:5])))
    played, part = player(net, node)
    net.kernel.run(until=30.0)
    assert not part.of(Inv), "who comes later hears of nothing unasked"
    for until in (60.0, 90.0, 700.0):
        say(played, MempoolRequest())
        net.kernel.run(until=until)
    (answer,) = part.of(Inv)
    assert {item.hash for item in answer.items} == {t.id for t in MANY[:5]}  # type: ignore[attr-defined]


def test_no_more_than_100_are_asked_of_one_peer_at_once() -> None:
    net = network()
    node = node_in(net)
    played, part = player(net, node)
    say(played, Inv(items(*MANY)))
    net.kernel.run(until=net.kernel.now + 10.0)
    assert len(asked(part)) == limits.TX_IN_FLIGHT
    for transaction in MANY[:100]:
        say(played, Tx(transaction.raw))
    net.kernel.run(until=net.kernel.now + 10.0)
    assert len(asked(part)) == 2 * limits.TX_IN_FLIGHT
    assert len(set(asked(part))) == 2 * limits.TX_IN_FLIGHT
    assert len(pool(node)) == 100


def test_who_no_longer_has_what_was_asked_for_is_asked_for_the_rest() -> None:
    net = network()
    node = node_in(net)
    played, part = player(net, node)
    say(played, Inv(items(*MANY[:250])))
    net.kernel.run(until=net.kernel.now + 1.0)
    for transaction in MANY[:40]:
        say(played, Tx(transaction.raw))
    say(played, NotFound(items(*MANY[40:100])))  # mined since
    net.kernel.run(until=net.kernel.now + 1.0)
    assert asked(part) == [transaction.id for transaction in MANY[:200]]


def test_a_second_source_is_asked_after_a_minute() -> None:
    net = network()
    node = node_in(net)
    slow, slow_part = player(net, node)
    other, other_part = player(net, node)
    say(slow, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 1.0)
    say(other, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 50.0)
    assert (len(asked(slow_part)), len(asked(other_part))) == (1, 0)
    net.kernel.run(until=net.kernel.now + 15.0)
    assert (len(asked(slow_part)), len(asked(other_part))) == (1, 1)
    say(other, Tx(MANY[0].raw))
    say(slow, Tx(MANY[0].raw))  # late, but it was asked for
    net.kernel.run(until=net.kernel.now + 1.0)
    assert pool(node) == {MANY[0].id}
    assert not told(node, "penalty")


def test_a_slow_peer_is_not_asked_for_more_than_it_answers() -> None:
    net = network()
    node = node_in(net)
    slow, part = player(net, node)
    for at in range(0, 300, 100):
        say(slow, Inv(items(*MANY[at : at + 100])))
    net.kernel.run(until=net.kernel.now + 4 * limits.TX_SECOND_SOURCE_S)
    assert asked(part) == [transaction.id for transaction in MANY[:100]]
    for transaction in MANY[:50]:  # blocks were before them
        say(slow, Tx(transaction.raw))
    say(slow, NotFound(items(*MANY[50:100])))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert asked(part) == [transaction.id for transaction in MANY[:200]]
    assert len(pool(node)) == 50
    assert not told(node, "penalty")


def test_what_is_told_again_before_a_late_answer_may_be_answered_twice() -> None:
    """It left the other side's pool in between, with a block, and came back when that block was left behind."""
    net = network()
    node = node_in(net)
    played, part = player(net, node)
    for _ in range(2):
        say(played, Inv(items(MANY[0])))
        net.kernel.run(until=net.kernel.now + 70.0)
    assert len(asked(part)) == 2
    for _ in range(2):
        say(played, Tx(MANY[0].raw))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert told(node, "penalty") == []
    say(played, Tx(MANY[0].raw))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert len(told(node, "penalty")) == 1


@pytest.mark.parametrize("how", ["notfound", "gone"])
def test_another_source_is_asked_at_once_where_one_fails(how: str) -> None:
    net = network()
    node = node_in(net)
    one, _ = player(net, node)
    other, other_part = player(net, node)
    say(one, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 1.0)
    say(other, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 1.0)
    if how == "gone":
        one.disconnect(one.peers[0].link)
    else:
        say(one, NotFound(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert asked(other_part) == [MANY[0].id]


def test_who_dials_in_numbers_and_gives_nothing_does_not_keep_a_transaction_of_a_dialled_peer_away() -> None:
    net = network()
    node = node_in(net)
    dialled = Scripted({GetData: lambda peer, message: [Tx(MANY[0].raw)], MempoolRequest: nothing, GetHeaders: nothing})
    chosen = net.add(SETTINGS, parts=[dialled])
    node.connect(chosen.address)
    strangers = [player(net, node)[0] for _ in range(limits.TX_SOURCES + 2)]
    for stranger in strangers:
        say(stranger, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + 1.0)
    say(chosen, Inv(items(MANY[0])))
    net.kernel.run(until=net.kernel.now + limits.TX_SECOND_SOURCE_S + 1.0)
    assert pool(node) == {MANY[0].id}


def test_a_peer_whose_share_is_full_does_not_keep_a_transaction_of_others_away() -> None:
    net = network()
    node = node_in(net)
    full, _ = player(net, node)
    other, other_part = player(net, node)
    mempool = relay_of(node).transactions.mempool
    mempool._max_bytes = 4 * limits.MEMPOOL_SHARE * (len(MANY[0].raw) + limits.MEMPOOL_ENTRY_BYTES)
    say(full, Inv(items(*MANY[:5])))
    net.kernel.run(until=net.kernel.now + 1.0)
    say(other, Inv(items(MANY[4])))
    net.kernel.run(until=net.kernel.now + 1.0)
    for transaction in MANY[:5]:
        say(full, Tx(transaction.raw))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert pool(node) == {transaction.id for transaction in MANY[:4]}
    assert asked(other_part) == [MANY[4].id]
    say(other, Tx(MANY[4].raw))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert pool(node) == {transaction.id for transaction in MANY[:5]}
    assert not told(node, "penalty")


def test_faults_of_transactions_cost_points() -> None:
    coinbase = LEDGER.decode_block(chain_of(LEDGER, 1)[0]).transactions[0]
    cases = {
        "unasked": (None, MANY[0].raw, limits.UNREQUESTED_POINTS),
        "no transaction": (None, b"\x01\x02\x03", limits.MALFORMED_POINTS),
        "a coinbase": (coinbase.id, coinbase.raw, limits.BAD_TX_POINTS),
    }
    for announced, raw, points in cases.values():
        net = network()
        node = node_in(net)
        played, _ = player(net, node)
        if announced is not None:
            say(played, Inv((InventoryItem(InventoryKind.TX, announced),)))
            net.kernel.run(until=net.kernel.now + 1.0)
        say(played, Tx(raw))
        net.kernel.run(until=net.kernel.now + 1.0)
        assert [notice["points"] for notice in told(node, "penalty")] == [points]
        assert not pool(node)


def test_what_was_refused_is_not_asked_for_again() -> None:
    coinbase = LEDGER.decode_block(chain_of(LEDGER, 1)[0]).transactions[0]
    net = network()
    node = node_in(net)
    played, part = player(net, node)
    for _ in range(3):
        say(played, Inv((InventoryItem(InventoryKind.TX, coinbase.id),)))
        net.kernel.run(until=net.kernel.now + 1.0)
        if len(part.of(GetData)) == 1 and not told(node, "penalty"):
            say(played, Tx(coinbase.raw))
    net.kernel.run(until=net.kernel.now + 1.0)
    assert len(asked(part)) == 1


def test_waiting_transactions_survive_a_restart() -> None:
    net = network()
    node = node_in(net)
    other = node_in(net)
    other.connect(node.address)
    net.kernel.run(until=1.0)
    give(other, *MANY[:3])
    net.kernel.run(until=60.0)
    give(node, MANY[3])  # one's own is written at once
    net.kernel.run(until=60.1)
    node.crash()
    assert node.archive is not None
    again = net.add(SETTINGS, archive=node.archive)
    assert pool(again) == {t.id for t in MANY[:4]}
    own = {entry.transaction.id for entry in relay_of(again).transactions.mempool if entry.own}
    assert own == {MANY[3].id}


def test_what_left_the_mempool_does_not_come_back_after_a_restart() -> None:
    net = network()
    node = node_in(net)
    give(node, MANY[0])
    net.kernel.run(until=limits.MEMPOOL_S + 1_000.0)
    assert not pool(node)
    assert node.archive is not None
    assert not node.archive.transactions


def test_a_clock_that_was_years_behind_and_is_set_right_ends_nothing_that_waits() -> None:
    net = network()
    node = node_in(net)
    node.clock_error_s = -5 * 365 * 86_400.0
    give(node, MANY[0])
    net.kernel.run(until=100.0)
    node.clock_error_s = 0.0
    net.kernel.run(until=2_000.0)
    assert pool(node) == {MANY[0].id}
    node.crash()
    again = net.add(SETTINGS, archive=node.archive)
    net.kernel.run(until=limits.MEMPOOL_S / 2)
    assert pool(again) == {MANY[0].id}, "the disk has the right time of it too"
    net.kernel.run(until=limits.MEMPOOL_S + 3_000.0)
    assert not pool(again)


def test_a_link_for_blocks_carries_no_transactions() -> None:
    blocks = chain_of(LEDGER, 3)
    net = network()
    node = node_in(net)
    peer = net.add(SETTINGS, archive=archive_of(LEDGER, blocks))
    node.assembly.engine.dial(peer.address, net.kernel.now, purpose=Purpose.BLOCKS)
    node.turn()
    net.kernel.run(until=3.0)
    assert relay_of(node).blocks.tip_height == 3
    give(node, MANY[0])
    give(peer, MANY[1])
    net.kernel.run(until=60.0)
    assert (pool(node), pool(peer)) == ({MANY[0].id}, {MANY[1].id})
    assert not told(node, "penalty")
    assert not told(peer, "penalty")


def test_a_feeler_takes_no_part() -> None:
    net = network()
    node = node_in(net)
    peer = net.add(SETTINGS, archive=archive_of(LEDGER, chain_of(LEDGER, 3)))
    node.assembly.engine.dial(peer.address, net.kernel.now, purpose=Purpose.FEELER)
    node.turn()
    net.kernel.run(until=3.0)
    assert relay_of(node).chain.best_height == 0
