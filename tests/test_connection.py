"""One link without I/O: any fragmentation, any fault at any place, every way to end.

The attackers: one in the middle, who flips, cuts and replays bytes; a stranger, who sends anything and waits; and a peer with a
proper channel who breaks the rules inside it.
"""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.connection import Connection, Ended, Established, Event, Opened, Reason
from obscura.handshake.features import BUILT, CORE, Flags
from obscura.limits import (
    ARRIVING,
    CELL,
    CLEAN_END_S,
    DISCARD_BYTES,
    DISCARD_S,
    HANDSHAKE_S,
    HEADER_BYTES,
    KEY_BYTES,
    MAX_OPENING_PAYLOAD,
    MAX_RECORD,
    MAX_UNKNOWN_PAYLOAD,
    UNAUTHENTICATED_BYTES,
)
from obscura.linkevents import Arriving
from obscura.morph.carrier import Finished
from obscura.wire.catalogue import BUILT_IN
from obscura.wire.frame import Malformed, Unknown, encode_frame, encode_raw, frame_parts
from obscura.wire.message import Message, Phase
from obscura.wire.messages.blocks import Block
from obscura.wire.messages.network import Extension, Ping, Pong, Verack, Version
from obscura.wire.messages.transactions import Tx
from playbook import (
    EXAMPLES,
    OWN_PADNEG,
    SECURITIES,
    Ends,
    Security,
    client,
    cut,
    ends,
    fed,
    inject,
    linked,
    messages,
    offer,
    server,
    version,
)

SEALED = ("nk", "nx")
SPARE_BITS = {(KEY_BYTES - 1, 6), (KEY_BYTES - 1, 7)}  # of a representative (uniform keys): byte of the stream, bit
ESTABLISHED_KINDS = [kind for kind in BUILT_IN if kind.PHASE & Phase.ESTABLISHED]
MESSAGES = st.sampled_from([EXAMPLES[kind] for kind in ESTABLISHED_KINDS]) | st.builds(
    lambda size, seed: Tx(random.Random(seed).randbytes(size)),
    st.sampled_from([0, 1, 214, 1_003, 3_000]),
    st.integers(0, 3),
)
SCRIPTS = st.lists(st.tuples(st.sampled_from(["client", "server", "pump"]), MESSAGES), max_size=10)
FINISHES = st.sampled_from(["stay", "client closes", "server closes", "both close", "client aborts"])


def played(security: Security, script: list[tuple[str, Message]], finish: str, seed: int = 1) -> Ends:
    """A whole conversation."""
    both = linked(security, seed=seed)
    for who, message in script:
        if who == "pump":
            both.pump()
        else:
            getattr(both, who).send(message)
    if finish in ("client closes", "both close"):
        both.client_events += both.client.close(0.0)
    if finish in ("server closes", "both close"):
        both.server_events += both.server.close(0.0)
    if finish == "client aborts":
        both.client_events += both.client.abort(0.0, Reason.STALLED)
    return both.pump()


# --- Fragmentation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", SECURITIES)
@settings(deadline=None, max_examples=12)
@given(script=SCRIPTS, finish=FINISHES, size=st.sampled_from([0, 1, 7, 64, 1_000]))
def test_the_same_bytes_give_the_same_events_however_they_are_cut(
    security: Security, script: list[tuple[str, Message]], finish: str, size: int
) -> None:
    both = played(security, script, finish)
    is_own_end = finish in ("client closes", "both close", "client aborts")
    heard = fed(client(security), cut(b"".join(both.to_client), size))
    assert heard[: len(both.client_events) - 1] == both.client_events[:-1]
    if not is_own_end:
        assert [event for event in heard if not _is_lost(event)] == [e for e in both.client_events if not _is_lost(e)]
    heard = fed(server(security), cut(b"".join(both.to_server), size))
    if finish not in ("server closes", "both close"):
        assert [event for event in heard if not _is_lost(event)] == [e for e in both.server_events if not _is_lost(e)]


def _is_lost(event: Event) -> bool:
    return isinstance(event, Ended) and event.reason is Reason.LOST


@pytest.mark.parametrize("lingers", [True, False])
def test_the_way_in_which_a_carrier_closes_reaches_the_socket(lingers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a name server's last word would be lost in the reset that unread updates cause."""
    both = linked("nk")
    monkeypatch.setattr(type(both.client._carrier), "end", lambda self, now: [Finished(lingers=lingers)])
    both.client.abort(0.0, Reason.STALLED)
    assert (both.client.over, both.client.closing) == (True, (lingers, False))


@pytest.mark.parametrize("security", SECURITIES)
def test_messages_of_all_types_and_sizes_pass_both_ways(security: Security) -> None:
    both = linked(security)
    sent = [EXAMPLES[kind] for kind in ESTABLISHED_KINDS] + [Tx(bytes(3_999_999)), Tx(b""), Ping(1)]
    for message in sent:
        both.client.send(message)
        both.server.send(message)
    both.pump()
    assert messages(both.server_events) == messages(both.client_events) == sent
    assert both.client.waiting == both.server.waiting == 0


# --- How a link comes up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", SEALED)
def test_both_sides_show_the_same_session(security: Security) -> None:
    both = linked(security)
    (mine,) = [event for event in both.client_events if isinstance(event, Opened)]
    (theirs,) = [event for event in both.server_events if isinstance(event, Opened)]
    assert mine.session_id == theirs.session_id
    assert len(mine.session_id) == 32
    assert mine.peer_key is not None
    assert theirs.peer_key is None, "the initiator is anonymous"
    for events in (both.client_events, both.server_events):
        assert [type(event) for event in events] == [Opened, Established]
        established = events[1]
        assert isinstance(established, Established)
        assert established.negotiated.own_padneg == established.negotiated.peer_padneg == OWN_PADNEG


def test_two_links_have_two_sessions() -> None:
    sessions = {linked("nk", seed=seed).client_events[0] for seed in range(5)}
    assert len({event.session_id for event in sessions if isinstance(event, Opened)}) == 5


def test_nothing_is_sent_before_the_link_is_established() -> None:
    both = Ends(client(), server())
    both.client.send(Ping(1))
    both.start()
    both.pump()
    assert messages(both.server_events) == []


def test_a_wrong_key_gets_no_link_and_no_explanation() -> None:
    other = StaticKey.generate(random.Random("other")).public
    for strangers in (True, False):
        both = Ends(client(responder_key=other), server(strangers=strangers)).start()
        assert both.server_events in ([], [Ended(Reason.FAULT, "not NK, or recorded, or out of time")])
        if strangers:  # it answers as to a stranger, which does not open for one who expected another key
            assert [end.reason for end in ends(both.client_events)] == [Reason.UNPROVEN]
        else:
            assert both.client_events == []
            assert both.to_client == []
            events = both.client.due(HANDSHAKE_S)
            assert [end.reason for end in ends(events)] == [Reason.TIMEOUT]


def test_a_listener_that_answers_none_but_those_who_know_its_key_is_silent() -> None:
    both = Ends(client("nx"), server(strangers=False)).start()
    assert both.to_client == []
    assert not both.server.over, "silence must not show as a close"


def test_above_the_trial_limit_there_is_no_cryptography_and_no_word() -> None:
    asked: list[int] = []
    both = Ends(client(), server(may_try=lambda: bool(asked.append(1)))).start()
    assert (asked, both.to_client, both.server.over) == ([1], [], False)
    assert [end.reason for end in ends(both.server_events)] == [Reason.FAULT]


def test_a_recorded_opening_opens_nothing() -> None:
    """The listener has seen this flight: it answers as to a stranger, which the recording cannot follow, or not at all."""
    replay = ReplayCache()
    both = Ends(client(), server(replay=replay)).start()
    assert both.server.is_established
    for strangers in (True, False):
        heard = fed(server(seed=2, replay=replay, strangers=strangers), both.to_server)
        assert [event.reason for event in heard if isinstance(event, Ended)] == [Reason.FAULT]
        assert len(heard) == 1


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("security", SECURITIES)
def test_who_is_refused_sees_a_clean_end(security: Security, side: str) -> None:
    picky = offer(bare=security == "bare", demanded=Flags(1 << 30, 0))
    both = Ends(
        client(security, said=picky if side == "client" else None),
        server(security, said=picky if side == "server" else None),
    ).start()
    own = both.client_events if side == "client" else both.server_events
    others = both.server_events if side == "client" else both.client_events
    assert [end.reason for end in ends(own)] == [Reason.REFUSED]
    assert "feature-bit-30" in ends(own)[0].detail
    expected = Reason.LOST if security == "bare" else Reason.CLEAN
    assert [end.reason for end in ends(others)] == [expected]
    assert both.client.over
    assert both.server.over


# --- Before the veracks ---------------------------------------------------------------------------------------------


def midway(security: Security, steps: int) -> Ends:
    """A link whose client has said ``steps`` of version, padneg, and nothing more: the attacker plays the client."""
    both = Ends(client(security), server(security))
    both.client_events += both.client.start(0.0)
    both.server_events += both.server.start(0.0)
    if security == "bare":
        both.client.outbox._queue.clear()
        both.client.outbox.waiting = 0
    else:
        for _ in range(2):
            for piece in both.client.flush(0.0):
                both.server_events += both.server.receive(piece, 0.0)
            for piece in both.server.flush(0.0):
                both.client_events += both.client.receive(piece, 0.0)
            if both.client._sealer is not None:
                both.client.outbox._queue.clear()  # its own version: the test says what is said
                both.client.outbox.waiting = 0
    said = offer(bare=security == "bare", nonce=1)
    for message in (said.version, OWN_PADNEG)[:steps]:
        inject(both.client, encode_frame(message))
    return both


def heard_by_server(both: Ends, size: int = 0) -> list[Event]:
    """What the server says of the client's queue, cut into pieces."""
    events: list[Event] = []
    for piece in cut(b"".join(both.client.flush(0.0)), size):
        events += both.server.receive(piece, 0.0)
    return events


FULL_VERSION = version(user_agent="a" * 256, extensions=tuple(Extension(9, bytes(v)) for v in (255, 255, 182)))
BEFORE_VERACK = {
    **{
        f"{kind.TYPE} before verack": encode_frame(EXAMPLES[kind])
        for kind in BUILT_IN
        if not kind.PHASE & Phase.OPENING
    },
    "verack twice": encode_frame(Verack()) * 2,
    "a second version": encode_frame(EXAMPLES[Version]),
    "resumed": encode_raw("resumed", bytes(48)),
    "an unknown type": encode_raw("novelty", b""),
    "a type with other bytes": bytes(4) + b"PING".ljust(12, b"\0") + b"\x5d\xf6\xe0\xe2",
    "a verack with a wrong checksum": encode_raw("verack", b"", b"\0\0\0\0"),
    "a verack with a payload": encode_raw("verack", b"x"),
    "a malformed padneg": encode_raw("padneg", b"\0"),
    "a version of 1,025 bytes": encode_raw("version", bytes(MAX_OPENING_PAYLOAD + 1)),
    "a padneg of 4 GiB, its header alone": b"\xff\xff\xff\xffpadneg\0\0\0\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("what", BEFORE_VERACK)
def test_before_the_veracks_everything_odd_is_a_violation(security: Security, what: str, size: int) -> None:
    both = midway(security, 1)
    inject(both.client, BEFORE_VERACK[what])
    inject(both.client, encode_frame(Ping(5)))
    events = heard_by_server(both, size)
    assert [end.reason for end in ends(events)] == [Reason.VIOLATION]
    assert messages(events) == []
    assert both.server.over
    assert not both.server.is_established


@pytest.mark.parametrize("security", SEALED)
def test_a_second_padneg_is_a_violation_before_verack_and_behind_it(security: Security) -> None:
    both = midway(security, 2)
    inject(both.client, encode_frame(OWN_PADNEG))
    assert [end.reason for end in ends(heard_by_server(both))] == [Reason.VIOLATION]
    both = linked(security)
    inject(both.client, encode_frame(OWN_PADNEG))
    both.pump()
    assert [end.reason for end in ends(both.server_events)] == [Reason.VIOLATION]


def test_the_largest_version_is_taken() -> None:
    assert len(FULL_VERSION.encode()) == MAX_OPENING_PAYLOAD
    both = midway("nk", 0)
    inject(both.client, encode_frame(FULL_VERSION) + encode_frame(OWN_PADNEG) + encode_frame(Verack()))
    events = heard_by_server(both, 7)
    assert [type(event) for event in events] == [Established]


def test_the_whole_handshake_and_more_in_one_read() -> None:
    """An initiator that does not wait: all in order, so nothing is wrong with it."""
    both = midway("nk", 2)
    inject(
        both.client, encode_frame(Verack()) + encode_frame(Ping(9)) + encode_frame(Verack()) + encode_frame(Ping(10))
    )
    events = heard_by_server(both)
    assert [type(event) for event in events] == [Established, Ping, Ended]
    assert ends(events)[0].reason is Reason.VIOLATION


# --- Established ----------------------------------------------------------------------------------------------------

VIOLATIONS = {
    "ping over its size": encode_raw("ping", bytes(9)),
    "an unknown type over 4 MiB": (MAX_UNKNOWN_PAYLOAD + 1).to_bytes(4, "little")
    + b"novelty".ljust(12, b"\0")
    + bytes(4),
    "a type in capitals": bytes(4) + b"PING".ljust(12, b"\0") + b"\x5d\xf6\xe0\xe2",
    "a type with a hole": bytes(4) + b"pi\0ng".ljust(12, b"\0") + b"\x5d\xf6\xe0\xe2",
    "an empty type": bytes(16) + b"\x5d\xf6\xe0\xe2",
    "version": encode_frame(EXAMPLES[Version]),
    "verack": encode_frame(Verack()),
    "resume": encode_raw("resume", bytes(48)),
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("what", VIOLATIONS)
def test_frames_before_a_violation_count_and_those_behind_it_do_not(security: Security, what: str, size: int) -> None:
    both = linked(security)
    inject(both.client, encode_frame(Ping(1)) + encode_frame(Pong(2)) + VIOLATIONS[what] + encode_frame(Ping(3)))
    inject(both.client, encode_frame(Ping(4)))
    events = heard_by_server(both, size)
    assert messages(events) == [Ping(1), Pong(2)]
    assert [type(event) for event in events][2:] == [Ended]
    assert ends(events)[0].reason is Reason.VIOLATION
    assert both.server.over


def test_malformed_and_unknown_frames_leave_the_link_alone() -> None:
    both = linked("nk")
    inject(both.client, encode_raw("ping", bytes(7)) + encode_raw("pong", bytes(8), b"none"))
    inject(both.client, encode_raw("novelty", b"x" * 5_000) + encode_frame(Ping(8)))
    both.pump()
    assert [type(event) for event in both.server_events[2:]] == [Malformed, Malformed, Unknown, Ping]
    assert both.server.is_established


# --- Somebody in between --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", SEALED)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), size=st.sampled_from([0, 1, 13]))
def test_one_flipped_bit_anywhere_ends_the_link_before_anything_false(
    security: Security, data: st.DataObject, size: int
) -> None:
    script: list[tuple[str, Message]] = [("client", Ping(1)), ("pump", Ping(0)), ("client", Tx(b"t" * 2_000))]
    both = played(security, script, "client closes")
    stream = bytearray(b"".join(both.to_server))
    at, bit = data.draw(st.integers(0, len(stream) - 1)), data.draw(st.integers(0, 7))
    # Which the dialler sees, of whom a recording has no answer: below.
    assume(security != "nx" or (at, bit) not in SPARE_BITS)
    stream[at] ^= 1 << bit
    listening = server(security)
    heard = fed(listening, cut(bytes(stream), size))
    told = [event for event in heard if not isinstance(event, Ended)]
    true = both.server_events[:-1]
    if any(isinstance(event, Opened) for event in told) and told[:1] != true[:1]:
        raise AssertionError("another session was opened")
    assert told == true[: len(told)]
    assert len(told) < len(true) or ends(heard)[0].reason is Reason.FAULT
    assert len(ends(heard)) <= 1
    assert listening.flush(0.0) == [], "a fault is not answered"
    if not ends(heard):  # it waits for what does not come any more
        heard += listening.due(HANDSHAKE_S) or listening.eof(HANDSHAKE_S)
        assert len(ends(heard)) == 1
    assert fed_again(listening, both) == []


@pytest.mark.parametrize(("at", "bit"), sorted(SPARE_BITS))
def test_spare_bits_that_are_flipped_on_the_way_are_seen_by_the_dialler(at: int, bit: int) -> None:
    """They change no key, but what both ends have hashed, so that flight 2 does not open."""
    dialling, listening = client("nx"), server("nx")
    dialling.start(0.0)
    listening.start(0.0)
    flight = bytearray(b"".join(dialling.flush(0.0)))
    flight[at] ^= 1 << bit
    assert listening.receive(bytes(flight), 0.0) == []
    heard = dialling.receive(b"".join(listening.flush(0.0)), 0.0)
    assert [type(event) for event in heard] == [Ended]
    assert dialling.flush(0.0) == []


def fed_again(connection: Connection, both: Ends) -> list[Event]:
    """What an ended link says to its whole past."""
    return [event for piece in both.to_server for event in connection.receive(piece, 1.0)]


@pytest.mark.parametrize("security", SEALED)
@pytest.mark.parametrize("how", ["dropped", "repeated", "swapped", "injected"])
def test_records_that_are_dropped_repeated_swapped_or_made_up(security: Security, how: str) -> None:
    both = linked(security)
    pieces = []
    for nonce in range(4):
        both.client.send(Ping(nonce))
        pieces.append(b"".join(both.client.flush(0.0)))
    if how == "dropped":
        del pieces[1]
    elif how == "repeated":
        pieces.insert(1, pieces[0])
    elif how == "swapped":
        pieces[1:3] = [pieces[2], pieces[1]]
    else:
        pieces.insert(1, bytes(1_024))
    events = [event for piece in pieces for event in both.server.receive(piece, 0.0)]
    assert messages(events) == [Ping(0)]
    assert [end.reason for end in ends(events)] == [Reason.FAULT]
    assert both.server.flush(0.0) == []


@pytest.mark.parametrize("security", SECURITIES)
def test_a_cut_wire_is_a_lost_link_and_half_a_frame_is_dropped(security: Security) -> None:
    both = linked(security)
    both.client.send(Ping(1))
    both.client.send(Tx(bytes(5_000)))
    stream = b"".join(both.client.flush(0.0))
    events = both.server.receive(stream[: len(stream) - 30], 0.0) + both.server.eof(0.0)
    assert messages(events) == [Ping(1)]
    assert [end.reason for end in ends(events)] == [Reason.LOST]
    assert both.server.over
    assert both.server.receive(stream[-30:], 0.0) == []


# --- After a fault: read and discard --------------------------------------------------------------------------------


def failed(seed: int) -> Connection:
    """A listener that was sent nonsense."""
    listening = server(seed=seed, strangers=False)
    events = fed(listening, [bytes(1_280)], now=100.0)
    assert [end.reason for end in ends(events)] == [Reason.FAULT]
    assert not listening.over
    return listening


def test_a_failed_link_discards_for_half_a_minute_to_one_and_a_half() -> None:
    waits = []
    for seed in range(200):
        listening = failed(seed)
        wait = listening.deadline() - 100.0
        assert listening.due(100.0 + wait - 0.001) == []
        assert not listening.over
        listening.due(100.0 + wait)
        assert listening.over
        assert listening.deadline() != -inf
        waits.append(wait)
    assert DISCARD_S[0] <= min(waits) < DISCARD_S[0] + 5
    assert DISCARD_S[1] - 5 < max(waits) <= DISCARD_S[1]
    assert 55 < sum(waits) / len(waits) < 65


def test_a_failed_link_discards_four_to_sixty_four_kib() -> None:
    taken = []
    for seed in range(200):
        listening = failed(seed)
        total = 0
        while not listening.over:
            assert listening.receive(bytes(256), 101.0) == []
            assert listening.flush(101.0) == []
            total += 256
        taken.append(total)
    assert DISCARD_BYTES[0] - 1_280 <= min(taken) < DISCARD_BYTES[0] + (4 << 10)  # what failed may count
    assert DISCARD_BYTES[1] - (4 << 10) < max(taken) <= DISCARD_BYTES[1] + 256
    assert 30 << 10 < sum(taken) / len(taken) < 38 << 10


def test_an_abort_ends_the_discarding_too() -> None:
    listening = failed(1)
    assert listening.abort(101.0, Reason.STALLED) == [], "the end was told already"
    assert listening.over


# --- What a stranger may make us hold -------------------------------------------------------------------------------


@pytest.mark.parametrize("strangers", [True, False])
@pytest.mark.parametrize("size", [1, 55, 56, 255, 256, 1_279, 4_096])
def test_memory_before_authentication_is_bounded(strangers: bool, size: int) -> None:
    listening = server(strangers=strangers)
    rng = random.Random(size)
    listening.start(0.0)
    for _ in range(1 + 8_192 // size):
        listening.receive(rng.randbytes(size), 0.0)
        opening = listening._opening
        held = len(opening._input) if opening is not None else 0
        assert held <= UNAUTHENTICATED_BYTES
    assert listening._opening is None, "it should have failed by now"
    assert not listening.is_authenticated


def test_a_bare_stranger_holds_one_small_frame() -> None:
    listening = server("bare")
    listening.start(0.0)
    header = (MAX_OPENING_PAYLOAD).to_bytes(4, "little") + b"version".ljust(12, b"\0") + bytes(4)
    assert listening.receive(header + bytes(MAX_OPENING_PAYLOAD - 1), 0.0) == []
    assert listening._decoder.pending == (HEADER_BYTES + MAX_OPENING_PAYLOAD - 1, HEADER_BYTES + MAX_OPENING_PAYLOAD)
    assert [end.reason for end in ends(listening.receive(b"x", 0.0))] == [Reason.VIOLATION]


# --- Time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("security", SECURITIES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_thirty_seconds_for_channel_and_handshake_at_every_stage(security: Security, side: str, share: float) -> None:
    """The other end falls silent after a share of what it had to say up to its verack."""
    whole = linked(security)
    other = b"".join(whole.to_client if side == "client" else whole.to_server)
    connection = client(security, now=5.0) if side == "client" else server(security, now=5.0)
    heard = fed(connection, [other[: int(len(other) * share)]], now=5.0)
    assert not [event for event in heard if isinstance(event, Established | Ended)]
    assert connection.deadline() == 5.0 + HANDSHAKE_S
    assert connection.due(5.0 + HANDSHAKE_S - 0.001) == []
    assert [end.reason for end in ends(connection.due(5.0 + HANDSHAKE_S))] == [Reason.TIMEOUT]
    assert connection.receive(other[int(len(other) * share) :], 36.0) == []
    assert connection.due(36.0 + CLEAN_END_S + DISCARD_S[1]) == []
    assert connection.over


def test_an_established_link_has_no_deadline_of_its_own() -> None:
    both = linked("nk")
    assert both.client.deadline() == both.server.deadline() == inf
    assert both.client.due(1e9) == []
    assert both.client.is_established


# --- Ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("security", SEALED)
def test_a_clean_end_delivers_what_was_queued_on_both_sides(security: Security, side: str) -> None:
    both = linked(security)
    closer, other = (both.client, both.server) if side == "client" else (both.server, both.client)
    closer.send(Tx(bytes(3_000)))
    closer.send(Ping(1))
    own = closer.close(0.0)
    assert [end.reason for end in own] == [Reason.LOCAL]
    assert not closer.over, "the other side has ten seconds"
    heard = [event for piece in closer.flush(0.0) for event in other.receive(piece, 0.0)]
    assert messages(heard) == [Tx(bytes(3_000)), Ping(1)]
    assert [end.reason for end in ends(heard)] == [Reason.CLEAN]
    assert other.over
    assert [event for piece in other.flush(0.0) for event in closer.receive(piece, 0.0)] == []
    assert closer.over


@pytest.mark.parametrize("security", SEALED)
def test_both_may_close_at_once(security: Security) -> None:
    both = played(security, [("client", Ping(1)), ("server", Ping(2))], "both close")
    assert [end.reason for end in ends(both.client_events)] == [Reason.LOCAL]
    assert [end.reason for end in ends(both.server_events)] == [Reason.LOCAL]
    assert both.client.over
    assert both.server.over


@pytest.mark.parametrize("security", SEALED)
def test_what_arrives_after_the_own_end_is_not_delivered(security: Security) -> None:
    both = linked(security)
    both.server.send(Ping(1))
    late = b"".join(both.server.flush(0.0))
    both.client_events += both.client.close(0.0)
    assert both.client.receive(late, 0.0) == []
    both.pump()
    assert messages(both.client_events) == []


@pytest.mark.parametrize("security", SEALED)
def test_ten_seconds_for_the_other_last_record(security: Security) -> None:
    both = linked(security)
    both.client.close(50.0)
    both.client.flush(50.0)
    assert both.client.deadline() == 50.0 + CLEAN_END_S
    both.client.due(50.0 + CLEAN_END_S - 0.001)
    assert not both.client.over
    assert both.client.due(50.0 + CLEAN_END_S) == []
    assert both.client.over


@pytest.mark.parametrize("security", SEALED)
def test_a_last_record_inside_a_frame_is_a_fault(security: Security) -> None:
    both = linked(security)
    inject(both.client, encode_frame(Ping(1)) + encode_frame(Ping(2))[:15])
    both.client.close(0.0)
    events = [event for piece in both.client.flush(0.0) for event in both.server.receive(piece, 0.0)]
    assert messages(events) == [Ping(1)]
    assert [end.reason for end in ends(events)] == [Reason.FAULT]
    assert both.server.flush(0.0) == [], "a fault is not answered"
    assert not both.server.over


@pytest.mark.parametrize("security", SEALED)
def test_bytes_behind_the_last_record_are_discarded(security: Security) -> None:
    both = linked(security)
    both.client.close(0.0)
    stream = b"".join(both.client.flush(0.0)) + bytes(5_000)
    events = both.server.receive(stream, 0.0) + both.server.receive(bytes(100), 0.0)
    assert [end.reason for end in ends(events)] == [Reason.CLEAN]


@pytest.mark.parametrize("stage", ["opening", "handshake", "established", "ending", "over"])
@pytest.mark.parametrize("how", ["close", "abort", "eof"])
@pytest.mark.parametrize("security", SECURITIES)
def test_an_end_is_told_once_and_nothing_comes_after_it(security: Security, stage: str, how: str) -> None:
    whole = linked(security, seed=3)
    listening = server(security, seed=3)
    stream = b"".join(whole.to_server)
    share = {"opening": 40, "handshake": len(stream) - 10}.get(stage, len(stream))
    events = fed(listening, [stream[:share]])
    if stage in ("ending", "over"):
        events += listening.close(0.0)
    if stage == "over":
        events += listening.abort(0.0, Reason.STALLED)
    if how == "close":
        events += listening.close(1.0)
    else:
        events += listening.abort(1.0, Reason.STALLED) if how == "abort" else listening.eof(1.0)
    listening.flush(1.0)
    events += listening.due(1.0 + CLEAN_END_S)
    assert len(ends(events)) == 1
    assert listening.over
    rest = stream[share:] + bytes(2_000)
    assert listening.receive(rest, 20.0) + listening.eof(20.0) + listening.due(1e6) + listening.close(1e6) == []
    assert listening.flush(1e6) == []


def test_a_link_closed_while_it_opens_is_not_revived_by_late_bytes() -> None:
    dialling, listening = client(seed=5), server(seed=5)
    dialling.start(0.0)
    listening.start(0.0)
    flight = b"".join(dialling.flush(0.0))
    listening.close(0.0)
    assert listening.receive(flight, 0.0) == []
    assert not listening.is_authenticated
    assert listening.over


def test_an_abort_drops_what_waits() -> None:
    both = linked("nk")
    both.client.send(Tx(bytes(100_000)))
    assert [end.reason for end in both.client.abort(0.0, Reason.STALLED)] == [Reason.STALLED]
    assert both.client.waiting == 0
    assert both.client.flush(0.0) == []
    assert both.client.over


def test_core_and_built_are_what_a_fresh_link_negotiates() -> None:
    both = linked("nk")
    established = both.client_events[1]
    assert isinstance(established, Established)
    assert established.negotiated.flags == BUILT
    assert not BUILT.lacks(CORE)


@pytest.mark.parametrize("security", SECURITIES)
def test_that_a_long_message_keeps_coming_is_told_once_a_second_at_most(security: Security) -> None:
    both, block = linked(security), Block(bytes(100_000))
    both.client.send(block)
    pieces = cut(b"".join(both.client.flush(0.0)), 1_500)
    events = [event for piece in pieces[:20] for event in both.server.receive(piece, 0.5)]
    for second, piece in enumerate(pieces[20:], 1):
        events += both.server.receive(piece, float(second))
    assert messages(events) == [block]
    told = [event for event in events if isinstance(event, Arriving)]
    assert set(told) <= {Arriving("block"), Arriving("")}
    assert 0.7 * 70_000 / ARRIVING[0] < len(told) <= 70_000 / ARRIVING[0] + 1


def record(end: Connection, content: bytes, size: int, now: float) -> bytes:
    """The next record of one end; the one behind it has ``size`` bytes."""
    assert end._sealer is not None
    return end._sealer.seal(content[: end._sealer.capacity], size, rekey=end._sealer.due_rekey(now))


@pytest.mark.parametrize("size", [64, CELL, MAX_RECORD])
@pytest.mark.parametrize("used", [0, 1])
def test_dummies_and_padding_are_nothing_that_comes(size: int, used: int) -> None:
    """Else a header and a little cover would hold up whoever waits for the message as long as its sender likes."""
    both, begun = linked("nk"), b"".join(frame_parts(Block(bytes(300_000))))
    events, at = both.server.receive(record(both.client, begun, size, 0.0), 0.0), 900
    for second in range(1, 400):
        for piece in cut(record(both.client, begun[at : at + used], size, second), 3_000):
            events += both.server.receive(piece, float(second))
        at += used
    assert both.server.is_established
    assert len(events) <= MAX_RECORD / ARRIVING[0]


@pytest.mark.parametrize("security", SECURITIES)
def test_short_messages_are_no_long_one_that_comes(security: Security) -> None:
    both = linked(security)
    for second in range(1, 1_000):
        both.client.send(Ping(second))
        assert both.server.receive(b"".join(both.client.flush(0.0)), float(second)) == [Ping(second)]
