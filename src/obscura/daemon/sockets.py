"""The sockets of a node, those that are still being opened among them: what they bring goes straight into its engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from obscura.daemon.logs import log_fault
from obscura.daemon.routes import Routes
from obscura.limits import READ_CHUNK
from obscura.node.dialable import face_of
from obscura.node.effects import LinkId
from obscura.node.engine import Engine
from obscura.node.face import Face
from obscura.node.io import Faulted, Hold, Listener, Reach, Shut, Write
from obscura.node.peer import Failure
from obscura.transport import tcp
from obscura.transport.profile import TcpProfile
from obscura.wire.address import CarrierNumber

log = logging.getLogger(__name__)


class Sockets:
    """Owner of the sockets (``transport.tcp``) of one node."""

    def __init__(
        self,
        engine: Engine,
        routes: Routes,
        profile: TcpProfile,
        now: Callable[[], float],
        plan: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """``plan``: what follows from what a socket brought is carried out by the turn that it plans. ``fail`` ends the node."""
        self.receive_buffer = memoryview(bytearray(READ_CHUNK))
        self.leaving: dict[tcp.Socket, None] = {}
        self.of: dict[LinkId, tcp.Socket] = {}
        self._engine = engine
        self._routes = routes
        self._profile = profile
        self._now = now
        self._plan_turn = plan
        self._fail = fail
        self._dials: set[asyncio.Task[None]] = set()

    # --- What they bring --------------------------------------------------------------------------------------------

    def socket_up(self, link: tcp.Socket) -> None:
        now = self._now()
        engine = self._engine
        if isinstance(link.tag, Listener):
            is_direct = link.tag.face is Face.CLEARNET  # what others connect through is nobody to blame
            link.tag = engine.accepted(link.tag, link.remote if is_direct else None, now, link.own_host)
        elif link.tag not in engine.links:
            link.abort()  # given up while it was being dialled
            return
        else:
            try:
                engine.connected(link.tag, link.remote, now)
            except Exception as fault:
                engine.broke(link.tag, fault)
        self.of[link.tag] = link
        known = engine.links.get(link.tag)
        if known is not None and known.carrier is CarrierNumber.SSH:
            # OpenSSH says TCP_NODELAY when a session begins: what follows NEWKEYS waits till that is there.
            link.gather(True)
        self._plan_turn()

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None:
        assert isinstance(link.tag, int)
        try:
            self._engine.receive(link.tag, data, self._now())
        except Exception as fault:
            self._engine.broke(link.tag, fault)
        self._plan_turn()

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None:
        if isinstance(link.tag, int):
            self._engine.writable(link.tag, is_writable, self._now())
            self._plan_turn()

    def socket_down(self, link: tcp.Socket) -> None:
        if isinstance(link.tag, int):
            try:
                self._engine.eof(link.tag, self._now(), is_lost=link.is_lost)
            except Exception as fault:
                self._engine.broke(link.tag, fault)
            self._plan_turn()

    # --- What the engine wants --------------------------------------------------------------------------------------

    def write(self, wanted: Write) -> None:
        """Bytes for a socket."""
        socket = self.of.get(wanted.link)
        if socket is not None:
            if socket.gathers and self._is_opened(wanted.link):
                socket.gather(False)
            socket.write(wanted.pieces, resets=wanted.resets)

    def _is_opened(self, id: LinkId) -> bool:
        link = self._engine.links.get(id)
        return link is not None and link.opened is not None

    def shut(self, wanted: Shut) -> None:
        """The end of a socket."""
        socket = self.of.pop(wanted.link, None)
        if socket is not None:
            socket.shut(lingers=wanted.lingers, resets=wanted.resets)

    def hold(self, wanted: Hold) -> None:
        """Whether a socket is read from."""
        self.of[wanted.link].hold(wanted.held)

    def faulted(self, told: Faulted) -> None:
        """A link met a defect of ours: nothing that still waits in its socket is worth more than its end."""
        log_fault(log, "what one link brought or was to get, it is ended", told.fault)
        socket = self.of.pop(told.link, None)
        if socket is not None:
            socket.abort()

    def dial(self, wanted: Reach) -> None:
        """Open a socket; the engine hears how it went."""
        dial = asyncio.get_running_loop().create_task(self._reach(wanted))
        self._dials.add(dial)
        dial.add_done_callback(self._dials.discard)

    async def _reach(self, wanted: Reach) -> None:
        through = self._routes.through(face_of(wanted.address))
        values = self._profile.values(asyncio.get_running_loop().time())
        missed = await tcp.dial(self, wanted.address, wanted.link, values, through)
        if missed is not None:
            failure = Failure.OFFLINE if missed.is_offline else Failure.UNREACHABLE
            try:
                self._engine.unreachable(wanted.link, missed.why, self._now(), failure)
            except Exception as fault:
                self._fail(fault)
            self._plan_turn()

    # --- The end ----------------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Close those that are left at once."""
        for socket in list(self.of.values()):
            socket.abort()

    async def end_dials(self) -> None:
        """Give up what is still being opened."""
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
