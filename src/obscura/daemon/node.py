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
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Self

from obscura.daemon.archive import Archive, opened
from obscura.daemon.awaited import Awaited
from obscura.daemon.capture import Capture, captured
from obscura.daemon.config import Config, parse_bytes
from obscura.daemon.covers import Covers
from obscura.daemon.datadir import DataDir
from obscura.daemon.discovery import Discovery, keep_sequences
from obscura.daemon.events import Broadcast, Subscription
from obscura.daemon.keys import KeyStore
from obscura.daemon.listening import open_listeners
from obscura.daemon.logs import log_fault
from obscura.daemon.mapping import mapped
from obscura.daemon.neighbours import introduce
from obscura.daemon.outbox import FileOutbox, Following, Receipts
from obscura.daemon.peerstore import PeerStore
from obscura.daemon.routes import Routes
from obscura.daemon.settings import settings_of
from obscura.daemon.sockets import Sockets
from obscura.daemon.turns import Turns
from obscura.errors import Unreachable, UserError
from obscura.handshake.features import Flags, experimental
from obscura.ledger.network import Network
from obscura.ledger.networks import load_network
from obscura.limits import HANDSHAKE_S, STOP_S
from obscura.node.assembly import Assembly, Settings, assemble
from obscura.node.broadcast import Policy, Receipt
from obscura.node.core import Part, Reaction, plain
from obscura.node.dialable import face_of
from obscura.node.effects import Effect, Fetch, Keep, LinkId, Lookup, Notify
from obscura.node.engine import Engine
from obscura.node.io import Faulted, Hold, Reach, Shut, Write
from obscura.node.peer import Peer
from obscura.node.relay import ChainRelay
from obscura.store.faults import StoreError
from obscura.store.sqlite import Store
from obscura.transport.profile import TcpProfile
from obscura.wire.address import Address
from obscura.wire.catalogue import CATALOGUE, OPENING_ONLY, Catalogue
from obscura.wire.message import Message

log = logging.getLogger(__name__)


class Node:
    """A node of the network, embedded in a program or run by ``obscura run``.

    ::

        async with Node(Config(network="dev", data_dir=path)) as node:
            peer = await node.connect("obscura://KEY@127.0.0.1:19733")
            print(await node.ping(peer))

    Several nodes in one process are fine. All methods belong to the event loop that entered the node. A node is entered once.
    """

    def __init__(
        self, config: Config | None = None, *, network: Network | None = None, rng: random.Random | None = None
    ) -> None:
        """``network``: an own chain, not the one that ``config`` names. ``rng`` None = the system's; others are for tests."""
        self.config = config or Config()
        self.network = network or load_network(self.config.network)
        self._network_name = self.config.network if network is None else network.name
        self.data_dir = DataDir(self.config.data_dir, self.network.name)
        self.events_out, self.receipts = Broadcast(), Receipts()
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
        self._awaited = Awaited()
        self._resources: contextlib.AsyncExitStack | None = None  # from its being entered on
        self.stopped = asyncio.Event()  # someone asked it to stop; whoever runs it leaves its ``async with`` then
        self.fault: UserError | None = None  # why it stopped by itself, if it did
        self._has_failed = False  # what the core knows is not to be relied on
        self._archive: Archive | None = None
        self._idle, self._started = asyncio.Event(), 0.0  # no links are left; since when it runs

    # --- Life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._resources is not None:  # before anything of the node that runs is replaced
            raise UserError("a node is entered once: make another one, as Node(config), for another run")
        self._turns = Turns(self.now, self._after_turn, self._fail)
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
            capture.begin(self._network_name, settings, self._assembly, waiting)
            resources.callback(self._save)
            sockets = Sockets(self._assembly.engine, self.routes, self._tcp, self.now, self._turns.plan, self._fail)
            self._sockets = sockets
            resources.push_async_callback(sockets.end_dials)
            self._discovery = self._discover(resources)
            self._turns.serve(self._assembly.engine, self._ways_out())
            resources.callback(self._turns.end)
            near = self._assembly.neighbours
            peers = PeerStore(self.data_dir.path / "peers.dat", near)
            await self._listen(resources)
            resources.push_async_callback(self._close_links)
            await resources.enter_async_context(peers.kept())  # left before the links are closed
            introduce(near, self.config, self.network, self._listening, self._started)  # seeds: into what the disk had
            if self.config.port_mapping == "auto":
                await resources.enter_async_context(mapped(self._listening, self.config.router, self))
            self._resources = resources.pop_all()
        self._turns.plan()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.receipts.close()
        if self._resources is not None:
            await self._resources.aclose()

    def register(self, message: type[Message], reaction: Reaction, *, feature: int = 0) -> None:
        """Add a message type and its reaction, and optionally a general feature bit (0x100 and up) that says so to peers.

        Before the node is entered. A reaction gets ``(peer, message, now)``, returns effects or None, and must not block.
        Raises ``ValueError`` for a type or reaction that cannot be, one that exists, and a bit that belongs to the specification.
        """
        if feature and (feature < 0x100 or feature.bit_count() != 1 or feature >> 32):
            raise ValueError("a feature is one bit from 0x100 up to 0x80000000")
        if self._assembly is not None:
            raise UserError("reactions are registered before the node is entered")
        functools.reduce(Catalogue.with_message, (*self._messages, message), CATALOGUE)  # raises
        self._reactions[message] = plain(reaction)
        self._messages.append(message)
        self._extra = self._extra.with_(Flags(feature, 0))

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
        link = self.engine.dial(place, self.now(), manual=True)
        self._turns.plan()
        with self._awaited.outcome(link) as outcome:
            try:
                async with asyncio.timeout(self.routes.patience_s(place) + HANDSHAKE_S):
                    why = await outcome
            except (TimeoutError, asyncio.CancelledError) as given_up:
                self.engine.disconnect(link, "given up", self.now())
                self._turns.plan()
                if isinstance(given_up, asyncio.CancelledError):
                    raise
                why = "no answer in time"
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
        self._turns.plan()

    async def ping(self, peer: Peer | LinkId, timeout_s: float = 20.0) -> float:
        """Round trip in seconds. Raises ``UserError`` without such a peer, ``Unreachable`` without an answer."""
        link = peer if isinstance(peer, int) else peer.link
        if link not in self.assembly.core.peers:
            raise UserError(f"there is no peer {link}: `obscura peers` lists them")
        pong, now = self._awaited.pong(link), self.now()
        self.engine.apply(self.assembly.liveness.ask(link, now), now)
        self._turns.plan()
        try:
            async with asyncio.timeout(timeout_s):
                return await pong
        except TimeoutError:
            raise Unreachable(f"peer {link} did not answer within {timeout_s:.0f} s") from None

    def send(self, peer: Peer | LinkId, message: Message) -> None:
        """Queue a message. ``UserError``: over ``MAX_SIZE``, of the handshake, or the link gone. ``drained``: more is welcome."""
        if type(message) in OPENING_ONLY:
            raise UserError(f"{message.TYPE} belongs to the handshake: a peer ends the link that brings one later")
        if len(message.encode()) > message.MAX_SIZE:
            raise UserError(f"a message of type {message.TYPE} has {message.MAX_SIZE} bytes at most")
        link = peer if isinstance(peer, int) else peer.link
        if not self.engine.send(link, message, self.now()):
            raise UserError(f"there is no peer {link}: `obscura peers` lists them")
        self._turns.plan()

    async def drained(self, peer: Peer | LinkId) -> None:
        """Return once what waits for the peer has been handed to its socket (or the link is gone)."""
        link = peer if isinstance(peer, int) else peer.link
        if self.engine.waiting(link):
            room = self._awaited.room(link)
            self._turns.plan()
            await room

    def events(self, kinds: Collection[str] | None = None) -> Subscription:
        """What happens from now on, as dicts with a ``kind``; ends when the subscription is closed, or the node is left.

        Of ``kinds`` alone, if given. They may be an application's own (``Notify``), so one that nobody knows is no error.
        """
        subscription = self.events_out.subscribe(kinds)
        if self._resources is not None and self._turns.is_over:
            subscription.close()
        return subscription

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
        relay = self.relay
        self._turns.check()
        effects, fault = relay.submit_block(raw, self.now())
        self.apply(effects)
        if fault is not None:
            raise UserError(f"the block is refused: {fault.reason}")
        await self.archive.written(self.relay.blocks.newest_token)
        return self.network.ledger.block_id(raw[: self.network.ledger.header_bytes])

    def broadcast(
        self, transaction: bytes, policy: str | Policy = Policy.PRIVATE, deadline_s: float | None = None
    ) -> Following:
        """Send an own transaction; ``async for receipt in`` the result tells each step, ``.id`` is its id.

        ``policy``: private, anonymity-only, strict or direct (``obscura.node.broadcast``). ``deadline_s``: how long to wait for a
        successor (private), or to become public (anonymity-only, strict). It is on the disk when this returns and goes on
        whether or not anyone listens. Raises ``UserError`` for what is refused, and in ``async for`` if the node stops first.
        """
        own = self.assembly.own_transactions
        assert own is not None
        self._turns.check()
        id, effects = own.submit(transaction, Policy.of(policy), deadline_s, self.now())
        self.apply(self.receipts.taken(effects))  # at once, so that the caller can follow it
        return Following(self.receipts, id)

    def apply(self, effects: Iterable[Effect]) -> None:
        """Carry out what a part returned to the application."""
        self.engine.apply(effects, self.now())
        self._turns.plan()

    # --- Owner of the archive (daemon.archive) ------------------------------------------------------------------------

    def archive_kept(self, token: int) -> None:
        self._answered(self.engine.kept, token)

    def archive_fetched(self, token: int, raw: bytes | None) -> None:
        self._answered(self.engine.fetched, token, raw)

    def _answered(self, take: Callable[..., None], *answer: object) -> None:
        try:
            take(*answer, self.now())
        except Exception as fault:
            self._fail(fault)
        self._turns.plan()

    def archive_failed(self, fault: StoreError) -> None:
        log.error("the node stops: %s", fault)
        self.fault = fault
        self.stop()

    async def _open_archive(self, resources: contextlib.AsyncExitStack) -> Archive:
        prune = None if self.config.prune is None else parse_bytes(self.config.prune)
        store = await opened(functools.partial(Store.open, self.data_dir.path, self.network.id, prune, repair=True))
        archive = Archive(store, self.network.ledger, asyncio.get_running_loop(), self)
        resources.push_async_callback(archive.close)
        return archive

    def _save(self) -> None:
        """The last word to the archive before it is closed."""
        for effect in () if self._has_failed else self.relay.transactions.save():
            if isinstance(effect, Keep):
                self.archive.keep(effect)

    # --- Turns of the loop ------------------------------------------------------------------------------------------

    def _after_turn(self) -> None:
        self._awaited.release(self.engine)
        if not self.engine.links:
            self._idle.set()

    def _ways_out(self) -> dict[type, Callable[[Any], object]]:
        """Who carries out what the engine wants."""
        sockets, archive = self._sockets, self.archive
        return {
            Write: sockets.write,
            Shut: sockets.shut,
            Reach: sockets.dial,
            Hold: sockets.hold,
            Faulted: sockets.faulted,
            Notify: self._told,
            Receipt: self.receipts.add,
            Keep: archive.keep,
            Fetch: archive.fetch,
            Lookup: self.discovery.start,
        }

    def _fail(self, fault: Exception) -> None:
        """The core failed, and what it knows may be half of a change: it does nothing more, and the node ends."""
        if self._turns.is_over:
            return
        log_fault(log, "the core, the node stops", fault)
        why = f"the node stopped by a defect of its own ({type(fault).__name__})"
        self.fault = self.fault or UserError(f"{why}: its log says where, which is what to report; then start it again")
        self._has_failed = self.engine.is_stopping = True
        self._turns.end()
        self._sockets.abort()
        self._awaited.end(why)
        self.receipts.close()
        self.stop()

    def _told(self, told: Notify) -> None:
        self._awaited.told(told)
        self.routes.told(told)
        self.events_out.publish({"kind": told.kind, **told.fields})

    # --- Starting and stopping --------------------------------------------------------------------------------------

    def _settings(self) -> Settings:
        return settings_of(self.config, self.network, self.data_dir, self._extra)

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
        values = self._tcp.values(asyncio.get_running_loop().time())
        self._listening += await open_listeners(
            self._sockets, self.config, self.network, keys, covers, values, resources
        )
        resources.push_async_callback(self.routes.end)
        await self.routes.start(self._sockets, keys, values, resources)

    def _on_way(self, kind: str, fields: Mapping[str, Any], own: Address | None) -> None:
        """News of tor or of I2P; ``own`` is how this node can be reached from now on."""
        if own is not None and own not in self._listening:
            near = self.assembly.neighbours
            self._listening.append(own)
            near.own.add_external(own)
            self.apply(near.gossip.announce_all(self.now(), face_of(own)))
        self.events_out.publish({"kind": kind, **fields})

    async def _close_links(self) -> None:
        self._idle.clear()
        if not self._turns.is_over:
            try:
                self.engine.stop(self.now())
            except Exception as fault:
                self._fail(fault)
            self._turns.turn()
        if self.engine.links and not self._turns.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._idle.wait()
        self._sockets.abort()
