"""Discovery by DNS-over-HTTPS: whom to ask for seeds, when, and what of the answers counts (specification, *DNS-over-HTTPS*).

Asked only while the address book has fewer than 50 usable entries. A *round* asks two operators, in turn over all of
them, for one name: first for a list signed with the network's seed key (the signature decides, whoever served it),
then for plain A and AAAA records, of which each must come from two operators and becomes a feeler only. A round that
finds nothing in a network that is on falls back to the network's built-in list. Nothing here does I/O: ``Lookup`` goes
out, ``answered`` comes in.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from math import inf
from typing import Any, Protocol

import msgspec

from obscura import limits
from obscura.node.backoff import Backoff
from obscura.node.core import Part
from obscura.node.dialable import face_of
from obscura.node.dialling import is_public
from obscura.node.effects import Effect, Lookup, Notify
from obscura.node.face import Face
from obscura.node.resolvers import Answer, SeedSettings
from obscura.node.seed_list import Refusal, SeedList, newest, verify
from obscura.wire.address import Address, CarrierNumber, Endpoint, Network, parse_key

Kinds = tuple[str, ...]
SIGNED: Kinds = ("TXT",)
UNSIGNED: Kinds = ("A", "AAAA")


class SeedSource(msgspec.Struct, frozen=True):
    """What the network says of its seeds."""

    network_id: bytes
    port: int  # of unsigned seeds
    names: tuple[str, ...] = ()
    key: bytes | None = None  # Ed25519 public key, 32 bytes
    built_in: tuple[Address, ...] = ()

    def with_settings(self, settings: SeedSettings) -> SeedSource:
        """Configuration over network."""
        key = parse_key(settings.key) if settings.key else self.key
        return msgspec.structs.replace(self, names=settings.names or self.names, key=key)


class SeedBook(Protocol):
    """What discovery wants of the address book."""

    def usable(self, now: float) -> int:
        """Entries that may be dialled."""

    def add_seeds(
        self, addresses: Sequence[Address], *, signed: bool, face: Face, now: float, is_built_in: bool = False
    ) -> object:
        """Take seeds. Unsigned ones may become feelers only, built-in ones do not change what a signed list said."""


def _backoff(most_s: float = limits.SEED_BACKOFF_S[1]) -> Backoff:
    return Backoff(first_s=limits.SEED_BACKOFF_S[0], most_s=most_s)


class Standing(msgspec.Struct):
    """How one provider did."""

    asked: int = 0
    outcome: str | None = None  # of the last lookup, for the operator
    rests_until: float = -inf  # it failed: others come first
    backoff: Backoff = msgspec.field(default_factory=_backoff)


class _Kept(msgspec.Struct, frozen=True):
    answer: Answer
    since: float
    until: float


class _Round(msgspec.Struct):
    name: str
    phases: list[Kinds]  # kinds of records that are asked for next, first to last
    kinds: Kinds = ()  # those asked for now
    untried: list[str] = msgspec.field(default_factory=list)  # providers, in the order of asking
    asked: int = 0
    is_found: bool = False
    is_heard: bool = False  # a provider answered, whatever
    ttl_s: int = 0
    waiting: set[str] = msgspec.field(default_factory=set)
    taken: set[Address] = msgspec.field(default_factory=set)  # of signed lists
    votes: dict[bytes, set[str]] = msgspec.field(default_factory=dict)  # record -> operators


class Seeds(Part):
    """One per node. ``sequences``: the highest sequence seen of each name's list, to be kept over a restart."""

    def __init__(
        self,
        settings: SeedSettings,
        source: SeedSource,
        book: SeedBook,
        rng: random.Random,
        unix: Callable[[], int],
        now: float,
        *,
        allow_loopback: bool = False,
        sequences: Mapping[str, int] | None = None,
        faces: frozenset[Face] = frozenset(Face),
    ) -> None:
        """``faces``: those through which the node dials. What is of others is taken, and counts as nothing found."""
        self._source = source.with_settings(settings)
        self._is_enabled = settings.enabled
        self.providers = settings.resolvers()
        self._book = book
        self._rng = rng
        self._unix = unix
        self._allow_loopback = allow_loopback
        self._faces = faces
        self.sequences = dict(sequences or {})
        self._turns = rng.sample(list(self.providers), len(self.providers))  # who was asked longest ago, first
        self._standings = {label: Standing() for label in self.providers}
        self._kept: dict[tuple[str, str, str], _Kept] = {}
        self._names = list(self._source.names)
        self._backoff, self._unheard = _backoff(), _backoff(limits.SEED_UNHEARD_MOST_S)
        self._round: _Round | None = None
        self._found: list[dict[str, Any]] = []  # what the last round took, for the operator
        self._when = now
        self._is_new = True

    # --- When -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        return self._when

    def due(self, now: float) -> Iterable[Effect]:
        if self._round is not None:
            return self._give_up(self._round, now)
        usable, is_new = self._book.usable(now), self._is_new
        self._is_new = False
        if usable and is_new:  # what is known already comes first
            self._when = now + self._rng.uniform(*limits.SEED_START_S)
            return ()
        self._when = now + limits.SEED_CHECK_S
        if usable >= limits.SEEDS_WANTED:
            return ()
        return self.ask(now)

    def ask(self, now: float) -> list[Effect]:
        """Begin a round whatever the book holds, unless one is under way."""
        if self._round is not None:
            return []
        phases = self._phases()
        if not (self._is_enabled and self._names and phases):
            self._when = now + limits.SEED_AGAIN_S
            return self._fall_back(now)
        name = self._names.pop(0)
        self._names.append(name)
        self._round, self._found = _Round(name, phases), []
        return self._go_on(self._round, now)

    @property
    def is_asking(self) -> bool:
        """Whether a round is under way."""
        return self._round is not None

    def _phases(self) -> list[Kinds]:
        """Signed lists if there is a key; plain records if there are operators enough to agree."""
        operators = {provider.operator for provider in self.providers.values()}
        signed = [SIGNED] if self._source.key and operators else []
        return [*signed, UNSIGNED] if len(operators) >= limits.SEED_OPERATORS else signed

    def _line(self, now: float) -> list[str]:
        """Providers in the order of asking: one per operator, those that failed lately last."""
        seen: set[str] = set()
        line = []
        for label in sorted(self._turns, key=lambda label: self._standings[label].rests_until > now):
            if self.providers[label].operator not in seen:
                seen.add(self.providers[label].operator)
                line.append(label)
        return line[: limits.SEED_ASKED]

    # --- A round ----------------------------------------------------------------------------------------------------

    def _go_on(self, turn: _Round, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while True:
            while turn.untried and (turn.asked < limits.SEED_OPERATORS or not (turn.waiting or turn.is_found)):
                effects += self._ask_next(turn, now)
            if turn.waiting:
                return effects
            if turn.is_found or not turn.phases:
                return effects + self._end(turn, now)
            turn.kinds, turn.untried, turn.asked = turn.phases.pop(0), self._line(now), 0

    def _ask_next(self, turn: _Round, now: float) -> list[Effect]:
        label = turn.untried.pop(0)
        turn.asked += 1
        kept = [self._kept.get((label, turn.name, kind)) for kind in turn.kinds]
        fresh = [entry.answer for entry in kept if entry is not None and entry.until > now]
        if len(fresh) == len(turn.kinds):
            return self._weigh(turn, label, fresh, now)
        self._turns.remove(label)
        self._turns.append(label)
        self._standings[label].asked += 1
        turn.waiting.add(label)
        self._when = now + 2 * limits.DOH_S
        return [Lookup(label, turn.name, turn.kinds)]

    def answered(self, lookup: Lookup, answers: Sequence[Answer], now: float) -> list[Effect]:
        """What came back for a ``Lookup``: one answer per kind. Anything that was not asked for is ignored."""
        turn = self._round
        if (
            turn is None
            or lookup.provider not in turn.waiting
            or (lookup.name, lookup.kinds) != (turn.name, turn.kinds)
        ):
            return []
        turn.waiting.discard(lookup.provider)
        standing = self._standings[lookup.provider]
        faults = [answer.fault for answer in answers if answer.fault is not None]
        records = sum(len(answer.records) for answer in answers)
        standing.outcome = faults[0] if faults else f"{records} records" if records else "no such record"
        for answer in answers:
            if answer.fault is None:
                span = limits.SEED_TTL_S if answer.records else limits.SEED_NEGATIVE_TTL_S
                until = now + min(max(answer.ttl_s, span[0]), span[1])
                self._kept[lookup.provider, lookup.name, answer.kind] = _Kept(answer, now, until)
        if faults:
            standing.rests_until = now + standing.backoff.next_s(self._rng)
        else:
            standing.rests_until, standing.backoff = -inf, _backoff()
        effects = self._weigh(turn, lookup.provider, [answer for answer in answers if answer.fault is None], now)
        return effects + self._go_on(turn, now)

    def _give_up(self, turn: _Round, now: float) -> list[Effect]:
        """Whoever carries out lookups answers each within ``DOH_S``; this is for one that does not."""
        effects: list[Effect] = []
        silent = [Answer(kind, fault="no answer in time") for kind in turn.kinds]
        for label in sorted(turn.waiting):
            effects += self.answered(Lookup(label, turn.name, turn.kinds), silent, now)
        return effects

    def _weigh(self, turn: _Round, label: str, answers: Iterable[Answer], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for answer in answers:
            turn.is_heard = True
            records = answer.records[: limits.SEED_RECORDS]
            if answer.kind == "TXT":
                effects += self._weigh_signed(turn, label, records, answer.ttl_s, now)
            else:
                for record in records:
                    turn.votes.setdefault(record, set()).add(self.providers[label].operator)
                    turn.ttl_s = max(turn.ttl_s, answer.ttl_s)
        turn.is_found = turn.is_found or self._is_useful(self._agreed(turn))
        return effects

    def _weigh_signed(self, turn: _Round, label: str, texts: Sequence[bytes], ttl_s: int, now: float) -> list[Effect]:
        if not texts:
            return []
        found = self._signed(turn.name, texts)
        standing = self._standings[label]
        if isinstance(found, Refusal):
            standing.outcome = found.value
            if found in (Refusal.FORGED, Refusal.MALFORMED):
                standing.rests_until = now + standing.backoff.next_s(self._rng)
            return []
        is_known = self.sequences.get(turn.name) == found.sequence
        self.sequences[turn.name] = found.sequence
        standing.outcome = f"signed list {found.sequence}"
        turn.is_found, turn.ttl_s = turn.is_found or self._is_useful(found.addresses), max(turn.ttl_s, ttl_s)
        new = [address for address in found.addresses if address not in turn.taken and self._is_wanted(address)]
        turn.taken.update(new)
        effects = self._add(new, True, now)
        if not is_known:
            effects.append(
                Notify("seed-list", {"name": turn.name, "sequence": found.sequence, "expires": found.expires})
            )
        return effects

    def _signed(self, name: str, texts: Iterable[bytes]) -> SeedList | Refusal:
        """The newest signed list among the texts, or why there is none."""
        assert self._source.key is not None
        network_id, key, unix = self._source.network_id, self._source.key, self._unix()
        read = [verify(text, name, network_id, key, unix) for text in texts]
        lists = [part for part in read if isinstance(part, SeedList)]
        if lists:
            return newest(lists, self.sequences.get(name, 0))
        refusals = Counter(part for part in read if isinstance(part, Refusal) and part is not Refusal.FOREIGN)
        return refusals.most_common(1)[0][0] if refusals else Refusal.FOREIGN

    def _agreed(self, turn: _Round) -> list[Address]:
        """The seeds among the records that enough operators named."""
        agreed = [record for record, operators in turn.votes.items() if len(operators) >= limits.SEED_OPERATORS]
        return [address for record in agreed if (address := self._unsigned(record)) is not None]

    def _end(self, turn: _Round, now: float) -> list[Effect]:
        self._round = None
        effects = self._add(self._agreed(turn), False, now)
        if not turn.is_found:
            self._when = now + (self._backoff if turn.is_heard else self._unheard).next_s(self._rng)
            return effects + self._fall_back(now)
        self._backoff, self._unheard = _backoff(), _backoff(limits.SEED_UNHEARD_MOST_S)
        wait = max(limits.SEED_AGAIN_S, min(turn.ttl_s, limits.SEED_TTL_S[1]))
        self._when = now + wait * self._rng.uniform(1.0, 1.25)  # nodes that began together do not stay together
        return effects

    # --- What is taken ----------------------------------------------------------------------------------------------

    def _add(
        self, addresses: Sequence[Address], signed: bool, now: float, *, is_built_in: bool = False
    ) -> list[Effect]:
        self._found += [{"address": str(address), "signed": signed} for address in addresses]
        for face in Face:
            through = [address for address in addresses if face_of(address) is face]
            if through:
                self._book.add_seeds(through, signed=signed, face=face, now=now, is_built_in=is_built_in)
        return [Notify("seeds-found", {"addresses": len(addresses), "signed": signed})] if addresses else []

    def _fall_back(self, now: float) -> list[Effect]:
        return self._add(self._source.built_in, True, now, is_built_in=True)

    def _is_useful(self, addresses: Iterable[Address]) -> bool:
        return any(face_of(address) in self._faces for address in addresses)

    def _is_wanted(self, address: Address) -> bool:
        return self._allow_loopback or not address.is_loopback

    def _unsigned(self, record: bytes) -> Address | None:
        """An address of A or AAAA at the network's port; None for one that no public seed can have."""
        place = ip_address(record)
        if place.is_loopback and self._allow_loopback:
            return Address(None, str(place), self._source.port)
        try:
            endpoint = Endpoint(Network.IPV4 if place.version == 4 else Network.IPV6, record, self._source.port)
        except ValueError:  # it stands for an address of another network
            return None
        if not is_public(endpoint):
            return None
        return Address(None, str(place), self._source.port, CarrierNumber.TLS)

    # --- What the operator sees -------------------------------------------------------------------------------------

    def show(self, now: float) -> dict[str, Any]:
        """What would be asked and what came back, ready for JSON."""
        return {
            "enabled": self._is_enabled,
            "usable_addresses": self._book.usable(now),
            "wanted_addresses": limits.SEEDS_WANTED,
            "names": list(self._source.names),
            "signed": self._source.key is not None,
            "built_in": len(self._source.built_in),
            "asking": self._round.name if self._round is not None else None,
            "found": self._found,
            "next_look_s": None if self._round is not None else round(max(0.0, self._when - now), 1),
            "sequences": self.sequences,
            "providers": [self._show_provider(label, now) for label in self._turns],
            "answers": [
                {
                    "provider": label,
                    "name": name,
                    "kind": kind,
                    "records": len(kept.answer.records),
                    "kept_s": round(kept.until - now, 1),
                }
                for (label, name, kind), kept in self._kept.items()
                if kept.until > now
            ],
        }

    def _show_provider(self, label: str, now: float) -> dict[str, Any]:
        provider, standing = self.providers[label], self._standings[label]
        return {
            "provider": label,
            "operator": provider.operator,
            "host": provider.authority,
            "addresses": list(provider.addresses),
            "asked": standing.asked,
            "outcome": standing.outcome,
            "rests_s": round(max(0.0, standing.rests_until - now), 1) if standing.rests_until > now else 0.0,
        }
