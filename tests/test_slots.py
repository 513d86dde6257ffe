"""Outbound slots (design 10): groups, faces, feelers, anchors, failures by what they say, rotation, stale tip."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from obscura.limits import (
    ALONE_RETRY_S,
    OUTBOUND_BLOCKS,
    OUTBOUND_FULL,
    RECENT_SUCCESS_S,
    SETTLED_S,
    STALE_CHECK_S,
    STALE_LEAST_S,
    STARVED_S,
    TEST_S,
)
from obscura.node.book import Entry
from obscura.node.core import Core
from obscura.node.effects import Dial, Disconnect, Effect, Merit, Notify
from obscura.node.face import Face, Purpose
from obscura.node.groups import Grouping
from obscura.node.ownaddress import OwnAddress
from obscura.node.peer import DialFailed, Failure, Peer
from obscura.node.slots import OutboundLimits, Slots, Tip
from obscura.wire.address import Address, CarrierNumber, Endpoint, Network
from peer_examples import Clock, book, endpoint, key, peer

TLS, PLAIN = CarrierNumber.TLS, CarrierNumber.PLAIN


class Place:
    """A core with slots, and a world that answers dials as ``answer`` says."""

    def __init__(self, *, faces: Iterable[Face] = (Face.CLEARNET,), dev: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.grouping = Grouping(loopback_apart=dev)
        self.book = book(self.clock, grouping=self.grouping)
        self.discouraged: set[bytes] = set()
        self.banned: set[bytes] = set()
        self.answer: Failure | None = None
        self.dials: list[Dial] = []
        self.told: list[Notify] = []
        settings: dict[str, Any] = {"limits": OutboundLimits(), "faces": frozenset(faces), **options}
        self.slots = Slots(
            self.book,
            OwnAddress(self.grouping, loopback=dev),
            self.grouping,
            random.Random(5),
            0.0,
            refuses=lambda place, now: "banned" if place.host in self.banned else None,
            is_discouraged=lambda place, now: place.host in self.discouraged,
            **settings,
        )
        self.core = Core([self.slots])
        self.now = 0.0
        self._link = 0

    def learn(self, host: str, *, with_key: bool = True, face: Face = Face.CLEARNET) -> Entry:
        entry = self.book.learn(endpoint(host), TLS, face, host.encode(), self.clock())
        assert entry is not None
        if with_key:
            self.book.told_key(entry, key(1), b"x", is_own_word=False)
        return entry

    def learn_onion(self, number: int) -> Entry:
        place = Endpoint(Network.TORV3, bytes([number * 16]) + bytes(31), 9_733)
        entry = self.book.learn(place, PLAIN, Face.ONION, b"onion", self.clock())
        assert entry is not None
        return entry

    def run(self, seconds: float) -> Place:
        until = self.now + seconds
        while (when := self.core.deadline()) <= until:
            self._pass(max(when, self.now))
            self.apply(self.core.due(self.now))
        self._pass(until)
        return self

    def _pass(self, now: float) -> None:
        self.clock.now += now - self.now
        self.now = now

    def apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                self.dials.append(effect)
                self._dialled(effect)
            elif isinstance(effect, Disconnect):
                self.apply(self.core.closed(effect.link, effect.why, self.now))
            elif isinstance(effect, Notify):
                self.told.append(effect)

    def _dialled(self, dial: Dial) -> None:
        self._link += 1
        if self.answer is not None:
            failed = DialFailed(self._link, dial.address, self.answer, "", dial.purpose)
            self.apply(self.core.dial_failed(failed, self.now))
            return
        place = dial.address.endpoint
        assert place is not None
        link = peer(self._link, inbound=False, face=dial.face or Face.CLEARNET, proved=dial.address.key or key(1))
        fields = {"dialled": dial.address, "remote": place, "purpose": dial.purpose, "since": self.now}
        self.apply(self.core.established(msgspec.structs.replace(link, **fields), self.now))

    def peers(self, purpose: Purpose | None = None) -> list[Peer]:
        return [p for p in self.core.peers.values() if not p.is_inbound and purpose in (None, p.purpose)]

    def hosts(self, purpose: Purpose | None = None) -> set[str]:
        return {p.dialled.host for p in self.peers(purpose) if p.dialled is not None}


def full(**options: Any) -> Place:
    place = Place(**options)
    for n in range(40):
        place.learn(f"20.{n}.0.1")
    return place.run(60)


def test_eight_full_and_two_block_only_each_in_a_group_of_its_own() -> None:
    place = Place()
    for n in range(60):
        place.learn(f"20.{n % 12}.{n}.1")
    place.run(120)
    assert len(place.peers(Purpose.FULL)) == OUTBOUND_FULL
    assert len(place.peers(Purpose.BLOCKS)) == OUTBOUND_BLOCKS
    groups = [host.split(".")[1] for host in place.hosts()]
    assert len(groups) == len(set(groups))


def test_two_networks_fill_two_slots_and_no_more() -> None:
    place = Place()
    for n in range(60):
        place.learn(f"20.{n % 2}.{n}.1")
    place.run(3_600)
    assert len(place.peers()) == 2


def test_a_feeler_ends_once_the_address_has_proved_itself_and_moves_it_to_tried() -> None:
    place = full()
    before = place.book.sizes[1]
    place.run(3_600)
    feelers = [dial for dial in place.dials if dial.purpose is Purpose.FEELER]
    assert 10 < len(feelers) < 60
    assert place.book.sizes[1] > before
    assert place.peers(Purpose.FEELER) == []


def test_addresses_without_a_key_become_feelers_only_unless_allowed() -> None:
    place = Place()
    for n in range(20):
        place.learn(f"20.{n}.0.1", with_key=False)
    place.answer = Failure.UNREACHABLE
    place.run(60)
    assert {dial.purpose for dial in place.dials} == {Purpose.FEELER}
    place.answer = None
    place.run(3_600)
    assert place.peers(Purpose.FULL)  # feelers proved their keys
    allowed = Place(allow_unauthenticated=True)
    allowed.learn("20.1.0.1", with_key=False)
    assert len(allowed.run(10).peers()) == 1


@pytest.mark.parametrize("is_manual", [False, True])
def test_a_peer_of_hours_keeps_its_place_in_the_book_against_who_wants_it(is_manual: bool) -> None:
    """It cannot be dialled a second time to test it: whoever collides with its cell took it while the link stood."""
    place = full()
    place.run(RECENT_SUCCESS_S + 60)
    tried = {place.book._tried_cell(e): e for e in place.book.entries() if e.is_tried}
    linked = min(place.peers(), key=lambda peer: peer.since)
    assert linked.dialled is not None
    assert linked.dialled.endpoint is not None
    rival = place.book.get((linked.dialled.endpoint, linked.dialled.carrier))
    assert rival is not None
    if is_manual:
        place.slots._links.pop(linked.link)
        place.slots._others[linked.link] = linked
    for n in range(200_000):
        host = f"{30 + n // 62_500}.{n // 250 % 250}.{n % 250}.1"
        newcomer = Entry(endpoint(host), TLS, Face.CLEARNET, b"4xx", place.clock())
        if tried.get(place.book._tried_cell(newcomer)) is rival:
            break
    entry = place.learn(host)
    place.book.good(entry.place, key(1))
    place.run(TEST_S[1] + 600)
    assert rival.is_tried
    assert not entry.is_tried


def test_through_a_proxy_a_place_is_dialled_as_soon_as_somebody_tells_its_key() -> None:
    """Without one it is refused there: tried as a feeler it was taken for useless, and stayed so with a key."""
    place = Place(is_proxied=True)
    entries = [place.learn(f"20.{n}.0.1", with_key=False) for n in range(10)]
    place.run(7_200)
    assert not place.dials
    place.book.told_key(entries[3], key(1), b"x", is_own_word=False)
    place.run(60)
    assert [(dial.address.host, dial.address.key) for dial in place.dials] == [("20.3.0.1", key(1))]


def test_block_only_peers_are_the_anchors_and_are_dialled_first_after_a_restart() -> None:
    first = full()
    anchors = first.slots.anchors
    assert {str(place.host_text) for place, _ in anchors} == first.hosts(Purpose.BLOCKS)
    again = Place()
    again.book.restore(first.book.state())
    again.slots.restore_anchors(anchors)
    again.run(3)
    assert [dial.address.host for dial in again.dials[:2]] == [place.host_text for place, _ in anchors]
    assert again.hosts(Purpose.BLOCKS) == first.hosts(Purpose.BLOCKS)


def test_anchors_that_could_not_be_reached_for_want_of_a_network_stay_anchors() -> None:
    first = full()
    again = Place()
    again.book.restore(first.book.state())
    again.slots.restore_anchors(first.slots.anchors)
    again.answer = Failure.OFFLINE
    again.run(600)
    assert set(again.slots.anchors) == set(first.slots.anchors)
    again.answer = None
    again.run(120)
    assert again.hosts(Purpose.BLOCKS) == first.hosts(Purpose.BLOCKS)


def test_a_network_that_goes_away_charges_nobody_and_is_recovered() -> None:
    place = full()
    place.answer = Failure.OFFLINE
    for p in place.peers():
        place.apply(place.core.closed(p.link, "connection lost", place.now))
    before = len(place.dials)
    place.run(3_600)
    assert 60 < len(place.dials) - before < 600  # it goes on trying, not in a hurry
    assert all(entry.failures == 0 for entry in place.book.entries())
    place.answer = None
    place.run(90)
    assert len(place.peers()) == OUTBOUND_FULL + OUTBOUND_BLOCKS


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize(
    ("failure", "most_s", "most_dials"),
    # Nothing was sent; somebody may have got each packet: one in ten minutes is little, also for who is no node at all.
    [(Failure.OFFLINE, 120, 600), (Failure.UNREACHABLE, ALONE_RETRY_S + 120, 7 * 5)],
)
def test_an_outage_uses_up_no_address_that_has_not_proved_itself(
    failure: Failure, most_s: int, most_dials: int, with_key: bool
) -> None:
    place = Place()
    for n in range(5):
        place.learn(f"20.{n}.0.1", with_key=with_key)
    place.answer = failure
    place.run(3_600)
    assert 5 < len(place.dials) <= most_dials
    place.answer = None
    place.run(most_s)
    assert place.peers(Purpose.FULL)


def test_a_tor_that_comes_late_finds_no_address_used_up_though_clearnet_links_stood() -> None:
    place = Place(faces=(Face.CLEARNET, Face.ONION))
    for n in range(40):
        place.learn(f"20.{n}.0.1")
    place.run(60)
    onions = [place.learn_onion(n) for n in range(8)]
    place.answer = Failure.OFFLINE
    place.run(1_800)
    assert place.peers()
    assert any(dial.face is Face.ONION for dial in place.dials)
    assert not any(entry.failures for entry in onions)
    place.answer = None
    place.run(1_200)
    assert any(link.face is Face.ONION for link in place.peers())


@pytest.mark.parametrize("ahead_s", [5_000.0, 365 * 86_400.0])
def test_a_clock_that_was_ahead_strands_nobody(ahead_s: float) -> None:
    place = Place()
    for n in range(5):
        place.learn(f"20.{n}.0.1")
    place.answer = Failure.UNREACHABLE
    place.clock.now += ahead_s
    place.run(300)
    place.clock.now -= ahead_s
    place.answer = None
    place.run(60)
    assert len(place.peers()) == 5


def test_a_node_without_any_link_does_not_wait_for_the_next_feeler() -> None:
    place = Place()
    place.learn("20.1.0.1", with_key=False)
    place.run(2 * STARVED_S)
    assert len(place.peers(Purpose.FULL)) == 1


def test_without_any_link_a_time_out_is_the_own_networks_fault() -> None:
    place = Place()
    entry = place.learn("20.1.0.1")
    place.answer = Failure.UNREACHABLE
    place.run(30)
    assert place.dials
    assert entry.failures == 0
    others = full()
    late = others.learn("30.1.0.1")
    others.apply(others.core.dial_failed(DialFailed(9, late.address(random.Random(1)), Failure.SILENT, ""), others.now))
    assert late.failures == 1


def test_a_key_that_fails_is_charged_and_its_proven_address_is_not() -> None:
    place = full()
    entry = place.book.get((endpoint("20.1.0.1"), TLS))
    place.book.good(entry.place, key(7))
    wrong = Address(key(9), "20.1.0.1", 9_733, TLS)
    place.apply(place.core.dial_failed(DialFailed(9, wrong, Failure.UNPROVEN, ""), place.now))
    assert (entry.failures, entry.keys.verified) == (0, key(7))


def test_it_never_dials_itself_twice() -> None:
    place = Place()
    entry = place.learn("20.1.0.1")
    place.answer = Failure.OURSELVES
    place.run(600)
    assert len(place.dials) == 1
    assert place.book.get(entry.place) is None


def test_banned_places_are_never_dialled_and_discouraged_ones_last() -> None:
    place = Place()
    for n in range(8):
        entry = place.learn(f"20.{n}.0.1")
        (place.banned if n == 0 else place.discouraged if n == 1 else set()).add(entry.endpoint.host)
    place.run(60)
    hosts = [dial.address.host for dial in place.dials if dial.purpose is not Purpose.FEELER]
    assert "20.0.0.1" not in hosts
    assert hosts.index("20.1.0.1") == len(hosts) - 1


def test_there_is_a_peer_in_each_face() -> None:
    place = Place(faces=(Face.CLEARNET, Face.ONION))
    for n in range(60):
        place.learn(f"20.{n}.0.1")
    place.learn_onion(1)
    place.run(60)
    assert len([p for p in place.peers(Purpose.FULL) if p.face is Face.ONION]) == 1
    late = Place(faces=(Face.CLEARNET, Face.ONION))
    for n in range(60):
        late.learn(f"20.{n}.0.1")
    late.run(1_200)  # filled but for the place that is kept free
    late.learn_onion(2)
    late.run(1_200)
    assert [p for p in late.peers(Purpose.FULL) if p.face is Face.ONION]


def test_no_dial_leaves_the_enabled_faces() -> None:
    place = Place(faces=(Face.ONION,))
    for n in range(10):
        place.learn(f"20.{n}.0.1")
    place.learn("30.1.0.1", face=Face.ONION)  # clearnet, learnt through Tor: its dial would be refused
    place.learn_onion(1)
    place.run(3_600)
    assert {dial.face for dial in place.dials} == {Face.ONION}
    assert all(dial.address.host.endswith(".onion") for dial in place.dials)


def test_one_outbound_peer_is_replaced_now_and_then_and_never_one_too_many() -> None:
    place = full()
    first = place.hosts(Purpose.FULL)
    for _ in range(48):
        place.run(3_600)
        assert len(place.peers(Purpose.FULL)) == OUTBOUND_FULL
    changed = len(first - place.hosts(Purpose.FULL))
    assert 1 <= changed <= 8


def test_a_stale_tip_brings_one_more_peer_in_place_of_the_one_that_brings_no_blocks() -> None:
    tip = [bytes(32)]
    place = full(tip=Tip(lambda: tip[0], 60.0))
    place.run(SETTLED_S)
    useful = {p.link for p in place.peers(Purpose.FULL)[1:]}
    for link in useful:
        place.apply(place.core.credit(link, Merit.BLOCK, place.now))
    lazy = next(p for p in place.peers(Purpose.FULL) if p.link not in useful)
    place.run(STALE_LEAST_S + 2 * STALE_CHECK_S)
    assert [told for told in place.told if told.kind == "stale-tip"]
    assert lazy.link not in place.core.peers
    assert len(place.peers(Purpose.FULL)) == OUTBOUND_FULL


def test_a_slot_that_waits_for_a_face_of_which_nobody_is_known_keeps_the_others_from_nothing() -> None:
    """With tor beside clearnet and no onion address, neither a stale tip nor time brought another peer ever again."""
    place = Place(tip=Tip(lambda: bytes(32), 60.0), faces=(Face.CLEARNET, Face.ONION))
    for n in range(60):
        place.learn(f"20.{n}.0.1")
    place.run(SETTLED_S)
    first = place.hosts(Purpose.FULL)
    assert len(first) == OUTBOUND_FULL - 1
    place.run(STALE_LEAST_S + 2 * STALE_CHECK_S)
    assert first - place.hosts(Purpose.FULL)
    assert len(place.peers(Purpose.FULL)) == OUTBOUND_FULL - 1
    place.learn_onion(1)
    place.run(600)
    assert len(place.peers(Purpose.FULL)) == OUTBOUND_FULL
    assert [p for p in place.peers(Purpose.FULL) if p.face is Face.ONION]


def test_a_tip_that_moves_is_not_stale() -> None:
    tip = [bytes(32)]
    place = full(tip=Tip(lambda: tip[0], 60.0))
    for n in range(12):
        tip[0] = bytes([n]) * 32
        place.run(STALE_CHECK_S)
    assert not [told for told in place.told if told.kind == "stale-tip"]


def test_manual_peers_stand_beside_the_slots_and_their_place_is_not_dialled_again() -> None:
    place = Place()
    entry = place.learn("20.1.0.1")
    manual = msgspec.structs.replace(peer(900, "20.1.0.1", inbound=False, proved=key(1)), is_manual=True)
    place.apply(place.core.established(manual, 0.0))
    place.run(600)
    assert [d for d in place.dials if d.address.endpoint == entry.endpoint] == []
    assert entry.is_tried  # its handshake counts all the same


def test_on_dev_one_link_to_a_loopback_host_is_enough_in_either_direction() -> None:
    place = Place(dev=True)
    for n in range(1, 4):
        place.book.learn(endpoint(f"127.0.0.{n}"), PLAIN, Face.CLEARNET, b"x", place.clock())
    place.apply(place.core.established(peer(901, "127.0.0.1", port=40_000), 0.0))
    place.run(60)
    assert place.hosts() == {"127.0.0.2", "127.0.0.3"}


@pytest.mark.parametrize("full_slots", [0, 3])
def test_the_number_of_slots_is_the_operators(full_slots: int) -> None:
    place = Place(limits=OutboundLimits(full_slots, 1 if full_slots else 0))
    for n in range(30):
        place.learn(f"20.{n}.0.1")
    place.run(600)
    assert len(place.peers(Purpose.FULL)) == full_slots
    assert bool(place.dials) is bool(full_slots)
