"""The address book: buckets, worth, tests before eviction, what may enter, what survives a restart."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import AddressError
from obscura.limits import (
    BOOK_CELLS,
    BOOK_LOOK,
    HORIZON_S,
    NEW_BUCKETS_PER_SOURCE,
    RECENT_SUCCESS_S,
    RETRY_S,
    TEST_S,
    TRIED_BUCKETS_PER_GROUP,
    UNPROVEN_RETRY_S,
)
from obscura.node.book import Book, BookState, Entry
from obscura.node.dialable import Way, Ways, check_dialable
from obscura.node.dialling import Use, may_learn, use_of
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.wire.address import Address, CarrierNumber, Endpoint, Network
from peer_examples import UNIX, Clock, book, endpoint, key

TLS, PLAIN = CarrierNumber.TLS, CarrierNumber.PLAIN


def learn(own: Book, host: str, source: bytes = b"4aa", port: int = 9_733) -> Entry | None:
    return own.learn(endpoint(host, port), TLS, Face.CLEARNET, source, UNIX)


def flood(own: Book, count: int, source: bytes, network: str = "11.1") -> int:
    """Distinct addresses of one /16, told by one source; how many found a cell."""
    places = ((n // 250 % 250, n % 250, 2_000 + n // 62_500) for n in range(count))
    return sum(learn(own, f"{network}.{a}.{b}", source, port) is not None for a, b, port in places)


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_one_source_reaches_64_new_buckets_and_one_group_8_tried_ones() -> None:
    clock = Clock()
    own = book(clock)
    for network in range(300):
        flood(own, 30, b"4xx", f"12.{network % 250}" if network < 250 else f"13.{network - 250}")
    assert len({cell // BOOK_CELLS for cell in own._new}) <= NEW_BUCKETS_PER_SOURCE
    for entry in list(own.entries()):
        own.good(entry.place, key(1))
    one_group = book(clock)
    flood(one_group, 3_000, b"4xx")
    for entry in list(one_group.entries()):
        one_group.good(entry.place, key(1))
    assert 1 < len({cell // BOOK_CELLS for cell in one_group._tried}) <= TRIED_BUCKETS_PER_GROUP


def test_a_flood_does_not_take_the_cells_of_what_is_known() -> None:
    own = book(Clock())
    known = [learn(own, f"20.{n}.0.1", bytes([n])) for n in range(200)]
    flood(own, 20_000, b"4xx")
    assert [entry for entry in known if entry is not None and own.get(entry.place) is None] == []


def test_where_a_place_goes_depends_on_a_secret() -> None:
    cells = []
    for seed in range(8):
        own = book(Clock(), seed)
        learn(own, "20.1.0.1")
        cells += own._new
    assert len(set(cells)) > 5


def test_a_worthless_place_gives_up_its_cell() -> None:
    clock = Clock()
    own = book(clock)
    assert flood(own, 4_000, b"4xx") == len(own) == BOOK_CELLS  # one network told by one source: one bucket

    def fresh() -> int:
        places = (endpoint(f"11.1.9.{n}", 7_000) for n in range(40))
        return sum(own.learn(place, TLS, Face.CLEARNET, b"4xx", clock()) is not None for place in places)

    assert fresh() == 0
    clock.now += HORIZON_S + 1
    assert fresh() > 20


def test_a_tried_place_keeps_its_cell_if_it_still_answers_and_loses_it_if_it_fails_its_test() -> None:
    for answers in (True, False):
        clock = Clock()
        own = book(clock)
        flood(own, 4_000, b"4xx")
        for entry in list(own.entries()):
            own.good(entry.place, key(1))
            if own._tests:
                break
        (newcomer,) = own._tests
        rival = next(
            e for e in own.entries() if e.is_tried and own._tried_cell(e) == own._tried_cell(own.get(newcomer))
        )
        clock.now += RECENT_SUCCESS_S + TEST_S[0]
        own._tests[newcomer] = clock.now  # it came just now
        assert own.test_due() is rival
        clock.now += 1
        own.attempt(rival.place)
        assert own.test_due() is None  # under way
        if answers:
            own.good(rival.place, key(1))
        clock.now += 61
        own.test_due()
        assert own.get(newcomer).is_tried is not answers
        assert rival.is_tried is answers
        assert not own._tests


def test_a_test_that_began_while_the_clock_was_ahead_is_decided_all_the_same() -> None:
    clock = Clock()
    own = book(clock)
    flood(own, 4_000, b"4xx")
    clock.now += 365 * 86_400
    for entry in list(own.entries()):
        own.good(entry.place, key(1))
        if own._tests:
            break
    clock.now -= 365 * 86_400
    (newcomer,) = own._tests
    rival = own.test_due()
    assert rival is not None
    clock.now += 1
    own.attempt(rival.place)
    clock.now += 61
    own.test_due()
    assert not own._tests
    assert [own.get(newcomer).is_tried, rival.is_tried] == [True, False]


def test_who_fails_its_test_may_push_out_another_that_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NEW_BUCKETS", 1), ("TRIED_BUCKETS", 1), ("BOOK_CELLS", 2)):
        monkeypatch.setattr(f"obscura.node.book.{name}", value)

    def waiting(seed: int) -> tuple[Clock, Book] | None:
        """A book of two cells each in which two wait for one that would take the second one's cell."""
        clock = Clock()
        own = book(clock, seed)
        entries = []
        for n in range(3):
            entry = learn(own, f"20.{n}.0.1", b"4xx")
            if entry is None:
                return None
            entries.append(entry)
            own.good(entry.place, key(1))
        rival, _, second = entries
        fits = len(own._tests) == 2 and own._new_cell(rival) == own._new_cell(second)
        return (clock, own) if fits else None

    clock, own = next(found for found in map(waiting, range(1_000)) if found is not None)
    clock.now += 40 * 86_400  # all are unseen for long
    own.test_due()
    assert not own._tests
    assert sorted(entry.is_tried for entry in own.entries()) == [False, True]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40)), max_size=120), st.integers(0, 99))
def test_tables_entries_and_pools_always_agree(steps: list[tuple[int, int]], seed: int) -> None:
    clock = Clock()
    own = book(clock, seed)
    for what, number in steps:
        clock.now += 1_000
        place = (endpoint(f"20.{number % 3}.0.{number}"), TLS)
        if what < 3:
            own.learn(*place, Face.CLEARNET, bytes([what]), clock())
        elif what == 3:
            own.good(place, key(number))
        elif what == 4:
            own.attempt(place)
            own.failed(place)
        elif what == 5:
            own.forget(place)
        else:
            own.test_due()
    new, tried = set(own._new.values()), set(own._tried.values())
    assert new == {e.place for e in own.entries() if not e.is_tried} == set(own._new_pool.items)
    assert tried == {e.place for e in own.entries() if e.is_tried} == set(own._tried_pool.items)
    assert set(own._tests) <= new
    assert own.sizes == (len(new), len(tried))


# --- Choosing ---------------------------------------------------------------------------------------------------------


def test_tried_and_new_are_chosen_alike_however_many_new_ones_there_are() -> None:
    clock = Clock()
    own = book(clock)
    flood(own, 3_000, b"4xx")
    for n in range(10):
        entry = learn(own, f"20.{n}.0.1", bytes([n]))
        assert entry is not None
        own.good(entry.place, key(n))
    clock.now += 3_600
    picked = Counter(own.pick(lambda e: True).is_tried for _ in range(600))
    assert 240 < picked[True] < 360


@pytest.mark.parametrize(("signed", "least", "most"), [(True, 16, 20), (False, 0, 3)])
def test_signed_seeds_enter_a_book_that_is_full_of_what_nobody_proved(
    signed: bool, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who fills the table with places that answer nobody makes the node ask for seeds, and they found no cell."""
    monkeypatch.setattr("obscura.node.book.NEW_BUCKETS", 4)
    own = book(Clock())
    own.add_seeds([Address(key(9), "8.9.1.1", 443, TLS)], signed=True, face=Face.CLEARNET, now=0.0)
    proved = learn(own, "8.9.1.2")
    assert proved is not None
    own.good(proved.place, None)
    for n in range(3_000):
        learn(own, f"{20 + n % 100}.{n // 100}.0.1", bytes([n % 50]))
    seeds = [Address(key(n), f"{150 + n}.1.1.1", 443, TLS) for n in range(20)]
    assert least <= own.add_seeds(seeds, signed=signed, face=Face.CLEARNET, now=0.0) <= most
    assert own.get(proved.place) is proved
    assert own.get((endpoint("8.9.1.1", 443), TLS)) is not None


def test_the_few_that_suit_of_a_large_book_are_found_within_some_calls() -> None:
    """256 draws found three among ten thousand once in thirteen calls: the only ones of a face waited for hours."""
    own = book(Clock())
    for network in range(250):
        flood(own, 200, bytes([network]), f"{11 + network // 3}.{network}")
    assert own.sizes[0] > 10_000
    wanted = {entry.place for entry in list(own.entries())[7_000:7_300:100]}
    calls = [own.pick(lambda entry: entry.place in wanted) for _ in range(60)]
    found = [at for at, entry in enumerate(calls) if entry is not None]
    assert all(after - before <= -(-own.sizes[0] // BOOK_LOOK) for before, after in pairwise([-1, *found, 60]))
    assert {entry.place for entry in calls if entry is not None} == wanted


def test_an_address_that_never_proved_a_key_is_tried_once_in_24_hours_then_48() -> None:
    clock = Clock()
    own = book(clock)
    entry = learn(own, "20.1.0.1")
    assert entry is not None
    waits = []
    for _ in range(4):
        assert own.pick(lambda e: True) is entry
        own.attempt(entry.place)
        own.failed(entry.place)
        since = clock.now
        while own.pick(lambda e: True) is None:
            clock.now += 3_600
        waits.append((clock.now - since) / UNPROVEN_RETRY_S)
        entry.seen = clock()
    assert waits == [1, 2, 4, 8]
    entry.keys.hard = key(1)
    own.attempt(entry.place)
    assert not entry.may_try(clock())  # a full node is not pestered
    clock.now += RETRY_S
    assert entry.may_try(clock())  # a signed list vouches for it


def test_what_was_noted_while_the_clock_was_ahead_counts_for_nothing() -> None:
    clock = Clock()
    own = book(clock)
    clock.now += 365 * 86_400
    entry = own.learn(endpoint("20.1.0.1"), TLS, Face.CLEARNET, b"4aa", clock())
    assert entry is not None
    own.told_key(entry, key(1), b"4aa", is_own_word=False)
    own.attempt(entry.place)
    own.key_failed(entry.place, key(1))
    clock.now -= 365 * 86_400
    assert entry.may_try(clock())
    assert entry.chance(clock()) > 0.1
    own.told_key(entry, key(1), b"4aa", is_own_word=False)
    assert entry.keys.is_known  # no key is refused until that day
    learn(own, "20.1.0.1")
    assert entry.seen == UNIX
    assert not entry.is_worthless(clock())


def test_a_proven_place_with_a_time_in_the_future_is_worth_keeping() -> None:
    clock = Clock()
    own = book(clock)
    entry = own.learn(endpoint("20.1.0.1"), TLS, Face.CLEARNET, b"4aa", UNIX + 86_400)
    assert entry is not None
    assert entry.is_worthless(clock())
    own.good(entry.place, key(1))
    assert not entry.is_worthless(clock())


def test_a_place_belongs_to_the_face_through_which_it_was_learnt() -> None:
    own = book(Clock())
    place = endpoint("20.1.0.1")
    assert own.learn(place, TLS, Face.ONION, b"x", UNIX) is not None
    assert own.learn(place, TLS, Face.CLEARNET, b"y", UNIX) is None
    assert own.sample(Face.CLEARNET, 1.0, 10) == []
    assert len(own.sample(Face.ONION, 1.0, 10)) == 1


def test_unsigned_seeds_are_feelers_until_they_prove_a_key_and_signed_ones_have_hard_keys() -> None:
    own = book(Clock())
    signed = Address(key(1), "20.1.0.1", 9_733, TLS, "example.org")
    unsigned = Address(None, "20.2.0.1", 9_733, TLS)
    name = Address(None, "seed.example.org", 9_733, TLS)
    assert own.add_seeds([signed, name], True, Face.CLEARNET, 0.0) == 1
    assert own.add_seeds([unsigned], signed=False, face=Face.CLEARNET, now=0.0) == 1
    first, second = own.get((endpoint("20.1.0.1"), TLS)), own.get((endpoint("20.2.0.1"), TLS))
    assert first.address(random.Random(1)) == signed
    assert (first.keys.is_hard, first.feelers_only, second.feelers_only) == (True, False, True)
    own.good(second.place, key(2))
    assert (second.keys.verified, second.feelers_only) == (key(2), False)


def test_the_book_survives_a_restart_and_its_cells_are_the_same() -> None:
    clock = Clock()
    own = book(clock)
    flood(own, 500, b"4xx")
    for entry in list(own.entries())[:100]:
        own.good(entry.place, key(7))
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(own.state()), type=BookState)
    again = book(clock, seed=99)
    again.restore(state)
    assert again._new == own._new
    assert again._tried == own._tried
    assert list(again.entries()) == list(own.entries())


# --- What may enter ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "carrier", "is_fine"),
    [
        ("20.1.0.1", 9_733, TLS, True),
        ("20.1.0.1", 443, TLS, True),
        ("20.1.0.1", 22, CarrierNumber.SSH, True),
        ("20.1.0.1", 25, TLS, False),
        ("20.1.0.1", 993, TLS, False),
        ("20.1.0.1", 6_379, TLS, False),
        ("20.1.0.1", 9_733, PLAIN, False),
        ("20.1.0.1", 9_733, CarrierNumber.BARE, False),
        ("20.1.0.1", 9_733, 77, False),
        ("10.0.0.1", 9_733, TLS, False),
        ("192.168.1.1", 9_733, TLS, False),
        ("169.254.1.1", 9_733, TLS, False),
        ("224.0.0.1", 9_733, TLS, False),
        ("0.0.0.0", 9_733, TLS, False),
        ("127.0.0.1", 9_733, PLAIN, False),
        ("2001:db8::1", 9_733, TLS, False),
        ("2a01:4f8::1", 9_733, TLS, True),
        ("fe80::1", 9_733, TLS, False),
        ("fec0::1", 443, TLS, False),  # site-local of before RFC 3879
        ("::c0a8:101", 443, TLS, False),  # 192.168.1.1 in each of these
        ("::ffff:0:c0a8:101", 443, TLS, False),
        ("2002:c0a8:101::1", 443, TLS, False),
        ("64:ff9b::c0a8:101", 443, TLS, False),
        ("64:ff9b:1::c0a8:101", 443, TLS, False),
        ("64:ff9b::1401:1", 443, TLS, True),  # 20.1.0.1, as who has IPv6 alone reaches it
        ("2002:1401:1::1", 443, TLS, True),
    ],
)
def test_gossip_cannot_aim_the_network_at_others(host: str, port: int, carrier: int, is_fine: bool) -> None:
    assert may_learn(endpoint(host, port), carrier, loopback=False) is is_fine


def test_on_dev_loopback_is_learnt_and_nothing_below_port_1024() -> None:
    assert may_learn(endpoint("127.3.2.1", 9_733), PLAIN, loopback=True)
    assert not may_learn(endpoint("127.3.2.1", 80), PLAIN, loopback=True)
    onion = Endpoint(Network.TORV3, bytes(32), 9_733)
    assert may_learn(onion, PLAIN, loopback=False)
    assert not may_learn(onion, TLS, loopback=False)


@pytest.mark.parametrize(
    ("carrier", "has_key", "is_trusted", "allowed", "use"),
    [
        (TLS, True, False, False, Use.FULL),
        (CarrierNumber.HTTP, True, False, False, Use.FULL),
        (CarrierNumber.SSH, True, False, False, Use.FEELER),
        (CarrierNumber.SSH, True, True, False, Use.FULL),
        (CarrierNumber.DNS, True, False, False, Use.NOTHING),
        (CarrierNumber.DNS, True, True, False, Use.FULL),
        (TLS, False, False, False, Use.FEELER),
        (TLS, False, False, True, Use.FULL),
        (CarrierNumber.HTTP, False, False, True, Use.NOTHING),
        (PLAIN, True, False, False, Use.NOTHING),
    ],
)
def test_who_may_be_dialled_for_what(
    carrier: CarrierNumber, has_key: bool, is_trusted: bool, allowed: bool, use: Use
) -> None:
    place = endpoint("20.1.0.1")
    found = use_of(place, carrier, has_key=has_key, is_trusted=is_trusted, allow_unauthenticated=allowed)
    assert found is use


@pytest.mark.parametrize("carrier", [carrier for carrier in CarrierNumber if carrier is not CarrierNumber.BARE])
@pytest.mark.parametrize("text", ["20.1.0.1", "127.0.0.1"])
@pytest.mark.parametrize(("has_key", "is_trusted"), [(False, False), (True, False), (True, True)])
def test_through_a_proxy_what_is_wanted_is_what_may_be_dialled(
    carrier: CarrierNumber, text: str, has_key: bool, is_trusted: bool
) -> None:
    """The part that chooses and the check before the socket agree, but for ssh, which wants a key that was proven."""
    may = {"has_key": has_key, "is_trusted": is_trusted, "allow_unauthenticated": True}
    use = use_of(endpoint(text), carrier, is_proxied=True, **may)
    address = Address(key(1) if has_key else None, text, 9_733, carrier)
    try:
        check_dialable(address, Face.CLEARNET, Ways(clearnet=Way.PROXY))
    except AddressError:
        assert use is Use.NOTHING
    else:
        assert use is (Use.NOTHING if carrier is CarrierNumber.SSH and not is_trusted else Use.FULL)


def test_groups_are_16_bits_of_ipv4_32_of_ipv6_and_of_what_is_behind_a_tunnel() -> None:
    group = Grouping().of
    assert group(endpoint("20.1.2.3")) == group(endpoint("20.1.9.9", 1)) != group(endpoint("20.2.2.3"))
    assert group(endpoint("2a01:4f8:1::1")) == group(endpoint("2a01:4f8:ffff::2")) != group(endpoint("2a01:4f9::1"))
    assert group(endpoint("2002:1401:203::1")) == group(endpoint("20.1.2.3"))  # 6to4 (RFC 3056)
    assert group(endpoint("64:ff9b::1401:203")) == group(endpoint("20.1.2.3"))  # NAT64 (RFC 6052)
    assert group(endpoint("127.0.0.1")) == group(endpoint("127.9.9.9"))
    apart = Grouping(loopback_apart=True).of
    assert apart(endpoint("127.0.0.1", 1)) == apart(endpoint("127.0.0.1", 2)) != apart(endpoint("127.0.0.2", 1))
    onions = {group(Endpoint(Network.TORV3, bytes([n]) + bytes(31), 1)) for n in range(256)}
    assert len(onions) == 16
