"""Keys in the book (design 10): what gossip can and cannot do to them, and how a lie is found out."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.limits import BURNT_S, KEY_FAILURES, KEY_FAILURES_S, MAX_CANDIDATE_KEYS
from obscura.node.placekeys import Keys
from peer_examples import UNIX, key

RNG = random.Random(1)


def told(*votes: tuple[int, bytes], own_word: int | None = None) -> Keys:
    keys = Keys()
    for number, source in votes:
        keys.told(key(number), source, UNIX, is_own_word=False)
    if own_word is not None:
        keys.told(key(own_word), b"itself", UNIX, is_own_word=True)
    return keys


def test_one_network_has_one_vote_however_often_it_speaks() -> None:
    keys = told((1, b"a"), (2, b"a"), (3, b"a"), (9, b"b"))
    assert [candidate.key for candidate in keys.candidates] == [key(1), key(9)]


def test_what_most_networks_say_is_tried_first_and_the_places_own_word_before_that() -> None:
    assert told((1, b"a"), (2, b"b"), (2, b"c")).best(RNG) == key(2)
    assert told((1, b"a"), (2, b"b"), (2, b"c"), own_word=3).best(RNG) == key(3)


def test_three_lies_do_not_keep_the_truth_out() -> None:
    keys = told((1, b"a"), (2, b"b"), (3, b"c"))
    assert len(keys.candidates) == MAX_CANDIDATE_KEYS
    keys.told(key(7), b"d", UNIX, is_own_word=False)
    assert key(7) not in [candidate.key for candidate in keys.candidates]
    keys.fail(keys.best(RNG) or b"", UNIX)
    keys.told(key(7), b"d", UNIX, is_own_word=False)
    assert key(7) in [candidate.key for candidate in keys.candidates]


def test_a_lie_that_failed_does_not_come_back_the_same_day() -> None:
    keys = told((1, b"a"))
    keys.fail(key(1), UNIX)
    keys.told(key(1), b"b", UNIX + 60, is_own_word=False)
    assert not keys.is_known
    keys.told(key(1), b"b", UNIX + BURNT_S + 1, is_own_word=False)
    assert keys.best(RNG) == key(1)


def test_a_verified_key_is_given_up_after_three_failures_over_a_day_and_a_hard_one_never() -> None:
    keys = Keys()
    keys.prove(key(1))
    for _ in range(10):
        keys.fail(key(1), UNIX)
    assert keys.verified == key(1)  # all at once: an outage, or somebody in between for a while
    keys.prove(key(1))
    for n in range(KEY_FAILURES):
        keys.fail(key(1), UNIX + n * KEY_FAILURES_S / (KEY_FAILURES - 1))
    assert (keys.verified, keys.best(RNG)) == (None, key(1))
    hard = Keys(hard=key(5))
    for n in range(10):
        hard.fail(key(5), UNIX + n * KEY_FAILURES_S)
    assert hard.best(RNG) == key(5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=40))
def test_gossip_never_touches_verified_and_hard_keys_and_is_bounded(votes: list[tuple[int, int, bool]]) -> None:
    keys = Keys(verified=key(77), hard=key(78))
    free = Keys()
    for number, source, is_own in votes:
        for each in (keys, free):
            each.told(key(number), bytes([source]), UNIX, is_own_word=is_own)
    assert (keys.verified, keys.hard) == (key(77), key(78))
    assert len(free.candidates) <= MAX_CANDIDATE_KEYS
    sources = [source for candidate in free.candidates for source in candidate.sources]
    assert len(sources) == len(set(sources))  # one vote each
    assert len({candidate.key for candidate in free.candidates}) == len(free.candidates)


def test_the_operator_can_forget_all_of_it() -> None:
    keys = told((1, b"a"))
    keys.prove(key(2))
    assert keys.forget()
    assert not keys.is_known
    assert not keys.forget()
