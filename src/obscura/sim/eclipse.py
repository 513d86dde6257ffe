"""Eclipse attack on one node: its real core, in a world where every address answers and some belong to the attacker.

The attacker is as strong as the rules let it be: all its addresses exist, prove their keys and never fail, and before each
start of the victim it has told all of them, from every network that it owns. The victim's book is what it would be after some
time in the network. Only the links' bytes are left out. ``docs/peers.md`` derives the formula.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from ipaddress import IPv4Address
from math import exp

import msgspec

from obscura.handshake.features import BUILT
from obscura.handshake.machine import Negotiated
from obscura.limits import (
    BOOK_CELLS,
    FEELER_S,
    NEW_BUCKETS,
    NEW_BUCKETS_PER_SOURCE,
    OUTBOUND_BLOCKS,
    OUTBOUND_FULL,
    PROTOCOL_VERSION,
)
from obscura.node.assembly import Assembly, Settings, assemble
from obscura.node.book import BookState, Place
from obscura.node.core import Core
from obscura.node.effects import Dial, Disconnect, Effect, LinkId
from obscura.node.face import Face, Purpose
from obscura.node.peer import Peer
from obscura.wire.address import CarrierNumber, Endpoint, Network
from obscura.wire.messages.network import Version

_VERSION = Version(PROTOCOL_VERSION, 0, BUILT.features, BUILT.privacy, "Obscura/sim", bytes(32), 0, 0, ())
_NEGOTIATED = Negotiated(PROTOCOL_VERSION, BUILT, _VERSION, None, None, None, 0)
_ANSWER_S = 0.1
_SLOTS = OUTBOUND_FULL + OUTBOUND_BLOCKS
START = 1_800_000_000


class Attack(msgspec.Struct, frozen=True):
    """``groups`` /16s with ``addresses`` in all; the victim knows ``honest`` nodes of as many /16s, ``tried`` of them well."""

    groups: int
    addresses: int
    honest: int = 400
    tried: int = 64
    life_s: float = 3_600.0

    def share(self, life: int) -> float:
        """What the attacker's mean share of the outbound slots is at most, at the ``life``-th start (from 0)."""
        buckets = NEW_BUCKETS * (1 - exp(-NEW_BUCKETS_PER_SOURCE * self.groups / NEW_BUCKETS))
        cells = BOOK_CELLS * buckets
        bad_new = cells * (1 - exp(-self.addresses / cells))
        proved = life * (self.life_s / FEELER_S + _SLOTS)  # places that moved to tried since the attack began
        good_new: float = self.honest - self.tried - _SLOTS
        in_new = bad_new / (bad_new + good_new)
        good_new = max(1.0, good_new - proved * (1 - in_new))
        in_new = bad_new / (bad_new + good_new)
        bad_tried = proved * in_new
        in_tried = bad_tried / (bad_tried + max(1, self.tried - _SLOTS + proved * (1 - in_new)))
        return (in_new + in_tried) / 2


class Life(msgspec.Struct, frozen=True):
    """What one life of the victim came to."""

    bad_slots: int
    slots: int
    groups: int  # different groups among the slots
    kept_anchors: bool  # whether every anchor of the life before, of which there are some, is a block-only peer again


class Victim:
    """One node over several lives. Deterministic by ``seed``."""

    def __init__(self, attack: Attack, seed: int) -> None:
        self._attack = attack
        self._rng = random.Random(f"eclipse {seed}")
        networks = self._rng.sample(
            [n for n in range(256 * 16, 256 * 100) if n >> 8 != 10], attack.groups + attack.honest
        )
        self._bad_groups, honest = networks[: attack.groups], networks[attack.groups :]
        self._bad = [
            self._place(self._bad_groups[n % attack.groups], 1 + n // attack.groups) for n in range(attack.addresses)
        ]
        self._honest = [self._place(network, self._rng.randrange(1, 65_000)) for network in honest]
        self._is_bad = set(self._bad)
        self._unix = float(START)
        self._state: BookState | None = None
        self._anchors: list[Place] = []

    def lives(self, count: int) -> Iterator[Life]:
        """Start, fill the slots, run on, stop; ``count`` times."""
        for life in range(count):
            yield self._live(life)

    def _live(self, life: int) -> Life:
        begin = self._unix
        world = _World()
        assembly = assemble(Settings(bytes(32)), random.Random(self._rng.random()), lambda: int(begin + world.now), 0.0)
        near = assembly.neighbours
        if self._state is None:
            self._first_book(assembly)
        else:
            near.book.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(self._state), type=BookState))
            near.slots.restore_anchors(self._anchors)
        self._tell_all(assembly, self._bad, [Endpoint(Network.IPV4, _host(n, 9), 9_733) for n in self._bad_groups])
        full_at: Life | None = None
        for _ in world.run(assembly.core, self._attack.life_s):
            if full_at is None and len(world.links) >= _SLOTS:
                full_at = self._judge(world)
        self._unix += self._attack.life_s + 60
        self._state, self._anchors = near.book.state(), near.slots.anchors
        return full_at or self._judge(world)

    def _judge(self, world: _World) -> Life:
        slots = list(world.links.values())
        blocks = {place for place, purpose in slots if purpose is Purpose.BLOCKS}
        return Life(
            bad_slots=sum(place in self._is_bad for place, _ in slots),
            slots=len(slots),
            groups=len({place[0].host[:2] for place, _ in slots}),
            kept_anchors=blocks >= set(self._anchors) and (self._state is None or bool(self._anchors)),
        )

    def _first_book(self, assembly: Assembly) -> None:
        """Honest places, told by honest nodes; some of them proved."""
        book = assembly.book
        self._tell_all(assembly, self._honest, [endpoint for endpoint, _ in self._honest])
        for place in self._honest[: self._attack.tried]:
            book.good(place, bytes(32))
        for entry in book.entries():
            entry.attempted = entry.succeeded = 0 if not entry.is_tried else int(self._unix) - 86_400

    def _tell_all(self, assembly: Assembly, places: list[Place], tellers: list[Endpoint]) -> None:
        book, rng = assembly.book, self._rng
        groups = [b"4" + teller.host[:2] for teller in tellers]
        for endpoint, carrier in places:
            source = rng.choice(groups)
            entry = book.learn(endpoint, carrier, Face.CLEARNET, source, int(self._unix))
            if entry is not None:
                book.told_key(entry, bytes(32), source, is_own_word=False)

    @staticmethod
    def _place(network: int, host: int) -> Place:
        return Endpoint(Network.IPV4, _host(network, host), 9_733), CarrierNumber.TLS


class _World:
    """Carries out the core's effects: every dial succeeds a little later, messages go nowhere."""

    def __init__(self) -> None:
        self._core: Core
        self.now = 0.0
        self._pending: list[tuple[float, int, Dial]] = []
        self._last = 0
        self.links: dict[LinkId, tuple[Place, Purpose]] = {}

    def run(self, core: Core, until: float) -> Iterator[float]:
        """The instants at which something happened, after it did."""
        self._core = core
        while True:
            now = min(self._core.deadline(), self._pending[0][0] if self._pending else until)
            if now >= until:
                return
            self.now = now
            while self._pending and self._pending[0][0] <= now:
                self._connect(heappop(self._pending)[2], now)
            self._apply(self._core.due(now), now)
            yield now

    def _connect(self, dial: Dial, now: float) -> None:
        self._last += 1
        address, link = dial.address, self._last
        endpoint = address.endpoint
        assert endpoint is not None
        peer = Peer(
            link=link,
            face=Face.CLEARNET,
            carrier=address.carrier,
            is_inbound=False,
            is_manual=False,
            dialled=address,
            remote=endpoint,
            session_id=link.to_bytes(32, "big"),
            proved_key=bytes(32),
            pattern="NK",
            negotiated=_NEGOTIATED,
            since=now,
            purpose=dial.purpose,
        )
        if dial.purpose is not Purpose.FEELER:
            self.links[link] = ((endpoint, address.carrier), dial.purpose)
        self._apply(self._core.established(peer, now), now)

    def _apply(self, effects: Iterable[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                self._last += 1
                heappush(self._pending, (now + _ANSWER_S, self._last, effect))
            elif isinstance(effect, Disconnect):
                self.links.pop(effect.link, None)
                self._apply(self._core.closed(effect.link, effect.why, now), now)


def _host(network: int, host: int) -> bytes:
    return IPv4Address(network << 16 | host & 0xFFFF).packed
