"""The address book: places, how trustworthy they are, what is known of their keys (design 10).

Two tables of buckets with 64 cells each, as in Bitcoin Core's ``addrman``: *new* (1,024 buckets) holds what others told,
*tried* (256) what completed a handshake with us. Which cell a place may take follows from a secret key, so that nobody can
aim at a cell; the source's group decides 64 of the new buckets and the place's group 8 of the tried ones, so that owning one
network does not fill the book. A cell that is taken is given up only if its place is worthless (new) or fails a test (tried).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from math import inf

import msgspec

from obscura.limits import (
    ALONE_RETRY_S,
    BOOK_CELLS,
    BOOK_DRAWS,
    BOOK_LOOK,
    BUCKETS_REMEMBERED,
    FAILURES_OF_NEW,
    FAILURES_OF_TRIED,
    HORIZON_S,
    NEW_BUCKETS,
    NEW_BUCKETS_PER_SOURCE,
    PENDING_TESTS,
    RECENT_SUCCESS_S,
    RETRY_S,
    SEEN_AHEAD_S,
    SEEN_STEP_S,
    STALE_SUCCESS_S,
    TEST_S,
    TRIED_BUCKETS,
    TRIED_BUCKETS_PER_GROUP,
    UNPROVEN_RETRY_S,
)
from obscura.node.dialling import Use, own_face, use_of
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.placekeys import Keys
from obscura.node.pool import Pool
from obscura.wire.address import Address, CarrierNumber, Endpoint

Place = tuple[Endpoint, CarrierNumber]


class Entry(msgspec.Struct):
    """One place of the book. Times are unix seconds, 0 = never."""

    endpoint: Endpoint
    carrier: CarrierNumber
    face: Face  # through which it was learnt; dialled and passed on only there
    source: bytes  # group of who told first
    seen: int  # by others; our own successes are in ``succeeded``, so that passing it on does not show our links
    services: int = 0
    keys: Keys = msgspec.field(default_factory=Keys)
    feelers_only: bool = False  # from an unsigned seed answer
    name: str | None = None  # SNI or Host, of signed seeds only: gossip carries none
    binding: str | None = None
    is_tried: bool = False
    attempted: int = 0
    succeeded: int = 0
    failures: int = 0  # since the last success

    @property
    def place(self) -> Place:
        """What identifies it."""
        return self.endpoint, self.carrier

    def use(self, *, is_proxied: bool, allow_unauthenticated: bool = False) -> Use:
        """What it may be dialled for (``dialling.use_of``)."""
        keys, may = self.keys, {"allow_unauthenticated": allow_unauthenticated and not self.feelers_only}
        trusted, proxied = keys.is_trusted, is_proxied
        return use_of(self.endpoint, self.carrier, has_key=keys.is_known, is_trusted=trusted, is_proxied=proxied, **may)

    def address(self, rng: random.Random, *, with_key: bool = True) -> Address:
        """How to dial it, with the key that it most probably has."""
        key = self.keys.best(rng) if with_key else None
        return Address(key, self.endpoint.host_text, self.endpoint.port, self.carrier, self.name, self.binding)

    def is_worthless(self, unix: float) -> bool:
        """Whether nothing is lost by forgetting it (the terms of Bitcoin Core)."""
        if self.since_attempt(unix) < 60:
            return False  # being tried right now
        if self.is_ahead(unix) or unix - max(self.seen, self.succeeded) > HORIZON_S:
            return True
        if not self.succeeded:
            return self.failures >= FAILURES_OF_NEW
        return self.failures >= FAILURES_OF_TRIED and unix - self.succeeded > STALE_SUCCESS_S

    def is_ahead(self, unix: float) -> bool:
        """Whether its time is of a clock that was wrong."""
        return self.seen > unix + SEEN_AHEAD_S

    def may_try(self, unix: float, *, alone: bool = False) -> bool:
        """An address that never proved a key gets one attempt in 24 hours, then in 48, and so on: nobody is flooded by us.

        ``alone``: no link stands, so that an attempt which counted against nobody may have failed by our own network.
        """
        if self.succeeded or self.keys.is_hard:
            wait = RETRY_S
        elif alone and not self.failures:
            wait = ALONE_RETRY_S
        else:
            wait = UNPROVEN_RETRY_S << min(10, max(0, self.failures - 1))
        return self.since_attempt(unix) >= wait

    def chance(self, unix: float) -> float:
        """How readily a pick is taken: less after a recent attempt, and with each failure."""
        recent = 0.01 if self.since_attempt(unix) < 600 else 1.0
        return float(recent * 0.66 ** min(self.failures, 8))

    def since_attempt(self, unix: float) -> float:
        """Seconds. Of an attempt in the future (the clock was wrong then) nothing is known: waiting for it could take years."""
        return unix - self.attempted if 0 < self.attempted <= unix else inf


class BookState(msgspec.Struct, frozen=True):
    """What is stored of the book."""

    key: bytes
    entries: list[Entry]


class Book:
    """The tables, never larger than their cells. ``faces`` through which the node dials, ``is_proxied``: see ``use_of``."""

    def __init__(
        self,
        key: bytes,
        grouping: Grouping,
        rng: random.Random,
        unix: Callable[[], float],
        faces: frozenset[Face] = frozenset(Face),
        is_proxied: bool = False,
    ) -> None:
        self._key = key
        self._is_proxied = is_proxied
        self._faces = faces
        self._grouping = grouping
        self._rng = rng
        self._unix = unix
        self._entries: dict[Place, Entry] = {}
        self._new: dict[int, Place] = {}  # cell -> place
        self._tried: dict[int, Place] = {}
        self._new_pool, self._tried_pool = Pool[Place](), Pool[Place]()
        self._through: Counter[Face] = Counter()
        self.news = 0  # places and keys that came in, ever
        self._buckets: dict[tuple[bytes, bytes], int] = {}  # computed lately
        self._tests: dict[Place, float] = {}  # proved itself, but its tried cell is taken: since when

    def __len__(self) -> int:
        return len(self._entries)

    def known_through(self, face: Face) -> int:
        """Places learnt through a face."""
        return self._through[face]

    def get(self, place: Place) -> Entry | None:
        """What is known of a place."""
        return self._entries.get(place)

    def entries(self) -> Iterator[Entry]:
        """Everything in the book."""
        return iter(self._entries.values())

    def usable(self, now: float) -> int:
        """Places that may be dialled now, through the faces that are on.

        Security: what needs a key that nobody told is never tried, and fifty of it would keep seeds from being asked for.
        """
        unix = self._unix()
        there = (e for e in self._entries.values() if e.face in self._faces and e.may_try(unix))
        return sum(not e.is_worthless(unix) and e.use(is_proxied=self._is_proxied) is not Use.NOTHING for e in there)

    @property
    def sizes(self) -> tuple[int, int]:
        """Places in new and in tried."""
        return len(self._new_pool.items), len(self._tried_pool.items)

    def occupancy(self) -> tuple[list[int], list[int]]:
        """Taken cells of each bucket of new and of tried, from 0 to ``BOOK_CELLS``."""
        tables = ((self._new, NEW_BUCKETS), (self._tried, TRIED_BUCKETS))
        taken = [Counter(cell // BOOK_CELLS for cell in cells) for cells, _ in tables]
        new, tried = ([found[at] for at in range(buckets)] for found, (_, buckets) in zip(taken, tables, strict=True))
        return new, tried

    # --- Learning ---------------------------------------------------------------------------------------------------

    def learn(
        self,
        endpoint: Endpoint,
        carrier: CarrierNumber,
        face: Face,
        source: bytes,
        seen: int,
        services: int = 0,
        *,
        is_vouched: bool = False,
    ) -> Entry | None:
        """A place that somebody of the group ``source`` told. Its entry, or None if there is no cell for it.

        ``is_vouched``: by the seed key. It takes the cell of what nobody ever proved, with which an attacker may fill the table.
        """
        place = (endpoint, carrier)
        entry = self._entries.get(place)
        if entry is None:
            entry = Entry(endpoint, carrier, face, source, seen, services)
            return entry if self._place_new(entry, is_vouched=is_vouched) else None
        if entry.face is not face:
            return None  # told through another face: joining the two would link them
        if seen > entry.seen + SEEN_STEP_S or entry.is_ahead(self._unix()):
            entry.seen = seen
        return entry

    def add_seeds(
        self, addresses: Iterable[Address], signed: bool, face: Face, now: float, *, is_built_in: bool = False
    ) -> int:
        """Places of a seed list or a DNS answer; how many are in the book afterwards.

        ``signed``: the network's seed key signed them, so that their keys are hard. Unsigned ones are tried by feelers
        alone. Names are skipped: nobody may be asked where they are. ``is_built_in``: they do not undo a list.
        """
        added, unix = 0, int(self._unix())
        for address in addresses:
            endpoint = address.endpoint
            if endpoint is None or address.carrier is CarrierNumber.BARE:
                continue
            source = b"seeds" if signed else b"unsigned seeds"
            own = own_face(endpoint)  # an onion name in a list that came over clearnet is reached through Tor alone
            entry = self.learn(
                endpoint, address.carrier, face if own is Face.CLEARNET else own, source, unix, is_vouched=signed
            )
            if entry is None:
                continue
            added += 1
            if signed and not (is_built_in and entry.keys.is_listed):
                entry.keys.hard, entry.keys.is_listed = address.key, not is_built_in
                entry.name, entry.binding, entry.feelers_only = address.name, address.binding, False
            elif not signed and entry.source == source and not entry.succeeded:
                entry.feelers_only = True
        return added

    def told_key(self, entry: Entry, key: bytes, source: bytes, *, is_own_word: bool) -> None:
        """Somebody of the group ``source`` says that this is the key of a place."""
        if not entry.keys.is_trusted:
            self.news += not entry.keys.is_known
            entry.keys.told(key, source, self._unix(), is_own_word=is_own_word)

    def good(self, place: Place, key: bytes | None) -> None:
        """Our own handshake with the place was completed; ``key`` is what it proved."""
        entry = self._entries.get(place)
        if entry is None:
            return
        unix = self._unix()
        entry.succeeded = entry.attempted = int(unix)
        entry.seen = min(entry.seen, entry.succeeded)
        entry.failures = 0
        if key is not None:
            entry.keys.prove(key)
            entry.feelers_only = False
        if not entry.is_tried and not self._to_tried(entry) and len(self._tests) < PENDING_TESTS:
            self._tests.setdefault(place, unix)

    def attempt(self, place: Place) -> None:
        """The place is being dialled."""
        entry = self._entries.get(place)
        if entry is not None:
            entry.attempted = int(self._unix())

    def not_attempted(self, place: Place) -> None:
        """Nothing was sent, as this machine has no network: an address that never proved itself has not had its attempt."""
        entry = self._entries.get(place)
        if entry is not None and not entry.succeeded:
            entry.attempted = 0

    def failed(self, place: Place) -> None:
        """No connection, or no answer of the cover: that counts against the address."""
        entry = self._entries.get(place)
        if entry is not None:
            entry.failures += 1

    def key_failed(self, place: Place, key: bytes) -> None:
        """Somebody answered there and did not prove the key: that counts against the key."""
        entry = self._entries.get(place)
        if entry is not None:
            entry.keys.fail(key, self._unix())
            if not entry.succeeded:
                entry.failures += 1  # makes the waits double; a proven address is not charged

    def forget(self, place: Place) -> None:
        """Drop a place."""
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        self._through[entry.face] -= 1
        cells, pool = (self._tried, self._tried_pool) if entry.is_tried else (self._new, self._new_pool)
        del cells[self._tried_cell(entry) if entry.is_tried else self._new_cell(entry)]
        pool.remove(place)
        self._tests.pop(place, None)

    # --- Choosing ---------------------------------------------------------------------------------------------------

    def pick(self, suits: Callable[[Entry], bool], *, only_new: bool = False, alone: bool = False) -> Entry | None:
        """A random place to dial: tried or new by a fair coin, any place in it alike but for its chance.

        ``alone``: see ``Entry.may_try``.
        """
        pools = [self._tried_pool, self._new_pool]
        if self._rng.random() < 0.5:
            pools.reverse()
        for pool in [self._new_pool] if only_new else pools:
            entry = self._pick_of(pool, lambda e, unix: e.may_try(unix, alone=alone) and suits(e))
            if entry is not None:
                return entry
        return None

    def test_due(self) -> Entry | None:
        """A place of tried that another wants to replace: try it first, it may stay if it still answers."""
        unix = self._unix()
        self._settle_tests(unix)
        for place in self._tests:
            rival = self._entries[self._tried[self._tried_cell(self._entries[place])]]
            if rival.since_attempt(unix) >= TEST_S[0]:
                return rival
        return None

    def sample(self, face: Face, share: float, most: int) -> list[Entry]:
        """A random part of the places learnt through a face, worthless ones left out."""
        unix = self._unix()
        known = [e for e in self._entries.values() if e.face is face and not e.is_worthless(unix)]
        return self._rng.sample(known, min(most, -int(-len(known) * share // 1)))

    # --- Over a restart ---------------------------------------------------------------------------------------------

    def state(self) -> BookState:
        """What to store."""
        return BookState(self._key, list(self._entries.values()))

    def restore(self, state: BookState) -> None:
        """Take over what was stored; into an empty book."""
        self._key = state.key
        self._buckets.clear()
        for entry in state.entries:
            if entry.place in self._entries:
                continue
            was_tried, entry.is_tried = entry.is_tried, False
            if not (was_tried and self._to_tried(entry)):
                self._place_new(entry)

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _pick_of(self, pool: Pool[Place], suits: Callable[[Entry, float], bool]) -> Entry | None:
        unix, rng, items = self._unix(), self._rng, pool.items
        patience = 1.0
        for _ in range(BOOK_DRAWS if 2 * len(items) > BOOK_DRAWS else 0):
            entry = self._entries[items[int(rng.random() * len(items))]]
            if rng.random() < patience * entry.chance(unix) and suits(entry, unix):
                return entry
            patience *= 1.2
        # Hardly any suits: each is looked at in turn, over some calls in a book that is large.
        left = [e for e in map(self._entries.__getitem__, pool.part(BOOK_LOOK)) if suits(e, unix)]
        return rng.choices(left, [e.chance(unix) for e in left])[0] if left else None

    def _place_new(self, entry: Entry, *, is_vouched: bool = False) -> bool:
        cell = self._new_cell(entry)
        if cell in self._new:
            holder = self._entries[self._new[cell]]
            gives_way = is_vouched and not (holder.succeeded or holder.keys.is_hard)
            if not (gives_way or holder.is_worthless(self._unix())):
                return False
            self.forget(holder.place)
        self._new[cell] = entry.place
        self._new_pool.add(entry.place)
        self._entries[entry.place] = entry
        self._through[entry.face] += 1
        self.news += 1
        return True

    def _to_tried(self, entry: Entry) -> bool:
        """Move or put the entry into its tried cell; False if that is taken."""
        cell = self._tried_cell(entry)
        if cell in self._tried:
            return False
        if entry.place in self._entries:
            self.forget(entry.place)
        entry.is_tried = True
        self._tried[cell] = entry.place
        self._tried_pool.add(entry.place)
        self._entries[entry.place] = entry
        self._through[entry.face] += 1
        return True

    def _settle_tests(self, unix: float) -> None:
        """Decide the tests that can be: who answered lately stays, who failed its test or got none in time goes."""
        for place, since in list(self._tests.items()):
            entry = self._entries.get(place)
            if entry is None:
                continue  # it has just lost its cell to one that failed another test
            if since > unix:  # of a clock that was wrong
                since = self._tests[place] = unix
            holder = self._tried.get(self._tried_cell(entry))
            rival = self._entries[holder] if holder is not None else None
            if rival is not None and 0 <= unix - rival.succeeded < RECENT_SUCCESS_S:
                del self._tests[place]
            elif rival is None or (rival.attempted > since and unix - rival.attempted > 60) or unix - since > TEST_S[1]:
                del self._tests[place]
                if rival is not None:
                    self.forget(rival.place)
                    rival.is_tried = False
                    self._place_new(rival)
                self._to_tried(entry)

    def _new_cell(self, entry: Entry) -> int:
        group, source = self._grouping.of(entry.endpoint), entry.source
        bucket = self._buckets.get((group, source))
        if bucket is None:
            way = self._hash(b"way", group, source)[0] % NEW_BUCKETS_PER_SOURCE
            bucket = self._remember((group, source), self._hash(b"new", source, bytes([way])), NEW_BUCKETS)
        return bucket * BOOK_CELLS + self._hash(b"cell", _place_bytes(entry))[0] % BOOK_CELLS

    def _tried_cell(self, entry: Entry) -> int:
        digest = self._hash(b"cell", _place_bytes(entry))
        way = bytes([digest[1] % TRIED_BUCKETS_PER_GROUP])
        group = self._grouping.of(entry.endpoint)
        bucket = self._buckets.get((group, way))
        if bucket is None:
            bucket = self._remember((group, way), self._hash(b"tried", group, way), TRIED_BUCKETS)
        return bucket * BOOK_CELLS + digest[2] % BOOK_CELLS

    def _remember(self, what: tuple[bytes, bytes], digest: bytes, buckets: int) -> int:
        if len(self._buckets) >= BUCKETS_REMEMBERED:
            self._buckets.clear()
        bucket = self._buckets[what] = int.from_bytes(digest, "big") % buckets
        return bucket

    def _hash(self, *parts: bytes) -> bytes:
        """8 bytes that nobody can predict. ``parts`` are told apart by the lengths of all but the last."""
        data = b"".join([bytes([len(part)]) + part for part in parts[:-1]]) + parts[-1]
        return blake2b(data, key=self._key, digest_size=8).digest()


def _place_bytes(entry: Entry) -> bytes:
    endpoint = entry.endpoint
    return bytes([endpoint.network, entry.carrier]) + endpoint.port.to_bytes(2, "big") + endpoint.host
