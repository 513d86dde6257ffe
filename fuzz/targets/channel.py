"""The channel: what a stranger sends before, and a man in the middle changes after."""

from __future__ import annotations

import random
from collections.abc import Iterator

from fuzz import target
from obscura.channel.opening import Initiator, ListenerKind, Prologue, Responder
from obscura.channel.records import Opener, Sealer
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.errors import ChannelFault
from obscura.limits import MAX_RECORD, UNAUTHENTICATED_BYTES
from obscura.wire.address import CarrierNumber

UNIX = 1_700_000_000
STATIC = StaticKey.generate(random.Random("fuzz channel"))
KEY = bytes(range(32))
PROLOGUE = Prologue(bytes(32), ListenerKind.DIRECT, CarrierNumber.PLAIN)


def responder(strangers: bool) -> Responder:
    return Responder(PROLOGUE, STATIC, random.Random(1), strangers=strangers, replay=ReplayCache())


def flights() -> Iterator[bytes]:
    for key in (STATIC.public, None):
        yield b"\x00" + Initiator(PROLOGUE, random.Random(7), UNIX, responder_key=key).take()


@target(
    "opening",
    "Bytes of a stranger make a listener neither raise anything but ChannelFault nor hold more than it promises; nobody "
    "without its key becomes a peer under NK.",
    flights,
    8_192,
)
def opening(data: bytes) -> None:
    if not data:
        return
    listener, step = responder(bool(data[0] & 1)), (data[0] >> 1) * 8 + 1
    for at in range(1, len(data), step):
        try:
            secured = listener.receive(data[at : at + step], UNIX)
        except ChannelFault:
            return
        if secured is not None:
            return  # only the seed itself: nobody finds another one
        assert len(listener.take()) <= UNAUTHENTICATED_BYTES


def records() -> Iterator[bytes]:
    sealer = Sealer(KEY, first_size=64)
    yield sealer.seal(b"hello", 1_024) + sealer.seal(b"", 1_100) + sealer.seal(b"x" * 1_000, 64, last=True)


SEALED = next(records())


@target(
    "records",
    "Records that nobody sealed are never opened, and a fault is a ChannelFault after which nothing more is delivered.",
    records,
    8_192,
)
def opened(data: bytes) -> None:
    opener, got = Opener(KEY, first_size=64), b""
    try:
        for body, start, end in opener.receive(data):
            got += body[start:end]
            assert len(body) <= MAX_RECORD
    except ChannelFault:
        pass
    honest = b"hello" + b"x" * 1_000
    assert honest.startswith(got)
    common = next(
        (i for i, (a, b) in enumerate(zip(data, SEALED, strict=False)) if a != b), min(len(data), len(SEALED))
    )
    assert not got or common >= 64
