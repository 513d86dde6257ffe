"""What a stranger's bytes cost a name server: memory that stays, looks at the disk, and turns of the loop."""

from __future__ import annotations

import asyncio
import random
from importlib import import_module
from pathlib import Path
from struct import pack
from typing import Any

import dns.rdata
import pytest

from dns_pair import dns_host, name_server
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.limits import DNS_IDLE_S
from obscura.morph import dns_message, dns_reading
from obscura.morph.carrier import Finished
from obscura.morph.dns import framed

KEY = b"k" * 32
ROOT = b"\0"


def record(kind: int, rdclass: int, data: bytes) -> bytes:
    return ROOT + pack("!HHIH", kind, rdclass, 0, len(data)) + data


def update(*records: bytes) -> bytes:
    return (
        pack("!6H", 1, dns_message.UPDATE << 11, 1, 0, len(records), 0) + ROOT + pack("!HH", 6, 1) + b"".join(records)
    )


def test_numbers_that_a_stranger_thinks_of_are_neither_remembered_nor_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, rng = name_server(KEY), random.Random(1)
    sought: list[str] = []

    def seek(name: str) -> object:
        sought.append(name)
        return import_module(name)

    monkeypatch.setattr(dns.rdata, "import_module", seek)
    kinds = [kind for kind in range(1, 65_536) if not 128 <= kind <= 255 and kind != dns_message.OPT]
    before = len(dns.rdata._rdata_classes)
    for rdclass in (1, 3, 4, 7_777):
        for kind in (*range(1, 128), *rng.sample(kinds, 200)):
            if kind != dns_message.OPT:
                server.answer(update(record(kind, rdclass, b"x")), rng, is_tcp=False)
    assert len(dns.rdata._rdata_classes) - before < 300  # those that exist, in classes that do
    known = len(dns.rdata._rdata_classes)
    for kind in rng.sample(kinds, 500):
        server.answer(update(*[record(kind, rng.randrange(5, 60_000), b"x")] * 16), rng, is_tcp=False)
    assert len(dns.rdata._rdata_classes) == known
    assert not sought


@pytest.mark.parametrize(
    ("kind", "data", "is_well"),
    [(64, b"\0\1\0", True), (64, b"\0", False), (29, bytes(3), False), (33, bytes(7), True), (33, bytes(2), False)],
)
def test_rare_types_are_still_looked_into(kind: int, data: bytes, is_well: bool) -> None:
    answer, *_ = name_server(KEY).answer(update(record(kind, 1, data)), random.Random(1), is_tcp=True)
    assert answer is not None
    assert (answer[3] & 15 != dns_message.FORMERR) is is_well


def test_a_name_that_goes_over_its_data_is_noticed() -> None:
    name_over = record(2, 1, b"\1a")[:-2] + b"\1a"
    wire = update(name_over, record(1, 1, bytes(4)))
    answer, *_ = name_server(KEY).answer(wire, random.Random(1), is_tcp=True)
    assert answer is not None
    assert answer[3] & 15 == dns_message.FORMERR


# --- What is done at once -------------------------------------------------------------------------------------------------

SOA_QUESTION = dns_message.name_of("example") + pack("!HH", 6, 1)
LONG = b"\1a" * 127 + ROOT
POINTER = b"\xc0\x0c"


def filled(op: int, one: bytes) -> bytes:
    """A message of 64 KiB of one record."""
    count = (0xFFFF - dns_message.HEADER.size - len(SOA_QUESTION)) // len(one)
    return pack("!6H", 1, op << 11, 1, 0, count, 0) + SOA_QUESTION + one * count


def with_options(size: int) -> bytes:
    """A query with an OPT of as many empty options as it holds."""
    options = pack("!HH", 99, 0) * (size // 4)
    opt = ROOT + pack("!HHIH", dns_message.OPT, 1_232, 0, len(options)) + options
    return pack("!6H", 1, 0, 1, 0, 0, 1) + SOA_QUESTION + opt


SIGNED = pack("!HBBIIIH", 1, 8, 127, 300, 1, 1, 7)
COSTLY = {
    "small records": ROOT + pack("!HHIH", 9_999, 1, 0, 0),
    "owners that are pointers": POINTER + pack("!HHIH", 1, 1, 0, 4) + bytes(4),
    "long owners": LONG + pack("!HHIH", 9_999, 1, 0, 0),
    "names that are pointers": record(14, 1, POINTER * 2),
    "long names": record(14, 1, LONG * 2),
    "long signers": record(46, 1, SIGNED + LONG + b"s"),
    "parts of addresses": record(38, 1, b"\x80" + LONG),
    "what the library reads": record(55, 1, b"\1\1\0\1ab\0"),
    "what the library reads though it is nothing": record(42, 1, b""),
}


@pytest.mark.parametrize("op", [dns_message.QUERY, dns_message.NOTIFY, dns_message.UPDATE])
@pytest.mark.parametrize("kind", COSTLY)
def test_a_message_of_any_kind_is_looked_at_in_steps(kind: str, op: int) -> None:
    wire = filled(op, COSTLY[kind])
    assert sum(1 for _ in name_server(KEY).answering(wire, random.Random(1), is_tcp=True)) >= 12
    _stepwise(wire)


def test_the_library_is_asked_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    works = dns_reading.from_wire

    def count(*args: Any) -> Any:
        asked.append(1)
        return works(*args)

    monkeypatch.setattr(dns_reading, "from_wire", count)
    for data in (b"", b"\0\1\0\0"):
        wire, most = filled(dns_message.UPDATE, record(42, 1, data)), 0
        for _ in name_server(KEY).answering(wire, random.Random(1), is_tcp=True):
            most = max(most, len(asked))
            asked.clear()
        assert 0 < most <= 40, "in one turn"
    wire = filled(dns_message.UPDATE, record(42, 1, b""))
    name_server(KEY).answer(wire, random.Random(1), is_tcp=True)
    assert len(asked) <= 64, "in one message"


def test_options_are_looked_at_in_steps() -> None:
    wire = with_options(65_000)
    assert sum(1 for _ in name_server(KEY).answering(wire, random.Random(1), is_tcp=True)) >= 12
    _stepwise(wire)


def _stepwise(wire: bytes) -> None:
    """A connection answers it as at once, after several turns, and nothing behind it before it."""
    query = pack("!6H", 2, 0, 1, 0, 0, 0) + SOA_QUESTION
    expected = [name_server(KEY).answer(each, random.Random(1), is_tcp=True)[0] for each in (wire, query)]
    server = dns_host(KEY).server(random.Random(1))
    server.start(0.0)
    assert server.receive(framed(wire) + framed(query), 0.0) == []
    turns, said = 0, server.take()
    while server.deadline() == 0.0:
        assert said == [], "nothing before its end"
        turns += 1
        assert server.due(0.0) == []
        said += server.take()
    assert turns >= 12
    assert b"".join(said) == b"".join(framed(each or b"") for each in expected)
    assert server.deadline() == DNS_IDLE_S


def test_many_small_requests_are_answered_a_few_at_once() -> None:
    query = framed(pack("!6H", 2, 0, 1, 0, 0, 0) + SOA_QUESTION)
    server = dns_host(KEY).server(random.Random(1))
    server.start(0.0)
    server.receive(query * 3_000, 0.0)
    one = len(name_server(KEY).answer(query[2:], random.Random(1), is_tcp=True)[0] or b"") + 2
    answered = []
    while sum(answered) < 3_000:
        answered.append(sum(map(len, server.take())) // one)
        server.due(0.0)
    assert max(answered) <= 1 + 4_096 // (256 + len(query) - 2)


def test_who_ends_the_own_side_gets_every_answer_and_then_the_end() -> None:
    wire = framed(filled(dns_message.UPDATE, COSTLY["small records"]))
    server = dns_host(KEY).server(random.Random(1))
    server.start(0.0)
    server.receive(wire * 2, 0.0)
    assert server.eof(0.0) == []
    assert server.eof(0.0) == [], "the socket may say so twice"
    said, events = server.take(), []
    while not events:
        assert server.is_busy
        assert server.deadline() == 0.0
        events = server.due(0.0)
        said += server.take()
    assert events == [Finished()]
    answer, *_ = name_server(KEY).answer(wire[2:], random.Random(1), is_tcp=True)
    assert b"".join(said) == framed(answer or b"") * 2
    assert not server.is_busy


def test_a_node_answers_the_last_words_of_who_has_ended(tmp_path: Path) -> None:
    wire = framed(filled(dns_message.UPDATE, COSTLY["small records"]))

    async def scenario() -> bytes:
        config = Config(network="dev", data_dir=tmp_path, listen=("127.0.0.1:0?carrier=dns",))
        async with asyncio.timeout(60), Node(config) as node:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.addresses[0].port)
            writer.write(wire * 3)
            writer.write_eof()
            said = await reader.read()
            writer.close()
            assert not node.engine.links
            return said

    assert len(asyncio.run(scenario())) == 3 * (2 + dns_message.HEADER.size + len(SOA_QUESTION))
