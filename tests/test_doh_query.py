"""DNS messages of discovery: what a query shows, what an answer may say."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.node.resolvers import Answer
from obscura.transport.dns_query import query, read_answer

NAME = "seeds.example.org"


def answer(
    *records: str, kind: str = "TXT", rcode: int = 0, name: str = NAME, authority: str = "", id: int = 0
) -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, kind, id=id))
    message.set_rcode(rcode)
    for record in records:
        owner, ttl, rdclass, rdtype, data = record.split(" ", 4)
        message.answer.append(dns.rrset.from_text(f"{owner}.", int(ttl), rdclass, rdtype, data))
    if authority:
        message.authority.append(dns.rrset.from_text("example.org.", 900, "IN", "SOA", authority))
    return message.to_wire()


@pytest.mark.parametrize("kind", ["TXT", "A", "AAAA"])
@pytest.mark.parametrize("name", ["a.example", NAME, "x" * 60 + "." + "y" * 60 + ".example.org"])
def test_a_query_is_padded_anonymous_and_alike_for_everyone(kind: str, name: str) -> None:
    raw = query(name, kind)
    assert len(raw) % 128 == 0  # RFC 8467
    assert raw == query(name, kind)
    read = dns.message.from_wire(raw)
    assert read.id == 0  # RFC 8484, 4.1
    assert read.flags == dns.flags.RD
    assert [str(read.question[0].name), read.question[0].rdtype.name] == [f"{name}.", kind]
    options = {option.otype: option for option in read.options}
    assert set(options) == {dns.edns.OptionType.ECS, dns.edns.OptionType.PADDING}
    assert options[dns.edns.OptionType.ECS].srclen == 0  # RFC 7871, 7.1.2: hand nothing on


@pytest.mark.parametrize(
    ("what", "raw", "expected"),
    [
        ("strings are joined", answer(f'{NAME} 60 IN TXT "ab" "cd"'), Answer("TXT", (b"abcd",), 60)),
        ("bytes stay bytes", answer(f'{NAME} 60 IN TXT "\\255\\000"'), Answer("TXT", (b"\xff\0",), 60)),
        ("nothing there", answer(authority="a. b. 1 2 3 4 300"), Answer("TXT", (), 300)),
        ("no such name", answer(rcode=3, authority="a. b. 1 2 3 4 1200"), Answer("TXT", (), 900)),
        ("nothing there, and not for how long", answer(), Answer("TXT", (), 0)),
        ("an alias", answer(f"{NAME} 30 IN CNAME b.example.org.", 'b.example.org 60 IN TXT "x"'), Answer("TXT", (b"x",), 30)),
        ("a stranger's record", answer('other.example 60 IN TXT "x"'), Answer("TXT", (), 0)),
        ("server failure", answer(rcode=2), Answer("TXT", fault="it answers SERVFAIL")),
        ("refused", answer(rcode=5), Answer("TXT", fault="it answers REFUSED")),
        ("another name", answer(name="other.example"), Answer("TXT", fault="it answers another question")),
        ("another kind", answer(kind="A"), Answer("TXT", fault="it answers another question")),
        ("another id", answer(id=7), Answer("TXT", fault="it answers another question")),
        ("the question itself", query(NAME, "TXT"), Answer("TXT", fault="it answers another question")),
        ("an update", answer()[:2] + b"\xa8" + answer()[3:], Answer("TXT", fault="it answers nonsense: no query's answer")),
        ("no bytes", b"", Answer("TXT", fault="it answers nonsense: ShortHeader")),
        ("cut", answer(f'{NAME} 60 IN TXT "ab"')[:-1], Answer("TXT", fault="it answers nonsense: FormError")),
        ("more behind it", answer() + b"x", Answer("TXT", fault="it answers nonsense: TrailingJunk")),
        ("truncated", answer()[:2] + b"\x83" + answer()[3:], Answer("TXT", fault="it answers nonsense: Truncated")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_an_answer_says(what: str, raw: bytes, expected: Answer) -> None:
    assert read_answer(raw, NAME, "TXT") == expected


def test_addresses_are_raw() -> None:
    assert read_answer(answer(f"{NAME} 9 IN A 192.0.2.1", kind="A"), NAME, "A").records == (bytes([192, 0, 2, 1]),)
    six = read_answer(answer(f"{NAME} 9 IN AAAA 2001:db8::1", kind="AAAA"), NAME, "AAAA")
    assert six.records == (bytes.fromhex("20010db8" + "0" * 23 + "1"),)


def test_a_circle_of_aliases_is_nonsense() -> None:
    raw = answer(f"{NAME} 30 IN CNAME b.example.org.", f"b.example.org 30 IN CNAME {NAME}.")
    assert read_answer(raw, NAME, "TXT").fault is not None


GOOD = answer(
    f'{NAME} 60 IN TXT "obscura-seeds/1 5 6" "x"', f'{NAME} 60 IN TXT "v=spf1 -all"', authority="a. b. 1 2 3 4 5"
)


@given(st.data())
@settings(deadline=None, max_examples=400)
def test_changed_bytes_never_raise(data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    assert isinstance(read_answer(bytes(raw), NAME, "TXT"), Answer)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_bytes_never_raise(junk: bytes) -> None:
    header = bytes.fromhex("000081800001000100000000")
    assert isinstance(read_answer(junk, NAME, "TXT"), Answer)
    assert isinstance(read_answer(header + junk, NAME, "TXT"), Answer)
