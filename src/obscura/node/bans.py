"""What the operator does not want: hosts, networks and autonomous systems (design 10, *Penalties*). Never ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from math import inf

import msgspec

from obscura.errors import AddressError, UserError
from obscura.limits import MAX_BANS
from obscura.node.core import Part
from obscura.node.effects import Disconnect, Effect, LinkId
from obscura.node.groups import Grouping
from obscura.node.peer import Peer
from obscura.wire.address import Endpoint, Network


class Ban(msgspec.Struct, frozen=True):
    """``subject`` in its one way to write it; ``until`` in unix seconds, ``inf`` for ever."""

    subject: str
    until: float


class Bans(Part):
    """Refuses links with banned places, in both directions, before anything is spent on them."""

    def __init__(self, grouping: Grouping, unix: Callable[[], float]) -> None:
        self._grouping = grouping
        self._unix = unix
        self._until: dict[str, float] = {}
        self._networks: dict[str, IPv4Network | IPv6Network] = {}
        self._peers: dict[LinkId, Peer] = {}
        self.changed: Callable[[], None] = lambda: None  # the operator decided something, which a crash shall not undo

    def add(self, text: str, for_s: float = inf) -> Ban:
        """Ban a host, network (a prefix, such as a /16 or /32) or ``asN``. Raises ``UserError``."""
        ban = Ban(subject_of(text), self._unix() + for_s)
        if ban.subject.startswith("as") and self._grouping.asmap is None:
            raise UserError(f"{ban.subject} cannot be banned: no asmap file says which addresses are its; set `asmap`")
        self.restore([ban])
        self.changed()
        return ban

    def restore(self, bans: Iterable[Ban]) -> None:
        """Take over bans that were stored. Raises ``UserError`` when there are too many."""
        for ban in bans:
            if len(self._until) >= MAX_BANS and ban.subject not in self._until:
                self._expire()
                if len(self._until) >= MAX_BANS:
                    raise UserError(f"there are {MAX_BANS} bans already: ban a network instead of its hosts")
            self._until[ban.subject] = ban.until
            if "/" in ban.subject:
                self._networks[ban.subject] = ip_network(ban.subject)

    def remove(self, text: str) -> bool:
        """Lift a ban; False if there is none. Raises ``UserError``."""
        subject = subject_of(text)
        self._networks.pop(subject, None)
        was_there = self._until.pop(subject, None) is not None
        self.changed()
        return was_there

    def in_force(self) -> list[Ban]:
        """The bans whose time is not over."""
        self._expire()
        return [Ban(subject, until) for subject, until in self._until.items()]

    def enforce(self, now: float) -> list[Effect]:
        """End the links that a new ban concerns."""
        return [
            Disconnect(peer.link, "banned")
            for peer in self._peers.values()
            if (place := _place(peer)) is not None and self.refuses(place, now) is not None
        ]

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._peers[peer.link] = peer
        return ()

    def on_closed(self, peer: Peer, now: float) -> Iterable[Effect]:
        self._peers.pop(peer.link, None)
        return ()

    def refuses(self, endpoint: Endpoint, now: float) -> str | None:
        if not self._until:
            return None
        subjects = [endpoint.host_text, f"as{self._grouping.asn(endpoint)}"]
        if self._networks and endpoint.network in (Network.IPV4, Network.IPV6, Network.CJDNS):
            host = ip_address(endpoint.host)
            subjects += [text for text, network in self._networks.items() if host in network]
        unix = self._unix()
        return "banned" if any(self._until.get(subject, -inf) > unix for subject in subjects) else None

    def _expire(self) -> None:
        unix = self._unix()
        for subject in [subject for subject, until in self._until.items() if until <= unix]:
            del self._until[subject]
            self._networks.pop(subject, None)


def subject_of(text: str) -> str:
    """The one way to write what is banned. Raises ``UserError`` that says what to write.

    >>> subject_of("AS64500"), subject_of("10.1.2.3/16"), subject_of("2001:DB8::1")
    ('as64500', '10.1.0.0/16', '2001:db8::1')
    """
    plain = text.strip().lower()
    if plain.startswith("as") and plain[2:].isdecimal() and 0 < int(plain[2:]) < 1 << 32:
        return f"as{int(plain[2:])}"
    try:
        if "/" in plain:
            return str(_unmapped(ip_network(plain, strict=False)))
        endpoint = Endpoint.of(plain.removeprefix("[").removesuffix("]"), 0)
    except (ValueError, AddressError) as error:
        raise UserError(f"{text[:80]!a} cannot be banned: {error}") from None
    if endpoint is None:
        raise UserError(
            f"{text[:80]!a} cannot be banned: give an IP address, a prefix such as 10.1.0.0/16, an .onion or .b32.i2p "
            "name, or asN; a ban is never by port"
        )
    return endpoint.host_text


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """IPv4 in IPv6's form (RFC 4291, 2.5.5.2) as IPv4: no peer has an address of the other (``wire.address``)."""
    inner = (
        network.network_address.ipv4_mapped if isinstance(network, IPv6Network) and network.prefixlen >= 96 else None
    )
    return network if inner is None else IPv4Network((inner, network.prefixlen - 96))


def _place(peer: Peer) -> Endpoint | None:
    return peer.dialled.endpoint if peer.dialled is not None else peer.remote
