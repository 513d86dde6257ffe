"""Floods over real engines (specification, *DoS Protection*): who floods is cut after a stated number of messages.

Also the penalties behind it: points that halve, discouragement that only lowers rank, bans, and that nothing below the
authenticated content ever counts.
"""

from __future__ import annotations

from math import inf

import pytest

from obscura.errors import UserError
from obscura.limits import (
    DISCONNECT_POINTS,
    DISCOURAGED_S,
    FLOOD_POINTS,
    MALFORMED_POINTS,
    POINTS_HALF_LIFE_S,
    RATES,
    UNKNOWN_KIND,
)
from obscura.node.asmap import Asmap
from obscura.node.bans import Bans, subject_of
from obscura.node.core import Core
from obscura.node.effects import Disconnect, Effect, Notify
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.peer import Peer
from obscura.node.ratelimit import most_at_once
from obscura.node.reputation import Reputation
from obscura.wire.catalogue import BUILT_IN
from obscura.wire.frame import encode_frame, encode_raw
from obscura.wire.messages.network import Ping
from peer_examples import Clock, endpoint, key, peer
from playbook import EXAMPLES, Guest, Host, visit
from test_book_asmap import asmap

# Messages over the hard limit that a peer can send before the last one cuts it.
FREE = -(-DISCONNECT_POINTS // FLOOD_POINTS)


def raw(guest: Guest, frames: bytes) -> None:
    """Send frames whether they are fine or not."""
    guest.connection.outbox._queue.append(frames)
    guest.connection.outbox.waiting += len(frames)
    guest.pump()


# --- Floods of every kind, through channel, frames, meter and penalties ----------------------------------------------


@pytest.mark.parametrize("kind", sorted(set(RATES) - {UNKNOWN_KIND, "block", "tx"}))
def test_a_flooder_is_cut_after_a_stated_number_of_messages(kind: str) -> None:
    """``block`` and ``tx`` have bursts of tens of thousands: the meter's own tests count those."""
    frame = encode_frame(next(EXAMPLES[cls] for cls in BUILT_IN if kind == cls.TYPE))
    stated = most_at_once(kind) + FREE
    host = Host(rate_factor=1.0)
    guest = visit(host)
    other = visit(host, seed=2, remote="127.0.0.2")
    sent = 0
    while guest.link in host.assembly.core.peers and sent <= stated:
        step = min(100, stated - sent) or 1
        raw(guest, frame * step)
        sent += step
    assert guest.link not in host.assembly.core.peers
    assert most_at_once(kind) < sent <= stated
    assert other.link in host.assembly.core.peers


def test_a_message_that_ends_its_link_in_the_middle_of_a_flood_is_the_last_word() -> None:
    """Those of the same chunk that were dropped are nobody's any more."""
    host = Host(rate_factor=1.0)
    guest = visit(host)
    host.assembly.core.routes[Ping] = lambda peer, message, now: (Disconnect(peer.link, "enough"),)
    raw(guest, encode_frame(Ping(1)) * (most_at_once("ping") + FREE))
    assert guest.link not in host.assembly.core.peers
    assert [told.fields["reason"] for told in host.kinds("peer-disconnected")] == ["closed by this node: enough"]


def test_what_a_flooder_makes_us_hold_is_in_its_ledger_and_bounded() -> None:
    host = Host(rate_factor=1.0)
    guest = visit(host)
    raw(guest, encode_frame(EXAMPLES[BUILT_IN[2]]) * 250)
    (row,) = (row for row in host.engine.describe(host.now) if row["peer"] == guest.link)
    assert row["held_bytes"]["over_their_rate"] == 50 * 20
    assert row["messages_served_late"] == 50


def test_unknown_types_are_ignored_until_there_are_too_many() -> None:
    host = Host(rate_factor=1.0)
    guest = visit(host)
    raw(guest, encode_raw("nosuchtype", b"x") * 500)
    assert guest.link in host.assembly.core.peers
    raw(guest, encode_raw("nosuchtype", b"x") * 300)
    assert guest.link not in host.assembly.core.peers


def test_malformed_messages_cost_points_until_the_link_ends() -> None:
    host = Host()
    guest = visit(host)
    for number in range(DISCONNECT_POINTS // MALFORMED_POINTS):
        assert guest.link in host.assembly.core.peers, number
        raw(guest, encode_raw("ping", b"short"))
    assert guest.link not in host.assembly.core.peers


# --- Points -----------------------------------------------------------------------------------------------------------


class Court:
    """A core with reputation and bans alone."""

    def __init__(self, asmap_file: bytes | None = None) -> None:
        self.clock = Clock()
        self.reputation = Reputation()
        self.bans = Bans(Grouping(Asmap(asmap_file) if asmap_file else None), self.clock)
        self.core = Core([self.reputation, self.bans])

    def meet(self, someone: Peer, now: float = 0.0) -> Peer:
        self.core.established(someone, now)
        return someone

    def fault(self, someone: Peer, points: int, now: float = 0.0) -> list[Effect]:
        effects = self.core.penalise(someone.link, points, "test", now)
        if any(isinstance(effect, Disconnect) for effect in effects):
            self.core.closed(someone.link, "", now)
        return effects

    def is_out(self, someone: Peer) -> bool:
        return someone.link not in self.core.peers


def test_points_halve_every_ten_minutes() -> None:
    court = Court()
    someone = court.meet(peer(1))
    court.fault(someone, 80, 0.0)
    assert court.core.describe(1, POINTS_HALF_LIFE_S)["points"] == 40.0
    court.fault(someone, 59, POINTS_HALF_LIFE_S)
    assert not court.is_out(someone)
    court.fault(someone, 1, POINTS_HALF_LIFE_S)
    assert court.is_out(someone)


def test_a_hundred_points_end_the_link_and_discourage_the_host_for_a_day_whatever_its_port() -> None:
    court = Court()
    someone = court.meet(peer(1, "20.1.0.1", port=5_000))
    told = court.fault(someone, 100)
    assert [e.kind for e in told if isinstance(e, Notify)] == ["penalty", "discouraged"]
    assert court.reputation.is_discouraged(endpoint("20.1.0.1", 9), 1.0)
    assert not court.reputation.is_discouraged(endpoint("20.1.0.2", 9), 1.0)
    assert not court.reputation.is_discouraged(endpoint("20.1.0.1", 9), DISCOURAGED_S)
    assert court.core.refuses(endpoint("20.1.0.1"), 1.0) is None  # it is not a ban


def test_connecting_again_does_not_clear_the_points() -> None:
    court = Court()
    for link in range(3):
        someone = court.meet(peer(link, "20.1.0.1"))
        court.fault(someone, 40)
        if not court.is_out(someone):
            court.core.closed(link, "", 0.0)
    assert court.reputation.is_discouraged(endpoint("20.1.0.1"), 1.0)


def test_several_sessions_behind_one_address_are_never_discouraged() -> None:
    court = Court()
    bad, good = court.meet(peer(1, "20.1.0.1")), court.meet(peer(2, "20.1.0.1", port=7))
    court.fault(bad, 100)
    assert court.is_out(bad)
    assert not court.is_out(good)
    assert not court.reputation.is_discouraged(endpoint("20.1.0.1"), 1.0)


@pytest.mark.parametrize(
    "someone",
    [
        peer(1, "20.1.0.1", pattern="none"),
        peer(1, "127.0.0.1", face=Face.ONION),
        peer(1, "20.1.0.1", inbound=False, known_key=None),
        peer(1, "20.1.0.1", inbound=False, known_key=key(1), is_manual=True),
    ],
    ids=["bare: changed by anyone", "onion: no address", "unknown key: answered by anyone", "manual"],
)
def test_what_somebody_else_could_have_done_discourages_nobody(someone: Peer) -> None:
    court = Court()
    court.meet(someone)
    court.fault(someone, 100)
    assert court.is_out(someone)
    assert court.reputation.discouraged == 0


def test_whom_we_dialled_with_its_key_answers_for_what_it_says() -> None:
    court = Court()
    someone = court.meet(peer(1, "20.1.0.1", inbound=False, known_key=key(1)))
    court.fault(someone, 100)
    assert court.reputation.is_discouraged(endpoint("20.1.0.1"), 1.0)


def test_a_flipped_bit_costs_the_link_and_no_points() -> None:
    host = Host()
    guest = visit(host)
    guest.send(EXAMPLES[BUILT_IN[2]])
    data = bytearray(b"".join(guest.connection.flush(host.now)) or bytes(1_100))
    data[40] ^= 1
    host.give(guest.link, bytes(data))
    assert guest.link not in host.assembly.core.peers
    assert host.assembly.neighbours.reputation.discouraged == 0
    assert host.kinds("penalty") == []


# --- Bans -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hit", "missed"),
    [
        ("20.1.0.1", "20.1.0.1", "20.1.0.2"),
        ("20.1.0.0/16", "20.1.255.255", "20.2.0.1"),
        ("2a01:4f8::/32", "2a01:4f8:ffff::1", "2a01:4f9::1"),
        ("2A01:4F8::1", "2a01:4f8::1", "2a01:4f8::2"),
        ("as64500", "21.0.0.1", "22.0.0.1"),
        ("::ffff:20.1.0.0/112", "20.1.200.7", "20.2.0.7"),
    ],
)
def test_bans_are_by_host_network_or_system_and_never_by_port(text: str, hit: str, missed: str) -> None:
    court = Court(asmap({"21.0.0.0/8": 64_500}))
    court.bans.add(text, 60.0)
    for port in (1, 9_733):
        assert court.core.refuses(endpoint(hit, port), 0.0) == "banned"
    assert court.core.refuses(endpoint(missed), 0.0) is None
    court.clock.now += 61
    assert court.core.refuses(endpoint(hit), 0.0) is None
    assert court.bans.in_force() == []


def test_a_ban_ends_the_links_that_it_concerns() -> None:
    court = Court()
    court.meet(peer(1, "20.1.0.1"))
    court.meet(peer(2, "20.2.0.1"))
    court.bans.add("20.1.0.0/16")
    assert [effect.link for effect in court.bans.enforce(0.0) if isinstance(effect, Disconnect)] == [1]
    assert court.bans.remove("20.1.9.9/16")
    assert not court.bans.remove("20.1.0.0/16")


@pytest.mark.parametrize(
    "text", ["20.1.0.1:80", "", "as0", "as4294967296", "20.1.0.0/33", "example.org", "x.onion", "::1%eth0"]
)
def test_what_cannot_be_banned_is_said_in_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="cannot be banned"):
        subject_of(text)


def test_without_an_asmap_no_system_can_be_banned() -> None:
    with pytest.raises(UserError, match="asmap"):
        Court().bans.add("as5", inf)


def test_a_banned_host_is_refused_before_anything_is_spent_on_it_and_is_not_dialled() -> None:
    host = Host()
    host.assembly.neighbours.bans.add("127.0.0.1")
    link = host.accept()
    assert link not in host.engine.links
    with pytest.raises(UserError, match="banned"):
        host.dial()


def test_bans_outlive_a_restart() -> None:
    first, second = Court(), Court()
    first.bans.add("20.1.0.1")
    first.bans.add("20.2.0.0/16", 60.0)
    second.bans.restore(first.bans.in_force())
    assert second.core.refuses(endpoint("20.2.9.9"), 0.0) == "banned"
