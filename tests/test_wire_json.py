"""Frames as JSON and back, and messages of any content: what ``obscura wire decode|encode`` rests on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import UserError, Violation
from obscura.wire.address import HOST_BYTES
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.frame import FrameDecoder, encode_frame, encode_raw
from obscura.wire.jsonform import decode_stream, encode_object, from_hex, looks_hex
from obscura.wire.message import Message
from obscura.wire.messages.blocks import (
    Block,
    BlockTxn,
    CmpctBlock,
    GetBlocks,
    GetBlockTxn,
    GetHeaders,
    Headers,
    Inv,
    InventoryItem,
    SendCmpct,
)
from obscura.wire.messages.network import Addr, AddrEntry, Extension, GetAddr, Ping, Pong, Verack, Version
from obscura.wire.messages.privacy import PadNeg, Resume, Resumed, Rotate, ShapingTerms
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, StemTx, Tx

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
RAW = st.binary(max_size=60)
HASH = st.binary(min_size=32, max_size=32)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def tuples(items: st.SearchStrategy[Any], most: int = 5) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=most).map(tuple)


def pair(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(values, values).map(lambda both: tuple(sorted(both)))


ENTRY = U8.flatmap(
    lambda network: st.builds(
        AddrEntry,
        *(U32, U64, st.just(network)),
        st.binary(min_size=HOST_BYTES.get(network, 0), max_size=HOST_BYTES.get(network, 40)),
        *(U16, U8, st.none() | HASH),
    )
)
SIZE = st.integers(1, 65_536)
TERMS = st.builds(
    ShapingTerms,
    st.lists(U8, min_size=1, max_size=8).map(tuple),
    pair(SIZE),
    pair(U32),
    pair(U8),
    pair(U32),
    SIZE,
    pair(U32),
)
ITEMS = tuples(st.builds(InventoryItem, U32, HASH))
HEADERS = st.integers(1, 90).flatmap(lambda size: tuples(st.binary(min_size=size, max_size=size)))
EXTENSIONS = tuples(st.builds(Extension, U8, st.binary(max_size=255)), 3)
MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    Version: st.builds(Version, U32, U64, U32, U32, TEXT, HASH, U64, U64, EXTENSIONS),
    Addr: st.builds(Addr, tuples(ENTRY)),
    Headers: st.builds(Headers, HEADERS),
    CmpctBlock: st.builds(
        CmpctBlock, st.binary(min_size=80, max_size=80), U64, tuples(st.binary(min_size=6, max_size=6)), RAW
    ),
    GetBlockTxn: st.builds(GetBlockTxn, HASH, st.sets(U16, max_size=9).map(lambda found: tuple(sorted(found)))),
    BlockTxn: st.builds(BlockTxn, HASH, RAW),
    SendCmpct: st.builds(SendCmpct, st.booleans(), U64),
    PadNeg: st.builds(PadNeg, TERMS, TERMS, U32, RAW),
    **{cls: st.builds(cls, U64) for cls in (Ping, Pong)},
    **{cls: st.builds(cls, ITEMS) for cls in (Inv, GetData, NotFound)},
    **{cls: st.builds(cls, U32, tuples(HASH), HASH) for cls in (GetBlocks, GetHeaders)},
    **{cls: st.builds(cls, RAW) for cls in (Block, Tx, StemTx)},
    **{cls: st.builds(cls, st.binary(min_size=16, max_size=16), HASH) for cls in (Resume, Resumed)},
    **{cls: st.builds(cls) for cls in (Verack, GetAddr, MempoolRequest, Rotate)},
}


def test_every_message_is_tried() -> None:
    assert set(MESSAGES) == set(CATALOGUE)


@settings(deadline=None, max_examples=200)
@given(message=st.one_of(*MESSAGES.values()))
def test_messages_both_ways(message: Message) -> None:
    frame = encode_frame(message)
    assert type(message).decode(message.encode()) == message
    assert list(FrameDecoder(CATALOGUE.any_phase).receive(frame)) == [message]
    (shown,) = decode_stream(frame)
    assert shown["valid"] is True
    assert encode_object(json.loads(json.dumps(shown))) == frame


@settings(deadline=None, max_examples=200)
@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from([cls.TYPE for cls in CATALOGUE]) | st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
            st.binary(max_size=90),
            st.none() | st.binary(min_size=4, max_size=4),
        ),
        max_size=4,
    )
)
def test_frames_good_and_bad_come_back_to_the_byte(frames: list[tuple[str, bytes, bytes | None]]) -> None:
    legal = [
        encode_raw(name, payload, checksum)
        for name, payload, checksum in frames
        if (cls := CATALOGUE.get(name)) is None or len(payload) <= cls.MAX_SIZE
    ]
    shown = [json.loads(json.dumps(frame)) for frame in decode_stream(b"".join(legal))]
    assert [encode_object(frame) for frame in shown] == legal


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=300))
def test_any_bytes_give_objects_then_at_most_one_error(data: bytes) -> None:
    shown = decode_stream(data)
    again = b""
    try:
        for frame in shown:
            again += encode_object(frame)
    except (Violation, UserError):
        assert data.startswith(again)
        assert again != data
    else:
        assert again == data


def test_malformed_frames_show_their_bytes() -> None:
    data = encode_raw("tx", b"\x01\x02", b"bad!") + encode_raw("ping", b"\x03") + encode_raw("news", b"\x04")
    wrong, undecodable, unknown = decode_stream(data)
    assert wrong == {"type": "tx", "size": 2, "checksum": b"bad!".hex(), "valid": False, "payload": {"raw": "0102"}}
    assert (undecodable["valid"], undecodable["payload"]) == (False, {"raw": "03"})
    assert (unknown["valid"], unknown["payload"]) == (True, {"raw": "04"})


def test_a_violation_comes_after_the_frames_before_it() -> None:
    shown = decode_stream(encode_frame(Ping(1)) + encode_frame(Verack()) + b"\xff" * 20 + encode_frame(Ping(2)))
    assert [next(shown)["type"], next(shown)["type"]] == ["ping", "verack"]
    with pytest.raises(Violation):
        next(shown)


@pytest.mark.parametrize(("left", "text"), [(7, "7 of 20 bytes"), (20, "20 of 28 bytes"), (27, "27 of 28 bytes")])
def test_input_that_ends_inside_a_frame(left: int, text: str) -> None:
    frame = encode_frame(Ping(1))
    shown = decode_stream(frame + frame[:left])
    assert next(shown)["payload"] == {"nonce": "1"}
    with pytest.raises(UserError, match=text):
        next(shown)


PING = {"type": "ping", "payload": {"nonce": "1"}}
ITEM = {"kind": 1, "hash": "00" * 32}


@pytest.mark.parametrize(
    ("shown", "names"),
    [
        ([], "JSON object"),
        ("ping", "JSON object"),
        ({}, "type is missing"),
        ({"type": 7}, "type is missing"),
        ({"type": "PING", "payload": {"raw": ""}}, "type: a message type"),
        ({"type": "a" * 13, "payload": {"raw": ""}}, "type: a message type"),
        ({"type": "news"}, "payload: the type 'news' is unknown"),
        ({"type": "news", "payload": {"text": "x"}}, "payload: the type 'news' is unknown"),
        ({"type": "news", "payload": {"raw": "00" * ((4 << 20) + 1)}}, "payload: news has at most 4194304 bytes"),
        ({**PING, "cheksum": ""}, "'cheksum' is no field"),
        ({**PING, "valid": 1}, "valid is true or false"),
        ({**PING, "valid": False}, "checksum is missing"),
        ({**PING, "valid": False, "checksum": "00"}, "checksum has 4 bytes, not 1"),
        ({**PING, "valid": False, "checksum": "zz"}, "checksum is missing or not hex"),
        ({"type": "ping"}, r"payload\.nonce is missing"),
        ({"type": "ping", "payload": []}, "payload is an object"),
        ({"type": "ping", "payload": {"nonce": "1", "nounce": "1"}}, "no field 'nounce': use nonce"),
        ({"type": "verack", "payload": {"nonce": "1"}}, "no field 'nonce': use none"),
        ({"type": "ping", "payload": {"nonce": "-1"}}, r"payload\.nonce is a whole number"),
        ({"type": "ping", "payload": {"nonce": -1}}, r"payload\.nonce is 0 to"),
        ({"type": "ping", "payload": {"nonce": 1.0}}, r"payload\.nonce is a whole number"),
        ({"type": "ping", "payload": {"nonce": True}}, r"payload\.nonce is a whole number"),
        ({"type": "ping", "payload": {"nonce": str(2**64)}}, r"payload\.nonce is 0 to 18446744073709551615"),
        ({"type": "ping", "payload": {"nonce": "9" * 5_000}}, r"payload\.nonce is a whole number"),
        ({"type": "ping", "payload": {"raw": "00" * 9}}, "at most 8 bytes, not 9"),
        ({"type": "tx", "payload": {"raw": "0"}}, r"payload\.raw is missing or not hex"),
        ({"type": "tx", "payload": {"raw": None}}, r"payload\.raw is missing or not hex"),
        ({"type": "inv", "payload": {"items": {}}}, r"payload\.items is a list"),
        ({"type": "inv", "payload": {"items": [ITEM, 3]}}, r"payload\.items\[1\] is an object"),
        ({"type": "inv", "payload": {"items": [{"kind": 1}]}}, r"payload\.items\[0\]\.hash is missing"),
        ({"type": "inv", "payload": {"items": [{**ITEM, "hash": "00"}]}}, r"payload\.items\[0\]\.hash has 32 bytes"),
        ({"type": "inv", "payload": {"items": [{**ITEM, "kind": "1"}]}}, r"payload\.items\[0\]\.kind is a whole"),
        ({"type": "inv", "payload": {"items": [{**ITEM, "kind": 2**32}]}}, r"payload\.items\[0\]\.kind is 0 to"),
        ({"type": "sendcmpct", "payload": {"announce": 1, "version": "2"}}, r"payload\.announce is true or false"),
        ({"type": "getblocktxn", "payload": {"block_hash": "00" * 32, "indexes": [2, 1]}}, "payload: indexes ascend"),
        ({"type": "headers", "payload": {"headers": ["00", "0000"]}}, "payload: headers of one message"),
    ],
)
def test_wrong_objects_name_the_field(shown: Any, names: str) -> None:
    with pytest.raises(UserError, match=names) as caught:
        encode_object(shown)
    assert len(str(caught.value)) < 300


def version_object(**changes: Any) -> dict[str, Any]:
    (shown,) = decode_stream(encode_frame(Version(1, 2, 3, 4, "x", bytes(32), 5, 6)))
    return {**shown, "payload": {**shown["payload"], **changes}}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"user_agent": 5}, r"payload\.user_agent is a string"),
        ({"user_agent": "x" * 257}, "payload: a user agent has at most 256 bytes"),
        ({"user_agent": "\ud800"}, "payload: "),
        ({"best_block_hash": "00" * 31}, r"payload\.best_block_hash has 32 bytes, not 31"),
        ({"extensions": [{"type": 1, "value": "00" * 256}]}, "payload: "),
        ({"extensions": [{"type": 256, "value": ""}]}, r"payload\.extensions\[0\]\.type is 0 to 255"),
    ],
)
def test_wrong_version_objects(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=names):
        encode_object(version_object(**changes))


@pytest.mark.parametrize(
    "changes",
    [{"record_size": [2, 1, 1]}, {"record_size": [1]}, {"record_size": [0, 1]}, {"slot_size": 65_537}, {"rules": []}],
)
def test_wrong_shaping_terms(changes: dict[str, Any]) -> None:
    terms: dict[str, Any] = {"rules": [1], "record_size": [1, 2], "slot_size": 1}
    terms |= {name: [0, 0] for name in ("dummy_ms", "burst", "chaff_ms", "slot_ms")}
    good = {"type": "padneg", "payload": {"send": terms, "accept": terms, "most": 0}}
    assert encode_object(good)
    with pytest.raises(UserError, match="payload"):
        encode_object({"type": "padneg", "payload": {"send": terms, "accept": {**terms, **changes}, "most": 0}})


def test_edited_objects_get_a_new_size_and_checksum() -> None:
    changed = version_object(user_agent="much longer than before")
    (shown,) = decode_stream(encode_object(changed))
    assert shown["valid"] is True
    assert shown["size"] == changed["size"] + len("much longer than before") - 1


def test_extensions_may_be_left_out() -> None:
    shown = version_object()
    del shown["payload"]["extensions"]
    assert encode_object(shown) == encode_object(version_object())


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"00ff", True), (b" 00\r\n\tFf ", True), (b"", True), (b"0x00", False), (b"\x00", False), (b"g", False)],
)
def test_looks_hex(data: bytes, expected: bool) -> None:
    assert looks_hex(data) is expected


def test_no_frame_looks_like_hex() -> None:
    """A size of 0x30303030 and more is over every limit, so raw frames never pass for hex."""
    for cls in CATALOGUE:
        assert not looks_hex(encode_raw(cls.TYPE, b"0" * min(cls.MAX_SIZE, 100)))


def test_from_hex() -> None:
    assert from_hex(b" 0 0\nfF ") == b"\x00\xff"
    for bad in (b"0", b"0g", b"\xff\xff", "٠٠".encode()):
        with pytest.raises(UserError, match="hex"):
            from_hex(bad)
