"""The node's bond with an I2P router: a lasting destination for who dials us, a passing one for whom we dial, again when lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from obscura.daemon.datadir import write_atomic
from obscura.daemon.i2p_settings import I2pSettings
from obscura.errors import UserError
from obscura.limits import (
    I2P_ACCEPT_AGAIN_S,
    I2P_ACCEPTS,
    I2P_AGAIN_S,
    I2P_AGAIN_STREAM_S,
    I2P_APART_TRIES,
    I2P_CLEANUP_S,
    I2P_CONNECT_S,
    I2P_HEALTHY_S,
    I2P_INSTANT_S,
    I2P_LEASES_S,
    I2P_LOOK_S,
    I2P_OWN_SESSIONS,
    I2P_PROGRESS_S,
)
from obscura.node.backoff import Backoff
from obscura.transport.destinations import Destinations
from obscura.transport.sam import Sam, SamFault, Session
from obscura.transport.sam_words import Destination, PrivateDestination
from obscura.wire.address import Endpoint

log = logging.getLogger(__name__)

Told = Callable[[str, dict[str, Any]], None]  # kind of an event, its fields
OnStream = Callable[[socket.socket], Awaitable[None]]  # takes a stream that came in


class DestinationKey:
    """``i2p.key``: the lasting destination with its private keys, as the router writes it. Mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> PrivateDestination | None:
        """What was stored; None before the first time. Raises ``UserError`` for a file that is no such key."""
        try:
            return PrivateDestination.parse(self.path.read_text().strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise UserError(
                f"the I2P destination's key {self.path} cannot be used: restore it, or delete it to get a new address"
            ) from None

    def keep(self, key: PrivateDestination) -> None:
        """Store it durably. Raises ``UserError``."""
        try:
            write_atomic(self.path, f"{key.text}\n".encode())
        except OSError as error:
            why = (error.strerror or "fault").lower()
            raise UserError(f"the I2P destination's key cannot be kept in {self.path}: {why}") from None


class TiedSocket(socket.socket):
    """Takes a socket over; ``on_end`` is called once, when it is closed or the loop lets go of it."""

    def __init__(self, sock: socket.socket, on_end: Callable[[], None]) -> None:
        super().__init__(fileno=sock.detach())
        self.setblocking(False)
        self._on_end: Callable[[], None] | None = on_end

    def close(self) -> None:
        super().close()
        self._end()

    def detach(self) -> int:
        number = super().detach()
        self._end()
        return number

    def _end(self) -> None:
        told, self._on_end = self._on_end, None
        if told is not None:
            told()


class Half:
    """One of the two sessions, as far as it stands."""

    def __init__(self, which: str, told: Told) -> None:
        self.which = which
        self.session: Session | None = None
        self.fault: str | None = None
        self._told = told
        self._state = "connecting"
        self._since = time.monotonic()
        self._changed = asyncio.Event()

    def builds(self) -> None:
        """The router is there; the session is being made."""
        self.fault = None
        self._is("building tunnels")

    def stands(self, session: Session) -> None:
        """The session is there."""
        took_s = round(time.monotonic() - self._since, 1)
        self.session = session
        self._is("ready")
        log.info("i2p: the %s session is ready after %.0f s", self.which, took_s)
        self._told("i2p-ready", {"which": self.which, "took_s": took_s})

    def lost(self, why: str) -> None:
        """There is no session, and why."""
        if why != self.fault:
            log.warning("i2p: no %s session: %s", self.which, why)
            self._told("i2p-lost", {"which": self.which, "why": why})
        self.session, self.fault = None, why
        self._is("waiting to try again")

    async def get(self) -> Session:
        """The session, as soon as it is there. Raises ``SamFault`` while there is none, and none being made."""
        while self.session is None:
            if self.fault is not None:
                raise SamFault(f"I2P is not there: {self.fault}", is_offline=True)
            await self._changed.wait()
        return self.session

    def show(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"state": self._state, "for_s": round(time.monotonic() - self._since, 1)}

    @contextlib.asynccontextmanager
    async def said_to_build(self) -> Any:
        """Say now and then in the log that it is still being made."""
        task = asyncio.get_running_loop().create_task(self._say())
        try:
            yield
        finally:
            task.cancel()

    async def _say(self) -> None:
        log.info("i2p: building tunnels for the %s session; this takes 20 s to some minutes", self.which)
        while True:
            await asyncio.sleep(I2P_PROGRESS_S)
            if self.session is None:
                log.info("i2p: still building, for %.0f s by now", time.monotonic() - self._since)

    def _is(self, state: str) -> None:
        self._state, self._since = state, time.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class I2p:
    """One per node. ``told`` hears ``i2p-address``, ``i2p-ready``, ``i2p-published``, ``i2p-lost``.

    What dials out never uses the lasting destination: whom we dial learns nothing of our address, nor whether we have one.
    """

    def __init__(
        self, settings: I2pSettings, *, key: DestinationKey, dialled: Path, rng: random.Random, told: Told
    ) -> None:
        self.destinations = Destinations()
        self.host: str | None = None  # of the lasting destination
        self._settings = settings
        self._sam = Sam(settings.place())
        self._options = settings.options()
        self._key = key
        self._dialled_file = dialled
        self._rng = rng
        self._told = told
        self._on_stream: OnStream | None = None
        self._inbound = Half("inbound", told)
        self._outbound = Half("outbound", told)
        self._published = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_sessions = 0
        self._unanswered: dict[
            str, int
        ] = {}  # tries left with sessions apart, of hosts whose last stream brought nothing

    # --- Out ----------------------------------------------------------------------------------------------------------

    async def open(self, host: str, port: int) -> socket.socket:
        """A stream to a destination, by its ``.b32.i2p`` name or one of the router's address book. Raises ``SamFault``."""
        try:
            async with asyncio.timeout(I2P_CONNECT_S):
                return await self._open(host)
        except TimeoutError:
            is_ours = not self._settings.fresh and self._outbound.session is None
            doing = "the router is still building our tunnels" if is_ours else "the destination may be down"
            raise SamFault(
                f"no connection within {I2P_CONNECT_S:.0f} s: {doing}", is_offline=is_ours, is_late=True
            ) from None

    def unanswered(self, host: str) -> None:
        """A stream to the host stood, and nothing came over it.

        i2pd keeps the LeaseSet of a destination that made its session again for up to ten minutes, for each session of ours: the
        next streams to it get sessions of their own, which have to ask anew, until one stands.
        """
        if host.endswith(".b32.i2p") and (host in self._unanswered or len(self._unanswered) < I2P_OWN_SESSIONS):
            self._unanswered[host] = I2P_APART_TRIES

    async def _open(self, host: str) -> socket.socket:
        is_apart = host in self._unanswered and self._own_sessions < I2P_OWN_SESSIONS
        if is_apart:
            self._unanswered[host] -= 1
            if not self._unanswered[host]:
                del self._unanswered[host]
        if self._settings.fresh or is_apart:
            sock = await self._open_apart(await self._destination(host))
            self._unanswered.pop(host, None)
            return sock
        await self._outbound.get()
        destination = await self._destination(host)
        try:
            return await self._stream(destination)
        except SamFault as fault:
            if fault.result != "CANT_REACH_PEER":
                raise
        await asyncio.sleep(I2P_AGAIN_STREAM_S)  # i2pd finds a LeaseSet late, now and then
        return await self._stream(destination)

    async def _stream(self, destination: Destination) -> socket.socket:
        session = await self._outbound.get()
        try:
            return await session.connect(destination)
        except SamFault as fault:
            if fault.result == "INVALID_ID":  # the router forgot it and did not hang up
                session.closed.set()
            raise

    async def _destination(self, host: str) -> Destination:
        found = None
        if host.endswith(".b32.i2p"):
            endpoint = Endpoint.of(host, 0)
            found = self.destinations.known(endpoint.host) if endpoint is not None else None
        if found is None:
            found = await self._sam.lookup(host)
        self.destinations.dialled(found)
        return found

    async def _open_apart(self, destination: Destination) -> socket.socket:
        """By a session that nothing else uses, and that ends with the stream."""
        if self._own_sessions >= I2P_OWN_SESSIONS:
            raise SamFault(f"{I2P_OWN_SESSIONS} links have I2P tunnels of their own already", is_offline=True)
        self._own_sessions += 1
        async with contextlib.AsyncExitStack() as until_open:
            until_open.callback(self._count_down)
            session = await until_open.enter_async_context(self._sam.session(self._rng, self._options))
            sock = await session.connect(destination)
            rest = until_open.pop_all()
        return TiedSocket(sock, lambda: self._spawn(rest.aclose()))

    def _count_down(self) -> None:
        self._own_sessions -= 1

    # --- In -----------------------------------------------------------------------------------------------------------

    def start(self, on_stream: OnStream | None) -> None:
        """Keep sessions up from now on; ``on_stream`` None = nobody can dial us. Raises ``UserError``."""
        try:
            self.destinations = Destinations(self._dialled_file)
        except OSError as error:
            raise UserError(f"{self._dialled_file} cannot be read: {error.strerror}") from None
        self._on_stream = on_stream
        if on_stream is not None:
            self._spawn(self._keep(self._inbound, self._serve_inbound))
        if not self._settings.fresh:
            self._spawn(self._keep(self._outbound, self._serve_outbound))

    async def end(self) -> None:
        """Let go of the router; its tunnels for us end."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)

    def show(self) -> dict[str, Any]:
        """How it stands, ready for JSON."""
        inbound = None if self._on_stream is None else self._inbound
        outbound = None if self._settings.fresh else self._outbound
        halves = [half for half in (inbound, outbound) if half is not None]
        dialled, linked = self.destinations.counts
        return {
            "connected": all(half.session is not None for half in halves),
            "fault": next((half.fault for half in halves if half.fault is not None), None),
            "sam": str(self._sam.place),
            "sam_version": self._sam.version,
            "destination": self.host,
            "published": self._published,
            "inbound": None if inbound is None else inbound.show(),
            "outbound": None if outbound is None else outbound.show(),
            "destinations_dialled": dialled,
            "destinations_linked": linked,
        }

    async def _keep(self, half: Half, serve: Callable[[], Awaitable[None]]) -> None:
        wait = Backoff(I2P_AGAIN_S[1], I2P_AGAIN_S[0])
        while True:
            began = time.monotonic()
            try:
                await serve()
            except (SamFault, UserError) as fault:
                half.lost(str(fault))
            except Exception as fault:  # a defect of ours: the node goes on without I2P rather than without a word
                log.error("fault in the bond with the I2P router: %s", type(fault).__name__)
                half.lost(type(fault).__name__)
            if time.monotonic() - began > I2P_HEALTHY_S:
                wait = Backoff(I2P_AGAIN_S[1], I2P_AGAIN_S[0])
            await asyncio.sleep(wait.next_s(self._rng))

    async def _serve_outbound(self) -> None:
        """One session, as long as it lasts. Raises ``SamFault`` at its end."""
        await self._sam.greet()
        self._outbound.builds()
        async with self._outbound.said_to_build(), self._sam.session(self._rng, self._options) as session:
            self._outbound.stands(session)
            await session.closed.wait()
        raise SamFault(_ENDED)

    async def _serve_inbound(self) -> None:
        """The same with the lasting destination, and whoever dials it. Raises ``SamFault`` or ``UserError`` at its end."""
        half = self._inbound
        key = self._key.load()
        if key is None:
            key = await self._sam.generate()
            self._key.keep(key)
        await self._sam.greet()
        half.builds()
        if not await self._serve_with(key, is_second=False):
            await asyncio.sleep(I2P_CLEANUP_S)
            await self._serve_with(key, is_second=True)
        half.lost(_ENDED)
        await asyncio.sleep(I2P_LEASES_S)
        raise SamFault(_ENDED)

    async def _serve_with(self, key: PrivateDestination, *, is_second: bool) -> bool:
        """A session until it is lost; False if it was given up at once, since its destination would soon be deleted under it."""
        began = time.monotonic()
        async with self._inbound.said_to_build(), self._sam.session(self._rng, self._options, key) as session:
            if not is_second and time.monotonic() - began < I2P_INSTANT_S:
                log.info("i2p: the router still has our destination of before; waiting until it lets go of it")
                return False
            self.host = session.destination.host
            self._inbound.stands(session)
            self._told("i2p-address", {"host": self.host})
            try:
                await self._answer(session)
            finally:
                self._published = False
        return True

    async def _answer(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._accept(session)) for _ in range(I2P_ACCEPTS)]
        tasks.append(loop.create_task(self._look_for_us(session.destination.host)))
        try:
            await session.closed.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, session: Session) -> None:
        while True:
            try:
                sock, peer = await session.accept()
            except SamFault as fault:
                if fault.result == "INVALID_ID":
                    session.closed.set()
                await asyncio.sleep(I2P_ACCEPT_AGAIN_S)
            else:
                await self._take(sock, peer)

    async def _take(self, sock: socket.socket, peer: Destination) -> None:
        if self._on_stream is None or self.destinations.came(peer) is None:
            sock.close()
            return
        tied = TiedSocket(sock, lambda: self.destinations.went(peer))
        try:
            await self._on_stream(tied)
        except OSError:
            tied.close()

    async def _look_for_us(self, host: str) -> None:
        """i2pd before 2.51 may forget to publish a destination until its tunnels are renewed, and say nothing of it."""
        wait = Backoff(I2P_LOOK_S[1], I2P_LOOK_S[0])
        while not self._published:
            try:
                await self._sam.lookup(host)
            except SamFault:
                await asyncio.sleep(wait.next_s(self._rng))
            else:
                self._published = True
                self._told("i2p-published", {"host": host})

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_ENDED = "the I2P router ended the session"
