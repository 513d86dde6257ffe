"""Shared pieces of the tests of handshake, connection and engine: offers, example messages, two ends of a link."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.connection import Bare, Connection, Dialling, Ended, Event, Listening
from obscura.handshake.features import BUILT, BUILT_BARE, CORE, CORE_BARE, Flags
from obscura.handshake.machine import Offer
from obscura.morph.plain import Plain
from obscura.node.assembly import Assembly, Settings, assemble
from obscura.node.effects import LinkId, Notify
from obscura.node.face import Face
from obscura.node.io import Faulted, Hold, Io, Listener, Reach, Shut, Write
from obscura.shaping.levels import Knobs, padneg
from obscura.wire.address import Address, CarrierNumber, Endpoint
from obscura.wire.catalogue import BUILT_IN, CATALOGUE, Catalogue
from obscura.wire.message import Message
from obscura.wire.messages.blocks import SendCmpct
from obscura.wire.messages.network import Extension, Verack, Version
from obscura.wire.messages.privacy import PadNeg

UNIX = 1_800_000_000
NETWORK_ID = bytes(range(32))
QUIET = Knobs(dummy_ms=(0, 0), chaff_ms=(0, 0), jitter_ms=(0, 0), burst=(0, 0), burst_hold_ms=(0, 0))  # leaves at once
OWN_PADNEG: PadNeg = padneg(QUIET)
VECTORS = Path(__file__).parent / "vectors" / "wire"


def _example(kind: type[Message]) -> Message:
    """The first valid message of the type's vector file."""
    vectors = json.loads((VECTORS / f"{kind.TYPE}.json").read_text())
    return kind.decode(bytes.fromhex(vectors["valid"][0]["payload"]))


def version(
    *,
    flags: Flags = BUILT,
    protocol_version: int = 1,
    timestamp: int = UNIX,
    user_agent: str = "Obscura/1.0.0",
    nonce: int = 7,
    extensions: tuple[Extension, ...] = (),
) -> Version:
    """A HandshakeMessage that is fine but for what is said."""
    hash_, height = bytes(32), 0
    words = (flags.features, flags.privacy)
    return Version(protocol_version, timestamp, *words, user_agent, hash_, height, nonce, extensions)


def offer(
    *,
    flags: Flags | None = None,
    demanded: Flags | None = None,
    bare: bool = False,
    compact: SendCmpct | None = None,
    nonce: int = 7,
) -> Offer:
    """What one side says and demands."""
    said = (BUILT_BARE if bare else BUILT) if flags is None else flags
    wanted = (CORE_BARE if bare else CORE) if demanded is None else demanded
    return Offer(version(flags=said, nonce=nonce), None if bare else OWN_PADNEG, wanted, compact)


EXAMPLES: dict[type[Message], Message] = {
    **{kind: _example(kind) for kind in BUILT_IN},
    Version: version(),
    PadNeg: OWN_PADNEG,
    Verack: Verack(),
}

SERVER_KEY = StaticKey.generate(random.Random("server"))
Security = str  # "nk", "nx" or "bare"
SECURITIES: tuple[Security, ...] = ("nk", "nx", "bare")


def client(
    security: Security = "nk",
    *,
    seed: int = 1,
    now: float = 0.0,
    catalogue: Catalogue = CATALOGUE,
    responder_key: bytes | None = None,
    said: Offer | None = None,
) -> Connection:
    """The dialling end, not started."""
    rng = random.Random(f"client {seed}")
    key = (responder_key or SERVER_KEY.public) if security == "nk" else None
    channel = Bare() if security == "bare" else Dialling(NETWORK_ID, 1, key)
    own = said or offer(bare=security == "bare", nonce=1)
    return Connection(Plain(rng, client=True), channel, own, catalogue, rng, lambda: UNIX, initiator=True, now=now)


def server(
    security: Security = "nk",
    *,
    seed: int = 1,
    now: float = 0.0,
    catalogue: Catalogue = CATALOGUE,
    strangers: bool = True,
    may_try: Callable[[], bool] = lambda: True,
    replay: ReplayCache | None = None,
    said: Offer | None = None,
) -> Connection:
    """The listening end, not started."""
    rng = random.Random(f"server {seed}")
    channel: Listening | Bare = Bare()
    if security != "bare":
        channel = Listening(NETWORK_ID, 1, SERVER_KEY, strangers, replay or ReplayCache(), may_try)
    own = said or offer(bare=security == "bare", nonce=2)
    return Connection(Plain(rng, client=False), channel, own, catalogue, rng, lambda: UNIX, initiator=False, now=now)


class Ends:
    """Both ends of one link and what each said happened. ``to_server`` and ``to_client`` are all bytes, in order."""

    def __init__(self, dialling: Connection, listening: Connection) -> None:
        self.client = dialling
        self.server = listening
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []

    def start(self, now: float = 0.0) -> Ends:
        """Connect, and let both talk until nothing moves."""
        self.client_events += self.client.start(now)
        self.server_events += self.server.start(now)
        return self.pump(now)

    def pump(self, now: float = 0.0) -> Ends:
        """Carry bytes until nothing moves, and the end of each stream once its side is over."""
        while True:
            up, down = b"".join(self.client.flush(now)), b"".join(self.server.flush(now))
            if up:
                self.to_server.append(up)
                self.server_events += self.server.receive(up, now)
            if down:
                self.to_client.append(down)
                self.client_events += self.client.receive(down, now)
            if not (up or down):
                break
        if self.client.over and not self.server.over:
            self.server_events += self.server.eof(now)
        if self.server.over and not self.client.over:
            self.client_events += self.client.eof(now)
        return self


def linked(security: Security = "nk", *, seed: int = 1, now: float = 0.0) -> Ends:
    """An established link."""
    ends = Ends(client(security, seed=seed, now=now), server(security, seed=seed, now=now)).start(now)
    assert ends.client.is_established
    assert ends.server.is_established
    return ends


def messages(events: Iterable[Event]) -> list[Message]:
    """The messages among the events."""
    return [event for event in events if isinstance(event, Message)]


def ends(events: Iterable[Event]) -> list[Ended]:
    """The ends among the events: at most one ever."""
    return [event for event in events if isinstance(event, Ended)]


def inject(connection: Connection, raw: bytes) -> None:
    """Queue any bytes as if they were frames: what a peer that has a channel but no manners would send."""
    connection.outbox._queue.append(raw)
    connection.outbox.waiting += len(raw)


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes; 0 = whole."""
    return [data] if not size else [data[at : at + size] for at in range(0, len(data), size)]


def fed(connection: Connection, pieces: Iterable[bytes], now: float = 0.0) -> list[Event]:
    """The events of a fresh end that gets these bytes, as a node would feed it: flushed after each read."""
    events = list(connection.start(now))
    for piece in pieces:
        events += connection.receive(piece, now)
        connection.flush(now)
    return events


class Host:
    """A pure node with one listener (its key is ``SERVER_KEY``), and what it wants done."""

    def __init__(
        self, *, security: Security = "nk", face: Face = Face.CLEARNET, seed: int = 1, **settings: Any
    ) -> None:
        settings = {"network_id": NETWORK_ID, "is_dev": True, "rate_factor": inf, "knobs": QUIET, **settings}
        self.now = 0.0
        self.told: list[Notify] = []
        self.shut: list[LinkId] = []
        self.held: dict[LinkId, bool] = {}
        self.reached: list[Reach] = []
        self.writes: dict[LinkId, list[bytes]] = {}
        self.turns: list[list[Io]] = []
        self.assembly: Assembly = assemble(
            Settings(**settings), random.Random(f"host {seed}"), lambda: UNIX + int(self.now), 0.0
        )
        self.engine = self.assembly.engine
        carrier = CarrierNumber.BARE if security == "bare" else CarrierNumber.PLAIN
        static = None if security == "bare" else SERVER_KEY
        self.address = Address(None if security in ("bare", "nx") else SERVER_KEY.public, "127.0.0.1", 19733, carrier)
        self.listener = Listener(self.address, face, static, True, ReplayCache())

    def turn(self) -> list[Io]:
        """What an interpreter does after each event: time, then everything that shall happen."""
        if self.engine.deadline() <= self.now:
            self.engine.due(self.now)
        done = list(self.engine.drain(self.now))
        for io in done:
            if isinstance(io, Write):
                self.writes.setdefault(io.link, []).extend(io.pieces)
            elif isinstance(io, Notify):
                self.told.append(io)
            elif isinstance(io, Shut):
                self.shut.append(io.link)
            elif isinstance(io, Hold):
                self.held[io.link] = io.held
            elif isinstance(io, Reach):
                self.reached.append(io)
            elif isinstance(io, Faulted):
                raise io.fault
        self.turns.append(done)
        return done

    def at(self, now: float) -> list[Io]:
        """Let time pass up to ``now``, deadline by deadline."""
        done = []
        while self.engine.deadline() <= now:
            self.now = max(self.now, self.engine.deadline())
            done += self.turn()
        self.now = now
        return done + self.turn()

    def accept(self, remote: str = "127.0.0.1", port: int = 50_000) -> LinkId:
        """A socket comes in."""
        link = self.engine.accepted(self.listener, Endpoint.of(remote, port), self.now)
        self.turn()
        return link

    def dial(self, address: Address | None = None) -> LinkId:
        """Ask for a link; its socket is connected at once."""
        link = self.engine.dial(address or self.address, self.now)
        self.turn()
        self.engine.connected(link, (address or self.address).endpoint, self.now)
        self.turn()
        return link

    def taken(self, link: LinkId) -> bytes:
        """What was written to the link's socket since the last time."""
        return b"".join(self.writes.pop(link, []))

    def give(self, link: LinkId, data: bytes) -> None:
        """Bytes arrive."""
        self.engine.receive(link, data, self.now)
        self.turn()

    def kinds(self, kind: str) -> list[Notify]:
        """The notifications of one kind."""
        return [told for told in self.told if told.kind == kind]


class Guest:
    """The other end of one of a host's links: a connection that the test drives."""

    def __init__(self, host: Host, connection: Connection, link: LinkId) -> None:
        self.host = host
        self.connection = connection
        self.link = link
        self.events: list[Event] = list(connection.start(host.now))

    def pump(self) -> Guest:
        """Carry bytes until nothing moves."""
        while True:
            up = b"".join(self.connection.flush(self.host.now))
            if up:
                self.host.give(self.link, up)
            down = self.host.taken(self.link)
            if down:
                self.events += self.connection.receive(down, self.host.now)
            if not (up or down):
                return self

    def send(self, *sent: Message) -> Guest:
        """Say something, and hear the answer."""
        for message in sent:
            self.connection.send(message)
        return self.pump()


def visit(host: Host, security: Security = "nk", *, seed: int = 1, remote: str = "127.0.0.1") -> Guest:
    """An established inbound link of the host."""
    return Guest(host, client(security, seed=seed, now=host.now), host.accept(remote, 50_000 + seed)).pump()
