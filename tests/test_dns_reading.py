"""What BIND 9.18 finds wrong with a record's data while it reads an update; the table is what it answered."""

from __future__ import annotations

from struct import pack

import pytest

from obscura.errors import Violation
from obscura.morph.dns_message import (
    A6,
    AAAA,
    ANY_CLASS,
    CH,
    DS,
    HEADER,
    HS,
    IN,
    MF,
    MINFO,
    NONE,
    NS,
    QUESTION_TAIL,
    RECORD_TAIL,
    RRSIG,
    SOA,
    UPDATE,
    A,
    Message,
)  # fmt: skip
from obscura.morph.dns_reading import read

ORIGIN = b"\x09officenet\x07example\0"
POINTER = b"\xc0\x0c"  # to the origin
SIGNATURE = b"s" * 256


def signature(covered: int = 1, labels: int = 3, signer: bytes = ORIGIN, behind: bytes = SIGNATURE) -> bytes:
    return pack("!HBBIIIH", covered, 8, labels, 300, 1 << 31, 1 << 30, 7) + signer + behind


def is_well(kind: int, rdclass: int, data: bytes, section: int = 2) -> bool:
    counts = [0, 0, 0]
    counts[section - 1] = 1
    wire = HEADER.pack(1, UPDATE << 11, 1, *counts) + ORIGIN + QUESTION_TAIL.pack(SOA, IN)
    message = Message.begun(wire + b"\3www" + POINTER + RECORD_TAIL.pack(kind, rdclass, 300, len(data)) + data)
    try:
        read(message)
    except Violation:
        return False
    return True


@pytest.mark.parametrize("rdclass", [IN, CH, HS, NONE, 7])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (signature(), True),
        (signature(signer=POINTER), True),
        (signature(behind=b"x"), True),
        (signature(behind=b""), False),
        (signature(covered=0), False),
        (signature(covered=250), True),
        (signature(labels=2), True),
        (signature(labels=1), False),
        (signature(labels=0, signer=b"\0"), True),
        (signature(labels=200), True),
        (signature(signer=b"\x48" + ORIGIN[1:]), False),
        (signature()[:17], False),
        (b"", False),
    ],
)
def test_signatures(rdclass: int, data: bytes, expected: bool) -> None:
    assert is_well(RRSIG, rdclass, data) is expected


@pytest.mark.parametrize(
    ("kind", "rdclass", "data", "expected"),
    [
        (0, IN, b"", False),
        (0, CH, b"1234", False),
        (A, IN, b"1234", True),
        (A, IN, b"12345", False),
        (A, HS, b"123", False),
        (A, 7, b"123", True),
        (A, CH, POINTER + b"\1\2", True),
        (A, CH, b"\x0a\1\2\3", False),
        (AAAA, IN, b"1234", False),
        (AAAA, HS, b"1234", True),
        (NS, IN, POINTER, True),
        (MF, IN, POINTER, True),
        (MF, CH, b"\x0a\1\2\3", False),
        (MINFO, IN, b"\1a\0" + POINTER, True),
        (MINFO, IN, POINTER, False),
        (DS, IN, b"\0\1\x08\2" + bytes(32), True),
        (DS, IN, b"\0\1\x08\2" + bytes(31), False),
        (DS, IN, b"\0\1\x08\3", False),
        (DS, IN, b"\0\1\x08\3x", True),
        (A6, IN, b"\0" + bytes(16), True),
        (A6, IN, b"\0" + bytes(15), False),
        (A6, IN, b"\x40" + bytes(8) + ORIGIN, True),
        (A6, IN, b"\x40" + bytes(8), False),
        (A6, IN, b"\x40" + bytes(8) + POINTER, False),
        (A6, IN, b"\x81\0", False),
        (A6, CH, b"\x81\0", True),
        (47, IN, signature(), False),
        (47, IN, ORIGIN + b"\0\1\x40", True),
    ],
)
def test_data_of_types(kind: int, rdclass: int, data: bytes, expected: bool) -> None:
    assert is_well(kind, rdclass, data) is expected


@pytest.mark.parametrize(
    ("section", "rdclass", "data", "expected"),
    [
        (1, ANY_CLASS, b"", True),
        (1, ANY_CLASS, b"1234", False),
        (1, NONE, b"", True),
        (1, NONE, b"1234", False),
        (2, ANY_CLASS, b"", True),
        (2, ANY_CLASS, b"1234", False),
        (2, NONE, b"", False),
        (2, NONE, b"1234", True),
        (3, NONE, b"", True),
        (3, ANY_CLASS, b"123", True),
    ],
)
def test_classes_that_say_what_to_do(section: int, rdclass: int, data: bytes, expected: bool) -> None:
    assert is_well(A, rdclass, data, section) is expected
