"""The privacy levels as values (design 7, the level table), what they say in ``padneg``, and where each value comes from."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from obscura.errors import ConfigError
from obscura.limits import CELL, MAX_HOLD_MS, MAX_RECORD, MIN_RECORD, NEGOTIABLE_BURST, NEGOTIABLE_COVER_MS
from obscura.limits import NEGOTIABLE_RECORD_LOW as RECORD_LOW
from obscura.limits import NEGOTIABLE_SLOT_MS as SLOT_MS
from obscura.shaping.agreement import OFF, UNBOUNDED, Pair
from obscura.shaping.padding import Rule
from obscura.wire.messages.privacy import PadNeg, ShapingTerms

ALL_CARRIERS = ("plain", "tls", "http", "ssh", "dns")


class PrivacyLevel(Enum):
    """How much a user pays for not being seen."""

    STANDARD = "standard"
    MEDIUM = "medium"
    HIGH = "high"
    CUSTOM = "custom"


class Knobs(msgspec.Struct, frozen=True):
    """What a level sets. Pairs are (low, high), (0, 0) = off. The defaults are those of the level medium.

    ``slot_ms`` with equal ends is a constant rate, else a Poisson process of the mean of both. ``carriers``: for clearnet
    addresses other than loopback.
    """

    rule: Annotated[Rule, Meta(description="how record sizes are chosen")] = Rule.CELLS
    least_record: Annotated[int, Meta(description="bytes of the smallest record")] = CELL
    dummy_ms: Annotated[Pair, Meta(description="ms between two dummies")] = (5_000, 30_000)
    chaff_ms: Annotated[Pair, Meta(description="ms between two records of chaff")] = (15_000, 120_000)
    jitter_ms: Annotated[Pair, Meta(description="ms that a message may be delayed")] = (0, 100)
    burst: Annotated[Pair, Meta(description="messages that leave together")] = (2, 8)
    burst_hold_ms: Annotated[Pair, Meta(description="ms that a burst is waited for, once and again")] = (50, 80)
    slot_size: Annotated[int, Meta(description="bytes of the one record of a slot")] = CELL
    slot_ms: Annotated[Pair, Meta(description="ms between two slots; equal ends = constant, else Poisson")] = OFF
    most: Annotated[int, Meta(description="cover bytes per second that each peer may send")] = UNBOUNDED
    cover_bytes_per_s: Annotated[int, Meta(description="cover bytes per second on all links; 0 = no bound")] = 0
    cover_bytes_per_day: Annotated[int, Meta(description="cover bytes per day on all links; 0 = no bound")] = 0
    refuses_less: Annotated[bool, Meta(description="end links whose peer asks for less than this")] = False
    fluff_probability: Annotated[float, Meta(description="chance of an edge's epoch to diffuse what is stemmed")] = 0.1
    carriers: Annotated[tuple[str, ...], Meta(description="carriers used for clearnet addresses")] = ALL_CARRIERS[1:]
    anonymous_first_hop: Annotated[bool, Meta(description="own transactions leave over Tor or I2P if there is one")] = (
        False
    )
    waits_for_epoch: Annotated[bool, Meta(description="own transactions wait for the next epoch")] = False
    is_rounded: Annotated[bool, Meta(description="what peers are told is rounded to powers of two")] = False

    @property
    def mean_hold_s(self) -> float:
        """Seconds that a message of a quiet link waits on average before it leaves."""
        wait_ms = sum(self.slot_ms) if self.slot_ms != OFF else sum(self.jitter_ms) + sum(self.burst_hold_ms)
        return wait_ms / 2_000


LEVELS: dict[PrivacyLevel, Knobs] = {
    PrivacyLevel.STANDARD: Knobs(
        dummy_ms=OFF,
        chaff_ms=OFF,
        jitter_ms=(0, 20),
        burst=OFF,
        burst_hold_ms=OFF,
        fluff_probability=0.2,
        carriers=ALL_CARRIERS,
    ),
    PrivacyLevel.MEDIUM: Knobs(),
    PrivacyLevel.HIGH: Knobs(
        jitter_ms=OFF,
        burst=OFF,
        burst_hold_ms=OFF,
        slot_ms=(0, 500),
        refuses_less=True,
        fluff_probability=0.05,
        carriers=("tls", "ssh"),
        anonymous_first_hop=True,
        waits_for_epoch=True,
    ),
    PrivacyLevel.CUSTOM: Knobs(is_rounded=True),
}
CONSTANT_SLOT_MS = (250, 250)  # the level high, on request
RULES = {rule.name.lower(): rule for rule in Rule}

Span = tuple[int, ...]  # two numbers; a configuration's lists have any length until they are checked


class CustomKnobs(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Configuration of the level custom. What is not set is as at the level medium."""

    rule: Annotated[Literal["cells", "uniform", "none"] | None, Meta(description="how record sizes are chosen")] = None
    least_record: Annotated[
        Annotated[int, Meta(ge=CELL, le=RECORD_LOW[1])] | None,
        Meta(description="bytes of the smallest record: what fits in it looks alike"),
    ] = None
    dummy_ms: Annotated[Span | None, Meta(description="ms between two dummies: [low, high], [0, 0] = off")] = None
    chaff_ms: Annotated[Span | None, Meta(description="ms between two records of chaff, likewise")] = None
    jitter_ms: Annotated[Span | None, Meta(description="ms that a message may be delayed, likewise")] = None
    burst: Annotated[Span | None, Meta(description="messages that leave together, likewise")] = None
    burst_hold_ms: Annotated[
        Span | None, Meta(description="ms that a burst is waited for, once and again; likewise")
    ] = None
    slot_size: Annotated[
        Annotated[int, Meta(ge=MIN_RECORD, le=MAX_RECORD)] | None, Meta(description="bytes of the record of a slot")
    ] = None
    slot_ms: Annotated[
        Span | None, Meta(description="ms between two slots: equal = constant, else Poisson; [0, 0] = off")
    ] = None
    most: Annotated[
        Annotated[int, Meta(ge=0, le=UNBOUNDED)] | None,
        Meta(description="cover bytes per second that each peer may send"),
    ] = None
    cover_bytes_per_s: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="cover bytes per second on all links; 0 = no bound")
    ] = None
    cover_bytes_per_day: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="cover bytes per day on all links; 0 = no bound")
    ] = None
    refuses_less: Annotated[bool | None, Meta(description="end links whose peer asks for less")] = None
    fluff_probability: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None, Meta(description="chance to diffuse what is stemmed")
    ] = None
    carriers: Annotated[
        tuple[Literal["plain", "tls", "http", "ssh", "dns"], ...] | None,
        Meta(description="carriers used for clearnet addresses"),
    ] = None
    anonymous_first_hop: Annotated[
        bool | None, Meta(description="own transactions leave over Tor or I2P if there is one")
    ] = None
    waits_for_epoch: Annotated[bool | None, Meta(description="own transactions wait for the next epoch")] = None

    def given(self) -> dict[str, Any]:
        """The values that are set, as fields of ``Knobs``. Raises ``ConfigError``."""
        values = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        for name, bounds in _PAIRS.items():
            if name in values:
                values[name] = _checked(name, values[name], bounds)
        if "rule" in values:
            values["rule"] = RULES[values["rule"]]
        return values


_HOLD: Pair = (0, MAX_HOLD_MS // 3)  # jitter and twice the burst's hold add up
_PAIRS: dict[str, Pair] = {
    "dummy_ms": NEGOTIABLE_COVER_MS,
    "chaff_ms": NEGOTIABLE_COVER_MS,
    "jitter_ms": _HOLD,
    "burst": NEGOTIABLE_BURST,
    "burst_hold_ms": _HOLD,
    "slot_ms": (0, 2 * SLOT_MS[1]),
}


def _checked(name: str, value: Span, bounds: Pair) -> Pair:
    low, high = bounds
    is_pair = len(value) == 2 and value[0] <= value[1]
    if is_pair and (value == OFF or low <= value[0] <= value[1] <= high):
        if name != "slot_ms" or value == OFF or 2 * SLOT_MS[0] <= sum(value) <= 2 * SLOT_MS[1]:
            return value[0], value[1]
        raise ConfigError(
            f"privacy-custom.slot-ms is {list(value)}: slots are {SLOT_MS[0]} to {SLOT_MS[1]} ms apart in the mean"
        )
    key = name.replace("_", "-")
    raise ConfigError(
        f"privacy-custom.{key} is {list(value)}, but [low, high] between {low} and {high} is expected, or [0, 0] for off"
    )


def knobs_of(level: PrivacyLevel, custom: CustomKnobs | None = None, *, constant_slots: bool = False) -> Knobs:
    """The values of a level. Raises ``ConfigError`` if ``custom`` or ``constant_slots`` say something to another level."""
    given = custom.given() if custom is not None else {}
    if level is PrivacyLevel.CUSTOM:
        return msgspec.structs.replace(LEVELS[level], **given)
    if given:
        key = next(iter(given)).replace("_", "-")
        raise ConfigError(
            f'privacy-custom.{key} is set, but privacy is "{level.value}": set privacy = "custom", or leave the section out'
        )
    if constant_slots and level is not PrivacyLevel.HIGH:
        raise ConfigError(f'constant-slots is set, but privacy is "{level.value}": only the level high sends in slots')
    return msgspec.structs.replace(LEVELS[level], slot_ms=CONSTANT_SLOT_MS) if constant_slots else LEVELS[level]


def explained(
    level: PrivacyLevel,
    custom: CustomKnobs | None = None,
    *,
    constant_slots: bool = False,
    origins: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Every knob with its value and source, ready for JSON. ``origins``: where each key of the configuration came from."""
    knobs = knobs_of(level, custom, constant_slots=constant_slots)
    given = set(custom.given()) if custom is not None else set()
    where = origins or {}
    rows = []
    for field in msgspec.structs.fields(Knobs):
        name = field.encode_name
        key = name.replace("_", "-")
        source = f"level {level.value}"
        if name in given:
            source = where.get(f"privacy-custom.{key}", f"privacy-custom.{key}")
        elif level is PrivacyLevel.CUSTOM:
            source = "level custom, as medium" if getattr(knobs, name) == getattr(Knobs(), name) else "level custom"
        elif constant_slots and name == "slot_ms":
            source = where.get("constant-slots", "constant-slots")
        value = getattr(knobs, name)
        rows.append({"knob": key, "value": shown(name, value), "source": source, "meaning": _meaning(field)})
    return rows


def shown(name: str, value: Any) -> Any:
    """A knob's value as JSON: pairs as lists, off as "off", rules by name, no bound as None."""
    if isinstance(value, Rule):
        return value.name.lower()
    if isinstance(value, tuple):
        return "off" if value == OFF else list(value)
    if (name == "most" and value == UNBOUNDED) or (name.startswith("cover_") and not value):
        return None
    return value


def _meaning(field: msgspec.structs.FieldInfo) -> str:
    return next((meta.description or "" for meta in getattr(field.type, "__metadata__", ())), "")


@lru_cache(maxsize=8)  # one for all links
def padneg(knobs: Knobs) -> PadNeg:
    """What this node proposes and accepts. The values are the level's own, so that they tell no users apart.

    It accepts whatever a peer wants to send: how well a peer hides what it says is the peer's own matter.
    """
    rounded = _power_of_two if knobs.is_rounded else _same
    least = rounded(knobs.least_record) if knobs.rule is Rule.CELLS else MIN_RECORD
    send = ShapingTerms(
        rules=(knobs.rule,),
        record_size=(least, MAX_RECORD),
        dummy_ms=_both(rounded, knobs.dummy_ms),
        burst=_both(rounded, knobs.burst),
        chaff_ms=_both(rounded, knobs.chaff_ms),
        slot_size=rounded(knobs.slot_size),
        slot_ms=_both(rounded, knobs.slot_ms),
    )
    return PadNeg(send, ACCEPT, knobs.most if knobs.most == UNBOUNDED else rounded(knobs.most))


ACCEPT = ShapingTerms(
    rules=(Rule.CELLS, Rule.UNIFORM, Rule.NONE),
    record_size=(MIN_RECORD, MAX_RECORD),
    dummy_ms=NEGOTIABLE_COVER_MS,
    burst=NEGOTIABLE_BURST,
    chaff_ms=NEGOTIABLE_COVER_MS,
    slot_size=MAX_RECORD,
    slot_ms=(0, 2 * SLOT_MS[1]),
)


def _both(rounded: Any, pair: Pair) -> Pair:
    return rounded(pair[0]), rounded(pair[1])


def _same(value: int) -> int:
    return value


def _power_of_two(value: int) -> int:
    """The nearest power of two on a logarithmic scale; 0 stays."""
    if value < 2:
        return value
    below = 1 << (value.bit_length() - 1)
    return below * 2 if value * value > 2 * below * below else below
