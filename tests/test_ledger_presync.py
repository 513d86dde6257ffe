"""Headers without enough work cost little memory; a peer that shows one chain and delivers another gets nowhere."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from obscura import limits
from obscura.ledger import bitcoin
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header, double_sha256
from obscura.ledger.presync import ENDLESS, OTHER_CHAIN, HeadersPresync, Pass
from obscura.wire.messages import blocks
from small_chains import LATER, START, child, easy_ledger, mined, unmined

LEDGER = easy_ledger()
MESSAGE = 40  # headers in a full message here
EACH = 2  # work of one header


@pytest.fixture(autouse=True)
def _small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_HEADERS", MESSAGE)
    monkeypatch.setattr(limits, "PRESYNC_PERIOD", 10)
    monkeypatch.setattr(limits, "PRESYNC_BUFFER", 100)
    monkeypatch.setattr(limits, "PRESYNC_HEADERS", 5000)


def headers(count: int, parent: bytes | None = None, salt: int = 0) -> list[bytes]:
    """A chain of ``count`` headers on the genesis, or on the header ``parent``."""
    made = []
    last = double_sha256(parent or LEDGER.genesis)
    time = Header.decode(parent).time if parent else START
    for _ in range(count):
        time += 60
        header = mined(Header(1, last, salt.to_bytes(32, "little"), time, 0x207FFFFF, 0).encode())
        last = double_sha256(header)
        made.append(header)
    return made


LONG = headers(1000)


def start(enough: int, seed: int = 1, chain: Chain | None = None) -> HeadersPresync:
    chain = chain or Chain(LEDGER)
    return HeadersPresync(chain, chain.genesis, enough, random.Random(seed))


def answer(source: list[bytes], locator: list[bytes]) -> list[bytes]:
    """What a peer whose chain is ``source`` answers to a getheaders."""
    ids = [double_sha256(header) for header in source]
    at = next((ids.index(entry) + 1 for entry in locator if entry in ids), 0)
    return source[at : at + MESSAGE]


def test_enough_work_is_handed_over_on_the_second_pass() -> None:
    chain = Chain(LEDGER)
    presync = start(EACH * 901, chain=chain)
    passes, most_held = [presync.state], 0
    while presync.state in (Pass.COUNTING, Pass.FETCHING):
        step = presync.receive(answer(LONG, presync.locator))
        assert step.fault is None
        if presync.state is Pass.COUNTING:
            assert (list(step.headers), presync.held) == ([], 0)
        most_held = max(most_held, presync.held)
        assert chain.add_all(step.headers, LATER) == (list(step.headers), None)
        if presync.state is not passes[-1]:
            passes.append(presync.state)
    assert passes == [Pass.COUNTING, Pass.FETCHING, Pass.DONE]
    assert 0 < most_held <= limits.PRESYNC_BUFFER
    assert chain.best_height >= 900
    assert chain.work(chain.best) >= EACH * 901
    assert list(presync.receive(LONG[:5]).headers) == []


def test_a_short_chain_ends_without_a_fault_and_without_a_header() -> None:
    presync = start(EACH * 901)
    for _ in range(3):
        step = presync.receive(answer(LONG[:100], presync.locator))
        assert (list(step.headers), step.fault) == ([], None)
    assert presync.state is Pass.ENDED
    assert presync.receive(LONG[:MESSAGE]).headers == ()


def test_another_chain_on_the_second_pass_releases_next_to_nothing() -> None:
    """The attacker mined enough once and sends a cheaper chain the second time: each kept bit finds it out with 1/2."""
    cheap = headers(1000, salt=1)
    released = []
    for seed in range(40):
        presync = start(EACH * 901, seed)
        while presync.state is Pass.COUNTING:
            presync.receive(answer(LONG, presync.locator))
        given, step = 0, None
        while presync.state is Pass.FETCHING:
            step = presync.receive(answer(cheap, presync.locator))
            given += len(step.headers)
        assert step is not None
        assert step.fault == OTHER_CHAIN
        assert presync.held == 0
        released.append(given)
    assert sum(released) <= 3 * MESSAGE, "with 10 bits behind each header, one seed in a thousand lets any through"


def test_a_second_pass_that_stops_early() -> None:
    presync = start(EACH * 901)
    while presync.state is Pass.COUNTING:
        presync.receive(answer(LONG, presync.locator))
    presync.receive(LONG[:MESSAGE])
    assert presync.receive(LONG[MESSAGE : MESSAGE + 5]).fault == OTHER_CHAIN
    assert presync.state is Pass.ENDED


@pytest.mark.parametrize("second_pass", [False, True])
@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("gap", bitcoin.WRONG_PARENT),
        ("work", bitcoin.NO_WORK),
        ("bits", bitcoin.WRONG_BITS),
        ("size", bitcoin.WRONG_SIZE),
    ],
)
def test_each_header_is_checked_on_its_own(second_pass: bool, what: str, fault: object) -> None:
    presync = start(EACH * 901)
    while second_pass and presync.state is Pass.COUNTING:
        presync.receive(answer(LONG, presync.locator))
    good = LONG[:9]
    last = LONG[9]
    bad = {
        "gap": LONG[10],
        "work": unmined(last),
        "bits": last[:72] + (0x2100FFFF).to_bytes(4, "little") + last[76:],
        "size": last[:-1],
    }[what]
    assert presync.receive([*good, bad]).fault == fault
    assert presync.state is Pass.ENDED


def test_endless_headers_end() -> None:
    limit = 600
    limits.PRESYNC_HEADERS = limit  # type: ignore[misc]  # put back by the fixture
    presync = start(10**12)
    taken = 0
    while presync.state is Pass.COUNTING:
        step = presync.receive(answer(LONG, presync.locator))
        taken += MESSAGE
    assert step.fault == ENDLESS
    assert limit < taken <= limit + MESSAGE


def test_the_first_pass_keeps_next_to_nothing() -> None:
    presync = start(10**12)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(0, 1000, MESSAGE):
            presync.receive(LONG[at : at + MESSAGE])
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert presync.state is Pass.COUNTING
    assert grown < 1000 * 8, "a tenth of what the headers themselves take"


def test_it_starts_anywhere_and_asks_from_there() -> None:
    chain = Chain(LEDGER)
    chain.add_all(LONG[:50], LATER)
    fork = LONG[29]
    side = headers(300, parent=fork, salt=9)
    presync = HeadersPresync(chain, double_sha256(fork), chain.work(chain.best) + 100, random.Random(2))
    assert presync.locator[0] == double_sha256(fork)
    assert presync.locator[-1] == chain.genesis
    source = LONG[:30] + side
    given: list[bytes] = []
    while presync.state in (Pass.COUNTING, Pass.FETCHING):
        given += presync.receive(answer(source, presync.locator)).headers
    assert presync.state is Pass.DONE
    assert chain.add_all(given, LATER)[1] is None
    assert chain.best == double_sha256(given[-1])
    assert child(LEDGER, chain, chain.best)
