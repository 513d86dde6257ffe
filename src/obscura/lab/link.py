"""One shipped link under a virtual clock, seen from the wire: what is put in, and the sizes and times of what comes out.

The records are sealed by the shipped connection, gathered and delayed by its shipped schedule. The observer sees more than on a
real path: the exact time of every write and the size of every record in it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, cast

import msgspec

from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.connection import Connection
from obscura.handshake.features import BUILT, CORE
from obscura.handshake.machine import Negotiated, Offer
from obscura.limits import MAX_BLOCK
from obscura.linkevents import Event, Shape, Shaping
from obscura.morph.plain import Plain
from obscura.node.cover import Budget, shaping
from obscura.security import Dialling, Listening
from obscura.shaping.levels import Knobs, padneg
from obscura.shaping.padding import Exact
from obscura.shaping.schedule import IMMEDIATE
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.message import Message, RawMessage
from obscura.wire.messages.network import Version

_UNIX = 1_800_000_000
_NETWORK = bytes(32)


def bare_records(negotiated: Negotiated) -> Shape:
    """Rule ``none`` and no schedule: the control, in which sizes and times are as they are."""
    return Shape(Exact(), IMMEDIATE, None)


class Sent(NamedTuple):
    """One message that was put in. ``write`` is the number of the write that carried its last byte, -1 if none did yet."""

    kind: str
    size: int  # bytes of its frame
    at: float
    write: int


class Write(NamedTuple):
    """What the observer sees at one instant. ``sizes`` are bytes of the records, in order."""

    at: float
    sizes: tuple[int, ...]
    dummies: int  # records of it with nothing used; the observer does not see that


class Capture(msgspec.Struct):
    """One direction of one link from its establishment on, in order of time."""

    writes: list[Write]
    messages: list[Sent]


class _Tap(Plain):
    """The plain carrier, which notes the size of each record."""

    def __init__(self, rng: random.Random, *, client: bool) -> None:
        super().__init__(rng, client=client)
        self.sizes: list[int] = []

    def send(self, data: bytes, now: float) -> None:
        self.sizes.append(len(data))
        super().send(data, now)


def opaque(kind: str) -> type[RawMessage]:
    """A message class of that type name whose payload is any bytes."""
    namespace = {"TYPE": kind, "MAX_SIZE": MAX_BLOCK}
    made = msgspec.defstruct(kind.capitalize(), [], bases=(RawMessage,), namespace=namespace, frozen=True)
    return cast("type[RawMessage]", made)


class LabLink:
    """Two shipped connections, established at time 0; only the first one's sending is looked at.

    ``knobs`` None is the control ``bare_records``. With ``deliver`` the second one reads everything, and its events are kept.
    """

    def __init__(
        self, knobs: Knobs | None, rng: random.Random, *, peer: Knobs | None = None, deliver: bool = False
    ) -> None:
        key = StaticKey.generate(rng)
        self._tap = _Tap(rng, client=True)
        own, other = knobs or Knobs(), peer or knobs or Knobs()
        self.sender = self._connection(
            self._tap, Dialling(_NETWORK, 1, key.public), own, rng, bare_records if knobs is None else None
        )
        listening = Listening(_NETWORK, 1, key, True, ReplayCache(), lambda: True)
        self.receiver = self._connection(Plain(rng, client=False), listening, other, rng, None)
        self.events: list[Event] = []
        self._deliver = deliver
        self.writes: list[Write] = []
        self.messages: list[Sent] = []
        self._open: deque[tuple[int, int]] = deque()  # (end in the stream of frames, number of the message)
        self._establish()
        self._base = self.sender.outbox.real_sent

    def _connection(
        self, carrier: Plain, security: Dialling | Listening, knobs: Knobs, rng: random.Random, shape: Shaping | None
    ) -> Connection:
        version = Version(1, _UNIX, BUILT.features, BUILT.privacy, "lab", bytes(32), 0, rng.getrandbits(64))
        return Connection(
            carrier,
            security,
            Offer(version=version, padneg=padneg(knobs), demanded=CORE),
            CATALOGUE,
            rng,
            lambda: _UNIX,
            initiator=isinstance(security, Dialling),
            now=0.0,
            shaping=shape or shaping(knobs, Budget(knobs.cover_bytes_per_s, knobs.cover_bytes_per_day, 0.0), rng),
        )

    def _establish(self) -> None:
        self.events += self.sender.start(0.0) + self.receiver.start(0.0)
        while not (self.sender.is_established and self.receiver.is_established):
            sent = [self.sender.flush(0.0), self.receiver.flush(0.0)]
            if not any(sent):
                return
            for pieces, far in zip(sent, (self.receiver, self.sender), strict=True):
                for piece in pieces:
                    self.events += far.receive(piece, 0.0)
        self._tap.sizes.clear()

    def run(self, arrivals: Iterable[tuple[float, Message]], until: float) -> None:
        """Send each message at its time, in order of time, and let the clock go on to ``until``."""
        sender = self.sender
        self._flush(self.writes[-1].at if self.writes else 0.0)
        for at, message in arrivals:
            self._wait(at)
            before = sender.outbox.real_sent
            sender.send(message)
            self._open.append((sender.outbox.real_sent - self._base, len(self.messages)))
            self.messages.append(Sent(message.TYPE, sender.outbox.real_sent - before, at, -1))
            self._flush(at)
        self._wait(until)

    def _wait(self, until: float) -> None:
        while (when := self.sender.deadline()) <= until:
            self.events += self.sender.due(when)
            self._flush(when)

    def _flush(self, now: float) -> None:
        dummies = self.sender.outbox.dummies_sent
        pieces = self.sender.flush(now)
        while self.sender.has_more:
            pieces += self.sender.flush(now)
        if self._tap.sizes:
            self.writes.append(Write(now, tuple(self._tap.sizes), self.sender.outbox.dummies_sent - dummies))
            self._tap.sizes.clear()
        left = self.sender.outbox.real_sent - self._base - self.sender.waiting
        while self._open and self._open[0][0] <= left:
            _, number = self._open.popleft()
            self.messages[number] = self.messages[number]._replace(write=len(self.writes) - 1)
        if self._deliver:
            for piece in pieces:
                self.events += self.receiver.receive(piece, now)

    @property
    def capture(self) -> Capture:
        """What has been seen so far."""
        return Capture(self.writes, self.messages)


def idle(knobs: Knobs | None, rng: random.Random, seconds: float) -> LabLink:
    """A link that says nothing of itself for that long."""
    link = LabLink(knobs, rng)
    link.run((), seconds)
    return link
