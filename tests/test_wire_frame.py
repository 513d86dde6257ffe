"""The frame decoder against what a stranger may send: any bytes, any fragmentation, lengths that lie."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import ClassVar, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import DecodeError, Violation
from obscura.limits import MAX_UNKNOWN_PAYLOAD
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.frame import (
    FrameDecoder,
    Item,
    Kinds,
    Malformed,
    Unknown,
    encode_frame,
    encode_raw,
    frame_parts,
)
from obscura.wire.message import Message, Phase, padded_type, type_of
from obscura.wire.messages.blocks import Block, Inv, InventoryItem, SendCmpct
from obscura.wire.messages.network import Addr, GetAddr, Ping, Pong, Verack, Version
from obscura.wire.messages.privacy import PadNeg, Resume
from obscura.wire.messages.transactions import GetData, NotFound, StemTx, Tx
from obscura.wire.tally import OTHER, Tally

VERSION = Version(1, 1_700_000_000, 5, 3, "Obscura/1.0.0", b"\x2a" * 32, 12_345, 99)
STREAM = b"".join(
    (
        encode_frame(Ping(1)),
        encode_frame(GetAddr()),
        encode_raw("tx", b"x", b"bad!"),
        encode_raw("news", b"y" * 300),
        encode_raw("ping", b"short"),
        encode_frame(Tx(b"z" * 5_000)),
        encode_frame(Inv((InventoryItem(1, b"\x07" * 32),) * 3)),
        encode_raw("news", b"y", b"bad!"),
        encode_frame(Block(bytes(range(256)) * 40)),
        encode_frame(Pong(2)),
    )
)


def header(type: str | bytes, size: int, checksum: bytes = b"\0\0\0\0") -> bytes:
    name = type if isinstance(type, bytes) else padded_type(type)
    return size.to_bytes(4, "little") + name + checksum


def shown(items: Iterable[Item]) -> list[object]:
    """Items with exceptions made comparable."""
    return [("violation", str(item)) if isinstance(item, Violation) else item for item in items]


def feed(pieces: Iterable[bytes], kinds: Kinds = CATALOGUE.established, keep: bool = False) -> list[object]:
    """Items of the pieces, each in a buffer that is overwritten after its call, as a link's receive buffer is."""
    decoder = FrameDecoder(kinds, keep_unknown=keep)
    buffer = bytearray(1 << 20)
    items: list[Item] = []
    for piece in pieces:
        buffer[7 : 7 + len(piece)] = piece
        items += decoder.receive(memoryview(buffer), 7, 7 + len(piece))
        buffer[7 : 7 + len(piece)] = b"\xee" * len(piece)
    return shown(items)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("step", [1, 2, 7, 19, 20, 21, 64, 4_096, 1 << 20])
def test_same_items_at_any_step(step: int, keep: bool) -> None:
    whole = shown(FrameDecoder(CATALOGUE.established, keep).receive(STREAM))
    assert [type(item).__name__ for item in whole] == [
        *("Ping", "GetAddr", "Malformed", "Unknown", "Malformed", "Tx", "Inv", "Malformed", "Block", "Pong")
    ]
    assert feed((STREAM[i : i + step] for i in range(0, len(STREAM), step)), keep=keep) == whole


@pytest.mark.parametrize("step", [1, 19, 21, 64, 1 << 20])
def test_frames_are_counted_by_type_at_any_step_and_those_of_the_stem_are_not(step: int) -> None:
    stem = encode_frame(StemTx(b"s" * 300))
    pings = b"".join(encode_frame(Ping(nonce)) for nonce in range(5))
    stream = pings + STREAM + stem + stem + encode_frame(Ping(3)) + stem
    tally: Tally = {}
    decoder = FrameDecoder(CATALOGUE.established, tally=tally)
    for at in range(0, len(stream), step):
        list(decoder.receive(stream[at : at + step]))
    frames = {name.rstrip(b"\0"): counted[0] for name, counted in tally.items()}
    assert frames == {b"ping": 7, b"getaddr": 1, b"tx": 1, b"inv": 1, b"block": 1, b"pong": 1, OTHER: 4}
    assert sum(size for _, size in tally.values()) == len(stream) - 3 * len(stem)


def test_frames_that_were_given_out_are_counted_though_the_rest_is_not_asked_for() -> None:
    tally: Tally = {}
    items = FrameDecoder(CATALOGUE.established, tally=tally).receive(STREAM)
    next(items)
    next(items)
    del items
    assert {name.rstrip(b"\0"): counted for name, counted in tally.items()} == {b"ping": [1, 28], b"getaddr": [1, 20]}


@settings(deadline=None, max_examples=60)
@given(places=st.lists(st.integers(0, len(STREAM)), max_size=30), keep=st.booleans())
def test_same_items_at_random_cuts(places: list[int], keep: bool) -> None:
    assert feed(cut(STREAM, places), keep=keep) == feed([STREAM], keep=keep)


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=400), places=st.lists(st.integers(0, 400), max_size=8), phase=st.integers(0, 2))
def test_arbitrary_bytes_give_items_only(data: bytes, places: list[int], phase: int) -> None:
    kinds = (CATALOGUE.opening, CATALOGUE.established, CATALOGUE.any_phase)[phase]
    items = list(FrameDecoder(kinds).receive(data))
    assert all(isinstance(item, Item) for item in items)
    assert feed(cut(data, places), kinds) == shown(items)


INTACT = [VERSION, Verack(), Ping(1), Inv((InventoryItem(1, b"\x07" * 32),)), Tx(b"z" * 70), GetAddr(), Pong(2)]
STARTS = [sum(len(encode_frame(m)) for m in INTACT[:i]) for i in range(len(INTACT))]


@settings(deadline=None, max_examples=150)
@given(data=st.data(), flip=st.integers(1, 255), places=st.lists(st.integers(0, 500), max_size=5))
def test_one_changed_byte(data: st.DataObject, flip: int, places: list[int]) -> None:
    """Whatever byte of a valid stream changes, the frames before it stand, and the changed one is not taken as sent."""
    stream = bytearray(b"".join(map(encode_frame, INTACT)))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= flip
    items = feed(cut(bytes(stream), places), CATALOGUE.any_phase)
    changed = max(i for i, start in enumerate(STARTS) if start <= at)
    assert items[:changed] == INTACT[:changed]
    assert items[changed : changed + 1] != INTACT[changed : changed + 1]


@settings(deadline=None, max_examples=100)
@given(name=st.sampled_from([cls.TYPE for cls in CATALOGUE]), payload=st.binary(max_size=300))
def test_arbitrary_payloads(name: str, payload: bytes) -> None:
    """Any payload of any type: a message that encodes to the same bytes, malformed, or over the limit."""
    (item,) = FrameDecoder(CATALOGUE.any_phase).receive(encode_raw(name, payload))
    if isinstance(item, Message):
        assert (item.TYPE, item.encode()) == (name, payload)
    else:
        assert isinstance(item, Malformed | Violation)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (header(b"\0" * 12, 0), "type has other bytes"),
        (header(b"Ping".ljust(12, b"\0"), 8), "type has other bytes"),
        (header(b"pi ng".ljust(12, b"\0"), 8), "type has other bytes"),
        (header(b"ping\0x".ljust(12, b"\0"), 8), "type has other bytes"),
        (header(b"\0ping".ljust(12, b"\0"), 8), "type has other bytes"),
        (header(b"p\xc3\xafng".ljust(12, b"\0"), 8), "type has other bytes"),
        (header("ping", 9), "ping of 9 bytes, over its limit of 8"),
        (header("getaddr", 1), "over its limit of 0"),
        (header("tx", 4_000_001), "over its limit of 4000000"),
        (header("block", 0xFFFFFFFF), "over its limit of 4000000"),
        (header("stemtx", 100_001), "over its limit of 100000"),
        (header("news", MAX_UNKNOWN_PAYLOAD + 1), "over its limit of 4194304"),
        (header("version", 84), "version is not legal in the established phase"),
        (header("verack", 0), "verack is not legal in the established phase"),
        (header("padneg", 90), "padneg is not legal in the established phase"),
        (header("resume", 48), "resume is not legal in the established phase"),
        (header("resumed", 48), "resumed is not legal in the established phase"),
    ],
)
def test_violations_are_decided_by_the_header_alone(raw: bytes, reason: str) -> None:
    before = encode_frame(Ping(3))
    for step in (1, 7, len(raw)):
        data = before + raw
        items = feed(data[i : i + step] for i in range(0, len(data), step))
        assert items[0] == Ping(3)
        ((kind, text),) = items[1:]  # type: ignore[misc]
        assert kind == "violation"
        assert reason in text
        assert feed([data[:-1]]) == [Ping(3)], "nothing is decided before the header is whole"


@pytest.mark.parametrize("cls", list(CATALOGUE), ids=lambda cls: cls.TYPE)
def test_every_type_ends_the_link_one_byte_over_its_limit(cls: type[Message]) -> None:
    decoder = FrameDecoder(CATALOGUE.any_phase)
    assert list(decoder.receive(header(cls.TYPE, cls.MAX_SIZE))) == [] or cls.MAX_SIZE == 0
    (item,) = FrameDecoder(CATALOGUE.any_phase).receive(header(cls.TYPE, cls.MAX_SIZE + 1))
    assert isinstance(item, Violation)


def test_a_dead_decoder_stays_dead() -> None:
    decoder = FrameDecoder(CATALOGUE.established)
    stream = header("ping", 9) + encode_frame(Ping(1))
    assert [type(item) for item in decoder.receive(stream)] == [Violation]
    assert list(decoder.receive(encode_frame(Ping(1)))) == []
    assert list(decoder.receive(b"\0")) == []


@pytest.mark.parametrize(
    "raw",
    [
        encode_frame(Ping(1)),
        encode_frame(Tx(b"1")),
        encode_raw("news", b""),
        header("version", 1_025),
        header("padneg", 1_025),
        encode_raw("version", VERSION.encode(), b"bad!"),
        encode_raw("version", VERSION.encode()[:-1]),
        encode_raw("verack", b"", b"bad!"),
    ],
)
def test_opening_admits_little(raw: bytes) -> None:
    assert [type(item) for item in FrameDecoder(CATALOGUE.opening).receive(raw)] == [Violation]


def test_opening_admits_its_own() -> None:
    terms = bytes.fromhex("0100") + bytes(32)
    messages: list[Message] = [VERSION, PadNeg.decode(terms * 2 + bytes(4)), SendCmpct(False, 2), Verack()]
    messages.append(Resume(b"i" * 16, b"m" * 32))
    data = b"".join(encode_frame(message) for message in messages)
    assert list(FrameDecoder(CATALOGUE.opening).receive(data)) == messages


@pytest.mark.parametrize("step", [1, 7, 20, 10_000])
def test_kinds_change_between_two_items_of_one_chunk(step: int) -> None:
    """verack establishes: the ping behind it in the same chunk is legal, and a second verack is not."""
    data = b"".join(encode_frame(m) for m in (VERSION, Verack(), Ping(5), SendCmpct(True, 2), Verack(), Ping(6)))
    decoder = FrameDecoder(CATALOGUE.opening)
    items: list[Item] = []
    for start in range(0, len(data), step):
        for item in decoder.receive(data[start : start + step]):
            items.append(item)
            if isinstance(item, Verack):
                decoder.kinds = CATALOGUE.established
    assert items[:4] == [VERSION, Verack(), Ping(5), SendCmpct(True, 2)]
    assert [str(item) for item in items[4:]] == ["verack is not legal in the established phase"]


def test_what_the_old_kinds_admit_is_judged_by_the_new_ones() -> None:
    decoder = FrameDecoder(CATALOGUE.opening)
    items: list[Item] = []
    for item in decoder.receive(encode_frame(Verack()) * 2):
        items.append(item)
        decoder.kinds = CATALOGUE.established
    assert [type(item) for item in items] == [Verack, Violation]


def test_items_say_what_was_wrong() -> None:
    data = encode_raw("tx", b"x", b"bad!") + encode_raw("ping", b"short") + encode_raw("news", b"y")
    wrong, undecodable, unknown = FrameDecoder(CATALOGUE.established).receive(data)
    assert wrong == Malformed("tx", 1, b"bad!", "wrong checksum")
    assert isinstance(undecodable, Malformed)
    assert (undecodable.type, undecodable.size, undecodable.payload) == ("ping", 5, None)
    assert isinstance(unknown, Unknown)
    assert (unknown.type, unknown.size, unknown.payload) == ("news", 1, None)
    kept = list(FrameDecoder(CATALOGUE.established, keep_unknown=True).receive(data))
    assert [item.payload for item in kept if isinstance(item, Malformed | Unknown)] == [b"x", b"short", b"y"]


def peak_of(pieces: list[bytes], decoder: FrameDecoder) -> int:
    """Most bytes allocated at once while the decoder takes the pieces, out of one buffer as on a link."""
    buffer = memoryview(bytearray(max(map(len, pieces))))
    tracemalloc.start()
    try:
        for piece in pieces:
            buffer[: len(piece)] = piece
            for _ in decoder.receive(buffer, 0, len(piece)):
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("raw", [header("block", 4_000_000), header("news", 4_000_000), header("inv", 1_800_003)])
def test_an_announced_size_allocates_nothing(raw: bytes) -> None:
    assert peak_of([raw, b"\x01"], FrameDecoder(CATALOGUE.established)) < 20_000


@pytest.mark.parametrize("cls", [Inv, GetData, NotFound, Addr])
def test_an_announced_count_allocates_nothing(cls: type[Message]) -> None:
    count = b"\xfd\xe8\x03" if cls is Addr else b"\xfd\x50\xc3"
    assert peak_of([encode_raw(cls.TYPE, count + bytes(10))], FrameDecoder(CATALOGUE.established)) < 20_000


def test_an_unknown_payload_is_checked_but_not_kept() -> None:
    frame = encode_raw("news", b"n" * 1_000_000)
    pieces = [frame[i : i + 10_000] for i in range(0, len(frame), 10_000)]
    decoder = FrameDecoder(CATALOGUE.established)
    assert peak_of(pieces, decoder) < 50_000
    assert [type(item) for item in decoder.receive(frame)] == [Unknown]


def test_tiny_pieces_of_a_payload_cost_no_multiple_of_it() -> None:
    """A peer that sends a block two bytes at a time: an object per piece would be twenty times the payload."""
    frame = encode_raw("block", b"b" * 60_000)
    pieces = [frame[i : i + 2] for i in range(0, len(frame) - 2, 2)]
    assert peak_of(pieces, FrameDecoder(CATALOGUE.established)) < 150_000


@pytest.mark.parametrize(
    ("fed", "pending"),
    [(b"", None), (b"\0" * 5, (5, 20)), (header("tx", 100), (20, 120)), (header("tx", 100) + b"123", (23, 120))],
)
def test_pending(fed: bytes, pending: tuple[int, int] | None) -> None:
    for step in (1, 1_000):
        decoder = FrameDecoder(CATALOGUE.established)
        for start in range(0, len(fed), step):
            assert list(decoder.receive(fed[start : start + step])) == []
        assert decoder.pending == pending


def test_frame_parts_do_not_copy_the_payload() -> None:
    raw = b"r" * 100_000
    assert frame_parts(Block(raw))[1] is raw


@pytest.mark.parametrize("name", ["", "a" * 13, "Ping", "pi-ng", "ping\0", "pïng", "\ud800"])
def test_type_names_that_do_not_exist(name: str) -> None:
    with pytest.raises(ValueError, match="message type"):
        padded_type(name)


@given(name=st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True))
@settings(deadline=None, max_examples=50)
def test_type_names_both_ways(name: str) -> None:
    assert type_of(padded_type(name)) == name


class Note(Message, frozen=True, gc=False):
    """An application's own message, with a decoder that fails in ways of its own."""

    TYPE: ClassVar[str] = "note"
    MAX_SIZE: ClassVar[int] = 10

    text: str

    def encode(self) -> bytes:
        return self.text.encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        if payload == b"!":
            raise DecodeError("no notes of this kind")
        return cls(payload.decode("ascii"))


def test_an_application_adds_a_message() -> None:
    catalogue = CATALOGUE.with_message(Note)
    assert CATALOGUE.get("note") is None, "a catalogue never changes"
    assert (catalogue.get("note"), len(catalogue)) == (Note, len(CATALOGUE) + 1)
    data = encode_frame(Note("hello")) + encode_raw("note", b"\xff") + encode_raw("note", b"!") + encode_frame(Ping(1))
    items = list(FrameDecoder(catalogue.established).receive(data))
    assert [type(item) for item in items] == [Note, Malformed, Malformed, Ping]
    assert [type(item) for item in FrameDecoder(catalogue.opening).receive(data)] == [Violation]
    assert [type(item) for item in FrameDecoder(CATALOGUE.established).receive(data)] == [Unknown] * 3 + [Ping]


def test_an_applications_decoder_may_be_a_static_method() -> None:
    made = variant(decode=staticmethod(lambda payload: made(payload.decode())))
    (item,) = FrameDecoder(CATALOGUE.with_message(made).established).receive(encode_raw("note", b"x"))
    assert item == made("x")


@pytest.mark.parametrize("made", [None, Ping(1), "text"])
def test_what_an_applications_decoder_returns_is_a_message_of_its_class(made: object) -> None:
    kinds = CATALOGUE.with_message(variant(decode=classmethod(lambda cls, payload: made))).established
    with pytest.raises(TypeError, match=f"Variant.decode returned {type(made).__name__}, not Variant"):
        list(FrameDecoder(kinds).receive(encode_raw("note", b"x")))


def variant(**attributes: object) -> type[Message]:
    return type("Variant", (Note,), attributes, frozen=True, gc=False)  # type: ignore[return-value, call-overload]


@pytest.mark.parametrize(
    "make",
    [
        lambda: variant(TYPE="tx"),
        lambda: variant(TYPE="No"),
        lambda: variant(TYPE="big", MAX_SIZE=MAX_UNKNOWN_PAYLOAD + 1),
        lambda: variant(TYPE="early", PHASE=Phase.OPENING),
        lambda: variant(decode=lambda self, payload: self),
        lambda: variant(decode=None),
    ],
)
def test_messages_that_cannot_be_added(make: object) -> None:
    with pytest.raises(ValueError):
        CATALOGUE.with_message(make())  # type: ignore[operator]


@pytest.mark.parametrize("raw", [b"", b"t" * 99_999])
def test_stem_transactions_have_their_own_type(raw: bytes) -> None:
    assert list(FrameDecoder(CATALOGUE.established).receive(encode_frame(StemTx(raw)))) == [StemTx(raw)]


def test_a_decoder_that_was_cleared_gives_nothing_more() -> None:
    decoder, frame = FrameDecoder(CATALOGUE.established), encode_frame(Ping(1))
    assert list(decoder.receive(frame + frame[:9])) == [Ping(1)]
    decoder.clear()
    assert decoder.pending is None
    assert list(decoder.receive(frame[9:] + frame)) == []
