"""Privacy levels as values (design 7, the level table), and what they say in ``padneg``."""

from __future__ import annotations

from enum import Enum

import msgspec

from obscura.limits import CELL, MAX_RECORD, MIN_RECORD
from obscura.shaping.padding import Rule
from obscura.wire.messages.privacy import PadNeg, ShapingTerms

UNBOUNDED = 0xFFFFFFFF  # cover bytes per second that are accepted: any
OFF = (0, 0)


class PrivacyLevel(Enum):
    """How much a user pays for not being seen."""

    STANDARD = "standard"
    MEDIUM = "medium"
    HIGH = "high"
    CUSTOM = "custom"


class Knobs(msgspec.Struct, frozen=True):
    """What a level sets on each link. Later layers add theirs; every one has a value at every level."""

    rule: Rule = Rule.CELLS


LEVELS: dict[PrivacyLevel, Knobs] = {
    PrivacyLevel.STANDARD: Knobs(),
    PrivacyLevel.MEDIUM: Knobs(),
    PrivacyLevel.HIGH: Knobs(),
    PrivacyLevel.CUSTOM: Knobs(),
}


def padneg(knobs: Knobs) -> PadNeg:
    """What this node proposes and accepts. The values are the level's own, so that they tell no users apart."""
    send = _terms((knobs.rule,), (MIN_RECORD, MAX_RECORD))
    accept = _terms(tuple(Rule), (MIN_RECORD, MAX_RECORD))
    return PadNeg(send, accept, UNBOUNDED)


def agreed_rule(send: ShapingTerms, accept: ShapingTerms) -> Rule:
    """The rule of one direction: the sender's first that the receiver accepts, else the sender's first that exists."""
    known = [rule for rule in send.rules if rule in Rule._value2member_map_]
    wished = [rule for rule in known if rule in accept.rules]
    return Rule((wished or known or [Rule.CELLS])[0])


def _terms(rules: tuple[int, ...], record_size: tuple[int, int]) -> ShapingTerms:
    return ShapingTerms(
        rules=rules,
        record_size=record_size,
        dummy_ms=OFF,
        burst=OFF,
        chaff_ms=OFF,
        slot_size=CELL,
        slot_ms=OFF,
    )
