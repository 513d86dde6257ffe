"""What strangers may cost: key agreements, sockets, memory. The attacker has many addresses, time, and a channel if it wants."""

from __future__ import annotations

import random
from collections import Counter
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.limits import (
    DISCARD_S,
    HANDSHAKE_S,
    MAX_UNAUTHENTICATED,
    TRIAL_GROUPS,
    TRIALS_PER_GROUP_BURST,
    TRIALS_PER_GROUP_PER_S,
    TRIALS_PER_S,
)
from obscura.node.admission import Admission, AdmissionLimits, group_of
from obscura.node.ratelimit import Meter, TokenBucket, rates_of
from obscura.node.timers import Timers
from obscura.wire.address import Endpoint
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.messages.network import Ping
from obscura.wire.messages.transactions import Tx
from playbook import Guest, Host, client, visit


def at(host: str) -> Endpoint:
    """A place with a port that does not matter."""
    return Endpoint.of(host, 50_000)


def allowed(admission: Admission, endpoint: Endpoint | None, now: float, tries: int) -> int:
    """How many of so many tries are let pass in one instant."""
    return sum(admission.may_try(endpoint, now) for _ in range(tries))


# --- Trials -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["127.0.0.1", "::1", None])
def test_three_hundred_trials_a_second_in_all(place: str | None) -> None:
    """Loopback off the dev network, onion, I2P: no group to blame, the total alone."""
    admission = Admission(AdmissionLimits(), loopback_is_free=False, now=0.0)
    endpoint = at(place) if place is not None else None
    assert allowed(admission, endpoint, 0.0, 1_000) == TRIALS_PER_S
    assert allowed(admission, endpoint, 0.0, 10) == 0
    assert allowed(admission, endpoint, 0.5, 1_000) == TRIALS_PER_S / 2
    assert allowed(admission, endpoint, 100.0, 1_000) == TRIALS_PER_S


def test_loopback_is_free_on_dev_and_others_are_not() -> None:
    admission = Admission(AdmissionLimits(), loopback_is_free=True, now=0.0)
    assert allowed(admission, at("127.0.0.1"), 0.0, 5_000) == 5_000
    assert allowed(admission, at("::1"), 0.0, 100) == 100
    assert allowed(admission, at("203.0.113.1"), 0.0, 100) == TRIALS_PER_GROUP_BURST
    assert allowed(admission, None, 0.0, 1_000) == TRIALS_PER_S - TRIALS_PER_GROUP_BURST


@pytest.mark.parametrize(
    ("same", "other"),
    [(["203.0.1.1", "203.0.254.9"], "203.1.0.1"), (["2001:db8:1::1", "2001:db8:ffff::2"], "2001:db9::1")],
)
def test_a_group_has_two_trials_a_second_and_ten_at_once(same: list[str], other: str) -> None:
    admission = Admission(AdmissionLimits(), loopback_is_free=False, now=0.0)
    assert sum(allowed(admission, at(place), 0.0, 50) for place in same) == TRIALS_PER_GROUP_BURST
    assert allowed(admission, at(other), 0.0, 50) == TRIALS_PER_GROUP_BURST
    assert allowed(admission, at(same[0]), 1.0, 50) == TRIALS_PER_GROUP_PER_S
    assert allowed(admission, at(same[0]), 1_000.0, 50) == TRIALS_PER_GROUP_BURST


def test_many_groups_meet_the_total_and_are_forgotten() -> None:
    admission = Admission(AdmissionLimits(), loopback_is_free=False, now=0.0)
    rng = random.Random(1)
    passed = 0
    for _ in range(3 * TRIAL_GROUPS):
        place = at(f"{rng.randint(1, 126)}.{rng.randint(0, 255)}.1.1")
        passed += admission.may_try(place, 0.0)
        assert len(admission._groups) <= TRIAL_GROUPS
    assert passed == TRIALS_PER_S
    admission.may_try(at("203.0.113.1"), 3_600.0)
    assert len(admission._groups) == 1, "groups that were quiet cost nothing"


def test_groups() -> None:
    assert group_of(at("203.0.113.9")) == group_of(at("203.0.0.1")) != group_of(at("203.1.0.1"))
    assert group_of(at("127.5.5.5")) is group_of(at("::1")) is group_of(None) is None


# --- Sockets without a slot ---------------------------------------------------------------------------------------------

PLACES = ["127.0.0.1", "203.0.113.1", "203.0.7.7", "198.51.100.1", "2001:db8::1"]


@settings(deadline=None, max_examples=60)
@given(
    most=st.integers(1, 6),
    steps=st.lists(st.tuples(st.booleans(), st.sampled_from(PLACES), st.integers(0, 40)), max_size=60),
)
def test_a_newcomer_replaces_the_oldest_of_the_fullest_group(most: int, steps: list[tuple[bool, str, int]]) -> None:
    admission = Admission(AdmissionLimits(max_unauthenticated=most), loopback_is_free=False, now=0.0)
    model: dict[int, bytes] = {}  # in order of coming
    for serial, (comes, place, which) in enumerate(steps):
        if not comes:
            admission.release(which)
            model.pop(which, None)
            continue
        held = Counter(model.values())
        crowded = {group for group, count in held.items() if count == max(held.values())}
        expected = next((link for link, group in model.items() if group in crowded), None)
        victim = admission.admit(100 + serial, at(place))
        assert victim == (expected if len(model) == most else None)
        if victim is not None:
            del model[victim]
        model[100 + serial] = group_of(at(place)) or b"-"
        assert admission.admit(100 + serial, at(place)) is None, "counted once"
        assert admission.strangers == len(model) <= most


def test_the_two_hundred_and_fifty_seventh_stranger_replaces_one_of_the_crowd() -> None:
    host = Host()
    lonely = [host.accept(f"198.{n}.0.1") for n in range(3)]
    crowd = [host.accept("203.0.113.1", 1_000 + n) for n in range(MAX_UNAUTHENTICATED - 3)]
    assert host.shut == []
    late = host.accept("192.0.2.1")
    assert host.shut == [crowd[0]]
    assert set(lonely) | {late} <= set(host.engine.links)
    assert len(host.engine.links) == MAX_UNAUTHENTICATED


def test_discarding_ones_count() -> None:
    host = Host()
    links = [host.accept() for _ in range(MAX_UNAUTHENTICATED)]
    for link in links:
        host.give(link, bytes(1_400))
    assert host.shut == [], "all of them read and discard"
    host.accept()
    assert host.shut == [links[0]]
    host.at(HANDSHAKE_S + DISCARD_S[1])
    assert len(host.engine.links) <= 1


def test_a_stranger_with_a_channel_but_without_a_handshake_counts() -> None:
    """NX costs the attacker little: a channel alone is no reason to hold a socket for thirty seconds."""
    host = Host(admission=AdmissionLimits(max_unauthenticated=4))
    opened = []
    for seed in range(10):
        guest = Guest(host, client("nx", seed=seed), host.accept(port=seed + 1))
        for _ in range(2):
            host.give(guest.link, b"".join(guest.connection.flush(0.0)))
            guest.events += guest.connection.receive(host.taken(guest.link), 0.0)
            guest.connection.outbox._queue.clear()  # never says version
            guest.connection.outbox.waiting = 0
        opened.append(guest)
        assert len(host.engine.links) <= 4
    assert all(guest.connection.is_authenticated for guest in opened)
    assert visit(host, seed=99).connection.is_established


def test_established_peers_are_not_replaced_by_strangers_and_their_wrecks_count() -> None:
    host = Host(admission=AdmissionLimits(max_unauthenticated=4))
    guests = [visit(host, seed=seed) for seed in range(8)]
    for port in range(20):
        host.accept(port=port + 1)
    for guest in guests:
        guest.send(Ping(1))
        assert guest.connection.is_established
    assert len(host.engine.links) == 8 + 4
    for guest in guests:
        host.give(guest.link, bytes(5_000))  # each fails and discards
    assert len(host.kinds("peer-disconnected")) == 8
    assert len(host.engine.links) == 4


def test_above_the_limit_no_trial_is_made_and_nothing_is_said() -> None:
    host = Host(admission=AdmissionLimits(trials_per_group_per_s=1e-9, trials_per_group_burst=1))
    first = visit(host, seed=1, remote="203.0.113.1")
    second = visit(host, seed=2, remote="203.0.113.2")
    elsewhere = visit(host, seed=3, remote="198.51.100.1")
    assert first.connection.is_established
    assert elsewhere.connection.is_established
    assert not second.connection.is_authenticated
    assert second.link in host.engine.links, "it reads and discards"


# --- Buckets and timers ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    rate=st.floats(0.01, 1e4),
    burst=st.floats(1, 1e4),
    start=st.floats(0, 1e7),
    steps=st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), max_size=30),
)
def test_a_bucket_never_gives_more_than_its_law(
    rate: float, burst: float, start: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    now, given_out = start, 0.0
    for wait, cost in steps:
        now += wait
        given_out += cost if bucket.take(cost, now) else 0.0
        assert given_out <= burst + rate * (now - start) + 1e-6 * (1 + given_out)
    bucket.take(1.0, now - 100.0)  # a clock that goes back gives nothing


@settings(deadline=None, max_examples=300)
@given(rate=st.floats(0.01, 1e4), start=st.floats(0, 1e7), spent=st.floats(0, 3), wait=st.floats(0, 1))
def test_who_waits_as_long_as_it_was_told_is_served(rate: float, start: float, spent: float, wait: float) -> None:
    """Else a virtual clock stands still: due now, refused now, due now."""
    bucket = TokenBucket(rate, 3.0, start)
    bucket.take(spent, start)
    now = start + wait / rate
    for _ in range(3):
        now += bucket.wait_s(1.0, now)
        assert bucket.take(1.0, now)


@pytest.mark.parametrize("factor", [1.0, 1e-4])
def test_what_waits_for_its_rate_is_served_at_the_told_time(factor: float) -> None:
    """Even a message larger than all that may be saved up: when the bucket is full."""
    meter = Meter(rates_of(CATALOGUE, factor))
    flood: list[object] = [Tx(bytes(300_000)) for _ in range(250)]
    served, dropped = meter.admit(flood, 0.0)
    now, done = 0.0, len(served)
    for _ in range(2_000):
        if (when := meter.deadline(now)) == inf:
            break
        now = max(now, when)
        ready = meter.ready(now)
        assert ready, "it was told when, and it is then"
        done += len(ready)
    assert done + dropped == len(flood)
    assert (meter.held, meter.deadline(now)) == (0, inf)


@settings(deadline=None, max_examples=100)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["set", "set", "clear", "due"]), st.integers(0, 5), st.floats(0, 100)), max_size=80
    )
)
def test_timers_are_a_map_from_keys_to_times(steps: list[tuple[str, int, float]]) -> None:
    timers: Timers[int] = Timers()
    model: dict[int, float] = {}
    for what, key, when in steps:
        if what == "set":
            timers.set(key, when)
            model[key] = when
        elif what == "clear":
            timers.clear(key)
            model.pop(key, None)
        else:
            due = list(timers.due(when))
            assert sorted(due) == sorted(key for key, each in model.items() if each <= when)
            assert [model[key] for key in due] == sorted(model[key] for key in due)
            for key in due:
                del model[key]
        assert timers.deadline() == min(model.values(), default=float("inf"))
        assert len(timers) == len(model)


def test_timers_set_and_cleared_for_ever_take_no_memory() -> None:
    timers: Timers[int] = Timers()
    for when in range(100_000):
        timers.set(when % 7, float(when))
    assert len(timers._heap) < 200
