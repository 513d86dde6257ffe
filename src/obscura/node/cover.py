"""What the own privacy level makes of one link, and what is said and done when the peer has it otherwise (design 7).

``shaping`` turns a negotiation into sizes and times; the part tells the operator where a peer asked for less, and holds peers to
what they agreed to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from obscura.errors import Refused
from obscura.handshake.features import Privacy
from obscura.handshake.machine import Negotiated
from obscura.limits import CELL, MALFORMED_POINTS
from obscura.linkevents import Shape, unshaped
from obscura.node.core import Part, Reaction, Received
from obscura.node.effects import Effect, LinkId, Notify, Penalise
from obscura.node.face import Face
from obscura.node.peer import Peer
from obscura.node.ratelimit import TokenBucket
from obscura.shaping.agreement import OFF, UNBOUNDED, Agreement, Pair, Understood, agree, concessions, wished
from obscura.shaping.levels import Knobs
from obscura.shaping.padding import Constant, Rule, padding
from obscura.shaping.schedule import IMMEDIATE, NEVER, Gate, MaySpend, Pace, Schedule, Slots, Span
from obscura.shaping.watch import Breach, watch

DAY_S = 86_400


class Budget:
    """Cover bytes that all links of a face may send, per second and per day; 0 = no bound. Real traffic is not counted."""

    def __init__(self, bytes_per_s: int, bytes_per_day: int, now: float) -> None:
        rates = (bytes_per_s, max(bytes_per_s, 2 * CELL)), (bytes_per_day / DAY_S, bytes_per_day)
        self._buckets = [(TokenBucket(rate, burst, now), burst) for rate, burst in rates if rate]

    def may_spend(self, cost: int, now: float) -> bool:
        """Whether the budget has ``cost`` bytes left; they are spent then.

        A record that is larger than what can be saved up goes when all of that is there: else a small budget would mean no cover.
        """
        if not self.has(cost, now):
            return False
        for bucket, _ in self._buckets:
            bucket.give(-cost, now)
        return True

    def has(self, cost: int, now: float) -> bool:
        """Whether ``may_spend`` would say so. Nothing is spent."""
        return all(bucket.wait_s(min(cost, burst), now) <= 0 for bucket, burst in self._buckets)


def shaping(knobs: Knobs, budget: Budget, rng: random.Random) -> Callable[[Negotiated], Shape]:
    """What a link's negotiation comes to. Raises ``Refused`` where the peer asks for less and the level does not grant that."""

    def shape(negotiated: Negotiated) -> Shape:
        outbound, inbound = both_directions(negotiated)
        if outbound is None or inbound is None:
            return unshaped(negotiated)
        if knobs.refuses_less and (less := _less(knobs, negotiated, outbound)):
            raise Refused(f"the peer asks for less than this node's privacy level: {'; '.join(less)}")
        rule = Rule(outbound.rule)
        sizes = Constant(outbound.slot_size) if outbound.has_slots else padding(rule, rng, outbound.record_size)
        schedule = _schedule(knobs, outbound, _understood(negotiated), rng, _spending(budget, outbound.most))
        return Shape(sizes, schedule, watch(inbound))

    return shape


class Shapes:
    """``shaping`` for each face of a node, which has its share of the budget: what one uses up must not be missed at another."""

    def __init__(self, knobs: Knobs, rng: random.Random, now: float, *, faces: int) -> None:
        self._knobs = knobs
        self._rng = rng
        self._now = now
        self._most = -(-knobs.cover_bytes_per_s // faces), -(-knobs.cover_bytes_per_day // faces)
        self._faces: dict[Face, Callable[[Negotiated], Shape]] = {}

    def of(self, face: Face) -> Callable[[Negotiated], Shape]:
        """What shapes the links of one face."""
        if face not in self._faces:
            self._faces[face] = shaping(self._knobs, Budget(*self._most, self._now), self._rng)
        return self._faces[face]


def both_directions(negotiated: Negotiated) -> tuple[Agreement, Agreement] | tuple[None, None]:
    """What this side sends and what it receives; None on a bare link."""
    mine, theirs = negotiated.own_padneg, negotiated.peer_padneg
    if mine is None or theirs is None:
        return None, None
    understood = _understood(negotiated)
    return agree(mine, theirs, understood), agree(theirs, mine, understood)


def _understood(negotiated: Negotiated) -> Understood:
    has = negotiated.flags.has
    return Understood(
        dummies=has(Privacy.Dummies),
        jitter=has(Privacy.TimingJitter),
        bursts=has(Privacy.BurstMode),
        slots=has(Privacy.TrafficNormalisation),
    )


def _less(knobs: Knobs, negotiated: Negotiated, outbound: Agreement | None) -> tuple[str, ...]:
    """In words: where the peer has this side send with less cover than its level says."""
    if outbound is None or negotiated.own_padneg is None:
        return ()
    has_jitter = (
        outbound.has_slots or knobs.jitter_ms == OFF or _understood(negotiated).jitter
    )  # no matter of ``padneg``
    return concessions(wished(negotiated.own_padneg), outbound) + (() if has_jitter else ("no jitter",))


def _schedule(
    knobs: Knobs, agreed: Agreement, understood: Understood, rng: random.Random, may_spend: MaySpend
) -> Schedule:
    if agreed.has_slots:
        is_constant = agreed.slot_ms[0] == agreed.slot_ms[1]
        return Slots(agreed.slot_size, agreed.slot_mean_s, rng, may_spend, is_constant=is_constant)
    pace = Pace(
        jitter_s=_seconds(knobs.jitter_ms) if understood.jitter else NEVER,
        burst=agreed.burst,
        burst_hold_s=_seconds(knobs.burst_hold_ms) if agreed.burst != OFF else NEVER,
        dummy_s=_seconds(agreed.dummy_ms),
        chaff_s=_seconds(agreed.chaff_ms),
        least_record=max(CELL, agreed.record_size[0]),
    )
    return IMMEDIATE if pace == Pace(least_record=pace.least_record) else Gate(pace, rng, may_spend)


def _seconds(pair: Pair) -> Span:
    return pair[0] / 1_000, pair[1] / 1_000


def _spending(budget: Budget, most: int) -> MaySpend:
    """The face's budget and what the peer accepts, which is counted from its first dummy on."""
    if most == UNBOUNDED:
        return budget.may_spend
    own: list[Budget] = []

    def may_spend(cost: int, now: float) -> bool:
        if not own:
            own.append(Budget(most, 0, now))
        if not (most > 0 and own[0].has(cost, now) and budget.may_spend(cost, now)):
            return False
        own[0].may_spend(cost, now)
        return True

    return may_spend


class Cover(Part):
    """Says where a peer asked for less than the own level, and penalises what a peer's own agreement excludes."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs

    def reactions(self) -> Mapping[type[Received], Reaction]:
        return {Breach: self.on_breach}

    def on_breach(self, peer: Peer, breach: Breach, now: float) -> Iterable[Effect]:
        return (Penalise(peer.link, MALFORMED_POINTS, f"breaks its own agreement: {breach.what}"),)

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        outbound, _ = both_directions(peer.negotiated)
        less = _less(self._knobs, peer.negotiated, outbound)
        return (Notify("privacy-reduced", {"peer": peer.link, "what": list(less)}),) if less else ()


def terms(agreed: Agreement | None) -> dict[str, Any] | None:
    """One direction of a link, ready for JSON."""
    if agreed is None:
        return None
    rule = Rule(agreed.rule).name.lower() if agreed.rule in Rule._value2member_map_ else str(agreed.rule)
    return {
        "rule": rule,
        "record_size": list(agreed.record_size),
        "dummy_ms": list(agreed.dummy_ms),
        "chaff_ms": list(agreed.chaff_ms),
        "burst": list(agreed.burst),
        "slot_size": agreed.slot_size if agreed.has_slots else None,
        "slot_ms": list(agreed.slot_ms),
        "most": None if agreed.most == UNBOUNDED else agreed.most,
    }


def peer_terms(knobs: Knobs, peer: Peer) -> dict[str, Any]:
    """What a link is shaped by, both directions, and where the peer asked for less; ready for JSON."""
    outbound, inbound = both_directions(peer.negotiated)
    less = _less(knobs, peer.negotiated, outbound)
    link: LinkId = peer.link
    return {"peer": link, "sends": terms(outbound), "receives": terms(inbound), "conceded": list(less)}
