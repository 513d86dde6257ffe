"""Where a node may listen, from the words of its configuration, and its listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from obscura.channel.replay import ReplayCache
from obscura.daemon.config import Config
from obscura.daemon.covers import Covers
from obscura.daemon.datagrams import dns_datagrams
from obscura.daemon.keys import KeyStore
from obscura.daemon.upstream import upstream_place
from obscura.errors import AddressError, ConfigError
from obscura.ledger.network import Network
from obscura.morph.auto import COVERS, AutoServer
from obscura.morph.carrier import CarrierFactory
from obscura.node.dialable import Way, face_of
from obscura.node.face import Face
from obscura.node.io import Listener
from obscura.transport import tcp
from obscura.transport.profile import TcpValues
from obscura.wire.address import Address, CarrierNumber


def listen_address(text: str) -> Address:
    """A listening address of the configuration; port 0 = any free one. Raises ``ConfigError``."""
    try:
        place = Address.parse(text, listening=True)
    except AddressError as error:
        raise ConfigError(f"listen = {text}: {error}") from None
    if place.key is not None:
        raise ConfigError(f"listen = {text}: leave the key out, the node has its own for each address")
    if place.shape is not None:
        raise ConfigError(f"listen = {text}: leave shape= out, a listener takes both; who dials chooses")
    return place


def check_listenable(place: Address, *, allow_plaintext: bool) -> None:
    """Which carrier may listen where (design 6, 8). Raises ``ConfigError``."""
    if place.carrier is CarrierNumber.BARE and not (allow_plaintext and place.is_loopback):
        raise ConfigError(
            f"listen = {place}: carrier=bare has no encryption; it needs allow-plaintext = true and a loopback address"
        )
    if place.carrier is CarrierNumber.PLAIN and not place.is_loopback:
        raise ConfigError(
            f"listen = {place}: carrier plain is for loopback, behind an onion service or an I2P tunnel; "
            "listen on 127.0.0.1"
        )


async def open_listeners(
    owner: tcp.Owner,
    config: Config,
    network: Network,
    keys: KeyStore,
    covers: Covers,
    values: TcpValues,
    until: contextlib.AsyncExitStack,
) -> list[Address]:
    """Listen until ``until`` is left; the addresses with their keys and ports. Raises ``UserError``."""
    opened: list[Address] = []
    if config.cover.upstream is not None:
        is_hidden = bool(config.only_net) or config.plan.ways.clearnet is not Way.DIRECT
        upstream_place(config.cover.upstream, only_loopback=is_hidden)
    usual = () if Face.CLEARNET not in config.plan.faces else (f"127.0.0.1:{network.port}",)
    strangers = not config.unlisted
    for places in by_port(usual if config.listen is None else config.listen, config):
        place = places[0]
        static = None if place.carrier is CarrierNumber.BARE else keys.of(place)
        made = [await asyncio.to_thread(covers.carrier_of, each, static, strangers=strangers) for each in places]
        carrier = (
            made[0] if len(made) == 1 else _shared({at.carrier: make for at, make in zip(places, made, strict=True)})
        )
        listener = Listener(place, face_of(place), static, strangers, ReplayCache(), carrier)
        server, port = await tcp.listen(owner, place, listener, values)
        until.callback(server.close)
        name_server = next((covers.name_servers[each] for each in places if each in covers.name_servers), None)
        if name_server is not None and Face.CLEARNET in config.plan.faces:  # UDP has no way through Tor
            until.callback((await dns_datagrams(name_server, place.host, port)).close)
        public = static.public if static is not None else None
        opened += [Address(public, each.host, port, each.carrier, each.name, each.binding) for each in places]
    return opened


def by_port(texts: Iterable[str], config: Config) -> list[list[Address]]:
    """Where to listen, what is for one address and port together. Raises ``ConfigError``."""
    found: dict[object, list[Address]] = {}
    for at, text in enumerate(texts):
        place = listen_address(text)
        check_listenable(place, allow_plaintext=config.allow_plaintext)
        found.setdefault((place.host, place.port) if place.port else at, []).append(place)
    for places in found.values():
        if len(places) > 1:
            _check_shared(places, config)
    return list(found.values())


def _check_shared(places: list[Address], config: Config) -> None:
    where = f"listen: {len(places)} entries are for {places[0].host}:{places[0].port}"
    if not config.cover.share_ports:
        raise ConfigError(
            f"{where}: give each carrier a port of its own, or set cover.share-ports, which a prober can recognise"
        )
    carriers = {place.carrier for place in places}
    if len(carriers) < len(places) or not carriers <= set(COVERS) or any(place.binding for place in places):
        raise ConfigError(f"{where}: only http, tls, ssh and dns can share a port, each once and without binding=")


def _shared(kinds: dict[CarrierNumber, CarrierFactory]) -> CarrierFactory:
    return lambda rng: AutoServer(rng, kinds)
