"""What the configuration says of the ways out of this machine: Tor, I2P, a proxy, or directly. No socket is opened here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from obscura.daemon.i2p_settings import I2pSettings
from obscura.errors import AddressError, ConfigError
from obscura.node.dialable import Way, Ways, face_of
from obscura.node.face import Face
from obscura.transport.tor_words import client_key, endpoint_of
from obscura.wire.address import Address, Endpoint

Texts = tuple[str, ...]
NETWORKS = {"clearnet": Face.CLEARNET, "tor": Face.ONION, "i2p": Face.I2P}
THROUGH_TOR = "tor"


class TorSettings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The section ``tor-daemon``: how tor is reached or run, and what it publishes for this node."""

    socks: Annotated[
        str | None, Meta(description="IP:PORT of tor's SOCKS port; unset asks tor, else 127.0.0.1:9050")
    ] = None
    control: Annotated[
        str | None,
        Meta(description="IP:PORT or path of tor's control port; unset tries /run/tor/control and 127.0.0.1:9051"),
    ] = None
    password: Annotated[
        str | None,
        Meta(description="password of the control port; unset reads the cookie that tor names", extra={"secret": True}),
    ] = None
    program: Annotated[str, Meta(description='what tor = "managed" starts')] = "tor"
    torrc: Annotated[
        Path | None, Meta(description='more lines for the tor that tor = "managed" starts, such as bridges')
    ] = None
    service: Annotated[bool, Meta(description="be reached by others as an onion service")] = True
    port: Annotated[int, Meta(ge=0, le=65_535, description="port of the onion service; 0 is the network's own")] = 0
    clients: Annotated[
        Texts,
        Meta(description="public x25519 keys (base32) of those who may reach the onion service; none = everybody"),
    ] = ()
    client_keys: Annotated[
        Texts,
        Meta(
            description="NAME.onion:KEY with the private x25519 key (base32) for services that admit only some",
            extra={"secret": True},
        ),
    ] = ()

    def check(self) -> None:
        """Raises ``ConfigError`` for what does not mean anything."""
        self.control_places()
        self.socks_place()
        self.admitted()
        self.keys_for()

    def control_places(self) -> tuple[Endpoint | Path, ...]:
        """Where to look for a running tor. Raises ``ConfigError``.

        Security: the socket first, where only tor can be. Any user of the machine may have the port of a tor that has none, and
        whoever is taken for tor is given the onion service's key.
        """
        if self.control is None:
            return (Path("/run/tor/control"), Endpoint.of("127.0.0.1", 9051))  # type: ignore[return-value]
        if self.control.startswith("/"):
            return (Path(self.control),)
        return (_endpoint("tor-daemon.control", self.control),)

    def socks_place(self) -> Endpoint | None:
        """The SOCKS port if it is configured. Raises ``ConfigError``."""
        return None if self.socks is None else _endpoint("tor-daemon.socks", self.socks)

    def admitted(self) -> tuple[bytes, ...]:
        """Keys of those who may reach the onion service. Raises ``ConfigError``."""
        return tuple(_key("tor-daemon.clients", text) for text in self.clients)

    def keys_for(self) -> dict[str, bytes]:
        """Host of an onion service -> our private key for it. Raises ``ConfigError``."""
        found = {}
        for text in self.client_keys:
            host, _, key = text.partition(":")
            try:
                is_onion = face_of(Address(None, host, 1)) is Face.ONION
            except AddressError:
                is_onion = False
            if not is_onion:
                raise ConfigError("tor-daemon.client-keys: an entry is NAME.onion:KEY")
            found[host] = _key("tor-daemon.client-keys", key)
        return found


class Plan(msgspec.Struct, frozen=True):
    """Which networks are used and how. Nothing ever falls back to another way."""

    faces: frozenset[Face]  # where peers are looked for
    ways: Ways
    uses_tor: bool
    uses_i2p: bool
    proxy: Endpoint | None  # for clearnet, if it is not tor

    @property
    def hides_lookups(self) -> bool:
        """Whether questions to DNS leave through tor or the proxy."""
        return self.uses_tor or self.proxy is not None

    @property
    def may_ask_directly(self) -> bool:
        """Whether this machine itself may ask DNS servers."""
        return self.ways.clearnet is Way.DIRECT and not self.hides_lookups


def plan(
    *,
    tor: str,
    only_net: Texts,
    proxy: str | None,
    listen: Texts,
    external_address: Texts,
    settings: TorSettings,
    i2p: str = "off",
    i2p_settings: I2pSettings | None = None,
) -> Plan:
    """What the keys of these names amount to. Raises ``ConfigError`` for those that contradict each other."""
    only = _only(only_net)
    wants_tor, wants_i2p = tor != "off", i2p != "off"
    settings.check()
    if i2p_settings is not None:
        i2p_settings.check()
    if Face.I2P in only and not wants_i2p:
        raise ConfigError('only-net = ["i2p"] needs I2P: set i2p = "auto" (--i2p auto)')
    if Face.ONION in only and not wants_tor:
        raise ConfigError('only-net = ["tor"] needs tor: set tor = "auto" or "managed" (--tor auto)')
    if proxy == THROUGH_TOR and only == {Face.I2P}:
        raise ConfigError('proxy = "tor" is for clearnet, which only-net leaves out: remove one of them')
    if proxy == THROUGH_TOR and not wants_tor:
        raise ConfigError('proxy = "tor" needs tor: set tor = "auto" or "managed" (--tor auto)')
    other_proxy = None if proxy in (None, THROUGH_TOR) else _endpoint("proxy", proxy or "")
    has_clearnet = not only or Face.CLEARNET in only
    has_onion = wants_tor and (not only or Face.ONION in only)
    if other_proxy is not None and not has_clearnet:
        raise ConfigError("proxy is for clearnet, which only-net leaves out: remove one of them")
    if not has_clearnet:
        _check_hidden(listen, external_address)
    has_i2p = wants_i2p and (not only or Face.I2P in only)
    uses_tor = has_onion or proxy == THROUGH_TOR
    clearnet = Way.DIRECT
    if not has_clearnet or proxy is not None:
        clearnet = Way.PROXY if uses_tor or other_proxy is not None else Way.CLOSED
    has = {Face.CLEARNET: has_clearnet, Face.ONION: has_onion, Face.I2P: has_i2p}
    return Plan(
        faces=frozenset(face for face in Face if has[face]),
        ways=Ways(clearnet=clearnet, onion=has_onion, i2p=has_i2p),
        uses_tor=uses_tor,
        uses_i2p=has_i2p,
        proxy=other_proxy,
    )


def _only(names: Iterable[str]) -> frozenset[Face]:
    for name in names:
        if name not in NETWORKS:
            raise ConfigError(f"only-net: {name!r} is no network: use clearnet, tor or i2p")
    return frozenset(NETWORKS[name] for name in names)


def _check_hidden(listen: Texts, external_address: Texts) -> None:
    """Without clearnet, nobody out there may reach or be told of a clearnet address. Raises ``ConfigError``."""
    for text in listen:
        if not Address.parse(text, listening=True).is_loopback:
            raise ConfigError(
                f"listen = {text}: only-net leaves clearnet out, so this node listens on 127.0.0.1 and ::1 only"
            )
    for text in external_address:
        if face_of(Address.parse(text)) is Face.CLEARNET:
            raise ConfigError(f"external-address = {text}: only-net leaves clearnet out, so it must not be told")


def _endpoint(key: str, text: str) -> Endpoint:
    found = endpoint_of(text)
    if found is None:
        raise ConfigError(f"{key} = {text}: give IP:PORT such as 127.0.0.1:9050; names are not looked up")
    return found


def _key(key: str, text: str) -> bytes:
    try:
        return client_key(text)
    except ValueError:  # the key itself may be secret: it is not repeated
        raise ConfigError(f"{key}: a key has 52 characters of base32 (32 bytes, not all zero)") from None
