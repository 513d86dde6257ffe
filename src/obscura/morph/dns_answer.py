"""What a stranger's message gets: the answers of BIND 9.18 as a server of its own zones alone (RFC 1035, 2136, 8906).

Equivalent configuration: ``recursion no; minimal-responses yes; version none; hostname none``, ``allow-transfer`` and
``allow-update`` by a TSIG key, whose secret no stranger has: so every signature is a wrong one here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

import msgspec
from siphashc import siphash

from obscura.errors import Violation
from obscura.limits import DNS_UDP_BYTES
from obscura.morph import dns_message as dns
from obscura.morph import dns_reading
from obscura.morph.dns_message import Message, Question, Writer, is_below, name_of
from obscura.morph.dns_tsig import BADKEY, BADSIG, HMAC_SHA256, MAC_BYTES, Key, Signature, read_signature, refused
from obscura.morph.dns_zone import Found, RRset, Zone

_ECS, _EXPIRE, _COOKIE, _KEEPALIVE = 8, 9, 10, 11
_COOKIE_HEAD: Final = Struct("!BBBBI")  # version, three reserved bytes, time (RFC 9018, 4)
_KEEPALIVE_UNITS: Final = 300  # of 0.1 s (tcp-keepalive-timeout)
_LEAST_MAC: Final = MAC_BYTES // 2  # bytes (RFC 8945, 5.2.2.1)
_TSIG_ENDS: Final = 16  # bytes of a TSIG beside its names and MAC (RFC 8945, 4.2)
_META: Final = frozenset({dns.OPT, *range(128, 251)})  # types that nobody may ask for
_UNKNOWN_CLASSES: Final = (0, dns.NONE, dns.ANY_CLASS)
_KNOWN_CLASSES: Final = (dns.IN, dns.CH, dns.HS)
_ABOUT: Final = tuple(name_of(name) for name in ("version.bind", "hostname.bind", "authors.bind", "id.server"))
_ABOUT_TTL: Final = 86_400
_TURNS: Final = {dns.A: 0, dns.AAAA: 1, dns.RRSIG: 2}  # of additional records, over IPv4
_TURNS_BY_IPV6: Final = {dns.AAAA: 0, dns.A: 1, dns.RRSIG: 2}
_IPV4_MAPPED: Final = "::ffff:"  # IPv4 at a socket for both
_ERROR: Final = 15
_PROHIBITED: Final = b"\0\x12"  # RFC 8914, 4.19
_OPCODES: Final = (dns.QUERY, dns.UPDATE, dns.NOTIFY)
_PRESERVED: Final = dns.RD | dns.CD


class Answer(NamedTuple):
    """``wire``: None where nothing is said and the connection ends. ``cookie``: the one that it gives, b"" without.

    ``is_change``: the message was no query; from then on BIND takes one message after the other.
    """

    wire: bytes | None
    cookie: bytes = b""
    is_change: bool = False


class NameServer:
    """What the connections and datagrams of one listener share. ``secret``: 16 random bytes of this process."""

    def __init__(self, zone: Callable[[], Zone], key: Key, secret: bytes, unix: Callable[[], int]) -> None:
        dns_reading.looked_into()  # now, rather than while the first stranger waits
        self.zone = zone
        self.key = key
        self.unix = unix
        self._secret = secret
        self._cookie_time = 0

    def answer(self, wire: bytes, rng: random.Random, *, is_tcp: bool, by: str = "") -> Answer:
        """The answer to one message, which came over TCP or UDP."""
        answering = self.answering(wire, rng, is_tcp=is_tcp, by=by)
        while True:
            try:
                next(answering)
            except StopIteration as answered:
                return answered.value  # type: ignore[no-any-return]

    def answering(
        self, wire: bytes, rng: random.Random, *, is_tcp: bool, by: str = ""
    ) -> Generator[None, None, Answer]:
        """``answer`` in steps of a millisecond or two: 64 KiB take some twenty. ``by``: an address of either end, if known."""
        if len(wire) < dns.HEADER.size:
            return Answer(None)
        message = Message.begun(wire)
        if message.flags & dns.QR:
            return Answer(None)
        is_ipv6 = ":" in by and not by.startswith(_IPV4_MAPPED)
        reply = _Reply(self, message, rng, is_tcp=is_tcp, is_ipv6=is_ipv6)
        try:
            yield from dns_reading.reading(message)
            signature = read_signature(wire, message.tsig) if message.tsig is not None else None
        except Violation:
            message.opt = message.tsig = None
            return Answer(reply.fail(dns.FORMERR))
        return Answer(reply.answer(signature), reply.cookie, reply.is_change)

    def cookie(self, client: bytes) -> bytes:
        """A whole COOKIE option (RFC 9018, 4.4). The asker's address is not in it, since carriers know no addresses."""
        now = self.unix()
        if now < self._cookie_time:  # a clock that was set back must not give a cookie twice: flights are bound to it
            self._secret = sha256(self._secret).digest()[: len(self._secret)]
        self._cookie_time = now
        head = _COOKIE_HEAD.pack(1, 0, 0, 0, now & 0xFFFFFFFF)
        return client + head + siphash(self._secret, client + head).to_bytes(8, "little")


_Part = tuple[RRset, int, list[bytes]]  # what is rendered together: the type is that of the set, or of its signatures


class _Reply:
    """One answer in the making."""

    def __init__(
        self, server: NameServer, message: Message, rng: random.Random, *, is_tcp: bool, is_ipv6: bool
    ) -> None:
        self._server = server
        self._message = message
        self._rng = rng
        self._is_tcp = is_tcp
        self._turns = _TURNS_BY_IPV6 if is_ipv6 else _TURNS
        self._options: list[tuple[int, bytes]] = []
        self._kept = 0  # bytes for a TSIG
        self.cookie = b""
        self.is_change = message.opcode != dns.QUERY

    # --- The order in which a server looks ---------------------------------------------------------------------------

    def answer(self, signature: Signature | None) -> bytes:
        message = self._message
        if message.opt is not None:
            if message.opt.ttl >> 16 & 0xFF:
                return self.fail(dns.BADVERS)
            if not self._take_options(message.options):
                message.opt = msgspec.structs.replace(message.opt, ttl=0)  # its flags are not looked at any more
                self.is_change = False
                return self.fail(dns.FORMERR)
        is_known = message.opcode in _OPCODES
        if not is_known and not (message.questions and self._is_looked_at(message.questions[0].rdclass)):
            return self.fail(dns.NOTIMP)
        if not message.questions:
            is_cookie_only = message.opcode == dns.QUERY and self.cookie
            return self._write(Found(0, False, [], [], [])) if is_cookie_only else self.fail(dns.FORMERR)
        rdclass = message.questions[0].rdclass
        if rdclass in _UNKNOWN_CLASSES:
            return self.fail(dns.FORMERR)
        if rdclass not in _KNOWN_CLASSES:
            return self.fail(dns.NOTIMP)
        if rdclass == dns.HS:  # no view, and so no key
            refusal, unix = self.fail(dns.REFUSED if is_known else dns.NOTIMP), self._server.unix()
            return refusal if signature is None else refused(refusal, signature, signature.key, BADKEY, unix)
        if signature is not None:
            return self._wrongly_signed(signature)
        if message.opcode == dns.QUERY:
            return self._query(message.questions[0])
        if message.opcode == dns.UPDATE:
            return self._update(message.questions[0])
        return self._notify(message.questions[0])

    def _is_looked_at(self, rdclass: int) -> bool:
        """Whether more than an operation that nobody knows is found wrong with a message."""
        return rdclass in (dns.NONE, dns.ANY_CLASS) or (self._message.tsig is not None and rdclass != 0)

    def _take_options(self, options: dict[int, bytes] | None) -> bool:
        if options is None:
            return False
        client = options.get(_COOKIE)
        if client is not None:
            self.cookie = self._server.cookie(client[:8])
            self._options.append((_COOKIE, self.cookie))
        subnet = options.get(_ECS)
        if subnet is not None:
            shown = _subnet(subnet)
            if shown is None:
                return False
            self._options.append((_ECS, shown))
        if _EXPIRE in options and self._is_soa_query():
            self._options.append((_EXPIRE, self._server.zone().soa.data[0][-8:-4]))
        if _KEEPALIVE in options and self._is_tcp:
            self._options.append((_KEEPALIVE, _KEEPALIVE_UNITS.to_bytes(2, "big")))
        return True

    def _is_soa_query(self) -> bool:
        asked = self._message.questions
        is_soa = self._message.opcode == dns.QUERY and bool(asked) and asked[0].type == dns.SOA
        return is_soa and asked[0].name.lower() == self._server.zone().origin

    def _wrongly_signed(self, signature: Signature) -> bytes:
        key = self._server.key
        error, rcode, name = BADSIG, dns.NOTAUTH, key.name
        if signature.key != key.name or signature.algorithm != HMAC_SHA256:
            error, name = BADKEY, signature.key
        elif signature.mac and not _LEAST_MAC <= len(signature.mac) <= MAC_BYTES:
            rcode = dns.FORMERR
        self._kept = len(name) + dns.RECORD_TAIL.size + len(signature.algorithm) + _TSIG_ENDS
        self._kept += MAC_BYTES if error == BADSIG else 0  # which is left out, but for which BIND keeps room
        return refused(self.fail(rcode), signature, name, error, self._server.unix())

    # --- Questions ----------------------------------------------------------------------------------------------------

    def _query(self, question: Question) -> bytes:
        if self._message.more:
            return self.fail(dns.FORMERR)
        kind, name, zone = question.type, question.name.lower(), self._server.zone()
        if kind in (dns.AXFR, dns.IXFR):
            is_apex = (
                name == zone.origin if question.rdclass == dns.IN else name in _ABOUT and question.rdclass == dns.CH
            )
            if not is_apex:
                return self.fail(dns.NOTAUTH)
            self._options.append((_ERROR, _PROHIBITED))
            return self.fail(dns.REFUSED)
        if kind in _META:
            return self.fail(dns.FORMERR)
        if kind in (253, 254):  # MAILB, MAILA
            return self.fail(dns.NOTIMP)
        if question.rdclass == dns.CH:
            return self._about(question)
        if question.rdclass != dns.IN or not is_below(name, zone.origin):
            return self.fail(dns.REFUSED)
        found = zone.answer(question.name, kind, is_secured=self._is_secured)
        if kind == dns.SOA and found.rcode == dns.NXDOMAIN:  # zero-no-soa-ttl
            found.authority = [_dying(rrset) if rrset.type == dns.SOA else rrset for rrset in found.authority]
        if self._is_spare and kind == dns.NS and all(rrset.type != dns.NS for rrset in found.authority):
            found.additional.clear()  # a referral keeps them
        return self._write(found)

    def _about(self, question: Question) -> bytes:
        """``version.bind`` and the like, of a server that does not tell."""
        name = question.name.lower()
        zone = next((zone for zone in _ABOUT if is_below(name, zone)), None)
        if zone is None:
            return self.fail(dns.REFUSED)
        numbers = b"".join(number.to_bytes(4, "big") for number in (0, 28_800, 7_200, 604_800, _ABOUT_TTL))
        soa = RRset(zone, dns.SOA, _ABOUT_TTL, (zone + name_of("hostmaster")[:-1] + zone + numbers,))
        found = Found(dns.NOERROR, True, [], [], [])
        if name == zone and question.type in (dns.SOA, dns.ANY):
            found.answer.append(msgspec.structs.replace(soa, name=question.name))
        if name == zone and question.type in (dns.NS, dns.ANY):
            found.answer.append(RRset(question.name, dns.NS, 0, (zone,)))
        if not found.answer:
            found.rcode = dns.NOERROR if name == zone else dns.NXDOMAIN
            found.authority.append(soa)
        if question.type == dns.SOA and found.rcode == dns.NXDOMAIN:
            found.authority = [_dying(soa)]
        return self._write(found)

    def _update(self, question: Question) -> bytes:
        if question.type != dns.SOA:
            return self.fail(dns.FORMERR)
        if question.rdclass == dns.CH:
            return self.fail(dns.NOTIMP)
        if self._message.more:
            return self.fail(dns.FORMERR)
        is_ours = question.name.lower() == self._server.zone().origin and question.rdclass == dns.IN
        return self.fail(dns.REFUSED if is_ours else dns.NOTAUTH)

    def _notify(self, question: Question) -> bytes:
        if question.type != dns.SOA:
            return self.fail(dns.FORMERR)
        if question.rdclass == dns.CH:
            return self.fail(dns.NOTIMP)
        if self._message.more:
            return self.fail(dns.FORMERR)
        if question.name.lower() != self._server.zone().origin or question.rdclass != dns.IN:
            return self.fail(dns.NOTAUTH)
        return self._write(Found(dns.NOERROR, True, [], [], []))

    # --- Writing ------------------------------------------------------------------------------------------------------

    @property
    def _is_secured(self) -> bool:
        return self._message.opt is not None and bool(self._message.opt.ttl & dns.DO)

    def _begun(self, rcode: int, more: int = 0) -> Writer:
        """A reply with the question, if there is one that may be repeated."""
        message = self._message
        kept = message.flags & _PRESERVED if message.opcode == dns.QUERY else 0
        writer = Writer(message.id, dns.QR | message.opcode << 11 | kept | more | rcode & 15)
        if message.questions and message.opcode in _OPCODES:
            writer.question(message.questions[0])
            writer.questions(message.more, self._limit)
        return writer

    def fail(self, rcode: int) -> bytes:
        """An answer without records."""
        writer = self._begun(rcode)
        self._finish(writer, rcode)
        return writer.done()

    def _finish(self, writer: Writer, rcode: int) -> None:
        opt = self._message.opt
        if opt is not None:
            data = b"".join(dns.QUESTION_TAIL.pack(code, len(value)) + value for code, value in self._options)
            writer.record(3, b"\0", dns.OPT, DNS_UDP_BYTES[1], rcode >> 4 << 24 | opt.ttl & dns.DO, data)

    def _write(self, found: Found) -> bytes:
        """Whole sets of records, as many as fit; over UDP some may not."""
        writer = self._begun(found.rcode, dns.AA if found.is_authoritative else 0)
        limit = self._limit
        for number, section in ((1, found.answer), (2, found.authority), (3, found.additional)):
            for rrset, kind, records in self._rendered(number, section):
                if not self._records(writer, number, rrset, kind, records, limit):
                    if number < 3:
                        more = writer.flags & dns.AA | dns.TC
                        writer = self._begun(found.rcode, more) if self._message.opt is not None else writer
                        writer.flags |= dns.TC
                    self._finish(writer, found.rcode)
                    return writer.done()
        self._finish(writer, found.rcode)
        return writer.done()

    @property
    def _limit(self) -> int:
        """Bytes of an answer before the records that say how it is said."""
        opt = 11 + sum(4 + len(value) for _, value in self._options) if self._message.opt is not None else 0
        return (0xFFFF if self._is_tcp else self._most()) - opt - self._kept

    @property
    def _is_spare(self) -> bool:
        """Whether the asker says by EDNS that it has no more room than without."""
        opt = self._message.opt
        return not self._is_tcp and opt is not None and opt.rdclass <= DNS_UDP_BYTES[0]

    def _most(self) -> int:
        opt = self._message.opt
        return DNS_UDP_BYTES[0] if opt is None else min(max(opt.rdclass, DNS_UDP_BYTES[0]), DNS_UDP_BYTES[1])

    def _rendered(self, number: int, section: list[RRset]) -> list[_Part]:
        """A section's sets and the signatures that are wanted.

        Of the additional ones first the glue that was asked for, then by type, of each what is at that name first: addresses
        before signatures.
        """
        asked = self._message.questions[0]
        is_signed = self._is_secured or (number == 1 and asked.type == dns.ANY)
        parts: list[_Part] = []
        for rrset in _by_owner(section):
            parts.append((rrset, rrset.type, self._turned(rrset.data)))
            if is_signed and rrset.signatures:
                parts.append((rrset, dns.RRSIG, list(rrset.signatures)))
        if number == 3:
            glue = {part[0].name.lower() for part in parts if part[1] == asked.type} & {asked.name.lower()}
            parts.sort(key=lambda part: part[0].name.lower() not in glue)
            parts.sort(key=lambda part: self._turns.get(part[1], 0))
            parts.sort(key=lambda part: part[1] != asked.type or part[0].name.lower() not in glue)
        return parts

    def _turned(self, data: tuple[bytes, ...]) -> list[bytes]:
        """In another order each time. One number draws all of it, so that of four records BIND shows 12 orders, not 24."""
        turned, drawn = list(data), self._rng.getrandbits(32)
        for at in range(len(turned) - 1):
            other = at + drawn % (len(turned) - at)
            turned[at], turned[other] = turned[other], turned[at]
        return turned

    def _records(self, writer: Writer, section: int, rrset: RRset, kind: int, records: list[bytes], limit: int) -> bool:
        """Write them; False where they do not fit."""
        mark = writer.mark()
        for one in records:
            writer.record(section, rrset.name, kind, self._message.questions[0].rdclass, rrset.ttl, one)
        if len(writer.wire) > limit:
            writer.back(mark)
            return False
        return True


def _dying(rrset: RRset) -> RRset:
    return msgspec.structs.replace(rrset, ttl=0)


def _subnet(option: bytes) -> bytes | None:
    """ECS as it is repeated by who makes no use of it (RFC 7871, 7.2.1); None for one that is malformed."""
    if len(option) < 4:
        return None
    family, source, scope = int.from_bytes(option[:2], "big"), option[2], option[3]
    most = {0: 0, 1: 32, 2: 128}.get(family)
    if most is None or source > most or scope or len(option) != 4 + -(-source // 8):
        return None
    if source % 8 and option[-1] & 0xFF >> source % 8:
        return None
    return option


def _by_owner(section: list[RRset]) -> list[RRset]:
    """Names in the order of their first record, each with all of its records (as BIND renders a section)."""
    order = {name: number for number, name in reversed(list(enumerate(rrset.name.lower() for rrset in section)))}
    return sorted(section, key=lambda rrset: order[rrset.name.lower()])
