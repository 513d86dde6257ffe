"""Synchronisation in the simulator: honest peers, and what a peer can try to keep a node from the chain."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from random import Random

import pytest

from chain_nodes import (
    SETTINGS,
    Answer,
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
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header
from obscura.ledger.merkle import merkle_root
from obscura.ledger.mining import block_template
from obscura.ledger.port import Transaction
from obscura.node import download
from obscura.node import headers as headers_module
from obscura.node.peer import Peer
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Block, GetBlocks, GetHeaders, Headers, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, NotFound
from small_chains import START, mined, unmined

LEDGER = easy_ledger()
BLOCKS = chain_of(LEDGER, 300)
IDS = [LEDGER.block_id(raw[:80]) for raw in BLOCKS]
BODIES = dict(zip(IDS, BLOCKS, strict=True))
TIP = IDS[-1]


def honest(net: SimNetwork, blocks: list[bytes] = BLOCKS, ledger: BitcoinLedger = LEDGER) -> SimNode:
    return net.add(SETTINGS, archive=archive_of(ledger, blocks, read_s=0.002))


def fresh(net: SimNetwork, ledger: BitcoinLedger = LEDGER) -> SimNode:
    return net.add(SETTINGS, archive=archive_of(ledger, write_s=0.005, read_s=0.002))


def run_until_tip(net: SimNetwork, node: SimNode, tip: bytes, until: float = 600.0) -> float:
    """Virtual seconds that it took."""
    while relay_of(node).blocks.tip != tip:
        assert net.kernel.now < until, relay_of(node).status()
        net.kernel.run(until=net.kernel.now + 0.25)
    return net.kernel.now


def liar(net: SimNetwork, part: Scripted) -> SimNode:
    return net.add(SETTINGS, parts=[part])


def shows(headers: list[bytes]) -> Answer:
    """An answer to getheaders: everything after the first known entry of the locator."""
    ids = [LEDGER.block_id(header) for header in headers]

    def answer(peer: object, message: GetHeaders) -> list[Headers]:
        start = next((ids.index(entry) + 1 for entry in message.locator if entry in ids), 0)
        return [Headers(tuple(headers[start : start + limits.MAX_HEADERS]))]

    return answer


HONEST_HEADERS = [raw[:80] for raw in BLOCKS]
COUNTED = chain_of(LEDGER, 2_010, seed=3)  # more than one message of headers


def test_blocks_come_from_several_peers_and_survive_on_the_disk() -> None:
    net = network()
    peers = [honest(net) for _ in range(3)]
    node = fresh(net)
    for peer in peers:
        node.connect(peer.address)
    run_until_tip(net, node, TIP)
    assert node.archive is not None
    assert {block_id for block_id in node.archive.blocks if block_id != LEDGER.block_id(LEDGER.genesis)} == set(IDS)
    assert node.archive.tip == (TIP, 300)
    served = [peer.assembly.engine.describe(net.kernel.now)[0]["real_bytes_sent"] for peer in peers]
    assert sorted(served)[1] > sum(map(len, BLOCKS)) // 10, served  # so small that two of them suffice


def test_a_tip_counts_only_once_it_is_on_the_disk() -> None:
    net = network()
    node = net.add(SETTINGS, archive=archive_of(LEDGER, write_s=3.0))
    watcher = fresh(net)
    watcher.connect(node.address)
    net.kernel.run(until=1.0)
    submit(node, BLOCKS[0])
    net.kernel.run(until=3.9)
    assert relay_of(node).best_block()[1] == 0
    assert relay_of(node).status()["height"] == 0
    assert not told(node, "tip")
    assert relay_of(watcher).chain.best_height == 0
    net.kernel.run(until=5.0)
    assert relay_of(node).best_block() == (IDS[0], 1)
    assert told(node, "tip")[-1]["height"] == 1
    assert relay_of(watcher).chain.tip == IDS[0]


def test_a_peer_that_stops_sending_blocks_is_left_for_others() -> None:
    net = network()
    silent = Scripted({GetHeaders: shows(HONEST_HEADERS), GetData: nothing})
    node = fresh(net)
    stalling = liar(net, silent)
    stalling.connect(node.address)
    net.kernel.run(until=2.0)
    assert relay_of(node).download.in_flight == limits.BLOCKS_IN_FLIGHT
    honest(net).connect(node.address)
    took = run_until_tip(net, node, TIP) - 2.0
    assert took < 30.0
    net.kernel.run(until=net.kernel.now + 30.0)
    assert len(node.peers) == 1, "the peer that gave nothing is gone"


def altered(raw: bytes) -> bytes:
    """A block whose body is not what its header says."""
    block = LEDGER.decode_block(raw)
    return LEDGER.encode_block(raw[:80], [t.raw for t in block.transactions] + [transactions(1, 77)[0].raw])


WRONG_BODIES = {
    "another body": altered,
    "no block at all": lambda raw: raw[:80] + b"\x01\x02\x03",
    "cut short": lambda raw: raw[:-1],
}


@pytest.mark.parametrize("how", WRONG_BODIES)
def test_an_altered_body_costs_its_sender_and_not_the_header(how: str) -> None:
    net = network()
    wrong = {block_id: WRONG_BODIES[how](raw) for block_id, raw in BODIES.items()}

    def give(peer: object, message: GetData) -> list[Block]:
        return [Block(wrong[item.hash]) for item in message.items]

    node = fresh(net)
    liar(net, Scripted({GetHeaders: shows(HONEST_HEADERS), GetData: give})).connect(node.address)
    net.kernel.run(until=3.0)
    assert not node.peers
    assert "a block" in str(told(node, "penalty")[0]["why"])
    assert not any(relay_of(node).chain.is_bad(block_id) for block_id in IDS)
    node.connect(honest(net).address)
    run_until_tip(net, node, TIP)


def bad_block(parent_blocks: list[bytes]) -> bytes:
    """A block with all the work that breaks a rule which its header vouches for: two coinbases."""
    raw = chain_of(LEDGER, 1, seed=9, parent=parent_blocks)[0]
    coinbase = LEDGER.decode_block(raw).transactions[0].raw
    other = LEDGER.decode_block(chain_of(LEDGER, 1, seed=10, parent=parent_blocks)[0]).transactions[0].raw
    root, _ = merkle_root([LEDGER.decode_transaction(t).id for t in (coinbase, other)])
    header = Header.decode(raw[:80])
    changed = Header(header.version, header.parent, root, header.time, header.bits, 0)
    return LEDGER.encode_block(mined(changed.encode()), [coinbase, other])


def test_a_block_that_breaks_its_own_rules_is_refused_with_all_that_follows() -> None:
    net = network()
    bad = bad_block(BLOCKS[:150])
    branch = [*BLOCKS[:150], bad, *chain_of(LEDGER, 200, seed=11, parent=[*BLOCKS[:150], bad])]
    bodies = {LEDGER.block_id(raw[:80]): raw for raw in branch}

    def give(peer: object, message: GetData) -> list[Block]:
        return [Block(bodies[item.hash]) for item in message.items]

    node = fresh(net)
    liar(net, Scripted({GetHeaders: shows([raw[:80] for raw in branch]), GetData: give})).connect(node.address)
    net.kernel.run(until=20.0)
    chain = relay_of(node).chain
    assert not node.peers
    assert chain.is_bad(LEDGER.block_id(bad[:80]))
    assert chain.is_bad(LEDGER.block_id(branch[-1][:80]))
    assert chain.tip_height == 150
    node.connect(honest(net).address)
    run_until_tip(net, node, TIP)
    assert node.archive is not None
    assert LEDGER.block_id(bad[:80]) in node.archive.refused


def test_more_headers_without_blocks_do_not_keep_an_honest_chain_away() -> None:
    net = network()
    longer = [raw[:80] for raw in chain_of(LEDGER, 400, seed=5)]
    node = fresh(net)
    liar(net, Scripted({GetHeaders: shows(longer), GetData: nothing})).connect(node.address)
    net.kernel.run(until=1.0)
    assert relay_of(node).chain.best_height == 400
    peer = honest(net)
    node.connect(peer.address)
    run_until_tip(net, node, TIP)
    other = fresh(net)
    other.connect(node.address)
    run_until_tip(net, other, TIP)  # and the node goes on serving what it has


def test_headers_without_work_end_the_link() -> None:
    net = network()
    worthless = [*HONEST_HEADERS[:10], unmined(HONEST_HEADERS[10])]
    node = fresh(net)
    liar(net, Scripted({GetHeaders: shows(worthless), GetData: nothing})).connect(node.address)
    net.kernel.run(until=2.0)
    assert not node.peers
    assert "does not meet the target" in str(told(node, "penalty")[0]["why"])
    assert relay_of(node).chain.best_height == 10, "what came before it stays"


def test_endless_headers_are_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers_module, "HEADERS_LEAD", 3_000)
    net = network()
    made: list[bytes] = []

    def endless(peer: object, message: GetHeaders) -> list[Headers]:
        parent = made[-1] if made else LEDGER.genesis
        more = []
        for number in range(limits.MAX_HEADERS):
            header = Header(
                0x20000000, LEDGER.block_id(parent), bytes(32), START + 60 + len(made) + number, 0x207FFFFF, 0
            )
            parent = mined(header.encode())
            more.append(parent)
        made.extend(more)
        return [Headers(tuple(more))]

    part = Scripted({GetHeaders: endless, GetData: nothing})
    node = fresh(net)
    liar(net, part).connect(node.address)
    net.kernel.run(until=5.0)
    assert len(part.of(GetHeaders)) == 2
    assert len(relay_of(node).chain) == 4_001
    node.connect(honest(net).address)
    run_until_tip(net, node, TIP)


def test_too_little_work_is_counted_before_it_is_kept() -> None:
    ledger = easy_ledger()
    ledger.minimum_work = 2 * 6_000
    net = network()
    weak = []
    parent = ledger.genesis
    for number in range(5_000):
        header = Header(0x20000000, ledger.block_id(parent), bytes(32), START + 60 + number, 0x207FFFFF, 0)
        parent = mined(header.encode())
        weak.append(parent)
    node = fresh(net, ledger)
    part = Scripted({GetHeaders: shows(weak), GetData: nothing})
    liar(net, part).connect(node.address)
    net.kernel.run(until=5.0)
    assert len(relay_of(node).chain) == 1, "nothing was kept of it"
    assert len(part.of(GetHeaders)) == 3, "though all of it was looked at"
    assert len(node.peers) == 1, "a short chain is no fault"


def weak_branch(count: int) -> list[bytes]:
    """Headers on the genesis, with their own work and far from enough of it."""
    branch = [LEDGER.genesis]
    for number in range(count):
        header = Header(0x20000000, LEDGER.block_id(branch[-1]), bytes(32), START + 60 + number, 0x207FFFFF, 0)
        branch.append(mined(header.encode()))
    return branch[1:]


WEAK = weak_branch(50)
CLAIMS = Header(0x20000000, LEDGER.block_id(WEAK[-1]), bytes(32), START + 9_000, 0x1700FFFF, 0).encode()
SMUGGLED = {
    "one that claims work without having it": ([*WEAK, CLAIMS], "difficulty"),
    "one that is known": ([*WEAK, HONEST_HEADERS[0]], "follow each other"),
    "behind one that is known": ([HONEST_HEADERS[-1], *WEAK], "follow each other"),
}


@pytest.mark.parametrize("how", SMUGGLED)
def test_headers_with_too_little_work_are_not_brought_in_by_another_one(how: str) -> None:
    headers, why = SMUGGLED[how]
    net = network()
    node = honest(net)
    played = liar(net, Scripted({GetHeaders: nothing, Inv: nothing}))
    played.connect(node.address)
    net.kernel.run(until=1.0)
    played.send(played.peers[0].link, Headers(tuple(headers)))
    net.kernel.run(until=2.0)
    assert len(relay_of(node).chain) == 301, "nothing was kept of it"
    assert [notice["points"] for notice in told(node, "penalty")] == [limits.BAD_BLOCK_POINTS]
    assert why in str(told(node, "penalty")[0]["why"])


def test_a_heavier_branch_from_far_below_is_taken_at_once_if_one_message_has_it() -> None:
    net = network()
    branch = chain_of(LEDGER, 310, seed=5)
    node = honest(net)
    node.connect(honest(net, branch).address)
    run_until_tip(net, node, LEDGER.block_id(branch[-1][:80]))
    assert not told(node, "penalty")


def test_a_chain_with_enough_work_passes_the_count() -> None:
    ledger = easy_ledger()
    ledger.minimum_work = 2 * 2_005
    net = network()
    node = fresh(net, ledger)
    node.connect(honest(net, COUNTED, ledger).address)
    run_until_tip(net, node, ledger.block_id(COUNTED[-1][:80]))


@pytest.mark.parametrize("at", [0.8, 1.4, 2.0, 2.6, 3.2])
def test_a_block_that_is_found_while_work_is_counted_is_not_held_against_who_tells_of_it(at: float) -> None:
    ledger = easy_ledger()
    ledger.minimum_work = 2 * 2_005
    net = network(latency=0.2)
    peer, node = honest(net, COUNTED[:-1], ledger), fresh(net, ledger)
    node.connect(peer.address)
    net.kernel.run(until=at)
    submit(peer, COUNTED[-1])
    run_until_tip(net, node, ledger.block_id(COUNTED[-1][:80]), 30.0)
    assert not told(node, "penalty")


def headers_on(parent: bytes, height: int, count: int, salt: int = 0) -> list[bytes]:
    made = []
    for number in range(height, height + count):
        header = Header(0x20000000, LEDGER.block_id(parent), bytes([salt]) * 32, START + 60 + number, 0x207FFFFF, 0)
        parent = mined(header.encode())
        made.append(parent)
    return made


@pytest.mark.parametrize(("after", "fork"), [(1, 1_990), (2, 1_990), (3, 1_990), (4, 1_990), (2, 3_995), (5, 3_995)])
def test_a_reorganisation_while_work_is_counted_is_counted_anew(after: int, fork: int) -> None:
    """Between two messages the peer's chain became another one: it goes on from where that forked off."""
    ledger = easy_ledger()
    ledger.minimum_work = 2 * 4_400
    old = headers_on(ledger.genesis, 0, 4_500)
    new = [*old[:fork], *headers_on(old[fork - 1], fork, 4_600 - fork, salt=1)]
    answers = 0

    def shows_two(peer: Peer, message: GetHeaders) -> Iterable[Message] | None:
        nonlocal answers
        answers += 1
        return shows(old if answers <= after else new)(peer, message)

    net = network()
    node = fresh(net, ledger)
    part = Scripted({GetHeaders: shows_two, GetData: nothing})
    liar(net, part).connect(node.address)
    net.kernel.run(until=9.0)
    assert len(node.peers) == 1
    assert relay_of(node).chain.best == ledger.block_id(new[-1])
    assert not told(node, "penalty")


def test_what_does_not_go_on_with_the_count_again_and_again_is_a_fault() -> None:
    ledger = easy_ledger()
    ledger.minimum_work = 2 * 6_000
    shown = [raw[:80] for raw in COUNTED]

    def repeats(peer: object, message: GetHeaders) -> list[Headers]:
        return [Headers(tuple(shown[: limits.MAX_HEADERS]))] * (1 if len(message.locator) == 1 else 16)

    net = network()
    node = fresh(net, ledger)
    liar(net, Scripted({GetHeaders: repeats, GetData: nothing})).connect(node.address)
    net.kernel.run(until=5.0)
    assert {notice["points"] for notice in told(node, "penalty")} == {limits.UNCONNECTING_POINTS}
    assert len(relay_of(node).chain) == 1
    net.kernel.run(until=5.0 + limits.HEADERS_S)
    assert not node.peers, "the answer never came"


def lacking(net: SimNetwork, until: float) -> tuple[SimNode, Scripted]:
    """A peer that shows all headers, and has no block before some time."""

    def give(peer: Peer, message: GetData) -> list[Message]:
        if net.kernel.now < until:
            return [NotFound(message.items)]
        return [Block(BODIES[item.hash]) for item in message.items]

    part = Scripted({GetHeaders: shows(HONEST_HEADERS), GetData: give})
    return liar(net, part), part


def test_peers_that_pruned_the_blocks_are_asked_for_few() -> None:
    """Each was asked for all, and each answer had the window looked through for each peer: an hour of the processor's time."""
    net = network()
    node = fresh(net)
    parts = []
    for _ in range(10):
        pruned, part = lacking(net, inf)
        parts.append(part)
        pruned.connect(node.address)
    net.kernel.run(until=1.0)
    node.connect(honest(net).address)
    run_until_tip(net, node, TIP, until=20.0)
    asked = [sum(len(message.items) for message in part.of(GetData)) for part in parts]  # type: ignore[attr-defined]
    assert max(asked) <= 40
    assert len(node.peers) == 11
    assert not told(node, "penalty")


def test_the_only_peer_is_asked_again_for_what_it_lacked_for_a_while() -> None:
    """Its disk failed, say, and it got the block anew."""
    net = network()
    node = fresh(net)
    peer, part = lacking(net, 60.0)
    peer.connect(node.address)
    run_until_tip(net, node, TIP, until=60.0 + 2 * limits.BLOCK_REST_S)
    assert len(node.peers) == 1
    net.kernel.run(until=1_000.0)
    count = len(part.of(GetData))
    net.kernel.run(until=3_000.0)
    assert len(part.of(GetData)) == count


def test_a_peer_without_the_block_is_not_asked_again_and_another_one_is() -> None:
    net = network()

    def lacks(peer: object, message: GetData) -> list[NotFound]:
        return [NotFound(message.items)]

    node = fresh(net)
    part = Scripted({GetHeaders: shows(HONEST_HEADERS), GetData: lacks})
    liar(net, part).connect(node.address)
    net.kernel.run(until=3.0)
    node.connect(honest(net).address)
    run_until_tip(net, node, TIP)
    asked = [item.hash for message in part.of(GetData) for item in message.items]  # type: ignore[attr-defined]
    assert len(asked) == len(set(asked))
    assert len(node.peers) == 2, "not to have a block is no fault"


def test_an_unrequested_block_is_a_fault() -> None:
    net = network()
    node = fresh(net)
    part = Scripted({GetHeaders: nothing}, greet=[Block(BLOCKS[0])])
    liar(net, part).connect(node.address)
    net.kernel.run(until=2.0)
    assert told(node, "penalty")[0]["points"] == limits.UNREQUESTED_POINTS
    assert relay_of(node).chain.tip_height == 0


def test_headers_that_connect_to_nothing_are_tolerated_for_a_while() -> None:
    net = network()
    node = fresh(net)
    lost = Headers((HONEST_HEADERS[200],))
    part = Scripted({GetHeaders: lambda peer, message: [lost]}, greet=[lost])
    liar(net, part).connect(node.address)
    net.kernel.run(until=60.0)
    assert {notice["points"] for notice in told(node, "penalty")} == {limits.UNCONNECTING_POINTS}
    assert not node.peers, "at last it is ended"


def test_the_older_way_works_where_headers_are_not_answered() -> None:
    net = network()
    ids = [LEDGER.block_id(LEDGER.genesis), *IDS]

    def listed(peer: object, message: GetBlocks) -> list[Inv]:
        start = next(ids.index(entry) for entry in message.locator if entry in ids) + 1
        items = (InventoryItem(InventoryKind.BLOCK, block_id) for block_id in ids[start : start + 100])
        return [Inv(tuple(items))]

    def give(peer: object, message: GetData) -> list[Block]:
        return [Block(BODIES[item.hash]) for item in message.items]

    part = Scripted({GetHeaders: nothing, GetBlocks: listed, GetData: give})
    node = fresh(net)
    old = liar(net, part)
    old.connect(node.address)
    net.kernel.run(until=60.0)
    assert relay_of(node).chain.tip_height == 100
    announced = Inv((InventoryItem(InventoryKind.BLOCK, IDS[-1]),))
    for _ in range(3):  # an announcement of something that does not connect makes the node ask for the list again
        old.send(old.peers[0].link, announced)
        net.kernel.run(until=net.kernel.now + 30.0)
    assert relay_of(node).chain.tip == TIP


def test_getblocks_is_answered_with_500_ids_at_most() -> None:
    blocks = chain_of(LEDGER, 600, seed=6)
    net = network()
    node = honest(net, blocks)
    ask = GetBlocks(1, (LEDGER.block_id(LEDGER.genesis),), bytes(32))
    part = Scripted({Inv: nothing, GetHeaders: nothing}, greet=[ask])
    liar(net, part).connect(node.address)
    net.kernel.run(until=2.0)
    (answer,) = part.of(Inv)
    assert [item.hash for item in answer.items] == [LEDGER.block_id(raw[:80]) for raw in blocks[:500]]  # type: ignore[attr-defined]


def test_a_crash_in_the_middle_loses_nothing_acknowledged() -> None:
    net = network()
    peer = honest(net)
    node = fresh(net)
    node.connect(peer.address)
    while relay_of(node).blocks.tip_height < 120:
        net.kernel.run(until=net.kernel.now + 0.02)
    acknowledged = relay_of(node).blocks.tip_height
    node.crash()
    assert node.archive is not None
    again = net.add(SETTINGS, archive=node.archive)
    assert acknowledged <= relay_of(again).blocks.tip_height < 300
    again.connect(peer.address)
    run_until_tip(net, again, TIP)


@pytest.mark.parametrize("depth", [1, 40, 299])
def test_the_heavier_branch_wins_at_any_depth(depth: int) -> None:
    net = network()
    common = BLOCKS[: 300 - depth]
    heavier = [*common, *chain_of(LEDGER, depth + 1, seed=8, parent=common)]
    one, other = honest(net), honest(net, heavier)
    one.connect(other.address)
    new_tip = LEDGER.block_id(heavier[-1][:80])
    run_until_tip(net, one, new_tip)
    net.kernel.run(until=net.kernel.now + 1.0)
    (seen,) = told(one, "reorganisation")
    assert (seen["fork_height"], seen["disconnected"], seen["connected"]) == (300 - depth, depth, depth + 1)
    assert relay_of(other).blocks.tip == new_tip


def test_a_branch_that_is_longer_than_the_window_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BLOCK_WINDOW", 20)
    net = network()
    heavier = [*BLOCKS[:10], *chain_of(LEDGER, 291, seed=8, parent=BLOCKS[:10])]
    one, other = honest(net), honest(net, heavier)
    one.connect(other.address)
    run_until_tip(net, one, LEDGER.block_id(heavier[-1][:80]))


def test_a_branch_of_many_messages_is_followed_below_what_the_peer_showed_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Headers, "most", classmethod(lambda cls, header_bytes: 3))
    net = network()
    one, other = honest(net, []), honest(net, BLOCKS[:12])
    one.connect(other.address)
    run_until_tip(net, one, LEDGER.block_id(BLOCKS[11][:80]))
    for raw in chain_of(LEDGER, 12, seed=8, parent=BLOCKS[:3]):
        submit(other, raw)
    run_until_tip(net, one, relay_of(other).chain.tip)
    assert relay_of(one).blocks.tip_height == 15


def test_a_branch_of_many_messages_that_is_known_in_part_is_followed_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Headers, "most", classmethod(lambda cls, header_bytes: 3))
    monkeypatch.setattr(limits, "MAX_HEADERS", 3)
    net = network()
    branch = [raw[:80] for raw in (*BLOCKS[:3], *chain_of(LEDGER, 12, seed=8, parent=BLOCKS[:3]))]
    part = Scripted({GetHeaders: shows(branch[:9]), GetData: nothing})
    node = honest(net, BLOCKS[:12])
    player = liar(net, part)
    player.connect(node.address)
    net.kernel.run(until=2.0)
    assert LEDGER.block_id(branch[8]) in relay_of(node).chain
    part.answers[GetHeaders] = shows(branch)  # type: ignore[index]
    player.send(player.peers[0].link, Inv((InventoryItem(InventoryKind.BLOCK, LEDGER.block_id(branch[-1])),)))
    net.kernel.run(until=4.0)
    assert relay_of(node).chain.best == LEDGER.block_id(branch[-1])


def chain_with(parents: list[bytes], inside: list[Transaction]) -> list[bytes]:
    """One block with these transactions."""
    chain = Chain(LEDGER)
    for raw in parents:
        assert chain.add(raw[:80], START + 10**9) is None
    raw = block_template(LEDGER, chain.branch(chain.best), inside, START, Random(len(parents)))
    return [mined(raw[:80]) + raw[80:]]


def test_what_left_the_chain_waits_again_and_what_entered_it_does_not() -> None:
    net = network()
    both, lost, kept = transactions(3, 50), transactions(2, 51), transactions(1, 52)
    start = BLOCKS[:5]
    short = chain_with(start, both + lost)
    long = chain_with([*start, *chain_of(LEDGER, 1, seed=21, parent=start)], both + kept)
    one, other = (
        honest(net, [*start, *short]),
        honest(net, [*start, *chain_of(LEDGER, 1, seed=21, parent=start), *long]),
    )
    one.connect(other.address)
    run_until_tip(net, one, LEDGER.block_id(long[-1][:80]))
    net.kernel.run(until=net.kernel.now + 2.0)
    waiting = {entry.transaction.id for entry in relay_of(one).transactions.mempool}
    assert waiting == {t.id for t in lost}


@pytest.mark.parametrize("miner", [0, 1])
def test_partitions_join(miner: int) -> None:
    """Where node 1 mined, node 0 had the blocks of the branch that is left of the very peer which shows it the other one."""
    net = network()
    nodes = [fresh(net) for _ in range(4)]
    nodes[0].connect(nodes[1].address)
    nodes[2].connect(nodes[3].address)
    net.kernel.run(until=2.0)
    left, right = chain_of(LEDGER, 10, seed=31), chain_of(LEDGER, 12, seed=32)
    for raw in left:
        submit(nodes[miner], raw)
        net.kernel.run(until=net.kernel.now + 0.3)
    for raw in right:
        submit(nodes[3], raw)
        net.kernel.run(until=net.kernel.now + 0.3)
    assert {relay_of(node).blocks.tip_height for node in nodes[:2]} == {10}
    assert {relay_of(node).blocks.tip_height for node in nodes[2:]} == {12}
    nodes[1].connect(nodes[2].address)
    net.kernel.run(until=net.kernel.now + 10.0)
    assert {relay_of(node).blocks.tip for node in nodes} == {LEDGER.block_id(right[-1][:80])}


def test_old_blocks_off_the_chain_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obscura.node.blocks.KEPT_BLOCKS", 20)
    old = chain_of(LEDGER, 1, seed=41, parent=BLOCKS[:50])[0]
    young = chain_of(LEDGER, 1, seed=42, parent=BLOCKS[:290])[0]
    ids = [LEDGER.block_id(raw[:80]) for raw in (old, young)]
    net = network()
    node = honest(net, [*BLOCKS, old, young])
    ask = [
        GetData(tuple(InventoryItem(InventoryKind.BLOCK, block_id) for block_id in (*ids, IDS[50]))),
        GetHeaders(1, (), ids[0]),
        GetHeaders(1, (), ids[1]),
    ]
    part = Scripted(dict.fromkeys([Block, NotFound, Headers, GetHeaders], nothing), greet=ask)
    liar(net, part).connect(node.address)
    net.kernel.run(until=3.0)
    assert part.of(Block) == [Block(young), Block(BLOCKS[50])]
    assert part.of(NotFound) == [NotFound((InventoryItem(InventoryKind.BLOCK, ids[0]),))]
    assert part.of(Headers) == [Headers(()), Headers((young[:80],))]
