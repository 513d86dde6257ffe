"""A link over a blocking socket: the opening on plain, records, frames and the handshake of either side."""

from __future__ import annotations

import secrets
import select
import socket
import time
from typing import Any

from second_implementation import channel, frames

FEATURES, PRIVACY_FEATURES = 0x03, 0x2080  # the core of docs/handshake_protocol.md
# No padding rule, so that records of every size may come.
SHAPE: dict[str, Any] = {
    "rules": [0],
    "record_size": [64, 65536],
    "dummy_ms": [0, 0],
    "burst": [0, 0],
    "chaff_ms": [0, 0],
    "slot_size": 1024,
    "slot_ms": [0, 0],
}


class EndOfStreamError(Exception):
    """The other side closed the connection."""


class Stream:
    """A connected socket with exact reads; writes leave in pieces of `piece` bytes."""

    def __init__(self, sock: socket.socket, piece: int = 1 << 20, timeout_s: float = 10) -> None:
        sock.settimeout(timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.piece, self.buffer = sock, piece, b""

    def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EndOfStreamError
            self.buffer += data
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_ready(self) -> bytes:
        """What has arrived."""
        data, self.buffer = self.buffer, b""
        while select.select([self.sock], [], [], 0)[0]:
            more = self.sock.recv(65536)
            if not more:
                raise EndOfStreamError
            data += more
        return data

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), self.piece):
            self.sock.sendall(data[at : at + self.piece])


class Link:
    """An opened channel: frames in and out. `unsent` goes out before the first record: the end mark of NX."""

    def __init__(self, stream: Stream, opened: channel.Opened, *, initiator: bool) -> None:
        keys, first = opened.keys, opened.first_associated_data
        self.stream, self.opened, self.initiator = stream, opened, initiator
        self.out = channel.Direction(keys[not initiator], first if initiator else b"")
        self.into = channel.Direction(keys[initiator], b"" if initiator else first)
        self.unsent = opened.end_mark if initiator else b""
        self.frame_bytes, self.phase = b"", frames.OPENING
        self.received: list[str] = []

    def send_record(self, frame_bytes: bytes, flags: int = 0) -> None:
        """One record; the one after it will have 256 to 1,024 bytes, room for what a test sends in one."""
        sealed = self.out.seal(frame_bytes, 256 + secrets.randbelow(769), flags)
        self.stream.write(self.unsent + sealed)
        self.unsent = b""

    def send(self, type_name: str, **fields: Any) -> None:
        """A frame in as many records as it takes."""
        left = frames.encode(type_name, **fields)
        while left:
            room = self.out.size - 21
            self.send_record(left[:room])
            left = left[room:]

    def read_record(self) -> channel.Record:
        return self.into.open(self.stream.read(self.into.size))

    def _frame_bytes(self, size: int) -> bytes:
        while len(self.frame_bytes) < size:
            if self.into.ended:
                assert not self.frame_bytes, "the direction ends inside a frame"
                raise EndOfStreamError
            self.frame_bytes += self.read_record().frame_bytes
        data, self.frame_bytes = self.frame_bytes[:size], self.frame_bytes[size:]
        return data

    def receive(self) -> tuple[str, dict[str, Any] | None]:
        """The next frame; `EndOfStreamError` after the record with flag 2."""
        header = frames.judge(self._frame_bytes(frames.HEADER), self.phase)
        fields = frames.decode(header, self._frame_bytes(header.size))
        self.received.append(header.type)
        return header.type, fields

    def receive_until(self, wanted: str) -> dict[str, Any]:
        """The fields of the next `wanted`; pings on the way are answered, all else passes by."""
        while True:
            name, fields = self.receive()
            if name == "ping":
                self.send("pong", **(fields or {}))
            if name == wanted:
                assert fields is not None
                return fields

    def version(self) -> dict[str, Any]:
        return {
            "protocol_version": 1,
            "timestamp": str(int(time.time())),
            "feature_flags": FEATURES,
            "privacy_feature_flags": PRIVACY_FEATURES,
            "user_agent": "second/1",
            "best_block_hash": "00" * 32,
            "best_block_height": "0",
            "nonce": str(secrets.randbits(64)),
            "extensions": [],
        }

    def handshake(self, shape: dict[str, Any] = SHAPE) -> dict[str, Any]:
        """Both sides' version, padneg and verack; returns the other's version."""
        if self.initiator:
            self.send("version", **self.version())
        theirs = self.receive_until("version")
        if not self.initiator:
            self.send("version", **self.version())
        self.send("padneg", send=shape, accept=shape, most=2**32 - 1, rest="")
        self.receive_until("padneg")
        self.send("verack")
        self.receive_until("verack")
        self.phase = frames.ESTABLISHED
        return theirs

    def end(self) -> None:
        """Flag 2 goes out, what is on its way comes in up to the other's flag 2, then the end of the stream."""
        self.send_record(b"", channel.LAST)
        try:
            while True:
                self.receive()
        except EndOfStreamError:
            assert self.into.ended, "the stream ended without flag 2"


def epoch_now() -> int:
    return int(time.time()) // channel.EPOCH_S


def flight_length() -> int:
    return channel.LEAST_FLIGHT + secrets.randbelow(channel.GREATEST_FLIGHT - channel.LEAST_FLIGHT + 1)


def initiator(network_id: bytes, static_public: bytes = b"", *, epoch: int | None = None) -> channel.Initiator:
    """The initiator of a link to a direct listener on plain."""
    size = flight_length()
    epoch = epoch_now() if epoch is None else epoch
    tail = size - 72 if static_public else secrets.token_bytes(size - 32)
    place, e = channel.Place(network_id), channel.Ephemeral.make()
    return channel.Initiator(place, e, tail, static_public=static_public, epoch=epoch)


def initiate(stream: Stream, side: channel.Initiator) -> Link:
    stream.write(side.flight_1)
    return Link(stream, side.read_flight_2(stream.read), initiator=True)


def respond(stream: Stream, network_id: bytes, static_secret: bytes, cache: channel.ReplayCache) -> Link:
    side = channel.Responder(channel.Place(network_id), static_secret, channel.Ephemeral.make())
    return Link(stream, side.open_on_plain(stream.read, stream.write, epoch_now(), cache), initiator=False)
