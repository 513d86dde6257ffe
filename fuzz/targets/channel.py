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
from obscura.limits import END_MARK_BYTES, MAX_RECORD, UNAUTHENTICATED_BYTES
from obscura.wire.address import CarrierNumber

UNIX = 1_700_000_000
STATIC = StaticKey.generate(random.Random("fuzz channel"))
KEY = bytes(range(32))
PROLOGUE = Prologue(bytes(32), ListenerKind.DIRECT, CarrierNumber.PLAIN)


def responder(strangers: bool, streamed: bool = True) -> Responder:
    return Responder(PROLOGUE, STATIC, random.Random(1), strangers=strangers, replay=ReplayCache(), streamed=streamed)


def initiator(key: bytes | None, streamed: bool = True) -> Initiator:
    joining = key is None and not streamed
    return Initiator(PROLOGUE, random.Random(7), UNIX, responder_key=key, joining=joining, streamed=streamed)


def opened_by(key: bytes | None, streamed: bool) -> tuple[bytes, bytes]:
    """All that a genuine dialler says until the channel stands, and the listener's answer to it."""
    dialler, listener = initiator(key, streamed), responder(True, streamed)
    flight = dialler.take()
    listener.receive(flight, UNIX)
    answer = listener.take()
    secured = dialler.receive(answer, UNIX)
    assert secured is not None
    return flight + secured.prefix, answer


DIALLERS = [(key, streamed) for key in (STATIC.public, None) for streamed in (True, False)]
GENUINE = {dialler: opened_by(*dialler) for dialler in DIALLERS}


def flights() -> Iterator[bytes]:
    for (key, streamed), (flight, _) in GENUINE.items():
        yield bytes([(key is None) | (not streamed) << 1]) + flight


@target(
    "opening",
    "Bytes of a stranger make a listener neither raise anything but ChannelFault nor hold more than it promises; nobody "
    "without its key becomes a peer under NK, and none but by a whole flight.",
    flights,
    8_192,
)
def opening(data: bytes) -> None:
    if not data:
        return
    strangers, streamed, said = bool(data[0] & 1), not data[0] & 2, data[1:]
    listener, step = responder(strangers, streamed), (data[0] >> 2) * 8 + 1 if streamed else max(1, len(said))
    for at in range(0, len(said), step):
        try:
            secured = listener.receive(said[at : at + step], UNIX)
        except ChannelFault:
            return
        if secured is not None:  # by bytes that a genuine dialler made: nobody finds others
            flight = GENUINE[STATIC.public if secured.pattern == "NK" else None, streamed][0]
            assert strangers or secured.pattern == "NK"
            if secured.pattern == "NX":  # what stands before its mark is bound to the answer and to the first record
                assert flight[-END_MARK_BYTES:] in said
            else:
                assert said.startswith(flight)
            return
        assert len(listener.take()) <= UNAUTHENTICATED_BYTES


def replies() -> Iterator[bytes]:
    for number, (_, answer) in enumerate(GENUINE.values()):
        yield bytes([number]) + answer


@target(
    "answer",
    "Bytes of whoever is dialled make a dialler raise nothing but ChannelFault, and only the answer of the listener with "
    "its key makes a channel.",
    replies,
    8_192,
)
def answered(data: bytes) -> None:
    if not data:
        return
    dialler = DIALLERS[data[0] % len(DIALLERS)]
    opening, step = initiator(*dialler), (data[0] >> 2) * 8 + 1
    for at in range(1, len(data), step):
        try:
            secured = opening.receive(data[at : at + step], UNIX)
        except ChannelFault:
            return
        if secured is not None:
            assert data[1 : at + step].startswith(GENUINE[dialler][1])
            assert dialler[0] in (None, secured.peer_key)
            return


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
