"""Peers that the operator named: dialled at the start and for ever, however often they fail (design 10)."""

from __future__ import annotations

import random
from collections.abc import Iterable

from obscura.limits import OFFLINE_MOST_S
from obscura.node.backoff import Backoff
from obscura.node.core import Part
from obscura.node.effects import Dial, Effect, LinkId
from obscura.node.peer import DialFailed, Failure, Peer
from obscura.node.timers import Timers
from obscura.wire.address import Address


class ManualPeers(Part):
    """Keeps one link to each address of ``connect`` in the configuration; a link that an application made counts as well."""

    def __init__(self, addresses: Iterable[Address], rng: random.Random, now: float) -> None:
        self._rng = rng
        self._waits = {address: Backoff() for address in addresses}
        self._away = Backoff(most_s=OFFLINE_MOST_S)  # while the own network, tor or the I2P router is not there
        self._timers: Timers[Address] = Timers()
        self._links: dict[Address, set[LinkId]] = {}  # every outbound one: its address may be configured later
        for address in self._waits:
            self._timers.set(address, now)

    def keep(self, addresses: Iterable[Address], now: float) -> None:
        """From now on these are the addresses; links to others stand, but are not made again."""
        wanted = dict.fromkeys(addresses)
        for address in [address for address in self._waits if address not in wanted]:
            del self._waits[address]
            self._timers.clear(address)
        for address in wanted:
            if address not in self._waits:
                self._waits[address] = Backoff()
                if address not in self._links:
                    self._timers.set(address, now)

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        if peer.dialled is not None:
            self._away = Backoff(most_s=OFFLINE_MOST_S)
            self._links.setdefault(peer.dialled, set()).add(peer.link)
            self._timers.clear(peer.dialled)
            if peer.dialled in self._waits:
                self._waits[peer.dialled] = Backoff()
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        if peer.dialled is not None:
            left = self._links.get(peer.dialled, set()) - {peer.link}
            if left:
                self._links[peer.dialled] = left
            else:
                self._links.pop(peer.dialled, None)
                self._again(peer.dialled, now)
        return ()

    def on_dial_failed(self, failed: DialFailed, now: float) -> Iterable[Effect]:
        self._again(failed.address, now, self._away if failed.failure is Failure.OFFLINE else None)
        return ()

    def deadline(self) -> float:
        return self._timers.deadline()

    def due(self, now: float) -> Iterable[Effect]:
        return [Dial(address, manual=True) for address in self._timers.due(now)]

    def _again(self, address: Address, now: float, away: Backoff | None = None) -> None:
        """``away`` instead of the address's own wait: that this machine is cut off says nothing of a peer."""
        wait = self._waits.get(address)
        if wait is not None and address not in self._links:
            self._timers.set(address, now + (away or wait).next_s(self._rng))
