"""The carriers by number: how a client of each is made. A server's is made by its listener, which has the cover to show."""

from __future__ import annotations

import random
from collections.abc import Callable

from obscura.morph.carrier import Carrier
from obscura.morph.plain import Plain
from obscura.wire.address import Address, CarrierNumber

ClientMaker = Callable[[Address, random.Random], Carrier]


def _plain(address: Address, rng: random.Random) -> Carrier:
    return Plain(rng, client=True)


CLIENTS: dict[CarrierNumber, ClientMaker] = {
    CarrierNumber.BARE: _plain,  # the same bytes without a channel inside
    CarrierNumber.PLAIN: _plain,
}


def plain_server(rng: random.Random) -> Carrier:
    """The server's side of ``plain`` and ``bare``."""
    return Plain(rng, client=False)
