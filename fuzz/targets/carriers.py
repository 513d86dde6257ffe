"""Both sides of every carrier: what a stranger, a prober or another server sends."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from carriers import MAKERS, Wire
from fuzz import target
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight

SIDES = {"plain": "plain", "http": "http", "tls": "tls", "ssh": "ssh", "dns": "dns"}
POLLING = ("http, in requests", "http-requests")
MOST_ANSWERED = 1 << 20  # bytes that an input of some KiB may bring forth
FLIGHTS = {True: b"one", False: b"two"}


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


for _name, _maker in [*SIDES.items(), POLLING[::-1]]:
    _add(_name, _maker, True)
    _add(_name, _maker, False)
