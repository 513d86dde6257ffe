"""Which inbound link makes room for a new one: a choice whose outcome an attacker cannot buy with one resource alone.

The sets and their sizes are those of Bitcoin Core (``node/eviction.cpp``): to push out every honest peer one would have to have
addresses in keyed groups, be near, bring transactions and blocks first, and stay long, all at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import inf

import msgspec

from obscura.limits import PROTECTED_BLOCKS, PROTECTED_GROUPS, PROTECTED_PINGS, PROTECTED_TRANSACTIONS
from obscura.node.effects import LinkId
from obscura.node.face import Face


class Candidate(msgspec.Struct, frozen=True):
    """An inbound link that could go. Times are monotonic seconds; ``-inf`` = never."""

    link: LinkId
    face: Face
    group: bytes
    since: float
    best_ping_s: float = inf
    last_block: float = -inf
    last_transaction: float = -inf
    is_discouraged: bool = False


def victim(candidates: Sequence[Candidate], key: bytes) -> Candidate | None:
    """The link to end, or None if all deserve to stay. ``key`` is this node's secret: no one knows the protected groups."""
    left = list(candidates)
    ranked = {group: blake2b(group, key=key, digest_size=8).digest() for group in {c.group for c in left}}
    kept = sorted(ranked, key=lambda group: ranked[group])[:PROTECTED_GROUPS]
    for group in kept:
        left.remove(min((c for c in left if c.group == group), key=lambda c: c.since))
    left = _without_best(left, PROTECTED_PINGS, lambda c: -c.best_ping_s)
    left = _without_best(left, PROTECTED_TRANSACTIONS, lambda c: c.last_transaction)
    left = _without_best(left, PROTECTED_BLOCKS, lambda c: c.last_block)
    left = _without_oldest_half(left)
    bad = [c for c in candidates if c.is_discouraged]
    if bad:
        left = bad  # evicted first, whatever else they have
    if not left:
        return None
    crowd = Counter(c.group for c in left)
    youngest = {c.group: max(other.since for other in left if other.group == c.group) for c in left}
    worst = max(crowd, key=lambda group: (crowd[group], youngest[group]))
    return max((c for c in left if c.group == worst), key=lambda c: (c.since, c.link))


def _without_best(candidates: list[Candidate], count: int, merit: Callable[[Candidate], float]) -> list[Candidate]:
    """Those with a merit at all, best first, are taken out."""
    best = sorted((c for c in candidates if merit(c) != -inf), key=merit, reverse=True)[:count]
    saved = {c.link for c in best}
    return [c for c in candidates if c.link not in saved]


def _without_oldest_half(candidates: list[Candidate]) -> list[Candidate]:
    """The half that is here longest stays; up to half of those places go to anonymity networks, whose pings never win."""
    half = len(candidates) // 2
    by_age = sorted(candidates, key=lambda c: c.since)
    anonymous = [c for c in by_age if c.face is not Face.CLEARNET][: half // 2]
    saved = {c.link for c in anonymous}
    saved |= {c.link for c in [c for c in by_age if c.link not in saved][: half - len(saved)]}
    return [c for c in candidates if c.link not in saved]
