"""Handshake and negotiation as one transition table (specification, *Handshake Sequence*; design 5).

Both of the specification's sequences are walks through ``TRANSITIONS``. What is not in the table is a violation. The machine is
pure: messages in, messages out.

The order per direction is ``version``, then ``padneg`` (and ``sendcmpct`` where compact blocks are on), then ``verack``.
A ``verack`` is sent only after the peer's ``padneg``, since shaping is in force right behind it and both sides compute it
from both.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

import msgspec

from obscura.errors import Refused, Violation
from obscura.handshake.features import Feature, Flags
from obscura.limits import MAX_CLOCK_SKEW_S, MIN_PROTOCOL_VERSION
from obscura.wire.message import Message
from obscura.wire.messages.blocks import SendCmpct
from obscura.wire.messages.network import Verack, Version
from obscura.wire.messages.privacy import PadNeg, Resume, Resumed


class State(Enum):
    """What this side waits for."""

    VERSION = "version"  # the peer's HandshakeMessage
    SETTLING = "settling"  # what has to be settled before traffic
    VERACK = "verack"  # the acknowledgement
    RESUMED = "resumed"  # this side asked to resume a session
    ESTABLISHED = "established"


class Then(Enum):
    """What this side does in a transition."""

    GREET = "sends version, padneg"  # the responder's answer to version
    SETTLE = "sends padneg"  # the initiator's answer to version
    ACKNOWLEDGE = "sends verack"
    RESUME = "checks the MAC, sends resumed"
    CHECK = "checks the MAC"
    NOTE = "takes note"


class Step(NamedTuple):
    then: Then
    state: State


INITIATOR: dict[tuple[State, type[Message]], Step] = {
    (State.VERSION, Version): Step(Then.SETTLE, State.SETTLING),
    (State.SETTLING, SendCmpct): Step(Then.NOTE, State.SETTLING),
    (State.SETTLING, PadNeg): Step(Then.ACKNOWLEDGE, State.VERACK),
    (State.VERACK, SendCmpct): Step(Then.NOTE, State.VERACK),
    (State.VERACK, Verack): Step(Then.NOTE, State.ESTABLISHED),
    (State.RESUMED, Resumed): Step(Then.CHECK, State.ESTABLISHED),
}
RESPONDER: dict[tuple[State, type[Message]], Step] = {
    (State.VERSION, Version): Step(Then.GREET, State.SETTLING),
    (State.VERSION, Resume): Step(Then.RESUME, State.ESTABLISHED),
    (State.SETTLING, SendCmpct): Step(Then.NOTE, State.SETTLING),
    (State.SETTLING, PadNeg): Step(Then.ACKNOWLEDGE, State.VERACK),
    (State.VERACK, SendCmpct): Step(Then.NOTE, State.VERACK),
    (State.VERACK, Verack): Step(Then.NOTE, State.ESTABLISHED),
}
TRANSITIONS = {True: INITIATOR, False: RESPONDER}  # by "is this side the initiator"


class Resumption(Protocol):
    """The proofs that a session goes on over this link; ``obscura.channel.resume`` has them."""

    def begin(self) -> Resume | None:
        """What the initiator says in place of ``version``; None = it has a new session in mind, or this is the responder."""
        ...

    def answer(self, resume: Resume) -> Resumed:
        """The responder's answer. Raises ``Violation``."""
        ...

    def check(self, resumed: Resumed) -> None:
        """The initiator's check of it. Raises ``Violation``."""
        ...


class Offer(msgspec.Struct, frozen=True):
    """What this side says and demands on one link.

    ``padneg`` None = a bare link, on which nothing is padded and ``Privacy.Padding`` is not offered. ``demanded`` are the core
    features of the link's kind together with the configured required mask.
    """

    version: Version
    padneg: PadNeg | None
    demanded: Flags
    compact: SendCmpct | None = None

    @property
    def flags(self) -> Flags:
        """The two words of the own ``version``."""
        return Flags(self.version.feature_flags, self.version.privacy_feature_flags)


class Negotiated(msgspec.Struct, frozen=True):
    """What both sides have after the handshake. ``clock_offset_s``: the peer's clock minus ours, noted and never used."""

    version: int
    flags: Flags
    peer: Version
    own_padneg: PadNeg | None
    peer_padneg: PadNeg | None
    peer_compact: SendCmpct | None
    clock_offset_s: int

    @property
    def is_clock_odd(self) -> bool:
        """Whether the two clocks differ by more than two hours; ``doctor`` reports it."""
        return abs(self.clock_offset_s) > MAX_CLOCK_SKEW_S


class Handshake:
    """One side of one handshake. ``negotiated`` is set as soon as ``state`` is ``ESTABLISHED``, unless a session goes on here.

    ``resumption``, set before ``start``, is what the steps around ``resume`` and ``resumed`` ask; None = there is no session.
    """

    __slots__ = ("_compact", "_flags", "_initiator", "_offer", "_padneg", "_version", "resumption", "state")

    def __init__(self, offer: Offer, *, initiator: bool) -> None:
        self._offer = offer
        self._initiator = initiator
        self._version: Version | None = None
        self._flags = Flags()
        self._padneg: PadNeg | None = None
        self._compact: SendCmpct | None = None
        self.resumption: Resumption | None = None
        self.state = State.VERSION

    def start(self) -> tuple[Message, ...]:
        """What to send before anything was received."""
        resume = self.resumption.begin() if self.resumption is not None else None
        if resume is not None:
            self.state = State.RESUMED
            return (resume,)
        return (self._offer.version,) if self._initiator else ()

    def receive(self, message: Message) -> tuple[Message, ...]:
        """What to send in answer. Raises ``Violation`` or ``Refused``; the link ends then."""
        step = TRANSITIONS[self._initiator].get((self.state, type(message)))
        if step is None:
            raise Violation(f"{message.TYPE} while waiting for {self.state.value}")
        answer = self._act(step.then, message)
        if isinstance(message, Version) and self._offer_is_bare:
            self.state = State.VERACK  # nothing to settle without records
            return (*answer, Verack())
        self.state = step.state
        return answer

    @property
    def negotiated(self) -> Negotiated | None:
        """The outcome, once established."""
        return self.settled if self.state is State.ESTABLISHED else None

    @property
    def settled(self) -> Negotiated | None:
        """The same, as soon as the peer's ``version`` and ``padneg`` are known: shaping starts behind the own ``verack``."""
        if self._version is None:
            return None
        return Negotiated(
            version=min(self._offer.version.protocol_version, self._version.protocol_version),
            flags=self._flags,
            peer=self._version,
            own_padneg=self._offer.padneg,
            peer_padneg=self._padneg,
            peer_compact=self._compact,
            clock_offset_s=self._version.timestamp - self._offer.version.timestamp,
        )

    @property
    def _offer_is_bare(self) -> bool:
        return self._offer.padneg is None

    def _act(self, then: Then, message: Message) -> tuple[Message, ...]:
        if isinstance(message, Version):
            self._judge(message)
            return (self._offer.version, *self._settle()) if then is Then.GREET else self._settle()
        if isinstance(message, PadNeg):
            self._padneg = message
            return (Verack(),)
        if isinstance(message, SendCmpct):
            if not self._flags.has(Feature.CompactBlocks) or self._compact is not None:
                raise Violation("sendcmpct that was not negotiated, or a second one")
            self._compact = message
        if isinstance(message, Resume | Resumed):
            return self._resume(message)
        return ()

    def _resume(self, message: Resume | Resumed) -> tuple[Message, ...]:
        if self.resumption is None:
            raise Violation("there is no session to resume")
        if isinstance(message, Resume):
            return (self.resumption.answer(message),)
        self.resumption.check(message)
        return ()

    def _settle(self) -> tuple[Message, ...]:
        settled: list[Message] = []
        if self._offer.padneg is not None:
            settled.append(self._offer.padneg)
        if self._offer.compact is not None and self._flags.has(Feature.CompactBlocks):
            settled.append(self._offer.compact)
        return tuple(settled)

    def _judge(self, peer: Version) -> None:
        if peer.protocol_version < MIN_PROTOCOL_VERSION:
            raise Refused(f"the peer speaks protocol version {peer.protocol_version}, below {MIN_PROTOCOL_VERSION}")
        theirs = Flags(peer.feature_flags, peer.privacy_feature_flags)
        self._version = peer
        self._flags = self._offer.flags.both(theirs)
        missing = self._flags.lacks(self._offer.demanded)
        if missing:
            raise Refused(f"the peer lacks {', '.join(missing.names)}, which this node demands")


def diagram() -> str:
    """The table as text, one line a transition; the documentation is checked against it."""
    lines = []
    for role, table in (("initiator", INITIATOR), ("responder", RESPONDER)):
        for (state, message), step in table.items():
            line = f"{role}: {state.value} --{message.TYPE}--> {step.state.value}: {step.then.value}"
            lines.append(line)
    return "\n".join(lines)
