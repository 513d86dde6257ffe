"""Private broadcast of own transactions: what may be asked for, and what is told of it as it happens (design 9)."""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

import msgspec

from obscura.errors import UserError
from obscura.limits import BROADCAST_STRICT_WAIT_S, BROADCAST_WAIT_S
from obscura.node.face import Face


class Policy(Enum):
    """What to do for an own transaction, and what rather not."""

    PRIVATE = "private"  # stem; without any successor in time it is diffused, and the receipt says `unprotected`
    STRICT = "strict"  # stem or nothing: never diffused by this node, expires instead
    ANONYMITY_ONLY = "anonymity-only"  # as strict, and the first hop is a Tor or I2P link
    DIRECT = "direct"  # diffused at once: whoever watches this node sees where it comes from

    @classmethod
    def of(cls, policy: str | Policy) -> Policy:
        """By its name. Raises ``UserError``."""
        try:
            return cls(policy)
        except ValueError:
            raise UserError(f"policy {policy!r}: one of {', '.join(known.value for known in cls)}") from None

    @property
    def never_diffuses(self) -> bool:
        """Whether this node may not be the one that makes it public."""
        return self in (Policy.STRICT, Policy.ANONYMITY_ONLY)

    @property
    def wait_s(self) -> float:
        """Seconds until the deadline where the caller names none."""
        return BROADCAST_STRICT_WAIT_S if self.never_diffuses else BROADCAST_WAIT_S


class Stage(Enum):
    """How far an own transaction got."""

    QUEUED = "queued"
    STEMMED = "stemmed"
    RESTEMMED = "re-stemmed"
    DIFFUSED = "diffused"
    SEEN = "seen"  # `peers` peers have it: they announced it, or fetched it here
    UNPROTECTED = "unprotected"  # diffused by us because there was no successor until the deadline
    EXPIRED = "expired"


class Receipt(msgspec.Struct, frozen=True):
    """One step of one own transaction. For whoever submitted it alone: never published, logged or counted.

    ``final`` = nothing follows. ``first_hop_can_know`` = nobody's transactions come in over clearnet, through which it
    left, so that the first hop can tell that this one is ours.
    """

    id: bytes
    stage: Stage
    final: bool = False
    peers: int = 0
    first_hop_can_know: bool = False
    reason: str = ""

    def describe(self) -> dict[str, Any]:
        """Ready for JSON. The id is in the order in which people write it, reversed."""
        told: dict[str, Any] = {"id": self.id[::-1].hex(), "stage": self.stage.value, "final": self.final}
        if self.stage is Stage.SEEN:
            told["peers"] = self.peers
        if self.first_hop_can_know:
            told["first_hop_can_know"] = True
        if self.reason:
            told["reason"] = self.reason
        return told


class Submission(msgspec.Struct, frozen=True):
    """An own transaction as it is kept over a restart until others have it.

    ``is_public`` = this node has diffused it: it is told of again after a restart, and does not go through a stem phase, which
    nobody relays any more. ``face`` = where it became public first, as far as that followed from how it left; elsewhere it would
    come from us alone. None in files from before it was kept.
    """

    id: bytes
    raw: bytes
    policy: Policy
    wait_s: float
    is_public: bool = False
    face: Face | None = None


class Outbox(Protocol):
    """Where own transactions outlive the process while nobody else can bring them back: readable by the owner alone."""

    def keep(self, submission: Submission) -> None:
        """Returns once it is on the disk, in place of what was kept under its id."""

    def forget(self, id: bytes) -> None:
        """Others have it, or it is given up. Unknown ids are fine."""

    def kept(self) -> list[Submission]:
        """What an earlier run left."""


class NoOutbox:
    """For nodes that live no longer than their process."""

    def keep(self, submission: Submission) -> None:
        pass

    def forget(self, id: bytes) -> None:
        pass

    def kept(self) -> list[Submission]:
        return []
