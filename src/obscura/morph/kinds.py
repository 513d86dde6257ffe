"""The carriers by number: how a client of each is made. A server's is made by its listener, which has the cover to show."""

from __future__ import annotations

import random
from collections.abc import Callable

from obscura.morph.carrier import Carrier
from obscura.morph.dns import DnsClient
from obscura.morph.dns_message import name_of
from obscura.morph.dns_names import origin_for_key, tsig_key
from obscura.morph.dress import path_for_key
from obscura.morph.plain import Plain
from obscura.morph.poller import PollingClient
from obscura.morph.ssh import SshClient
from obscura.morph.tls import TlsClient
from obscura.morph.visitor import HttpClient
from obscura.wire.address import Address, CarrierNumber, join_host_port

ClientMaker = Callable[[Address, random.Random, bytes], Carrier]  # the last is the network id


def _plain(address: Address, rng: random.Random, network_id: bytes) -> Carrier:
    return Plain(rng, client=True)


def _http(address: Address, rng: random.Random, network_id: bytes) -> Carrier:
    assert address.key is not None, "check_dialable"
    polls = address.shape == "requests" if address.shape is not None else rng.random() < 0.5
    visit = PollingClient if polls else HttpClient
    return visit(rng, _host_field(address, 80), path_for_key(address.key))


def _tls(address: Address, rng: random.Random, network_id: bytes) -> Carrier:
    host = _host_field(address, 443)
    return TlsClient(
        rng,
        host,
        address.name,
        address.key,
        network_id,
        by_cookie=address.binding == "cookie",
        polls=address.shape == "requests",  # outside, nobody sees which; the WebSocket is faster
    )


def _ssh(address: Address, rng: random.Random, network_id: bytes) -> Carrier:
    return SshClient(rng)


def _dns(address: Address, rng: random.Random, network_id: bytes) -> Carrier:
    assert address.key is not None, "check_dialable"
    origin = name_of(address.name or origin_for_key(address.key)).lower()
    return DnsClient(rng, origin, tsig_key(address.key), address.key)


def _host_field(address: Address, usual_port: int) -> bytes:
    """``Host`` as a client writes it that was given this name, or else this address."""
    host = address.name or address.host
    if address.port == usual_port:
        return (f"[{host}]" if ":" in host else host).encode()
    return join_host_port(host, address.port).encode()


CLIENTS: dict[CarrierNumber, ClientMaker] = {
    CarrierNumber.BARE: _plain,  # the same bytes without a channel inside
    CarrierNumber.PLAIN: _plain,
    CarrierNumber.HTTP: _http,
    CarrierNumber.TLS: _tls,
    CarrierNumber.SSH: _ssh,
    CarrierNumber.DNS: _dns,
}


def plain_server(rng: random.Random) -> Carrier:
    """The server's side of ``plain`` and ``bare``."""
    return Plain(rng, client=False)


# Carriers that strangers without the key may open (NXpsk0).
JOINABLE = frozenset({CarrierNumber.TLS, CarrierNumber.SSH})
