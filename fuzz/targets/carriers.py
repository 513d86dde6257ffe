"""Both sides of every carrier: what a stranger, a prober or another server sends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from carriers import MAKERS, End, Wire
from fuzz import target
from obscura.morph import ssh_names as ssh
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight

SIDES = {"plain": "plain", "http": "http", "tls": "tls", "ssh": "ssh", "dns": "dns"}
POLLING = ("http, in requests", "http-requests")
MOST_ANSWERED = 1 << 20  # bytes that an input of some KiB may bring forth
OPEN = 255  # reads after which every opening is over


def recorded(name: str, client: bool) -> Iterator[bytes]:
    """What the other side of a genuine session sends: at once, and its first half."""
    wire = Wire(MAKERS[name], seed=5).opened()
    wire.client.carrier.send(b"c" * 300, wire.now)
    wire.server.carrier.send(b"s" * 300, wire.now)
    wire.run()
    said = bytes(wire.tapped[not client])
    yield b"\xff" + said[:8_000]
    yield b"\x20" + said[: len(said) // 2][:8_000]


def fed(make: Callable[[random.Random], Carrier], client: bool, data: bytes) -> None:
    """Give a fresh carrier the bytes in pieces, as a connection that refuses every flight does."""
    if not data:
        return
    carrier, step, now, sent, over = make(random.Random(3)), data[0] * 8 + 1, 0.0, 0, False

    def saw(events: list[CarrierEvent]) -> None:
        nonlocal sent, over
        for event in events:
            assert not over or isinstance(event, Finished), "an event after the end"
            if isinstance(event, Flight) and not client:
                carrier.refuse(now)
            elif isinstance(event, Data) and not carrier.STREAMED and not client:
                raise AssertionError("data from somebody who proved nothing")
            over |= isinstance(event, Finished)
        sent += sum(map(len, carrier.take()))
        assert sent <= MOST_ANSWERED

    saw(carrier.start(now))
    for at in [*range(1, len(data), step), None]:
        now += 0.05
        while carrier.deadline() <= now:
            saw(carrier.due(now))
        saw(carrier.eof(now) if at is None else carrier.receive(data[at : at + step], now))
        if over or carrier.is_full:
            return


def _add(name: str, maker: str, client: bool) -> None:
    side = "client" if client else "server"
    made = MAKERS[maker].client if client else MAKERS[maker].server
    target(
        f"{name}-{side}",
        f"No bytes make the {side} of carrier {name} raise, answer without bound, or deliver data to nobody's session.",
        lambda: recorded(maker, client),
        9_000,
    )(lambda data: fed(made, client, data))


# --- Behind the opening -----------------------------------------------------------------------------------------------


def pieces_of(data: bytes) -> Iterator[bytes]:
    """What is said one after the other: two bytes of length, and so many bytes."""
    while len(data) > 2:
        end = 2 + int.from_bytes(data[:2], "big")
        yield data[2:end]
        data = data[end:]


def joined(*pieces: bytes) -> bytes:
    """An input of ``pieces`` that a session hears once it is open."""
    return bytes([OPEN]) + b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)


def sealed(far: Carrier, piece: bytes, now: float) -> bytes:
    """The piece as the other side would put it on the wire: who is let in has its keys, a fuzzer never finds them."""
    speaker: Any = far
    if hasattr(far, "_transport"):
        if piece:
            speaker._transport._write(piece)
        return b"".join(far.take())
    if hasattr(far, "_sign") and piece[10:12] != b"\xff\xff":  # one record more has to fit
        speaker._sign(piece, now)
        return b"".join(far.take())
    if getattr(far, "_inner", None) is not None and piece:
        speaker._tls.write(piece)
        return b"".join(far.take())
    return piece


def said(name: str, client: bool) -> Iterator[bytes]:
    """What a genuine other side says then, and for SSH what else it could."""
    if name == "ssh":
        yield from (joined(*payloads) for payloads in SSH)
    wire = Wire(MAKERS[name], seed=5).opened()
    far = wire.server if client else wire.client
    if name in ("ssh", "tls", "dns"):
        yield joined(b"\x5e" + bytes(20))
        return
    far.carrier.send(b"f" * 300, wire.now)
    before = len(wire.tapped[far.client])
    wire.run()
    genuine = bytes(wire.tapped[far.client][before:])[:4_000]
    yield joined(genuine)
    yield joined(genuine[:100], genuine[100:])


_ZERO = bytes(4)  # of the one channel
SSH = [
    (bytes([ssh.CHANNEL_WINDOW_ADJUST]) + _ZERO + b"\0\1\0\0", bytes([ssh.CHANNEL_DATA]) + _ZERO + b"\0\0\0\3abc"),
    (bytes([ssh.CHANNEL_EXTENDED_DATA]) + _ZERO + b"\0\0\0\1\0\0\0\3abc",),
    (bytes([ssh.CHANNEL_REQUEST]) + _ZERO + b"\0\0\0\4exec\1\0\0\0\2ls",),
    (bytes([ssh.CHANNEL_EOF]) + _ZERO, bytes([ssh.CHANNEL_CLOSE]) + _ZERO),
    (bytes([ssh.GLOBAL_REQUEST]) + b"\0\0\0\1x\1", bytes([ssh.CHANNEL_OPEN]) + b"\0\0\0\7session" + bytes(12)),
    (bytes([ssh.DISCONNECT]) + b"\0\0\0\2" + bytes(8),),
    (bytes([ssh.USERAUTH_REQUEST]) + b"\0\0\0\1u\0\0\0\x0essh-connection\0\0\0\4none",),
    (bytes([ssh.KEXINIT]) + bytes(16 + 40 + 5),),
]


def heard(name: str, client: bool, data: bytes) -> None:
    """A session of which the other side leaves its way, after so many reads of the opening or when it is open."""
    if not data:
        return
    wire = Wire(MAKERS[name], seed=5)
    wire.run(data[0])
    end, far = (wire.client, wire.server) if client else (wire.server, wire.client)
    end.carrier.take()
    came, sent = len(wire.tapped[far.client]), 0

    def hear(end: End, piece: bytes | None) -> int:
        wire.now += 0.05
        wire.due(end)
        if end.finished is None:
            events = end.carrier.eof(wire.now) if piece is None else end.carrier.receive(piece, wire.now)
            end.on(events, wire.now)
        return sum(map(len, end.carrier.take()))

    for piece in [*pieces_of(data[1:]), None]:
        if end.finished is not None or end.carrier.is_full:
            return
        wired = None if piece is None else sealed(far.carrier, piece, wire.now)
        came += len(wired or b"")
        sent += hear(end, wired)
        assert sent <= MOST_ANSWERED
        assert len(end.data) <= came, "more was delivered than came"


def _add_joined(name: str, maker: str, client: bool) -> None:
    side = "client" if client else "server"
    target(
        f"{name}-joined-{side}",
        f"Whatever a peer that was let in says, the {side} of carrier {name} neither raises nor answers without bound, and "
        "delivers no more than came.",
        lambda: said(maker, client),
        4_096,
    )(lambda data: heard(maker, client, data))


for _name, _maker in [*SIDES.items(), POLLING[::-1]]:
    for _client in (True, False):
        _add(_name, _maker, _client)
        if _name != "plain":  # where nothing is opened
            _add_joined(_name, _maker, _client)
