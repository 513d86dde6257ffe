"""Handshake and negotiation: both sequences of the specification, and everything that is not in the table.

The attacker here has a channel: it sends any message at any time, claims any version, flags and clock.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import ConfigError, Refused, Violation
from obscura.handshake import features
from obscura.handshake.features import (
    BUILT,
    BUILT_ANONYMOUS,
    BUILT_BARE,
    CORE,
    CORE_BARE,
    EXPERIMENTAL_BITS,
    TABLE,
    Feature,
    FeatureClass,
    Flags,
    Privacy,
    named,
)
from obscura.handshake.machine import TRANSITIONS, Handshake, State, Then, diagram
from obscura.limits import COARSE_TIMESTAMP_S, MAX_CLOCK_SKEW_S
from obscura.node.assembly import Settings, assemble
from obscura.node.face import Face
from obscura.wire.address import Endpoint
from obscura.wire.catalogue import BUILT_IN
from obscura.wire.message import Message
from obscura.wire.messages.blocks import SendCmpct
from obscura.wire.messages.network import Extension, Verack, Version
from obscura.wire.messages.privacy import PadNeg
from playbook import EXAMPLES, OWN_PADNEG, offer, version

DOCS = Path(__file__).parents[1] / "docs"
COMPACT = Flags(features=Feature.CompactBlocks)


def in_state(state: State, *, initiator: bool, flags: Flags = BUILT) -> Handshake:
    """A handshake that waits for what ``state`` says."""
    handshake = Handshake(offer(flags=flags), initiator=initiator)
    handshake.start()
    if state in (State.SETTLING, State.VERACK, State.ESTABLISHED):
        handshake.receive(version(flags=flags))
    if state in (State.VERACK, State.ESTABLISHED):
        handshake.receive(OWN_PADNEG)
    if state is State.ESTABLISHED:
        handshake.receive(Verack())
    if state is State.RESUMED:
        handshake.state = State.RESUMED
    assert handshake.state is state
    return handshake


# --- Both sequences of the specification ----------------------------------------------------------------------------


def test_outbound_connection() -> None:
    initiator = Handshake(offer(), initiator=True)
    assert initiator.start() == (offer().version,)
    assert initiator.receive(version()) == (OWN_PADNEG,)
    assert initiator.receive(OWN_PADNEG) == (Verack(),)
    assert initiator.negotiated is None
    assert initiator.receive(Verack()) == ()
    assert initiator.negotiated is not None


def test_inbound_connection() -> None:
    responder = Handshake(offer(), initiator=False)
    assert responder.start() == ()  # waits for the initiator
    assert responder.receive(version()) == (offer().version, OWN_PADNEG)
    assert responder.receive(OWN_PADNEG) == (Verack(),)
    assert responder.negotiated is None
    assert responder.receive(Verack()) == ()
    assert responder.negotiated is not None


@pytest.mark.parametrize("initiator", [True, False])
def test_bare_links_settle_nothing(initiator: bool) -> None:
    handshake = Handshake(offer(flags=BUILT_BARE, bare=True), initiator=initiator)
    started = handshake.start()
    answered = handshake.receive(version(flags=BUILT_BARE))
    own = offer(flags=BUILT_BARE, bare=True).version
    assert started + answered == (own, Verack())
    handshake.receive(Verack())
    negotiated = handshake.negotiated
    assert negotiated is not None
    assert (negotiated.own_padneg, negotiated.peer_padneg) == (None, None)


def test_bare_links_take_no_padding_terms() -> None:
    handshake = Handshake(offer(flags=BUILT_BARE, bare=True), initiator=False)
    handshake.receive(version(flags=BUILT_BARE))
    with pytest.raises(Violation):
        handshake.receive(OWN_PADNEG)


# --- The whole product state x message x role ------------------------------------------------------------------------


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_is_not_in_the_table_is_a_violation(initiator: bool, state: State, kind: type[Message]) -> None:
    resuming_is_impossible = state is State.RESUMED and not initiator
    handshake = Handshake(offer(), initiator=initiator) if resuming_is_impossible else None
    if handshake is None:
        handshake = in_state(state, initiator=initiator, flags=BUILT.with_(COMPACT))
    else:
        handshake.state = state
    step = TRANSITIONS[initiator].get((state, kind))
    message = EXAMPLES[kind]
    if step is None or step.then in (Then.RESUME, Then.CHECK):  # there is no session to resume
        with pytest.raises(Violation):
            handshake.receive(message)
        assert handshake.state is state
        assert state is State.ESTABLISHED or handshake.negotiated is None
        return
    answer = handshake.receive(message)
    assert handshake.state is step.state
    expected: dict[Then, tuple[type[Message], ...]] = {
        Then.GREET: (Version, PadNeg),
        Then.SETTLE: (PadNeg,),
        Then.ACKNOWLEDGE: (Verack,),
        Then.NOTE: (),
    }
    assert tuple(type(each) for each in answer) == expected[step.then]


def test_nothing_follows_the_last_state() -> None:
    for table in TRANSITIONS.values():
        assert not [message for state, message in table if state is State.ESTABLISHED]


@settings(deadline=None, max_examples=150)
@given(data=st.data(), initiator=st.booleans())
def test_any_walk_ends_established_or_in_a_violation_and_says_verack_once(data: st.DataObject, initiator: bool) -> None:
    handshake = Handshake(offer(flags=BUILT.with_(COMPACT)), initiator=initiator)
    sent = list(handshake.start())
    likely = st.sampled_from([Version, PadNeg, SendCmpct, Verack])
    for kind in data.draw(st.lists(likely | st.sampled_from(BUILT_IN), max_size=8)):
        before = handshake.state
        try:
            sent += handshake.receive(EXAMPLES[kind])
        except (Violation, Refused):
            assert handshake.state is before
            break
        assert (handshake.negotiated is not None) == (handshake.state is State.ESTABLISHED)
    kinds = [type(message) for message in sent]
    assert all(kinds.count(kind) <= 1 for kind in (Version, PadNeg, Verack, SendCmpct))
    assert kinds == sorted(kinds, key=[Version, PadNeg, SendCmpct, Verack].index)


# --- sendcmpct -------------------------------------------------------------------------------------------------------


def test_sendcmpct_is_said_once_and_only_if_both_have_it() -> None:
    compact = SendCmpct(True, 2)
    for theirs, said in ((BUILT.with_(COMPACT), True), (_without(BUILT, COMPACT), False)):
        handshake = Handshake(offer(flags=BUILT.with_(COMPACT), compact=compact), initiator=False)
        answer = handshake.receive(version(flags=theirs))
        assert (compact in answer) is said
        if not said:
            with pytest.raises(Violation):
                handshake.receive(compact)
            continue
        handshake.receive(compact)
        with pytest.raises(Violation):
            handshake.receive(compact)
        handshake.receive(OWN_PADNEG)
        handshake.receive(Verack())
        assert handshake.negotiated is not None
        assert handshake.negotiated.peer_compact == compact


# --- Flags -----------------------------------------------------------------------------------------------------------

WORDS = st.integers(0, 0xFFFFFFFF)
FLAGS = st.builds(Flags, WORDS, WORDS)


@settings(deadline=None, max_examples=100)
@given(mine=FLAGS, theirs=FLAGS)
def test_a_feature_is_on_only_if_both_have_it(mine: Flags, theirs: Flags) -> None:
    on = mine.both(theirs)
    assert on == theirs.both(mine)
    assert on.features == mine.features & theirs.features
    privacy_counts = bool(mine.features & theirs.features & Feature.PrivacyFeatures)
    assert on.privacy == (mine.privacy & theirs.privacy if privacy_counts else 0)
    assert not on.lacks(on)
    assert bool(on.lacks(mine)) == (on != mine)


def test_the_table_has_each_bit_once_in_its_class() -> None:
    assert {row.flag for row in TABLE} == {*Feature, *Privacy}
    assert len(TABLE) == len({(type(row.flag), row.flag) for row in TABLE})
    core = {row.flag for row in TABLE if row.kind is FeatureClass.CORE}
    assert core == {
        *(Feature.BasicTransactions, Feature.PrivacyFeatures),
        *(Privacy.Padding, Privacy.SecureChannel),
    }
    for row in TABLE:
        is_experimental = bool(row.flag & EXPERIMENTAL_BITS)
        assert is_experimental == (row.kind is FeatureClass.EXPERIMENTAL), row.flag
        assert not (isinstance(row.flag, Feature) and row.flag & 0xC0), "these two bits belong to nobody"


def test_bits_are_those_of_the_design() -> None:
    general = {"BasicTransactions": 1, "PrivacyFeatures": 2, "Dandelion": 4, "CompactBlocks": 8}
    general |= {"TorSupport": 0x10, "I2PSupport": 0x20}
    privacy = {"TransactionObfuscation": 1, "StealthAddressing": 2, "ConfidentialTransactions": 4}
    privacy |= {"ZeroKnowledgeProofs": 8, "DandelionPlusPlus": 0x10, "Tor": 0x20, "I2P": 0x40, "Padding": 0x80}
    privacy |= {"Dummies": 0x100, "TimingJitter": 0x200, "BurstMode": 0x400, "TrafficNormalisation": 0x800}
    privacy |= {"ProtocolMorphing": 0x1000, "SecureChannel": 0x2000}
    assert {flag.name: flag.value for flag in Feature} == general
    assert {flag.name: flag.value for flag in Privacy} == privacy


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize("missing", [row.flag for row in TABLE if row.kind is FeatureClass.CORE])
def test_a_peer_without_a_core_feature_is_refused(initiator: bool, missing: Feature | Privacy) -> None:
    alone = Flags(missing, 0) if isinstance(missing, Feature) else Flags(0, missing)
    handshake = Handshake(offer(), initiator=initiator)
    with pytest.raises(Refused, match=missing.name or "?"):
        handshake.receive(version(flags=_without(BUILT, alone)))


def _without(flags: Flags, away: Flags) -> Flags:
    return Flags(flags.features & ~away.features, flags.privacy & ~away.privacy)


def test_a_required_mask_drops_who_lacks_it_and_a_bare_link_demands_no_records() -> None:
    wanted = Flags(1 << 24, 1 << 25)
    has_it = BUILT.with_(wanted)
    for theirs in (BUILT, BUILT.with_(Flags(1 << 24, 0)), BUILT.with_(Flags(0, 1 << 25))):
        handshake = Handshake(offer(flags=has_it, demanded=CORE.with_(wanted)), initiator=False)
        with pytest.raises(Refused):
            handshake.receive(version(flags=theirs))
    handshake = Handshake(offer(flags=has_it, demanded=CORE.with_(wanted)), initiator=False)
    handshake.receive(version(flags=has_it))
    sealed = Privacy.Padding | Privacy.SecureChannel
    assert not CORE_BARE.privacy & sealed
    assert not BUILT_BARE.privacy & sealed


def test_only_built_features_are_offered_and_anonymity_ones_only_there() -> None:
    for row in TABLE:
        word = "features" if isinstance(row.flag, Feature) else "privacy"
        assert bool(getattr(BUILT, word) & row.flag) == (row.built and not row.anonymity_only)
        assert bool(getattr(BUILT_ANONYMOUS, word) & row.flag) == row.built
    assert not (BUILT_ANONYMOUS.features | BUILT_ANONYMOUS.privacy) & EXPERIMENTAL_BITS


def test_the_words_that_go_out_are_these() -> None:
    """Bit by bit, as every other node's: a user who offers other ones is known by them."""
    assert (BUILT.features, BUILT.privacy) == (0x0F, 0x3F90)
    assert (BUILT_ANONYMOUS.features, BUILT_ANONYMOUS.privacy) == (0x3F, 0x3FF0)
    assert (BUILT_BARE.features, BUILT_BARE.privacy) == (0x0F, 0x1F10)


def test_names_both_ways() -> None:
    every = [row.flag.name or "" for row in TABLE]
    assert named(every, "key").names == tuple(every)
    assert named(["feature-bit-24", "PRIVACY-BIT-31"], "key") == Flags(1 << 24, 1 << 31)
    assert Flags(1 << 24, 1 << 31).names == ("feature-bit-24", "privacy-bit-31")
    for wrong in ("Dandelions", "feature-bit-32", "privacy-bit-", "feature-bit-²", ""):
        with pytest.raises(ConfigError, match=r"^key: there is no .*`obscura features`"):
            named([wrong], "key")


def test_only_experimental_bits_are_switched_on_by_hand() -> None:
    assert features.experimental(["feature-bit-24", "privacy-bit-31"]) == Flags(1 << 24, 1 << 31)
    for wrong in ("Dandelion", "PrivacyFeatures", "feature-bit-8", "privacy-bit-23"):
        with pytest.raises(ConfigError, match="by hand"):
            features.experimental(["feature-bit-24", wrong])


def test_the_description_has_a_row_for_each_flag() -> None:
    shown = features.describe()
    assert [row["name"] for row in shown] == [row.flag.name for row in TABLE]
    offered = {row["name"] for row in shown if row["offered"]}
    assert offered == set(BUILT.names)


# --- What the peer claims ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initiator", [True, False])
@pytest.mark.parametrize(("theirs", "agreed"), [(1, 1), (2, 1), (0xFFFFFFFF, 1)])
def test_the_lower_version_counts(initiator: bool, theirs: int, agreed: int) -> None:
    handshake = Handshake(offer(), initiator=initiator)
    handshake.receive(version(protocol_version=theirs))
    assert handshake.settled is not None
    assert handshake.settled.version == agreed


@pytest.mark.parametrize("initiator", [True, False])
def test_a_version_below_the_minimum_is_dropped(initiator: bool) -> None:
    with pytest.raises(Refused, match="version 0"):
        Handshake(offer(), initiator=initiator).receive(version(protocol_version=0))


@pytest.mark.parametrize(
    ("offset", "odd"),
    [(0, False), (MAX_CLOCK_SKEW_S, False), (MAX_CLOCK_SKEW_S + 1, True), (-MAX_CLOCK_SKEW_S - 1, True)],
)
def test_a_wrong_clock_is_noted_and_nothing_else(offset: int, odd: bool) -> None:
    handshake = Handshake(offer(), initiator=False)
    own = offer().version.timestamp
    handshake.receive(version(timestamp=own + offset))
    assert handshake.settled is not None
    assert (handshake.settled.clock_offset_s, handshake.settled.is_clock_odd) == (offset, odd)


@pytest.mark.parametrize("timestamp", [0, (1 << 64) - 1])
def test_absurd_clocks_break_nothing(timestamp: int) -> None:
    handshake = Handshake(offer(), initiator=False)
    handshake.receive(version(timestamp=timestamp))
    assert handshake.settled is not None
    assert handshake.settled.is_clock_odd


def test_unknown_extensions_are_ignored_and_kept() -> None:
    strange = version(extensions=(Extension(200, b"x" * 255), Extension(1, b"\x09junk")))
    handshake = Handshake(offer(), initiator=False)
    handshake.receive(strange)
    assert handshake.settled is not None
    assert handshake.settled.peer == strange
    assert handshake.settled.peer.observed is None


# --- What a node says of itself -----------------------------------------------------------------------------------------


def said_on(face: Face, seed: int, unix: int, *, bare: bool = False, remote: Endpoint | None = None) -> Version:
    """The ``version`` that a fresh node would send on a link of this face at this time."""
    assembly = assemble(Settings(network_id=bytes(32)), random.Random(seed), lambda: unix, 0.0)
    return assembly.engine._offer_for(face, remote, bare).version


@pytest.mark.parametrize("face", [Face.ONION, Face.I2P])
@settings(deadline=None, max_examples=25)
@given(unix=st.integers(1_600_000_000, 4_000_000_000))
def test_timestamps_are_coarse_where_links_are_anonymous(face: Face, unix: int) -> None:
    timestamp = said_on(face, 1, unix).timestamp
    assert timestamp % COARSE_TIMESTAMP_S == 0
    assert -COARSE_TIMESTAMP_S // 2 <= timestamp - unix <= 1.5 * COARSE_TIMESTAMP_S
    assert said_on(Face.CLEARNET, 1, unix).timestamp == unix


def test_nothing_in_version_links_two_faces() -> None:
    """Two faces of one node differ from each other as much as two nodes do, and no more."""
    remote = Endpoint.of("203.0.113.9", 19733)
    assembly = assemble(Settings(network_id=bytes(32)), random.Random(7), lambda: 1_700_000_123, 0.0)
    say = assembly.engine._offer_for
    onion = [say(Face.ONION, None, False).version for _ in range(8)]
    i2p = [say(Face.I2P, None, False).version for _ in range(8)]
    clear = say(Face.CLEARNET, remote, False).version
    nonces = {each.nonce for each in (*onion, *i2p, clear)}
    assert len(nonces) == 17, "a nonce was used twice"
    other = said_on(Face.ONION, 99, 1_700_000_140)  # another node at nearly the same time
    for each in (*onion, *i2p):
        assert each.timestamp % COARSE_TIMESTAMP_S == 0  # of a clock of its own
        assert {**_fields(each), "nonce": 0, "timestamp": 0} == {**_fields(other), "nonce": 0, "timestamp": 0}
    assert clear.user_agent == other.user_agent == "Obscura/1.0.0"
    assert clear.observed == remote
    assert not any(each.extensions for each in (*onion, *i2p)), "an anonymous link tells no addresses"


def _fields(message: Version) -> dict[str, object]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def test_the_observed_address_is_told_on_clearnet_links_alone() -> None:
    remote = Endpoint.of("203.0.113.9", 19733)
    assert said_on(Face.ONION, 1, 1_700_000_000, remote=remote).extensions == ()
    assert said_on(Face.CLEARNET, 1, 1_700_000_000, remote=remote).observed == remote


# --- The documentation ---------------------------------------------------------------------------------------------------


def test_the_documented_diagram_is_the_table() -> None:
    text = (DOCS / "handshake_protocol.md").read_text()
    (block,) = re.findall(r"```transitions\n(.*?)\n```", text, re.DOTALL)
    assert block == diagram()
    assert len(diagram().splitlines()) == sum(len(table) for table in TRANSITIONS.values())
