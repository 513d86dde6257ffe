"""Whom discovery asks, when, and what of the answers counts: the pure part, driven by hand."""

from __future__ import annotations

import random
from collections.abc import Iterable
from ipaddress import ip_address
from math import inf
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura import limits
from obscura.errors import ConfigError
from obscura.node.effects import Lookup, Notify
from obscura.node.face import Face
from obscura.node.resolvers import BUILT_IN, Answer, Provider, SeedSettings
from obscura.node.seed_list import SeedList, sign
from obscura.node.seeds import Seeds, SeedSource
from obscura.wire.address import Address, CarrierNumber
from peer_examples import Clock, key
from peer_examples import book as real_book

SECRET = bytes([9]) * 32
PUBLIC = Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw()
NETWORK = bytes([1]) * 32
NAME = "seeds.example.org"
UNIX = 1_800_000_000
SEED = Address.parse(f"obscura://{'a' * 52}@192.0.2.7:9733?carrier=tls")
OTHER = Address.parse(f"obscura://{'a' * 52}@192.0.2.8:9733?carrier=tls")
BUILT_IN_SEED = Address.parse(f"obscura://{'a' * 52}@192.0.2.9:9733?carrier=tls")
NOTHING = Answer("TXT")
FAULT = Answer("TXT", fault="no answer in time")


class Book:
    def __init__(self, usable: int = 0) -> None:
        self.count = usable
        self.added: list[tuple[str, bool, Face]] = []

    def usable(self, now: float) -> int:
        return self.count

    def add_seeds(
        self, addresses: Iterable[Address], *, signed: bool, face: Face, now: float, is_built_in: bool = False
    ) -> None:
        self.added += [(str(address), signed, face) for address in addresses]


def source(key: bytes | None = PUBLIC, names: tuple[str, ...] = (NAME,)) -> SeedSource:
    return SeedSource(NETWORK, 9733, names, key, (BUILT_IN_SEED,))


def seeds_of(book: Book | None = None, seed: int = 1, **options: Any) -> Seeds:
    config = SeedSettings(**options.pop("settings", {}))
    given_source = options.pop("source", source())
    rng = random.Random(seed)
    return Seeds(config, given_source, book or Book(), rng, lambda: UNIX, 0.0, **options)


def signed(*addresses: Address, sequence: int = 5, secret: bytes = SECRET, expires: int = UNIX + 9) -> Answer:
    texts = sign(SeedList(sequence, expires, addresses), NAME, NETWORK, secret, UNIX)
    return Answer("TXT", tuple(text.encode() for text in texts), 300)


def plain(*addresses: str) -> tuple[Answer, Answer]:
    packed = [ip_address(address).packed for address in addresses]
    return (
        Answer("A", tuple(raw for raw in packed if len(raw) == 4), 60),
        Answer("AAAA", tuple(raw for raw in packed if len(raw) == 16), 60),
    )


def lookups(effects: Iterable[Any]) -> list[Lookup]:
    return [effect for effect in effects if isinstance(effect, Lookup)]


def play(seeds: Seeds, effects: Iterable[Any], answers: dict[str, Any], now: float = 0.0) -> list[Lookup]:
    """Answer every lookup by its kinds (an ``Answer`` per provider, else the same for all) until the round ends."""
    waiting, asked = lookups(effects), []
    while waiting:
        lookup = waiting.pop(0)
        asked.append(lookup)
        said = answers["TXT" if lookup.kinds == ("TXT",) else "A"]
        said = said[lookup.provider] if isinstance(said, dict) else said
        waiting += lookups(seeds.answered(lookup, said if isinstance(said, tuple) else (said,), now))
    return asked


def start(seeds: Seeds, now: float = 0.0) -> list[Any]:
    assert seeds.deadline() <= now
    return list(seeds.due(now))


# --- When -----------------------------------------------------------------------------------------------------------


def test_an_empty_book_asks_at_once_two_operators_for_the_signed_list() -> None:
    asked = lookups(start(seeds_of()))
    assert len({lookup.provider for lookup in asked}) == 2
    assert {(lookup.name, lookup.kinds) for lookup in asked} == {(NAME, ("TXT",))}


def test_a_book_with_something_waits_for_its_anchors_first() -> None:
    seeds = seeds_of(Book(3))
    assert start(seeds) == []
    assert limits.SEED_START_S[0] <= seeds.deadline() <= limits.SEED_START_S[1]
    assert lookups(seeds.due(seeds.deadline()))


@pytest.mark.parametrize(("usable", "asks"), [(0, True), (49, True), (50, False), (5_000, False)])
def test_asked_only_with_fewer_than_fifty_usable_entries(usable: int, asks: bool) -> None:
    book = Book(usable)
    seeds = seeds_of(book)
    effects = [*seeds.due(0.0), *seeds.due(60.0)][:2]
    assert bool(lookups(effects)) is asks
    assert not book.added


def test_a_book_that_empties_later_is_noticed() -> None:
    book = Book(60)
    seeds = seeds_of(book)
    assert not start(seeds)
    assert not start(seeds, seeds.deadline())
    book.count = 10
    assert lookups(start(seeds, seeds.deadline()))


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("switched off", {"settings": {"enabled": False}}),
        ("no names", {"source": source(names=())}),
        ("no providers", {"settings": {"providers": ()}}),
        ("no key and nobody to agree with", {"settings": {"providers": ("quad9",)}, "source": source(key=None)}),
    ],
)
def test_nobody_is_asked_and_the_built_in_list_counts(what: str, options: dict[str, Any]) -> None:
    book = Book()
    seeds = seeds_of(book, **options)
    assert not lookups(start(seeds))
    assert book.added == [(str(BUILT_IN_SEED), True, Face.CLEARNET)]
    assert 0 < seeds.deadline() < inf


# --- Signed lists ---------------------------------------------------------------------------------------------------


def test_one_good_signature_is_enough_whoever_served_it() -> None:
    book = Book()
    seeds = seeds_of(book)
    first, second = lookups(start(seeds))
    told = seeds.answered(first, (signed(SEED),), 1.0)
    assert book.added == [(str(SEED), True, Face.CLEARNET)]
    assert Notify("seed-list", {"name": NAME, "sequence": 5, "expires": UNIX + 9}) in told
    assert not lookups(seeds.answered(second, (FAULT,), 2.0))
    assert limits.SEED_AGAIN_S <= seeds.deadline() - 2.0 <= 1.25 * limits.SEED_AGAIN_S


@pytest.mark.parametrize(
    ("what", "lie"),
    [
        ("forged", signed(OTHER, secret=bytes(32))),
        ("nothing there", NOTHING),
        ("another record", Answer("TXT", (b"v=spf1 -all",), 60)),
        ("dead", FAULT),
        ("empty strings", Answer("TXT", (b"",), 60)),
    ],
)
def test_two_bad_providers_lead_to_a_third(what: str, lie: Answer) -> None:
    book = Book()
    seeds = seeds_of(book)
    begun = start(seeds)
    liars = {lookup.provider for lookup in lookups(begun)}
    answers = {label: lie if label in liars else signed(SEED) for label in BUILT_IN}
    asked = play(seeds, begun, {"TXT": answers})
    assert {lookup.provider for lookup in asked} == set(BUILT_IN)
    assert book.added == [(str(SEED), True, Face.CLEARNET)]


def test_an_old_list_is_refused_once_a_newer_one_was_seen_also_after_a_restart() -> None:
    seeds = seeds_of()
    play(seeds, start(seeds), {"TXT": signed(SEED, sequence=6)})
    assert seeds.sequences == {NAME: 6}
    book = Book()
    again = seeds_of(book, sequences=seeds.sequences)
    play(again, start(again), {"TXT": signed(OTHER, sequence=5), "A": plain()})
    assert book.added == [(str(BUILT_IN_SEED), True, Face.CLEARNET)]
    assert again.sequences == {NAME: 6}


def test_onion_and_i2p_seeds_belong_to_their_faces_and_loopback_only_to_dev() -> None:
    onion = Address.parse("obscura://2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9733")
    i2p = Address.parse(f"obscura://{'a' * 52}.b32.i2p:0")
    local = Address.parse("obscura://127.0.0.1:9733")
    book, on_dev = Book(), Book()
    for kept, allowed in ((book, False), (on_dev, True)):
        seeds = seeds_of(kept, allow_loopback=allowed)
        play(seeds, start(seeds), {"TXT": signed(onion, i2p, local)})
    assert book.added == [(str(onion), True, Face.ONION), (str(i2p), True, Face.I2P)]
    assert (str(local), True, Face.CLEARNET) in on_dev.added


@pytest.mark.parametrize("face", [Face.CLEARNET, Face.ONION])
def test_what_is_found_in_networks_that_are_off_leaves_the_built_in_list_in_use(face: Face) -> None:
    onion = Address.parse("obscura://2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9733")
    for listed, named, is_enough in (
        (SEED, plain(), face is Face.CLEARNET),
        (onion, plain(), face is Face.ONION),
        (None, plain("8.1.2.3"), face is Face.CLEARNET),
    ):
        book = Book()
        seeds = seeds_of(book, faces=frozenset({face}))
        play(seeds, start(seeds), {"TXT": signed(listed) if listed is not None else NOTHING, "A": named})
        assert ((str(BUILT_IN_SEED), True, Face.CLEARNET) not in book.added) is is_enough


# --- Unsigned records -----------------------------------------------------------------------------------------------


def test_without_a_key_only_addresses_that_two_operators_name_count_and_as_unsigned() -> None:
    book = Book()
    seeds = seeds_of(book, source=source(key=None))
    begun = start(seeds)
    first, second = (lookup.provider for lookup in lookups(begun))
    third = (set(BUILT_IN) - {first, second}).pop()
    answers = {first: plain("8.1.2.3", "8.9.9.9"), second: plain("8.1.2.3", "2a00::1"), third: plain()}
    asked = play(seeds, begun, {"A": answers})
    assert [lookup.kinds for lookup in asked] == [("A", "AAAA")] * 2
    assert book.added == [(str(Address(None, "8.1.2.3", 9733, CarrierNumber.TLS)), False, Face.CLEARNET)]


def test_a_key_of_a_signed_list_outlives_rounds_that_find_nothing_and_the_next_start() -> None:
    """The network's file may be older than the list: it would bring back a key that the seed has no more, and as a hard one."""
    own = real_book(Clock())
    old, new = (Address(key(n), "20.1.0.9", 9_733, CarrierNumber.TLS) for n in (1, 2))
    assert own.add_seeds([old], True, Face.CLEARNET, 0.0, is_built_in=True) == 1
    seeds = seeds_of(own, source=SeedSource(NETWORK, 9_733, (NAME,), PUBLIC, (old,)))  # type: ignore[arg-type]
    (entry,) = own.entries()
    assert entry.keys.hard == key(1)
    play(seeds, seeds.ask(0.0), {"TXT": signed(new)})
    assert entry.keys.hard == key(2)
    silent = (Answer("A", fault="no answer"), Answer("AAAA", fault="no answer"))
    play(seeds, seeds.ask(90_000.0), {"TXT": FAULT, "A": silent}, 90_000.0)
    own.add_seeds([old], True, Face.CLEARNET, 0.0, is_built_in=True)  # as each start does
    assert entry.keys.hard == key(2)


def test_where_two_disagree_a_third_decides() -> None:
    book = Book()
    seeds = seeds_of(book, source=source(key=None))
    begun = start(seeds)
    liar, honest = (lookup.provider for lookup in lookups(begun))
    third = (set(BUILT_IN) - {liar, honest}).pop()
    answers = {liar: plain("8.6.6.6"), honest: plain("8.1.2.3"), third: plain("8.1.2.3", "8.7.7.7")}
    play(seeds, begun, {"A": answers})
    assert [added[0] for added in book.added] == ["obscura://8.1.2.3:9733?carrier=tls"]


def test_two_providers_of_one_operator_are_one_voice() -> None:
    book = Book()
    ours = tuple(f"https://d{n}.example/dns-query?ip=192.0.2.{n}&operator=us" for n in (1, 2))
    seeds = seeds_of(book, settings={"providers": (*ours, "quad9")}, source=source(key=None))
    play(seeds, start(seeds), {"A": dict.fromkeys(seeds.providers, plain("8.6.6.6")) | {"quad9": plain()}})
    assert [added[0] for added in book.added] == [str(BUILT_IN_SEED)]


@pytest.mark.parametrize("seed", range(8))
def test_a_round_asks_no_operator_twice(seed: int) -> None:
    ours = tuple(f"https://d{n}.example/dns-query?ip=192.0.2.{n}&operator=us" for n in (1, 2, 3))
    seeds = seeds_of(seed=seed, settings={"providers": (*ours, "quad9")})
    asked = [lookup.provider for lookup in play(seeds, start(seeds), {"TXT": FAULT, "A": plain()})]
    assert sorted(seeds.providers[label].operator for label in asked) == ["quad9", "quad9", "us", "us"]  # TXT, then A


def test_signed_lists_come_first_and_plain_records_after() -> None:
    book = Book()
    seeds = seeds_of(book)
    asked = play(seeds, start(seeds), {"TXT": NOTHING, "A": plain("8.1.2.3")})
    assert [lookup.kinds for lookup in asked] == [("TXT",)] * 3 + [("A", "AAAA")] * 2
    assert [added[1] for added in book.added] == [False]


@pytest.mark.parametrize(
    "bad", ["10.0.0.1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "255.255.255.255", "192.168.1.1", "::1",
            "fe80::1", "fc00::1", "::ffff:8.8.8.8", "ff02::1", "::", "100.64.0.1", "fd87:d87e:eb43::1",
            "64:ff9b::7f00:1", "2002:a00:1::1", "::10.0.0.1", "fec0::1", "4000::1"]
)  # fmt: skip
def test_agreed_addresses_that_no_public_seed_has_are_dropped(bad: str) -> None:
    book = Book()
    seeds = seeds_of(book, source=source(key=None))
    play(seeds, start(seeds), {"A": plain(bad)})
    assert [added[0] for added in book.added] == [str(BUILT_IN_SEED)]  # as if nothing had come


def test_on_dev_loopback_is_a_seed_with_the_plain_carrier() -> None:
    book = Book()
    seeds = seeds_of(book, source=source(key=None), allow_loopback=True)
    play(seeds, start(seeds), {"A": plain("127.0.0.2")})
    assert book.added == [("obscura://127.0.0.2:9733", False, Face.CLEARNET)]


def test_a_flood_of_records_is_cut() -> None:
    book = Book()
    seeds = seeds_of(book, source=source(key=None))
    play(seeds, start(seeds), {"A": plain(*(f"8.1.{n >> 8}.{n & 255}" for n in range(2_000)))})
    assert len(book.added) == limits.SEED_RECORDS


# --- Rotation, cache, back-off --------------------------------------------------------------------------------------


def test_over_many_rounds_every_provider_is_asked_alike() -> None:
    seeds, now, count = seeds_of(), 0.0, dict.fromkeys(BUILT_IN, 0)
    for _ in range(30):
        for lookup in play(seeds, start(seeds, now), {"TXT": signed(SEED)}, now):
            count[lookup.provider] += 1
        now = seeds.deadline()
    assert sum(count.values()) == 60
    assert set(count.values()) == {20}


def test_the_first_pair_is_chance() -> None:
    pairs = {tuple(lookup.provider for lookup in lookups(start(seeds_of(seed=n)))) for n in range(60)}
    assert len(pairs) == 6


def test_several_names_take_turns() -> None:
    names = (NAME, "b.example.org", "c.example.org")
    seeds, now, asked = seeds_of(source=source(names=names)), 0.0, []
    for _ in range(4):
        asked.append(play(seeds, start(seeds, now), {"TXT": NOTHING, "A": plain()}, now)[0].name)
        now = seeds.deadline()
    assert asked == [*names, NAME]


def test_who_failed_comes_last_until_the_rest_is_over() -> None:
    seeds = seeds_of()
    begun = start(seeds)
    bad = lookups(begun)[0].provider
    answers = {label: FAULT if label == bad else signed(SEED) for label in BUILT_IN}
    play(seeds, begun, {"TXT": answers})
    assert next(shown for shown in seeds.show(1.0)["providers"] if shown["provider"] == bad)["rests_s"] > 0
    again = lookups(seeds.ask(29.0))
    assert bad not in [lookup.provider for lookup in again]


def test_fruitless_rounds_come_ever_more_rarely_and_use_what_is_kept() -> None:
    seeds, now, waits, asked = seeds_of(), 0.0, [], []
    for _ in range(12):
        asked.append(len(play(seeds, start(seeds, now), {"TXT": NOTHING, "A": plain()}, now)))
        waits.append(seeds.deadline() - now)
        now = seeds.deadline()
    low, high = limits.SEED_BACKOFF_S
    assert all(low <= wait <= high for wait in waits)
    assert max(waits[6:]) > 4 * waits[0]
    assert asked[0] == 6  # three for TXT, three for addresses
    assert 0 in asked[1:]  # "there is none" was still known


def test_rounds_that_reach_nobody_are_repeated_every_few_minutes_since_the_own_network_may_be_away() -> None:
    seeds, now, waits = seeds_of(), 0.0, []
    for _ in range(12):
        play(seeds, start(seeds, now), {"TXT": FAULT, "A": FAULT}, now)
        waits.append(seeds.deadline() - now)
        now = seeds.deadline()
    assert max(waits[6:]) > 4 * waits[0]
    assert max(waits) <= limits.SEED_UNHEARD_MOST_S + 0.001
    play(seeds, start(seeds, now), {"TXT": signed(SEED)}, now)
    now = seeds.deadline()
    play(seeds, start(seeds, now), {"TXT": FAULT, "A": FAULT}, now)
    assert seeds.deadline() - now <= 3 * limits.SEED_BACKOFF_S[0]  # from the beginning again


def test_what_is_kept_is_not_asked_again_and_time_to_live_is_clamped() -> None:
    for ttl, records, kept in [(0, 1, 300), (10**9, 1, 86_400), (0, 0, 60), (10**9, 0, 3_600)]:
        seeds = seeds_of(source=source(key=None))
        raw = (bytes([8, 1, 2, 3]),) * records
        said = (Answer("A", raw, ttl), Answer("AAAA", raw and (bytes([0x2A]) + bytes(15),), ttl))
        play(seeds, start(seeds), {"A": said})
        shown = seeds.show(0.0)["answers"]
        assert {answer["kept_s"] for answer in shown} == {kept}
        known = {answer["provider"] for answer in shown}
        assert known.isdisjoint(
            lookup.provider for lookup in play(seeds, seeds.ask(kept - 1.0), {"A": said}, kept - 1.0)
        )
        assert known & {lookup.provider for lookup in play(seeds, seeds.ask(kept + 1.0), {"A": said}, kept + 1.0)}


def test_a_list_that_expired_in_the_cache_does_not_count() -> None:
    unix = [UNIX]
    book = Book()
    seeds = Seeds(SeedSettings(), source(), book, random.Random(1), lambda: unix[0], 0.0)
    play(seeds, start(seeds), {"TXT": signed(SEED)})
    unix[0] += 10
    book.added.clear()
    play(seeds, seeds.ask(10.0), {"TXT": NOTHING, "A": plain()}, 10.0)
    assert (str(SEED), True, Face.CLEARNET) not in book.added


def test_the_configuration_wins_over_the_network() -> None:
    seeds = seeds_of(settings={"names": ("own.example",), "key": "a" * 52}, source=source(key=None))
    (first, _) = lookups(start(seeds))
    assert (first.name, first.kinds) == ("own.example", ("TXT",))


# --- Faults of whoever carries lookups out ----------------------------------------------------------------------------


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    book = Book()
    seeds = seeds_of(book)
    stray = Lookup("quad9", NAME, ("TXT",))
    assert seeds.answered(stray, (signed(SEED),), 0.0) == []
    first, _ = lookups(start(seeds))
    idle = (set(BUILT_IN) - {lookup.provider for lookup in [first, _]}).pop()
    for wrong in (Lookup(idle, NAME, ("TXT",)), Lookup(first.provider, "x.example", ("TXT",)),
                  Lookup(first.provider, NAME, ("A", "AAAA"))):  # fmt: skip
        assert seeds.answered(wrong, (signed(SEED),), 0.0) == []
    assert not book.added
    seeds.answered(first, (signed(SEED),), 0.0)
    assert seeds.answered(first, (signed(OTHER, sequence=9),), 0.0) == []
    assert [added[0] for added in book.added] == [str(SEED)]


def test_a_lookup_that_is_never_answered_ends_by_itself() -> None:
    book = Book()
    seeds = seeds_of(book)
    start(seeds)
    for _ in range(8):
        assert seeds.deadline() < inf
        seeds.due(seeds.deadline())
        if book.added:
            break
    assert book.added == [(str(BUILT_IN_SEED), True, Face.CLEARNET)]


def test_one_round_at_a_time() -> None:
    seeds = seeds_of()
    assert start(seeds)
    assert seeds.ask(1.0) == []


@given(st.randoms(use_true_random=False), st.lists(st.binary(max_size=40), max_size=4))
@settings(deadline=None, max_examples=100)
def test_whatever_all_providers_say_the_next_look_is_ahead_and_nothing_unsigned_passes_as_signed(
    rng: random.Random, texts: list[bytes]
) -> None:
    book = Book()
    seeds = Seeds(SeedSettings(), source(), book, rng, lambda: UNIX, 0.0)
    now = 0.0
    for _ in range(5):
        waiting = lookups(start(seeds, now))
        while waiting:
            lookup = waiting.pop(rng.randrange(len(waiting)))
            said = [
                Answer(kind, tuple(texts) if kind == "TXT" else (rng.randbytes(4 if kind == "A" else 16),), 5)
                if rng.random() < 0.7
                else Answer(kind, fault="x")
                for kind in lookup.kinds
            ]
            waiting += lookups(seeds.answered(lookup, said, now))
        assert now < seeds.deadline() < inf
        now = seeds.deadline()
    assert {text for text, is_signed, _ in book.added if is_signed} <= {str(BUILT_IN_SEED)}


# --- Settings -------------------------------------------------------------------------------------------------------


def test_default_providers_are_three_operators_with_names_and_pinned_addresses() -> None:
    providers = SeedSettings().resolvers()
    assert [provider.host for provider in providers.values()] == ["cloudflare-dns.com", "dns.google", "dns.quad9.net"]
    for provider in providers.values():
        assert {ip_address(address).version for address in provider.addresses} == {4, 6}
        assert all(ip_address(address).is_global for address in provider.addresses)


def test_an_own_provider() -> None:
    text = "https://dns.example.org:8443/q?ip=192.0.2.1&ip=2001:db8::1&operator=us&ca=/etc/ca.pem"
    assert SeedSettings(providers=(text,)).resolvers() == {
        "dns.example.org:8443/q": Provider(
            "dns.example.org", ("192.0.2.1", "2001:db8::1"), "us", "/q", 8443, "/etc/ca.pem"
        )
    }


@pytest.mark.parametrize(
    "bad",
    ["opendns", "http://dns.example/?ip=192.0.2.1", "https://dns.example/dns-query", "https://dns.example/?ip=dns.example",
     "https://dns.example/?ip=192.0.2.1&dns=AAA", "https://dns.example/?ip=192.0.2.1&ca=a&ca=b", "https://?ip=192.0.2.1",
     "https://u@dns.example/?ip=192.0.2.1", "https://dns.example:99999/?ip=192.0.2.1", "https://dns.example/?ip",
     "https://dns.example/?ip=192.0.2.1#x", "https://[::1/?ip=::1", "", "https://dns example/?ip=192.0.2.1"],
)  # fmt: skip
def test_a_provider_that_cannot_be_reached_without_a_resolver_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"seeds\.providers"):
        SeedSettings(providers=(bad,))


@pytest.mark.parametrize(
    "options",
    [{"names": ("no name",)}, {"names": ("UPPER.example",)}, {"key": "short"}, {"names": ("a.example",) * 9},
     {"providers": ("quad9",) * 17}],
)  # fmt: skip
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        SeedSettings(**options)
