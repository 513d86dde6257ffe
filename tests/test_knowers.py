"""Who knows of which transaction, beside a model that remembers a set per link."""

from __future__ import annotations

import random
import tracemalloc

from obscura.limits import TX_KNOWN
from obscura.node.knowers import Bit, Knowers


def ids(number: int) -> list[bytes]:
    return [b"%032d" % place for place in range(number)]


def test_it_says_what_a_memory_of_each_link_alone_would_say() -> None:
    rng, table, some = random.Random(1), Knowers(), ids(40)
    links: dict[Bit, tuple[set[bytes], set[bytes]]] = {}  # had, told
    waiting: set[bytes] = set()
    for _ in range(30_000):
        id, act = rng.choice(some), rng.randrange(14)
        if act == 0 or not links:
            bit = table.join()
            assert bit not in links
            links[bit] = (set(), set())
        elif act == 1:
            bit = rng.choice(list(links))
            table.leave(bit)
            del links[bit]
        elif act == 2:
            waiting ^= {id}
            (table.waits if id in waiting else table.went)(id)
            if id not in waiting:
                for _, told in links.values():
                    told.discard(id)
        elif act < 8:
            bit = rng.choice(list(links))
            table.heard(id, bit)
            links[bit][0].add(id)
        else:
            bit = rng.choice(list(links))
            table.told(id, bit)
            links[bit][1].add(id)
        knowing = {bit for bit, (had, told) in links.items() if id in had | told}
        assert {bit for bit in links if table.knowing(id) & bit} == knowing
        assert table.knowing(id) == sum(knowing)
        assert table.having(id) == sum(bit for bit, (had, _) in links.items() if id in had)
        for bit, (_, told) in links.items():
            assert table.was_told(id, bit) == (id in told and id in waiting)


def test_links_that_come_and_go_do_not_make_it_wider() -> None:
    table = Knowers()
    table.waits(b"a")
    stays = table.join()
    for _ in range(1_000):
        bit = table.join()
        assert bit < 1 << 8
        assert not table.knowing(b"a") & bit
        table.heard(b"a", bit)
        table.leave(bit)
    table.told(b"a", stays)
    assert table.knowing(b"a") == stays
    assert table.having(b"a") == 0


def test_a_thousand_links_cost_no_more_than_the_ids_of_one() -> None:
    table, some = Knowers(), ids(3 * TX_KNOWN)
    bits = [table.join() for _ in range(1_000)]
    tracemalloc.start()
    for place, id in enumerate(some):  # of a stranger's making: nothing of it ever waits
        table.heard(id, bits[place % 1_000])
        table.heard(id, bits[-1])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * TX_KNOWN * 600
    assert not table.knowing(some[0])
    assert table.knowing(some[-1])


def test_what_is_known_of_a_waiting_transaction_is_not_pushed_out() -> None:
    table = Knowers()
    bit = table.join()
    table.waits(b"a")
    table.told(b"a", bit)
    for id in ids(3 * TX_KNOWN):
        table.heard(id, bit)
    assert table.was_told(b"a", bit)
    table.went(b"a")
    assert not table.was_told(b"a", bit)
    assert not table.knowing(b"a"), "told of it, and it cannot be fetched any more"
    table.heard(b"a", bit)
    assert table.knowing(b"a") == bit
    for id in ids(3 * TX_KNOWN):
        table.heard(id + b"!", bit)
    assert not table.knowing(b"a")
