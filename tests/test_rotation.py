"""Protocol rotation in the simulator: sessions move to new connections under load, and nothing is lost, doubled or noticed."""

from __future__ import annotations

import random
from itertools import pairwise
from math import isclose

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.channel.records import Opener, Sealer
from obscura.limits import RETRY_S
from obscura.node.dialable import DIRECT
from obscura.node.effects import AwaitRoom, LinkId
from obscura.node.face import Face
from obscura.node.rotation import Rotation, RotationSettings
from obscura.outbox import Outbox
from obscura.shaping.levels import CONSTANT_SLOT_MS, LEVELS, PrivacyLevel, knobs_of
from obscura.shaping.padding import Cells
from obscura.shaping.schedule import IMMEDIATE, Gate, Pace, Schedule, Slots
from obscura.sim.network import SimNode
from obscura.wire.address import Address, CarrierNumber, Endpoint
from obscura.wire.frame import FrameDecoder
from obscura.wire.messages.privacy import Rotate
from peer_examples import Clock, book, endpoint, peer
from playbook import QUIET
from rotating import KINDS, Numbered, Pair


@pytest.mark.parametrize("level", [None, *PrivacyLevel])
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_or_doubled_under_load(level: PrivacyLevel | None, seed: int) -> None:
    pair = Pair(seed, **({} if level is None else {"knobs": LEVELS[level]}))
    pair.load(20.0, (0, 3_000), 0.5 if level is PrivacyLevel.HIGH else 0.02)
    for _ in range(4):
        pair.run(5.0)
        pair.rotate()
    pair.run(400.0 if level is PrivacyLevel.HIGH else 30.0)
    pair.check()
    assert [moved["generation"] for moved in pair.one.told("rotated")] == [1, 2, 3, 4]
    assert [moved["generation"] for moved in pair.other.told("rotated")] == [1, 2, 3, 4]
    for side in (pair.one, pair.other):
        assert len(side.node.assembly.engine.links) == 1, "the old connections are gone"


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 1_000),
    pauses=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=5),
    high=st.integers(0, 20_000),
    latency_s=st.sampled_from([0.001, 0.05, 0.4]),
)
def test_nothing_is_lost_or_doubled_whenever_it_moves(
    seed: int, pauses: list[float], high: int, latency_s: float
) -> None:
    pair = Pair(seed, latency_s, knobs=LEVELS[PrivacyLevel.MEDIUM])
    pair.load(sum(pauses), (0, high), 0.1)
    for pause in pauses:
        pair.run(pause)
        if not any(len(side.node.assembly.engine.links) > 1 for side in (pair.one, pair.other)):
            pair.rotate()
    pair.run(60.0)
    pair.check()
    assert pair.one.told("rotated")


@pytest.mark.parametrize("side", ["one", "other"])
def test_room_that_is_asked_for_half_way_is_told(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a peer that was being served when its link moved would be served nothing any more."""
    pair = Pair()
    node: SimNode = getattr(pair, side).node
    link, assembly = getattr(pair, side).link, node.assembly
    told: list[LinkId] = []
    monkeypatch.setattr(assembly.core, "room", lambda link, now: told.append(link) or [])
    pair.rotate()
    asked = 200
    for number in range(asked):
        pair.kernel.at(pair.kernel.now + number / 200, lambda: node.apply([AwaitRoom(link)]))
    pair.run(5.0)
    assert assembly.engine._handover.generation(link) == 1, "it has moved meanwhile"
    assert told == [link] * asked


# --- One direction: leaving at the boundary of a frame --------------------------------------------------------------------


def schedule_of(name: str, rng: random.Random) -> Schedule:
    """One of each kind."""
    if name == "slots":
        return Slots(1_024, 0.25, rng, lambda cost, now: True, is_constant=True)
    return Gate(Pace(jitter_s=(0.0, 0.1), burst=(2, 8), burst_hold_s=(0.05, 0.08)), rng, lambda cost, now: True)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 200, 5_000, 8_140, 8_171, 8_172, 8_200, 40_000, 700_000]), max_size=12),
    turns=st.integers(0, 30),
    late=st.lists(st.sampled_from([0, 300, 9_000, 300_000]), max_size=4),
    kind=st.sampled_from(["at once", "gate", "slots"]),
)
def test_a_direction_leaves_between_two_frames(sizes: list[int], turns: int, late: list[int], kind: str) -> None:
    rng = random.Random(1)
    old, new = Outbox(), Outbox()
    keys = bytes(32), bytes(31) + b"1"
    sealers, records = [Sealer(key) for key in keys], ([], [])  # type: ignore[var-annotated]
    old.shape(Cells(), IMMEDIATE if kind == "at once" else schedule_of(kind, rng))
    now, queued = 0.0, 0

    def put(outbox: Outbox, size: int) -> None:
        nonlocal queued
        outbox.put(Numbered(queued, size))
        queued += 1

    def turn(which: int) -> None:
        nonlocal now
        now += 0.03
        (old, new)[which].seal(sealers[which], lambda record, _: records[which].append(record), now)

    for size in sizes:
        put(old, size)
        if len(sizes) % 2:
            turn(0)
    for _ in range(turns):
        turn(0)
    old.leave()
    for size in late:
        put(old, size)
    while not old.has_left:
        turn(0)
    old.hand_over(new)
    assert old.waiting == 0
    put(new, 7)
    while new.waiting:
        turn(1)
    numbers = []
    for which, key in enumerate(keys):
        opener, decoder = Opener(key), FrameDecoder(KINDS)
        for plain, start, end in opener.receive(b"".join(records[which])):
            numbers += [item.number for item in decoder.receive(plain, start, end)]  # type: ignore[union-attr]
        assert decoder.pending is None, "at a boundary"
        assert opener.ended is (which == 0)
    assert numbers == list(range(queued))


# --- What an observer sees ------------------------------------------------------------------------------------------------


def test_slots_go_on_through_a_move_as_if_nothing_had_happened() -> None:
    knobs = knobs_of(PrivacyLevel.HIGH, constant_slots=True)
    pair = Pair(1, knobs=knobs)
    seen: list[tuple[float, LinkId]] = []

    def watch(sender: int, receiver: int, link: LinkId, data: bytes) -> bytes:
        if sender == 0 and len(data) == knobs.slot_size:
            seen.append((pair.kernel.now, link))
        return data

    pair.network.tamper = watch
    pair.load(10.0, (0, 6_000), 1.0)
    pair.run(5.0)
    pair.rotate()
    pair.run(60.0)
    pair.check()
    assert len({link for _, link in seen}) == 2, "on both connections, one after the other"
    slot_s = CONSTANT_SLOT_MS[0] / 1_000
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(seen)]
    assert all(isclose(gap, slot_s, abs_tol=1e-6) for gap in gaps), "one record a slot, on one of them"


def test_the_same_schedule_and_limits_go_on() -> None:
    pair = Pair(1, knobs=LEVELS[PrivacyLevel.MEDIUM])
    engine = pair.one.node.assembly.engine
    link = engine.links[pair.one.link]
    assert link.connection is not None
    schedule, meter = link.connection.outbox.schedule, link.meter
    pair.rotate()
    pair.run(10.0)
    (moved,) = engine.links.values()
    assert moved.id != link.id
    assert moved.connection is not None
    assert moved.connection.outbox.schedule is schedule
    assert moved.meter is meter, "what a peer may send is not renewed"
    assert moved.peer is pair.one.node.peers[0]
    assert pair.one.node.peers[0].link == link.id


def test_what_is_shown_is_where_it_runs_now() -> None:
    pair = Pair(1, knobs=QUIET)
    (before,) = pair.one.node.assembly.engine.describe(pair.kernel.now)
    assert (before["rotations"], before["rotated_s"]) == (0, None)
    assert 3_600 - 3 <= before["rotates_in_s"] <= 24 * 3_600
    pair.rotate()
    pair.run(10.0)
    for side in (pair.one, pair.other):
        (after,) = side.node.assembly.engine.describe(pair.kernel.now)
        assert (after["peer"], after["rotations"]) == (side.link, 1)
        assert 5.0 < after["rotated_s"] <= 10.0
        assert after["session_id"] != before["session_id"]


KEY = bytes(31) + b"\2"


def test_looking_for_a_place_to_move_to_costs_little_however_many_the_book_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer asks for it by ``rotate``, and a turn that takes long shows at the links of every face."""
    clock = Clock()
    known = book(clock)
    for n in range(500):
        known.learn(endpoint(f"20.{n // 250}.{n % 250}.1"), CarrierNumber.TLS, Face.CLEARNET, bytes([n % 250]), clock())
    other = known.learn(endpoint("30.1.0.1", 2_222), CarrierNumber.SSH, Face.CLEARNET, b"x", clock())
    assert other is not None
    known.told_key(other, KEY, b"x", is_own_word=False)
    known.good(other.place, KEY)
    clock.now += RETRY_S
    carriers = ("tls", "ssh")
    rotation = Rotation(RotationSettings(), known, random.Random(1), clock, carriers=carriers, ways=DIRECT)
    link = msgspec.structs.replace(
        peer(1, "30.1.0.1", inbound=False), dialled=Address(KEY, "30.1.0.1", 9_733, CarrierNumber.TLS)
    )
    rotation.on_established(link, 0.0)
    texts = 0
    text_of = Endpoint.host_text.fget

    def counted(place: Endpoint) -> str:
        nonlocal texts
        texts += 1
        return text_of(place)

    monkeypatch.setattr(Endpoint, "host_text", property(counted))
    assert [effect.address.carrier for effect in rotation.on_rotate(link, Rotate(), 1.0)] == [CarrierNumber.SSH]
    assert texts < 50
