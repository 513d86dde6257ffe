"""The published encodings against python-bitcoinlib: CompactSize, inventories, locators, headers, the frame."""

from __future__ import annotations

import struct
from io import BytesIO

import bitcoin
import bitcoin.core
import bitcoin.messages
import pytest
from bitcoin.core.serialize import Hash as double_sha256
from bitcoin.core.serialize import VarIntSerializer
from bitcoin.net import CInv
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import DecodeError
from obscura.wire.fields import Reader, compact_size, printable
from obscura.wire.frame import checksum_of, encode_raw
from obscura.wire.message import Message
from obscura.wire.messages.blocks import GetBlocks, GetHeaders, Headers, Inv, InventoryItem
from obscura.wire.messages.network import Ping, Pong
from obscura.wire.messages.transactions import GetData, NotFound

U64 = st.integers(0, 2**64 - 1) | st.sampled_from([0xFC, 0xFD, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000])
HASHES = st.binary(min_size=32, max_size=32)


@settings(deadline=None, max_examples=100)
@given(value=U64)
def test_compact_size(value: int) -> None:
    raw = compact_size(value)
    assert raw == VarIntSerializer.serialize(value)
    assert VarIntSerializer.deserialize(raw) == value
    reader = Reader(raw)
    assert reader.compact_size(2**64 - 1) == value
    assert reader.left == 0


@pytest.mark.parametrize(
    "raw", ["fd0000", "fdfc00", "fe00000000", "feffff0000", "ff0000000000000000", "ffffffffff00000000"]
)
def test_compact_size_has_one_form(raw: str) -> None:
    with pytest.raises(DecodeError, match="shortest"):
        Reader(bytes.fromhex(raw)).compact_size(2**64 - 1)


@pytest.mark.parametrize("raw", ["", "fd", "fd00", "fe000000", "ff00000000000000"])
def test_compact_size_cut_short(raw: str) -> None:
    with pytest.raises(DecodeError, match="wanted"):
        Reader(bytes.fromhex(raw)).compact_size(2**64 - 1)


@settings(deadline=None, max_examples=50)
@given(payload=st.binary(max_size=300))
def test_checksum(payload: bytes) -> None:
    assert checksum_of(payload) == double_sha256(payload)[:4]


INVENTORIES = {Inv: "msg_inv", GetData: "msg_getdata", NotFound: "msg_notfound"}


@pytest.mark.parametrize("cls", INVENTORIES)
@settings(deadline=None, max_examples=30)
@given(items=st.lists(st.tuples(st.integers(0, 2**31 - 1), HASHES), max_size=300))
def test_inventories(cls: type[Inv], items: list[tuple[int, bytes]]) -> None:
    ours = cls(tuple(InventoryItem(kind, hash) for kind, hash in items))
    other = getattr(bitcoin.messages, INVENTORIES[cls])()
    for kind, hash in items:
        entry = CInv()
        entry.type, entry.hash = kind, hash
        other.inv.append(entry)
    stream = BytesIO()
    other.msg_ser(stream)
    assert ours.encode() == stream.getvalue()
    again = type(other).msg_deser(BytesIO(ours.encode()))
    assert [(entry.type, entry.hash) for entry in again.inv] == items
    assert cls.decode(stream.getvalue()) == ours


@pytest.mark.parametrize(("cls", "name"), [(GetBlocks, "msg_getblocks"), (GetHeaders, "msg_getheaders")])
@settings(deadline=None, max_examples=30)
@given(version=st.integers(0, 2**31 - 1), locator=st.lists(HASHES, max_size=101), stop=HASHES)
def test_locators(cls: type[GetBlocks], name: str, version: int, locator: list[bytes], stop: bytes) -> None:
    other = getattr(bitcoin.messages, name)()
    other.locator.nVersion, other.locator.vHave, other.hashstop = version, locator, stop
    stream = BytesIO()
    other.msg_ser(stream)
    ours = cls(version, tuple(locator), stop)
    assert ours.encode() == stream.getvalue()
    assert cls.decode(stream.getvalue()) == ours


def test_headers() -> None:
    """Real headers: each is Bitcoin's 80 bytes, and Bitcoin's own parser reads the items."""
    genesis = bitcoin.core.CoreMainParams.GENESIS_BLOCK.get_header()
    payload = Headers((genesis.serialize(),) * 3).encode()
    stream = BytesIO(payload)
    assert VarIntSerializer.stream_deserialize(stream) == 3
    for _ in range(3):
        assert bitcoin.core.CBlockHeader.stream_deserialize(stream) == genesis
        assert VarIntSerializer.stream_deserialize(stream) == 0
    assert stream.read() == b""
    assert Headers.decode(payload).headers == (genesis.serialize(),) * 3


@pytest.mark.parametrize("message", [Ping(2**64 - 1), Pong(7), GetBlocks(1, (b"a" * 32,), b"b" * 32)])
def test_frame_is_bitcoins_in_another_order(message: Message) -> None:
    """Bitcoin's header is magic, type, size, checksum; ours is size, type, checksum. The rest is the same."""
    other = getattr(bitcoin.messages, f"msg_{message.TYPE}").msg_deser(BytesIO(message.encode()))
    theirs = other.to_bytes()
    name, size, checksum, payload = theirs[4:16], theirs[16:20], theirs[20:24], theirs[24:]
    assert encode_raw(message.TYPE, message.encode()) == size + name + checksum + payload


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=20), wants=st.lists(st.integers(0, 30), max_size=6))
def test_the_reader_cannot_overrun(data: bytes, wants: list[int]) -> None:
    reader = Reader(data)
    for want in wants:
        before = reader.position
        try:
            assert reader.take(want) == data[before : before + want]
        except DecodeError:
            assert want > len(data) - before == reader.left
    assert reader.position + reader.left == len(data)


@pytest.mark.parametrize(
    ("method", "form"), [("u8", "<B"), ("u16", "<H"), ("u16_be", ">H"), ("u32", "<I"), ("u64", "<Q")]
)
def test_integers(method: str, form: str) -> None:
    size = struct.calcsize(form)
    raw = bytes(range(1, size + 1))
    assert getattr(Reader(raw), method)() == struct.unpack(form, raw)[0]
    with pytest.raises(DecodeError):
        getattr(Reader(raw[:-1]), method)()


def test_printable() -> None:
    assert printable("Obscura/1.0.0 é") == "Obscura/1.0.0 é"
    assert printable("a\x1b[2J\n\u202e\\") == "a\\x1b[2J\\n\\u202e\\\\"
