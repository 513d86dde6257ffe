"""What this node really knows of its own addresses (design 10, *Own address*)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from obscura.limits import OBSERVERS
from obscura.node.core import Part
from obscura.node.dialling import may_learn, own_face
from obscura.node.effects import Effect, LinkId
from obscura.node.groups import Grouping
from obscura.node.peer import Face, Peer
from obscura.wire.address import Address, CarrierNumber, Endpoint


class OwnAddress(Part):
    """Addresses that may be announced: configured ones, those listened on by name, what a router mapped, and what outbound
    peers agree on.

    Listening on 0.0.0.0 says nothing about the own address; then ``OBSERVERS`` outbound peers of different groups must have told
    the same one in their ``version``. Inbound peers are not believed: whoever wants could be many of them.
    """

    def __init__(
        self, grouping: Grouping, *, loopback: bool, external: Iterable[Address] = (), is_proxied: bool = False
    ) -> None:
        """``is_proxied``: clearnet links leave by a Tor exit or a proxy. Peers see that one's address then, and telling them
        where this machine listens would undo it.
        """
        self._grouping = grouping
        self._is_proxied = is_proxied
        self._loopback = loopback
        self._external = tuple(external)
        self._is_listed = True
        self._listening: tuple[Address, ...] = ()
        self._mapped: dict[tuple[str, int], Address] = {}  # listening host and port -> what the router says of it
        self._seen: dict[LinkId, tuple[bytes, bytes]] = {}  # observer's group, our host
        self._observers: dict[bytes, Counter[bytes]] = {}  # our host, its observers' groups: the same, counted

    def set_listening(
        self, addresses: Iterable[Address], *, is_listed: bool = True, external: Iterable[Address] = ()
    ) -> None:
        """Where the node listens, with keys, and what the operator says it is reached by; unlisted = announce none of it."""
        self._listening, self._is_listed = tuple(addresses), is_listed
        self._external = tuple(dict.fromkeys((*self._external, *external)))

    def add_external(self, address: Address) -> None:
        """One more way to reach this node: an onion or I2P name."""
        self._external = (*(a for a in self._external if a != address), address)

    def set_mapped(self, listening: Address, address: Address | None) -> bool:
        """What the router says of a listening place (PCP, NAT-PMP), None = nothing any more; whether that is news.

        Covers share a mapping where they share host and port. Another host with that port has another key, and may be of IPv6.
        """
        place = (listening.host, listening.port)
        before = self._mapped.get(place)
        self._mapped = {known: told for known, told in self._mapped.items() if known != place}
        if address is not None:
            self._mapped[place] = address
        return address != before

    def is_own(self, endpoint: Endpoint) -> bool:
        """Whether the place is this node, as far as it knows: what is announced of a wildcard comes back by gossip, too."""
        if any(address.endpoint == endpoint for address in self._known()):
            return True
        if len(self._observers.get(endpoint.host, ())) < OBSERVERS:
            return False
        host, port = endpoint.host_text, endpoint.port
        there = [a for a in self._listening if a.port == port and _is_any(a) and _is_reached(a, host)]
        return any((a.host, a.port) not in self._mapped for a in there)

    def announced(self, face: Face) -> list[Address]:
        """What to tell peers of a face; every one with its key, and only what they could reach."""
        if not self._is_listed:
            return []
        told = list(self._external)
        hosts = self._observed()
        hidden = self._is_proxied and face is Face.CLEARNET
        for address in () if hidden else self._listening:
            mapped = self._mapped.get((address.host, address.port))
            if mapped is not None:  # what peers see is the router's address, the port is the router's choice
                told.append(msgspec.structs.replace(address, host=mapped.host, port=mapped.port))
            elif _is_any(address):
                reached = [host for host in hosts if _is_reached(address, host)]
                told += [Address(address.key, host, address.port, address.carrier, address.name) for host in reached]
            else:
                told.append(address)
        return [a for a in dict.fromkeys(told) if self._may_announce(a, face)]

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        seen = peer.negotiated.peer.observed
        place = peer.dialled.endpoint if peer.dialled is not None else None
        if seen is not None and place is not None and peer.face is Face.CLEARNET and not self._is_proxied:
            group, host = self._seen[peer.link] = (self._grouping.of(place), seen.host)
            self._observers.setdefault(host, Counter())[group] += 1
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        group, host = self._seen.pop(peer.link, (b"", b""))
        groups = self._observers.get(host)
        if groups is None:
            return ()
        groups[group] -= 1
        if not groups[group]:
            del groups[group]
        if not groups:
            del self._observers[host]
        return ()

    def _known(self) -> tuple[Address, ...]:
        return (*self._listening, *self._external, *self._mapped.values())

    def _observed(self) -> list[str]:
        return [str(ip_address(host)) for host, groups in self._observers.items() if len(groups) >= OBSERVERS]

    def _may_announce(self, address: Address, face: Face) -> bool:
        endpoint = address.endpoint
        if endpoint is None or address.carrier is CarrierNumber.BARE or own_face(endpoint) is not face:
            return False
        return may_learn(endpoint, address.carrier, loopback=self._loopback)


def _is_reached(listening: Address, host: str) -> bool:
    """Whether the wildcard is of the host's family: a listening [::] takes IPv6 alone (``transport.tcp.listen``)."""
    return (":" in listening.host) == (":" in host)


def _is_any(address: Address) -> bool:
    endpoint = address.endpoint
    return endpoint is not None and not any(endpoint.host) and own_face(endpoint) is Face.CLEARNET
