"""Opening a channel: two flights and, where the responder's key was not known, the end mark T (design 6,
Flights).

Both sides are sans-IO: ``receive`` takes bytes and gives the ``Secured`` channel once it stands, ``take``
gives the bytes to send. A failure is one ``ChannelFault``; nothing is produced after it, and its text is
for the local log alone. ``take`` once more after a fault: what was answered before the faulty byte goes out
however the bytes were cut.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from random import Random
from struct import Struct
from typing import Final

from obscura.channel.noise import NK, NX, NXPSK0, Handshake, Pattern
from obscura.channel.records import Opener, Sealer
from obscura.channel.replay import ReplayCache, epoch_of
from obscura.channel.resume import ResumeSecret
from obscura.channel.uniform import Ephemeral, StaticKey
from obscura.errors import ChannelFault
from obscura.limits import (
    END_MARK_BYTES,
    KEY_BYTES,
    MAX_FLIGHT,
    MIN_FLIGHT,
    NK_TRIAL_BYTES,
    TAG_BYTES,
    UNAUTHENTICATED_BYTES,
)

_FIRST: Final = Struct("<IHH")  # epoch, P1, 0
_SECOND: Final = Struct("<HH")  # P2, 0
_FIRST_BYTES: Final = NK_TRIAL_BYTES + TAG_BYTES  # flight 1 of NK and NXpsk0 without its zeros
_SECOND_BYTES: Final = _SECOND.size + 2 * TAG_BYTES  # flight 2 without its tokens and zeros
PLAIN_FLIGHT: Final = (MIN_FLIGHT, MAX_FLIGHT)


class ListenerKind(IntEnum):
    """The face on which the responder was reached; a relay from one face to another fails."""

    DIRECT = 1
    ONION = 2
    I2P = 3


@dataclass(frozen=True, slots=True)
class Prologue:
    """What both ends must agree on beforehand. ``binding`` ties the channel to the one session of its
    carrier (<= 65,535 bytes).
    """

    network_id: bytes
    listener_kind: int
    carrier: int
    binding: bytes = b""

    def encode(self) -> bytes:
        """The Noise prologue."""
        kind_and_carrier = bytes((self.listener_kind, self.carrier))
        size = len(self.binding).to_bytes(2, "little")
        return b"obscura-channel/1\0" + self.network_id + kind_and_carrier + size + self.binding

    def psk(self) -> bytes:
        """The pre-shared key of NXpsk0: no secret, but it makes flight 1 of a stranger testable inside a
        carrier alone.
        """
        return sha256(b"obscura nx" + self.network_id + self.binding).digest()


@dataclass(frozen=True, slots=True)
class Secured:
    """A channel that stands. ``prefix`` must open the next write, directly before the sealer's first
    record.

    ``session_id`` is the final handshake hash; ``peer_key`` the responder's proved static key on the
    initiator's side, None on the responder's; ``leftover`` the bytes that came after the opening and belong
    to ``opener``.
    """

    sealer: Sealer
    opener: Opener
    session_id: bytes
    resume_secret: ResumeSecret
    peer_key: bytes | None
    pattern: str
    prefix: bytes
    leftover: bytes


def end_mark(chaining_key: bytes) -> bytes:
    """T, which ends the random bytes of NX on plain. From ck, since an observer can compute h."""
    return hmac.digest(chaining_key, b"obscura/1 end", "sha256")[:END_MARK_BYTES]


class _Opening(ABC):
    """What both sides share: input held, output made, one way to fail."""

    __slots__ = ("_failed", "_input", "_output", "_prologue", "_rng", "_streamed")

    def __init__(self, prologue: Prologue, rng: Random, streamed: bool) -> None:
        self._prologue = prologue
        self._rng = rng
        self._streamed = streamed
        self._input = bytearray()
        self._output = b""
        self._failed = False

    def take(self) -> bytes:
        """The bytes to send that were not taken yet."""
        out, self._output = self._output, b""
        return out

    def receive(self, data: bytes | bytearray | memoryview, unix: int) -> Secured | None:
        """Take bytes of the peer at ``unix`` seconds. The channel if it stands now, else None: more is
        needed.

        ``ChannelFault`` if anything is wrong, and on every later call; also once the channel has been
        given.
        """
        if self._failed:
            raise ChannelFault("the channel has failed, or was given away")
        self._input += data
        self._failed = True  # until the step below has ended well
        secured = self._advance(unix)
        self._failed = secured is not None
        return secured

    @abstractmethod
    def _advance(self, unix: int) -> Secured | None:
        """Go on with what was received; the channel if it stands now. Raises ``ChannelFault``."""

    def _pattern_handshake(
        self, pattern: Pattern, *, static: StaticKey | None = None, responder_key: bytes | None = None
    ) -> Handshake:
        psk = self._prologue.psk() if pattern.has_psk else None
        return Handshake(pattern, self._prologue.encode(), static=static, responder_key=responder_key, psk=psk)

    def _secured(
        self,
        handshake: Handshake,
        pattern: Pattern,
        consumed: int,
        *,
        initiator: bool,
        random_bytes: bytes = b"",
    ) -> Secured:
        """The channel of a finished handshake. ``random_bytes`` of NX on plain are bound to the initiator's
        record 0.
        """
        from_initiator, from_responder = handshake.split()
        mine, theirs = (from_initiator, from_responder) if initiator else (from_responder, from_initiator)
        marked = initiator and pattern is NX
        leftover = bytes(memoryview(self._input)[consumed:])
        self._input = bytearray()
        return Secured(
            sealer=Sealer(mine, associated_data=random_bytes if initiator else b""),
            opener=Opener(theirs, associated_data=b"" if initiator else random_bytes),
            session_id=handshake.h,
            resume_secret=ResumeSecret.first(handshake.ck),
            peer_key=handshake.responder_key if initiator else None,
            pattern=pattern.name,
            prefix=end_mark(handshake.ck) if marked else b"",
            leftover=leftover,
        )


class Initiator(_Opening):
    """The dialling side. Flight 1 is ready to ``take`` at once."""

    __slots__ = ("_handshake", "_padding", "_pattern", "_random_bytes")

    def __init__(
        self,
        prologue: Prologue,
        rng: Random,
        unix: int,
        *,
        responder_key: bytes | None,
        joining: bool = False,
        streamed: bool = True,
        flight_size: tuple[int, int] = PLAIN_FLIGHT,
        ephemeral: Ephemeral | None = None,
    ) -> None:
        """With ``responder_key`` the pattern is NK and nothing else; without it NX on plain (``streamed``),
        or, ``joining``, NXpsk0 in a carrier. ``flight_size``: least and most bytes of flight 1, drawn
        uniform. ``ValueError`` for a choice that does not exist; ``ChannelFault`` if ``responder_key`` is
        no key.
        """
        if joining and (streamed or responder_key is not None):
            raise ValueError("joining is for a carrier and an unknown key")
        if not (joining or streamed or responder_key is not None):
            raise ValueError("an unknown key in a carrier is for joining only")
        if not _FIRST_BYTES <= flight_size[0] <= flight_size[1] <= UNAUTHENTICATED_BYTES:
            raise ValueError(f"flight of {flight_size} bytes")
        super().__init__(prologue, rng, streamed)
        self._pattern = NXPSK0 if joining else NX if responder_key is None else NK
        self._handshake = self._pattern_handshake(self._pattern, responder_key=responder_key)
        self._padding: int | None = None  # P2, once known
        self._random_bytes = b""
        tokens = self._handshake.write(ephemeral or Ephemeral.generate(rng))
        size = rng.randint(*flight_size)
        if self._pattern is NX:
            self._handshake.seal(b"")
            self._random_bytes = rng.randbytes(size - KEY_BYTES)
            self._output = tokens + self._random_bytes
        else:
            padding = size - _FIRST_BYTES
            header = _FIRST.pack(epoch_of(unix) if streamed else 0, padding, 0)
            self._output = tokens + self._handshake.seal(header) + self._handshake.seal(bytes(padding))

    def _advance(self, unix: int) -> Secured | None:
        handshake, tokens = self._handshake, self._pattern.answer_bytes
        head = tokens + _SECOND.size + TAG_BYTES
        if len(self._input) < head:
            return None
        if self._padding is None:
            handshake.read(bytes(self._input[:tokens]))
            self._padding, _ = _SECOND.unpack(handshake.open(bytes(self._input[tokens:head])))
            least, most = PLAIN_FLIGHT if self._streamed else (0, UNAUTHENTICATED_BYTES)
            if not least <= tokens + _SECOND_BYTES + self._padding <= most:
                raise ChannelFault("flight 2 has a size that nobody sends")
        end = head + self._padding + TAG_BYTES
        if len(self._input) < end:
            return None
        handshake.open(bytes(self._input[head:end]))
        return self._secured(handshake, self._pattern, end, initiator=True, random_bytes=self._random_bytes)


class _Phase(IntEnum):
    TRIAL = 0  # is it NK?
    TAIL = 1  # it is; the rest of its flight is awaited
    STRANGER = 2  # it is not; enough bytes for an NX answer are awaited
    MARK = 3  # answered as NX; T is awaited


class Responder(_Opening):
    """The listening side, for one newcomer."""

    __slots__ = (
        "_answer_size",
        "_ephemeral",
        "_handshake",
        "_may_try",
        "_padding",
        "_phase",
        "_replay",
        "_searched",
        "_static",
        "_strangers",
    )

    def __init__(
        self,
        prologue: Prologue,
        static: StaticKey,
        rng: Random,
        *,
        strangers: bool,
        replay: ReplayCache,
        streamed: bool = True,
        may_try: Callable[[], bool] = lambda: True,
        answer_size: tuple[int, int] = PLAIN_FLIGHT,
        ephemeral: Callable[[], Ephemeral] | None = None,
    ) -> None:
        """``strangers``: answer those who do not know our key, by NX on plain (``streamed``), by NXpsk0 in
        a carrier.

        ``replay`` is used on plain alone. ``may_try`` is asked once, just before the first key agreement;
        False is a failure without any cryptography. ``answer_size``: least and most bytes of flight 2,
        drawn uniform. ``ephemeral`` gives the pair of an answer.
        """
        least = (NX if strangers else NK).answer_bytes + _SECOND_BYTES
        if not least <= answer_size[0] <= answer_size[1] <= UNAUTHENTICATED_BYTES:
            raise ValueError(f"flight of {answer_size} bytes")
        super().__init__(prologue, rng, streamed)
        self._static = static
        self._strangers = strangers
        self._replay = replay
        self._may_try = may_try
        self._answer_size = answer_size
        self._ephemeral = ephemeral or (lambda: Ephemeral.generate(rng))
        self._phase = _Phase.TRIAL
        self._handshake: Handshake | None = None
        self._padding = 0  # P1, once known
        self._searched = MIN_FLIGHT  # T does not start before this offset

    def _advance(self, unix: int) -> Secured | None:
        return self._stream(unix) if self._streamed else self._whole_flight()

    # --- plain ---

    def _stream(self, unix: int) -> Secured | None:
        if self._phase is _Phase.TRIAL:
            if len(self._input) < NK_TRIAL_BYTES:
                return None
            self._allow()
            self._phase = _Phase.TAIL if self._is_nk(unix) else _Phase.STRANGER
        if self._phase is _Phase.TAIL:
            end = _FIRST_BYTES + self._padding
            return self._accept(NK, end) if len(self._input) >= end else None
        if not self._strangers:
            raise ChannelFault("not NK, or recorded, or out of time")
        if self._phase is _Phase.STRANGER:
            if len(self._input) < MIN_FLIGHT:
                return None
            self._handshake = self._pattern_handshake(NX, static=self._static)
            self._handshake.read(bytes(self._input[:KEY_BYTES]))
            self._handshake.open(b"")
            self._answer(self._handshake)
            self._phase = _Phase.MARK
        return self._find_mark()

    def _is_nk(self, unix: int) -> bool:
        """Whether the first bytes are a timely NK flight that was not seen before."""
        header = self._opened_header(NK)
        if header is None:
            return False
        epoch, self._padding, _ = header
        if not MIN_FLIGHT <= _FIRST_BYTES + self._padding <= MAX_FLIGHT:
            return False
        return self._replay.admit(bytes(self._input[:KEY_BYTES]), epoch, unix)

    def _find_mark(self) -> Secured | None:
        """Look for T at offsets 256..1,280. It is fresh and single-use, so the time that the search takes
        tells nothing.
        """
        assert self._handshake is not None
        last = MAX_FLIGHT + END_MARK_BYTES
        found = self._input.find(end_mark(self._handshake.ck), self._searched, last)
        if found >= 0:
            random_bytes = bytes(self._input[KEY_BYTES:found])
            end = found + END_MARK_BYTES
            return self._secured(self._handshake, NX, end, initiator=False, random_bytes=random_bytes)
        if len(self._input) >= last:
            raise ChannelFault("no end mark")
        self._searched = max(MIN_FLIGHT, len(self._input) - END_MARK_BYTES + 1)
        return None

    # --- inside a carrier ---

    def _whole_flight(self) -> Secured:
        size = len(self._input)
        if not _FIRST_BYTES <= size <= UNAUTHENTICATED_BYTES:
            raise ChannelFault("no flight has this size")
        self._allow()
        for pattern in (NK, NXPSK0) if self._strangers else (NK,):
            header = self._opened_header(pattern)
            if header is not None:
                self._padding = header[1]
                if _FIRST_BYTES + self._padding != size:
                    break
                return self._accept(pattern, size)
        raise ChannelFault("not a flight of ours")

    # --- both ---

    def _allow(self) -> None:
        if not self._may_try():
            raise ChannelFault("too many trials")

    def _opened_header(self, pattern: Pattern) -> tuple[int, int, int] | None:
        """The header of flight 1 if it opens as this pattern: epoch, P1, 0. The handshake is kept then."""
        handshake = self._pattern_handshake(pattern, static=self._static)
        try:
            handshake.read(bytes(self._input[:KEY_BYTES]))
            header = handshake.open(bytes(self._input[KEY_BYTES:NK_TRIAL_BYTES]))
        except ChannelFault:
            return None
        self._handshake = handshake
        epoch, padding, reserved = _FIRST.unpack(header)
        return epoch, padding, reserved

    def _accept(self, pattern: Pattern, end: int) -> Secured:
        """Check the zeros that end flight 1 at ``end``, and answer."""
        assert self._handshake is not None
        self._handshake.open(bytes(self._input[NK_TRIAL_BYTES:end]))
        self._answer(self._handshake)
        return self._secured(self._handshake, pattern, end, initiator=False)

    def _answer(self, handshake: Handshake) -> None:
        """Flight 2."""
        tokens = handshake.write(self._ephemeral())
        padding = self._rng.randint(*self._answer_size) - len(tokens) - _SECOND_BYTES
        self._output += tokens + handshake.seal(_SECOND.pack(padding, 0)) + handshake.seal(bytes(padding))
