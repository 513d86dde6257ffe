"""What every carrier owes the connection, one suite for all of them: ``receive(send(m)) == m`` whatever the wire does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carriers import FLIGHT_1, FLIGHT_2, MAKERS, Wire
from obscura.limits import HANDSHAKE_S

EACH = pytest.mark.parametrize("name", MAKERS)
COVERED = pytest.mark.parametrize("name", [name for name in MAKERS if name != "plain"])


@EACH
@pytest.mark.parametrize("cuts", [1, 3, 100, 1 << 20])
def test_flights_arrive_whole_and_bytes_in_order_at_any_fragmentation(name: str, cuts: int) -> None:
    wire = Wire(MAKERS[name], cuts=cuts).opened()
    rng = random.Random(cuts)
    up = [rng.randbytes(rng.choice((1, 2, 64, 125, 126, 127, 1_024, 65_535 if cuts > 3 else 300))) for _ in range(12)]
    down = [rng.randbytes(rng.choice((1, 2, 64, 125, 126, 127, 1_024, 65_536 if cuts > 3 else 300))) for _ in range(12)]
    for one, other in zip(up, down, strict=True):
        wire.client.carrier.send(one, 0.0)
        wire.server.carrier.send(other, 0.0)
        wire.run(rng.randint(0, 5))
    wire.run()
    assert bytes(wire.server.data) == b"".join(up)
    assert bytes(wire.client.data) == b"".join(down)


@EACH
@given(
    st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=300), st.integers(0, 4)), max_size=20),
    st.integers(0, 1 << 30),
    st.sampled_from([1, 7, 64, 5_000]),
)
@settings(deadline=None, max_examples=15)
def test_any_order_of_sends_and_reads_gives_the_same_bytes(
    name: str, plan: list[tuple[bool, bytes, int]], seed: int, cuts: int
) -> None:
    wire = Wire(MAKERS[name], seed=seed, cuts=cuts).opened()
    sent = {True: b"", False: b""}
    for from_client, data, steps in plan:
        (wire.client if from_client else wire.server).carrier.send(data, 0.0)
        sent[from_client] += data
        wire.run(steps)
    wire.run()
    assert bytes(wire.server.data) == sent[True]
    assert bytes(wire.client.data) == sent[False]


@EACH
def test_a_socket_that_takes_nothing_for_long_loses_nothing(name: str) -> None:
    """Back-pressure: much is sent before anything is written, and the peer speaks meanwhile."""
    wire = Wire(MAKERS[name]).opened()
    blocks = [random.Random(n).randbytes(20_000) for n in range(50)]
    for block in blocks:
        wire.client.carrier.send(block, 0.0)
    wire.server.carrier.send(b"meanwhile", 0.0)
    wire.collect(wire.server)
    while wire.deliver(wire.client):
        pass
    assert bytes(wire.client.data) == b"meanwhile"
    wire.run()
    assert bytes(wire.server.data) == b"".join(blocks)


@EACH
@pytest.mark.parametrize("ends_client", [True, False])
def test_a_clean_end_delivers_what_was_sent_and_finishes_both(name: str, ends_client: bool) -> None:
    wire = Wire(MAKERS[name]).opened()
    ender = wire.client if ends_client else wire.server
    other = wire.other(ender)
    ender.carrier.send(b"last words", wire.now)
    ender.on(ender.carrier.end(wire.now), wire.now)
    wire.run()
    for end in (other, ender):
        if end.finished is None:  # the cover says no good-bye, or waits for the other's socket to close
            end.on(end.carrier.eof(wire.now), wire.now)
    assert bytes(other.data) == b"last words"
    assert other.finished is not None
    assert ender.finished is not None


@EACH
@pytest.mark.parametrize("ends_client", [True, False])
def test_a_clean_end_delivers_all_that_waits_however_much_it_is(name: str, ends_client: bool) -> None:
    wire = Wire(MAKERS[name]).opened()
    ender = wire.client if ends_client else wire.server
    other = wire.other(ender)
    blocks = [random.Random(n).randbytes(20_000) for n in range(50)]
    for block in blocks:
        ender.carrier.send(block, wire.now)
    ender.on(ender.carrier.end(wire.now), wire.now)
    if ender.finished is not None:  # one write follows, and the socket is closed
        wire.collect(ender)
        assert ender.carrier.take() == []
    wire.run()
    assert bytes(other.data) == b"".join(blocks)


@EACH
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("dies_client", [True, False])
def test_a_peer_that_dies_in_any_state_ends_the_session(name: str, steps: int, dies_client: bool) -> None:
    wire = Wire(MAKERS[name], cuts=200)
    wire.run(steps)
    left = wire.server if dies_client else wire.client
    wire.collect(wire.other(left))
    while wire.deliver(left):
        pass
    if left.finished is None:
        left.on(left.carrier.eof(0.0), 0.0)
    assert left.finished is not None
    left.carrier.take()
    assert left.carrier.deadline() == float("inf") or left.carrier.due(1e9)


@EACH
def test_nothing_is_delivered_after_a_refusal_and_the_session_ends_in_time(name: str) -> None:
    wire = Wire(MAKERS[name], refuses=True)
    wire.run()
    if wire.server.carrier.STREAMED:
        wire.server.carrier.refuse(0.0)
        wire.server.data.clear()
    wire.client.carrier.send(b"more" * 100, 0.0)
    wire.run()
    assert not wire.server.data
    for _ in range(10):
        if wire.server.finished is not None:
            break
        wire.now = wire.server.carrier.deadline()
        assert wire.now < 1_000, "some deadline ends it"
        wire.due(wire.server)
    assert wire.server.finished is not None


# ssh: its program ends, and the cover says so; dns: a server answers every request, with BADSIG here.
@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("ssh", "dns")])
def test_a_failure_in_the_open_session_is_silent_and_ends_in_time(name: str) -> None:
    wire = Wire(MAKERS[name]).opened()
    wire.collect(wire.server)
    before = len(wire.tapped[False])
    wire.server.carrier.refuse(5.0)
    wire.client.carrier.send(b"more" * 100, 5.0)
    wire.run()
    assert len(wire.tapped[False]) == before, "nothing is said"
    assert 5.0 < wire.server.carrier.deadline() <= 5.0 + 90.0
    for _ in range(3):  # a site that has given up on its application goes on as a site
        wire.now = wire.server.carrier.deadline()
        wire.due(wire.server)
        wire.collect(wire.server)
        if wire.server.finished is not None:
            break
    assert wire.server.finished is not None
    assert not wire.server.data


@COVERED
def test_one_flight_is_tried_and_after_a_refusal_no_other(name: str) -> None:
    wire = Wire(MAKERS[name], refuses=True)
    wire.run()
    assert wire.server.flights == [FLIGHT_1]
    assert wire.client.flights == []
    assert wire.client.finished is not None, "the dialler goes, as who is not let in"


@COVERED
def test_the_dialler_gives_up_when_its_time_is_over(name: str) -> None:
    wire = Wire(MAKERS[name])
    wire.client.carrier.refuse(HANDSHAKE_S)
    wire.now = HANDSHAKE_S
    wire.run()
    if wire.client.finished is None:
        wire.now = wire.client.carrier.deadline()
        wire.due(wire.client)
    assert wire.client.finished is not None


@COVERED
def test_bindings_are_of_one_session_only(name: str) -> None:
    bindings = [Wire(MAKERS[name], seed=seed).opened().server.binding for seed in (1, 10, 20)]
    assert len(set(bindings)) == 3
    assert all(binding is not None and len(binding) >= 16 for binding in bindings)


@COVERED
def test_the_dialler_shows_nothing_of_the_channel_before_its_place(name: str) -> None:
    wire = Wire(MAKERS[name])
    wire.client.carrier.send(b"too early", 0.0)
    wire.run()
    assert b"too early" not in wire.tapped[True]
    assert FLIGHT_2 not in wire.server.flights


@COVERED
@given(st.binary(min_size=1, max_size=400), st.integers(1, 50))
@settings(deadline=None, max_examples=25)
def test_rubbish_raises_nothing_on_either_side(name: str, rubbish: bytes, cuts: int) -> None:
    for stage in (0, 2, 1_000):
        wire = Wire(MAKERS[name], cuts=cuts)
        wire.run(stage)
        for end in (wire.client, wire.server):
            if end.finished is None:
                end.inbox += rubbish
        wire.run(3_000)
        assert wire.server.flights in ([], [FLIGHT_1])


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("name", MAKERS)
def test_what_was_sent_before_the_end_arrives_before_it(name: str, side: str) -> None:
    """Whatever the cover's own flow control holds back: a link that rotates away ends with its last frame."""
    wire = Wire(MAKERS[name], seed=9, cuts=20_000).opened()
    sender, receiver = (wire.client, wire.server) if side == "client" else (wire.server, wire.client)
    receiver.data.clear()
    sent = random.Random(9).randbytes(3 << 20)
    for at in range(0, len(sent), 1 << 16):
        sender.carrier.send(sent[at : at + (1 << 16)], wire.now)
        wire.collect(sender)
    sender.on(sender.carrier.end(wire.now), wire.now)
    for _ in range(400):
        wire.run()
        if len(receiver.data) == len(sent):
            break
        wire.now += 0.5
    assert bytes(receiver.data) == sent
