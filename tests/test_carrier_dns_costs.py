"""What a stranger's bytes cost a name server: memory that stays, and looks at the disk."""

from __future__ import annotations

import random
from importlib import import_module
from struct import pack

import dns.rdata
import pytest

from dns_pair import name_server
from obscura.morph import dns_message

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
    answer, _ = name_server(KEY).answer(update(record(kind, 1, data)), random.Random(1), is_tcp=True)
    assert answer is not None
    assert (answer[3] & 15 != dns_message.FORMERR) is is_well


def test_a_name_that_goes_over_its_data_is_noticed() -> None:
    name_over = record(2, 1, b"\1a")[:-2] + b"\1a"
    wire = update(name_over, record(1, 1, bytes(4)))
    answer, _ = name_server(KEY).answer(wire, random.Random(1), is_tcp=True)
    assert answer is not None
    assert answer[3] & 15 == dns_message.FORMERR
