"""Routes of an epoch, and what a core does with stem transactions: relay, coin, loop, embargo, re-stem, limits."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.handshake.features import Feature, Flags, Privacy
from obscura.limits import STEM_BYTES, STEM_BYTES_PER_PEER, STEM_ENTRY_BYTES, STEM_TXS_PER_PEER
from obscura.node.broadcast import Policy
from obscura.node.effects import Penalise
from obscura.node.peer import Face
from obscura.node.stem import Coin, Routing, StemRoutes, StemTerms
from obscura.wire.messages.blocks import Inv, InventoryItem
from obscura.wire.messages.transactions import StemTx, Tx
from stem_bench import BLOCK_ONLY, FOREVER, Bench, raw

QUIET = StemTerms(q=0.0, epoch_s=FOREVER)
LOUD = StemTerms(q=1.0, epoch_s=FOREVER)


def routes(terms: StemTerms = QUIET, outbound: int = 8, inbound: int = 0, seed: int = 1) -> StemRoutes:
    made = StemRoutes(terms, random.Random(seed))
    for link in range(1, outbound + 1):
        made.open(link, inbound=False)
    for link in range(101, 101 + inbound):
        made.open(link, inbound=True)
    made.begin()
    return made


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 40))
def test_inbound_edges_are_dealt_evenly_and_stay_where_they_are(seed: int, outbound: int, inbound: int) -> None:
    made = routes(outbound=outbound, inbound=inbound, seed=seed)
    ways = {edge: made.way(edge) for edge in range(101, 101 + inbound)}
    taken = Counter(way.successor for way in ways.values() if way is not None)
    assert set(taken) <= set(made.successors)
    if outbound > 1:
        assert abs(taken[made.successors[0]] - taken[made.successors[1]]) <= 1
    assert all(made.way(edge) == way for edge, way in ways.items()), "the map is fixed for the epoch"
    assert made.way(None) == made.way(None)


def test_successors_and_coins_change_with_the_epoch_and_are_uniform() -> None:
    made = routes(StemTerms(q=0.3, epoch_s=FOREVER), inbound=4)
    pairs: Counter[frozenset[int]] = Counter()
    heads = 0
    for _ in range(4000):
        made.begin()
        pairs[frozenset(made.successors)] += 1
        heads += sum(made.diffuses(edge) for edge in range(101, 105))
    assert len(pairs) == 28
    assert max(pairs.values()) < 2 * min(pairs.values())
    assert abs(heads / 16000 - 0.3) < 0.02


def test_a_lost_successor_hands_its_edges_to_the_other_and_only_both_are_redrawn() -> None:
    made = routes(inbound=6)
    first, second = made.successors
    made.close(first)
    assert {made.way(edge).successor for edge in range(101, 107)} == {second}  # type: ignore[union-attr]
    made.open(50, inbound=False)
    assert made.successors == [second], "cutting one successor wins no place for another"
    made.close(second)
    assert len(made.successors) == 2
    assert not {first, second} & set(made.successors)


def test_a_slot_that_nobody_could_fill_takes_the_next_newcomer() -> None:
    made = routes(outbound=0, inbound=2)
    assert made.way(101) is None
    made.open(1, inbound=False)
    assert made.way(None) == (1, None)
    made.open(2, inbound=False)
    assert sorted(made.successors) == [1, 2]
    made.open(3, inbound=False)
    assert sorted(made.successors) == [1, 2]


def test_variants_are_what_their_names_say() -> None:
    all_to_one = routes(msgspec.structs.replace(QUIET, routing=Routing.ALL_TO_ONE), inbound=20)
    assert len({all_to_one.way(edge) for edge in [None, *range(101, 121)]}) == 1
    per_tx = routes(msgspec.structs.replace(QUIET, routing=Routing.PER_TX), inbound=1)
    assert len({per_tx.way(101) for _ in range(100)}) == 2
    per_node = routes(StemTerms(q=0.5, coin=Coin.PER_NODE, epoch_s=FOREVER), inbound=20)
    for _ in range(20):
        per_node.begin()
        assert len({per_node.diffuses(edge) for edge in range(101, 121)}) == 1


# --- The part ---------------------------------------------------------------------------------------------------------


def bench(terms: StemTerms = QUIET, outbound: int = 8, inbound: int = 3, seed: int = 1) -> Bench:
    made = Bench(terms, seed)
    for link in range(1, outbound + 1):
        made.join(link)
    for link in range(101, 101 + inbound):
        made.join(link, inbound=True)
    return made


def relaying_edge(made: Bench) -> int:
    """An inbound link whose coin says relay."""
    routes_of_face = made.dandelion._faces[Face.CLEARNET]
    return next(link for link in made.peers if link > 100 and not routes_of_face.diffuses(link))


def test_a_stem_transaction_goes_to_one_successor_and_nowhere_else() -> None:
    made = bench()
    for number in range(20):
        made.receive(101, StemTx(raw(number)))
    assert len({link for link, _ in made.sent}) == 1
    assert len(made.sent) == 20
    assert all(link <= 8 and isinstance(message, StemTx) for link, message in made.sent)
    made.run(3600)
    assert len(made.sent) == 20, "nothing is announced"


def test_the_coin_diffuses_and_the_way_it_came_hears_of_it_like_everyone() -> None:
    made = bench(LOUD)
    made.receive(101, StemTx(raw(1)))
    assert made.published == [raw(1)[:32]]
    made.run(60)
    assert {link for link, message in made.sent if isinstance(message, Inv)} == {*range(1, 9), 101, 102, 103}
    assert not made.stemmed(1)


@pytest.mark.parametrize("outbound", [0, 1])
def test_without_successors_it_is_diffused_and_with_one_that_one_is_used(outbound: int) -> None:
    made = bench(outbound=outbound)
    made.receive(101, StemTx(raw(1)))
    assert (made.stemmed(1), bool(made.published)) == (([], True) if outbound == 0 else ([1], False))


def test_the_same_peer_twice_is_a_loop_and_two_peers_are_not() -> None:
    made = bench()
    made.receive(101, StemTx(raw(1)))
    made.receive(102, StemTx(raw(1)))
    assert len(made.stemmed(1)) == 2
    assert not made.published
    made.receive(101, StemTx(raw(1)))
    assert made.published == [raw(1)[:32]]


def test_at_the_end_of_the_embargo_it_goes_to_the_other_successor_once_and_then_public() -> None:
    made = bench(StemTerms(q=0.3, epoch_s=FOREVER), outbound=2, inbound=20)
    made.receive(relaying_edge(made), StemTx(raw(1)))
    [first] = made.stemmed(1)
    made.run(5000)
    assert made.stemmed(1) == [first, 3 - first]
    assert made.published == [raw(1)[:32]]


def test_what_became_public_in_time_is_not_diffused_again() -> None:
    made = bench(StemTerms(q=0.3, epoch_s=FOREVER), outbound=2, inbound=20)
    made.receive(relaying_edge(made), StemTx(raw(1)))
    made.receive(2, Inv((InventoryItem(1, raw(1)[:32]),)))
    made.receive(2, Tx(raw(1)))
    before = len(made.stemmed(1))
    published = list(made.published)
    made.run(5000)
    assert len(made.stemmed(1)) == before
    assert made.published == published


def test_links_that_carry_no_stem_are_neither_edges_nor_successors() -> None:
    made = Bench()
    lacking = msgspec.structs.replace(made._template.negotiated, flags=Flags(Feature.Dandelion, 0))
    made.join(1, **BLOCK_ONLY)
    made.join(2, negotiated=lacking)
    made.join(101, inbound=True, negotiated=lacking)
    made.join(102, inbound=True)
    assert isinstance(made.receive(101, StemTx(raw(1)))[0], Penalise)
    made.receive(102, StemTx(raw(2)))
    assert not made.stemmed(2)
    assert made.published == [raw(2)[:32]]
    with_both = Flags(Feature.Dandelion, Privacy.DandelionPlusPlus)
    made.join(3, negotiated=msgspec.structs.replace(lacking, flags=with_both))
    made.receive(102, StemTx(raw(3)))
    assert made.stemmed(3) == [3]


def test_an_outbound_peer_has_no_business_with_stemtx_and_rubbish_is_a_fault() -> None:
    made = bench()
    assert isinstance(made.receive(1, StemTx(raw(1)))[0], Penalise)
    assert isinstance(made.receive(101, StemTx(b"short"))[0], Penalise)
    assert not made.sent


def test_one_peer_fills_its_own_share_and_nobody_elses() -> None:
    made = bench()
    for number in range(3 * STEM_TXS_PER_PEER):
        made.receive(101, StemTx(raw(number)))
    assert len(made.sent) == STEM_TXS_PER_PEER
    assert not any(isinstance(effect, Penalise) for effect in made.other), "and hears nothing of it"
    made.receive(102, StemTx(raw(9999)))
    assert made.stemmed(9999)
    large = bench()
    size = 90_000
    for number in range(40):
        large.receive(101, StemTx(number.to_bytes(32, "big") + bytes(size - 32)))
    assert len(large.sent) == STEM_BYTES_PER_PEER // size


@pytest.mark.parametrize("holds", ["nothing", "a relayed one", "an own one"])
def test_a_full_share_does_not_tell_what_is_here(holds: str) -> None:
    """Who fills its own share sees what is dropped, if it is a successor too: a stem could be followed back to its origin."""
    made = bench()
    if holds == "a relayed one":
        made.receive(102, StemTx(raw(1)))
    elif holds == "an own one":
        made.submit(1, Policy.PRIVATE)
    for number in range(2, 2 + STEM_TXS_PER_PEER):
        made.receive(101, StemTx(raw(number)))
    before = len(made.sent)
    assert not made.receive(101, StemTx(raw(1)))
    assert not made.receive(101, StemTx(raw(1))), "nor is it a loop: it was not taken"
    assert len(made.sent) == before
    assert not made.published


def test_each_edge_has_an_embargo_and_another_successor_of_its_own() -> None:
    """Where the second try goes would else tell whoever swallowed the first that it was here before."""
    made = Bench(QUIET)
    for link in (1, 2, 101, 102):
        made.join(link, inbound=link > 100)
    made.dandelion.terms = StemTerms(q=0.2, epoch_s=FOREVER)
    for edge in (102, 101):
        made.receive(edge, StemTx(raw(1)))
    assert sorted(made.stemmed(1)) == [1, 2], "each edge has its slot"
    while not made.published and len(made.stemmed(1)) < 4:
        made.run(10.0)
    assert sorted(made.stemmed(1)) == [1, 1, 2, 2]


def test_a_share_is_free_again_once_what_was_in_it_is_public() -> None:
    """Else an edge that ever carried so many carries no more, and nobody hears of it."""
    made = bench()
    for _ in range(2):  # the second time it came round in a loop
        for number in range(STEM_TXS_PER_PEER):
            made.receive(101, StemTx(raw(number)))
    assert len(made.published) == STEM_TXS_PER_PEER
    made.receive(101, StemTx(raw(9999)))
    assert made.stemmed(9999)


def test_faces_do_not_relay_for_each_other() -> None:
    made = bench(inbound=0)
    made.join(201, inbound=True, face=Face.ONION)
    made.receive(201, StemTx(raw(1)))
    assert not made.stemmed(1), "the onion face has no successor, and clearnet is not asked"
    assert made.published


@pytest.mark.parametrize("is_own", [False, True])
@pytest.mark.parametrize("face", [Face.CLEARNET, Face.ONION])
def test_what_was_swallowed_is_public_first_at_the_face_where_it_was_relayed(face: Face, is_own: bool) -> None:
    """Else whoever swallowed it at one face sees it come out at another, which is the same node's."""
    for seed in range(10):
        made = Bench(StemTerms(q=0.0, epoch_s=FOREVER), seed, faces=(Face.CLEARNET, Face.ONION))
        for link, at in ((1, Face.CLEARNET), (2, Face.ONION)):
            made.join(link, face=at)
            made.join(100 + link, inbound=True, face=at)
        link = next(each for each, peer in made.peers.items() if peer.face is face)
        made.dandelion.terms = StemTerms(q=0.2, epoch_s=FOREVER, prefers_anonymity=face is Face.ONION)
        if is_own:
            made.submit(1, Policy.PRIVATE)
        else:
            made.receive(100 + link, StemTx(raw(1)))
        assert made.stemmed(1) == [link]
        if not is_own:
            made.leave(100 + link)  # whoever brought it has gone meanwhile
        while not made.published:
            made.run(0.1)
        relay = made.announcements.relay
        assert [transaction.id for transaction in relay.public(face)] == made.published
        assert not list(relay.public(Face.ONION if face is Face.CLEARNET else Face.CLEARNET))


@pytest.mark.parametrize("q", [0.0, 1.0])
def test_what_is_public_at_one_face_is_taken_at_another_as_if_it_were_not(q: float) -> None:
    """Else who hands it in at both sees, by what is dropped, that both are one node's."""
    made = Bench(StemTerms(q=q, epoch_s=FOREVER), faces=(Face.CLEARNET, Face.ONION))
    for face, link in ((Face.CLEARNET, 1), (Face.ONION, 2)):
        made.join(link, face=face)
        made.join(100 + link, inbound=True, face=face)
    made.receive(101, Inv((InventoryItem(1, raw(1)[:32]),)))
    made.receive(101, Tx(raw(1)))
    relay = made.announcements.relay
    made.receive(101, StemTx(raw(1)))
    assert not made.stemmed(1), "it is public at clearnet"
    assert not list(relay.public(Face.ONION))
    made.receive(102, StemTx(raw(1)))
    if q:
        assert list(relay.public(Face.ONION)), "the coin of the edge diffuses it there"
    else:
        assert made.stemmed(1) == [2]
        assert not list(relay.public(Face.ONION))
    made.run(120)
    assert list(relay.public(Face.ONION))
    made.receive(102, StemTx(raw(1)))
    assert len(made.stemmed(1)) == (0 if q else 1), "and there too now"


def test_epochs_of_two_nodes_have_phases_of_their_own() -> None:
    ends = set()
    for seed in range(50):
        made = Bench(StemTerms(q=0.0), seed)
        made.join(1)
        ends.add(made.dandelion.deadline())
    assert len(ends) == 50
    assert min(ends) < 100
    assert max(ends) > 500


def test_tiny_transactions_of_edges_that_come_and_go_are_bounded_by_what_they_occupy() -> None:
    """A share is free with a new link, and what the old one brought stays until its embargo ends."""
    made = bench()
    number = link = 1_000
    while len(made.sent) == number - 1_000:
        link += 1
        made.join(link, inbound=True)
        for _ in range(STEM_TXS_PER_PEER):
            made.receive(link, StemTx(number.to_bytes(32, "big")))
            number += 1
        made.leave(link)
        assert len(made.sent) * STEM_ENTRY_BYTES <= STEM_BYTES // len(Face)


def test_a_full_face_takes_nothing_from_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who fills the stem pool through one face sees at another one, by what is dropped, that both are one node's."""
    size = len(raw(0)) + STEM_ENTRY_BYTES
    monkeypatch.setattr("obscura.node.dandelion.STEM_BYTES", len(Face) * 5 * size)
    made = Bench(StemTerms(q=0.0, epoch_s=FOREVER))
    for face, link in ((Face.CLEARNET, 1), (Face.ONION, 2)):
        made.join(link, face=face)
        made.join(100 + link, inbound=True, face=face)
    for number in range(3 * len(Face) * 5):
        made.receive(101, StemTx(raw(number)))
    assert len(made.sent) == 5
    made.receive(102, StemTx(raw(1_000)))
    assert made.stemmed(1_000) == [2]
