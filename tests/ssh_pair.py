"""A client and a server of carrier ssh beside each other, on a clock of their own, with the wire cut as a test wants it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from math import inf

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from obscura.limits import SSH_FLIGHT
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready
from obscura.morph.ssh import SshClient
from obscura.morph.ssh_hostkey import HostKey
from obscura.morph.ssh_server import SshHost

HOST_KEYS = (
    HostKey(rsa.generate_private_key(public_exponent=65_537, key_size=2_048)),
    HostKey(ec.generate_private_key(ec.SECP256R1())),
    HostKey(ed25519.Ed25519PrivateKey.generate()),
)
FLIGHT_1 = bytes(random.Random(1).randbytes(SSH_FLIGHT))
FLIGHT_2 = b"references" * 60

Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    """The wire does not cut."""
    return [data]


def host(secret: bytes = bytes(32)) -> SshHost:
    """A listener with the three keys."""
    return SshHost(HOST_KEYS, (), secret)


class Side:
    """One carrier and what came out of it."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.events: list[CarrierEvent] = []
        self.received = bytearray()
        self.wrote = bytearray()
        self.is_over = False

    def note(self, events: list[CarrierEvent]) -> None:
        """Keep them; data is joined, since where it is cut means nothing."""
        for event in events:
            if isinstance(event, Data):
                self.received += event.data
            else:
                self.events.append(event)
            self.is_over = self.is_over or isinstance(event, Finished)

    def first(self, kind: type[CarrierEvent]) -> CarrierEvent:
        """The first event of a kind."""
        return next(event for event in self.events if isinstance(event, kind))


class Pair:
    """Both sides. ``verdict``: what the channel says of flight 1; None = it answers with ``FLIGHT_2``."""

    def __init__(self, *, cut: Cut = whole, accepts: bool = True, seed: int = 1, client: Carrier | None = None) -> None:
        rng = random.Random(seed)
        self.now = 100.0
        self.cut = cut
        self.accepts = accepts
        self.client = Side(client or SshClient(rng))
        self.server = Side(host().server(rng))
        self.client.note(self.client.carrier.start(self.now))
        self.server.note(self.server.carrier.start(self.now))

    def turn(self) -> bool:
        """Carry bytes both ways once. False when there were none."""
        moved = self._carry(self.client, self.server)
        return self._carry(self.server, self.client) or moved

    def _carry(self, source: Side, target: Side) -> bool:
        moved = False
        for piece in source.carrier.take():
            source.wrote += piece
            moved = True
            for part in self.cut(piece):
                if not target.is_over:
                    self._give(target, target.carrier.receive(part, self.now))
        return moved

    def _give(self, side: Side, events: list[CarrierEvent]) -> None:
        side.note(events)
        for event in events:
            if isinstance(event, Ready):
                side.carrier.send_flight(FLIGHT_1, self.now)
            elif isinstance(event, Flight) and side is self.server:
                if self.accepts:
                    side.carrier.send_flight(FLIGHT_2, self.now)
                else:
                    side.carrier.refuse(self.now)

    def run(self, until: float = 0.5) -> None:
        """Until nothing is left to do, letting ``until`` seconds pass for deadlines."""
        end = self.now + until
        while True:
            if self.turn():
                continue
            when = min((s.carrier.deadline() for s in (self.client, self.server) if not s.is_over), default=inf)
            if when > end:
                self.now = end
                return
            self.now = max(self.now, when)
            for side in (self.client, self.server):
                if not side.is_over and side.carrier.deadline() <= self.now:
                    self._give(side, side.carrier.due(self.now))


def opened(**how: object) -> Pair:
    """A pair whose channel stands."""
    pair = Pair(**how)  # type: ignore[arg-type]
    pair.run()
    assert pair.client.first(Flight) == Flight(FLIGHT_2)
    return pair
