"""What each link of a node received, as a sequence of records: made while it runs, enough to run it through the core again.

The cut is behind the channel: events and messages as the engine gets them, by link, with times. So a recording holds no key and
needs none, and whoever has it decrypts nothing with it. The dice of a live node stay the system's: those whose outcome a peer
answers to (nonces of pings, whom to ask, which way a stem takes) are written down as they fall. Keys are drawn by ``randbytes``,
which is never written down.

A file is ``MAGIC``, then records: size u32 LE, the first 4 bytes of SHA256(SHA256(payload)), the payload in MessagePack.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from obscura.channel.resume import ResumeSecret
from obscura.connection import Connection
from obscura.errors import UserError
from obscura.handshake.features import Flags
from obscura.handshake.machine import Negotiated
from obscura.limits import CAPTURE_RECORD
from obscura.linkevents import Arriving, Ended, Established, Event, Opened, Reason
from obscura.node.effects import LinkId
from obscura.node.link import Link
from obscura.shaping.levels import Knobs
from obscura.shaping.watch import Breach
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.fields import U32
from obscura.wire.frame import Malformed, Unknown, checksum_of
from obscura.wire.message import Message, RawMessage
from obscura.wire.messages.blocks import SendCmpct
from obscura.wire.messages.network import Version
from obscura.wire.messages.privacy import PadNeg

MAGIC = b"obscura capture 1\n"
STOPPED, FULL = "the node stopped", "it was full"  # why a recording ends
_HEAD = 8
_MAX_DRAW_BITS = 64


class Record(msgspec.Struct, frozen=True, array_like=True, tag_field="record", forbid_unknown_fields=True):
    """Base of all records."""


class LinkRecord(Record, frozen=True):
    """Base of those about one link: ``at`` seconds since the recording began; ``link`` is the number that the core knows."""

    at: float
    link: int


class Begin(Record, frozen=True, tag=0):
    """The first record: which node this is. ``unix`` seconds at its begin."""

    software: str
    network: str
    network_id: bytes
    unix: int
    is_dev: bool
    faces: tuple[int, ...]
    max_inbound: int
    rate_factor: float
    spacing_s: float
    knobs: Knobs


class Known(Record, frozen=True, tag=1):
    """Headers that the node had, parents first, a bit for each whose block it had too, and its tip."""

    headers: tuple[bytes, ...]
    bodies: bytes
    tip: bytes


class Waits(Record, frozen=True, tag=2):
    """A transaction that waited in the public mempool."""

    id: bytes
    raw: bytes
    arrival: float


class Linked(LinkRecord, frozen=True, tag=3):
    """A channel stands: who the other side is as far as the node saw."""

    is_inbound: bool
    is_manual: bool
    face: int
    carrier: int
    dialled: str | None
    remote: tuple[int, bytes, int] | None
    purpose: int


class Channel(LinkRecord, frozen=True, tag=4):
    """``Opened`` without its secret."""

    session_id: bytes
    pattern: str
    peer_key: bytes | None


class Agreed(LinkRecord, frozen=True, tag=5):
    """``Established``: payloads of the messages that were negotiated with."""

    version: int
    features: int
    privacy_features: int
    peer: bytes
    padneg: bytes | None
    peer_padneg: bytes | None
    peer_compact: bytes | None
    clock_offset_s: int


class Got(LinkRecord, frozen=True, tag=6):
    """A message."""

    type: str
    payload: bytes


class Odd(LinkRecord, frozen=True, tag=7):
    """A frame that gave no message: malformed for a ``reason``, or of an unknown type."""

    type: str
    size: int
    checksum: bytes
    reason: str | None


class Broke(LinkRecord, frozen=True, tag=8):
    """``Breach``."""

    what: str


class Over(LinkRecord, frozen=True, tag=9):
    """``Ended``."""

    reason: str
    detail: str


class Dice(Record, frozen=True, tag=10):
    """What one part drew since the last of these: (bits, number), or (0, a float in [0, 1))."""

    part: str
    draws: tuple[tuple[int, int | float], ...]


class Blamed(LinkRecord, frozen=True, tag=11):
    """A penalty that the node gave."""

    points: int
    why: str


class End(Record, frozen=True, tag=12):
    """The last record: why it is the last, and what the node had then."""

    at: float
    why: str
    height: int
    tip: bytes
    mempool: int
    mempool_digest: bytes


class Comes(LinkRecord, frozen=True, tag=13):
    """``Arriving``."""

    type: str


OfLink = Linked | Channel | Agreed | Got | Odd | Comes | Broke | Over
AnyRecord = Begin | Known | Waits | OfLink | Dice | Blamed | End
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyRecord).decode


def pack(record: AnyRecord) -> bytes:
    """A record as it stands in the file."""
    payload = _encode(record)
    return U32.pack(len(payload)) + checksum_of(payload) + payload


def unpack(read: Callable[[int], bytes], name: str) -> Iterator[AnyRecord]:
    """The records of a file behind its magic, as ``read`` gives it. Raises ``UserError`` with the place of what is wrong."""
    if read(len(MAGIC)) != MAGIC:
        raise UserError(f"{name}: is not a capture, or one of another version of this program")
    at = len(MAGIC)
    while head := read(_HEAD):
        size = int.from_bytes(head[:4], "little")
        if len(head) == _HEAD and size > CAPTURE_RECORD:
            raise UserError(f"{name}: is damaged at byte {at}: a record of {size} bytes")
        payload = read(size) if len(head) == _HEAD else b""
        if len(head) < _HEAD or len(payload) < size:
            raise Cut(
                f"{name}: ends inside a record that begins at byte {at}: the node was killed, or the file was cut"
            )
        if checksum_of(payload) != head[4:]:
            raise UserError(f"{name}: is damaged at byte {at}: the checksum is wrong")
        try:
            yield _decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise UserError(f"{name}: is damaged at byte {at}: {str(error)[:200]!a}") from None
        at += _HEAD + size


class Cut(UserError):
    """A recording that ends in the middle of something. What came before is whole."""


class NotedDice(random.Random):
    """Another generator's outcomes, told to ``note`` as (bits, number) or (0, float). Bytes, which become keys, are not told."""

    def __init__(self, dice: random.Random, note: Callable[[int, int | float], None]) -> None:
        super().__init__(0)
        self._dice, self._note = dice, note

    def random(self) -> float:
        value = self._dice.random()
        self._note(0, value)
        return value

    def getrandbits(self, k: int, /) -> int:
        value = self._dice.getrandbits(k)
        if k <= _MAX_DRAW_BITS:
            self._note(k, value)
        return value

    def randbytes(self, n: int) -> bytes:
        return self._dice.randbytes(n)


class Tape:
    """Turns what links tell into records. ``write`` gets each; times count from ``start``."""

    def __init__(self, write: Callable[[AnyRecord], None], start: float) -> None:
        self._write = write
        self._start = start
        self._linked: set[LinkId] = set()
        self._over: set[LinkId] = set()
        self._draws: dict[str, list[tuple[int, int | float]]] = {}

    def dice(self, part: str, dice: random.Random) -> random.Random:
        """A part's generator, whose outcomes are recorded."""
        draws = self._draws.setdefault(part, [])
        return NotedDice(dice, lambda bits, value: draws.append((bits, value)))

    def connection_of(self, link: Link) -> Callable[..., Connection]:
        """How the engine makes the connections of this link."""

        def make(*given: Any, **named: Any) -> Connection:
            connection = TapedConnection(*given, **named)
            connection.told = partial(self.take, link)
            return connection

        return make

    def take(self, link: Link, events: list[Event], now: float) -> None:
        """Record what a link is about to give to the engine."""
        number = link.id if link.session is None else link.session.id
        moves = link.session is not None and link.peer is None  # of another's session: the core does not hear of it
        for event in events:
            if moves and isinstance(event, Opened | Ended):
                continue
            record = _record(event, now - self._start, number)
            if record is None or (isinstance(record, Over) and number not in self._linked):
                continue
            if number not in self._linked:
                self._linked.add(number)
                self.put(_linked(link, now - self._start, number))
            if isinstance(record, Over):
                self._over.add(number)
            self.put(record)

    def closed(self, link: LinkId, now: float) -> None:
        """The core heard that a link is over. Where a defect ended it, its connection was not asked and told nothing."""
        if link in self._linked and link not in self._over:
            self._over.add(link)
            self.put(Over(now - self._start, link, Reason.LOST.value, ""))

    def blame(self, link: LinkId, points: int, why: str, now: float) -> None:
        """Record a penalty."""
        self.put(Blamed(now - self._start, link, points, why))

    def put(self, record: AnyRecord) -> None:
        """Write a record behind the draws that came before it."""
        for part, draws in self._draws.items():
            if draws:
                self._write(Dice(part, tuple(draws)))
                draws.clear()
        self._write(record)


class TapedConnection(Connection):
    """A connection that tells what it gives to the engine."""

    told: Callable[[list[Event], float], None]
    _depth = (
        0  # of calls: one that ends the link from inside tells nothing by itself, or it would come before its chunk
    )

    def start(self, now: float) -> list[Event]:
        return self._tell(super().start, now)

    def receive(self, data: bytes | memoryview, now: float) -> list[Event]:
        return self._tell(partial(super().receive, data), now)

    def eof(self, now: float) -> list[Event]:
        return self._tell(super().eof, now)

    def due(self, now: float) -> list[Event]:
        return self._tell(super().due, now)

    def close(self, now: float, reason: Reason = Reason.LOCAL, detail: str = "") -> list[Event]:
        return self._tell(partial(super().close, reason=reason, detail=detail), now)

    def abort(self, now: float, reason: Reason) -> list[Event]:
        return self._tell(partial(super().abort, reason=reason), now)

    def release(self, old: Connection, now: float) -> list[Event]:
        return self._tell(partial(super().release, old), now)

    def _tell(self, call: Callable[[float], list[Event]], now: float) -> list[Event]:
        self._depth += 1
        try:
            events = call(now)
        finally:
            self._depth -= 1
        if events and not self._depth:
            self.told(events, now)
        return events


def _linked(link: Link, at: float, number: LinkId) -> Linked:
    remote = link.remote
    place = None if remote is None else (int(remote.network), remote.host, remote.port)
    dialled = None if link.dialled is None else str(link.dialled)
    return Linked(at, number, link.inbound, link.manual, link.face, link.carrier, dialled, place, link.purpose)


def _record(event: Event, at: float, link: LinkId) -> OfLink | None:
    if isinstance(event, Message):
        return Got(at, link, event.TYPE, event.encode())
    if isinstance(event, Opened):
        return Channel(at, link, event.session_id, event.pattern, event.peer_key)
    if isinstance(event, Established):
        agreed = event.negotiated
        flags, peer = agreed.flags, agreed.peer.encode()
        own, theirs, compact = map(_payload, (agreed.own_padneg, agreed.peer_padneg, agreed.peer_compact))
        offset_s = agreed.clock_offset_s
        return Agreed(at, link, agreed.version, flags.features, flags.privacy, peer, own, theirs, compact, offset_s)
    if isinstance(event, Malformed | Unknown):
        return Odd(at, link, event.type, event.size, event.checksum, getattr(event, "reason", None))
    if isinstance(event, Arriving):
        return Comes(at, link, event.type)
    if isinstance(event, Breach):
        return Broke(at, link, event.what)
    if isinstance(event, Ended):
        return Over(at, link, event.reason.value, event.detail)
    return None  # that a session moves is no matter of the core's


def _payload(message: Message | None) -> bytes | None:
    return None if message is None else message.encode()


def event_of(record: OfLink) -> Event:
    """What the engine was given. Raises ``DecodeError`` or ``ValueError``."""
    if isinstance(record, Got):
        kind = CATALOGUE.get(record.type)
        if (
            kind is None
        ):  # of an application, which is not here; the node knew it, so that no rate of unknown ones holds
            return RawMessage(record.payload)
        if len(record.payload) > kind.MAX_SIZE:
            raise ValueError(f"{record.type} of {len(record.payload)} bytes")
        return kind.decode(record.payload)
    if isinstance(record, Channel):
        return Opened(record.session_id, record.pattern, record.peer_key, ResumeSecret(record.session_id))
    if isinstance(record, Agreed):
        return Established(
            Negotiated(
                record.version,
                Flags(record.features, record.privacy_features),
                Version.decode(record.peer),
                None if record.padneg is None else PadNeg.decode(record.padneg),
                None if record.peer_padneg is None else PadNeg.decode(record.peer_padneg),
                None if record.peer_compact is None else SendCmpct.decode(record.peer_compact),
                record.clock_offset_s,
            )
        )
    if isinstance(record, Odd):
        if record.reason is None:
            return Unknown(record.type, record.size, record.checksum)
        return Malformed(record.type, record.size, record.checksum, record.reason)
    if isinstance(record, Comes):
        return Arriving(record.type)
    if isinstance(record, Broke):
        return Breach(record.what)
    if isinstance(record, Over):
        return Ended(Reason(record.reason), record.detail)
    raise ValueError("a record out of place")
