"""Messages of DNS taken apart, with the faults that BIND 9.18 finds while it reads (RFC 1035, 2136, 6891).

What is wrong with a record's data decides which error a stranger is told, so each type that a changed bit can make out of the
carrier's own is looked into here; the others by the library, as many bytes of a message as it may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import cache
from typing import Final

from dns.exception import DNSException
from dns.rdata import from_wire, get_rdata_class, load_all_types
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from obscura.errors import Violation
from obscura.limits import DNS_RARE_BYTES, DNS_STEP_BYTES
from obscura.morph.dns_message import (
    A6,
    AAAA,
    ANY_CLASS,
    CH,
    DS,
    HEADER,
    HS,
    IN,
    NAMES_IN,
    NONE,
    NOTIFY,
    OPT,
    QUESTION_TAIL,
    RRSIG,
    TKEY,
    TSIG,
    UPDATE,
    A,
    Message,
    Question,
    Record,
    labels,
    read_name,
    read_record,
)

_CDS, _TA, _DLV = 59, 32_768, 32_769
_DIGESTS: Final = {1: 20, 2: 32, 4: 48}  # bytes, by the number of the hash
_RARE_RECORD: Final = 16  # bytes that one counts beside its data. Security: some of no data are slow all the same.
_RARE_COST: Final = 8  # a byte of them takes as long as so many others
_SIGNER_AT: Final = 18  # bytes of an RRSIG before its signer (RFC 4034, 3.1)
# Options of a fixed form, by the sizes that they may have.
_OPTION_SIZES: Final[dict[int, Callable[[int], bool]]] = {
    1: lambda size: size == 18,  # LLQ
    2: lambda size: size in (4, 8),  # update lease
    9: lambda size: size in (0, 4),  # expire
    10: lambda size: size == 8 or 16 <= size <= 40,  # cookie
    14: lambda size: size > 0 and size % 2 == 0,  # key tags
    15: lambda size: size >= 2,  # extended error
    16: lambda size: size == 2,  # client tag
    17: lambda size: size == 2,  # server tag
}


def _check(message: Message, record: Record, section: int) -> None:
    """That a record has the class of its message and data of its type's form. Raises ``Violation``.

    ``section``: 1 answers or prerequisites, 2 authority or updates, 3 additional.
    """
    rdclass = record.rdclass
    if message.opcode != UPDATE:
        if 128 <= record.type <= 255 and record.type != TKEY:
            raise Violation("a type that no record has")
        if message.questions and rdclass != message.questions[0].rdclass:
            raise Violation("a record of another class")
    elif (rdclass == ANY_CLASS and section < 3) or (rdclass == NONE and section == 1):  # RFC 2136, 2.4 and 2.5
        if record.data:
            raise Violation("data where none may be")
        return
    elif rdclass == NONE and section == 2:
        rdclass = message.questions[0].rdclass if message.questions else IN
    if not _is_well(message, record, rdclass):
        raise Violation("data of another form")


def _is_well(message: Message, record: Record, rdclass: int) -> bool:
    """Whether the data has its type's form. Raises ``Violation`` for a name that has none."""
    kind, data = record.type, record.data
    if kind in NAMES_IN:
        before, count, behind = NAMES_IN[kind]
        return _after_names(message, record, before, count) + behind == record.end
    if kind == A and rdclass == CH:  # a name and 16 bits (RFC 1035, 3.3)
        return _after_names(message, record, 0, 1) + 2 == record.end
    if kind == A:
        return len(data) == 4 or rdclass not in (IN, HS)
    if kind == AAAA:
        return len(data) == 16 or rdclass != IN
    if kind in (DS, _CDS, _TA, _DLV):  # with a digest, of its size where that is known
        return len(data) > 4 and _DIGESTS.get(data[3], len(data) - 4) == len(data) - 4
    if kind == RRSIG:
        return _is_signature(message, record)
    if kind == A6:
        return rdclass != IN or _is_part_of_an_address(data)
    return kind != 0 and _is_known_well(message, record, rdclass)


def _after_names(message: Message, record: Record, before: int, count: int) -> int:
    """Where in the message so many names end, which begin so many bytes behind the start of a record's data."""
    at = record.end - len(record.data) + before
    for _ in range(count):
        _, at = read_name(message.wire, at, message.names)
    return at


def _is_signature(message: Message, record: Record) -> bool:
    """RRSIG: of a type, by a signer who is not below what is signed, with a signature behind."""
    data, start = record.data, record.end - len(record.data)
    if len(data) <= _SIGNER_AT or data[:2] == b"\0\0":
        return False
    signer, at = read_name(message.wire, start + _SIGNER_AT, message.names)
    return len(labels(signer)) <= data[3] and at < record.end


def _is_part_of_an_address(data: bytes) -> bool:
    """A6 (RFC 2874, 3.1): how many bits come from elsewhere, the others, and the name of where, unless there are none."""
    if not data or data[0] > 128:
        return False
    at = 1 + (128 - data[0] + 7) // 8
    if data[0]:
        name, end = read_name(data, at)
        return end - at == len(name) and end == len(data)
    return at == len(data)


def _is_known_well(message: Message, record: Record, rdclass: int) -> bool:
    """What the library says, or that it is not to be asked."""
    in_internet, in_any = looked_into()
    if record.type not in (in_internet if rdclass == IN else in_any):
        return True
    message.rare = min(message.rare + _RARE_RECORD + len(record.data), DNS_RARE_BYTES + 1)
    if message.rare > DNS_RARE_BYTES:
        return True
    try:
        from_wire(RdataClass(rdclass), RdataType(record.type), record.data, 0, len(record.data))
    except DNSException:
        return False
    return True


@cache
def looked_into() -> tuple[frozenset[int], frozenset[int]]:
    """The types that the library knows, in class IN and in any class.

    Nothing else is shown to it: it would look for the type on the disk, and remember each number that a stranger thinks of.
    """
    load_all_types()  # type: ignore[no-untyped-call]
    find: Callable[..., object] = get_rdata_class
    internet, every = (
        frozenset(int(kind) for kind in RdataType if find(rdclass, kind, use_generic=False) is not None)
        for rdclass in (RdataClass.IN, RdataClass.ANY)
    )
    return internet | every, every


def read(message: Message) -> None:
    """Fill in what ``wire`` holds; what was read before a fault stays. Raises ``Violation``."""
    for _ in reading(message):
        pass


def reading(message: Message) -> Iterator[None]:
    """``read`` in steps of ``DNS_STEP_BYTES`` of the message. Raises ``Violation`` in one of them."""
    wire, at = message.wire, HEADER.size
    pause = DNS_STEP_BYTES
    _, _, *counts = HEADER.unpack_from(wire)
    try:
        for _ in range(counts[0]):
            at = _question(message, at)
            if at > pause:
                pause = at + DNS_STEP_BYTES
                yield
    except Violation:
        if message.opcode != UPDATE:
            message.questions.clear()
        raise
    sections = (message.answers, message.authority, message.additional)
    for number, (section, count) in enumerate(zip(sections, counts[1:], strict=True), 1):
        for left in range(count, 0, -1):
            record = read_record(wire, at, message.names)
            at = record.end
            looked_at = at + _RARE_COST * message.rare
            if looked_at > pause:
                pause = looked_at + DNS_STEP_BYTES
                yield
            if message.tsig is not None:
                raise Violation("something behind TSIG")
            if record.type == OPT and (section is not message.additional or message.opt or record.name != b"\0"):
                raise Violation("OPT in a wrong place")
            if record.type == TSIG and (section is not message.additional or left > 1 or record.rdclass != ANY_CLASS):
                raise Violation("TSIG in a wrong place")
            if record.type == OPT:
                message.opt = record
                message.options = yield from _options(record)
            elif record.type == TSIG:
                message.tsig = record
            else:
                _check(message, record, number)
                section.append(record)
    # Bytes behind the message are ignored, as by BIND.


def _question(message: Message, at: int) -> int:
    """Take the question at ``at``: where it ends. Several may be asked about one name, each once. Raises ``Violation``."""
    wire = message.wire
    name, at = read_name(wire, at, message.names)
    end = at + QUESTION_TAIL.size
    tail = wire[at:end]
    if message.questions and name.lower() != message.questions[0].name.lower():
        raise Violation("questions about two names")
    if end > len(wire):
        raise Violation("a question that goes over the end")
    question = Question(name, *QUESTION_TAIL.unpack(tail))
    if question.rdclass in (NONE, ANY_CLASS) and message.opcode in (NOTIFY, UPDATE):
        raise Violation("no class to change")
    if not message.questions:
        message.questions.append(question)
    elif question.rdclass != message.questions[0].rdclass:
        raise Violation("questions of two classes")
    elif question.type == message.questions[0].type or tail in message.more:
        raise Violation("a question that was asked before")
    else:
        message.more[tail] = None
    return end


def _options(opt: Record) -> Generator[None, None, dict[int, bytes] | None]:
    """The options of OPT by code, the first of each; None from one on that has a size of none of its kind. In steps.

    Raises ``Violation`` for what goes over the end before that.
    """
    found: dict[int, bytes] = {}
    data, at, pause = opt.data, 0, DNS_STEP_BYTES
    while at < len(data):
        if at > pause:
            pause = at + DNS_STEP_BYTES
            yield
        if at + 4 > len(data):
            raise Violation("an option that goes over the end")
        code, size = QUESTION_TAIL.unpack_from(data, at)
        at += 4 + size
        if at > len(data):
            raise Violation("an option that goes over the end")
        if code in _OPTION_SIZES and not _OPTION_SIZES[code](size):
            return None
        found.setdefault(code, data[at - size : at])
    return found
