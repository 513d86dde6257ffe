"""One link without I/O: carrier + channel + records + frames + handshake -> events.

Bytes of the socket go in by ``receive``; bytes for the socket come out of ``flush``; what happened comes back as events,
the typed messages among them. The same bytes give the same events at any fragmentation. Nothing here calls a reaction, and
no reaction calls this: the engine stands between.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from math import inf

from obscura.arrivals import Arrivals
from obscura.channel.opening import PLAIN_FLIGHT, Initiator, Responder, Secured
from obscura.channel.records import Opener, Sealer
from obscura.channel.resume import Claim, Find, ResumeSecret
from obscura.errors import ChannelFault, Refused, Violation
from obscura.handshake.machine import Handshake, Offer, State
from obscura.limits import CLEAN_END_S, HANDSHAKE_S, TAG_BYTES
from obscura.linkevents import Ended, Established, Event, Opened, PeerLeft, Reason, Rejoined, Shape, Shaping, unshaped
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready
from obscura.outbox import Outbox
from obscura.security import Bare, Dialling, Listening, answer_opening, begin_opening
from obscura.shaping.schedule import IMMEDIATE
from obscura.shaping.watch import Watch
from obscura.wire.catalogue import Catalogue
from obscura.wire.frame import FrameDecoder
from obscura.wire.message import Message
from obscura.wire.messages.network import Verack
from obscura.wire.tally import Tallies


class _Stage(Enum):
    OPENING = 1  # channel not up
    HANDSHAKE = 2
    ESTABLISHED = 3
    ENDING = 4  # own last record is out, the peer's is awaited
    OVER = 5  # nothing is delivered; the carrier finishes in its own way


class Connection:
    """One link, either role. ``over`` turns true when the socket is to be closed after what ``flush`` still gives."""

    __slots__ = (
        "_arrivals",
        "_carrier",
        "_deadline",
        "_decoder",
        "_established_kinds",
        "_handshake",
        "_initiator",
        "_opener",
        "_opening",
        "_parked",
        "_parked_bytes",
        "_resuming",
        "_rng",
        "_sealer",
        "_security",
        "_shaping",
        "_stage",
        "_unix",
        "_watch",
        "closing",
        "dummies_received",
        "dummy_bytes_received",
        "expects_leave",
        "is_busy",
        "outbox",
        "over",
        "wire_received",
        "wire_sent",
    )

    def __init__(
        self,
        carrier: Carrier,
        security: Dialling | Listening | Bare,
        offer: Offer,
        catalogue: Catalogue,
        rng: random.Random,
        unix: Callable[[], int],
        *,
        initiator: bool,
        now: float,
        shaping: Shaping = unshaped,
        resuming: ResumeSecret | Find | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        counted = tallies or Tallies({}, {})
        self._carrier, self._security, self._arrivals = carrier, security, Arrivals()
        self._handshake = Handshake(offer, initiator=initiator)
        self._decoder = FrameDecoder(catalogue.opening, tally=counted.received)
        self._established_kinds = catalogue.established
        self._initiator = initiator
        self._rng, self._unix, self._shaping = rng, unix, shaping
        self._resuming = resuming
        self._parked: list[Event] | None = None  # what a session that goes on here must not hear yet
        self._parked_bytes = 0
        self._watch: Watch | None = None
        self._opening: Initiator | Responder | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._stage, self._deadline = _Stage.OPENING, now + HANDSHAKE_S
        self.outbox = Outbox(counted.sent)
        self.expects_leave = False  # the peer's last record means that it moves; see ``Handover``
        self.over, self.is_busy, self.closing = False, False, (False, False)  # lingers, resets
        self.wire_received = self.wire_sent = self.dummies_received = self.dummy_bytes_received = 0

    # --- What the engine asks ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Bytes of frames that are queued and not sealed."""
        return self.outbox.waiting

    @property
    def is_established(self) -> bool:
        """Whether messages may be sent."""
        return self._stage is _Stage.ESTABLISHED

    @property
    def buffered(self) -> int:
        """Bytes held of a message that is not complete, and of a record at most 64 KiB more."""
        pending = self._decoder.pending
        return self._parked_bytes + (0 if pending is None else pending[0])

    @property
    def is_full(self) -> bool:
        """Whether the carrier has to be read from before it can take more."""
        return self._carrier.is_full or self._parked_bytes > 0

    @property
    def is_blocked(self) -> bool:
        """Whether the carrier has to be read from before anything more may leave."""
        return self._carrier.is_blocked

    @property
    def is_authenticated(self) -> bool:
        """Whether the channel is up, so that the connection no longer counts as a stranger's."""
        return self._sealer is not None or (isinstance(self._security, Bare) and self.is_established)

    def start(self, now: float) -> list[Event]:
        """The socket is connected."""
        events: list[Event] = []
        for event in self._carrier.start(now):
            self._on_carrier(event, now, events)
        security = self._security
        if isinstance(security, Bare):
            self._greet(now)
        elif isinstance(security, Listening) and self._carrier.STREAMED:
            self._opening = answer_opening(security, self._carrier, self._rng, b"", PLAIN_FLIGHT)
        return events

    def receive(self, data: bytes | memoryview, now: float) -> list[Event]:
        """Bytes of the socket. ``data`` may be reused by the caller afterwards. Never raises."""
        self.wire_received += len(data)
        events: list[Event] = []
        for event in self._carrier.receive(data, now):
            self._on_carrier(event, now, events)
        if self.is_established:
            events += self._arrivals.told(self._opener, self._decoder, now)
        return events if self._parked is None else self._park(self._parked, events, len(data))

    def eof(self, now: float) -> list[Event]:
        """The peer closed its side, or the socket broke."""
        events: list[Event] = []
        for event in self._carrier.eof(now):
            self._on_carrier(event, now, events)
        self.is_busy = self._carrier.is_busy
        return events if self._parked is None else self._park(self._parked, events, 0)

    def send(self, message: Message) -> None:
        """Queue one message; ``flush`` seals what is queued. The caller bounds ``waiting`` (bytes of frames queued)."""
        if self._stage is _Stage.ESTABLISHED:
            self.outbox.put(message)

    @property
    def has_more(self) -> bool:
        """Whether ``flush`` held back a part of what may leave, so that it is to be called again once this one is written."""
        return self.outbox.has_more and not self._carrier.is_blocked

    def flush(self, now: float) -> list[bytes]:
        """What is to be written to the socket now: one piece, or several where joining large ones would cost.

        Of much that waits, about ``FLUSH_BYTES``: ``has_more`` is true then.
        """
        if not (self.outbox.is_idle or self._carrier.is_blocked):
            if self._sealer is not None:
                self.outbox.seal(self._sealer, self._carrier.send, now)
            elif isinstance(self._security, Bare):
                self._carrier.send(self.outbox.bare(), now)
        pieces = self._carrier.take()
        for piece in pieces:
            self.wire_sent += len(piece)
        return pieces

    def close(self, now: float, reason: Reason = Reason.LOCAL, detail: str = "") -> list[Event]:
        """End cleanly: what waits is sent, then the last record; the peer has 10 s to do the same."""
        if self._stage in (_Stage.ENDING, _Stage.OVER):
            return []
        self._send_last(now)
        if self._opener and not self._opener.ended:
            self._stage = _Stage.ENDING
            self._deadline = now + CLEAN_END_S
        else:
            self._finish(now)
        return [Ended(reason, detail)]

    def abort(self, now: float, reason: Reason) -> list[Event]:
        """End at once: what waits is dropped, and the carrier closes as its cover would, discarding or not."""
        has_ended = self._stage in (_Stage.ENDING, _Stage.OVER)
        self.outbox.clear()
        self._parked, self._parked_bytes = None if self._parked is None else [], 0
        self._finish(now)
        return [] if has_ended else [Ended(reason)]

    # --- Moving to another connection -------------------------------------------------------------------------------

    @property
    def is_parked(self) -> bool:
        """Whether a session goes on here that still hears its old connection."""
        return self._parked is not None

    def release(self, old: Connection, now: float) -> list[Event]:
        """The peer has left the old connection: what came here meanwhile, and from now on at once."""
        events, self._parked, self._parked_bytes = self._parked or [], None, 0
        self._watch = old._watch
        if self._watch is not None:
            self._watch.moved()
        return events

    def finish(self, now: float) -> None:
        """Both directions have left: the carrier closes as its cover would."""
        if self._stage is not _Stage.OVER:
            self._finish(now)

    def _park(self, parked: list[Event], events: list[Event], size: int) -> list[Event]:
        """What may be told now; the rest waits. ``size`` bytes came for it."""
        told = next((at + 1 for at, event in enumerate(events) if isinstance(event, Rejoined)), 0)
        parked += events[told:]
        self._parked_bytes += size if len(events) > told else 0
        return events[:told]

    def deadline(self) -> float:
        """When ``due`` wants to be called; ``inf`` = never."""
        when = self._carrier.deadline()
        if not self._carrier.is_blocked:  # else the peer has to say something first
            when = min(when, self.outbox.schedule.deadline(self.outbox.waiting))
        return when if self._stage is _Stage.ESTABLISHED else min(when, self._deadline)

    def due(self, now: float) -> list[Event]:
        """A deadline has passed."""
        events: list[Event] = []
        if now >= self._deadline:
            if self._stage is _Stage.OPENING:
                self._fail(now, Reason.TIMEOUT, "", events)
            elif self._stage is _Stage.HANDSHAKE:
                events += self.close(now, Reason.TIMEOUT)
            elif self._stage is _Stage.ENDING:
                self._finish(now)
        for event in self._carrier.due(now):
            self._on_carrier(event, now, events)
        return events

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def _on_carrier(self, event: CarrierEvent, now: float, events: list[Event]) -> None:
        if self._stage is _Stage.OVER and not isinstance(event, Finished):
            return  # what still arrives in the turn of the end must not bring the link back
        if type(event) is Data:
            self._on_bytes(event.data, now, events)
        elif isinstance(event, Ready):
            self._on_ready(event, now)
        elif isinstance(event, Flight):
            self._on_flight(event, now, events)
        elif isinstance(event, Finished):
            self.over = True
            self.closing = event.lingers, event.resets
            if self._stage is not _Stage.OVER:
                if self._stage is not _Stage.ENDING:
                    events.append(Ended(Reason.LOST))
                self._stage = _Stage.OVER
                self._deadline = inf

    def _on_ready(self, ready: Ready, now: float) -> None:
        if isinstance(self._security, Dialling):
            self._opening = begin_opening(self._security, self._carrier, ready, self._rng, self._unix())
            self._carrier.send_flight(self._opening.take(), now)

    def _on_flight(self, flight: Flight, now: float, events: list[Event]) -> None:
        if self._stage is not _Stage.OPENING:
            return
        if isinstance(self._security, Listening):
            self._opening = answer_opening(self._security, self._carrier, self._rng, flight.binding, flight.answer_size)
        self._on_bytes(flight.data, now, events)

    # --- Bytes upward -----------------------------------------------------------------------------------------------

    def _on_bytes(self, data: bytes | memoryview, now: float, events: list[Event]) -> None:
        try:
            if self._opener is not None:
                self._open(self._opener, data, now, events)
            elif self._opening is not None:
                secured = self._opening.receive(data, self._unix())
                answer = self._opening.take()
                if answer:
                    self._carrier.send_flight(answer, now)
                if secured is not None:
                    self._secure(secured, now, events)
            elif isinstance(self._security, Bare):
                self._arrivals.read(len(data), len(data))
                self._deliver(bytes(data), 0, len(data), now, events)
        except ChannelFault as fault:
            if self._opening is not None:  # an answer given before the fault goes out however the bytes were cut
                self._carrier.send(self._opening.take(), now)
            dialled_opening = self._initiator and self._opener is None
            self._fail(now, Reason.UNPROVEN if dialled_opening else Reason.FAULT, str(fault), events)

    def _secure(self, secured: Secured, now: float, events: list[Event]) -> None:
        self._sealer, self._opener, self._opening = secured.sealer, secured.opener, None
        if secured.prefix:
            self._carrier.send(secured.prefix, now)
        key, number = secured.peer_key, self._carrier.NUMBER
        events.append(Opened(secured.session_id, secured.pattern, key, secured.resume_secret, number))
        if self._resuming is not None:
            self._handshake.resumption = Claim(self._resuming, secured.session_id)
        self._greet(now)
        if secured.leftover:
            self._open(secured.opener, secured.leftover, now, events)

    def _open(self, opener: Opener, data: bytes | memoryview, now: float, events: list[Event]) -> None:
        if opener.ended:
            return
        for plain, start, end in opener.receive(data):
            self._arrivals.read(end - start, len(plain))
            if self._watch is not None and (breach := self._watch.record(len(plain) + TAG_BYTES, start == end, now)):
                events.append(breach)
            if start == end:
                self.dummies_received += 1
                self.dummy_bytes_received += len(plain) + TAG_BYTES
            else:
                self._deliver(plain, start, end, now, events)
            if self._stage is _Stage.OVER:
                return
        opener.rest()
        if opener.ended:
            self._on_last(now, events)

    def _on_last(self, now: float, events: list[Event]) -> None:
        if self._stage is _Stage.ENDING:
            self._finish(now)
        elif self._stage is not _Stage.OVER:
            if self._decoder.pending is not None:
                raise ChannelFault("the peer's last record ends inside a frame")
            if self.expects_leave:
                events.append(PeerLeft())
                return
            self._send_last(now)
            self._finish(now)
            events.append(Ended(Reason.CLEAN))

    def _deliver(self, plain: bytes, start: int, end: int, now: float, events: list[Event]) -> None:
        items = self._decoder.receive(plain, start, end)
        if self._stage is _Stage.HANDSHAKE:
            for item in items:
                self._negotiate(item, now, events)
                if self._stage is not _Stage.HANDSHAKE:
                    break
        if self._stage is _Stage.ESTABLISHED:
            delivered: list[Event | Violation] = events  # type: ignore[assignment]  # the Violation is taken off again
            delivered.extend(items)
            if delivered and isinstance(delivered[-1], Violation):
                violation = delivered.pop()
                events += self.close(now, Reason.VIOLATION, str(violation))
                self._finish(now)

    def _negotiate(self, item: object, now: float, events: list[Event]) -> None:
        try:
            if not isinstance(item, Message):
                raise Violation(str(item))
            for message in self._handshake.receive(item):
                shape = self._shape() if isinstance(message, Verack) else None
                self.outbox.put(message)
                if shape is not None:
                    self.outbox.shape(shape.padding, shape.schedule)
                    self._watch = shape.watch
        except (Violation, Refused) as end:
            reason = Reason.VIOLATION if isinstance(end, Violation) else Reason.REFUSED
            events += self.close(now, reason, str(end))
            self._finish(now)
            return
        if self._handshake.state is not State.ESTABLISHED:
            return
        self._stage = _Stage.ESTABLISHED
        self._deadline = inf
        self._decoder.kinds = self._established_kinds
        negotiated = self._handshake.negotiated
        del self._handshake, self._resuming  # nobody asks them again, and they hold half a KiB
        if negotiated is None:
            self._parked = []
            events.append(Rejoined())
            return
        if self._watch is not None:
            self._watch.begin(now)
        events.append(Established(negotiated))

    # --- Frames downward --------------------------------------------------------------------------------------------

    def _greet(self, now: float) -> None:
        self._stage = _Stage.HANDSHAKE
        for message in self._handshake.start():
            self.outbox.put(message)

    def _shape(self) -> Shape | None:
        """What the own ``verack`` puts in force. Raises ``Refused``, and then no ``verack`` is sent."""
        settled = self._handshake.settled
        return self._shaping(settled) if settled is not None else None

    def _send_last(self, now: float) -> None:
        """Everything that waits, whole frames only, then a record with flag 2."""
        if self._sealer is not None and not self._sealer.ended:
            self.outbox.seal_last(self._sealer, self._carrier.send, now)
        elif isinstance(self._security, Bare):
            self._carrier.send(self.outbox.bare(), now)

    # --- Ends -------------------------------------------------------------------------------------------------------

    def _finish(self, now: float) -> None:
        """Both directions are done: the carrier closes as its cover would."""
        self.outbox.schedule = IMMEDIATE
        self._stage, self._deadline = _Stage.OVER, inf
        self._decoder.clear()
        for event in self._carrier.end(now):
            self._on_carrier(event, now, [])

    def _fail(self, now: float, reason: Reason, detail: str, events: list[Event]) -> None:
        """The one failure path: deliver nothing more, say nothing; the session goes on as the cover's."""
        if self._stage is _Stage.OVER:
            return
        if self._stage is not _Stage.ENDING:
            events.append(Ended(reason, detail))
        self._stage, self._deadline = _Stage.OVER, inf
        self._opening = self._opener = self._sealer = None
        self.outbox.clear()
        self._decoder.clear()
        self._carrier.refuse(now)
