"""Sealed records: what was sealed opens at any fragmentation; any interference ends the channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import pack

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.channel.records import Opener, Sealer
from obscura.errors import ChannelFault
from obscura.limits import MAX_RECORD, REKEY_RECORDS, REKEY_S

KEY = bytes(range(32))


def deliver(opener: Opener, pieces: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """The frame bytes of each record that came through, and whether it failed. Goes on after a fault."""
    got, failed = [], False
    for piece in pieces:
        try:
            for plain, start, end in opener.receive(piece):
                assert not failed, "delivered after a fault"
                got.append(plain[start:end])
        except ChannelFault:
            failed = True
    return got, failed


def sealed(bodies: Iterable[bytes], sizes: Iterable[int]) -> list[bytes]:
    sealer = Sealer(KEY)
    return [sealer.seal(body, size) for body, size in zip(bodies, sizes, strict=True)]


BODIES = [b"first", b"", b"second" * 30, b"third", b"4"]
STREAM = sealed(BODIES, [64, 250, 100, 64, 64])


def by_hand(counter: int, plaintext: bytes, size: int, key: bytes = KEY) -> bytes:
    """A record as the specification has it, made without the code under test."""
    return ChaCha20Poly1305(key).encrypt(pack("<IQ", 0, counter), plaintext.ljust(size - 16, b"\0"), b"")


def test_record_is_what_the_document_says() -> None:
    sealer = Sealer(KEY)
    assert sealer.seal(b"abc", 1000) == by_hand(0, pack("<BHH", 0, 999, 3) + b"abc", 256)
    assert sealer.size == 1000
    assert sealer.capacity == 979
    assert sealer.seal(b"", 64, rekey=True) == by_hand(1, pack("<BHH", 1, 63, 0), 1000)
    second = ChaCha20Poly1305(KEY).encrypt(pack("<IQ", 0, 2**64 - 1), bytes(32), b"")[:32]
    assert sealer.seal(b"x", 70, last=True) == by_hand(2, pack("<BHH", 2, 63, 1) + b"x", 64, second)


STEPS = st.lists(
    st.tuples(st.integers(0, 100), st.one_of(st.integers(64, 400), st.just(MAX_RECORD)), st.booleans()),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.lists(st.integers(1, 700), min_size=1, max_size=20), st.booleans())
def test_any_fragmentation_gives_the_same(steps: list[tuple[int, int, bool]], cuts: list[int], ends: bool) -> None:
    sealer, bodies, stream = Sealer(KEY), [], b""
    for percent, next_size, rekey in steps:
        body = bytes(sealer.capacity * percent // 100)
        bodies.append(body)
        stream += sealer.seal(memoryview(body), next_size, rekey=rekey)
    if ends:
        bodies.append(b"bye")
        stream += sealer.seal(b"bye", 64, last=True) + b"after the end"
    opener, pieces, position, turn = Opener(KEY), [], 0, 0
    while position < len(stream):
        cut = cuts[turn % len(cuts)]
        pieces.append(stream[position : position + cut])
        position, turn = position + cut, turn + 1
    assert deliver(opener, pieces) == (bodies, False)
    assert opener.ended == ends
    assert deliver(Opener(KEY), [stream]) == (bodies, False)


def test_input_buffer_is_not_kept() -> None:
    """The caller reads into the same buffer again."""
    stream, opener, got = b"".join(STREAM), Opener(KEY), []
    buffer = bytearray(100)
    for n in range(0, len(stream), 100):
        piece = stream[n : n + 100]
        buffer[: len(piece)] = piece
        got += [plain[a:b] for plain, a, b in opener.receive(memoryview(buffer)[: len(piece)])]
        buffer[:] = b"\xaa" * 100
    assert got == BODIES


# --- what an attacker does to the bytes ---


def test_one_flipped_bit_anywhere() -> None:
    stream = b"".join(STREAM)
    bounds = [sum(map(len, STREAM[: n + 1])) for n in range(len(STREAM))]
    for position in range(len(stream)):
        bad = bytearray(stream)
        bad[position] ^= 1 << position % 8
        whole_before = sum(bound <= position for bound in bounds)
        cut = position // 2
        got, failed = deliver(Opener(KEY), [bytes(bad[:cut]), bytes(bad[cut:]), b"more" * 500])
        assert failed
        assert got == BODIES[:whole_before]


@pytest.mark.parametrize(
    ("what", "delivered", "fails"),
    [
        (lambda s: [s[0], s[2], s[1], s[3], s[4]], 1, True),  # reordered
        (lambda s: [s[1], s[0]], 0, True),
        (lambda s: [s[0], s[0], s[1]], 1, True),  # replayed
        (lambda s: [s[0], s[1], s[2], s[3], s[3]], 4, True),
        (lambda s: [s[0], s[2]], 1, True),  # one left out
        (lambda s: s[1:], 0, True),
        (lambda s: [s[0], bytes(64), *s[1:]], 1, True),  # injected
        (lambda s: [s[0], b"x", *s[1:]], 1, True),
        (lambda s: [s[0], s[1], s[2][:-1]], 2, False),  # truncated: a lost link, not a fault
        (lambda s: [s[0], s[1], s[2][:-1], s[3], s[4]], 2, True),
        (lambda s: [s[0][:-1] + s[1][-1:]], 0, True),
    ],
)
def test_tampered_streams(what: Callable[[list[bytes]], list[bytes]], delivered: int, fails: bool) -> None:
    for pieces in (what(STREAM), [bytes((b,)) for b in b"".join(what(STREAM))]):
        assert deliver(Opener(KEY), pieces) == (BODIES[:delivered], fails)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_edit_delivers_a_prefix_of_whole_records(data: st.DataObject) -> None:
    """Cut, repeat, insert: out comes what was sealed, in order, up to the first touched record."""
    stream = b"".join(STREAM)
    start = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(start, len(stream)))
    new = data.draw(st.one_of(st.binary(max_size=80), st.just(stream[:64]), st.just(stream[start:end] * 2)))
    edited = stream[:start] + new + stream[end:]
    same = next(
        (n for n, (a, b) in enumerate(zip(edited, stream, strict=False)) if a != b),
        min(len(edited), len(stream)),
    )
    got, _ = deliver(Opener(KEY), [edited, bytes(70_000)])
    bounds = [sum(map(len, STREAM[: n + 1])) for n in range(len(STREAM))]
    assert got == BODIES[: sum(bound <= same for bound in bounds)]


def test_other_direction_and_other_key_fail() -> None:
    assert deliver(Opener(bytes(32)), STREAM) == ([], True)


def test_nothing_is_delivered_after_a_fault_in_one_read() -> None:
    bad = STREAM[0] + bytes(len(STREAM[1])) + STREAM[2]
    assert deliver(Opener(KEY), [bad, STREAM[1], STREAM[2]]) == (BODIES[:1], True)


@pytest.mark.parametrize("flags", [4, 8, 128, 255, 7])
def test_unknown_flag_bits(flags: int) -> None:
    assert deliver(Opener(KEY), [by_hand(0, pack("<BHH", flags, 255, 1) + b"a", 256)]) == ([], True)


@pytest.mark.parametrize(("next_size", "fails"), [(1, True), (63, True), (64, False), (65536, False)])
def test_announced_size(next_size: int, fails: bool) -> None:
    record = by_hand(0, pack("<BHH", 0, next_size - 1, 1) + b"a", 256)
    assert deliver(Opener(KEY), [record]) == ([] if fails else [b"a"], fails)


@pytest.mark.parametrize(("used", "fails"), [(235, False), (236, True), (65535, True)])
def test_used_bytes(used: int, fails: bool) -> None:
    got, failed = deliver(Opener(KEY), [by_hand(0, pack("<BHH", 0, 255, used), 256)])
    assert failed == fails
    assert got == ([] if fails else [bytes(used)])


def test_padding_is_not_checked() -> None:
    record = by_hand(0, pack("<BHH", 0, 255, 1) + b"a" + b"\xff" * 234, 256)
    assert deliver(Opener(KEY), [record]) == ([b"a"], False)


def test_last_record_ends_the_direction() -> None:
    """Its announced size is not read, its frame bytes count, what follows is discarded without a fault."""
    opener = Opener(KEY)
    record = by_hand(0, pack("<BHH", 2, 0, 3) + b"bye", 256)
    assert deliver(opener, [record + b"junk", b"more junk" * 9000]) == ([b"bye"], False)
    assert opener.ended


# --- rekeying ---


def test_key_seals_at_most_4096_records() -> None:
    sealer, opener = Sealer(KEY, first_size=64), Opener(KEY, first_size=64)
    assert not sealer.due_rekey(0.0)
    for n in range(REKEY_RECORDS * 2 + 5):
        assert sealer.due_rekey(0.0) == (n % REKEY_RECORDS == REKEY_RECORDS - 1)
        assert deliver(opener, [sealer.seal(b"%d" % n, 64)]) == ([b"%d" % n], False)


def test_receiver_enforces_it() -> None:
    opener = Opener(KEY, first_size=64)
    plain = pack("<BHH", 0, 63, 0)
    assert deliver(opener, [by_hand(n, plain, 64) for n in range(REKEY_RECORDS - 1)])[1] is False
    assert deliver(opener, [by_hand(REKEY_RECORDS - 1, plain, 64)]) == ([], True)


@pytest.mark.parametrize("flags", [1, 2, 3])
def test_last_record_of_a_key_may_rekey_or_end(flags: int) -> None:
    opener = Opener(KEY, first_size=64)
    plain = pack("<BHH", 0, 63, 0)
    records = [by_hand(n, plain, 64) for n in range(REKEY_RECORDS - 1)]
    records.append(by_hand(REKEY_RECORDS - 1, pack("<BHH", flags, 63, 0), 64))
    got, failed = deliver(opener, records)
    assert not failed
    assert len(got) == REKEY_RECORDS


def test_key_is_old_after_ten_minutes() -> None:
    sealer = Sealer(KEY)
    assert not sealer.due_rekey(50.0)
    assert not sealer.due_rekey(50.0 + REKEY_S - 1)
    assert sealer.due_rekey(50.0 + REKEY_S)
    sealer.seal(b"", 64, rekey=True)
    assert not sealer.due_rekey(50.0 + 2 * REKEY_S - 1)
    assert sealer.due_rekey(50.0 + 2 * REKEY_S)


def test_each_key_has_its_own_count_of_records_at_both_ends() -> None:
    """After a rekey ahead of its time the next key may again seal and open as many as any."""
    sealer, opener = Sealer(KEY), Opener(KEY)
    records = [sealer.seal(b"", 64, rekey=n in (10, 700)) for n in range(701 + REKEY_RECORDS - 1)]
    assert sealer.due_rekey(0.0)
    got, failed = deliver(opener, [*records, sealer.seal(b"last of this key", 64), sealer.seal(b"of the next", 64)])
    assert not failed
    assert got[-2:] == [b"last of this key", b"of the next"]


def test_old_key_opens_nothing_after_a_rekey() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    assert deliver(opener, [sealer.seal(b"", 64, rekey=True)]) == ([b""], False)
    assert deliver(opener, [by_hand(1, pack("<BHH", 0, 63, 0), 64)]) == ([], True)


# --- misuse, associated data ---


def test_associated_data_belongs_to_record_0() -> None:
    sealer = Sealer(KEY, associated_data=b"random bytes")
    records = [sealer.seal(b"0", 64), sealer.seal(b"1", 64)]
    assert deliver(Opener(KEY, associated_data=b"random bytes"), records) == ([b"0", b"1"], False)
    assert deliver(Opener(KEY, associated_data=b"random byteZ"), records) == ([], True)
    assert deliver(Opener(KEY), records) == ([], True)


def test_sealer_refuses_what_the_protocol_does_not_have() -> None:
    sealer = Sealer(KEY)
    for body, size in ((bytes(236), 64), (b"", 63), (b"", MAX_RECORD + 1)):
        with pytest.raises(ValueError):
            sealer.seal(body, size)
    assert sealer.seal(b"", 64, last=True)
    assert sealer.ended
    with pytest.raises(ValueError, match="ended"):
        sealer.seal(b"", 64)
