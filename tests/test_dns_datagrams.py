"""The name server's UDP: what ordinary askers get, and what forged sources cost the node and those whom they name."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from struct import pack
from typing import Any

import pytest

from dns_pair import name_server
from obscura.daemon.datagrams import Budget, Datagrams
from obscura.limits import DNS_UDP_ALL, DNS_UDP_GROUP, DNS_UDP_GROUPS, DNS_UDP_WAITING
from obscura.morph.dns_answer import NameServer
from obscura.morph.dns_message import name_of

KEY = b"k" * 32
QUERY = pack("!6H", 7, 0, 1, 0, 0, 0) + name_of("example") + pack("!HH", 6, 1)
HERE, THERE = ("192.0.2.1", 4_000), ("198.51.100.1", 4_000)
LARGE = pack("!6H", 8, 0, 1, 0, 5_000, 0) + QUERY[12:] + (b"\0" + pack("!HHIH", 9_999, 1, 0, 0)) * 5_000


class Loop:
    """A clock that stands still, and turns that are taken by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        return self.now

    def call_soon(self, act: Callable[[], object]) -> None:
        self.soon.append(act)

    def run(self) -> int:
        """Everything that is to be done; how many turns it took."""
        turns = 0
        while self.soon:
            turns += 1
            self.soon.popleft()()
        return turns


class Wire:
    """What was sent to whom."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []

    def sendto(self, data: bytes, addr: Any) -> None:
        self.sent.append((data, addr))

    def to(self, place: tuple[str, int]) -> int:
        return sum(addr == place for _, addr in self.sent)


def socket(server: NameServer | None = None) -> tuple[Datagrams, Loop, Wire]:
    loop, wire = Loop(), Wire()
    made = Datagrams(server or name_server(KEY), loop)  # type: ignore[arg-type]
    made.connection_made(wire)  # type: ignore[arg-type]
    return made, loop, wire


def test_ordinary_rates_are_all_answered_as_by_a_server_without_limits() -> None:
    asked, loop, wire = socket()
    for _ in range(1_000):  # nmap, or a page of a scanner's probes at once
        asked.datagram_received(QUERY, HERE)
        loop.run()
    for _ in range(60):  # and then a busy resolver for a minute
        loop.now += 1.0
        for _ in range(100):
            asked.datagram_received(QUERY, HERE)
            loop.run()
    assert wire.to(HERE) == 7_000


def test_a_forged_source_gets_no_more_than_its_groups_budget_and_costs_nobody_else() -> None:
    asked, loop, wire = socket()
    for tenth in range(100):  # ten seconds, 10,000 a second, from all of a /16
        loop.now = tenth / 10
        for number in range(1_000):
            asked.datagram_received(QUERY, (f"192.0.{number % 250}.{number % 9}", 53))
        asked.datagram_received(QUERY, THERE)
        loop.run()
    rate, burst = DNS_UDP_GROUP
    assert len(wire.sent) - wire.to(THERE) <= burst + rate * 10
    assert wire.to(THERE) == 100


def test_many_forged_groups_meet_the_budget_of_all_and_take_bounded_memory() -> None:
    rng = random.Random(1)
    budget, taken = Budget(0.0), 0
    for tenth in range(20):
        for _ in range(1_500):
            taken += budget.take(f"{rng.randrange(1, 120)}.{rng.randrange(256)}.1.1", len(QUERY), tenth / 10)
    rate, burst = DNS_UDP_ALL
    assert taken <= burst + rate * 2
    assert len(budget._groups) <= DNS_UDP_GROUPS
    assert budget.take("2001:db8::1%eth0", len(QUERY), 3.0), "and is there again afterwards"


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1", "2001:db8::1"])
def test_large_requests_use_up_the_budget_by_their_size(host: str) -> None:
    budget = Budget(0.0)
    taken = sum(budget.take(host, 60_000, 0.0) for _ in range(1_000))
    assert taken == (DNS_UDP_ALL if host.startswith("127.") else DNS_UDP_GROUP)[1] // (1 + 60_000 // 512)


def test_a_large_request_is_looked_at_in_turns_and_those_behind_it_wait() -> None:
    asked, loop, wire = socket()
    asked.datagram_received(LARGE, HERE)
    for _ in range(DNS_UDP_WAITING + 10):
        asked.datagram_received(QUERY, THERE)
    assert wire.sent == []
    assert loop.run() >= 12
    assert [addr for _, addr in wire.sent] == [HERE] + [THERE] * DNS_UDP_WAITING
    expected, *_ = name_server(KEY).answer(LARGE, random.Random(1), is_tcp=False)
    assert wire.sent[0][0] == expected


def test_a_socket_that_is_gone_is_not_written_to() -> None:
    asked, loop, wire = socket()
    asked.datagram_received(LARGE, HERE)
    asked.connection_lost(None)
    loop.run()
    assert wire.sent == []


def test_a_defect_costs_one_answer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    asked, loop, wire = socket()
    works = NameServer.answering
    monkeypatch.setattr(NameServer, "answering", lambda *args, **keys: (1 / 0 for _ in "x"))
    asked.datagram_received(QUERY, HERE)
    monkeypatch.setattr(NameServer, "answering", works)
    asked.datagram_received(QUERY, THERE)
    loop.run()
    assert [addr for _, addr in wire.sent] == [THERE]
    assert "an answer over UDP: ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("host", ["fd87:d87e:eb43::1", "fd60:db4d:ddb5::1", "fe80::1%eth0"])
def test_a_source_that_stands_for_a_tor_or_i2p_address_is_answered_and_raises_nothing(host: str) -> None:
    asked, loop, wire = socket()
    asked.datagram_received(QUERY, (host, 4_000))
    loop.run()
    assert wire.to((host, 4_000)) == 1
