"""Manual peers (design 10): one link to each configured address, for ever, and never two."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from obscura.limits import BACKOFF_MOST_S, OFFLINE_MOST_S
from obscura.node.core import Core
from obscura.node.effects import Dial, Effect, LinkId
from obscura.node.manual import ManualPeers
from obscura.node.peer import DialFailed, Failure
from obscura.wire.address import Address
from peer_examples import peer

PLACE = Address(None, "20.1.0.1", 9_733)


class Kept:
    """A core that keeps a link to PLACE; dials are counted, and what comes of them the test decides."""

    def __init__(self) -> None:
        self.manual = ManualPeers([PLACE], random.Random(1), 0.0)
        self.core = Core([self.manual])
        self.now = 0.0
        self.dials = 0

    def run(self, seconds: float) -> int:
        """How many dials there were in this time."""
        before, until = self.dials, self.now + seconds
        while (when := self.core.deadline()) <= until:
            self.now = max(when, self.now)
            self.note(self.core.due(self.now))
        self.now = until
        return self.dials - before

    def note(self, effects: Iterable[Effect]) -> None:
        self.dials += sum(isinstance(effect, Dial) and effect.address == PLACE for effect in effects)

    def up(self, link: LinkId) -> None:
        made = msgspec.structs.replace(peer(link, PLACE.host, inbound=False), dialled=PLACE, is_manual=True)
        self.note(self.core.established(made, self.now))

    def down(self, link: LinkId) -> None:
        self.note(self.core.closed(link, "gone", self.now))

    def missed(self, failure: Failure = Failure.UNREACHABLE) -> None:
        self.note(self.core.dial_failed(DialFailed(99, PLACE, failure, ""), self.now))


def test_a_lost_link_is_made_again_for_ever() -> None:
    kept = Kept()
    assert kept.run(0) == 1
    for _ in range(50):
        kept.missed()
        assert kept.run(BACKOFF_MOST_S) == 1
    kept.up(1)
    assert kept.run(86_400) == 0
    kept.down(1)
    assert kept.run(60) == 1


def test_the_end_of_an_applications_own_link_makes_no_second_one() -> None:
    kept = Kept()
    kept.run(0)
    kept.up(1)
    kept.up(2)  # the application's, to the same address
    kept.down(2)
    assert kept.run(86_400) == 0
    kept.missed()  # an application's dial that came to nothing
    assert kept.run(86_400) == 0
    kept.down(1)
    assert kept.run(60) == 1


def test_an_applications_link_serves_as_the_kept_one() -> None:
    kept = Kept()
    kept.run(0)
    kept.missed()
    kept.up(7)  # made by the application while the node waited for its next try
    assert kept.run(86_400) == 0
    kept.down(7)
    assert kept.run(60) == 1


def test_an_address_that_is_configured_later_keeps_the_link_that_it_has() -> None:
    kept = Kept()
    kept.run(0)
    kept.up(1)
    kept.manual.keep([], kept.now)
    kept.down(1)
    assert kept.run(86_400) == 0  # nobody wants it any more
    kept.up(2)
    kept.manual.keep([PLACE], kept.now)
    assert kept.run(86_400) == 0
    kept.down(2)
    assert kept.run(60) == 1


def test_an_outage_of_our_own_does_not_make_a_peer_wait() -> None:
    """No network, no tor, no I2P router for an hour: the peer is dialled soon after, and its own waits begin small."""
    kept = Kept()
    kept.run(0)
    for _ in range(120):
        kept.missed(Failure.OFFLINE)
        assert kept.run(OFFLINE_MOST_S) == 1
    kept.missed()
    assert kept.run(3.0) == 1
