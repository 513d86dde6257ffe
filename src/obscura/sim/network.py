"""The second interpreter of the core: whole nodes in one process, with links of given latency and virtual time.

It runs the shipped engine, connection and core: each node gets the same bytes, deadlines and chances as a daemon would,
and does with ``drain`` what the daemon does. Nothing here decides anything.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from math import inf

from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.limits import CONNECT_S, STALL_LOOK_S, WRITE_BUFFER
from obscura.node.assembly import Assembly, Settings, assemble
from obscura.node.broadcast import Receipt
from obscura.node.core import Part, Reaction
from obscura.node.effects import Effect, Fetch, Keep, LinkId, Notify
from obscura.node.io import Faulted, Hold, Listener, Reach, Shut, Write
from obscura.node.peer import Face, Peer
from obscura.sim.archive import MemoryArchive
from obscura.sim.kernel import Kernel
from obscura.wire.address import Address, Endpoint, Network
from obscura.wire.message import Message

Latency = Callable[[int, int], float]  # seconds one way, by the numbers of both nodes
Tamper = Callable[[int, int, LinkId, bytes], bytes]  # sender, receiver, the sender's link, what it wrote: what arrives
Weather = Callable[[int, int], float]  # seconds by which what leaves now between two is late; TCP loses nothing
UNIX_AT_START = 1_800_000_000  # unix seconds at virtual time 0: any constant, so that runs repeat
PORT = 19733
FIRST_HOST = int(IPv4Address("127.1.0.1"))  # loopback, since that is where carrier plain may run


PIECE = 1_460  # bytes that a narrow line carries at once: what a packet holds


class Line:
    """Something narrow that wires share: ``rate`` bytes per second, a piece of each wire in turn."""

    def __init__(self, kernel: Kernel, rate: float) -> None:
        self._kernel = kernel
        self._rate = rate
        self._waiting: dict[_Wire, deque[bytes | None]] = {}  # whose turn it is first
        self._is_busy = False

    def put(self, wire: _Wire, data: bytes | None) -> None:
        """Send this, and let it arrive in the wire's own time from then on."""
        queue = self._waiting.setdefault(wire, deque())
        queue += [None] if data is None else [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        wire.backlog += 0 if data is None else len(data)
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        self._is_busy = bool(self._waiting)
        if not self._waiting:
            return
        wire = next(iter(self._waiting))
        queue = self._waiting.pop(wire)
        piece = queue.popleft()
        if queue:
            self._waiting[wire] = queue
        size = 0 if piece is None else len(piece)

        def sent() -> None:
            wire.backlog -= size
            wire.deliver(piece)
            self._next()

        self._kernel.at(self._kernel.now + size / self._rate, sent)


class _Wire:
    """One end of one simulated TCP connection: in order, nothing lost, delivered ``latency`` later."""

    __slots__ = (
        "backlog",
        "deliver",
        "far",
        "far_link",
        "held",
        "is_full",
        "last_arrival",
        "latency",
        "line",
        "pending",
    )

    def __init__(self, far: SimNode, far_link: LinkId, latency: float) -> None:
        self.far = far
        self.far_link = far_link
        self.latency = latency
        self.line: Line | None = None  # that this end sends through
        self.backlog = 0  # bytes written and not through it yet
        self.is_full = False
        self.deliver: Callable[[bytes | None], None] = lambda data: None
        self.last_arrival = 0.0
        self.held = False  # this end does not read
        self.pending: list[bytes | None] = []  # what arrived here meanwhile; None = end of stream


class SimNode:
    """One node: the shipped engine over simulated wires."""

    def __init__(
        self,
        network: SimNetwork,
        number: int,
        settings: Settings,
        archive: MemoryArchive | None = None,
        **additions: object,
    ) -> None:
        self.network = network
        self.number = number
        seed = f"{network.kernel.seed} {number}"
        static = StaticKey.generate(random.Random(f"obscura node key {seed}"))
        # A node that was started again has its old key, but not its old chances: else it would repeat its ephemeral keys.
        self.rng = random.Random(f"obscura node {seed} {network.starts(number)}")
        self.address = Address(static.public, str(IPv4Address(FIRST_HOST + number)), PORT)
        self.listener = Listener(self.address, Face.CLEARNET, static, True, ReplayCache())
        self.told: list[Notify] = []
        self.receipts: list[Receipt] = []
        self.clock_error_s = 0.0  # of the clock that people set; the one that measures spans is right
        self.archive = archive
        self.is_running = True
        self._wires: dict[LinkId, _Wire] = {}
        self._timer = inf
        kernel = network.kernel
        self.assembly: Assembly = assemble(
            settings,
            self.rng,
            lambda: UNIX_AT_START + int(kernel.now + self.clock_error_s),
            kernel.now,
            chain=archive.load_chain() if archive is not None else None,
            waiting=tuple(archive.transactions.values()) if archive is not None else (),
            outbox=archive.outbox if archive is not None else None,
            **additions,  # type: ignore[arg-type]  # messages, reactions, parts as assemble takes them
        )
        self._turn()

    @property
    def peers(self) -> list[Peer]:
        """Established links."""
        return list(self.assembly.core.peers.values())

    def connect(self, address: Address) -> LinkId:
        """Dial. Raises ``AddressError``."""
        link = self.assembly.engine.dial(address, self.network.kernel.now, manual=True)
        self._turn()
        return link

    def send(self, link: LinkId, message: Message) -> None:
        """Queue a message on an established link."""
        self.assembly.engine.send(link, message, self.network.kernel.now)
        self._turn()

    def disconnect(self, link: LinkId) -> None:
        """End a link cleanly."""
        self.assembly.engine.disconnect(link, "as asked", self.network.kernel.now)
        self._turn()

    # --- What wires and clock bring -----------------------------------------------------------------------------------

    def arrive(self, link: LinkId, data: bytes | None) -> None:
        """Bytes of a wire, or None at its end."""
        if not self.is_running:
            return
        wire = self._wires.get(link)
        if wire is not None and wire.held:
            wire.pending.append(data)
            return
        kernel = self.network.kernel
        if data is None:
            kernel.note(self.number, link, "eof")
            self.assembly.engine.eof(link, kernel.now)
        else:
            kernel.note(self.number, link, "bytes", data)
            self.assembly.engine.receive(link, data, kernel.now)
        self._turn()

    def plug(self, link: LinkId, wire: _Wire) -> None:
        """Give a link its wire."""
        self._wires[link] = wire
        wire.line = self.network.line(self.number, wire.far.number)
        wire.deliver = lambda data: self._deliver(link, wire, data)

    def turn(self) -> None:
        """Carry out what the engine wants."""
        self._turn()

    def _turn(self) -> None:
        kernel, engine = self.network.kernel, self.assembly.engine
        if engine.deadline() <= kernel.now:
            engine.due(kernel.now)
        for io in engine.drain(kernel.now):
            if type(io) is Write:
                self._write(io.link, b"".join(io.pieces))
            elif isinstance(io, Notify):
                self.told.append(io)
                kernel.note(self.number, 0, io.kind)
            elif isinstance(io, Receipt):
                self.receipts.append(io)
            elif isinstance(io, Shut):
                self._write(io.link, None)
                self._wires.pop(io.link, None)
            elif isinstance(io, Reach):
                self.network.reach(self, io)
            elif isinstance(io, Hold):
                self._hold(io)
            elif isinstance(io, Keep):
                self._keep(io)
            elif isinstance(io, Fetch):
                self._fetch(io)
            elif isinstance(io, Faulted):
                raise io.fault  # a simulation is there to find defects, not to live with them
        self._arm(engine.deadline())
        if self.network.after_turn is not None:
            self.network.after_turn(self)

    def _write(self, link: LinkId, data: bytes | None) -> None:
        wire = self._wires.get(link)
        if wire is not None:
            far, tamper = wire.far, self.network.tamper
            if data is not None and tamper is not None:
                data = tamper(self.number, far.number, link, data)
            if wire.line is None:
                wire.deliver(data)
                return
            wire.line.put(wire, data)
            if wire.backlog > WRITE_BUFFER and not wire.is_full:
                wire.is_full = True
                self._fill(link, wire)

    def _fill(self, link: LinkId, wire: _Wire) -> None:
        """The line has taken enough, and goes on taking some: as a socket does, the wire says so again and again."""
        kernel = self.network.kernel
        self.assembly.engine.writable(link, False, kernel.now)
        kernel.at(kernel.now + STALL_LOOK_S, lambda: self._fill(link, wire) if wire.is_full else None)

    def _deliver(self, link: LinkId, wire: _Wire, data: bytes | None) -> None:
        kernel, far, far_link = self.network.kernel, wire.far, wire.far_link
        late = self.network.weather(self.number, far.number)
        wire.last_arrival = max(wire.last_arrival, kernel.now + wire.latency + late)
        kernel.at(wire.last_arrival, lambda: far.arrive(far_link, data))
        if wire.is_full and wire.backlog <= WRITE_BUFFER // 4:
            wire.is_full = False
            if self.is_running:
                self.assembly.engine.writable(link, True, kernel.now)
                self._turn()

    def _hold(self, io: Hold) -> None:
        wire = self._wires[io.link]
        wire.held = io.held
        if not io.held:
            pending, wire.pending = wire.pending, []
            for data in pending:
                self.arrive(io.link, data)

    def _keep(self, io: Keep) -> None:
        assert self.archive is not None
        self.archive.keep(io, self._later, self._kept)

    def _kept(self, token: int) -> None:
        self.assembly.engine.kept(token, self.network.kernel.now)
        self._turn()

    def _fetch(self, io: Fetch) -> None:
        assert self.archive is not None
        self.archive.fetch(io, self._later, self._fetched)

    def _fetched(self, token: int, raw: bytes | None) -> None:
        self.assembly.engine.fetched(token, raw, self.network.kernel.now)
        self._turn()

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Unless the node has crashed by then."""
        self.network.kernel.at(self.network.kernel.now + delay_s, lambda: act() if self.is_running else None)

    def cut(self, link: LinkId) -> None:
        """The connection breaks, at both ends at once."""
        wire = self._wires.pop(link, None)
        if wire is not None:
            wire.far._wires.pop(wire.far_link, None)
            wire.far.arrive(wire.far_link, None)
            self.arrive(link, None)

    @property
    def neighbours(self) -> dict[LinkId, int]:
        """Numbers of the nodes at the far ends of all connections."""
        return {link: wire.far.number for link, wire in self._wires.items()}

    def far_end(self, link: LinkId) -> tuple[SimNode, LinkId] | None:
        """Who is at the other end of a connection, and the link's number there; None if it is gone."""
        wire = self._wires.get(link)
        return None if wire is None else (wire.far, wire.far_link)

    def apply(self, effects: Iterable[Effect]) -> None:
        """Carry out what the application got from a part."""
        self.assembly.engine.apply(effects, self.network.kernel.now)
        self._turn()

    def crash(self) -> None:
        """End at once: what is not in the archive is gone, the other ends see the end of their streams."""
        self.is_running = False
        for link in list(self._wires):
            self._write(link, None)
        self._wires.clear()

    def _arm(self, deadline: float) -> None:
        if deadline < self._timer:
            self._timer = deadline
            self.network.kernel.at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        if self.network.kernel.now < self._timer:
            return  # an earlier time was set since, and has been
        self._timer = inf
        if self.is_running:
            self._turn()


class SimNetwork:
    """Nodes by number, and the latency between any two."""

    def __init__(self, kernel: Kernel, latency: Latency = lambda a, b: 0.05) -> None:
        self.kernel = kernel
        self.latency = latency
        self.tamper: Tamper | None = None  # somebody in between
        self.weather: Weather = lambda a, b: 0.0
        self.line: Callable[[int, int], Line | None] = lambda a, b: None  # None = as wide as anybody wants
        self.after_turn: Callable[[SimNode], None] | None = None  # who watches every step
        self.nodes: list[SimNode] = []
        self._starts: dict[int, int] = {}
        self._by_endpoint: dict[Endpoint, SimNode] = {}

    def add(
        self,
        settings: Settings,
        *,
        messages: Sequence[type[Message]] = (),
        reactions: Mapping[type[Message], Reaction] | None = None,
        parts: Sequence[Part] = (),
        archive: MemoryArchive | None = None,
    ) -> SimNode:
        """One more node, listening at its own address."""
        number = len(self.nodes)
        node = SimNode(self, number, settings, archive, messages=messages, reactions=reactions, parts=parts)
        self.nodes.append(node)
        self._by_endpoint[Endpoint(Network.IPV4, IPv4Address(FIRST_HOST + number).packed, PORT)] = node
        return node

    def restart(
        self,
        crashed: SimNode,
        settings: Settings,
        *,
        messages: Sequence[type[Message]] = (),
        reactions: Mapping[type[Message], Reaction] | None = None,
        parts: Sequence[Part] = (),
    ) -> SimNode:
        """A new process where one has crashed: the same number, address, key and archive, and nothing else of it."""
        number = crashed.number
        node = SimNode(self, number, settings, crashed.archive, messages=messages, reactions=reactions, parts=parts)
        self.nodes[number] = node
        self._by_endpoint[Endpoint(Network.IPV4, IPv4Address(FIRST_HOST + number).packed, PORT)] = node
        return node

    def starts(self, number: int) -> int:
        """How often the node of this number has been started, this time included."""
        self._starts[number] = self._starts.get(number, 0) + 1
        return self._starts[number]

    def reach(self, dialler: SimNode, wanted: Reach) -> None:
        """One round trip later the connection stands, or it is known that nobody listens."""
        endpoint = wanted.address.endpoint
        listening = self._by_endpoint.get(endpoint) if endpoint is not None else None
        kernel = self.kernel
        if endpoint is None or listening is None or not listening.is_running:
            kernel.at(kernel.now + 0.1, lambda: self._refuse(dialler, wanted))
            return
        one_way = self.latency(dialler.number, listening.number)
        late = self.weather(dialler.number, listening.number)
        if late >= CONNECT_S:
            kernel.at(kernel.now + CONNECT_S, lambda: self._refuse(dialler, wanted))
            return
        kernel.at(kernel.now + one_way + late, lambda: self._accept(dialler, listening, wanted, endpoint, one_way))

    def _refuse(self, dialler: SimNode, wanted: Reach) -> None:
        if dialler.is_running:
            dialler.assembly.engine.unreachable(wanted.link, "nothing listens there", self.kernel.now)
            dialler.turn()

    def _accept(self, dialler: SimNode, listening: SimNode, wanted: Reach, endpoint: Endpoint, one_way: float) -> None:
        kernel = self.kernel
        if not listening.is_running or not dialler.is_running:
            self._refuse(dialler, wanted)
            return
        source = Endpoint(Network.IPV4, IPv4Address(FIRST_HOST + dialler.number).packed, 40_000 + wanted.link % 20_000)
        link = listening.assembly.engine.accepted(listening.listener, source, kernel.now)
        listening.plug(link, _Wire(dialler, wanted.link, one_way))
        listening.turn()

        def connected() -> None:
            if not dialler.is_running or wanted.link not in dialler.assembly.engine.links:
                listening.arrive(link, None)  # given up meanwhile
                return
            dialler.plug(wanted.link, _Wire(listening, link, one_way))
            dialler.assembly.engine.connected(wanted.link, endpoint, kernel.now)
            dialler.turn()

        kernel.at(kernel.now + one_way, connected)
