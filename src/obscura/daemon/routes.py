"""How sockets leave this machine: the one place that decides it. What the plan does not allow raises; there is no other way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Callable
from typing import Any

from obscura.channel.replay import ReplayCache
from obscura.daemon.config import Config
from obscura.daemon.datadir import DataDir
from obscura.daemon.i2p import DestinationKey, I2p
from obscura.daemon.keys import KeyStore
from obscura.daemon.tor import OnionKey, Tor
from obscura.daemon.tor_process import TorProcess
from obscura.errors import AddressError
from obscura.ledger.network import Network
from obscura.limits import CONNECT_S, I2P_CONNECT_S, TOR_CONNECT_S
from obscura.linkevents import Reason
from obscura.node.dialable import Way, face_of
from obscura.node.effects import Notify
from obscura.node.face import Face
from obscura.node.io import Listener
from obscura.node.link import UNPROVEN
from obscura.transport import socks5, tcp
from obscura.transport.profile import TcpValues
from obscura.transport.through import OpenSocket, ThroughFault
from obscura.wire.address import Address, Endpoint
from obscura.wire.address import Network as AddressNetwork

# of a dial whose stream stood, without a known key and with one
_UNANSWERED = (Reason.TIMEOUT.value, Reason.LOST.value, UNPROVEN)
OnWay = Callable[[str, dict[str, Any], Address | None], None]  # kind of an event, its fields, a new own address


class Routes:
    """One per node."""

    def __init__(self, config: Config, network: Network, folder: DataDir, rng: random.Random, on_way: OnWay) -> None:
        self.plan = config.plan
        self.tor: Tor | None = None
        self._settings = settings = config.tor_daemon
        self._i2p_service = config.i2p_router.service
        self._port = settings.port or network.port
        self._strangers = not config.unlisted
        self._keys: dict[Face, bytes | None] = {}  # of faces where it belongs into the address
        self._on_way = on_way
        self.i2p: I2p | None = None
        if self.plan.uses_tor:
            process = None
            if config.tor == "managed":
                process = TorProcess(folder.path / "tor", settings.program, settings.torrc)
            key = OnionKey(folder.keys / "onion.key")
            self.tor = Tor(settings, process=process, key=key, rng=rng, told=self._told)
        if self.plan.uses_i2p:
            own, dialled = DestinationKey(folder.keys / "i2p.key"), folder.path / "i2p-dialled.dat"
            self.i2p = I2p(config.i2p_router, key=own, dialled=dialled, rng=rng, told=self._told)

    def through(self, face: Face) -> OpenSocket | None:
        """What opens the sockets of a face; None = this machine directly."""
        if face is Face.CLEARNET and self.plan.ways.clearnet is Way.DIRECT:
            return None
        if face is Face.I2P:
            return self._by_i2p
        return self._by_tor if face is Face.ONION or self.plan.proxy is None else self._by_proxy

    @property
    def for_lookups(self) -> OpenSocket | None:
        """What opens the sockets of DNS lookups: the proxy if there is one, else tor if it is on, else None = directly."""
        if self.plan.proxy is not None:
            return self._by_proxy
        return None if self.plan.may_ask_directly else self._by_tor  # which fails where tor is not used

    def patience_s(self, address: Address) -> float:
        """Seconds in which a socket to the address is open, or is given up."""
        face = face_of(address)
        if face is Face.I2P:
            return I2P_CONNECT_S
        return TOR_CONNECT_S if self.through(face) is not None else CONNECT_S

    async def start(
        self, owner: tcp.Owner, keys: KeyStore, values: TcpValues, until: contextlib.AsyncExitStack
    ) -> None:
        """Get in touch with tor and the I2P router, and listen behind them where we are to be reached. Raises ``UserError``."""
        if self.i2p is not None:
            self._start_i2p(self.i2p, owner, keys)
        if self.tor is None:
            return
        if Face.ONION not in self.plan.faces or not self._settings.service:
            self.tor.start(None, self._port)
            return
        static = keys.of(Address(None, "onion", self._port))  # a key that no other listener has, so no other face
        self._keys[Face.ONION] = None if self._strangers else static.public
        place = Address(None, "127.0.0.1", 0)
        listener = Listener(place, Face.ONION, static, self._strangers, ReplayCache())
        server, port = await tcp.listen(owner, place, listener, values)
        until.callback(server.close)
        self.tor.start(Endpoint(AddressNetwork.IPV4, bytes((127, 0, 0, 1)), port), self._port)

    def _start_i2p(self, i2p: I2p, owner: tcp.Owner, keys: KeyStore) -> None:
        """There is no listening socket: streams that come in are handed over by the router."""
        place = Address(None, "i2p", 0)
        if not self._i2p_service:
            i2p.start(None)
            return
        static = keys.of(place)
        self._keys[Face.I2P] = None if self._strangers else static.public
        listener = Listener(place, Face.I2P, static, self._strangers, ReplayCache())

        async def take(stream: socket.socket) -> None:
            await asyncio.get_running_loop().create_connection(lambda: tcp.Socket(owner, listener), sock=stream)

        i2p.start(take)

    async def end(self) -> None:
        """Let go of both."""
        if self.i2p is not None:
            await self.i2p.end()
        if self.tor is not None:
            await self.tor.end()

    def show(self) -> dict[str, Any]:
        """Which ways there are and how they stand, ready for JSON."""
        return {
            "networks": sorted(face.name.lower() for face in self.plan.faces),
            "clearnet": self.plan.ways.clearnet.value,
            "proxy": None if self.plan.proxy is None else str(self.plan.proxy),
            "tor": None if self.tor is None else self.tor.show(),
            "i2p": None if self.i2p is None else self.i2p.show(),
        }

    async def _by_tor(self, host: str, port: int) -> socket.socket:
        if self.tor is None:
            raise socks5.SocksFault("tor is not used", is_offline=True)
        return await self.tor.open(host, port)

    def told(self, notice: Notify) -> None:
        """What the node tells: where a connection stood, and who was dialled never answered over it."""
        if self.i2p is None or notice.kind != "dial-failed" or not str(notice.fields.get("why")).endswith(_UNANSWERED):
            return
        with contextlib.suppress(AddressError):  # an application may tell under the same kind
            self.i2p.unanswered(Address.parse(str(notice.fields.get("address"))).host)

    async def _by_i2p(self, host: str, port: int) -> socket.socket:
        if self.i2p is None:
            raise ThroughFault("I2P is not used", is_offline=True)
        return await self.i2p.open(host, port)

    async def _by_proxy(self, host: str, port: int) -> socket.socket:
        if self.plan.proxy is None:
            raise socks5.SocksFault("there is no proxy", is_offline=True)
        return await socks5.connect(self.plan.proxy, host, port, timeout_s=TOR_CONNECT_S)

    def _told(self, kind: str, fields: dict[str, Any]) -> None:
        own = None
        if kind == "onion-added":  # it proves itself, so a key is only for those whom no stranger may join
            own = Address(self._keys[Face.ONION], fields["onion"], self._port)
        elif kind == "i2p-address":
            own = Address(self._keys[Face.I2P], fields["host"], 0)
        self._on_way(kind, fields, own)
