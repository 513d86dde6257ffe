"""Network groups: who probably has one owner. What an attacker could get by owning many addresses is counted by group."""

from __future__ import annotations

from ipaddress import IPv6Address

from obscura.node.asmap import Asmap
from obscura.wire.address import Endpoint, Network

_NAT64 = bytes.fromhex("0064ff9b") + bytes(8)  # RFC 6052, 2.1


class Grouping:
    """The group of an address: its ASN by the asmap, else /16 of IPv4 or /32 of IPv6, 1/16 of all onion or I2P names.

    ``loopback_apart`` (network dev): each loopback address is a group of its own; elsewhere all of them are one.
    """

    def __init__(self, asmap: Asmap | None = None, *, loopback_apart: bool = False) -> None:
        self.asmap = asmap
        self._loopback_apart = loopback_apart

    def of(self, endpoint: Endpoint) -> bytes:
        """Short and printable nowhere; equal for places that count as one owner's. The port never matters."""
        if (endpoint.host[0] == 127 or not endpoint.host[0]) and endpoint.is_loopback:
            return b"l" + endpoint.host if self._loopback_apart else b"l"
        if endpoint.network in (Network.IPV4, Network.IPV6):
            asn = self.asn(endpoint)
            if asn:
                return b"a" + asn.to_bytes(4, "big")
            ipv4 = embedded_ipv4(endpoint)
            return b"4" + ipv4[:2] if ipv4 is not None else b"6" + endpoint.host[:4]
        if endpoint.network is Network.CJDNS:
            return b"c" + endpoint.host[:1] + bytes([endpoint.host[1] & 0xF0])
        return bytes([endpoint.network, endpoint.host[0] >> 4])  # such names cost nothing: few groups (as Bitcoin)

    def asn(self, endpoint: Endpoint) -> int:
        """The autonomous system that announces the address; 0 = unknown, or no asmap."""
        if self.asmap is None or endpoint.network not in (Network.IPV4, Network.IPV6):
            return 0
        ipv4 = embedded_ipv4(endpoint)
        return self.asmap.asn(bytes(10) + b"\xff\xff" + ipv4 if ipv4 is not None else endpoint.host)


def embedded_ipv4(endpoint: Endpoint) -> bytes | None:
    """The IPv4 address that an address is, or is reached through (6to4, Teredo, NAT64): who has one has a /32 of IPv6."""
    host = endpoint.host
    if endpoint.network is Network.IPV4:
        return host
    if endpoint.network is not Network.IPV6:
        return None
    address = IPv6Address(host)
    teredo = address.teredo
    inner = address.sixtofour or (teredo[1] if teredo is not None else None)
    if inner is not None:
        return inner.packed
    return host[12:] if host.startswith(_NAT64) else None
