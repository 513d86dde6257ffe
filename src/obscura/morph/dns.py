"""Carrier ``dns``: DNS over TCP, pipelined (design 8; RFC 7766). Binding = the COOKIE option of the first answer.

    client                                              server
    SOA? with a client cookie                           SOA, its signature, the whole cookie
    UPDATE signed by TSIG, flight 1 in signatures       NOERROR, or BADSIG as for any wrong secret
    AXFR signed by TSIG                                 a transfer: flight 2, then the channel's bytes
    UPDATE ...                                          NOERROR ...

Updates carry the channel's bytes upward, transfers downward; when one transfer ends, the client asks for the next. To everybody
else the server is BIND with a zone (``dns_answer``); whatever is wrong with a signed request, that is whose answer it gets.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import inf
from typing import ClassVar

from obscura.errors import Violation
from obscura.limits import DNS_FLIGHT, DNS_PIPELINED, DNS_QUEUED, DNS_UDP_BYTES, UNAUTHENTICATED_BYTES
from obscura.morph import dns_message as dns
from obscura.morph import dns_reading
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready, coalesced
from obscura.morph.dns_message import HEADER, Message, Question, Writer
from obscura.morph.dns_payload import Masks, Payload, style_of
from obscura.morph.dns_tsig import Key, sign
from obscura.wire.address import CarrierNumber

COOKIE = 10  # the option of EDNS
UPDATE_FLAGS = dns.UPDATE << 11


def framed(wire: bytes) -> bytes:
    """With its length, as on TCP (RFC 1035, 4.2.2)."""
    return len(wire).to_bytes(2, "big") + wire


class Stream(Carrier):
    """What both roles share: messages out of the stream, and bytes that wait for one."""

    NUMBER: ClassVar[CarrierNumber] = CarrierNumber.DNS

    def __init__(self, rng: random.Random, key: Key, channel_key: bytes) -> None:
        self._rng = rng
        self._key = key
        self._channel_key = channel_key
        self._in = bytearray()
        self._queue = bytearray()  # channel bytes that wait for a message
        self._is_over = False

    def _messages(self) -> Iterator[bytes]:
        """Whole messages of the input, each taken from it as it is asked for."""
        while len(self._in) >= 2:
            end = 2 + (self._in[0] << 8 | self._in[1])
            if len(self._in) < end:
                return
            wire = bytes(memoryview(self._in)[2:end])
            del self._in[:end]
            yield wire

    def _chunk(self, room: int) -> bytes:
        """What goes into one message, taken from what waits."""
        chunk = bytes(memoryview(self._queue)[:room])
        del self._queue[:room]
        return chunk

    def _finish(self, *, lingers: bool = False, resets: bool = False) -> list[CarrierEvent]:
        if self._is_over:
            return []
        self._is_over = True
        return [Finished(lingers, resets)]


class DnsClient(Stream):
    """A program that keeps a zone up to date and follows it. It sends what dnspython sends, field by field."""

    def __init__(self, rng: random.Random, origin: bytes, key: Key, channel_key: bytes) -> None:
        """``origin``: the zone, lower case."""
        super().__init__(rng, key, channel_key)
        self._origin = origin
        self._out: list[bytes] = []
        self._asked = rng.getrandbits(16)  # the id of the query, then of the transfer
        self._updates: set[int] = set()  # ids without an answer
        self._payload: Payload | None = None
        self._up = self._down = Masks(channel_key, b"", upward=True)
        self._clock = 0.0  # the server's, less ours
        self._has_answer = False  # flight 2 is here
        self._is_ending = False
        self._soas = 0  # of the transfer under way
        self._given_up = inf
        self._now = 0.0  # when something was last sent

    # --- Carrier ----------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[CarrierEvent]:
        query = Writer(self._asked, dns.RD)
        query.question(Question(self._origin, dns.SOA, dns.IN))
        option = dns.QUESTION_TAIL.pack(COOKIE, 8) + self._rng.getrandbits(64).to_bytes(8, "big")
        query.record(3, b"\0", dns.OPT, DNS_UDP_BYTES[1], dns.DO, option)
        self._out.append(framed(query.done()))
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        events: list[CarrierEvent] = []
        if self._is_over:
            return events
        self._in += data
        try:
            for wire in self._messages():
                if len(wire) < HEADER.size:
                    raise Violation("a message without a header")
                self._on_message(wire, now, events)
        except Violation:
            events += self._finish()
        return events

    def send_flight(self, flight: bytes, now: float) -> None:
        self._update(flight, now)
        self._transfer(now)

    def send(self, data: bytes, now: float) -> None:
        if self._has_answer and not self._is_over:
            self._queue += data
            self._now = now

    def take(self) -> list[bytes]:
        if self._payload is not None:
            while self._queue and (len(self._updates) < DNS_PIPELINED or self._is_ending):
                self._update(self._chunk(self._payload.room), self._now)
        out, self._out = self._out, []
        return coalesced(out)

    def refuse(self, now: float) -> None:
        self._given_up = now

    def end(self, now: float) -> list[CarrierEvent]:
        self._is_ending = True
        return self._finish()

    def eof(self, now: float) -> list[CarrierEvent]:
        return self._finish()

    def deadline(self) -> float:
        return inf if self._is_over else self._given_up

    def due(self, now: float) -> list[CarrierEvent]:
        return self._finish() if now >= self._given_up else []

    @property
    def is_blocked(self) -> bool:
        return len(self._queue) > DNS_QUEUED and len(self._updates) >= DNS_PIPELINED

    # --- Requests ---------------------------------------------------------------------------------------------------

    def _fresh(self) -> int:
        id = self._rng.getrandbits(16)
        while id in self._updates or id == self._asked:
            id = self._rng.getrandbits(16)
        return id

    def _update(self, data: bytes, now: float) -> None:
        assert self._payload is not None, "Ready comes first"
        id = self._fresh()
        self._updates.add(id)
        records, count = self._payload.update(data, self._up.next())
        head = HEADER.pack(id, UPDATE_FLAGS, 1, 0, count, 0)
        zone = self._origin + dns.QUESTION_TAIL.pack(dns.SOA, dns.IN)
        self._sign(b"".join((head, zone, records)), now)

    def _transfer(self, now: float) -> None:
        self._asked = self._fresh()
        self._soas = 0
        head = HEADER.pack(self._asked, dns.RD, 1, 0, 0, 0)
        self._sign(head + self._origin + dns.QUESTION_TAIL.pack(dns.AXFR, dns.IN), now)

    def _sign(self, wire: bytes, now: float) -> None:
        self._out.append(framed(sign(wire, self._key, int(now + self._clock))[0]))

    # --- Answers ----------------------------------------------------------------------------------------------------

    def _on_message(self, wire: bytes, now: float, events: list[CarrierEvent]) -> None:
        id, flags, questions, answers, _, _ = HEADER.unpack_from(wire)
        if not flags & dns.QR or flags & 15:
            raise Violation("refused")
        if self._payload is None:
            events.append(self._on_zone(wire, now))
        elif id in self._updates and flags >> 11 & 15 == dns.UPDATE:
            self._updates.discard(id)
        elif id == self._asked and flags >> 11 & 15 == dns.QUERY:
            at = HEADER.size + (len(self._origin) + 4 if questions else 0)
            data, soas = self._payload.carried(wire, at, answers, self._down)
            self._soas += soas
            if data:
                events.append(self._carried(data))
            if self._soas > 1:
                self._transfer(now)
        else:
            raise Violation("an answer to nothing")

    def _carried(self, data: bytes) -> CarrierEvent:
        if self._has_answer:
            return Data(data)
        if len(data) > UNAUTHENTICATED_BYTES:
            raise Violation("no flight has this size")
        self._has_answer = True
        return Flight(data)

    def _on_zone(self, wire: bytes, now: float) -> CarrierEvent:
        """The first answer: when the server thinks it is, how its zone is signed, and the binding."""
        message = Message.begun(wire)
        dns_reading.read(message)
        cookie = (message.options or {}).get(COOKIE, b"")
        signatures = [record.data for record in message.answers if record.type == dns.RRSIG]
        if message.id != self._asked or len(cookie) < 24 or not signatures or len(signatures[0]) < 20:
            raise Violation("no zone of the kind")
        self._clock = int.from_bytes(cookie[12:16], "big") - now
        self._now = now
        self._payload = Payload(self._origin, style_of(signatures[0]), self._rng)
        self._up = Masks(self._channel_key, cookie, upward=True)
        self._down = Masks(self._channel_key, cookie, upward=False)
        return Ready(cookie, DNS_FLIGHT)
