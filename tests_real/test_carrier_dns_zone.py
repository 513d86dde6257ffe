"""An operator's zone (``cover.zone``) beside BIND: delegations, redirections, several records of a name. Fails without it.

apt install bind9
"""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dns.message
import pytest

import probes
from probes import ORIGIN, Pair

ZONE = """
$TTL 3600
@ IN SOA ns1 hostmaster 2026010101 604800 86400 3600 300
@ IN NS ns2
@ IN NS ns1
@ IN NS ns3.other.example.
@ IN MX 10 mx
@ IN A 192.0.2.3
@ IN A 192.0.2.1
@ IN AAAA 2001:db8::2
@ IN TXT "one"
@ IN TXT "another"
ns1 IN A 192.0.2.53
ns1 IN AAAA 2001:db8::53
ns2 IN A 192.0.2.54
ns2 IN AAAA 2001:db8::54
mx IN A 192.0.2.25
www IN A 192.0.2.5
www IN A 192.0.2.4
www IN A 192.0.2.7
www IN A 192.0.2.6
alias IN CNAME www
sub IN NS ns.sub
sub IN NS ns2.sub
ns.sub IN A 192.0.2.60
ns2.sub IN A 192.0.2.61
ns2.sub IN AAAA 2001:db8::61
*.wild IN A 192.0.2.70
*.wild IN A 192.0.2.71
away IN DNAME other.example.
within IN DNAME www
far IN DNAME LONG.example.
a.b IN A 192.0.2.9
""".replace("LONG", ".".join(("d" * 60,) * 3))
NAMES = (
    *("@", "www", "alias", "x.wild", "wild", "sub", "a.sub", "ns.sub", "ns2.sub", "away", "x.away", "y.x.away"),
    *(
        "within",
        "x.within",
        "x.far",
        f"{'e' * 60}.far",
        f"{'e' * 60}.{'e' * 5}.far",
        "b",
        "a.b",
        "none",
        "x.none",
        "ns1",
        "mx",
        "WWW",
    ),
)
TYPES = ("A", "AAAA", "NS", "SOA", "MX", "TXT", "CNAME", "DNAME", "DS", "NSEC")
WAYS: tuple[dict[str, Any], ...] = ({}, {"want_dnssec": True}, {"use_edns": 0, "payload": 4_096})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "zone_text", lambda *given: f"$ORIGIN {ORIGIN}.{ZONE}")
        made = Pair("dns", tmp_path_factory.mktemp("zone"), joining=False)
    yield made
    made.end()


def ask(port: int, query: dns.message.Message) -> dns.message.Message:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(query.to_wire(), ("127.0.0.1", port))
        wire = sock.recv(65_536)
    answer = dns.message.from_wire(wire)
    answer.size = len(wire)  # type: ignore[attr-defined]
    return answer


def shown(answer: dns.message.Message) -> object:
    """All but the order of the records of one set."""
    sets = [
        [(rrset.name.to_text(), rrset.ttl, rrset.rdtype, rrset.covers, sorted(map(str, rrset))) for rrset in section]
        for section in answer.sections
    ]
    return int(answer.flags), answer.rcode(), answer.ednsflags, sets, answer.size  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_s_zone_is_shown_as_bind_shows_it(pair: Pair, name: str) -> None:
    asked = ORIGIN if name == "@" else f"{name}.{ORIGIN}"
    for kind, way in itertools.product(TYPES, WAYS):
        query = dns.message.make_query(asked, kind, **way)
        time.sleep(0.002)  # UDP has a budget
        assert shown(ask(pair.ours, query)) == shown(ask(pair.theirs, query)), (kind, way)


def test_four_addresses_come_in_the_orders_of_bind(pair: Pair) -> None:
    query = dns.message.make_query(f"www.{ORIGIN}", "A")
    seen = []
    for port in (pair.ours, pair.theirs):
        orders: Counter[tuple[str, ...]] = Counter()
        for _ in range(200):
            time.sleep(0.01)
            orders[tuple(map(str, ask(port, query).answer[0]))] += 1
        seen.append(set(orders))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 12
