"""Carrier dns: what is on the wire by dnspython's judgement, what strangers get, and what an attacker tries."""

from __future__ import annotations

import asyncio
import base64
import random
import threading
from collections import Counter
from collections.abc import Iterator

import dns.dnssec
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import dns.update
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carriers import FLIGHT_1, FLIGHT_2, KEY, MAKERS, End, Wire
from dns_pair import UNIX, dns_host, name_server, zone_of
from obscura.daemon.dns_cover import LiveZone, converted, parse_zone
from obscura.errors import UserError, Violation
from obscura.limits import (
    DNS_COOKIE_S,
    DNS_COOKIES,
    DNS_IDLE_S,
    DNS_TRANSFER_S,
    DNS_UNREAD_BYTES,
    DNS_WRITE_BYTES,
    TRIALS_PER_S,
)
from obscura.morph import dns_message as wire_format
from obscura.morph.carrier import Data, Finished, Flight, Ready
from obscura.morph.dns import DnsClient
from obscura.morph.dns_answer import NameServer
from obscura.morph.dns_message import Message, is_below, name_of, read_name, text_of
from obscura.morph.dns_names import origin_for_key, tsig_key, zone_text
from obscura.morph.dns_payload import Masks, Payload, Style
from obscura.morph.dns_reading import read
from obscura.morph.dns_server import DnsHost, DnsServer
from obscura.morph.dns_zone import Zone

ORIGIN = origin_for_key(KEY)
KEYRING = dns.tsigkeyring.from_text({text_of(tsig_key(KEY).name): base64.b64encode(tsig_key(KEY).secret).decode()})
OTHERS = dns.tsigkeyring.from_text({text_of(tsig_key(KEY).name): base64.b64encode(b"z" * 32).decode(), "else": "eno="})
STYLE = Style(3_600, UNIX + 1_000_000, UNIX, 4_711)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """dnspython lives at the same time as the listener."""
    monkeypatch.setattr("time.time", lambda: UNIX)


def split(stream: bytes) -> Iterator[bytes]:
    """Messages of a TCP stream."""
    at = 0
    while at < len(stream):
        size = int.from_bytes(stream[at : at + 2], "big")
        yield bytes(stream[at + 2 : at + 2 + size])
        at += 2 + size


def framed(*messages: bytes) -> bytes:
    return b"".join(len(wire).to_bytes(2, "big") + wire for wire in messages)


def ask(wire: bytes, host: DnsHost | None = None) -> tuple[list[bytes], End]:
    """A stranger's stream, all of it at once: the answers, and the server's end."""
    end = End((host or dns_host(KEY)).server(random.Random(1)), client=False, refuses=True)
    end.on(end.carrier.start(0.0), 0.0)
    end.on(end.carrier.receive(wire, 0.0), 0.0)
    out = b"".join(end.carrier.take())
    while end.finished is None and end.carrier.deadline() <= 0.0:
        end.on(end.carrier.due(0.0), 0.0)
        out += b"".join(end.carrier.take())
    return list(split(out)), end


def query(name: str, kind: str = "A", **more: object) -> dns.message.Message:
    made = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
    made.id = 7
    return made


def answer_to(message: dns.message.Message | bytes) -> dns.message.Message:
    wire = message if isinstance(message, bytes) else message.to_wire()
    (answer,), _ = ask(framed(wire))
    return dns.message.from_wire(answer, keyring=False)


# --- The session, by dnspython --------------------------------------------------------------------------------------------


def test_the_first_question_is_dnspythons_byte_for_byte() -> None:
    wire = Wire(MAKERS["dns"])
    (asked,) = split(b"".join(wire.client.carrier.take()))
    cookie = asked[-8:]
    same = dns.message.make_query(
        ORIGIN, "SOA", want_dnssec=True, payload=1232, options=[dns.edns.GenericOption(10, cookie)]
    )
    same.id = int.from_bytes(asked[:2], "big")
    assert same.to_wire() == asked


def test_updates_are_signed_records_of_the_zone_and_every_request_is_answered_once() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    wire.client.carrier.send(b"u" * 5_000, 0.0)
    wire.run()
    requests, answers = list(split(bytes(wire.tapped[True]))), list(split(bytes(wire.tapped[False])))
    macs = {}
    for raw in requests[1:]:
        message = dns.message.from_wire(raw, keyring=KEYRING)
        assert message.had_tsig
        macs[message.id] = message.mac
        if message.opcode() == dns.opcode.UPDATE:
            assert {rrset.rdtype for rrset in message.sections[2]} == {dns.rdatatype.RRSIG}
            assert {rrset.name for rrset in message.sections[2]} == {dns.name.from_text(ORIGIN)}  # else BIND refuses
            assert {rdata.labels for rrset in message.sections[2] for rdata in rrset} == {2}
    updates = [raw for raw in answers if raw[2] >> 3 & 15 == dns.opcode.UPDATE]
    for raw in updates:
        message = dns.message.from_wire(raw, keyring=KEYRING, request_mac=macs[int.from_bytes(raw[:2], "big")])
        assert message.rcode() == dns.rcode.NOERROR
    assert Counter(raw[:2] for raw in updates) == Counter(
        r[:2] for r in requests if r[2] >> 3 & 15 == dns.opcode.UPDATE
    )


def test_transfers_begin_and_end_with_soa_their_signatures_are_chained_and_the_next_follows() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    sent = b""
    for turn in range(3):
        piece = bytes([turn]) * 30_000
        wire.server.carrier.send(piece, wire.now)
        sent += piece
        wire.run()
        wire.now = wire.server.carrier.deadline()
        assert wire.now <= DNS_TRANSFER_S[1] * (turn + 1)
        wire.due(wire.server)
        wire.run()
    assert bytes(wire.client.data) == sent
    requests = [raw for raw in split(bytes(wire.tapped[True])) if raw[2] == 1 and raw[3] == 0][1:]
    assert len(requests) >= 4
    answers = list(split(bytes(wire.tapped[False])))
    for raw in requests[:3]:
        context, soas, before = None, 0, dns.message.from_wire(raw, keyring=KEYRING).mac
        for part in [part for part in answers if part[:2] == raw[:2]]:
            message = dns.message.from_wire(
                part, keyring=KEYRING, xfr=True, request_mac=before, tsig_ctx=context, multi=True, one_rr_per_rrset=True
            )
            context = message.tsig_ctx
            kinds = [rrset.rdtype for rrset in message.answer]
            soas += kinds.count(dns.rdatatype.SOA)
            assert message.had_tsig
        assert soas == 2
        assert kinds[-1] == dns.rdatatype.SOA


def test_answers_may_come_in_another_order() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    for _ in range(4):
        wire.client.carrier.send(b"x" * 300, 0.0)
        wire.collect(wire.client)
    while wire.deliver(wire.server):
        pass
    answers = list(split(b"".join(wire.server.carrier.take())))
    wire.client.on(wire.client.carrier.receive(framed(*reversed(answers)), 0.0), 0.0)
    assert wire.client.finished is None


@pytest.mark.parametrize("up", [True, False])
def test_expansion_at_1400_bytes_is_half_at_most_with_what_comes_back(up: bool) -> None:
    wire = Wire(MAKERS["dns"]).opened()
    before = [len(wire.tapped[side]) for side in (True, False)]
    for number in range(20):
        (wire.client if up else wire.server).carrier.send(random.Random(number).randbytes(1_400), 0.0)
        wire.run()
    grown = sum(len(wire.tapped[side]) for side in (True, False)) - sum(before)
    assert grown <= 1.5 * 20 * 1_400


def test_what_waits_for_a_transfer_is_bounded_and_arrives_with_the_next() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    wire.now = wire.server.carrier.deadline()
    wire.due(wire.server)  # the transfer ends; the client has not asked for the next one yet
    assert not wire.server.carrier.is_blocked
    wire.server.carrier.send(b"w" * 300_000, wire.now)
    assert wire.server.carrier.is_blocked
    wire.run()
    assert bytes(wire.client.data) == b"w" * 300_000
    assert not wire.server.carrier.is_blocked


def test_a_client_stops_while_its_updates_are_not_answered() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    for _ in range(200):
        wire.client.carrier.send(b"c" * 20_000, 0.0)
        wire.collect(wire.client)
    assert wire.client.carrier.is_blocked
    wire.run()
    assert bytes(wire.server.data) == b"c" * 4_000_000
    assert not wire.client.carrier.is_blocked


# --- The payload ----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=3_000), st.integers(0, 1 << 30), st.booleans())
@settings(deadline=None, max_examples=60)
def test_records_carry_any_bytes_and_are_records(data: bytes, seed: int, has_origin: bool) -> None:
    origin = name_of("some.example.org")
    payload = Payload(origin, STYLE, random.Random(seed))
    data = data[: payload.room]
    head = bytes(12) + (origin + bytes(4) if has_origin else b"")
    records, count = payload.records(data, Masks(KEY, b"b", upward=True).next(), len(head), 12 if has_origin else None)
    assert payload.carried(head + records, len(head), count, Masks(KEY, b"b", upward=True)) == (data, 0)
    wire = bytearray(head + records)
    wire[4:8] = has_origin.to_bytes(2, "big") + count.to_bytes(2, "big")
    if has_origin:
        wire[-len(records) - 4 : -len(records)] = b"\0\6\0\1"
    for rrset in dns.message.from_wire(bytes(wire)).answer:
        assert rrset.name.is_subdomain(dns.name.from_text("some.example.org"))
        if rrset.rdtype == dns.rdatatype.RRSIG:
            assert {len(rdata.signature) for rdata in rrset} == {256}
            assert {rdata.signer.to_text() for rdata in rrset} == {"some.example.org."}


@given(st.binary(min_size=1, max_size=3_000), st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=60)
def test_updates_carry_any_bytes(data: bytes, seed: int) -> None:
    payload = Payload(name_of("example.org"), STYLE, random.Random(seed))
    head = bytes(12) + name_of("example.org") + b"\0\6\0\1"
    records, count = payload.update(data, Masks(KEY, b"b", upward=True).next())
    assert payload.carried(head + records, len(head), count, Masks(KEY, b"b", upward=True)) == (data, 0)


@pytest.mark.parametrize(("key", "binding", "upward"), [(b"k" * 32, b"b", True), (KEY, b"c", True), (KEY, b"b", False)])
def test_who_has_another_key_session_or_direction_cannot_read_how_full_a_signature_is(
    key: bytes, binding: bytes, upward: bool
) -> None:
    payload = Payload(name_of("example.org"), STYLE, random.Random(1))
    right, wrong = Masks(KEY, b"b", upward=True), Masks(key, binding, upward=upward)
    failures = 0
    for _ in range(50):
        records, count = payload.records(b"x" * 300, right.next(), 12, None)
        try:
            assert payload.carried(bytes(12) + records, 12, count, wrong)[0] != b"x" * 300
        except Violation:
            failures += 1
    assert failures > 40


@pytest.mark.parametrize("cut", [0, 1, 5, 12, 30, 200, 280])
def test_records_that_are_cut_are_a_violation(cut: int) -> None:
    payload = Payload(name_of("example.org"), STYLE, random.Random(1))
    records, count = payload.records(b"x" * 300, 5, 12, None)
    with pytest.raises(Violation):
        payload.carried(bytes(12) + records[:cut], 12, count, Masks(KEY, b"", upward=True))


def test_messages_stay_below_64_kib_whatever_the_zones_name() -> None:
    for origin in ("a", "example.org", ".".join(["label" * 12] * 4)):
        payload = Payload(name_of(origin), STYLE, random.Random(1))
        records, _ = payload.records(bytes(payload.room), 0, 12, None)
        assert len(records) < 22_000


# --- Reading what strangers write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        b"\xc0\x00",  # itself
        b"\x01a\xc0\x00",  # round
        b"\xc0\x02\xc0\x00",  # forward
        b"\x40" + b"a" * 64 + b"\0",  # a kind of label that does not exist
        b"\x80\0",
        b"\x3f" + b"a" * 10,  # over the end
        b"\x01",
        b"",
        b"\xc0",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",  # 257 bytes
        b"\x01a" * 128 + b"\0",
    ],
)
def test_bad_names_are_a_violation(wire: bytes) -> None:
    with pytest.raises(Violation):
        read_name(wire, 0)


def test_chains_of_pointers_end() -> None:
    wire = b"\x01a\0" + b"".join((0xC000 | max(0, at)).to_bytes(2, "big") for at in [0, *range(3, 4_001, 2)])
    assert read_name(wire, len(wire) - 2) == (b"\x01a\0", len(wire))


def test_a_message_full_of_chains_is_walked_once() -> None:
    """Each of its names hops over all that stand before it: millions of steps where nothing is remembered."""
    asked = query(ORIGIN).to_wire()
    chain = b"".join(
        (0xC000 | at).to_bytes(2, "big") for at in [12, *range(len(asked) + 11, len(asked) + 11 + 13_998, 2)]
    )
    last = (0xC000 | len(asked) + 11 + 13_998).to_bytes(2, "big")
    record = b"\0" + (65_280).to_bytes(2, "big") + b"\0\1\0\0\0\0" + len(chain).to_bytes(2, "big") + chain
    more = [last + (65_280).to_bytes(2, "big") + b"\0\1\0\0\0\0\0\0"] * 4_000
    wire = asked[:10] + (len(more) + 1).to_bytes(2, "big") + asked[12:] + record + b"".join(more)
    message = Message.begun(wire)
    read(message)
    assert len(message.additional) == 4_001
    assert {one.name for one in message.additional[1:]} == {name_of(ORIGIN)}
    assert len(message.names) == 7_001
    assert message.rare <= 16


@given(st.binary(max_size=80), st.integers(0, 79))
@settings(deadline=None, max_examples=300)
def test_names_are_read_as_by_dnspython(wire: bytes, at: int) -> None:
    try:
        expected, used = dns.name.from_wire(wire, min(at, len(wire)))
    except dns.exception.DNSException:
        with pytest.raises(Violation):
            read_name(wire, min(at, len(wire)))
        return
    assert read_name(wire, min(at, len(wire))) == (expected.to_wire(), min(at, len(wire)) + used)


@pytest.mark.parametrize("counts", [(1, 65_535, 0, 0), (1, 0, 65_535, 65_535), (65_535, 0, 0, 0)])
def test_giant_counts_cost_nothing(counts: tuple[int, ...]) -> None:
    wire = query(ORIGIN, "SOA").to_wire()
    wire = wire[:4] + b"".join(count.to_bytes(2, "big") for count in counts) + wire[12:]
    assert answer_to(wire).rcode() == dns.rcode.FORMERR


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None, max_examples=300)
def test_any_bytes_get_an_answer_that_dnspython_reads_or_a_reset(rubbish: bytes, is_udp: bool) -> None:
    answer, *_ = name_server(KEY).answer(rubbish, random.Random(1), is_tcp=not is_udp)
    if len(rubbish) < 12 or rubbish[2] & 0x80:
        assert answer is None
    else:
        assert answer is not None
        assert dns.message.from_wire(answer, keyring=False).flags & dns.flags.QR
        assert not is_udp or len(answer) <= 1_232


@pytest.mark.parametrize("seed", range(4))
def test_changed_questions_get_an_answer_too(seed: int) -> None:
    rng = random.Random(seed)
    update = dns.update.UpdateMessage(ORIGIN)
    update.add("a", 300, "A", "10.0.0.1")
    update.use_tsig(OTHERS)
    whole = [query(ORIGIN, "SOA", want_dnssec=True).to_wire(), update.to_wire()]
    for _ in range(300):
        wire = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 3)):
            wire[rng.randrange(len(wire))] = rng.randrange(256)
        Message.begun(bytes(wire))
        name_server(KEY).answer(bytes(wire), rng, is_tcp=True)


# --- What strangers get -------------------------------------------------------------------------------------------------------


def signed(message: dns.message.Message, ring: object = OTHERS, **more: object) -> dns.message.Message:
    message.use_tsig(ring, **more)  # type: ignore[arg-type]
    message.id = 7
    return message


def update(zone: str = ORIGIN) -> dns.message.Message:
    made = dns.update.UpdateMessage(zone)
    made.add("a", 300, "A", "10.0.0.1")
    made.id = 7
    return made


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (query(ORIGIN, "SOA"), "NOERROR"),
        (query("absent." + ORIGIN), "NXDOMAIN"),
        (query("example.com"), "REFUSED"),
        (query(".", "NS"), "REFUSED"),
        (query(ORIGIN, "AXFR"), "REFUSED"),
        (query(ORIGIN, "IXFR"), "REFUSED"),
        (query("example.com", "AXFR"), "NOTAUTH"),
        (query("version.bind", "TXT", rdclass="CH"), "NOERROR"),
        (query("other.bind", "TXT", rdclass="CH"), "REFUSED"),
        (query(ORIGIN, "SOA", use_edns=1), "BADVERS"),
        (query(ORIGIN, "SOA", rdclass="HS"), "REFUSED"),
        (query(ORIGIN, "SOA", rdclass="ANY"), "FORMERR"),
        (query(ORIGIN, "OPT"), "FORMERR"),
        (query(ORIGIN, "MAILA"), "NOTIMP"),
        (update(), "REFUSED"),
        (update("example.com"), "NOTAUTH"),
        (signed(query(ORIGIN, "AXFR")), "NOTAUTH"),
        (signed(update()), "NOTAUTH"),
        (signed(query(ORIGIN, "SOA"), keyname="else"), "NOTAUTH"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value).split("\n")[-3][:40],
)
def test_what_a_stranger_asks_and_gets(message: dns.message.Message, rcode: str) -> None:
    answer = answer_to(message)
    assert dns.rcode.to_text(answer.rcode()) == rcode
    assert answer.question == message.question
    if rcode == "NXDOMAIN":
        assert answer.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({}, dns.rcode.BADSIG),
        ({"keyname": "else"}, dns.rcode.BADKEY),
        ({"algorithm": dns.tsig.HMAC_SHA512}, dns.rcode.BADKEY),
        ({"algorithm": dns.tsig.HMAC_SHA256_128}, dns.rcode.BADKEY),
        ({"fudge": 0}, dns.rcode.BADSIG),
        ({"fudge": 0xFFFF}, dns.rcode.BADSIG),
        ({"tsig_error": dns.rcode.BADTIME}, dns.rcode.BADSIG),
        ({"original_id": 9}, dns.rcode.BADSIG),
    ],
    ids=str,
)
def test_wrong_signatures_are_told_what_is_wrong_with_them_unsigned(more: dict[str, object], error: int) -> None:
    answer = answer_to(signed(update(), **more))
    assert answer.rcode() == dns.rcode.NOTAUTH
    assert answer.tsig is not None
    assert (answer.tsig[0].error, answer.tsig[0].mac) == (error, b"")


def test_even_the_right_secret_opens_nothing_but_the_channel() -> None:
    """dig with the node's TSIG key, as who knows its address might: no transfer, no update, BADSIG."""
    for message in (query(ORIGIN, "AXFR"), query(ORIGIN, "SOA"), update()):
        answer = answer_to(signed(message, KEYRING))
        assert answer.tsig is not None
        assert answer.tsig[0].error == dns.rcode.BADSIG


def test_the_zone_is_signed_and_its_chain_is_closed() -> None:
    zone = zone_of(KEY)
    origin = dns.name.from_text(ORIGIN)
    keys = {origin: answer_to(query(ORIGIN, "DNSKEY")).answer[0]}
    nexts = {}
    for name, node in zone.nodes.items():
        for kind, rrset in node.items():
            answer = answer_to(query(text_of(name), dns.rdatatype.to_text(kind), want_dnssec=True))
            plain, signatures = answer.answer
            dns.dnssec.validate(plain, signatures, keys, now=UNIX)
            assert rrset.signatures
        nexts[name] = read_name(node[wire_format.NSEC].data[0], 0)[0]
    seen, name = set(), zone.origin
    while name not in seen:
        seen.add(name)
        name = nexts[name].lower()
    assert seen == set(zone.nodes)


@pytest.mark.parametrize("name", ["absent", "0", "zzzz", "a.b.absent"])
def test_what_is_not_there_is_proven(name: str) -> None:
    answer = answer_to(query(f"{name}.{ORIGIN}", want_dnssec=True))
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert {rrset.rdtype for rrset in answer.authority} == {
        dns.rdatatype.SOA,
        dns.rdatatype.NSEC,
        dns.rdatatype.RRSIG,
    }


def test_delegations_aliases_wildcards_and_empty_names_of_an_own_zone() -> None:
    text = "@ 9 IN SOA ns a 1 1 1 1 9\n@ 9 IN NS ns\nns 9 IN A 192.0.2.1\nwww 9 IN CNAME ns\n*.w 9 IN TXT any\n"
    text += "sub 9 IN NS ns.sub\nns.sub 9 IN A 192.0.2.2\nloop 9 IN CNAME pool\npool 9 IN CNAME loop\nx.deep 9 IN A 192.0.2.3\n"
    zone: Zone = converted(parse_zone(text, "example.org"))
    found = zone.answer(name_of("www.example.org"), wire_format.A, is_secured=False)
    assert [rrset.type for rrset in found.answer] == [wire_format.CNAME, wire_format.A]
    found = zone.answer(name_of("a.b.sub.example.org"), wire_format.A, is_secured=False)
    assert not found.is_authoritative
    assert [rrset.type for rrset in found.authority + found.additional] == [wire_format.NS, wire_format.A]
    found = zone.answer(name_of("q.w.example.org"), wire_format.TXT, is_secured=False)
    assert found.answer[0].name == name_of("q.w.example.org")
    assert zone.answer(name_of("deep.example.org"), wire_format.A, is_secured=False).rcode == wire_format.NOERROR
    assert zone.answer(name_of("shallow.example.org"), wire_format.A, is_secured=False).rcode == wire_format.NXDOMAIN
    assert len(zone.answer(name_of("loop.example.org"), wire_format.A, is_secured=False).answer) <= 16


def test_datagrams_are_cut_to_what_the_asker_takes() -> None:
    server = name_server(KEY)
    long = query(ORIGIN, "ANY", want_dnssec=True)
    for payload, most in ((512, 512), (1232, 1232), (4_096, 1_232)):
        long.use_edns(0, dns.flags.DO, payload)
        answer, *_ = server.answer(long.to_wire(), random.Random(1), is_tcp=False)
        assert answer is not None
        assert len(answer) <= most
        assert dns.message.from_wire(answer).flags & dns.flags.TC
    answer, *_ = server.answer(long.to_wire(), random.Random(1), is_tcp=True)
    assert answer is not None
    assert not dns.message.from_wire(answer).flags & dns.flags.TC


@pytest.mark.parametrize("opcode", [dns.opcode.QUERY, dns.opcode.NOTIFY, dns.opcode.UPDATE])
def test_several_questions_about_one_name_are_repeated_with_formerr(opcode: int) -> None:
    """Of two names, or one asked twice, BIND repeats none but for an update, which gets those before."""
    apex = name_of(ORIGIN)
    soa, mx, ns = (apex + kind.to_bytes(2, "big") + b"\0\1" for kind in (6, 15, 2))
    is_update = opcode == dns.opcode.UPDATE
    for said, shown in (
        ((soa, mx), 2),
        ((soa, mx, ns), 3),
        ((soa, b"\xc0\x0c\0\x0f\0\1"), 2),
        ((soa, soa), is_update),
        ((soa, mx, soa), 2 * is_update),
        ((soa, mx, b"\1a" + soa), 2 * is_update),
        ((soa, apex + b"\0\1\0\3"), is_update),
        ((soa, mx, soa[:-1]), 2 * is_update),
    ):
        (answer,), _ = ask(framed(wire_format.HEADER.pack(7, opcode << 11, len(said), 0, 0, 0) + b"".join(said)))
        assert (answer[3] & 15, int.from_bytes(answer[4:6], "big")) == (1, shown)
        assert len(answer) == 12 + (len(apex) + 4 + 6 * (shown - 1) if shown else 0)


def test_questions_that_do_not_fit_into_a_datagram_are_cut() -> None:
    tails = [wire_format.QUESTION_TAIL.pack(kind, 1) for kind in range(300, 420)]
    wire = wire_format.HEADER.pack(7, 0, len(tails), 0, 0, 0) + b"".join(name_of(ORIGIN) + tail for tail in tails)
    answer = name_server(KEY).answer(wire, random.Random(1), is_tcp=False).wire
    assert answer is not None
    assert 506 < len(answer) <= 512
    assert answer[2] & 2


@pytest.mark.parametrize("kind", ["ANY", "RRSIG"])
@pytest.mark.parametrize("size", [0, 512, 600])
def test_an_answer_that_is_cut_is_empty_for_who_speaks_edns_with_signatures_or_without(kind: str, size: int) -> None:
    name = "ns." + origin_for_key(KEY)
    for wants_dnssec in (False, True):
        query = dns.message.make_query(name, kind, use_edns=0, payload=size, want_dnssec=wants_dnssec)
        answer, *_ = name_server(KEY).answer(query.to_wire(), random.Random(1), is_tcp=False)
        read = dns.message.from_wire(answer or b"")
        assert read.flags & dns.flags.TC
        assert read.sections[1:] == [[], [], []], "as BIND, which clears what it adds OPT to"
    query = dns.message.make_query(name, kind, use_edns=False)
    answer, *_ = name_server(KEY).answer(query.to_wire(), random.Random(1), is_tcp=False)
    read = dns.message.from_wire(answer or b"")
    assert read.flags & dns.flags.TC
    assert read.answer


@pytest.mark.parametrize(
    ("size", "is_tcp", "has_more"), [(0, False, False), (512, False, False), (513, False, True), (0, True, True)]
)
def test_who_takes_512_bytes_by_edns_is_told_no_addresses_of_name_servers(
    size: int, is_tcp: bool, has_more: bool
) -> None:
    for wants_dnssec in (False, True):
        query = dns.message.make_query(origin_for_key(KEY), "NS", use_edns=0, payload=size, want_dnssec=wants_dnssec)
        answer, *_ = name_server(KEY).answer(query.to_wire(), random.Random(1), is_tcp=is_tcp)
        read = dns.message.from_wire(answer or b"")
        assert read.answer
        assert bool(read.additional) is has_more


# --- Attackers ------------------------------------------------------------------------------------------------------------------


def recorded(host: DnsHost, seed: int = 1) -> tuple[list[bytes], list[bytes]]:
    """Both sides of an opening with a listener."""
    wire = Wire(MAKERS["dns"], seed=seed)
    wire.server = End(host.server(random.Random(3)), client=False)
    wire.server.on(wire.server.carrier.start(0.0), 0.0)
    wire.run()
    assert wire.client.flights == [FLIGHT_2]
    return list(split(bytes(wire.tapped[True]))), list(split(bytes(wire.tapped[False])))


def test_a_recorded_stream_opens_nothing_not_even_in_the_same_second() -> None:
    host = dns_host(KEY)
    requests, _ = recorded(host)
    answers, end = ask(framed(*requests), host)
    assert end.flights == []
    assert end.finished is None
    assert [dns.message.from_wire(raw, keyring=False).rcode() for raw in answers] == [
        0,
        dns.rcode.NOTAUTH,
        dns.rcode.NOTAUTH,
    ]
    assert {dns.message.from_wire(raw, keyring=False).tsig[0].error for raw in answers[1:]} == {dns.rcode.BADSIG}


def test_recorded_requests_in_any_order_or_to_another_listener_open_nothing() -> None:
    requests, _ = recorded(dns_host(KEY))
    for chosen in (requests[1:], requests[::-1], [requests[1]] * 5, [requests[2], requests[0], requests[1]]):
        _, end = ask(framed(*chosen), dns_host(KEY) if chosen[0] != requests[0] else None)
        assert end.flights == [] or chosen[0] == requests[0]
    _, end = ask(framed(*requests), dns_host(bytes(32)))
    assert end.flights == []


def test_every_single_bit_of_the_update_matters_and_is_told_as_to_any_stranger() -> None:
    """The changed request gets what the same bytes get from a server that never had a session."""
    client, server = MAKERS["dns"].client(random.Random(1)), dns_host(KEY).server(random.Random(2))
    client.start(0.0)
    server.start(0.0)
    server.receive(b"".join(client.take()), 0.0)
    client.receive(b"".join(server.take()), 0.0)
    client.send_flight(FLIGHT_1, 0.0)
    whole = next(split(b"".join(client.take())))
    for at in range(8 * len(whole)):
        if 8 * 100 < at < 8 * (len(whole) - 120) and at % 11:
            continue  # inside the signatures, a part is enough
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        host = dns_host(KEY)
        fresh = host.server(random.Random(2))
        fresh._cookie = server._cookie  # the session of the update, as far as anybody sees
        events = fresh.receive(framed(bytes(changed)), 0.0)
        said = b"".join(fresh.take())
        expected, *_ = host.name_server.answer(bytes(changed), random.Random(1), is_tcp=True)
        assert said == (framed(expected) if expected is not None else b"")
        assert events == ([] if expected is not None else [Finished(resets=True)])


def test_nobody_who_lacks_the_key_gets_a_flight_tried() -> None:
    """So that strangers cost no key agreement at all."""
    for guess in (signed(update()), signed(update(), keyname="else"), update()):
        cookie = query(ORIGIN, "SOA", use_edns=0, options=[dns.edns.GenericOption(10, b"12345678")])
        answers, end = ask(framed(cookie.to_wire(), guess.to_wire()))
        assert len(answers) == 2
        assert end.flights == []


def test_a_broken_stream_in_the_open_session_is_answered_and_delivers_nothing_more() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    wire.client.carrier.send(b"lost", 0.0)
    wire.collect(wire.client)
    wire.server.inbox[60] ^= 1
    wire.client.carrier.send(b"more", 0.0)
    wire.run()
    assert not wire.server.data
    last = dns.message.from_wire(list(split(bytes(wire.tapped[False])))[-1], keyring=False)
    assert last.tsig is not None
    assert last.tsig[0].error == dns.rcode.BADSIG


def test_slow_ones_are_closed_after_thirty_seconds_whatever_trickles() -> None:
    carrier = dns_host(KEY).server(random.Random(1))
    carrier.start(0.0)
    asked = framed(query(ORIGIN, "SOA").to_wire())
    for second in range(29):
        assert carrier.receive(asked[second : second + 1], float(second)) == []
    assert carrier.deadline() == DNS_IDLE_S
    assert carrier.due(DNS_IDLE_S) == [Finished()]
    carrier = dns_host(KEY).server(random.Random(1))
    carrier.start(0.0)
    carrier.receive(asked, 10.0)
    carrier.take()
    assert carrier.deadline() == 10.0 + DNS_IDLE_S


def test_the_end_of_the_channels_patience_changes_nothing_for_a_stranger() -> None:
    carrier = dns_host(KEY).server(random.Random(1))
    carrier.start(0.0)
    carrier.refuse(DNS_IDLE_S - 1)
    assert carrier.deadline() == DNS_IDLE_S


def test_who_asks_and_does_not_read_is_not_read_and_costs_little() -> None:
    carrier = dns_host(KEY).server(random.Random(1))
    carrier.start(0.0)
    asked = framed(query(ORIGIN, "ANY", want_dnssec=True).to_wire())
    sent = 0
    while not carrier.is_full:
        carrier.receive(asked * 100, 0.0)
        sent += 100
        assert sent < 10_000
    assert carrier._waiting <= DNS_WRITE_BYTES + 70_000
    assert len(carrier._in) <= DNS_UNREAD_BYTES + 0x10000 + 100 * len(asked)
    count = 0
    while True:
        out = b"".join(carrier.take())
        count += sum(1 for _ in split(out))
        if count == sent:
            break
        assert carrier.deadline() == 0.0
        carrier.due(0.0)
    assert not carrier.is_full


@pytest.mark.parametrize("wire", [b"", b"\0", b"\0" * 11, query(ORIGIN).to_wire()[:2] + b"\x80" + bytes(30)])
def test_what_is_no_question_resets_after_the_answers_before_it(wire: bytes) -> None:
    answers, end = ask(framed(query(ORIGIN, "SOA").to_wire(), wire, query(ORIGIN, "SOA").to_wire()))
    assert len(answers) == 1
    assert end.finished == Finished(resets=True)


def test_cookies_are_what_rfc_9018_says_and_alike_within_a_second() -> None:
    server, other = name_server(KEY), name_server(KEY)
    cookie = server.cookie(b"12345678")
    assert (len(cookie), cookie[:8], cookie[8:12]) == (24, b"12345678", b"\1\0\0\0")
    assert int.from_bytes(cookie[12:16], "big") == UNIX
    assert server.cookie(b"12345678") == cookie == other.cookie(b"12345678")
    assert server.cookie(b"12345679")[16:] != cookie[16:]


def test_a_clock_that_is_set_back_never_gives_a_cookie_twice() -> None:
    """A recorded session is bound to its cookie: in the same second, come again, it would be let in once more."""
    server = name_server(KEY)
    given = [server.cookie(b"12345678")]
    for _ in range(3):
        server.unix = lambda: UNIX + 3_600
        given.append(server.cookie(b"12345678"))
        server.unix = lambda: UNIX
        given.append(server.cookie(b"12345678"))
    assert len(set(given)) == len(given)


def test_used_cookies_are_forgotten_after_a_minute_and_bounded() -> None:
    host = dns_host(KEY)
    assert host.use(b"a", 0.0)
    assert not host.use(b"a", 59.0)
    assert host.use(b"a", 61.0)
    assert DNS_COOKIES > TRIALS_PER_S * DNS_COOKIE_S, "else the cookies are used up before the trials are"
    for number in range(DNS_COOKIES - 1):
        assert host.use(number.to_bytes(4, "big"), 100.0)
    assert not host.use(b"fresh", 100.0)
    assert host.use(b"fresh", 200.0)


# --- The dialler ----------------------------------------------------------------------------------------------------------------


def dialler() -> tuple[DnsClient, int]:
    client = DnsClient(random.Random(1), name_of(ORIGIN), tsig_key(KEY), KEY)
    client.start(0.0)
    (asked,) = split(b"".join(client.take()))
    return client, int.from_bytes(asked[:2], "big")


@pytest.mark.parametrize(
    "change",
    ["no cookie", "unsigned", "refused", "another id", "no answer", "cut", "short"],
)
def test_a_server_of_another_kind_is_left_without_a_word_of_the_channel(change: str) -> None:
    client, id = dialler()
    options = [] if change == "no cookie" else [dns.edns.GenericOption(10, b"12345678" + bytes(16))]
    asked = query(ORIGIN, "SOA", want_dnssec=change != "unsigned", use_edns=0, options=options)
    asked.id = id + (change == "another id")
    (answer,), _ = ask(framed(asked.to_wire()))
    wire = bytearray(answer)
    if change == "refused":
        wire[3] |= 5
    if change == "no answer":
        wire[2] &= 0x7F
    if change == "cut":
        wire = wire[:50]
    if change == "short":
        wire = wire[:5]
    assert client.receive(framed(bytes(wire)), 0.0) == [Finished()]
    assert client.take() == []


def test_an_answer_to_nothing_and_a_refusal_end_the_dialler() -> None:
    for raw in (b"\0\1\x84\0" + bytes(8), b"\0\1\xa8\0" + bytes(8)):
        wire = Wire(MAKERS["dns"]).opened()
        assert wire.client.carrier.receive(framed(raw), 0.0)[-1:] == [Finished()]


def test_a_transfer_that_is_no_transfer_of_ours_ends_the_dialler() -> None:
    wire = Wire(MAKERS["dns"]).opened()
    id = wire.client.carrier._asked.to_bytes(2, "big")  # type: ignore[attr-defined]
    record = b"\0\0\x2e\0\1\0\0\0\1\0\x20" + bytes(32)
    events = wire.client.carrier.receive(framed(id + b"\x84\0\0\0\0\1\0\0\0\0" + record), 0.0)
    assert events == [Finished()]


def test_the_dialler_knows_the_time_from_the_server() -> None:
    """Its own clock may be wrong by years: what it signs is in time."""
    client, server = MAKERS["dns"].client(random.Random(1)), dns_host(KEY).server(random.Random(2))
    client.start(9e8)
    server.start(0.0)
    server.receive(b"".join(client.take()), 0.0)
    client.receive(b"".join(server.take()), 9e8)
    client.send_flight(FLIGHT_1, 9e8 + 10)
    (request, _) = split(b"".join(client.take()))
    assert dns.message.from_wire(request, keyring=KEYRING).tsig[0].time_signed == UNIX + 10


# --- Listeners ---------------------------------------------------------------------------------------------------------------


def test_twenty_listeners_share_nothing_that_their_zones_would_not() -> None:
    keys = [bytes([number]) * 32 for number in range(20)]
    origins = {origin_for_key(key) for key in keys}
    assert len(origins) >= 18
    texts = [zone_text(key, "example.org", 1) for key in keys]
    assert len(set(texts)) == 20
    lines = Counter(line for text in texts for line in set(text.splitlines()[2:]))
    addresses = {line: count for line, count in lines.items() if " IN A " in line}
    assert max(addresses.values()) == 1
    assert max(count for line, count in lines.items() if " SOA " in line) <= 2
    assert len({tsig_key(key).secret for key in keys}) == 20


def test_a_zone_is_signed_anew_each_week_and_alike_after_a_restart() -> None:
    now = [UNIX]
    made = []

    def make(serial: int, unix: int) -> Zone:
        made.append((serial, unix))
        return zone_of(KEY)

    live = LiveZone(make, UNIX, lambda: now[0])
    for day in range(22):
        now[0] = UNIX + day * 86_400
        live()
    assert [serial for serial, _ in made] == [2_023_111_401 + number for number in range(4)]
    LiveZone(make, UNIX, lambda: now[0])
    assert made[-1] == made[-2]


def test_a_zone_that_cannot_be_made_any_more_stays_as_it_was_and_is_tried_once_a_week() -> None:
    now, tries = [UNIX], [0]
    zone = zone_of(KEY)
    bare = Zone(zone.origin, {zone.origin: {wire_format.SOA: msgspec.structs.replace(zone.soa, signatures=())}})

    def make(serial: int, unix: int) -> Zone:
        tries[0] += 1
        if tries[0] == 2:
            raise UserError("the file is gone")
        return bare if tries[0] == 3 else zone

    live = LiveZone(make, UNIX, lambda: now[0])
    for week in (1, 1, 2, 2):
        now[0] = UNIX + week * 7 * 86_400
        assert live() is zone
    assert tries == [3]
    with pytest.raises(UserError):
        LiveZone(lambda serial, unix: bare, UNIX, lambda: now[0])


def test_a_zone_is_signed_anew_in_a_thread_and_the_old_one_is_shown_meanwhile() -> None:
    async def scenario() -> None:
        now, may_end, made_by = [UNIX], threading.Event(), []
        old, new = zone_of(KEY), zone_of(b"other".ljust(32))

        def make(serial: int, unix: int) -> Zone:
            made_by.append(threading.current_thread())
            if len(made_by) == 1:
                return old
            assert may_end.wait(30)
            return new

        live = LiveZone(make, UNIX, lambda: now[0])
        now[0] += 8 * 86_400
        assert live() is live() is old, "the loop goes on"
        may_end.set()
        async with asyncio.timeout(30):
            while live() is old:  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.001)
        assert live() is new
        assert [thread is threading.main_thread() for thread in made_by] == [True, False], "once"

    asyncio.run(scenario())


def test_names() -> None:
    assert text_of(name_of("A.example.")) == "A.example"
    assert text_of(b"\0") == "."
    assert is_below(name_of("a.b.c"), name_of("b.c"))
    assert not is_below(name_of("ab.c"), name_of("b.c"))
    for bad in ("a..b", "a" * 64, ".".join(["a" * 60] * 5)):
        with pytest.raises(ValueError, match=r"label|long"):
            name_of(bad)


def test_the_events_of_an_opening() -> None:
    wire = Wire(MAKERS["dns"])
    client, server = wire.client.carrier, wire.server.carrier
    assert isinstance(server, DnsServer)
    (ready,) = client.receive(_exchange(client, server), 0.0)
    assert isinstance(ready, Ready)
    assert len(ready.binding) == 24
    client.send_flight(FLIGHT_1, 0.0)
    (flight,) = server.receive(b"".join(client.take()), 0.0)
    assert flight == Flight(FLIGHT_1, ready.binding, flight.answer_size)
    server.send_flight(FLIGHT_2, 0.0)
    server.due(0.0)
    server.send(b"data", 0.0)
    assert client.receive(b"".join(server.take()), 0.0) == [Flight(FLIGHT_2), Data(b"data")]


def _exchange(client: object, server: DnsServer) -> bytes:
    assert server.receive(b"".join(client.take()), 0.0) == []  # type: ignore[attr-defined]
    return b"".join(server.take())


def test_message_reading_keeps_what_was_read_before_a_fault() -> None:
    message = Message.begun(query(ORIGIN).to_wire()[:4] + b"\0\1\0\0\0\0\0\1" + query(ORIGIN).to_wire()[12:])
    with pytest.raises(Violation):
        read(message)
    assert len(message.questions) == 1


# --- Zones as operators have them -------------------------------------------------------------------------------------

OPERATORS = """
@ 60 IN SOA ns1 host 1 2 3 4 5
@ 60 IN NS ns2
@ 60 IN NS ns1
ns1 60 IN A 192.0.2.1
ns1 60 IN AAAA 2001:db8::1
ns2 60 IN A 192.0.2.2
www 60 IN A 192.0.2.7
www 60 IN A 192.0.2.6
www 60 IN A 192.0.2.5
www 60 IN A 192.0.2.4
sub 60 IN NS ns.sub
sub 60 IN NS ns2.sub
ns.sub 60 IN A 192.0.2.8
ns2.sub 60 IN A 192.0.2.9
sub2 60 IN NS ns4.sub2
sub2 60 IN NS ns5.sub2
ns4.sub2 60 IN A 192.0.2.14
ns4.sub2 60 IN AAAA 2001:db8::4
ns5.sub2 60 IN A 192.0.2.15
within 60 IN DNAME www
far 60 IN DNAME LONG.example.
""".replace("LONG", ".".join(("d" * 60,) * 3))


def operators_answer(name: str, kind: str, seed: int = 1, by: str = "") -> dns.message.Message:
    zone = converted(parse_zone(OPERATORS, "office.example"))
    server = NameServer(lambda: zone, tsig_key(KEY), bytes(16), lambda: UNIX)
    wire = dns.message.make_query(f"{name}office.example", kind).to_wire()
    return dns.message.from_wire(server.answer(wire, random.Random(seed), is_tcp=False, by=by).wire)


def records_of(section: list[dns.rrset.RRset]) -> list[str]:
    return [f"{str(rrset.name).removesuffix('.office.example.')} {rrset[0]}" for rrset in section]


def test_four_addresses_have_the_twelve_orders_of_bind() -> None:
    orders = {tuple(str(one)[-1] for one in operators_answer("www.", "A", seed).answer[0]) for seed in range(300)}
    assert len(orders) == 12
    assert ("4", "5", "6", "7") in orders
    assert ("4", "5", "7", "6") not in orders


def test_addresses_of_name_servers_come_by_type_and_glue_from_behind_but_first_what_was_asked_for() -> None:
    assert records_of(operators_answer("", "NS").additional) == ["ns1 192.0.2.1", "ns2 192.0.2.2", "ns1 2001:db8::1"]
    assert records_of(operators_answer("a.sub.", "A").additional) == ["ns2.sub 192.0.2.9", "ns.sub 192.0.2.8"]
    assert records_of(operators_answer("ns.sub.", "A").additional) == ["ns.sub 192.0.2.8", "ns2.sub 192.0.2.9"]


def test_what_else_stands_at_a_glue_that_was_asked_for_comes_first_of_its_type() -> None:
    answer = operators_answer("ns4.sub2.", "AAAA")
    assert [one.split()[1] for one in records_of(answer.additional)] == ["2001:db8::4", "192.0.2.14", "192.0.2.15"]


def test_over_ipv6_addresses_of_name_servers_come_the_other_way_round_as_from_bind() -> None:
    by_ipv6 = ["ns1 2001:db8::1", "ns1 192.0.2.1", "ns2 192.0.2.2"]
    assert records_of(operators_answer("", "NS", by="2001:db8::9").additional) == by_ipv6
    for by in ("192.0.2.9", "::ffff:192.0.2.9"):
        assert records_of(operators_answer("", "NS", by=by).additional) == [*by_ipv6[1:], by_ipv6[0]]
    zone = converted(parse_zone(OPERATORS, "office.example"))
    host = DnsHost(NameServer(lambda: zone, tsig_key(KEY), bytes(16), lambda: UNIX), KEY)
    carrier = host.server(random.Random(1))
    carrier.own_host = "2001:db8::7"
    carrier.start(0.0)
    carrier.receive(framed(dns.message.make_query("office.example", "NS").to_wire()), 0.0)
    (answer,) = split(b"".join(carrier.take()))
    assert records_of(dns.message.from_wire(answer).additional) == by_ipv6


def test_a_redirection_answers_for_all_below_it() -> None:
    answer = operators_answer("x.within.", "A")
    assert answer.rcode() == dns.rcode.NXDOMAIN  # of x.www
    assert records_of(answer.answer) == ["within www.office.example.", "x.within x.www.office.example."]
    assert operators_answer("within.", "A").rcode() == dns.rcode.NOERROR
    assert operators_answer("x.within.", "CNAME").rcode() == dns.rcode.NOERROR
    assert operators_answer(f"{'e' * 60}.far.", "A").answer[1].name.labels[0] == b"e" * 60
    too_long = operators_answer(f"{'e' * 60}.{'e' * 5}.far.", "A")
    assert too_long.rcode() == dns.rcode.YXDOMAIN
    assert [rrset.rdtype for rrset in too_long.answer] == [dns.rdatatype.DNAME]
