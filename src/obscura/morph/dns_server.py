"""Carrier ``dns``, the server's side: BIND to everybody, the other end of a link to who knows the node's key."""

from __future__ import annotations

import random
from collections.abc import Generator
from math import inf

import msgspec

from obscura.errors import Violation
from obscura.limits import (
    DNS_ANSWER,
    DNS_COOKIE_S,
    DNS_COOKIES,
    DNS_END_S,
    DNS_IDLE_S,
    DNS_QUEUED,
    DNS_REQUEST_BYTES,
    DNS_STEP_BYTES,
    DNS_TRANSFER_BYTES,
    DNS_TRANSFER_S,
    DNS_UNREAD_BYTES,
    DNS_WRITE_BYTES,
)
from obscura.morph import dns_message as dns
from obscura.morph.carrier import CarrierEvent, Data, Flight, coalesced
from obscura.morph.dns import UPDATE_FLAGS, Stream, framed
from obscura.morph.dns_answer import Answer, NameServer
from obscura.morph.dns_message import HEADER, Question, Writer
from obscura.morph.dns_payload import Masks, Payload, style_of
from obscura.morph.dns_tsig import sign, signed_part


class DnsHost:
    """What the connections of one listener share. ``channel_key``: its public key."""

    def __init__(self, name_server: NameServer, channel_key: bytes) -> None:
        self.name_server = name_server
        self.channel_key = channel_key
        self._used: dict[bytes, float] = {}

    def server(self, rng: random.Random) -> DnsServer:
        """The carrier of one connection."""
        return DnsServer(rng, self)

    def use(self, cookie: bytes, now: float) -> bool:
        """Whether this cookie brings its first flight; the same one is given again within its second."""
        used = self._used
        while used and next(iter(used.values())) + DNS_COOKIE_S < now:
            del used[next(iter(used))]
        if cookie in used or len(used) >= DNS_COOKIES:
            return False
        used[cookie] = now
        return True


class _Transfer(msgspec.Struct):
    """One zone transfer under way."""

    id: int
    mac: bytes  # of the request, then of the last message
    ends_at: float
    has_begun: bool = False
    bytes: int = 0


class DnsServer(Stream):
    """One connection."""

    def __init__(self, rng: random.Random, host: DnsHost) -> None:
        super().__init__(rng, host.name_server.key, host.channel_key)
        self._host = host
        self._out: list[bytes] = []
        self._waiting = 0  # bytes of _out
        self._cookie = b""  # the last one given
        self._verdict: tuple[bytes, int, bytes] | None = (
            None  # the update whose flight the channel looks at: it, id, MAC
        )
        self._goes_on = False  # input waits that can be looked at
        self._answering: Generator[None, None, Answer] | None = None
        self._has_peer_ended = False
        self._is_tried = False
        self._is_changing = False  # something else than a query was among the messages
        self._is_behind = False  # another message came with the one at hand, before it
        self._is_open = False
        self._is_ending = False
        self._zone: Question | None = None
        self._payload: Payload | None = None
        self._up = self._down = Masks(host.channel_key, b"", upward=True)
        self._flight = b""  # flight 2 until a transfer takes it
        self._transfer: _Transfer | None = None
        self._idle_at = inf

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[CarrierEvent]:
        self._idle_at = now + DNS_IDLE_S
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._is_over:
            return []
        self._in += data
        self._is_behind = False
        return self._serve(now)

    def send_flight(self, flight: bytes, now: float) -> None:
        assert self._verdict is not None, "an answer without a flight"
        wire, id, mac = self._verdict
        self._verdict = None
        self._is_open = self._goes_on = self._is_changing = True
        self._idle_at = inf
        self._flight = flight
        self._acknowledge(wire, id, mac)

    def send(self, data: bytes, now: float) -> None:
        if self._is_open and not self._is_over:
            self._queue += data

    def take(self) -> list[bytes]:
        self._fill()
        if self._is_open or self._is_over or self._waiting <= DNS_WRITE_BYTES:
            out, self._out = self._out, []
            self._waiting = 0
            return coalesced(out)
        count = size = 0
        while size < DNS_WRITE_BYTES:
            size += len(self._out[count])
            count += 1
        out, self._out = self._out[:count], self._out[count:]
        self._waiting -= size
        return coalesced(out)

    def refuse(self, now: float) -> None:
        self._is_tried = True
        if self._is_open:
            self._is_open = False
            self._transfer = None
            self._queue.clear()
            self._idle_at = now + DNS_IDLE_S
        if self._verdict is not None:
            wire, self._verdict = self._verdict[0], None
            self._begin_answer(wire)
            self._goes_on = True

    def end(self, now: float) -> list[CarrierEvent]:
        if not self._is_open:
            return self._finish()
        self._is_ending = True
        self._idle_at = now + DNS_END_S
        return self._end()

    def eof(self, now: float) -> list[CarrierEvent]:
        self._has_peer_ended = True
        return [] if self.is_busy else self._finish()

    def deadline(self) -> float:
        if self._is_over:
            return inf
        if self._goes_on or (self._waiting and not self._is_open):
            return 0.0  # now: one write was not enough
        return min(self._idle_at, self._transfer.ends_at if self._transfer is not None else inf)

    def due(self, now: float) -> list[CarrierEvent]:
        if self._is_over:
            return []
        if now >= self._idle_at:
            return self._finish()
        if self._transfer is not None and now >= self._transfer.ends_at:
            self._message(b"", is_last=True)
        return self._serve(now)

    @property
    def is_full(self) -> bool:
        return len(self._in) > DNS_UNREAD_BYTES + 0xFFFF

    @property
    def is_busy(self) -> bool:
        return self._goes_on and not (self._is_open or self._is_over)

    @property
    def is_blocked(self) -> bool:
        return self._transfer is None and len(self._queue) > DNS_QUEUED

    # --- Requests ---------------------------------------------------------------------------------------------------

    def _serve(self, now: float) -> list[CarrierEvent]:
        """Answer what is in the buffer, one request after the other, a little at once, and no faster than answers are read."""
        events: list[CarrierEvent] = []
        self._goes_on = False
        looked_at = 0
        while not self._is_over and self._verdict is None:
            if self._answering is None:
                wire = next(self._messages(), None)
                if wire is None:
                    break
                if not self._is_open:
                    self._idle_at = now + DNS_IDLE_S
                    looked_at += DNS_REQUEST_BYTES + len(wire)
                self._on_message(wire, now, events)
            has_more = self._answering is not None and not self._answer(events)
            if has_more or self._waiting > DNS_WRITE_BYTES or looked_at > DNS_STEP_BYTES:
                self._goes_on = True
                break
        if self._has_peer_ended and not self.is_busy:
            events += self._finish()
        return events

    def _on_message(self, wire: bytes, now: float, events: list[CarrierEvent]) -> None:
        signed = signed_part(wire, self._key)
        if signed is not None and self._is_open:
            if self._on_session(*signed, events, now):
                return
        elif signed is not None and not self._is_tried and self._cookie and self._is_flight(wire, *signed, events, now):
            return
        if self._is_open:  # its place in the stream is lost with it
            self.refuse(now)
        self._begin_answer(wire)

    def _begin_answer(self, wire: bytes) -> None:
        self._answering = self._host.name_server.answering(wire, self._rng, is_tcp=True, by=self.own_host)

    def _answer(self, events: list[CarrierEvent]) -> bool:
        """Go a step on. Whether the message is answered."""
        assert self._answering is not None
        try:
            next(self._answering)
        except StopIteration as answered:
            self._answering = None
            answer: Answer = answered.value
            self._cookie = answer.cookie or self._cookie
            if answer.wire is None:  # BIND resets what it reads from, and in the middle of changes it does not read
                events += self._finish(resets=not (self._is_changing and self._is_behind))
            else:
                self._put(answer.wire)
            self._is_changing |= answer.is_change
            self._is_behind = True
        return self._answering is None

    def _put(self, wire: bytes) -> None:
        self._out.append(framed(wire))
        self._waiting += len(wire) + 2

    def _is_flight(self, wire: bytes, bare: bytes, mac: bytes, events: list[CarrierEvent], now: float) -> bool:
        """Whether this is the update that brings flight 1; the channel decides then."""
        zone = self._host.name_server.zone()
        question = Question(zone.origin, dns.SOA, dns.IN)
        if not self._is_request(bare, UPDATE_FLAGS, question) or not zone.is_signed:
            return False
        self._zone = question
        self._payload = Payload(zone.origin, style_of(zone.soa.signatures[0]), self._rng)
        self._up = Masks(self._channel_key, self._cookie, upward=True)
        self._down = Masks(self._channel_key, self._cookie, upward=False)
        flight = self._carried(bare)
        self._is_tried = True
        if not flight or not self._host.use(self._cookie, now):
            return False
        self._verdict = wire, int.from_bytes(wire[:2], "big"), mac
        events.append(Flight(flight, self._cookie, DNS_ANSWER))
        return True

    @staticmethod
    def _is_request(bare: bytes, flags: int, question: Question) -> bool:
        asked = question.name + dns.QUESTION_TAIL.pack(question.type, question.rdclass)
        _, given, questions, answers, _, additional = HEADER.unpack_from(bare)
        fits = (given, questions, answers, additional) == (flags, 1, 0, 0)
        return fits and bare[HEADER.size : HEADER.size + len(asked)] == asked

    def _carried(self, bare: bytes) -> bytes:
        """What an update carries; b"" for one that carries nothing as it should."""
        assert self._payload is not None
        assert self._zone is not None
        count = int.from_bytes(bare[8:10], "big")
        try:
            return self._payload.carried(bare, HEADER.size + len(self._zone.name) + 4, count, self._up)[0]
        except Violation:
            return b""

    def _on_session(self, bare: bytes, mac: bytes, events: list[CarrierEvent], now: float) -> bool:
        assert self._zone is not None
        id = int.from_bytes(bare[:2], "big")
        if self._is_request(bare, UPDATE_FLAGS, self._zone):
            data = self._carried(bare)
            if data:
                self._acknowledge(bare, id, mac)
                events.append(Data(data))
            return bool(data)
        if (
            not self._is_request(bare, dns.RD, Question(self._zone.name, dns.AXFR, dns.IN))
            or self._transfer is not None
        ):
            return False
        self._transfer = _Transfer(id, mac, now + self._rng.uniform(*DNS_TRANSFER_S))
        if self._is_ending:
            events += self._end()
        return True

    def _acknowledge(self, wire: bytes, id: int, mac: bytes) -> None:
        assert self._zone is not None
        writer = Writer(id, dns.QR | UPDATE_FLAGS)
        writer.question(self._zone)
        self._put(sign(writer.done(), self._key, self._host.name_server.unix(), mac)[0])
        self._is_behind = True

    # --- The transfer -----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Put what waits into messages of the transfer; its first one leaves at once."""
        while self._transfer is not None and self._payload is not None:
            if self._flight:
                self._message(self._flight)
                self._flight = b""
            elif self._queue:
                self._message(self._chunk(self._payload.room))
                if self._transfer.bytes > DNS_TRANSFER_BYTES:
                    self._message(b"", is_last=True)
            elif not self._transfer.has_begun:
                self._message(b"")
            else:
                return

    def _message(self, data: bytes, *, is_last: bool = False) -> None:
        """One message of the transfer: SOA if it is the first, then ``data``, or SOA if it is the last."""
        transfer, payload = self._transfer, self._payload
        assert transfer is not None
        assert payload is not None
        assert self._zone is not None
        writer = Writer(transfer.id, dns.QR | dns.AA)
        soas = 0
        if not transfer.has_begun:
            writer.question(Question(self._zone.name, dns.AXFR, dns.IN))
            soas += self._soa(writer)
        records, count = b"", 0
        if data:
            at = HEADER.size if soas else None
            records, count = payload.records(data, self._down.next(), len(writer.wire), at)
        if is_last:
            soas += self._soa(writer)
        wire = bytearray(writer.done() + records)
        wire[6:8] = (soas + count).to_bytes(2, "big")
        chained, transfer.mac = sign(
            bytes(wire), self._key, self._host.name_server.unix(), transfer.mac, goes_on=transfer.has_begun
        )
        self._put(chained)
        transfer.has_begun = True
        transfer.bytes += len(chained)
        if is_last:
            self._transfer = None

    def _soa(self, writer: Writer) -> int:
        zone = self._host.name_server.zone()
        writer.record(1, zone.origin, dns.SOA, dns.IN, zone.soa.ttl, zone.soa.data[0])
        return 1

    def _end(self) -> list[CarrierEvent]:
        """Everything that waits, and the end of the transfer; or wait until the client asks for one."""
        if self._transfer is None and (self._queue or self._flight):
            return []
        self._fill()
        if self._transfer is not None:
            self._message(b"", is_last=True)
        elif self._queue:
            return []
        return self._finish(lingers=True)
