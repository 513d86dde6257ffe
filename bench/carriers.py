"""carrier_NAME_16k, _400 and _expansion_1400; stack_NAME_16k and _400; tunnel_NAME_16k and _400.

A carrier alone between two processes, beside plain sockets; whole nodes over that carrier, beside the carrier alone; and other
people's tunnels in the same run, beside plain sockets. All of it on loopback.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import inf
from pathlib import Path

from bench import tunnels
from bench.harness import Figure, Measure, Pair, Unavailable
from bench.link import nodes
from bench.process import Process, python
from obscura.channel.uniform import StaticKey
from obscura.daemon.covers import Covers, CoverSettings
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Flight, Ready
from obscura.morph.kinds import CLIENTS
from obscura.wire.address import Address

RUN_S = 1.0  # seconds that a run shall take about
FIRST = {16 << 10: 500, 400: 10_000}  # messages of the first try, by which the number of a run is chosen
EXPANSION_MESSAGES = 200
SHAPES = {  # name: options of the address; the goals: MB/s at 16 KiB, messages/s at 400 B, wire bytes per byte at 1,400 B
    "plain": ("carrier=plain", 300, 60_000, 1.01),
    "tls": ("carrier=tls", 300, 60_000, 1.06),
    "http": ("carrier=http&shape=websocket", 250, 60_000, 1.06),
    "http_requests": ("carrier=http&shape=requests", 250, 60_000, 1.35),
    "ssh": ("carrier=ssh", 100, 30_000, 1.06),
    "dns": ("carrier=dns", 20, 60_000, 1.5),
}
TUNNELS: dict[str, Callable[[int], AbstractContextManager[tunnels.Way]]] = {
    "obfs4": tunnels.obfs4,
    "stunnel": tunnels.stunnel,
    "ssh": tunnels.ssh,
}


class Flow:
    """A sender and a receiver that stay connected over all runs. Calling it is one run, in MB/s or messages/s."""

    def __init__(self, sender: Process, receiver: Process, size: int, *, in_bytes: bool) -> None:
        self._sender = sender
        self._receiver = receiver
        self._size = size
        self._factor = size / 1e6 if in_bytes else 1.0
        self._count = FIRST[size]
        self._is_sized = False

    def __call__(self) -> float:
        if not self._is_sized:
            self._is_sized = True
            for _ in range(2):
                self._count = max(FIRST[self._size], int(self._rate() * RUN_S))
        return self._rate() * self._factor

    def _rate(self) -> float:
        self._receiver.ask(expect=self._count, size=self._size)
        self._sender.tell(send=self._count, size=self._size)
        start = self._sender.hear()["start"]
        end = self._receiver.hear()["end"]
        return float(self._count / (end - start))


@contextmanager
def alone(options: str, size: int, *, in_bytes: bool) -> Iterator[Measure]:
    """The carrier alone."""
    with (
        python("bench.carriers_worker", "receive", options) as receiver,
        python("bench.carriers_worker", "send", receiver.hear()["address"]) as sender,
    ):
        sender.hear()
        yield Flow(sender, receiver, size, in_bytes=in_bytes)


@contextmanager
def through(
    tunnel: Callable[[int], AbstractContextManager[tunnels.Way]], size: int, *, in_bytes: bool
) -> Iterator[Measure]:
    """Plain sockets through a tunnel."""
    with ExitStack() as stack:
        receiver = stack.enter_context(python("bench.sockets_worker", "receive"))
        way = stack.enter_context(tunnel(receiver.hear()["port"]))
        words = [word for said, length in way.says for word in (said.hex(), str(length))]
        sender = stack.enter_context(python("bench.sockets_worker", "send", str(way.port), *words))
        sender.hear()
        yield Flow(sender, receiver, size, in_bytes=in_bytes)


# --- Bytes on the wire ------------------------------------------------------------------------------------------------


def expansion(options: str) -> float:
    """Bytes on the wire, both ways, per byte of messages of 1,400 B, sent one by one, first one way, then the other.

    Everything that goes over the wire after the opening counts, answers and polls too. In memory, since nothing is timed.
    """
    place = Address.parse(f"127.0.0.1:8080?{options}")
    static = StaticKey.from_bytes(bytes(range(32)))
    address = Address(static.public, place.host, place.port, place.carrier, place.name, place.binding, place.shape)
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        make = Covers(CoverSettings(), Path(folder), bytes(32)).carrier_of(place, static, strangers=False)
        pair = InMemory(CLIENTS[address.carrier](address, rng, bytes(32)), make(rng))
        pair.run()
        before = pair.wire
        for carrier in pair.ends:
            for _ in range(EXPANSION_MESSAGES // 2):
                carrier.send(rng.randbytes(1_400), pair.now)
                pair.run(pair.delivered + 1_400)
    if pair.delivered != EXPANSION_MESSAGES * 1_400:
        raise AssertionError(f"{pair.delivered} bytes arrived of {EXPANSION_MESSAGES * 1_400}")
    return (pair.wire - before) / pair.delivered


class InMemory:
    """Both sides of a carrier without sockets."""

    def __init__(self, client: Carrier, server: Carrier) -> None:
        self.ends = (client, server)
        self.now = 0.0
        self.wire = self.delivered = 0
        for carrier in (server, client):
            self._on(carrier, carrier.start(self.now))

    def _on(self, carrier: Carrier, events: list[CarrierEvent]) -> None:
        for event in events:
            if isinstance(event, Data):
                self.delivered += len(event.data)
            elif isinstance(event, Ready) and not carrier.STREAMED:
                carrier.send_flight(bytes(event.flight_size[0]), self.now)
            elif isinstance(event, Flight) and carrier is self.ends[1]:
                carrier.send_flight(bytes(event.answer_size[0]), self.now)

    def run(self, until: float = inf) -> None:
        """Until so many bytes have been delivered, or nothing moves and no deadline is near."""
        patience_s = 1.0 if until == inf else 10.0  # carriers that poll say what they have when a poll is over
        while self.delivered < until:
            moved = False
            for carrier, other in (self.ends, self.ends[::-1]):
                for piece in carrier.take():
                    moved = True
                    self.wire += len(piece)
                    self._on(other, other.receive(piece, self.now))
            if moved:
                continue
            near = [when for when in (carrier.deadline() for carrier in self.ends) if when <= self.now + patience_s]
            if not near:
                return
            self.now = max(self.now, min(near))
            for carrier in self.ends:
                if carrier.deadline() <= self.now:
                    self._on(carrier, carrier.due(self.now))


# --- Figures ----------------------------------------------------------------------------------------------------------

_SOCKETS = "blocking sockets, one call for 16 KiB, or for 64 KiB of small messages"


@contextmanager
def _beside(ours: AbstractContextManager[Measure], theirs: AbstractContextManager[Measure]) -> Iterator[Pair]:
    with ExitStack() as stack:
        calibrate: Measure | Unavailable
        calibrate = stack.enter_context(theirs)
        yield Pair(stack.enter_context(ours), calibrate)


@contextmanager
def _tunnel(name: str, size: int, *, in_bytes: bool) -> Iterator[Pair]:
    with _beside(
        through(TUNNELS[name], size, in_bytes=in_bytes), through(tunnels.raw, size, in_bytes=in_bytes)
    ) as pair:
        yield pair


@contextmanager
def _stack(options: str, size: int, *, in_bytes: bool) -> Iterator[Pair]:
    with nodes(size, "none", "fast", options) as ours, alone(options, size, in_bytes=in_bytes) as carrier:
        factor = size / 1e6 if in_bytes else 1.0
        yield Pair(lambda: ours() * factor, carrier)


@contextmanager
def _counted(options: str) -> Iterator[Pair]:
    yield Pair(lambda: expansion(options), Unavailable("bytes are counted, nothing is timed"))


def _figures() -> Iterator[Figure]:
    for name, (options, per_16k, per_400, per_byte) in SHAPES.items():
        for label, size, unit, goal in (("16k", 16 << 10, "MB/s", per_16k), ("400", 400, "messages/s", per_400)):
            in_bytes = label == "16k"
            yield Figure(
                f"carrier_{name}_{label}", unit, goal, None, _SOCKETS, unit,
                lambda o=options, s=size, b=in_bytes: _beside(  # type: ignore[misc]
                    alone(o, s, in_bytes=b), through(tunnels.raw, s, in_bytes=b)
                ),
            )  # fmt: skip
            yield Figure(
                f"stack_{name}_{label}", unit, None, None, "the carrier alone", unit,
                lambda o=options, s=size, b=in_bytes: _stack(o, s, in_bytes=b),  # type: ignore[misc]
            )  # fmt: skip
        yield Figure(
            f"carrier_{name}_expansion_1400", "bytes per byte", per_byte, None, "nothing", "bytes per byte",
            lambda o=options: _counted(o), is_less_better=True,  # type: ignore[misc]
        )  # fmt: skip
    for name in TUNNELS:
        for label, size, unit in (("16k", 16 << 10, "MB/s"), ("400", 400, "messages/s")):
            yield Figure(
                f"tunnel_{name}_{label}", unit, None, None, _SOCKETS, unit,
                lambda n=name, s=size, b=label == "16k": _tunnel(n, s, in_bytes=b),  # type: ignore[misc]
            )  # fmt: skip


FIGURES = tuple(_figures())
