"""Frames, messages, addresses: what any peer sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fuzz import target
from fuzz.targets import TESTS
from obscura.errors import AddressError, DecodeError
from obscura.wire.address import Address, Endpoint
from obscura.wire.catalogue import BUILT_IN, CATALOGUE
from obscura.wire.frame import HEADER_BYTES, FrameDecoder, encode_frame, encode_raw
from obscura.wire.message import Message

MOST = 4 << 20  # bytes of any payload (specification, *Message Format*)
KINDS = sorted(BUILT_IN, key=lambda kind: kind.TYPE)


def vectors(kind: type[Message]) -> Iterator[bytes]:
    """Valid payloads of a type."""
    path = Path(TESTS) / "vectors" / "wire" / f"{kind.TYPE}.json"
    for vector in json.loads(path.read_text())["valid"][:4]:
        payload = bytes.fromhex(vector["payload"])
        if len(payload) <= 2_000:
            yield payload


def frames() -> Iterator[bytes]:
    """Whole frames: of every type, an unknown one, a wrong checksum."""
    for kind in KINDS:
        for payload in vectors(kind):
            yield b"\x07" + encode_raw(kind.TYPE, payload)
            break
    yield b"\x01" + encode_raw("unknown", b"123")
    yield b"\x03" + encode_raw("ping", bytes(8), b"1234")


def items_of(data: bytes, step: int) -> list[str]:
    """What the decoder finds if so many bytes arrive at once."""
    decoder = FrameDecoder(CATALOGUE.established)
    found: list[str] = []
    for at in range(0, len(data), step):
        found += map(repr, decoder.receive(data[at : at + step]))
        pending = decoder.pending
        assert pending is None or pending[0] <= pending[1] <= HEADER_BYTES + MOST
    return found


@target(
    "frame", "However a stream of frames is cut, the same items come out, and none is larger than its limit.", frames
)
def frame(data: bytes) -> None:
    if data:
        assert items_of(data[1:], data[0] % 64 + 1) == items_of(data[1:], len(data))


def payloads() -> Iterator[bytes]:
    for number, kind in enumerate(KINDS):
        for payload in vectors(kind):
            yield bytes([number]) + payload


@target("messages", "A payload is refused with DecodeError, or encodes to the same bytes again.", payloads)
def messages(data: bytes) -> None:
    if not data:
        return
    kind = KINDS[data[0] % len(KINDS)]
    try:
        message = kind.decode(data[1:])
    except DecodeError:
        return
    assert message.encode() == data[1:]
    assert len(encode_frame(message)) == HEADER_BYTES + len(data) - 1


def addresses() -> list[bytes]:
    return [
        b"obscura://127.0.0.1:19733",
        b"obscura://[2001:db8::1]:9733?carrier=tls&name=example.org&binding=cookie",
        b"obscura://" + b"a" * 52 + b"@example.org:80?carrier=http",
        b"obscura://" + b"b" * 56 + b".onion:9733",
        b"obscura://" + b"c" * 52 + b".b32.i2p:0",
    ]


@target(
    "address", "An address for people is refused with AddressError, or its text is read back as the same.", addresses
)
def address(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for listening in (False, True):
        try:
            read = Address.parse(text, listening=listening)
        except AddressError:
            continue
        assert Address.parse(str(read), listening=listening) == read
    host, _, port = text.rpartition(":")
    if port.isascii() and port.isdigit() and int(port) < 65_536:
        try:
            endpoint = Endpoint.of(host, int(port))
        except AddressError:
            return
        assert endpoint is None or str(endpoint)
