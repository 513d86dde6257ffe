"""What strangers may cost before they have proved anything (design 6, *Before authentication*).

Key agreements are limited in all and per network group. Inbound connections that hold no slot (not established yet, or
ended and discarding) are limited in number, and a newcomer beyond that replaces the oldest of the group that holds
most. Loopback, onion and I2P have no group to be limited by.

Each face has bounds of its own: else who uses one face's up would see at another one, by what is refused or dropped there, that
both are one node's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

import msgspec
from msgspec import Meta

from obscura import limits
from obscura.node.effects import LinkId
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.ratelimit import TokenBucket
from obscura.wire.address import Endpoint, Network


class AdmissionLimits(msgspec.Struct, frozen=True, rename="kebab"):
    """The section ``admission`` of the configuration; the defaults are the design's."""

    trials_per_s: Annotated[float, Meta(gt=0, description="key agreements per second for strangers in all")] = (
        limits.TRIALS_PER_S
    )
    trials_per_group_per_s: Annotated[float, Meta(gt=0, description="the same per network group, clearnet only")] = (
        limits.TRIALS_PER_GROUP_PER_S
    )
    trials_per_group_burst: Annotated[float, Meta(gt=0, description="how many of them a group may save up")] = (
        limits.TRIALS_PER_GROUP_BURST
    )
    max_unauthenticated: Annotated[int, Meta(ge=1, description="connections that have proved nothing yet")] = (
        limits.MAX_UNAUTHENTICATED
    )


_PREFIXES = Grouping()


def group_of(endpoint: Endpoint | None, grouping: Grouping = _PREFIXES) -> bytes | None:
    """The network group of an address: /16 of IPv4, /32 of IPv6; None where there is none to blame (loopback, onion, I2P)."""
    if endpoint is None or endpoint.is_loopback:
        return None
    return grouping.of(endpoint) if endpoint.network in (Network.IPV4, Network.IPV6) else None


class Admission:
    """One per node. ``loopback_is_free``: network dev, where loopback has no limit at all (design 6)."""

    def __init__(
        self, bounds: AdmissionLimits, *, loopback_is_free: bool, now: float, grouping: Grouping = _PREFIXES
    ) -> None:
        self._bounds = bounds
        self._grouping = grouping
        self._loopback_is_free = loopback_is_free
        self._total = TokenBucket(bounds.trials_per_s, bounds.trials_per_s, now)
        self._groups: OrderedDict[bytes, TokenBucket] = OrderedDict()
        self._strangers: OrderedDict[LinkId, bytes] = OrderedDict()
        self._held: dict[bytes, int] = {}

    def may_try(self, endpoint: Endpoint | None, now: float) -> bool:
        """Whether a key agreement may be spent on this stranger now."""
        if self._loopback_is_free and endpoint is not None and endpoint.is_loopback:
            return True
        group = group_of(endpoint, self._grouping)
        if group is not None and not self._bucket(group, now).take(1.0, now):
            return False
        return self._total.take(1.0, now)

    def admit(self, link: LinkId, endpoint: Endpoint | None) -> LinkId | None:
        """Count a connection; the link to drop in its favour, or None while there is room. One that counts already stays."""
        if link in self._strangers:
            return None
        group = group_of(endpoint, self._grouping) or b"-"
        victim = self._victim() if len(self._strangers) >= self._bounds.max_unauthenticated else None
        if victim is not None:
            self.release(victim)
        self._strangers[link] = group
        self._held[group] = self._held.get(group, 0) + 1
        return victim

    def release(self, link: LinkId) -> None:
        """The connection has a slot now, or is gone. Unknown links are ignored."""
        group = self._strangers.pop(link, None)
        if group is not None:
            self._held[group] -= 1
            if not self._held[group]:
                del self._held[group]

    @property
    def strangers(self) -> int:
        """Inbound connections without a slot, right now."""
        return len(self._strangers)

    def _victim(self) -> LinkId:
        most = max(self._held.values())
        crowded = {group for group, held in self._held.items() if held == most}
        return next(link for link, group in self._strangers.items() if group in crowded)

    def _bucket(self, group: bytes, now: float) -> TokenBucket:
        bucket = self._groups.pop(group, None)
        if bucket is None:
            while self._groups and (
                len(self._groups) >= limits.TRIAL_GROUPS or next(iter(self._groups.values())).is_full(now)
            ):
                self._groups.popitem(last=False)  # a full bucket is worth nothing: no memory for groups long quiet
            bucket = TokenBucket(self._bounds.trials_per_group_per_s, self._bounds.trials_per_group_burst, now)
        self._groups[group] = bucket
        return bucket


class Admissions:
    """The ``Admission`` of each face, made when the first stranger comes through it."""

    def __init__(self, bounds: AdmissionLimits, *, loopback_is_free: bool, now: float, grouping: Grouping) -> None:
        self._bounds = bounds
        self._grouping = grouping
        self._loopback_is_free = loopback_is_free
        self._now = now
        self._faces: dict[Face, Admission] = {}

    def of(self, face: Face) -> Admission:
        """What counts the strangers of one face."""
        admission = self._faces.get(face)
        if admission is None:
            free, grouping = self._loopback_is_free, self._grouping
            admission = Admission(self._bounds, loopback_is_free=free, now=self._now, grouping=grouping)
            self._faces[face] = admission
        return admission
