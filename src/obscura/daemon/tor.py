"""The node's bond with tor: finds or runs one, publishes the onion service, and does so again whenever either is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from obscura.daemon.datadir import write_atomic
from obscura.daemon.tor_process import TorProcess
from obscura.daemon.ways import TorSettings
from obscura.errors import AddressError, UserError
from obscura.limits import TOR_AGAIN_S, TOR_CONNECT_S, TOR_DESCRIPTOR_S, TOR_FIRST_TRY_S, TOR_HEALTHY_S, TOR_START_S
from obscura.node.backoff import Backoff
from obscura.transport import socks5
from obscura.transport.tor import OnionService, TorControl, TorFault
from obscura.transport.tor_words import is_private_key, progress_of
from obscura.wire.address import Endpoint

log = logging.getLogger(__name__)

_USUAL_SOCKS = Endpoint.of("127.0.0.1", 9050)
_STALE = frozenset({0xF1, 0xF2, 0xF3, 0xF7})  # replies that an old descriptor may be the reason of
Told = Callable[[str, dict[str, Any]], None]  # kind of an event, its fields


class OnionKey:
    """``onion.key``: the private key as tor writes it and, on a second line, the name that belongs to it. Mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> OnionService | None:
        """What was stored; None before the first time. Raises ``UserError`` for a file that is no such key."""
        try:
            lines = self.path.read_text().split()
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            lines = []
        if len(lines) != 2 or not is_private_key(lines[0]) or not _is_name(lines[1]):
            raise UserError(
                f"the onion service's key {self.path} cannot be used: restore it, or delete it to get a new address"
            )
        return OnionService(lines[1], lines[0])

    def keep(self, service: OnionService) -> None:
        """Store it durably. Raises ``UserError``."""
        try:
            write_atomic(self.path, f"{service.private_key}\n{service.name}\n".encode())
        except OSError as error:
            why = (error.strerror or "fault").lower()
            raise UserError(f"the onion service's key cannot be kept in {self.path}: {why}") from None


def _is_name(text: str) -> bool:
    try:
        return Endpoint.of(f"{text}.onion", 1) is not None
    except AddressError:
        return False


class Tor:
    """One per node. ``told`` hears ``tor-connected``, ``tor-lost``, ``tor-bootstrap``, ``onion-added``, ``onion-published``."""

    def __init__(
        self, settings: TorSettings, *, process: TorProcess | None, key: OnionKey, rng: random.Random, told: Told
    ) -> None:
        """``process`` None looks for a tor that runs already."""
        self._settings = settings
        self._process = process
        self._key = key
        self._rng = rng
        self._told = told
        self._target: tuple[Endpoint, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._socks = settings.socks_place() or (_USUAL_SOCKS if process is None else None)
        self._fault: str | None = "it is not connected yet"
        self._has_looked = asyncio.Event()  # the first attempt to reach tor is over
        self._bootstrapped = (0, "")
        self._published = False
        self._uploaded: deque[str] = deque(maxlen=16)  # services whose descriptors this tor published lately
        self._made: OnionService | None = None  # by tor, and not on the disk yet
        self._control: TorControl | None = None
        self._fetches: dict[str, asyncio.Event] = {}  # onion services whose descriptors are being fetched
        self.onion: OnionService | None = None

    # --- Out ----------------------------------------------------------------------------------------------------------

    async def open(self, host: str, port: int) -> socket.socket:
        """A socket to an onion service or, by an exit, to a clearnet host, on a circuit of its own. Raises ``SocksFault``."""
        with contextlib.suppress(TimeoutError):  # right after the start nobody knows yet where tor is
            async with asyncio.timeout(TOR_START_S):
                await self._has_looked.wait()
        if not host.endswith(".onion"):
            return await self._connect(host, port, TOR_CONNECT_S)
        try:
            return await self._connect(host, port, TOR_FIRST_TRY_S)
        except socks5.SocksFault as fault:
            if fault.is_offline or not (fault.is_late or fault.reply in _STALE):
                raise
        await self._fetch_anew(host)
        try:
            return await self._connect(host, port, TOR_CONNECT_S - TOR_FIRST_TRY_S - TOR_DESCRIPTOR_S)
        except socks5.SocksFault as fault:
            if fault.is_offline or not fault.is_late:
                raise
            late = f"no connection within {TOR_CONNECT_S:.0f} s: the onion service may be down, or may have just moved"
            raise socks5.SocksFault(late, is_late=True) from None

    async def _connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        if self._socks is None:
            raise socks5.SocksFault(f"tor is not there: {self._fault}", is_offline=True)
        own_circuit = socks5.Credentials.fresh(self._rng)
        return await socks5.connect(self._socks, host, port, own_circuit, timeout_s=timeout_s)

    async def _fetch_anew(self, host: str) -> None:
        """The descriptor that tor keeps may be from before the service moved or was started again."""
        name = host.removesuffix(".onion")
        fetched = self._fetches.setdefault(name, asyncio.Event())
        with contextlib.suppress(TorFault, TimeoutError):
            if self._control is not None:
                await self._control.fetch_anew(name)
                async with asyncio.timeout(TOR_DESCRIPTOR_S):
                    await fetched.wait()
        self._fetches.pop(name, None)

    # --- In -----------------------------------------------------------------------------------------------------------

    def start(self, target: Endpoint | None, port: int) -> None:
        """Keep in touch from now on; ``target`` is where the onion service's ``port`` leads, None = there is no service."""
        self._target = None if target is None else (target, port)
        self._task = asyncio.get_running_loop().create_task(self._keep_in_touch())

    async def end(self) -> None:
        """Let go of tor; an own one has ended when this returns."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None:
            await self._process.end()

    def control_places(self) -> tuple[Endpoint | Path, ...]:
        """Where tor's control port is looked for; empty while an own tor has none yet."""
        if self._process is None:
            return self._settings.control_places()
        own = self._process.control_port
        return () if own is None else (own,)

    def show(self) -> dict[str, Any]:
        """How it stands, ready for JSON."""
        percent, doing = self._bootstrapped
        return {
            "connected": self._fault is None,
            "fault": self._fault,
            "socks": None if self._socks is None else str(self._socks),
            "bootstrapped_percent": percent,
            "bootstrap": doing,
            "pid": None if self._process is None else self._process.pid,
            "onion": None if self.onion is None else f"{self.onion.name}.onion",
            "published": self._published,
        }

    async def _keep_in_touch(self) -> None:
        wait = Backoff(TOR_AGAIN_S[1], TOR_AGAIN_S[0])
        while True:
            began = time.monotonic()
            try:
                await self._serve()
            except UserError as fault:
                self._lost(str(fault))
            except Exception as fault:  # a defect of ours: the node goes on without tor rather than without a word
                log.error("fault in the bond with tor: %s", type(fault).__name__)
                self._lost(type(fault).__name__)
            if time.monotonic() - began > TOR_HEALTHY_S:
                wait = Backoff(TOR_AGAIN_S[1], TOR_AGAIN_S[0])
            await asyncio.sleep(wait.next_s(self._rng))

    async def _serve(self) -> None:
        """One connection to tor's control port, as long as it lasts. Raises ``UserError`` at its end."""
        async with contextlib.AsyncExitStack() as connected:
            control = self._control = await self._open_control(connected)
            connected.callback(self._forget_control)
            await self._look_around(control)
            if self._target is not None:
                await self._publish(control, *self._target)
            await control.closed.wait()
        raise TorFault("the control connection to tor broke")

    def _forget_control(self) -> None:
        self._control = None

    async def _open_control(self, connected: contextlib.AsyncExitStack) -> TorControl:
        """The first control port that admits us. Raises ``TorFault``."""
        if self._process is not None:
            own = await self._process.start()
            return await connected.enter_async_context(TorControl.open(own, on_event=self._on_event))
        places = self._settings.control_places()
        faults: list[TorFault] = []
        for place in places:
            if isinstance(place, Path) and len(places) > 1 and not place.exists():
                continue
            opened = TorControl.open(place, password=self._settings.password, on_event=self._on_event)
            try:
                return await connected.enter_async_context(opened)
            except TorFault as fault:
                faults.append(fault)
        raise faults[0]

    async def _look_around(self, control: TorControl) -> None:
        if self._process is not None:
            await control.ask("TAKEOWNERSHIP")  # it ends with this connection, so with the node however that ends
        await control.listen_for("HS_DESC", "STATUS_CLIENT")
        listening = await control.socks()
        if self._settings.socks is None and listening:
            self._socks = listening[0]
        for number, (host, key) in enumerate(self._settings.keys_for().items(), 1):
            try:
                await control.admit_to(host, key)
            except (
                TorFault
            ) as fault:  # one service is out of reach: no reason to be without tor, and without the own one
                if not fault.status:
                    raise
                log.warning("tor does not take key %d of tor-daemon.client-keys: %s", number, fault)
        self._bootstrapped = await control.bootstrapped()
        self._fault = None
        self._has_looked.set()
        self._told("tor-connected", {"socks": str(self._socks), "bootstrapped_percent": self._bootstrapped[0]})

    async def _publish(self, control: TorControl, target: Endpoint, port: int) -> None:
        known = self._key.load()
        had = known or self._made  # a disk that takes none shall not have a new one published at each try
        service = await control.add_onion(
            port, target, had.private_key if had else None, clients=self._settings.admitted()
        )
        if known is None:
            self._made = service
            self._key.keep(service)
            self._made = None
        elif known.name != service.name:
            await control.remove_onion(service.name)
            raise UserError(f"the key in {self._key.path} is not that of {known.name}.onion: restore it, or delete it")
        self.onion = service
        self._told("onion-added", {"onion": f"{service.name}.onion", "port": port})
        self._look_for_descriptor()

    def _lost(self, why: str) -> None:
        if why != self._fault:
            log.warning("tor: %s", why)
            self._told("tor-lost", {"why": why})
        self._fault = why
        self._has_looked.set()
        self._published = False
        self._uploaded.clear()
        if self._process is not None:
            self._socks = None

    def _on_event(self, text: str) -> None:
        words = text.split()
        if words[:1] == ["STATUS_CLIENT"] and "BOOTSTRAP" in words:
            self._bootstrapped = progress_of(text)
            self._told("tor-bootstrap", {"percent": self._bootstrapped[0], "doing": self._bootstrapped[1]})
        elif words[:1] == ["HS_DESC"] and len(words) > 2 and words[1] in ("RECEIVED", "FAILED"):
            if words[2] in self._fetches:
                self._fetches[words[2]].set()
        elif words[:2] == ["HS_DESC", "UPLOADED"] and len(words) > 2:
            self._uploaded.append(words[2])  # may come before the answer to ADD_ONION is looked at
            self._look_for_descriptor()

    def _look_for_descriptor(self) -> None:
        if self.onion is not None and self.onion.name in self._uploaded and not self._published:
            self._published = True
            self._told("onion-published", {"onion": f"{self.onion.name}.onion"})
