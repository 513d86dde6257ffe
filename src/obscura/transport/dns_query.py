"""One DNS question and its answer as bytes (RFC 1035, 6891, 7830, 7871, 8467, 8484). No I/O."""

from __future__ import annotations

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.txtbase

from obscura.limits import DNS_PADDING, DOH_ANSWER
from obscura.node.resolvers import Answer

# No part of the client's address goes on to the name's own servers (RFC 7871, 7.1.2: source prefix length 0).
_NO_SUBNET = dns.edns.ECSOption("0.0.0.0", 0, 0)
_RCODES = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def query(name: str, kind: str) -> bytes:
    """A question for ``kind`` (TXT, A, AAAA). ID 0, so that caches and eyes see one form (RFC 8484, 4.1); padded."""
    question = dns.message.make_query(
        dns.name.from_text(name), kind, use_edns=0, payload=DOH_ANSWER, options=[_NO_SUBNET], pad=DNS_PADDING, id=0
    )
    return question.to_wire()


def read_answer(raw: bytes, name: str, kind: str) -> Answer:
    """What an answer says to ``query(name, kind)``; aliases are followed within it. Never raises for any bytes."""
    if len(raw) > 2 and raw[2] >> 3 & 15 != dns.opcode.QUERY:
        return Answer(kind, fault="it answers nonsense: no query's answer")  # other opcodes the library reads otherwise
    try:
        message = dns.message.from_wire(raw, raise_on_truncation=True)
        question = dns.message.make_query(dns.name.from_text(name), kind, id=0)
        if not isinstance(message, dns.message.QueryMessage) or not question.is_response(message):
            return Answer(kind, fault="it answers another question")
        if message.rcode() not in _RCODES:
            return Answer(kind, fault=f"it answers {dns.rcode.to_text(message.rcode())}")
        found = message.resolve_chaining()
    except (dns.exception.DNSException, ValueError) as error:
        return Answer(kind, fault=f"it answers nonsense: {type(error).__name__}")
    if found.answer is None and not any(part.rdtype == dns.rdatatype.SOA for part in message.authority):
        return Answer(kind)  # nothing says how long that stays so (RFC 2308, 5)
    return Answer(kind, tuple(_payload(item) for item in found.answer or ()), found.minimum_ttl)


def _payload(item: dns.rdata.Rdata) -> bytes:
    if isinstance(item, dns.rdtypes.txtbase.TXTBase):
        return b"".join(item.strings)
    return item.to_wire() or b""
