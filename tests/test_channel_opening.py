"""Opening a channel: every pattern, every kind of interference, and what a stranger gets to see of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from obscura.channel.noise import NK, NX, NXPSK0, Handshake
from obscura.channel.opening import Initiator, ListenerKind, Prologue, Responder, Secured
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import Ephemeral, StaticKey
from obscura.errors import ChannelFault
from obscura.limits import REPLAY_KEPT, UNAUTHENTICATED_BYTES
from test_channel_noise import low_order_representatives

UNIX = 1_700_000_400  # in the middle of an epoch
STATIC = StaticKey.from_bytes(b"s" * 32)
PLAIN = Prologue(b"n" * 32, 1, 0)
TLS = Prologue(b"n" * 32, 1, 2, b"binding")


def dial(
    prologue: Prologue = PLAIN, *, known: bool = True, seed: object = 1, unix: int = UNIX, **more: Any
) -> Initiator:
    streamed = prologue.carrier == 0
    more = {"responder_key": STATIC.public if known else None, "joining": not (known or streamed)} | more
    return Initiator(prologue, Random(f"i{seed}"), unix, streamed=streamed, **more)


def answer(prologue: Prologue = PLAIN, *, strangers: bool = True, seed: object = 1, **more: Any) -> Responder:
    more = {"replay": ReplayCache()} | more
    streamed = prologue.carrier == 0
    return Responder(prologue, STATIC, Random(f"r{seed}"), strangers=strangers, streamed=streamed, **more)


def feed(side: Initiator | Responder, pieces: Iterable[bytes], unix: int = UNIX) -> Secured | None:
    """Everything, piece by piece; pieces after the channel stands go to nobody here."""
    secured = None
    for piece in pieces:
        if secured is None:
            secured = side.receive(piece, unix)
        else:
            secured = replace(secured, leftover=secured.leftover + piece)
    return secured


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[n : n + size] for n in range(0, len(data), size)] if size else [data]


@dataclass
class Outcome:
    """What came of one link: who stands, what each side delivered, what the responder let out."""

    initiator: Secured | None = None
    responder: Secured | None = None
    to_responder: bytes = b""
    to_initiator: bytes = b""
    answer: bytes = b""
    failed: bool = False


def link(initiator: Initiator, responder: Responder, *, tamper: Any = None, cut: int = 0) -> Outcome:
    """A whole link: both flights, T, one record each way. ``tamper(name, bytes)`` sits between."""
    tamper = tamper or (lambda name, data: data)
    out = Outcome()

    def attempt(side: Initiator | Responder, name: str, data: bytes) -> Secured | None:
        try:
            return feed(side, pieces(tamper(name, data), cut))
        except ChannelFault:
            out.failed = True
            return None

    out.responder = attempt(responder, "flight 1", initiator.take())
    out.answer = responder.take()
    out.initiator = attempt(initiator, "flight 2", out.answer)
    assert not initiator.take()
    if out.initiator is None:
        return out
    write = out.initiator.prefix + out.initiator.sealer.seal(b"up", 64)
    if out.responder is None:
        out.responder = attempt(responder, "first write", write)
        write = b"" if out.responder is None else out.responder.leftover
    else:
        write = tamper("first write", write)
    if out.responder is None:
        return out
    down = tamper("answer", out.responder.sealer.seal(b"down", 64))
    try:
        out.to_responder = b"".join(p[a:b] for p, a, b in out.responder.opener.receive(write))
        out.to_initiator = b"".join(p[a:b] for p, a, b in out.initiator.opener.receive(down))
    except ChannelFault:
        out.failed = True
    return out


PATTERNS = [(PLAIN, True, "NK"), (PLAIN, False, "NX"), (TLS, True, "NK"), (TLS, False, "NXpsk0")]


@pytest.mark.parametrize(("prologue", "known", "pattern"), PATTERNS)
@pytest.mark.parametrize("cut", [0, 1, 7, 255])
def test_channel_stands(prologue: Prologue, known: bool, pattern: str, cut: int) -> None:
    out = link(dial(prologue, known=known), answer(prologue), cut=cut if prologue is PLAIN else 0)
    assert out.initiator is not None
    assert out.responder is not None
    assert not out.failed
    assert (out.to_responder, out.to_initiator) == (b"up", b"down")
    assert out.initiator.session_id == out.responder.session_id
    assert out.initiator.resume_secret == out.responder.resume_secret
    assert out.initiator.pattern == out.responder.pattern == pattern
    assert out.initiator.peer_key == STATIC.public
    assert out.responder.peer_key is None
    assert len(out.initiator.prefix) == (16 if pattern == "NX" else 0)


@settings(deadline=None, max_examples=25)
@given(st.booleans(), st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(0, 2**32))
def test_any_fragmentation_opens_the_same_channel(known: bool, cuts: list[int], seed: int) -> None:
    whole, cut = ((dial(known=known, seed=seed), answer(seed=seed)) for _ in range(2))
    assert link(*whole).initiator is not None

    def cut_up(side: Initiator | Responder, data: bytes) -> Secured | None:
        parts, turn = [], 0
        while data:
            size = cuts[turn % len(cuts)]
            parts.append(data[:size])
            data, turn = data[size:], turn + 1
        return feed(side, parts)

    initiator, responder = cut
    ours = cut_up(responder, initiator.take())
    theirs = cut_up(initiator, responder.take())
    assert theirs is not None
    first = theirs.prefix + theirs.sealer.seal(b"hello", 64)
    ours = ours or cut_up(responder, first)
    assert ours is not None
    ((plain, a, b),) = ours.opener.receive(ours.leftover or first)
    assert plain[a:b] == b"hello"


def test_first_bytes_after_the_opening_are_handed_on() -> None:
    initiator, responder = dial(), answer()
    ours = responder.receive(initiator.take(), UNIX)
    assert ours is not None
    theirs = initiator.receive(responder.take() + ours.sealer.seal(b"early", 64), UNIX)
    assert theirs is not None
    ((plain, a, b),) = theirs.opener.receive(theirs.leftover)
    assert plain[a:b] == b"early"


# --- one flipped bit, at every position ---


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes((data[position] ^ 1 << position % 8,)) + data[position + 1 :]


@pytest.mark.parametrize(("prologue", "known", "pattern"), PATTERNS)
@pytest.mark.parametrize("name", ["flight 1", "flight 2", "first write", "answer"])
def test_one_flipped_bit_delivers_nothing(prologue: Prologue, known: bool, pattern: str, name: str) -> None:
    sizes = {"flight 1": 256, "flight 2": 256, "first write": 256 + 16 * (pattern == "NX"), "answer": 256}
    pair, other = Ephemeral.generate(Random(1)), Ephemeral.generate(Random(2))
    step = 1 if name in ("flight 1", "flight 2") else 3
    for position in range(0, sizes[name], step):
        initiator = dial(prologue, known=known, flight_size=(256, 256), ephemeral=pair)
        responder = answer(prologue, answer_size=(256, 256), ephemeral=lambda: other)
        out = link(initiator, responder, tamper=lambda n, d, p=position: flip(d, p) if n == name else d)
        if name == "answer":
            assert (out.to_responder, out.to_initiator, out.failed) == (b"up", b"", True)
            continue
        assert out.to_responder == b""
        assert out.to_initiator == b""
        # with T gone, the responder goes on looking for it: nothing is delivered, nothing said, time ends it
        assert out.failed or (pattern == "NX" and name == "first write" and position < 16)
        assert out.responder is None or not responder.take()


def test_missing_end_mark_ends_after_1296_bytes() -> None:
    initiator, responder = dial(known=False, flight_size=(256, 256)), answer()
    responder.receive(initiator.take(), UNIX)
    assert responder.take()
    assert responder.receive(bytes(1_295 - 256), UNIX) is None
    with pytest.raises(ChannelFault):
        responder.receive(b"\0", UNIX)


@pytest.mark.parametrize("size", [256, 257, 700, 1_279, 1_280])
@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17])
def test_end_mark_at_every_edge(size: int, cut: int) -> None:
    out = link(dial(known=False, flight_size=(size, size)), answer(), cut=cut)
    assert out.to_responder == b"up"


@pytest.mark.parametrize("cut", [0, 1])
def test_end_mark_beyond_the_edge(cut: int) -> None:
    out = link(dial(known=False, flight_size=(1_281, 1_281)), answer(), cut=cut)
    assert out.failed
    assert out.to_responder == b""


# --- what a stranger sees ---


def seen(flight: bytes, *, strangers: bool, cut: int = 0, seed: object = 1, replay: ReplayCache | None = None) -> bytes:
    """The responder's whole output for these bytes and then silence."""
    responder = answer(strangers=strangers, seed=seed, replay=replay or ReplayCache())
    out = b""
    for piece in pieces(flight, cut):
        try:
            assert responder.receive(piece, UNIX) is None
        except ChannelFault:
            return out + responder.take()
        out += responder.take()
    return out


def garbled(seed: int) -> list[bytes]:
    rng = Random(seed)
    flight = dial(seed=seed).take()
    return [
        flip(flight, rng.randrange(56)),
        rng.randbytes(len(flight)),
        dial(seed=seed, unix=UNIX + 1_200).take(),
        dial(seed=seed, unix=UNIX - 1_200).take(),
        dial(replace(PLAIN, network_id=b"m" * 32), seed=seed).take(),
        dial(seed=seed, responder_key=StaticKey.from_bytes(b"x" * 32).public).take(),
        dial(known=False, seed=seed).take(),
    ]


def test_with_nx_off_nothing_is_answered() -> None:
    for flight in garbled(1):
        for cut in (0, 1, 100):
            assert seen(flight, strangers=False, cut=cut) == b""


def test_with_nx_on_every_bad_flight_gets_the_answer_of_a_stranger() -> None:
    """One length law for all of them, and never a length or a first byte that depends on what was wrong."""
    sizes: list[list[int]] = [[] for _ in garbled(0)]
    for seed in range(60):
        for kind, flight in enumerate(garbled(seed)):
            sizes[kind].append(len(seen(flight, strangers=True, seed=(seed, kind))))
    assert all(256 <= size <= 1_280 for kind in sizes for size in kind)
    for kind in sizes:
        assert stats.kstest(kind, stats.randint(256, 1_281).cdf).pvalue > 1e-3


def test_recorded_flight_is_a_stranger() -> None:
    """It gets what random bytes of its length get, and with NX off nothing."""
    replay, flight = ReplayCache(), dial().take()
    first = answer(replay=replay)
    assert first.receive(flight, UNIX) is not None
    again = seen(flight, strangers=True, replay=replay)
    assert again == seen(flight, strangers=True, replay=replay)  # the responder's own chance decides alone
    assert len(again) == len(seen(Random(5).randbytes(len(flight)), strangers=True))
    assert seen(flight, strangers=False, replay=replay) == b""


def test_cut_makes_no_difference_to_a_stranger() -> None:
    """Answered bytes go out even if the faulty byte came in the same read."""
    junk = Random(3).randbytes(5_000)
    whole = seen(junk, strangers=True)
    assert 256 <= len(whole) <= 1_280
    assert all(seen(junk, strangers=True, cut=cut) == whole for cut in (1, 7, 300))


def test_tail_of_nk_must_be_right() -> None:
    flight = dial(flight_size=(256, 256)).take()
    for position in (56, 100, 255):
        assert seen(flip(flight, position), strangers=True) == b""


def forged(pattern: Any, prologue: Prologue, header: bytes, padding: int) -> bytes:
    """A first flight with any header and right tags, from somebody who knows the key."""
    psk = prologue.psk() if pattern.has_psk else None
    handshake = Handshake(pattern, prologue.encode(), responder_key=STATIC.public, psk=psk)
    tokens = handshake.write(Ephemeral.generate(Random(1)))
    return tokens + handshake.seal(header) + handshake.seal(bytes(padding))


@pytest.mark.parametrize(("padding", "ok"), [(183, False), (184, True), (1_208, True), (1_209, False), (0, False)])
def test_p1_has_its_range_on_plain(padding: int, ok: bool) -> None:
    flight = forged(NK, PLAIN, pack("<IHH", UNIX // 600, padding, 0), padding)
    responder = answer(strangers=False)
    if ok:
        assert responder.receive(flight, UNIX) is not None
    else:
        with pytest.raises(ChannelFault):
            responder.receive(flight, UNIX)


@pytest.mark.parametrize(("pattern", "known"), [(NK, True), (NX, False)])
@pytest.mark.parametrize(("size", "ok"), [(255, False), (256, True), (1_280, True), (1_281, False)])
def test_p2_has_its_range_on_plain(pattern: Any, known: bool, size: int, ok: bool) -> None:
    initiator, responder = dial(known=known), answer(answer_size=(size, size))
    responder.receive(initiator.take(), UNIX)
    if ok:
        assert initiator.receive(responder.take(), UNIX) is not None
    else:
        with pytest.raises(ChannelFault):
            initiator.receive(responder.take(), UNIX)


# --- other networks, faces, carriers, sessions ---

ELSEWHERE = [
    {"network_id": b"m" * 32},
    {"listener_kind": 2},
    {"listener_kind": 3},
    {"carrier": 4},
    {"binding": b"another"},
    {"binding": b""},
]


@pytest.mark.parametrize("change", ELSEWHERE, ids=str)
@pytest.mark.parametrize(("prologue", "known"), [(PLAIN, True), (PLAIN, False), (TLS, True), (TLS, False)])
def test_a_flight_is_worth_nothing_elsewhere(change: dict[str, Any], prologue: Prologue, known: bool) -> None:
    there = replace(prologue, **change)
    if there == prologue:
        return
    responder = answer(prologue)
    dialled = Initiator(
        there,
        Random(1),
        UNIX,
        responder_key=STATIC.public if known else None,
        joining=not known and prologue is TLS,
        streamed=prologue is PLAIN,
    )
    out = link(dialled, responder)
    assert out.failed
    assert out.initiator is None
    assert out.responder is None


def test_a_known_key_never_falls_back() -> None:
    """The wrong node answers as NX: the dialler does not take it."""
    wrong = StaticKey.from_bytes(b"w" * 32)
    out = link(dial(responder_key=wrong.public), answer())
    assert len(out.answer) >= 256
    assert out.failed
    assert out.initiator is None


def test_choices_that_do_not_exist() -> None:
    for more in ({"joining": True, "streamed": False}, {"joining": True, "responder_key": None}):
        with pytest.raises(ValueError):
            Initiator(PLAIN, Random(1), UNIX, **({"responder_key": STATIC.public} | more))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Initiator(TLS, Random(1), UNIX, responder_key=None, streamed=False)
    for least, most in ((71, 71), (71, 300), (300, 299), (300, UNAUTHENTICATED_BYTES + 1)):
        with pytest.raises(ValueError, match="flight of"):
            dial(flight_size=(least, most))
    for least, most in ((115, 115), (115, 300), (300, 299), (300, UNAUTHENTICATED_BYTES + 1)):
        with pytest.raises(ValueError, match="flight of"):
            answer(answer_size=(least, most))


# --- inside a carrier ---


@pytest.mark.parametrize("known", [True, False])
def test_carrier_takes_one_whole_flight(known: bool) -> None:
    flight = dial(TLS, known=known).take()
    for bad in (flight[:-1], flight + b"\0", flight[:72], flight[:71], b"", flight * 4, flip(flight, 60)):
        responder = answer(TLS)
        with pytest.raises(ChannelFault):
            responder.receive(bad, UNIX)
        assert responder.take() == b""
    assert answer(TLS).receive(flight, UNIX) is not None


def test_strangers_are_not_welcome_everywhere() -> None:
    with pytest.raises(ChannelFault):
        answer(TLS, strangers=False).receive(dial(TLS, known=False).take(), UNIX)
    assert answer(TLS, strangers=False).receive(dial(TLS).take(), UNIX) is not None


def test_epoch_and_replay_do_not_count_in_a_carrier() -> None:
    replay, flight = ReplayCache(), dial(TLS, unix=5).take()
    for _ in range(2):
        assert answer(TLS, replay=replay).receive(flight, UNIX) is not None


@pytest.mark.parametrize("pattern", [NK, NXPSK0], ids=lambda p: p.name)
def test_header_in_a_carrier_is_read_for_p1_alone(pattern: Any) -> None:
    assert answer(TLS).receive(forged(pattern, TLS, pack("<IHH", 99, 50, 7), 50), UNIX) is not None
    for padding in (49, 51):
        with pytest.raises(ChannelFault):
            answer(TLS).receive(forged(pattern, TLS, pack("<IHH", 0, 50, 0), padding), UNIX)


# --- low order, trials, epochs ---


@pytest.mark.parametrize("r", low_order_representatives(), ids=lambda r: r.hex()[:4] + r.hex()[-4:])
def test_low_order_representatives(r: bytes) -> None:
    for prologue in (PLAIN, TLS):
        for strangers in (True, False):
            responder = answer(prologue, strangers=strangers)
            with pytest.raises(ChannelFault):
                responder.receive(r + bytes(400), UNIX)
            assert responder.take() == b""
    for known in (True, False):
        initiator = dial(known=known)
        with pytest.raises(ChannelFault):
            initiator.receive(r + bytes(1_000), UNIX)


def test_low_order_responder_key() -> None:
    with pytest.raises(ChannelFault):
        dial(responder_key=bytes(32))


@pytest.mark.parametrize("prologue", [PLAIN, TLS])
@pytest.mark.parametrize("known", [True, False])
def test_trial_is_asked_for_once_and_in_time(prologue: Prologue, known: bool) -> None:
    asked: list[int] = []
    flight = dial(prologue, known=known).take()
    responder = answer(prologue, may_try=lambda: asked.append(1) or True)
    if prologue is PLAIN:
        responder.receive(flight[:55], UNIX)
        assert not asked
        feed(responder, pieces(flight[55:], 1))
    else:
        responder.receive(flight, UNIX)
    assert asked == [1]
    refused = answer(prologue, may_try=lambda: False)
    refused._static = None  # type: ignore[assignment]  # any use of the key would show
    with pytest.raises(ChannelFault):
        refused.receive(flight, UNIX)
    assert refused.take() == b""


def test_failed_means_failed() -> None:
    for side in (answer(strangers=False), dial()):
        for data in (bytes(2_000), dial().take(), b""):
            with pytest.raises(ChannelFault):
                side.receive(data, UNIX)


def test_given_away_means_given_away() -> None:
    responder = answer()
    assert responder.receive(dial().take(), UNIX) is not None
    with pytest.raises(ChannelFault):
        responder.receive(b"more", UNIX)


@pytest.mark.parametrize(("seconds", "ok"), [(-601, False), (-600, True), (0, True), (1_199, True), (1_200, False)])
def test_epoch_window(seconds: int, ok: bool) -> None:
    """Epochs, not seconds: from the start of the one before to the end of the one after."""
    start = UNIX // 600 * 600
    flight = dial(unix=start + seconds).take()
    responder = answer(strangers=False)
    if ok:
        assert responder.receive(flight, start) is not None
    else:
        with pytest.raises(ChannelFault):
            responder.receive(flight, start)


def test_the_prologue_says_how_the_responder_was_reached() -> None:
    assert {kind.name: kind.value for kind in ListenerKind} == {"DIRECT": 1, "ONION": 2, "I2P": 3}  # docs/protocol.md
    for kind in ListenerKind:
        encoded = Prologue(b"n" * 32, kind, 4, b"bound").encode()
        assert encoded == b"obscura-channel/1\0" + b"n" * 32 + bytes((kind, 4, 5, 0)) + b"bound"


def test_cache_knows_each_epoch_by_itself() -> None:
    cache, now = ReplayCache(), 6_000
    for epoch in (9, 10, 11):
        assert cache.admit(b"R" * 32, epoch, now)
        assert not cache.admit(b"R" * 32, epoch, now)
    assert not cache.admit(b"Q" * 32, 8, now)
    assert not cache.admit(b"Q" * 32, 12, now)
    assert not cache.admit(b"R" * 32, 11, now + 600)
    assert len(cache._seen) <= 3
    assert not cache.admit(b"R" * 32, 10, now + 1_199)
    assert not cache.admit(b"R" * 32, 9, now + 600)  # out of the window: refused for that


def test_spare_bits_do_not_evade_the_cache() -> None:
    """Two bits of R do not change the point, but they change h: such a flight is no NK at all."""
    flight = dial().take()
    for bits in (0x40, 0x80, 0xC0):
        other = flight[:31] + bytes((flight[31] ^ bits,)) + flight[32:]
        with pytest.raises(ChannelFault):
            answer(strangers=False).receive(other, UNIX)


def test_a_clock_that_steps_back_opens_no_epoch_that_was_forgotten() -> None:
    cache = ReplayCache()
    for epoch in range(10, 10 + REPLAY_KEPT):
        assert cache.admit(b"R" * 32, epoch, 600 * epoch)
    assert not cache.admit(b"R" * 32, 10, 6_000)  # seen
    assert cache.admit(b"Q" * 32, 10, 6_000)  # as many epochs are remembered, so that this one is known to be new
    assert cache.admit(b"R" * 32, 10 + REPLAY_KEPT, 600 * (10 + REPLAY_KEPT))
    assert not cache.admit(b"P" * 32, 10, 6_000)  # the oldest one is forgotten: whatever is of it may have been seen
    assert cache.admit(b"P" * 32, 11, 6_600)


@pytest.mark.parametrize("hours", [-30_000.0, 1.0, 5.0, 9_000.0])
@pytest.mark.parametrize("epochs", [REPLAY_KEPT // 2, REPLAY_KEPT, 3 * REPLAY_KEPT])
def test_a_clock_that_was_wrong_for_a_while_refuses_nobody_once_it_is_right(hours: float, epochs: int) -> None:
    """What it has seen in between must not take the place of the present, nor count as its past; and it stays seen."""
    cache, start = ReplayCache(), 1_800_000_000 // 600
    wrong = start + int(hours * 6)
    for epoch in (*range(start - 20, start), *range(wrong, wrong + epochs)):
        assert cache.admit(b"R" * 32, epoch, 600 * epoch)
    now = start + epochs
    for epoch in range(now, now + 40):
        is_new = not wrong - REPLAY_KEPT <= epoch < wrong + epochs + REPLAY_KEPT
        assert all(cache.admit(bytes((n,)) * 32, epoch, 600 * epoch) for n in range(3)) or not is_new
        assert not cache.admit(b"\0" * 32, epoch, 600 * epoch)
    for epoch in (start - 20, start - 1, wrong, wrong + epochs - 1, now, now + 39):
        assert not cache.admit(b"R" * 32, epoch, 600 * epoch) or epoch in (now, now + 39)
    assert len(cache._seen) <= REPLAY_KEPT
    assert len(cache._dropped) <= 3


def test_a_quiet_listener_remembers_in_little_what_it_has_forgotten() -> None:
    cache = ReplayCache()
    for epoch in range(10, 100_000, 50):
        assert cache.admit(b"R" * 32, epoch, 600 * epoch)
    assert len(cache._dropped) <= REPLAY_KEPT
    assert not any(cache.admit(b"Q" * 32, epoch, 600 * epoch) for epoch in range(10, 90_000, 50))


def test_full_cache_refuses_and_forgets_with_time() -> None:
    cache = ReplayCache(most=3)
    assert [cache.admit(bytes((n,)) * 32, 10, 6_000) for n in range(5)] == [True, True, True, False, False]
    assert cache.admit(b"x" * 32, 11, 6_000)
    assert cache.admit(b"y" * 32, 11, 7_200)


def test_default_bound_of_the_cache() -> None:
    cache = ReplayCache()
    assert all(cache.admit(n.to_bytes(32, "big"), 10, 6_000) for n in range(65_536))
    assert not cache.admit(b"z" * 32, 10, 6_000)
    assert cache.admit(b"z" * 32, 9, 6_000)


# --- memory ---


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 3_000), min_size=1, max_size=8), st.booleans())
def test_a_stranger_makes_us_hold_little(seed: int, sizes: list[int], strangers: bool) -> None:
    rng, responder = Random(seed), answer(strangers=strangers)
    for size in sizes:
        try:
            responder.receive(rng.randbytes(size), UNIX)
        except ChannelFault:
            break
        assert len(responder._input) < 1_296


def test_a_false_responder_makes_us_hold_little() -> None:
    """NX: anybody can answer. The largest flight that is waited for is 1,280 bytes on plain."""
    initiator, responder = dial(known=False), answer(answer_size=(1_280, 1_280))
    responder.receive(initiator.take(), UNIX)
    assert initiator.receive(responder.take()[:-1], UNIX) is None
    assert len(initiator._input) == 1_279
