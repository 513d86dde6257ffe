"""The first interpreter of the core: a node under asyncio, with real sockets and real time.

Everything that one turn of the loop queued for a link leaves in one write. The node owns its sockets and tasks: leaving the
``async with`` ends every link cleanly and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import time
import traceback
from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import Any, Self

from obscura.daemon.archive import Archive
from obscura.daemon.capture import Capture, captured
from obscura.daemon.config import Config, parse_bytes
from obscura.daemon.covers import Covers
from obscura.daemon.datadir import DataDir
from obscura.daemon.discovery import Discovery, keep_sequences, read_sequences, seed_source
from obscura.daemon.events import Broadcast, Subscription
from obscura.daemon.keys import KeyStore
from obscura.daemon.listening import open_listeners
from obscura.daemon.mapping import mapped
from obscura.daemon.neighbours import introduce, neighbour_settings
from obscura.daemon.outbox import FileOutbox, Following, Receipts
from obscura.daemon.peerstore import PeerStore
from obscura.daemon.routes import Routes
from obscura.errors import Unreachable, UserError
from obscura.handshake.features import Flags, experimental, named
from obscura.ledger.network import Network
from obscura.ledger.networks import load_network
from obscura.limits import HANDSHAKE_S, READ_CHUNK, STOP_S
from obscura.node.assembly import Assembly, Settings, assemble
from obscura.node.broadcast import Policy, Receipt
from obscura.node.core import Part, Reaction
from obscura.node.dialable import face_of
from obscura.node.effects import Effect, Fetch, Keep, LinkId, Lookup, Notify
from obscura.node.engine import Engine
from obscura.node.face import Face
from obscura.node.io import Hold, Listener, Reach, Shut, Write
from obscura.node.peer import Failure, Peer
from obscura.node.relay import ChainRelay
from obscura.store.faults import StoreError
from obscura.store.sqlite import Store
from obscura.transport import tcp
from obscura.transport.profile import TcpProfile
from obscura.wire.address import Address
from obscura.wire.message import Message

log = logging.getLogger(__name__)


def _log_fault(where: str, fault: Exception) -> None:
    """Its kind and place; its text may hold what a peer sent."""
    frames = "".join(traceback.format_tb(fault.__traceback__))
    log.error("fault in %s: %s\n%s", where, type(fault).__name__, frames)


class Node:
    """A node of the network, embedded in a program or run by ``obscura run``.

    ::

        async with Node(Config(network="dev", data_dir=path)) as node:
            peer = await node.connect("obscura://KEY@127.0.0.1:19733")
            print(await node.ping(peer))

    Several nodes in one process are fine. All methods belong to the event loop that entered the node.
    """

    def __init__(self, config: Config | None = None, *, rng: random.Random | None = None) -> None:
        """``rng`` None = the system's; another one makes a node predictable and is for tests."""
        self.config = config or Config()
        self.network: Network = load_network(self.config.network)
        self.data_dir = DataDir(self.config.data_dir, self.network.name)
        self.events_out = Broadcast()
        self.receipts = Receipts()
        self.receive_buffer = memoryview(bytearray(READ_CHUNK))
        self._rng = rng or random.SystemRandom()
        self._messages: list[type[Message]] = []
        self._reactions: dict[type[Message], Reaction] = {}
        self._parts: list[Part] = []
        self._extra = experimental(self.config.experimental)
        self._assembly: Assembly | None = None
        self._discovery: Discovery | None = None
        self._listening: list[Address] = []
        self.capture: Capture | None = None
        self.covers: Covers | None = None  # what its web listeners show to strangers
        self._tcp = TcpProfile(self.config.tcp_profile, self._rng)
        self.routes = Routes(self.config, self.network, self.data_dir, self._rng, self._on_way)
        self._sockets: dict[LinkId, tcp.Socket] = {}
        self._outcomes: dict[LinkId, asyncio.Future[str]] = {}
        self._pongs: dict[LinkId, list[asyncio.Future[float]]] = {}
        self._drained: dict[LinkId, list[asyncio.Future[None]]] = {}
        self._resources = contextlib.AsyncExitStack()
        self._dials: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()  # someone asked it to stop; whoever runs it leaves its ``async with`` then
        self.fault: UserError | None = None  # why it stopped by itself, if it did
        self._archive: Archive | None = None
        self._idle = asyncio.Event()  # no links are left
        self._is_turn_planned = False
        self._is_due = False  # the timer went off
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._started = 0.0

    # --- Life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._started = self.now()
        async with contextlib.AsyncExitStack() as resources:
            resources.enter_context(self.data_dir.hold())
            resources.callback(self.events_out.close)
            self._archive = archive = await self._open_archive(resources)
            self.capture = capture = resources.enter_context(captured(self.config, self._started))
            settings, waiting = self._settings(), archive.waiting()
            self._assembly = assemble(
                settings,
                self._rng,
                lambda: int(time.time()),
                self._started,
                messages=self._messages,
                reactions=self._reactions,
                parts=(*self._parts, capture),
                chain=await asyncio.to_thread(archive.store.load_chain, self.network.ledger),
                waiting=waiting,
                outbox=FileOutbox(self.data_dir),
                dice=capture.dice,
            )
            capture.begin(self.config, settings, self._assembly, waiting)
            resources.callback(self._save)
            resources.push_async_callback(self._end_dials)
            self._discovery = self._discover(resources)
            resources.callback(self._end_turns)
            near = self._assembly.neighbours
            peers = PeerStore(self.data_dir.path / "peers.dat", near)
            await self._listen(resources)
            introduce(near, self.config, self.network, self._listening, self._started)
            resources.push_async_callback(self._close_links)
            if self.config.port_mapping == "auto":
                await resources.enter_async_context(mapped(self._listening, self.config.router, self))
            await resources.enter_async_context(peers.kept())  # left before the links are closed
            self._resources = resources.pop_all()
        self._plan_turn()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._resources.aclose()

    def register(
        self,
        message: type[Message],
        reaction: Reaction,
        *,
        feature: int = 0,
    ) -> None:
        """Add a message type and its reaction, and optionally a general feature bit (0x100 and up) that says so to peers.

        Before the node is entered. A reaction gets ``(peer, message, now)``, returns effects or None, and must not block.
        Raises ``ValueError`` for a type that exists, and for a bit that belongs to the specification.
        """
        if feature and (feature < 0x100 or feature.bit_count() != 1 or feature >> 32):
            raise ValueError("a feature is one bit from 0x100 up to 0x80000000")
        self._messages.append(message)
        self.react(message, reaction)
        self._extra = self._extra.with_(Flags(feature, 0))

    def react(self, message: type[Message], reaction: Reaction) -> None:
        """Set the reaction to a built-in message type that no part of this node reacts to. Before the node is entered."""
        if self._assembly is not None:
            raise UserError("reactions are registered before the node is entered")
        if message in self._reactions:
            raise ValueError(f"{message.TYPE} already has a reaction")
        self._reactions[message] = reaction

    # --- What the application asks ----------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where this node listens, with the channel key of each address."""
        return tuple(self._listening)

    @property
    def assembly(self) -> Assembly:
        """The pure node. Raises ``UserError`` before the node was entered."""
        if self._assembly is None:
            raise UserError("the node is not running: enter it with `async with`")
        return self._assembly

    @property
    def discovery(self) -> Discovery:
        """The finding of the first peers. Raises ``UserError`` before the node was entered."""
        if self._discovery is None:
            raise UserError("the node is not running: enter it with `async with`")
        return self._discovery

    @property
    def engine(self) -> Engine:
        """The pure node's links."""
        return self.assembly.engine

    def now(self) -> float:
        """The node's monotonic clock in seconds (a loop's own may count whole milliseconds only)."""
        return time.monotonic()

    def stop(self) -> None:
        """Ask for the end: ``stopped`` is set."""
        self.stopped.set()

    @property
    def uptime_s(self) -> float:
        """Seconds since the node was entered."""
        return self.now() - self._started

    def peers(self) -> list[Peer]:
        """All established links."""
        return list(self.assembly.core.peers.values())

    async def connect(self, address: Address | str) -> Peer:
        """Open a link and wait until it is established. Raises ``AddressError`` or ``Unreachable``. Cancelled, it is given up."""
        place = Address.parse(address) if isinstance(address, str) else address
        engine = self.engine
        link = engine.dial(place, self.now(), manual=True)
        outcome: asyncio.Future[str] = self._loop.create_future()
        self._outcomes[link] = outcome
        self._plan_turn()
        try:
            async with asyncio.timeout(self.routes.patience_s(place) + HANDSHAKE_S):
                why = await outcome
        except (TimeoutError, asyncio.CancelledError) as given_up:
            self.engine.disconnect(link, "given up", self.now())
            self._plan_turn()
            if isinstance(given_up, asyncio.CancelledError):
                raise
            why = "no answer in time"
        finally:
            self._outcomes.pop(link, None)
        peer = self.assembly.core.peers.get(link)
        if peer is None:
            name = f"{place.host}:{place.port}"
            raise Unreachable(why if why.startswith(name) else f"no link to {name}: {why}")
        return peer

    def disconnect(self, peer: Peer | LinkId, why: str = "as asked") -> None:
        """End a link cleanly. Raises ``UserError`` if there is none."""
        link = peer if isinstance(peer, int) else peer.link
        if not self.engine.disconnect(link, why, self.now()):
            raise UserError(f"there is no peer {link}: `obscura peers` lists them")
        self._plan_turn()

    async def ping(self, peer: Peer | LinkId, timeout_s: float = 20.0) -> float:
        """Round trip in seconds. Raises ``UserError`` without such a peer, ``Unreachable`` without an answer."""
        link = peer if isinstance(peer, int) else peer.link
        if link not in self.assembly.core.peers:
            raise UserError(f"there is no peer {link}: `obscura peers` lists them")
        pong: asyncio.Future[float] = self._loop.create_future()
        self._pongs.setdefault(link, []).append(pong)
        now = self.now()
        self.engine.apply(self.assembly.liveness.ask(link, now), now)
        self._plan_turn()
        try:
            async with asyncio.timeout(timeout_s):
                return await pong
        except TimeoutError:
            raise Unreachable(f"peer {link} did not answer within {timeout_s:.0f} s") from None

    def send(self, peer: Peer | LinkId, message: Message) -> None:
        """Queue a message. Raises ``UserError`` if the link is gone. ``drained`` tells when more is welcome."""
        link = peer if isinstance(peer, int) else peer.link
        if not self.engine.send(link, message, self.now()):
            raise UserError(f"there is no peer {link}: `obscura peers` lists them")
        self._plan_turn()

    async def drained(self, peer: Peer | LinkId) -> None:
        """Return once what waits for the peer has been handed to its socket (or the link is gone)."""
        link = peer if isinstance(peer, int) else peer.link
        if self.engine.waiting(link):
            room: asyncio.Future[None] = self._loop.create_future()
            self._drained.setdefault(link, []).append(room)
            self._plan_turn()
            await room

    def events(self, kinds: Collection[str] | None = None) -> Subscription:
        """What happens from now on, as dicts with a ``kind``; ends when the subscription is closed."""
        return self.events_out.subscribe(kinds)

    # --- The chain --------------------------------------------------------------------------------------------------

    @property
    def relay(self) -> ChainRelay:
        """The chain and mempool, and what goes on about them with peers. Raises ``UserError`` before the node was entered."""
        relay = self.assembly.relay
        assert relay is not None
        return relay

    @property
    def archive(self) -> Archive:
        """The node's store. Raises ``UserError`` before the node was entered."""
        if self._archive is None:
            raise UserError("the node is not running: enter it with `async with`")
        return self._archive

    async def submit_block(self, raw: bytes) -> bytes:
        """Take a block as if a peer had sent it; returns its id once it is on the disk. Raises ``UserError`` if it is refused."""
        effects, fault = self.relay.submit_block(raw, self.now())
        self.apply(effects)
        if fault is not None:
            raise UserError(f"the block is refused: {fault.reason}")
        await self.archive.written(self.relay.blocks.newest_token)
        ledger = self.network.ledger
        return ledger.block_id(raw[: ledger.header_bytes])

    def broadcast(
        self, transaction: bytes, policy: str | Policy = Policy.PRIVATE, deadline_s: float | None = None
    ) -> Following:
        """Send an own transaction; ``async for receipt in`` the result tells each step, ``.id`` is its id.

        ``policy``: private, anonymity-only, strict or direct (``obscura.node.broadcast``). ``deadline_s``: how long to wait for a
        successor (private), or to become public (anonymity-only, strict). It is on the disk when this returns and goes on
        whether or not anyone listens. Raises ``UserError`` for what is refused.
        """
        own = self.assembly.own_transactions
        assert own is not None
        id, effects = own.submit(transaction, Policy(policy), deadline_s, self.now())
        for effect in effects:  # at once, so that the caller can follow it
            if isinstance(effect, Receipt):
                self.receipts.add(effect)
        self.apply(effect for effect in effects if not isinstance(effect, Receipt))
        return Following(self.receipts, id)

    def apply(self, effects: Iterable[Effect]) -> None:
        """Carry out what a part returned to the application."""
        self.engine.apply(effects, self.now())
        self._plan_turn()

    # --- Owner of the archive (daemon.archive) ------------------------------------------------------------------------

    def archive_kept(self, token: int) -> None:
        self.engine.kept(token, self.now())
        self._plan_turn()

    def archive_fetched(self, token: int, raw: bytes | None) -> None:
        self.engine.fetched(token, raw, self.now())
        self._plan_turn()

    def archive_failed(self, fault: StoreError) -> None:
        log.error("the node stops: %s", fault)
        self.fault = fault
        self.stop()

    async def _open_archive(self, resources: contextlib.AsyncExitStack) -> Archive:
        prune = None if self.config.prune is None else parse_bytes(self.config.prune)
        store = await asyncio.to_thread(Store.open, self.data_dir.path, self.network.id, prune)
        archive = Archive(store, self.network.ledger, self._loop, self)
        resources.push_async_callback(archive.close)
        return archive

    def _save(self) -> None:
        """The last word to the archive before it is closed."""
        for effect in self.relay.transactions.save():
            if isinstance(effect, Keep):
                self.archive.keep(effect)

    # --- Owner of the sockets (transport.tcp) -----------------------------------------------------------------------

    def socket_up(self, link: tcp.Socket) -> None:
        now = self.now()
        engine = self.engine
        if isinstance(link.tag, Listener):
            is_direct = link.tag.face is Face.CLEARNET  # what others connect through is nobody to blame
            link.tag = engine.accepted(link.tag, link.remote if is_direct else None, now)
        elif link.tag not in engine.links:
            link.abort()  # given up while it was being dialled
            return
        else:
            engine.connected(link.tag, link.remote, now)
        self._sockets[link.tag] = link
        self._plan_turn()

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None:
        assert isinstance(link.tag, int)
        try:
            self.engine.receive(link.tag, data, self.now())
        except (
            Exception
        ) as fault:  # a defect of ours, or of an application's reaction: it costs this link, not the node
            _log_fault("a reaction, its link is ended", fault)
            link.abort()
        self._plan_turn()

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None:
        if isinstance(link.tag, int):
            self.engine.writable(link.tag, is_writable, self.now())
            self._plan_turn()

    def socket_down(self, link: tcp.Socket) -> None:
        if isinstance(link.tag, int):
            self.engine.eof(link.tag, self.now())
            self._plan_turn()

    # --- Turns of the loop ------------------------------------------------------------------------------------------

    def _plan_turn(self) -> None:
        if not self._is_turn_planned:
            self._is_turn_planned = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_planned = False
        if self._is_over:  # a socket's last word after the end
            return
        now = self.now()
        engine = self.engine
        earliest = 0.0
        if self._is_due:  # what became due since has a timer that is over; asking every part twice a turn would show
            self._is_due = False
            try:
                engine.due(now)
            except Exception as fault:  # the same: it must not make the node deaf, nor keep it busy with nothing else
                _log_fault("what was due", fault)
                earliest = now + 1.0
        for io in engine.drain(now):
            if type(io) is Write:
                socket = self._sockets.get(io.link)
                if socket is not None:
                    socket.write(io.pieces, resets=io.resets)
            elif isinstance(io, Notify):
                self._told(io)
            elif isinstance(io, Receipt):
                self.receipts.add(io)
            elif isinstance(io, Shut):
                socket = self._sockets.pop(io.link, None)
                if socket is not None:
                    socket.shut(lingers=io.lingers, resets=io.resets)
            elif isinstance(io, Reach):
                dial = self._loop.create_task(self._reach(io))
                self._dials.add(dial)
                dial.add_done_callback(self._dials.discard)
            elif isinstance(io, Hold):
                self._sockets[io.link].hold(io.held)
            elif isinstance(io, Keep):
                self.archive.keep(io)
            elif isinstance(io, Fetch):
                self.archive.fetch(io)
            elif isinstance(io, Lookup):
                self.discovery.start(io)
        self._release_drained(engine)
        if not engine.links:
            self._idle.set()
        self._arm(max(engine.deadline(), earliest))

    def _release_drained(self, engine: Engine) -> None:
        for link in [link for link in self._drained if not engine.waiting(link)]:
            for room in self._drained.pop(link):
                if not room.done():
                    room.set_result(None)

    def _arm(self, deadline: float) -> None:
        timer = self._timer
        if timer is not None and self._timer_at <= deadline:
            return
        self._disarm()
        if deadline != inf:
            self._timer_at = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - self.now()), self._on_timer)

    def _end_turns(self) -> None:
        """Nothing is done any more: the loop may live on, and must not find timers of this node."""
        self._is_over = True
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self._is_due = True
        self._turn()

    async def _reach(self, wanted: Reach) -> None:
        through = self.routes.through(face_of(wanted.address))
        missed = await tcp.dial(self, wanted.address, wanted.link, self._tcp.values(self._loop.time()), through)
        if missed is not None:
            failure = Failure.OFFLINE if missed.is_offline else Failure.UNREACHABLE
            self.engine.unreachable(wanted.link, missed.why, self.now(), failure)
            self._plan_turn()

    def _told(self, told: Notify) -> None:
        link = told.fields.get("peer")
        if isinstance(link, int):
            self._settle(told, link)
        self.events_out.publish({"kind": told.kind, **told.fields})

    def _settle(self, told: Notify, link: LinkId) -> None:
        if told.kind in ("peer-connected", "dial-failed"):
            outcome = self._outcomes.get(link)
            if outcome is not None and not outcome.done():
                outcome.set_result(str(told.fields.get("why", "")))
        elif told.kind == "pong":
            for pong in self._pongs.pop(link, []):
                if not pong.done():
                    pong.set_result(float(told.fields["rtt_ms"]) / 1000)
        elif told.kind == "peer-disconnected":
            for pong in self._pongs.pop(link, []):
                if not pong.done():
                    pong.set_exception(Unreachable(f"peer {link} is gone: {told.fields['reason']}"))

    # --- Starting and stopping --------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        config = self.config
        required = named((*config.required_features, *config.required_privacy_features))
        return Settings(
            network_id=self.network.id,
            is_dev=self.network.name == "dev",
            knobs=config.knobs,
            required=required,
            extra=self._extra,
            manual=tuple(Address.parse(text) for text in config.connect),
            max_inbound=config.max_inbound,
            admission=config.admission,
            **neighbour_settings(config, self.network),
            seeds=config.seeds,
            seed_source=seed_source(self.network),
            seed_sequences=read_sequences(self.data_dir),
        )

    def _discover(self, resources: contextlib.AsyncExitStack) -> Discovery:
        seeds = self.assembly.neighbours.seeds
        assert seeds is not None
        keep = functools.partial(keep_sequences, self.data_dir)
        discovery = Discovery(seeds, self._rng, self.now, self.apply, keep, self.routes.for_lookups)
        resources.push_async_callback(discovery.end)
        return discovery

    async def _listen(self, resources: contextlib.AsyncExitStack) -> None:
        keys = KeyStore(self.data_dir.keys, self._rng)
        self.covers = covers = Covers(self.config.cover, self.data_dir.keys, self.network.id)
        values = self._tcp.values(self._loop.time())
        self._listening += await open_listeners(self, self.config, self.network, keys, covers, values, resources)
        resources.push_async_callback(self.routes.end)
        await self.routes.start(self, keys, values, resources)

    def _on_way(self, kind: str, fields: Mapping[str, Any], own: Address | None) -> None:
        """News of tor or of I2P; ``own`` is how this node can be reached from now on."""
        if own is not None and own not in self._listening:
            near = self.assembly.neighbours
            self._listening.append(own)
            near.own.add_external(own)
            self.apply(near.gossip.announce_all(self.now(), face_of(own)))
        self.events_out.publish({"kind": kind, **fields})

    async def _close_links(self) -> None:
        engine = self.engine
        self._idle.clear()
        engine.stop(self.now())
        self._turn()
        if engine.links:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._idle.wait()
        for socket in list(self._sockets.values()):
            socket.abort()

    async def _end_dials(self) -> None:
        dials = list(self._dials)
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
