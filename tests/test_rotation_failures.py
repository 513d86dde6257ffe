"""Moves that fail, and what attackers make of resume, resumed and rotate: the old link goes on, or ends like any lost link."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from obscura.channel.replay import ReplayCache
from obscura.channel.resume import Claim, ResumeSecret
from obscura.channel.uniform import StaticKey
from obscura.connection import Connection
from obscura.errors import UserError, Violation
from obscura.handshake.machine import Handshake, State
from obscura.limits import HANDSHAKE_S, MOVE_IDLE_S, MOVE_WAIT_S, ROTATE_ASKED_S
from obscura.linkevents import Reason, Rejoined
from obscura.morph.plain import Plain
from obscura.node.face import Face
from obscura.node.io import Listener, Reach
from obscura.node.link import Link
from obscura.node.rotation import RotationSettings
from obscura.security import Dialling
from obscura.wire.address import Address
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.messages.network import Ping, Pong
from obscura.wire.messages.privacy import Resume, Resumed, Rotate
from playbook import NETWORK_ID, QUIET, SERVER_KEY, UNIX, Guest, Host, ends, messages, offer, server, visit
from rotating import Pair


def secret_of(guest: Guest) -> ResumeSecret:
    """What the guest's channel gave it."""
    return next(event.resume_secret for event in guest.events if hasattr(event, "resume_secret"))


def claimant(secret: ResumeSecret | None, *, seed: int, face: Face = Face.CLEARNET) -> Connection:
    """A dialling connection that resumes with this secret."""
    rng = random.Random(f"claimant {seed}")
    channel = Dialling(NETWORK_ID, face, SERVER_KEY.public)
    return Connection(
        Plain(rng, client=True),
        channel,
        offer(nonce=seed),
        CATALOGUE,
        rng,
        lambda: UNIX,
        initiator=True,
        now=0.0,
        resuming=secret,
    )


def come(host: Host, secret: ResumeSecret, *, seed: int, port: int = 51_000) -> Guest:
    """Somebody who says ``resume`` on a new link of the host."""
    return Guest(host, claimant(secret, seed=seed), watched(host).accept(port=port + seed)).pump()


def watched(host: Host) -> Host:
    """Note which links the host takes for a session's, whatever becomes of them."""
    handover = host.engine._handover
    if not hasattr(handover, "taken"):
        rejoined, taken = handover.rejoined, set()

        def rejoined_and_noted(link: Link, now: float) -> None:
            taken.add(link.id)
            rejoined(link, now)

        handover.taken, handover.rejoined = taken, rejoined_and_noted  # type: ignore[attr-defined, method-assign]
    return host


def has_rejoined(guest: Guest) -> bool:
    """Whether the host took the claim; an attacker does not care for the host's own proof."""
    return guest.link in guest.host.engine._handover.taken  # type: ignore[attr-defined]


def still_answers(host: Host, guest: Guest) -> bool:
    """Whether the host serves the guest's old link."""
    guest.send(Ping(77))
    return any(getattr(message, "nonce", None) == 77 for message in messages(guest.events))


# --- resume, by those who should not ------------------------------------------------------------------------------------


def test_the_right_secret_is_let_in_and_nothing_changes_until_it_leaves() -> None:
    host = Host()
    guest = visit(host)
    newcomer = come(host, secret_of(guest), seed=2)
    assert has_rejoined(newcomer)
    assert still_answers(host, guest), "make before break"
    assert len(host.assembly.core.peers) == 1


def test_a_guessed_id_or_a_wrong_proof_is_a_violation_and_costs_the_session_nothing() -> None:
    host = Host()
    guest = visit(host)
    secret = secret_of(guest)

    class Forger(ResumeSecret):
        def mac(self, side: Any, h_new: bytes) -> bytes:
            return bytes(32)

    for seed, forged in enumerate((ResumeSecret(bytes(32)), Forger(secret.value), ResumeSecret(secret.value, 1)), 2):
        newcomer = come(host, forged, seed=seed)
        assert not has_rejoined(newcomer)
        assert ends(newcomer.events), "the link has ended"
    assert still_answers(host, guest)


def test_a_resume_that_was_seen_on_one_channel_proves_nothing_on_another() -> None:
    host = Host()
    guest = visit(host)
    secret = secret_of(guest)

    class Replayer(ResumeSecret):
        def mac(self, side: Any, h_new: bytes) -> bytes:
            return secret.mac(side, b"another channel".ljust(32))

    newcomer = come(host, Replayer(secret.value), seed=3)
    assert not has_rejoined(newcomer)
    assert ends(newcomer.events)
    assert still_answers(host, guest)


def test_a_session_of_another_one_cannot_be_had() -> None:
    host = Host()
    alice, bob = visit(host, seed=1), visit(host, seed=2)
    secret = secret_of(alice)
    crossed = ResumeSecret(secret_of(bob).value, 0)

    class Crossed(ResumeSecret):
        def session_id16(self) -> bytes:
            return secret.session_id16()

    assert not has_rejoined(come(host, Crossed(crossed.value), seed=5))
    assert still_answers(host, alice)
    assert still_answers(host, bob)


def test_the_dialling_side_takes_no_forged_answer() -> None:
    secret, other, h_new = ResumeSecret(b"s" * 32), ResumeSecret(b"o" * 32), b"h" * 32
    claim = Claim(secret, h_new)
    resume = claim.begin()
    assert resume is not None
    right = Claim(lambda id: secret, h_new).answer(resume)
    claim.check(right)
    for forged in (
        Resumed(right.id, bytes(32)),
        Resumed(right.id, secret.mac("i", h_new)),  # its own proof, sent back
        Resumed(right.id, secret.mac("r", b"another channel".ljust(32))),
        Resumed(right.id, other.mac("r", h_new)),
        Resumed(other.session_id16(), other.mac("r", h_new)),
        Resumed(other.session_id16(), right.mac),
    ):
        with pytest.raises(Violation):
            claim.check(forged)
    with pytest.raises(Violation):
        Claim(lambda id: secret, h_new).check(right)  # who asked for nothing gets no answer


def test_the_dialling_side_asks_for_the_proof() -> None:
    """What is checked above is checked in the handshake: a session is not taken up by whoever answers."""
    secret, h_new = ResumeSecret(b"s" * 32), b"h" * 32
    for answer, is_right in (
        (Claim(lambda id: secret, h_new).answer(Resume(secret.session_id16(), secret.mac("i", h_new))), True),
        (Resumed(secret.session_id16(), bytes(32)), False),
    ):
        handshake = Handshake(offer(), initiator=True)
        handshake.resumption = Claim(secret, h_new)
        assert [type(message) for message in handshake.start()] == [Resume]
        with nullcontext() if is_right else pytest.raises(Violation, match="does not prove"):
            handshake.receive(answer)
        assert (handshake.state is State.ESTABLISHED) == is_right


def test_resume_after_version_and_on_an_established_link_is_a_violation() -> None:
    host = Host()
    guest = visit(host)
    late = Claim(secret_of(guest), bytes(32)).begin()
    assert isinstance(late, Resume)
    greeted = Guest(host, claimant(None, seed=4), host.accept(port=51_004))
    greeted.connection.outbox.put(late)  # behind its version
    greeted.pump()
    assert ends(greeted.events)
    guest.connection.outbox.put(late)
    guest.pump()
    assert host.kinds("peer-disconnected")[0].fields["reason"].startswith(Reason.VIOLATION.value)


def test_a_session_is_not_found_through_another_face() -> None:
    host = Host()
    guest = visit(host)
    onion = Listener(host.address, Face.ONION, SERVER_KEY, True, ReplayCache())
    link = watched(host).engine.accepted(onion, None, host.now)
    host.turn()
    newcomer = Guest(host, claimant(secret_of(guest), seed=6, face=Face.ONION), link).pump()
    assert any(hasattr(event, "resume_secret") for event in newcomer.events), "its channel stands"
    assert not has_rejoined(newcomer)
    assert still_answers(host, guest)


def test_a_second_resume_replaces_the_first_and_a_flood_of_them_leaves_one() -> None:
    host = Host()
    guest = visit(host)
    newcomers = [come(host, secret_of(guest), seed=seed) for seed in range(2, 12)]
    assert all(any(isinstance(event, Rejoined) for event in newcomer.events) for newcomer in newcomers)
    assert all(has_rejoined(newcomer) for newcomer in newcomers)
    host.at(host.now + 100.0)  # what keeps up appearances
    assert len(host.engine.links) == 2
    assert still_answers(host, guest)


def test_one_who_never_leaves_is_given_up_and_the_session_goes_on() -> None:
    host = Host()
    guest = visit(host)
    newcomer = come(host, secret_of(guest), seed=2)
    when = 0.0
    while when < MOVE_WAIT_S + 100:
        when += 60.0
        host.at(when)
        heard = len(guest.events)
        guest.pump()
        guest.send(*(Pong(ping.nonce) for ping in messages(guest.events[heard:]) if isinstance(ping, Ping)))
    assert newcomer.link not in host.engine.links
    assert still_answers(host, guest)


def test_guesses_of_ids_are_limited_before_any_key_agreement() -> None:
    host = Host(is_dev=False)
    accepted = 0
    for seed in range(200):
        guest = Guest(host, claimant(ResumeSecret(bytes(31) + bytes([seed])), seed=seed), host.accept("203.0.113.9"))
        guest.pump()
        accepted += any(hasattr(event, "resume_secret") for event in guest.events)
    assert accepted <= 11, "the burst of one network group"


def test_what_is_kept_is_gone_with_the_links() -> None:
    host = Host()
    guests = [visit(host, seed=seed) for seed in range(1, 6)]
    handover = host.engine._handover
    assert len(handover._sessions) == len(handover._by_id) == 5
    for guest in guests:
        guest.connection.close(host.now)
        guest.pump()
        host.engine.eof(guest.link, host.now)
        host.turn()
    assert (handover._sessions, handover._by_id, len(handover._timers)) == ({}, {}, 0)


# --- rotate -------------------------------------------------------------------------------------------------------------


def test_a_flood_of_rotate_moves_once_in_a_while() -> None:
    pair = Pair()
    for _ in range(3):
        pair.other.node.send(pair.other.link, Rotate())
        pair.run(5.0)
    assert len(pair.one.told("rotated")) == 1
    pair.run(ROTATE_ASKED_S)
    pair.other.node.send(pair.other.link, Rotate())
    pair.run(5.0)
    assert len(pair.one.told("rotated")) == 2
    for _ in range(400):
        pair.other.node.send(pair.other.link, Rotate())
    pair.run(ROTATE_ASKED_S - 100)
    assert len(pair.one.told("rotated")) == 2


def test_only_the_side_that_made_a_link_moves_it() -> None:
    pair = Pair()
    pair.run(1.0)
    for side, inbound in ((pair.one, False), (pair.other, True)):
        handover = side.node.assembly.engine._handover
        (id,) = handover._sessions
        with pytest.raises(UserError, match="only the side that made it") if inbound else nullcontext():
            assert handover.movable(id).link.inbound is False


def test_who_made_the_link_asks_for_nothing() -> None:
    pair = Pair()
    for _ in range(5):
        pair.one.node.send(pair.one.link, Rotate())
    pair.run(5.0)
    assert pair.one.told("rotated") == []
    pair.check()


def test_switched_off_it_neither_moves_by_itself_nor_when_asked() -> None:
    pair = Pair(rotation=RotationSettings(enabled=False))
    pair.other.node.send(pair.other.link, Rotate())
    pair.run(25 * 3_600.0)
    assert pair.one.told("rotated") == []


@pytest.mark.parametrize("seed", range(3))
def test_it_moves_by_itself_within_its_hours(seed: int) -> None:
    pair = Pair(seed, rotation=RotationSettings(min_hours=2, max_hours=3))
    pair.run(2 * 3_600.0 - 10)
    assert pair.one.told("rotated") == []
    pair.run(3_600.0 + 20)
    assert len(pair.one.told("rotated")) == 1
    pair.run(10 * 3_600.0)
    assert 4 <= len(pair.one.told("rotated")) <= 6
    pair.check()


# --- Failures -----------------------------------------------------------------------------------------------------------


def failing(pair: Pair, why: str) -> None:
    """Rotate in a way that cannot work, and see the link go on."""
    pair.run(60.0 + HANDSHAKE_S)
    assert why in pair.one.told("rotation-failed")[0]["why"]
    pair.one.send(10)
    pair.other.send(10)
    pair.run(5.0)
    assert pair.other.got == list(range(pair.one.sent))
    assert pair.one.got == list(range(pair.other.sent))
    assert pair.one.told("peer-disconnected") == pair.other.told("peer-disconnected") == []
    assert len(pair.one.node.peers) == 1


def test_what_cannot_be_moved_is_said() -> None:
    pair = Pair()
    engine, there = pair.one.node.assembly.engine, pair.other.node.address
    with pytest.raises(UserError, match="there is no encrypted link 99: `obscura peers` lists them"):
        engine.move(99, there, pair.kernel.now)
    pair.rotate()
    with pytest.raises(UserError, match="is being moved already"):
        engine.move(pair.one.link, there, pair.kernel.now)
    assert len(engine.links) == 2, "neither began another link"
    pair.run(5.0)
    pair.check()


def test_after_a_move_that_failed_the_next_one_succeeds_and_nothing_is_kept() -> None:
    pair = Pair()
    nowhere = Address(pair.other.node.address.key, "127.0.0.9", 9)
    pair.one.node.assembly.engine.move(pair.one.link, nowhere, pair.kernel.now)
    pair.one.node.turn()
    failing(pair, "nothing listens")
    for _ in range(3):
        pair.rotate()
        pair.run(5.0)
    assert [told["generation"] for told in pair.one.told("rotated")] == [1, 2, 3]
    for side, found in (
        (pair.one, 0),
        (pair.other, 1),
    ):  # only where it was accepted it is found, by its newest name alone
        handover = side.node.assembly.engine._handover
        assert (len(handover._sessions), len(handover._by_id), len(handover._timers)) == (1, found, 0)


def test_who_gives_a_move_up_may_end_the_old_link_cleanly() -> None:
    """It was taken for leaving to a link that was gone: `connection lost`."""
    host = Host()
    guest = visit(host)
    newcomer = come(host, secret_of(guest), seed=2)
    assert has_rejoined(newcomer)
    host.engine.eof(newcomer.link, host.now, is_lost=True)
    host.turn()
    assert len(host.engine._handover._timers) == 0
    assert still_answers(host, guest)
    guest.connection.close(host.now)
    guest.pump()
    assert [told.fields["reason"] for told in host.kinds("peer-disconnected")] == [Reason.CLEAN.value]


def test_a_peer_that_leaves_where_nothing_moves_is_lost() -> None:
    host = Host()
    guest = visit(host)
    host.engine._handover.peer_left(host.engine.links[guest.link], host.now)
    host.turn()
    assert [told.fields["reason"] for told in host.kinds("peer-disconnected")] == [Reason.LOST.value]


def test_where_the_new_one_dies_once_it_is_heard_both_go_at_once_and_nothing_waits() -> None:
    pair = Pair()
    pair.load(3.0, (0, 60_000), 0.02)
    pair.run(1.0)
    engine = pair.other.node.assembly.engine
    (session,) = engine._handover._sessions.values()
    old = session.link
    engine.writable(old.id, False, pair.kernel.now)  # its own direction cannot leave
    pair.rotate()
    pair.run(1.5)
    new = session.next
    assert new is not None
    assert (session.is_committed, session.peer_left, old.has_left) == (True, True, False)
    assert old.connection is not None
    assert new.connection is not None
    assert not new.connection.is_parked
    assert old.connection.waiting > 0
    engine.eof(new.id, pair.kernel.now, is_lost=True)
    assert new.id not in engine.links, "nothing that it brought waits"
    assert old.connection.waiting == 0, "it is not sent behind the session's end"
    assert not pair.other.node.peers
    pair.run(MOVE_IDLE_S + 100.0)
    assert pair.other.node.assembly.engine.links == pair.one.node.assembly.engine.links == {}


@pytest.mark.parametrize("late_s", [0.02, 0.3, 2.0])
def test_what_comes_sooner_over_the_new_one_waits_for_the_end_of_the_old_one(
    late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair()
    parked = 0
    for side in (pair.one, pair.other):
        old, arrive, engine = side.link, side.node.arrive, side.node.assembly.engine

        def late(link: int, data: Any, old: int = old, arrive: Any = arrive, engine: Any = engine) -> None:
            nonlocal parked
            if link == old:
                pair.kernel.at(pair.kernel.now + late_s, lambda: arrive(link, data))
            else:
                arrive(link, data)
            parked += sum(
                each.connection is not None and each.connection.buffered > 0 and each.connection.is_parked
                for each in engine.links.values()
            )

        monkeypatch.setattr(side.node, "arrive", late)
    pair.load(6.0, (0, 20_000), 0.02)
    pair.run(1.0)
    pair.rotate()
    pair.run(30.0)
    assert parked, "else this shows nothing"
    assert len(pair.one.told("rotated")) == 1
    pair.check()


def test_where_nobody_listens_the_old_one_goes_on() -> None:
    pair = Pair()
    pair.load(10.0, (0, 2_000), 0.1)
    nowhere = Address(pair.other.node.address.key, "127.0.0.9", 9)
    pair.one.node.assembly.engine.move(pair.one.link, nowhere, pair.kernel.now)
    pair.one.node.turn()
    failing(pair, "nothing listens")


def test_with_another_key_the_old_one_goes_on() -> None:
    pair = Pair()
    pair.load(10.0, (0, 2_000), 0.1)
    there = pair.other.node.address
    wrong = Address(StaticKey.generate(random.Random(3)).public, there.host, there.port)
    pair.one.node.assembly.engine.move(pair.one.link, wrong, pair.kernel.now)
    pair.one.node.turn()
    failing(pair, "")


def test_a_responder_that_never_answers_is_given_up() -> None:
    host = Host()
    link = host.dial()
    guest = Guest(host, server(), link).pump()
    host.engine.move(link, host.address, host.now)
    (reach,) = [io for io in host.turn() if isinstance(io, Reach)]
    host.engine.connected(reach.link, host.address.endpoint, host.now)
    host.turn()
    when = host.now
    while when < 100.0:
        when += 5.0
        host.at(when)
        guest.pump()
    assert [told.fields["peer"] for told in host.kinds("rotation-failed")] == [link]
    assert host.kinds("dial-failed") == [], "the address book is not told: it is no link of its own"
    guest.send(Ping(5))
    assert host.kinds("peer-disconnected") == []


def half_way() -> Pair:
    """A move whose dialling side cannot go back any more."""
    pair = Pair()
    pair.load(3.0, (0, 60_000), 0.02)
    pair.run(1.0)
    pair.rotate()
    sessions = pair.one.node.assembly.engine._handover._sessions
    for _ in range(400):
        pair.run(0.005)
        if any(session.is_committed for session in sessions.values()):
            return pair
    raise AssertionError("it never came so far")


def test_a_message_that_takes_longer_than_a_move_may_is_waited_for() -> None:
    """1.5 MB in slots of a second: after 20 minutes the responder dropped the new connection, and both lost the link."""
    pair = Pair(knobs=msgspec.structs.replace(QUIET, slot_ms=(0, 2_000)))
    pair.run(5.0)
    pair.one.send(1_500_000)
    pair.run(5.0)
    pair.rotate()
    pair.one.send(100)
    pair.run(MOVE_WAIT_S + 3 * MOVE_IDLE_S)
    pair.check()
    assert pair.other.got == [0, 1]


def test_a_move_that_is_stuck_half_way_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = half_way()
    for side in (pair.one, pair.other):  # nothing arrives any more, and nobody says so
        monkeypatch.setattr(side.node, "arrive", lambda link, data: None)
    pair.run(2 * MOVE_IDLE_S + 1.0)
    assert not pair.one.node.peers
    assert [told["peer"] for told in pair.one.told("peer-disconnected")]


def test_a_full_socket_that_dies_while_the_old_one_is_still_heard_is_let_go_with_its_session() -> None:
    pair = half_way()
    engine, now = pair.one.node.assembly.engine, pair.kernel.now
    (session,) = engine._handover._sessions.values()
    new = session.next
    assert new is not None
    engine.writable(new.id, False, now)
    engine.eof(new.id, now, is_lost=True)
    assert new.id in engine.links, "what it brought waits for the end of the old one"
    pair.run(5.0)
    assert not pair.one.node.peers
    assert new.id not in engine.links


@pytest.mark.parametrize("is_one", [True, False])
def test_a_link_that_is_ended_half_way_says_why(is_one: bool) -> None:
    pair = half_way()
    side = pair.one if is_one else pair.other
    side.node.assembly.engine.disconnect(side.link, "by the operator", pair.kernel.now)
    side.node.turn()
    assert [told["reason"] for told in side.told("peer-disconnected")] == ["closed by this node: by the operator"]
    pair.run(MOVE_IDLE_S)
    for each in (pair.one, pair.other):
        assert len(each.told("peer-disconnected")) == 1
        assert each.node.assembly.engine.links == {}


def test_a_link_for_whom_too_much_waits_half_way_says_so() -> None:
    pair = half_way()
    engine = pair.one.node.assembly.engine
    new = engine._handover.link_of(pair.one.link)
    assert new is not None
    pair.run(0.0)
    engine.cut(new, Reason.STALLED, pair.kernel.now)
    pair.one.node.turn()
    assert [told["reason"] for told in pair.one.told("peer-disconnected")] == [Reason.STALLED.value]


def test_a_slow_move_is_waited_for_as_long_as_it_comes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = half_way()
    arrive, kernel = pair.one.node.arrive, pair.kernel
    late: list[tuple[float, Any, Any]] = []
    monkeypatch.setattr(pair.one.node, "arrive", lambda link, data: late.append((kernel.now, link, data)))
    for _ in range(4):
        pair.run(0.75 * MOVE_IDLE_S)
        for _, link, data in late[:1]:
            arrive(link, data)
        del late[:1]
    assert pair.one.node.peers
    assert pair.one.told("peer-disconnected") == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("whose", ["old", "new"])
def test_a_connection_that_dies_while_moving_loses_the_session_or_nothing(seed: int, whose: str) -> None:
    """At every instant of a move: what arrived is a beginning of what was sent, in order, and both ends agree in the end."""
    pair = Pair(seed)
    pair.load(3.0, (0, 60_000), 0.02)
    pair.run(1.0)
    engine = pair.one.node.assembly.engine
    before = set(engine.links)
    pair.rotate()
    pair.run(0.05 * seed)
    (old,), new = before, set(engine.links) - before
    dying = {old} if whose == "old" else new
    for link in dying & set(engine.links):
        wire = pair.one.node._wires.get(link)
        if wire is not None:
            wire.far.arrive(wire.far_link, None)
            pair.one.node.arrive(link, None)
    survived = bool(pair.one.node.peers)
    pair.run(MOVE_IDLE_S + 100.0)
    assert pair.other.got == list(range(len(pair.other.got)))
    assert pair.one.got == list(range(len(pair.one.got)))
    assert bool(pair.one.node.peers) == bool(pair.other.node.peers)
    if pair.one.node.peers and survived:
        assert len(pair.other.got) == pair.one.sent
        assert len(pair.one.got) == pair.other.sent
    for side in (pair.one, pair.other):
        assert len(side.told("peer-disconnected")) <= 1
        assert len(side.node.assembly.engine.links) == len(side.node.peers)
