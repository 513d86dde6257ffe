"""The header tree: most work wins, first seen stays, ways from tip to tip, locators; checked against a plain model."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura import limits
from obscura.ledger.chain import BAD_PARENT, KNOWN_BAD, UNKNOWN_PARENT, Chain, Reorganisation
from obscura.ledger.header import Header
from obscura.ledger.ids import IdTable
from obscura.ledger.work import bits_of, target_of
from small_chains import EASY, LATER, START, child, easy_ledger, extend

LEDGER = easy_ledger()


def new_chain() -> Chain:
    return Chain(LEDGER)


def receive(chain: Chain, ids: list[bytes]) -> list[Reorganisation | None]:
    return [chain.received(block_id) for block_id in ids]


def test_a_new_chain_is_its_genesis() -> None:
    chain = new_chain()
    assert chain.best == chain.tip == chain.genesis == LEDGER.block_id(LEDGER.genesis)
    assert (chain.best_height, chain.tip_height, len(chain)) == (0, 0, 1)
    assert chain.locator() == [chain.genesis]
    assert chain.has_body(chain.genesis)
    assert chain.missing(10) == []


def test_most_work_wins_and_the_first_seen_stays() -> None:
    chain = new_chain()
    first = extend(LEDGER, chain, chain.genesis, 3)
    second = extend(LEDGER, chain, chain.genesis, 3, salt=1)
    assert chain.best == first[-1], "equal work: the first stays"
    longer = extend(LEDGER, chain, second[-1], 1, salt=1)
    assert chain.best == longer[0]
    assert [chain.at(height) for height in range(5)] == [chain.genesis, *second, *longer]
    assert [chain.on_best(i) for i in (first[0], second[0])] == [False, True]


def test_one_heavy_header_beats_many_light_ones() -> None:
    ledger = easy_ledger(retarget_blocks=2)
    chain = Chain(ledger)
    a = child(ledger, chain, chain.genesis, salt=1, time=Header.decode(ledger.genesis).time + 1)
    b = child(ledger, chain, chain.genesis, salt=2, time=Header.decode(ledger.genesis).time + 1000)
    assert chain.add_all([a, b], LATER) == ([a, b], None)
    for number in range(2):  # light: 1,000 s passed before b, so its branch stays at the limit; none before a
        header = child(ledger, chain, chain.best if number else ledger.block_id(b))
        assert chain.add(header, LATER) is None
    light = chain.best
    heavy = child(ledger, chain, ledger.block_id(a))
    assert Header.decode(heavy).bits == bits_of(target_of(EASY) // 4)
    assert chain.add(heavy, LATER) is None
    assert chain.work(ledger.block_id(heavy)) > chain.work(light)
    assert chain.best == ledger.block_id(heavy)
    assert chain.best_height == 2 < chain.height(light)


def test_the_tip_follows_blocks_in_any_order() -> None:
    chain = new_chain()
    ids = extend(LEDGER, chain, chain.genesis, 5)
    assert chain.missing(3) == ids[:3]
    assert receive(chain, [ids[3], ids[1], ids[2]]) == [None] * 3
    assert chain.tip == chain.genesis
    assert chain.missing(10) == [ids[0], ids[4]]
    assert chain.received(ids[0]) == Reorganisation([], ids[:4])
    assert (chain.tip, chain.tip_height) == (ids[3], 4)
    assert chain.missing(10) == [ids[4]]
    assert chain.received(ids[0]) is None, "again changes nothing"


def test_reorganisation_of_some_depth() -> None:
    chain = new_chain()
    trunk = extend(LEDGER, chain, chain.genesis, 4)
    old = extend(LEDGER, chain, trunk[-1], 30, salt=1)
    new = extend(LEDGER, chain, trunk[-1], 31, salt=2)
    receive(chain, trunk + old)
    assert chain.tip == old[-1]
    assert receive(chain, new[:-1]) == [None] * 30
    assert chain.received(new[-1]) == Reorganisation(old[::-1], new)
    assert chain.fork_point(old[-1], new[-1]) == chain.fork_point(new[3], old[20]) == trunk[-1]
    assert chain.reorganisation(new[-1], old[0]) == Reorganisation(new[::-1], [old[0]])
    assert chain.reorganisation(old[0], old[0]) == Reorganisation([], [])
    assert chain.ancestor(old[-1], 2) == trunk[1]
    with pytest.raises(KeyError):
        chain.ancestor(trunk[0], 2)


def test_refusing_takes_descendants_along_and_falls_back() -> None:
    chain = new_chain()
    side = extend(LEDGER, chain, chain.genesis, 2, salt=1)
    ids = extend(LEDGER, chain, chain.genesis, 4)
    receive(chain, side + ids[:3])
    assert chain.tip == ids[2]
    assert chain.refuse(ids[1]) == Reorganisation(ids[:3][::-1], side)
    assert [chain.is_bad(i) for i in ids] == [False, True, True, True]
    assert chain.best == chain.tip == side[-1]
    assert chain.add(chain.header(ids[3]), LATER) == KNOWN_BAD
    assert chain.add(child(LEDGER, chain, ids[3]), LATER) == BAD_PARENT
    again = extend(LEDGER, chain, ids[0], 2, salt=3)
    assert chain.best == again[-1], "what is good below a bad one can be built on"
    assert chain.after([ids[3], ids[0]]) == again
    with pytest.raises(ValueError):
        chain.refuse(chain.genesis)
    assert chain.refuse(again[1]) is None


def test_refusing_twice_and_a_block_that_came_before() -> None:
    chain = new_chain()
    ids = extend(LEDGER, chain, chain.genesis, 3)
    chain.received(ids[2])
    chain.refuse(ids[2])
    chain.refuse(ids[2])
    assert receive(chain, ids[:2])[-1] == Reorganisation([], [ids[1]])
    assert chain.tip == chain.best == ids[1]


def test_unknown_and_unconnected() -> None:
    chain = new_chain()
    ids = extend(LEDGER, chain, chain.genesis, 2)
    other = new_chain()
    assert other.add(chain.header(ids[1]), LATER) == UNKNOWN_PARENT
    assert other.add_all([chain.header(i) for i in (*ids, *ids)], LATER) == ([chain.header(i) for i in ids], None)
    assert other.add(b"", LATER) is not None
    assert ids[0] in other
    assert bytes(32) not in other
    assert not other.is_bad(bytes(32))
    for ask in (other.height, other.header, other.work, other.branch, other.received, other.refuse, other.has_body):
        with pytest.raises(KeyError):
            ask(bytes(32))
    for height in (-1, 3):
        with pytest.raises(KeyError):
            other.at(height)


def test_locators() -> None:
    chain = new_chain()
    ids = [chain.genesis, *extend(LEDGER, chain, chain.genesis, 300)]
    heights = [chain.height(i) for i in chain.locator()]
    assert heights == [300, 299, 298, 297, 296, 295, 294, 293, 292, 291, 289, 285, 277, 261, 229, 165, 37, 0]
    assert [chain.height(i) for i in chain.locator(ids[5])] == [5, 4, 3, 2, 1, 0]
    assert chain.after(chain.locator()) == []
    assert chain.after([ids[290]]) == ids[291:]
    assert chain.after([bytes(32), ids[290], ids[3]]) == ids[291:]
    assert chain.after([bytes(32)]) == ids[1:]
    assert chain.after([ids[10]], limit=5) == ids[11:16]
    assert chain.after([ids[10]], stop=ids[12]) == ids[11:13]
    assert chain.after([ids[10]], stop=ids[9]) == ids[11:]
    assert chain.after([], stop=ids[9]) == [ids[9]]
    assert chain.after([]) == []
    side = extend(LEDGER, chain, ids[100], 3, salt=1)
    assert chain.after(chain.locator(side[-1])) == ids[101:], "from where the branches part"


def test_a_locator_longer_than_allowed_is_not_read_to_its_end() -> None:
    chain = new_chain()
    ids = extend(LEDGER, chain, chain.genesis, 2)
    assert chain.after([bytes(32)] * limits.MAX_LOCATOR + [ids[0]]) == ids


def test_enough_work_is_near_the_tip() -> None:
    chain = new_chain()
    assert chain.enough_work() <= 0
    ids = extend(LEDGER, chain, chain.genesis, 200)
    receive(chain, ids)
    assert chain.enough_work() == chain.work(ids[200 - 144 - 1])
    LEDGER.minimum_work = 10**6
    try:
        assert chain.enough_work() == 10**6
    finally:
        del LEDGER.minimum_work


def test_restoring_what_a_store_kept() -> None:
    chain = new_chain()
    ids = extend(LEDGER, chain, chain.genesis, 6)
    side = extend(LEDGER, chain, ids[1], 6, salt=1)
    headers = [chain.header(i) for i in ids + side]
    restored = new_chain()
    restored.restore([*headers, *headers], {*ids[:5], side[2]}.__contains__, [side[0], bytes(32)])
    assert (restored.best, restored.tip, len(restored)) == (ids[-1], ids[4], 13)
    assert restored.missing(10) == [ids[5]]
    assert all(restored.is_bad(i) for i in side)


def test_of_two_equal_tips_a_restart_keeps_the_one_it_had() -> None:
    chain = new_chain()
    one, other = extend(LEDGER, chain, chain.genesis, 3), extend(LEDGER, chain, chain.genesis, 3, salt=1)
    receive(chain, other + one)
    assert (chain.tip, chain.best) == (other[-1], one[-1])
    headers = [chain.header(i) for i in one + other]

    def restored_tip(tip: bytes, bad: list[bytes]) -> bytes:
        again = new_chain()
        again.restore(headers, {*one, *other}.__contains__, bad, tip)
        return again.tip

    assert restored_tip(other[-1], []) == other[-1]
    assert restored_tip(other[-2], []) == one[-1], "less work"
    assert restored_tip(other[-1], [other[0]]) == one[-1], "bad"
    assert restored_tip(bytes(32), []) == one[-1], "unknown"


def test_peers_are_told_of_what_is_here() -> None:
    chain = new_chain()
    ids = extend(LEDGER, chain, chain.genesis, 5)
    side = extend(LEDGER, chain, ids[0], 2, salt=1)
    assert chain.after([chain.genesis], whole=True) == []
    receive(chain, [*ids[:3], ids[4]])
    assert chain.after([chain.genesis], whole=True) == ids[:3]
    assert chain.after([chain.genesis], limit=2, whole=True) == ids[:2]
    assert chain.after([ids[3]], whole=True) == []
    extend(LEDGER, chain, side[-1], 3, salt=1)
    assert chain.after([chain.genesis], whole=True) == [ids[0]], "the better branch is not here yet"


def test_memory_per_header() -> None:
    chain = new_chain()
    headers = [chain.header(i) for i in extend(LEDGER, chain, chain.genesis, 3000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = new_chain()
        kept.restore(headers, lambda _: True, [])
        each = (tracemalloc.get_traced_memory()[0] - before) / len(headers)
    finally:
        tracemalloc.stop()
    assert each < 250


def test_the_id_table_as_a_dict() -> None:
    rng = random.Random(5)
    table, model = IdTable(), {}
    for number in range(2000):
        identity = rng.randbytes(32)
        assert table.number(identity) is None
        assert table.add(identity) == number
        model[identity] = number
    assert len(table) == 2000
    assert all(table.number(identity) == number and table[number] == identity for identity, number in model.items())


class Model:
    """The same questions answered by looking at everything each time."""

    def __init__(self, chain: Chain) -> None:
        self.genesis = chain.genesis
        self.parent: dict[bytes, bytes] = {}
        self.order = [chain.genesis]
        self.bodies, self.bad = {chain.genesis}, set[bytes]()

    def line(self, block_id: bytes) -> list[bytes]:
        line = [block_id]
        while line[-1] != self.genesis:
            line.append(self.parent[line[-1]])
        return line[::-1]

    def best(self) -> bytes:
        good = [i for i in self.order if not self.bad & set(self.line(i))]
        return max(good, key=lambda i: (len(self.line(i)), -self.order.index(i)))

    def tip_length(self) -> int:
        lines = [self.line(i) for i in self.order]
        return max(len(line) for line in lines if self.bodies.issuperset(line) and not self.bad & set(line))


@given(st.lists(st.tuples(st.sampled_from("hhhhbbbr"), st.integers(0, 10**6)), max_size=40))
@settings(deadline=None, max_examples=60)
def test_any_order_of_events_as_the_model_has_it(events: list[tuple[str, int]]) -> None:
    chain = new_chain()
    model = Model(chain)
    tip = chain.tip
    for salt, (event, draw) in enumerate(events):
        block_id = model.order[draw % len(model.order)]
        way = None
        if event == "h" and not chain.is_bad(block_id):
            header = child(LEDGER, chain, block_id, salt)
            assert chain.add(header, LATER) is None
            model.parent[LEDGER.block_id(header)] = block_id
            model.order.append(LEDGER.block_id(header))
        elif event == "b" and not chain.is_bad(block_id):
            way = chain.received(block_id)
            model.bodies.add(block_id)
        elif event == "r" and block_id != chain.genesis:
            way = chain.refuse(block_id)
            model.bad.add(block_id)
        assert chain.best == model.best()
        assert chain.tip_height + 1 == model.tip_length()
        assert (way is not None) == (chain.tip != tip)
        if way:
            assert model.line(tip)[len(model.line(tip)) - len(way.disconnect) :][::-1] == way.disconnect
            assert model.line(chain.tip)[len(model.line(chain.tip)) - len(way.connect) :] == way.connect
        tip = chain.tip
    assert [chain.at(h) for h in range(chain.best_height + 1)] == model.line(chain.best)
    wanted = [i for i in model.line(chain.best) if i not in model.bodies]
    assert chain.missing(1000) == [
        i for i in wanted if chain.height(i) > chain.height(chain.fork_point(chain.tip, chain.best))
    ]


def test_a_chain_whose_interval_is_no_multiple_of_four_seconds_is_restored() -> None:
    """Its work may change by a little more than a factor of four: 21 s that took no more than 5."""
    ledger = easy_ledger(spacing_s=7, retarget_blocks=3)
    chain = Chain(ledger)
    for number in range(1, 4):
        header = child(ledger, chain, chain.best, time=START + number)
        assert chain.add(header, LATER) is None
    headers = [chain.header(chain.at(height)) for height in range(1, 4)]
    again = Chain(ledger)
    assert again.restore(headers, lambda block_id: False, []) is None
    assert again.best == chain.best


def test_ids_are_found_while_their_table_grows() -> None:
    """A verification asks in a thread of its own; what it does not find it would tell as damaged."""
    found: list[int | None] = []

    class Asked(IdTable):
        def __getitem__(self, number: int) -> bytes:
            found.append(self.number((100).to_bytes(32, "big")))
            return super().__getitem__(number)

    table = Asked()
    for number in range(2_000):
        table.add(number.to_bytes(32, "big"))
    assert len(found) > 1_000
    assert set(found) == {100}
