"""docs/protocol.md, Frame, Messages and the fields of their JSON form."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

HEADER = 20
KNOWN_ADDRESS_SIZES = {1: 4, 2: 16, 4: 32, 5: 32, 6: 16}


class Violation(Exception):
    """Ends the link."""


class Malformed(Exception):
    """Costs the frame."""


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise Malformed("cut short")
        self.at += size
        return self.data[self.at - size : self.at]


class Layout(ABC):
    """A field both ways."""

    @abstractmethod
    def read(self, reader: Reader) -> Any:
        """The value."""

    @abstractmethod
    def write(self, value: Any) -> bytes:
        """Its bytes."""


class Int(Layout):
    """`text`: a decimal string in JSON. `less`: what the wire carries less than the field says."""

    def __init__(
        self, size: int, order: Literal["little", "big"] = "little", *, text: bool = False, less: int = 0
    ) -> None:
        self.size, self.order, self.text, self.less = size, order, text, less

    def read(self, reader: Reader) -> Any:
        value = int.from_bytes(reader.take(self.size), self.order) + self.less
        return str(value) if self.text else value

    def write(self, value: Any) -> bytes:
        return int.to_bytes(int(value) - self.less, self.size, self.order)


class CompactSize(Layout):
    def __init__(self, most: int = 2**64 - 1, *, text: bool = False) -> None:
        self.most, self.text = most, text

    def read(self, reader: Reader) -> Any:
        first = reader.take(1)[0]
        size = {0xFD: 2, 0xFE: 4, 0xFF: 8}.get(first, 0)
        value = int.from_bytes(reader.take(size), "little") if size else first
        if value > self.most or (size and len(self.write(value)) != size + 1):
            raise Malformed("CompactSize")
        return str(value) if self.text else value

    def write(self, value: Any) -> bytes:
        number = int(value)
        if number < 0xFD:
            return bytes([number])
        first, size = (0xFD, 2) if number < 1 << 16 else (0xFE, 4) if number < 1 << 32 else (0xFF, 8)
        return bytes([first]) + number.to_bytes(size, "little")


class Hex(Layout):
    """`size` bytes; all that are left without it."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size

    def read(self, reader: Reader) -> str:
        return reader.take(reader.left if self.size is None else self.size).hex()

    def write(self, value: str) -> bytes:
        return bytes.fromhex(value)


class SizedHex(Layout):
    def __init__(self, size: Layout, *, sizes: tuple[int, ...] = (), nullable: bool = False) -> None:
        self.size, self.sizes, self.nullable = size, sizes, nullable

    def read(self, reader: Reader) -> str | None:
        size = self.size.read(reader)
        if self.sizes and size not in self.sizes:
            raise Malformed("size")
        value = reader.take(size).hex()
        return None if self.nullable and not value else value

    def write(self, value: str | None) -> bytes:
        data = bytes.fromhex(value or "")
        return self.size.write(len(data)) + data


class UserAgent(Layout):
    def read(self, reader: Reader) -> str:
        size = Int(2).read(reader)
        if size > 256:
            raise Malformed("user agent")
        try:
            return reader.take(size).decode()
        except UnicodeDecodeError as error:
            raise Malformed("user agent") from error

    def write(self, value: str) -> bytes:
        return Int(2).write(len(value.encode())) + value.encode()


class Flag(Layout):
    def read(self, reader: Reader) -> bool:
        if (value := reader.take(1)[0]) > 1:
            raise Malformed("flag")
        return bool(value)

    def write(self, value: bool) -> bytes:
        return bytes([value])


class List(Layout):
    """Without `count` up to the end."""

    def __init__(self, item: Layout, count: Layout | None = None, *, least: int = 0, most: int = 2**64) -> None:
        self.item, self.count, self.least, self.most = item, count, least, most

    def read(self, reader: Reader) -> list[Any]:
        items = []
        if self.count is None:
            while reader.left:
                items.append(self.item.read(reader))
            return items
        count = self.count.read(reader)
        if not self.least <= count <= self.most:
            raise Malformed("count")
        return [self.item.read(reader) for _ in range(count)]

    def write(self, value: list[Any]) -> bytes:
        count = self.count.write(len(value)) if self.count else b""
        return count + b"".join(self.item.write(item) for item in value)


class Pair(Layout):
    def __init__(self, bound: Layout) -> None:
        self.bound = bound

    def read(self, reader: Reader) -> list[int]:
        return [self.bound.read(reader), self.bound.read(reader)]

    def write(self, value: list[int]) -> bytes:
        return b"".join(self.bound.write(bound) for bound in value)


class Struct(Layout):
    def __init__(self, **fields: Layout) -> None:
        self.fields = fields

    def read(self, reader: Reader) -> dict[str, Any]:
        return {name: field.read(reader) for name, field in self.fields.items()}

    def write(self, value: dict[str, Any]) -> bytes:
        return b"".join(field.write(value[name]) for name, field in self.fields.items())


class AddressEntry(Struct):
    def read(self, reader: Reader) -> dict[str, Any]:
        entry = super().read(reader)
        if len(entry["host"]) != 2 * KNOWN_ADDRESS_SIZES.get(entry["network"], len(entry["host"]) // 2):
            raise Malformed("address")
        return entry


class Headers(Layout):
    def read(self, reader: Reader) -> list[str]:
        count = CompactSize(2000).read(reader)
        size, over = divmod(reader.left, count) if count else (0, reader.left)
        if over or (count and size < 2):
            raise Malformed("headers")
        items = [reader.take(size) for _ in range(count)]
        if any(item[-1] for item in items):
            raise Malformed("headers")
        return [item[:-1].hex() for item in items]

    def write(self, value: list[str]) -> bytes:
        return CompactSize().write(len(value)) + b"".join(bytes.fromhex(item) + b"\0" for item in value)


class Indexes(Layout):
    def read(self, reader: Reader) -> list[int]:
        indexes: list[int] = []
        for _ in range(CompactSize(65536).read(reader)):
            indexes.append(CompactSize().read(reader) + (indexes[-1] + 1 if indexes else 0))
        if indexes and indexes[-1] > 65535:
            raise Malformed("index")
        return indexes

    def write(self, value: list[int]) -> bytes:
        steps = (index - before - 1 for before, index in zip([-1, *value], value, strict=False))
        return CompactSize().write(len(value)) + b"".join(CompactSize().write(step) for step in steps)


HASH = Hex(32)
SHAPE = Struct(
    rules=List(Int(1), Int(1), least=1, most=8),
    record_size=Pair(Int(2, less=1)),
    dummy_ms=Pair(Int(4)),
    burst=Pair(Int(1)),
    chaff_ms=Pair(Int(4)),
    slot_size=Int(2, less=1),
    slot_ms=Pair(Int(4)),
)
INVENTORY = Struct(items=List(Struct(kind=Int(4), hash=HASH), CompactSize(50_000)))
LOCATOR = Struct(version=Int(4), locator=List(HASH, CompactSize(101)), stop_hash=HASH)
NOTHING, NONCE, RAW = Struct(), Struct(nonce=Int(8, text=True)), Struct(raw=Hex())
PROOF = Struct(id=Hex(16), mac=HASH)
VERSION = Struct(
    protocol_version=Int(4),
    timestamp=Int(8, text=True),
    feature_flags=Int(4),
    privacy_feature_flags=Int(4),
    user_agent=UserAgent(),
    best_block_hash=HASH,
    best_block_height=Int(8, text=True),
    nonce=Int(8, text=True),
    extensions=List(Struct(type=Int(1), value=SizedHex(Int(1)))),
)
ADDR = Struct(
    entries=List(
        AddressEntry(
            time=Int(4),
            services=CompactSize(text=True),
            network=Int(1),
            host=SizedHex(CompactSize(512)),
            port=Int(2, "big"),
            carrier=Int(1),
            key=SizedHex(Int(1), sizes=(0, 32), nullable=True),
        ),
        CompactSize(1000),
    )
)
OPENING, ESTABLISHED = "opening", "established"
BOTH = (OPENING, ESTABLISHED)
# type: phases, greatest payload, layout
MESSAGES: dict[str, tuple[tuple[str, ...], int, Layout]] = {
    "version": ((OPENING,), 1024, VERSION),
    "verack": ((OPENING,), 0, NOTHING),
    "padneg": ((OPENING,), 1024, Struct(send=SHAPE, accept=SHAPE, most=Int(4), rest=Hex())),
    "resume": ((OPENING,), 48, PROOF),
    "resumed": ((OPENING,), 48, PROOF),
    "sendcmpct": (BOTH, 9, Struct(announce=Flag(), version=Int(8, text=True))),
    "ping": ((ESTABLISHED,), 8, NONCE),
    "pong": ((ESTABLISHED,), 8, NONCE),
    "addr": ((ESTABLISHED,), 565_003, ADDR),
    "getaddr": ((ESTABLISHED,), 0, NOTHING),
    "inv": ((ESTABLISHED,), 1_800_003, INVENTORY),
    "getdata": ((ESTABLISHED,), 1_800_003, INVENTORY),
    "notfound": ((ESTABLISHED,), 1_800_003, INVENTORY),
    "getblocks": ((ESTABLISHED,), 3_269, LOCATOR),
    "getheaders": ((ESTABLISHED,), 3_269, LOCATOR),
    "headers": ((ESTABLISHED,), 162_003, Struct(headers=Headers())),
    "block": ((ESTABLISHED,), 4_000_000, RAW),
    "tx": ((ESTABLISHED,), 4_000_000, RAW),
    "stemtx": ((ESTABLISHED,), 100_000, RAW),
    "mempool": ((ESTABLISHED,), 0, NOTHING),
    "rotate": ((ESTABLISHED,), 0, NOTHING),
    "cmpctblock": (
        (ESTABLISHED,),
        4_000_000,
        Struct(header=Hex(80), nonce=Int(8, text=True), short_ids=List(Hex(6), CompactSize(65_535)), prefilled=Hex()),
    ),
    "getblocktxn": ((ESTABLISHED,), 196_645, Struct(block_hash=HASH, indexes=Indexes())),
    "blocktxn": ((ESTABLISHED,), 4_000_000, Struct(block_hash=HASH, transactions=Hex())),
}


def checksum(payload: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]


def encode(type_name: str, **fields: Any) -> bytes:
    """A whole frame."""
    return framed(type_name, MESSAGES[type_name][2].write(fields))


def framed(type_name: str, payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + type_name.encode().ljust(12, b"\0") + checksum(payload) + payload


@dataclass(frozen=True)
class FrameHeader:
    size: int
    type: str
    checksum: bytes


def judge(header: bytes, phase: str) -> FrameHeader:
    """The header of a frame by its 20 bytes; `Violation` if it must end the link."""
    size, name = int.from_bytes(header[:4], "little"), header[4:16].rstrip(b"\0")
    if not name or not all(chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789" for byte in name):
        raise Violation("type")
    phases, most, _ = MESSAGES.get(name.decode(), ((ESTABLISHED,), 4_194_304, RAW))
    if phase not in phases:
        raise Violation("phase")
    if size > most or (phase == OPENING and size > 1024):
        raise Violation("size")
    return FrameHeader(size, name.decode(), header[16:20])


def decode(header: FrameHeader, payload: bytes) -> dict[str, Any] | None:
    """The fields of a message; None for an unknown type."""
    if checksum(payload) != header.checksum:
        raise Malformed("checksum")
    if header.type not in MESSAGES:
        return None
    reader = Reader(payload)
    fields: dict[str, Any] = MESSAGES[header.type][2].read(reader)
    if reader.left:
        raise Malformed("trailing bytes")
    return fields
