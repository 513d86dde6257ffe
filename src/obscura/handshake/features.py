"""The two flag words: which bit means what, its class, and what two nodes get out of it.

Specification, *Feature Negotiation* and *Protocol Extensions*; design 5. One table serves the wire, the required masks, the
command line and the documentation.
"""

from __future__ import annotations

from enum import Enum, IntFlag
from typing import NamedTuple

import msgspec

from obscura.errors import ConfigError


class Feature(IntFlag):
    """General features, the first 32-bit word."""

    BasicTransactions = 0x01
    PrivacyFeatures = 0x02
    Dandelion = 0x04
    CompactBlocks = 0x08
    TorSupport = 0x10
    I2PSupport = 0x20


class Privacy(IntFlag):
    """Privacy features, the second 32-bit word. Counts as 0 unless both nodes have ``Feature.PrivacyFeatures``."""

    TransactionObfuscation = 0x01
    StealthAddressing = 0x02
    ConfidentialTransactions = 0x04
    ZeroKnowledgeProofs = 0x08
    DandelionPlusPlus = 0x10
    Tor = 0x20
    I2P = 0x40
    Padding = 0x80
    Dummies = 0x100
    TimingJitter = 0x200
    BurstMode = 0x400
    TrafficNormalisation = 0x800
    ProtocolMorphing = 0x1000
    SecureChannel = 0x2000


class FeatureClass(Enum):
    """Specification, Protocol Extensions 1-3."""

    CORE = "core"  # every node has it; a peer without it is refused
    OPTIONAL = "optional"  # on where both have it
    EXPERIMENTAL = "experimental"  # bits 24-31 of either word; off unless configured


class FeatureRow(NamedTuple):
    """One row of the table: ``built`` says whether this software sets the bit at all (a bit is set only once it is built)."""

    flag: Feature | Privacy
    kind: FeatureClass
    built: bool
    anonymity_only: bool
    meaning: str


_C, _O = FeatureClass.CORE, FeatureClass.OPTIONAL
TABLE: tuple[FeatureRow, ...] = (
    FeatureRow(Feature.BasicTransactions, _C, True, False, "blocks, transactions and their announcement"),
    FeatureRow(Feature.PrivacyFeatures, _C, True, False, "the privacy word counts"),
    FeatureRow(Feature.Dandelion, _O, True, False, "stem relay, together with DandelionPlusPlus"),
    FeatureRow(Feature.CompactBlocks, _O, True, False, "compact block relay (BIP152)"),
    FeatureRow(Feature.TorSupport, _O, True, True, "understands onion addresses"),
    FeatureRow(Feature.I2PSupport, _O, True, True, "understands I2P addresses"),
    FeatureRow(Privacy.TransactionObfuscation, _O, False, False, "a matter of the ledger"),
    FeatureRow(Privacy.StealthAddressing, _O, False, False, "a matter of the ledger"),
    FeatureRow(Privacy.ConfidentialTransactions, _O, False, False, "a matter of the ledger"),
    FeatureRow(Privacy.ZeroKnowledgeProofs, _O, False, False, "a matter of the ledger"),
    FeatureRow(Privacy.DandelionPlusPlus, _O, True, False, "relays transactions in the stem phase"),
    FeatureRow(Privacy.Tor, _O, True, True, "understands onion addresses"),
    FeatureRow(Privacy.I2P, _O, True, True, "understands I2P addresses"),
    FeatureRow(Privacy.Padding, _C, True, False, "padded records, negotiated by padneg"),
    FeatureRow(Privacy.Dummies, _O, True, False, "sends dummy records"),
    FeatureRow(Privacy.TimingJitter, _O, True, False, "delays messages at random"),
    FeatureRow(Privacy.BurstMode, _O, True, False, "sends real messages in random bursts"),
    FeatureRow(Privacy.TrafficNormalisation, _O, True, False, "sends in slots only"),
    FeatureRow(Privacy.ProtocolMorphing, _O, True, False, "has carriers beside plain"),
    FeatureRow(Privacy.SecureChannel, _C, True, False, "encrypted and authenticated links"),
)

EXPERIMENTAL_BITS = 0xFF000000
_BITS = frozenset(map(str, range(32)))


class Flags(msgspec.Struct, frozen=True):
    """Both words as they travel in ``version``."""

    features: int = 0
    privacy: int = 0

    def both(self, other: Flags) -> Flags:
        """What is on between two nodes: a bit only if both have it; the privacy word only if both have PrivacyFeatures."""
        features = self.features & other.features
        privacy = self.privacy & other.privacy if features & Feature.PrivacyFeatures else 0
        return Flags(features, privacy)

    def with_(self, other: Flags) -> Flags:
        """The union of two sets."""
        return Flags(self.features | other.features, self.privacy | other.privacy)

    def lacks(self, wanted: Flags) -> Flags:
        """The bits of ``wanted`` that are not here."""
        return Flags(wanted.features & ~self.features, wanted.privacy & ~self.privacy)

    def has(self, *flags: Feature | Privacy) -> bool:
        """Whether every one of ``flags`` is set."""
        return all((self.features if isinstance(flag, Feature) else self.privacy) & flag for flag in flags)

    def __bool__(self) -> bool:
        return bool(self.features or self.privacy)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the set bits, in the table's order; unnamed bits as ``feature-bit-N`` and ``privacy-bit-N``."""
        named = [row.flag.name or "" for row in TABLE if self.has(row.flag)]
        for word, known, label in ((self.features, Feature, "feature"), (self.privacy, Privacy, "privacy")):
            rest = word & ~sum(known)
            named += [f"{label}-bit-{bit}" for bit in range(32) if rest >> bit & 1]
        return tuple(named)


def _of(rows: list[FeatureRow]) -> Flags:
    return Flags(
        sum(row.flag for row in rows if isinstance(row.flag, Feature)),
        sum(row.flag for row in rows if isinstance(row.flag, Privacy)),
    )


CORE = _of([row for row in TABLE if row.kind is FeatureClass.CORE])
_SEALED = Privacy.SecureChannel | Privacy.Padding  # need records
BUILT = _of([row for row in TABLE if row.built and not row.anonymity_only])
CORE_BARE = Flags(CORE.features, CORE.privacy & ~_SEALED)  # what a bare link can have
BUILT_BARE = Flags(BUILT.features, BUILT.privacy & ~_SEALED)
BUILT_ANONYMOUS = _of([row for row in TABLE if row.built])  # shown on links of an anonymity network only


def named(names: tuple[str, ...] | list[str], key: str) -> Flags:
    """The flags of a list of names from configuration, such as ``["DandelionPlusPlus", "feature-bit-24"]``.

    Raises ``ConfigError``, which begins with the ``key`` that holds them.
    """
    by_name = {str(row.flag.name).lower(): row.flag for row in TABLE}
    features = privacy = 0
    for name in names:
        flag = by_name.get(name.lower())
        word, _, bit = name.lower().rpartition("-bit-")
        if isinstance(flag, Feature):
            features |= flag
        elif isinstance(flag, Privacy):
            privacy |= flag
        elif word in ("feature", "privacy") and bit in _BITS:
            features |= 1 << int(bit) if word == "feature" else 0
            privacy |= 1 << int(bit) if word == "privacy" else 0
        else:
            raise ConfigError(f"{key}: there is no feature {name!r}; `obscura features` lists them")
    return Flags(features, privacy)


def experimental(names: tuple[str, ...] | list[str]) -> Flags:
    """``named`` for features to switch on by hand. Raises ``ConfigError`` for one of another class: its bit would be a lie."""
    flags = named(names, "experimental")
    others = Flags(flags.features & ~EXPERIMENTAL_BITS, flags.privacy & ~EXPERIMENTAL_BITS)
    if others:
        raise ConfigError(
            f"experimental: {', '.join(others.names)} cannot be switched on by hand; "
            "bits 24 to 31 of either word can, such as feature-bit-24"
        )
    return flags


def describe() -> list[dict[str, object]]:
    """The table, ready for JSON."""
    return [
        {
            "name": row.flag.name,
            "word": "features" if isinstance(row.flag, Feature) else "privacy",
            "bit": f"0x{row.flag.value:x}",
            "class": row.kind.value,
            "offered": row.built and not row.anonymity_only,
            "meaning": row.meaning,
        }
        for row in TABLE
    ]
