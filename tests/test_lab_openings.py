"""What each carrier's dialler sends first, before the rule against fully encrypted traffic: none is blocked, random bytes are."""

from __future__ import annotations

import random

import pytest

from obscura.lab.encrypted import blocked
from obscura.morph.kinds import CLIENTS
from obscura.wire.address import Address, CarrierNumber

OPENINGS = 2_000  # `make prove` and lab morph count 10,000
CARRIERS = sorted(set(CLIENTS) - {CarrierNumber.BARE, CarrierNumber.PLAIN})


def openings(carrier: CarrierNumber, count: int, seed: int) -> list[bytes]:
    """The first write of so many diallers, each to another node at another address."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        host = f"{rng.randrange(1, 224)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        name = f"host{number}.example" if carrier is CarrierNumber.TLS and number % 2 else None
        address = Address(rng.randbytes(32), host, rng.randrange(1, 65_536), carrier, name)
        client = CLIENTS[carrier](address, rng, bytes(4))
        client.start(0.0)
        found.append(b"".join(client.take()))
    return found


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.name.lower())
def test_no_opening_is_taken_for_fully_encrypted(carrier: CarrierNumber) -> None:
    firsts = openings(carrier, OPENINGS, 1)
    assert all(firsts)
    assert blocked(firsts) == 0


def test_what_plain_sends_is() -> None:
    """The control: uniform bytes, as the channel's first flight is."""
    rng = random.Random(2)
    assert blocked(rng.randbytes(rng.randint(150, 560)) for _ in range(OPENINGS)) > 0.98 * OPENINGS
