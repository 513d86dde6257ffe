"""Deadlines by key, beside the plainest thing that could be meant: a dictionary that is searched."""

import random
from math import inf

import pytest

from obscura.node.timers import Timers


@pytest.mark.parametrize("seed", range(20))
def test_timers_agree_with_a_dictionary(seed: int) -> None:
    rng = random.Random(seed)
    timers, plain, serial = Timers[int](), dict[int, tuple[float, int]](), 0
    for _ in range(2_000):
        key = rng.randrange(12)
        when = float(rng.randrange(8))  # few, so that many keys are due at one time
        match rng.choice(("set", "set", "set", "clear", "never", "due")):
            case "set":
                if key not in plain or plain[key][0] != when:
                    serial += 1
                    plain[key] = (when, serial)
                timers.set(key, when)
            case "clear":
                plain.pop(key, None)
                timers.clear(key)
            case "never":
                plain.pop(key, None)
                timers.set(key, inf)
            case "due":
                ripe = sorted((at, key) for key, at in plain.items() if at[0] <= when)
                assert list(timers.due(when)) == [key for _, key in ripe]
                for _, gone in ripe:
                    del plain[gone]
        if rng.random() < 0.5:  # what is asked must not matter
            assert timers.deadline() == min((at for at, _ in plain.values()), default=inf)
        assert len(timers) == len(plain)
        assert timers.when(key) == (plain[key][0] if key in plain else None)


def test_a_key_that_is_set_while_others_come_out() -> None:
    timers = Timers[str]()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    out = []
    for key in timers.due(2.0):
        out.append(key)
        if len(out) < 4:
            timers.set("again", 1.5)
        timers.set("later", 3.0)
    assert out == ["a", "again", "again", "again", "b"]
    assert timers.deadline() == 3.0
