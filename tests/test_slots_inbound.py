"""Inbound slots (design 10): who goes when all are taken, and that no single resource buys the place of an honest peer."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.limits import PROTECTED_BLOCKS, PROTECTED_GROUPS, PROTECTED_PINGS, PROTECTED_TRANSACTIONS
from obscura.node.core import Core
from obscura.node.effects import Disconnect, Merit
from obscura.node.eviction import Candidate, victim
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.inbound import Inbound
from obscura.wire.address import Endpoint
from peer_examples import peer

KEY = bytes(32)


def candidate(link: int, group: int = 0, **more: object) -> Candidate:
    fields = {"link": link, "face": Face.CLEARNET, "group": bytes([group]), "since": float(link), **more}
    return Candidate(**fields)  # type: ignore[arg-type]


def test_the_youngest_of_the_largest_group_goes() -> None:
    crowd = [candidate(n, group=1 if n % 2 else n, best_ping_s=1.0) for n in range(60)]
    gone = victim(crowd, KEY)
    assert gone is not None
    assert (gone.group, gone.link) == (b"\1", 59)


def test_each_set_protects_and_each_by_its_own_merit() -> None:
    """Attackers come late and from one network; honest peers each have one merit. None of them may go."""
    merits = [
        [{"best_ping_s": 0.001 * n} for n in range(PROTECTED_PINGS)],
        [{"last_transaction": 1_000.0 + n} for n in range(PROTECTED_TRANSACTIONS)],
        [{"last_block": 1_000.0 + n} for n in range(PROTECTED_BLOCKS)],
    ]
    for kind in merits:
        honest = [candidate(500 + n, group=7, **merit) for n, merit in enumerate(kind)]
        left = honest + [candidate(n, group=7, best_ping_s=5.0) for n in range(100)]
        while len(left) > len(honest) + 30:
            gone = victim(left, KEY)
            assert gone is not None
            assert gone not in honest
            left.remove(gone)


def test_which_groups_are_safe_depends_on_a_secret() -> None:
    crowd = [candidate(n, group=n) for n in range(40)]
    survivors = []
    for seed in range(20):
        left = list(crowd)
        while (gone := victim(left, bytes([seed]) * 32)) is not None:
            left.remove(gone)
        assert len(left) >= PROTECTED_GROUPS
        survivors.append(frozenset(c.group for c in left))
    assert len(set(survivors)) > 10


def test_long_lived_peers_stay_and_half_of_their_places_are_for_anonymity_networks() -> None:
    old = [candidate(n, group=1, best_ping_s=9.0) for n in range(30)]
    onions = [candidate(100 + n, group=2, face=Face.ONION, best_ping_s=20.0) for n in range(30)]
    left = old + onions
    for _ in range(20):
        gone = victim(left, KEY)
        assert gone is not None
        left.remove(gone)
    assert sum(c.face is Face.ONION for c in left) >= 10
    assert sum(c.face is Face.CLEARNET for c in left) >= 10


def test_a_discouraged_peer_goes_first_whatever_else_it_has() -> None:
    good = [candidate(n, group=1) for n in range(50)]
    bad = candidate(0, group=9, best_ping_s=0.0001, last_block=9e9, last_transaction=9e9, is_discouraged=True)
    assert victim([*good[1:], bad], KEY) == bad


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60), st.integers(1, 5), st.integers(0, 2**32))
def test_it_always_names_a_candidate_or_nobody(count: int, groups: int, seed: int) -> None:
    rng = random.Random(seed)
    crowd = [candidate(n, rng.randrange(groups), best_ping_s=rng.random()) for n in range(count)]
    gone = victim(crowd, KEY)
    assert gone is None or gone in crowd
    assert (gone is None) <= (count <= PROTECTED_GROUPS + PROTECTED_PINGS + 2)


class Door:
    """A core with inbound slots alone."""

    def __init__(self, most: int, faces: set[Face] | None = None) -> None:
        self.discouraged: set[bytes] = set()
        self.part = Inbound(
            most,
            Grouping(),
            KEY,
            faces=frozenset(faces or {Face.CLEARNET}),
            best_ping_s=lambda link: 1.0 + link,
            is_discouraged=self.is_discouraged,
        )
        self.core = Core([self.part])
        self.next = 0

    def is_discouraged(self, place: Endpoint | None, now: float) -> bool:
        return place is not None and place.host in self.discouraged

    def comes(self, host: str, face: Face = Face.CLEARNET) -> int | None:
        """Its link, or None if it is not let in."""
        self.next += 1
        newcomer = peer(self.next, host, face=face)
        room = self.core.room_for(newcomer, float(self.next))
        if room is None:
            return None
        for effect in room:
            assert isinstance(effect, Disconnect)
            self.core.closed(effect.link, effect.why, float(self.next))
        self.core.established(newcomer, float(self.next))
        return newcomer.link


def test_the_slots_are_never_more_than_they_are() -> None:
    door = Door(20)
    for n in range(200):
        door.comes(f"20.{n % 7}.{n}.1")
        assert len(door.core.peers) <= 20


def test_a_flood_from_one_network_replaces_its_own_links() -> None:
    door = Door(40)
    honest = [door.comes(f"20.{n}.0.1") for n in range(30)]
    for n in range(500):
        door.comes(f"66.6.{n % 250}.1")
    assert all(link in door.core.peers for link in honest)


def test_a_discouraged_newcomer_gets_a_free_slot_and_no_other() -> None:
    door = Door(20)
    door.discouraged.add(bytes([66, 6, 6, 6]))
    bad = door.comes("66.6.6.6")
    assert bad is not None
    for n in range(19):
        door.comes(f"20.{n}.0.1")
    assert door.comes("66.6.6.6") is None
    assert bad in door.core.peers
    assert door.comes("20.99.0.1") is not None
    assert bad not in door.core.peers


def test_filling_one_face_does_not_push_out_the_links_of_another() -> None:
    """Else who fills the slots through Tor could see by the links that end which clearnet node it is."""
    door = Door(40, {Face.CLEARNET, Face.ONION})
    clear = [door.comes(f"20.{n}.0.1") for n in range(20)]
    for _ in range(20):
        door.comes("127.0.0.1", Face.ONION)
    for _ in range(200):
        door.comes("127.0.0.1", Face.ONION)
    assert all(link in door.core.peers for link in clear)


def test_merit_is_remembered_and_shown() -> None:
    door = Door(20)
    link = door.comes("20.1.0.1")
    assert link is not None
    door.core.credit(link, Merit.BLOCK, 5.0)
    assert door.core.describe(link, 7.0) == {"last_block_s": 2.0}
