"""Headers in their place: linkage, work, difficulty, times, versions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import DecodeError
from obscura.ledger import bitcoin
from obscura.ledger.chain import UNKNOWN_PARENT, Chain
from obscura.ledger.header import Header, double_sha256
from obscura.ledger.port import Fault
from obscura.ledger.work import bits_of, target_of
from small_chains import EASY, LATER, START, child, easy_ledger, extend, unmined


@pytest.fixture
def chain() -> Chain:
    chain = Chain(easy_ledger())
    extend(chain.ledger, chain, chain.genesis, 12)
    return chain


def verdict(chain: Chain, header: bytes, now: float = LATER) -> Fault | None:
    return chain.ledger.check_header(header, chain.branch(chain.best), now)


def changed(chain: Chain, **changes: Any) -> bytes:
    return child(chain.ledger, chain, chain.best, **changes)


def newest_times(chain: Chain) -> list[int]:
    return sorted(Header.decode(h).time for h in chain.branch(chain.best).recent(11))


def test_a_header_both_ways() -> None:
    header = Header(-1, b"\1" * 32, b"\2" * 32, 3, 4, 5)
    assert Header.decode(header.encode()) == header
    for size in (0, 79, 81):
        with pytest.raises(DecodeError):
            Header.decode(bytes(size))


def test_sound(chain: Chain) -> None:
    assert verdict(chain, changed(chain)) is None


@pytest.mark.parametrize("size", [0, 79, 81])
def test_wrong_size(chain: Chain, size: int) -> None:
    assert verdict(chain, changed(chain)[:size].ljust(size, b"\0")) == bitcoin.WRONG_SIZE


def test_wrong_parent(chain: Chain) -> None:
    assert verdict(chain, changed(chain, parent=chain.genesis)) == bitcoin.WRONG_PARENT


def test_no_work(chain: Chain) -> None:
    assert verdict(chain, unmined(changed(chain))) == bitcoin.NO_WORK


@pytest.mark.parametrize("bits", [0x207FFFFE, 0x2100FFFF, 0x2000FFFF])
def test_bits_are_not_free(chain: Chain, bits: int) -> None:
    assert verdict(chain, changed(chain, bits=bits)) == bitcoin.WRONG_BITS


@pytest.mark.parametrize("bits", [0, 0xFF123456, 0x20800001, 0xFFFFFFFF])
def test_bits_that_mean_nothing(chain: Chain, bits: int) -> None:
    header = changed(chain)
    assert verdict(chain, header[:72] + bits.to_bytes(4, "little") + header[76:]) == bitcoin.WRONG_BITS


def test_time_must_pass_the_median_of_eleven(chain: Chain) -> None:
    median = newest_times(chain)[5]
    assert verdict(chain, changed(chain, time=median)) == bitcoin.TOO_OLD
    assert verdict(chain, changed(chain, time=median + 1)) is None


def test_the_median_of_fewer_than_eleven() -> None:
    chain = Chain(easy_ledger())
    assert verdict(chain, changed(chain, time=START)) == bitcoin.TOO_OLD
    assert verdict(chain, changed(chain, time=START + 1)) is None
    assert bitcoin.median_time([Header(1, bytes(32), bytes(32), t, 0, 0).encode() for t in (5, 9)]) == 9


def test_time_at_most_two_hours_ahead(chain: Chain) -> None:
    header = changed(chain, time=START + 100_000)
    assert verdict(chain, header, now=START + 100_000 - 7200) is None
    assert verdict(chain, header, now=START + 100_000 - 7201) == bitcoin.TOO_NEW
    assert chain.add(header, START + 100_000 - 7201) == bitcoin.TOO_NEW
    assert chain.add(header, START + 100_000) is None, "what came too early is welcome later"


def test_versions_left_behind() -> None:
    chain = Chain(easy_ledger(versions=((2, 2), (3, 4))))
    extend(chain.ledger, chain, chain.genesis, 1)
    assert verdict(chain, changed(chain, version=1)) == bitcoin.OLD_VERSION
    assert verdict(chain, changed(chain, version=2)) is None
    extend(chain.ledger, chain, chain.best, 1)
    assert verdict(chain, changed(chain, version=3)) == bitcoin.OLD_VERSION
    assert verdict(chain, changed(chain, version=4)) is None


@pytest.mark.parametrize(("spacing", "factor"), [(60, 1.0), (30, 0.5), (1, 0.25), (120, 2.0), (100_000, 4.0)])
def test_retarget_in_the_chain(spacing: int, factor: float) -> None:
    """Ten headers, ``spacing`` apart; the eleventh gets other bits. Nine gaps are measured, not ten."""
    start_bits = bits_of(target_of(EASY) // 64)
    ledger = easy_ledger(retarget_blocks=10)
    ledger.genesis = Header(1, bytes(32), bytes(32), START, start_bits, 0).encode()
    chain = Chain(ledger)
    for height in range(1, 10):
        header = child(ledger, chain, chain.best, time=START + height * spacing)
        assert Header.decode(header).bits == start_bits
        assert chain.add(header, LATER) is None
    expected = target_of(start_bits) * min(max(9 * spacing / 600, 0.25), 4)
    bits = ledger.next_bits(chain.branch(chain.best))
    assert target_of(bits) == pytest.approx(expected, rel=1e-4)
    time = START + 10 * spacing
    assert verdict(chain, child(ledger, chain, chain.best, bits=bits, time=time)) is None
    if factor != 1.0:
        assert verdict(chain, child(ledger, chain, chain.best, bits=start_bits, time=time)) == bitcoin.WRONG_BITS


def test_step_check() -> None:
    ledger = easy_ledger(retarget_blocks=10)
    chain = Chain(ledger)
    parent = ledger.genesis
    sound = child(ledger, chain, chain.genesis)
    harder = child(ledger, chain, chain.genesis, bits=bits_of(target_of(EASY) // 4))
    hardest = child(ledger, chain, chain.genesis, bits=bits_of(target_of(EASY) // 5))
    assert ledger.check_step(1, parent, sound) is None
    assert ledger.check_step(10, parent, harder) is None
    assert ledger.check_step(9, parent, harder) == bitcoin.WRONG_BITS
    assert ledger.check_step(10, parent, hardest) == bitcoin.WRONG_BITS
    assert ledger.check_step(1, sound, sound) == bitcoin.WRONG_PARENT
    assert ledger.check_step(1, parent, unmined(sound)) == bitcoin.NO_WORK
    assert ledger.check_step(1, parent, sound[:-1]) == bitcoin.WRONG_SIZE
    easier = sound[:72] + (0x2100FFFF).to_bytes(4, "little") + sound[76:]
    assert ledger.check_step(10, parent, easier) == bitcoin.WRONG_BITS
    assert easy_ledger().check_step(10, parent, harder) == bitcoin.WRONG_BITS, "no retarget, no change"


@given(st.binary(min_size=80, max_size=80))
@settings(deadline=None, max_examples=100)
def test_any_eighty_bytes_get_a_verdict(header: bytes) -> None:
    chain = Chain(easy_ledger())
    assert chain.add(header, LATER) == UNKNOWN_PARENT
    linked = header[:4] + chain.genesis + header[36:]
    assert chain.ledger.check_step(1, chain.ledger.genesis, linked) is None or chain.add(linked, LATER) is not None
    assert chain.ledger.work(header) >= 0
    assert len(double_sha256(header)) == 32
