"""All links of one node without I/O: who is let in, who is cut, what is told once, what one turn writes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from obscura.channel.uniform import StaticKey
from obscura.connection import Reason
from obscura.errors import AddressError
from obscura.handshake.features import Flags
from obscura.limits import (
    CLEAN_END_S,
    DISCARD_S,
    DISCONNECT_POINTS,
    HANDSHAKE_S,
    MALFORMED_POINTS,
    PING_DEAD_S,
    PING_INTERVAL_S,
    SEND_QUEUE_HIGH,
    SEND_QUEUE_LOW,
    SEND_QUEUE_MAX,
    SEND_STALL_S,
)
from obscura.morph.plain import Plain
from obscura.node.core import Part
from obscura.node.effects import Disconnect, Effect, Notify, Send
from obscura.node.io import Hold, Reach, Shut, Write
from obscura.node.link import Link
from obscura.node.peer import Peer
from obscura.node.pressure import Memory
from obscura.shaping.levels import LEVELS, Knobs
from obscura.wire.address import Address
from obscura.wire.frame import encode_frame, encode_raw
from obscura.wire.messages.blocks import Block
from obscura.wire.messages.network import Addr, AddrEntry, GetAddr, Ping, Pong, Verack
from obscura.wire.messages.transactions import Tx
from playbook import (
    QUIET,
    SECURITIES,
    SERVER_KEY,
    Guest,
    Host,
    Security,
    client,
    ends,
    inject,
    messages,
    offer,
    server,
    visit,
)

KEY_SENTENCE = "127.0.0.1:19733 did not prove its key: offline, key changed, wrong clock, or interference"
MIB = 1 << 20


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["an incomplete message", "messages over their rate"])
def test_who_is_cut_for_what_it_makes_us_hold_holds_nothing_while_its_socket_lives_on(
    held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of ssh, say, ends once the peer has said so: the turn cut such a link again and again, and never ended."""
    host = Host(rate_factor=1.0)
    guest, other = visit(host, seed=1), visit(host, seed=2)
    monkeypatch.setattr(Plain, "end", lambda self, now: [])
    host.engine._memory = Memory(100_000, 1)
    for link in host.engine.links.values():
        link.memory = 0
    cut, cuts = host.engine.cut, []

    def counted(link: Link, reason: Reason, now: float) -> None:
        cuts.append(link.id)
        assert len(cuts) < 10, "the same turn, again and again"
        cut(link, reason, now)

    monkeypatch.setattr(host.engine, "cut", counted)
    if held == "an incomplete message":
        guest.connection.send(Block(bytes(300_000)))
        host.give(guest.link, b"".join(guest.connection.flush(0.0))[:200_000])
    else:
        for _ in range(200):
            guest.connection.send(Addr((AddrEntry(0, 0, 1, bytes(4), 1, 0, bytes(32)),) * 20))
        while data := b"".join(guest.connection.flush(0.0)):
            host.give(guest.link, data)
    assert cuts == [guest.link]
    assert guest.link in host.engine.links, "its socket lives on"
    assert host.engine.links[guest.link].memory == 0
    assert [event for event in other.send(Ping(2)).events if isinstance(event, Pong)] == [Pong(2)]


# --- One turn ---------------------------------------------------------------------------------------------------------


def test_a_turn_writes_once_per_link_however_much_was_queued() -> None:
    host = Host()
    guests = [visit(host, seed=seed) for seed in range(3)]
    for nonce in range(50):
        for guest in guests:
            host.engine.send(guest.link, Ping(nonce), host.now)
    writes = [io for io in host.turn() if isinstance(io, Write)]
    assert sorted(io.link for io in writes) == sorted(guest.link for guest in guests)
    assert all(len(io.pieces) == 1 for io in writes)
    for guest in guests:
        assert [m for m in messages(guest.pump().events) if isinstance(m, Ping)] == [Ping(n) for n in range(50)]
    assert host.turn() == [], "nothing is left to do"


def test_answers_of_one_chunk_leave_together() -> None:
    host = Host()
    guest = visit(host)
    for nonce in range(20):
        guest.connection.send(Ping(nonce))
    host.turns.clear()
    host.give(guest.link, b"".join(guest.connection.flush(0.0)))
    (done,) = host.turns
    assert len([io for io in done if isinstance(io, Write)]) == 1
    assert messages(guest.pump().events)[-20:] == [Pong(nonce) for nonce in range(20)]


# --- Dialling ---------------------------------------------------------------------------------------------------------


def failures(host: Host) -> list[str]:
    """What was told of dials that failed."""
    return [str(told.fields["why"]) for told in host.kinds("dial-failed")]


def test_a_place_where_nothing_listens_is_told_once() -> None:
    host = Host()
    link = host.engine.dial(host.address, 0.0)
    assert host.turn() == [Reach(link, host.address)]
    host.engine.unreachable(link, "nothing listens at 127.0.0.1:19733", 0.0)
    host.turn()
    host.engine.unreachable(link, "again", 0.0)
    host.engine.connected(link, host.address.endpoint, 0.0)
    host.at(1_000.0)
    assert failures(host) == ["nothing listens at 127.0.0.1:19733"]
    assert host.kinds("dial-failed")[0].fields["peer"] == link


@pytest.mark.parametrize("how", ["eof", "silence", "garbage", "another key"])
def test_who_does_not_prove_the_key_is_told_with_one_sentence_and_once(how: str) -> None:
    host = Host()
    link = host.dial()
    if how == "eof":
        host.engine.eof(link, 0.0)
    elif how == "garbage":
        host.give(link, bytes(2_000))
    elif how == "another key":
        host = Host()
        link = host.dial(Address(StaticKey.generate(random.Random(3)).public, "127.0.0.1", 19733))
        Guest(host, server(strangers=True), link).pump()
    host.at(HANDSHAKE_S + DISCARD_S[1] + CLEAN_END_S)
    host.at(10_000.0)
    assert failures(host) == [KEY_SENTENCE]
    assert host.engine.links == {}
    assert link in host.shut


def test_who_hangs_up_on_a_dial_is_not_told_about_keys() -> None:
    host = Host()
    host.engine.disconnect(host.dial(), "the operator changed her mind", 0.0)
    host.turn()
    link = host.engine.dial(host.address, 0.0)
    host.engine.disconnect(link, "before the socket was there", 0.0)
    host.turn()
    assert len(failures(host)) == 2
    assert "changed her mind" in failures(host)[0]
    assert failures(host)[1] == "before the socket was there"


def test_a_refusal_by_the_other_side_is_told_once() -> None:
    host = Host()
    link = host.dial()
    picky = server(said=offer(demanded=Flags(1 << 30, 0)))
    Guest(host, picky, link).pump()
    assert len(failures(host)) == 1
    assert "key" not in failures(host)[0]


def test_dials_that_may_not_be_made() -> None:
    host = Host()
    for text in (
        "obscura://203.0.113.5:19733",
        "obscura://203.0.113.5:19733?carrier=bare",
        "obscura://node.example:19733?carrier=tls",
        "obscura://127.0.0.1:19733?carrier=http",  # without a key
    ):
        with pytest.raises(AddressError):
            host.engine.dial(Address.parse(text), 0.0)
    assert host.engine.links == {}
    assert host.turn() == []


# --- Ourselves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", SECURITIES)
def test_a_node_that_reaches_itself_notices(security: Security) -> None:
    """NK: the inbound side opens first. NX: the outbound one. Bare: by the nonce."""
    host = Host(security=security)
    out = host.dial()
    into = host.accept()
    for _ in range(6):
        for one, other in ((out, into), (into, out)):
            data = host.taken(one)
            if data:
                host.give(other, data)
    assert host.kinds("peer-connected") == []
    assert failures(host) == ["connected to itself"]
    assert host.engine.links == {}
    assert sorted(host.shut) == sorted((out, into))
    assert visit(host, security, seed=4).connection.is_established, "others are still welcome"


def test_a_copied_nonce_on_a_sealed_link_changes_nothing() -> None:
    """A spy copies the nonce of one face to another and watches who hangs up: nobody does."""
    host = Host()
    out = host.dial()
    other = Guest(host, server(seed=9), out).pump()
    (established,) = [event for event in other.events if hasattr(event, "negotiated")]
    nonce = established.negotiated.peer.nonce
    spy = Guest(host, client(seed=8, said=offer(nonce=nonce)), host.accept()).pump()
    assert spy.connection.is_established
    assert other.connection.is_established


# --- Back-pressure ----------------------------------------------------------------------------------------------------


SHAPED = pytest.mark.parametrize("knobs", [QUIET, *LEVELS.values()], ids=["quiet", *(level.value for level in LEVELS)])


def held_up(host: Host, guest: Guest, mib: int) -> list[object]:
    """The peer's socket takes nothing, and this much is queued for it."""
    host.engine.writable(guest.link, False, host.now)
    for _ in range(mib):
        host.engine.send(guest.link, Tx(bytes(MIB - 100)), host.now)
    return list(host.turn())


def test_who_does_not_read_is_not_read_from() -> None:
    host = Host()
    guest = visit(host)
    assert held_up(host, guest, 4) == []
    assert 3 * MIB < host.engine.waiting(guest.link) <= SEND_QUEUE_HIGH
    host.engine.send(guest.link, Tx(bytes(2_000)), host.now)
    assert host.turn() == [Hold(guest.link, True)]
    assert host.turn() == []
    host.engine.writable(guest.link, True, host.now)
    for _ in range(50):
        host.turn()
    assert host.held[guest.link] is False
    assert host.engine.waiting(guest.link) <= SEND_QUEUE_LOW
    assert len([m for m in messages(guest.pump().events) if isinstance(m, Tx)]) == 5


def test_a_peer_that_makes_us_hold_too_much_is_cut() -> None:
    host = Host()
    guest = visit(host)
    held_up(host, guest, SEND_QUEUE_MAX // MIB)
    assert host.kinds("peer-disconnected") == []
    host.engine.send(guest.link, Tx(bytes(MIB)), host.now)
    host.turn()
    assert [told.fields["reason"] for told in host.kinds("peer-disconnected")] == [Reason.STALLED.value]
    assert host.shut == [guest.link]
    assert host.engine.links == {}
    assert not host.engine.send(guest.link, Ping(1), host.now)


@SHAPED
def test_a_peer_that_takes_nothing_for_two_minutes_is_cut(knobs: Knobs) -> None:
    host = Host(knobs=knobs)
    guest = visit(host)
    host.now = 10.0
    held_up(host, guest, 1)
    host.at(10.0 + SEND_STALL_S - 0.01)
    assert host.shut == []
    host.at(10.0 + SEND_STALL_S)
    assert host.shut == [guest.link]


@SHAPED
def test_a_slow_reader_that_takes_something_is_not_cut(knobs: Knobs) -> None:
    host = Host(knobs=knobs)
    guest = visit(host)
    held_up(host, guest, 1)
    for minute in range(1, 6):
        host.at(minute * 100.0)
        host.engine.writable(guest.link, False, host.now)  # the socket took some, and is full again
        host.turn()
    assert host.shut == []
    host.engine.writable(guest.link, True, host.now)
    host.turn()
    host.at(host.now + 2 * SEND_STALL_S)
    assert host.shut == []


@SHAPED
def test_a_failed_link_whose_socket_is_full_ends_and_does_not_spin(knobs: Knobs) -> None:
    """Blocked, then garbage: it discards, and its stall comes while it does."""
    host = Host(knobs=knobs)
    guest = visit(host)
    held_up(host, guest, 1)
    host.at(SEND_STALL_S - 5)
    host.give(guest.link, bytes(3_000))
    assert host.kinds("peer-disconnected")
    turns = len(host.turns)
    host.at(SEND_STALL_S + DISCARD_S[1])
    assert len(host.turns) - turns < 2_000
    assert host.engine.links == {}


@SHAPED
@pytest.mark.parametrize("how", ["garbage", "disconnect", "violation"])
def test_an_ended_link_keeps_no_schedule(how: str, knobs: Knobs) -> None:
    """Its dummies and slots are over: else their time would be due for ever, with nobody to serve it."""
    host = Host(knobs=knobs)
    guest = visit(host)
    host.at(50.0)
    if how == "garbage":
        host.give(guest.link, bytes(70_000))
    elif how == "disconnect":
        host.engine.disconnect(guest.link, "as asked", host.now)
        host.turn()
    else:
        guest.pump()
        inject(guest.connection, encode_frame(Verack()))
        guest.pump()
    turns = len(host.turns)
    host.at(host.now + DISCARD_S[1])
    assert len(host.turns) - turns < 10
    assert host.engine.links == {}


# --- Misbehaviour -----------------------------------------------------------------------------------------------------


def test_malformed_messages_cost_points_and_then_the_link() -> None:
    host = Host()
    guest = visit(host)
    needed = DISCONNECT_POINTS // MALFORMED_POINTS
    for count in range(1, needed + 1):
        inject(guest.connection, encode_raw("ping", bytes(7)))
        guest.pump()
        assert len(host.kinds("penalty")) == count
        assert bool(host.kinds("peer-disconnected")) == (count == needed)
    assert "too many faults" in host.kinds("peer-disconnected")[0].fields["reason"]


def test_a_violation_ends_the_link_and_counts() -> None:
    host = Host()
    guest = visit(host)
    inject(guest.connection, encode_frame(Verack()))
    guest.pump()
    (told,) = host.kinds("peer-disconnected")
    assert told.fields["reason"].startswith(Reason.VIOLATION.value)
    assert host.engine.links == {}


class Recorder(Part):
    """Notes what it is told, and ends the link at the first transaction."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def reactions(self) -> dict[Any, Any]:
        return {Tx: self.on_tx}

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self.log.append("established")
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self.log.append("closed")
        return (Send(peer.link, Ping(1)), Disconnect(peer.link, "again"), Notify("said", {}))

    def on_tx(self, peer: Peer, message: Tx, now: float) -> Iterable[Effect]:
        self.log.append(f"tx {len(message.raw)}")
        return (Disconnect(peer.link, "enough"),)


def with_recorder() -> tuple[Host, Recorder]:
    """A host with one more part."""
    host, recorder = Host(), Recorder()
    host.assembly.core.parts = (*host.assembly.core.parts, recorder)
    host.assembly.core.route(Tx, recorder.on_tx)
    return host, recorder


@pytest.mark.parametrize("then", ["nothing", "violation", "garbage"])
def test_after_a_disconnect_no_reaction_sees_the_rest_of_the_chunk(then: str) -> None:
    host, recorder = with_recorder()
    guest = visit(host)
    guest.connection.send(Tx(b"1"))
    guest.connection.send(Tx(b"22"))
    if then == "violation":
        inject(guest.connection, encode_frame(Verack()))
    stream = b"".join(guest.connection.flush(0.0)) + (bytes(5_000) if then == "garbage" else b"")
    host.give(guest.link, stream)
    assert recorder.log == ["established", "tx 1", "closed"]
    assert [told.fields["reason"] for told in host.kinds("peer-disconnected")] == ["closed by this node: enough"]
    assert len(host.kinds("said")) == 1


def test_a_closed_link_is_told_once_however_it_ends() -> None:
    for how in ("eof", "disconnect", "garbage", "drop"):
        host, recorder = with_recorder()
        guest = visit(host)
        if how == "eof":
            host.engine.eof(guest.link, 0.0)
        elif how == "disconnect":
            host.engine.disconnect(guest.link, "x", 0.0)
            host.engine.disconnect(guest.link, "y", 0.0)
        else:
            host.give(guest.link, bytes(4_000))
        host.turn()
        host.engine.eof(guest.link, 0.0)
        host.at(500.0)
        assert recorder.log == ["established", "closed"], how
        assert host.engine.links == {}


# --- Liveness ---------------------------------------------------------------------------------------------------------


def test_a_peer_is_pinged_every_two_minutes_and_dropped_after_twenty_without_a_pong() -> None:
    host = Host()
    guest = visit(host)
    host.at(PING_INTERVAL_S)
    guest.pump()
    pings = [m for m in messages(guest.events) if isinstance(m, Ping)]
    assert len(pings) == 1, "a random phase within the first interval"
    guest.send(Pong(pings[0].nonce ^ 1))  # proves nothing
    guest.send(Pong(pings[0].nonce))
    host.at(host.now + PING_INTERVAL_S)
    guest.pump()
    assert len([m for m in messages(guest.events) if isinstance(m, Ping)]) == 2
    host.at(host.now + PING_DEAD_S - PING_INTERVAL_S)
    assert host.kinds("peer-disconnected") == []
    host.at(host.now + 2 * PING_INTERVAL_S)
    assert "no pong" in host.kinds("peer-disconnected")[0].fields["reason"]


def test_links_are_pinged_at_phases_of_their_own() -> None:
    host = Host()
    guests = [visit(host, seed=seed) for seed in range(12)]
    times = {}
    while len(times) < len(guests):
        host.at(host.engine.deadline())
        for guest in guests:
            if any(isinstance(m, Ping) for m in messages(guest.pump().events)):
                times.setdefault(guest.link, host.now)
    assert len(set(times.values())) == len(guests)
    assert max(times.values()) <= PING_INTERVAL_S


def test_an_asked_ping_tells_its_round_trip_once() -> None:
    host = Host()
    guest = visit(host)
    host.engine.apply(host.assembly.liveness.ask(guest.link, host.now), host.now)
    host.turn()
    data = host.taken(guest.link)
    host.now += 0.125
    guest.events += guest.connection.receive(data, host.now)
    (ping,) = [m for m in messages(guest.events) if isinstance(m, Ping)]
    guest.send(Pong(ping.nonce)).send(Pong(ping.nonce))
    assert [told.fields for told in host.kinds("pong")] == [{"peer": guest.link, "rtt_ms": 125.0}]
    assert host.assembly.liveness.ask(99, host.now) == ()


def test_getaddr_goes_out_on_dialled_links_alone() -> None:
    host = Host()
    into = visit(host)
    out = Guest(host, server(seed=3), host.dial()).pump()
    assert [type(m) for m in messages(into.events)] == []
    assert [type(m) for m in messages(out.events)] == [GetAddr]


# --- The end of the node ----------------------------------------------------------------------------------------------


def test_stop_ends_everything_and_lets_nothing_begin() -> None:
    manual = Address(SERVER_KEY.public, "127.0.0.1", 19999)
    host = Host(manual=(manual,))
    guest = visit(host)
    stranger = host.accept()  # says nothing
    discarding = host.accept()
    host.give(discarding, bytes(4_000))
    dialled = host.dial()
    host.engine.stop(host.now)
    host.turn()
    assert {stranger, discarding, dialled} <= set(host.shut)
    assert set(host.engine.links) == {guest.link}, "one peer still has to say its last record"
    reached = len(host.reached)
    late = host.accept()
    assert late in host.shut
    host.at(host.now + CLEAN_END_S)
    assert host.engine.links == {}
    host.at(host.now + 10_000)
    assert len(host.reached) == reached, "no manual peer is dialled while the node stops"
    with pytest.raises(AddressError):
        host.engine.dial(manual, host.now)


def test_a_stop_that_the_peers_answer_is_immediate() -> None:
    host = Host()
    guests = [visit(host, seed=seed) for seed in range(3)]
    host.engine.stop(host.now)
    host.turn()
    for guest in guests:
        guest.pump()
        assert [end.reason for end in ends(guest.events)] == [Reason.CLEAN]
    assert host.engine.links == {}
    assert len(host.shut) == 3


def test_late_words_of_the_interpreter_are_ignored() -> None:
    host = Host()
    for link in (0, 5, 10**9):
        host.engine.receive(link, b"x", 0.0)
        host.engine.eof(link, 0.0)
        host.engine.writable(link, False, 0.0)
        host.engine.connected(link, None, 0.0)
        host.engine.unreachable(link, "?", 0.0)
        assert not host.engine.disconnect(link, "?", 0.0)
        assert not host.engine.send(link, Ping(1), 0.0)
        assert host.engine.waiting(link) == 0
    assert host.turn() == []


def test_shut_comes_after_the_last_write() -> None:
    host = Host()
    guest = visit(host)
    guest.connection.close(host.now)
    host.turns.clear()
    host.give(guest.link, b"".join(guest.connection.flush(host.now)))
    kinds = [type(io) for turn in host.turns for io in turn if isinstance(io, Write | Shut)]
    assert kinds == [Write, Shut]
