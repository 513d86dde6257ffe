"""Recorded client streams sent again, at once, after a minute, after a day, after steps of the clock: no carrier lets them in."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from obscura.channel.opening import ListenerKind
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.connection import Connection, Dialling, Listening, Opened
from obscura.daemon import dns_cover
from obscura.daemon.covers import Covers, CoverSettings
from obscura.morph.carrier import CarrierFactory
from obscura.morph.kinds import CLIENTS
from obscura.wire.address import Address, CarrierNumber
from obscura.wire.catalogue import CATALOGUE
from playbook import offer

NETWORK = b"n" * 32
STATIC = StaticKey.from_bytes(bytes(range(1, 33)))
CARRIERS = sorted(set(CLIENTS) - {CarrierNumber.BARE})
UNIX = int(time.time())  # a zone's signatures are of now
FLIPS = 20
START = 100.0


class Place:
    """One listener with what it remembers: cover, key, replay cache, clocks."""

    def __init__(self, carrier: CarrierNumber, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.address = Address(STATIC.public, "127.0.0.1", 4_433, carrier)
        self.now = START
        self.step = 0
        shim = SimpleNamespace(time=self.unix, strftime=time.strftime, gmtime=time.gmtime)
        patch.setattr(dns_cover, "time", shim)
        covers = Covers(CoverSettings(), folder, NETWORK)
        self._make: CarrierFactory = covers.carrier_of(self.address, STATIC, strangers=False)
        self._cache = ReplayCache()
        self._rng = random.Random(1)

    def unix(self) -> int:
        """The wall's clock: it goes with the other, and is set now and then."""
        return UNIX + int(self.now - START) + self.step

    def connection(self) -> Connection:
        security = Listening(NETWORK, ListenerKind.DIRECT, STATIC, False, self._cache, lambda: True)
        carrier = self._make(self._rng)
        made = Connection(carrier, security, offer(), CATALOGUE, self._rng, self.unix, initiator=False, now=self.now)
        made.start(self.now)
        return made

    def dialled(self, seed: int) -> tuple[list[bytes], bool]:
        """What a dialler writes, and whether the link opened."""
        rng = random.Random(seed)
        carrier = CLIENTS[self.address.carrier](self.address, rng, NETWORK)
        security = Dialling(NETWORK, ListenerKind.DIRECT, STATIC.public, joining=False)
        near = Connection(carrier, security, offer(), CATALOGUE, rng, self.unix, initiator=True, now=self.now)
        far = self.connection()
        events: list[object] = list(near.start(self.now))
        said: list[bytes] = []
        for _ in range(60):
            for piece in near.flush(self.now):
                said.append(bytes(piece))
                events += far.receive(piece, self.now)
            for piece in far.flush(self.now):
                events += near.receive(piece, self.now)
            for one in (near, far):
                if one.deadline() < self.now + 5:  # sshd takes its time
                    self.now = max(self.now, one.deadline())
                    events += one.due(self.now)
        return said, sum(isinstance(event, Opened) for event in events) == 2

    def opens(self, pieces: list[bytes]) -> bool:
        """Whether the listener takes this stream for a peer's."""
        far = self.connection()
        events: list[object] = []
        for piece in pieces:
            events += far.receive(piece, self.now)
            far.flush(self.now)
        for when in (self.now + 35, self.now + 135):  # late answers, and time-outs
            if far.deadline() <= when:
                events += far.due(when)
                far.flush(when)
            self.now = when
        return any(isinstance(event, Opened) for event in events)


@pytest.fixture(scope="module", params=CARRIERS, ids=lambda carrier: carrier.name.lower())
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        yield Place(request.param, tmp_path_factory.mktemp("replays"), patch)


def test_a_recorded_stream_opens_nothing_at_any_time(place: Place) -> None:
    said, opened = place.dialled(1)
    assert opened
    for later_s, step_s in ((0, 0), (60, 0), (60, -3_601), (60, 86_401), (86_400, 0), (86_400, -86_399)):
        place.now += later_s
        place.step = step_s
        assert not place.opens(said)
        assert not place.opens([b"".join(said)])
    place.step = 0
    assert place.dialled(2)[1]  # who comes himself is still let in


def test_a_flipped_bit_opens_nothing_that_the_whole_stream_did_not(place: Place) -> None:
    said, opened = place.dialled(3)
    assert opened
    rng = random.Random(4)
    whole = b"".join(said)
    for _ in range(FLIPS):
        at = rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        assert not place.opens([bytes(changed)])
