"""Both sides of a carrier in memory: what a connection does with it, and a wire that cuts and delays as it likes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dns_pair import dns_host
from obscura.daemon.certificates import make_certificate, server_context
from obscura.daemon.covers import stock_site
from obscura.limits import SSH_FLIGHT
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready
from obscura.morph.dns import DnsClient
from obscura.morph.dns_message import name_of
from obscura.morph.dns_names import origin_for_key, tsig_key
from obscura.morph.dress import dress, path_for_joining, path_for_key
from obscura.morph.http import HttpServer
from obscura.morph.plain import Plain
from obscura.morph.poller import PollingClient
from obscura.morph.ssh import SshClient
from obscura.morph.tls import TlsClient, TlsServer
from obscura.morph.visitor import HttpClient
from obscura.morph.website import Website
from ssh_pair import host

KEY = bytes(range(32))
NETWORK = b"n" * 32
UNIX = 1_700_000_000
SOON_S = 6.5  # more than the longest poll
PATIENCE = 8  # such deadlines in a row after which nothing was said
FLIGHT_1, FLIGHT_2 = (b"one" * 200)[:SSH_FLIGHT], b"two" * 140  # of a size that every carrier has


class Maker(NamedTuple):
    """How both sides of a carrier are made."""

    client: Callable[[random.Random], Carrier]
    server: Callable[[random.Random], Carrier]


@cache
def certified() -> tuple[object, bytes]:
    """A server's TLS context and the SHA256 of its certificate, made once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(folder / "c", folder / "k", "host7")
        leaf = x509.load_pem_x509_certificate((folder / "c").read_bytes()).fingerprint(hashes.SHA256())
        return server_context(folder / "c", folder / "k"), leaf


def website(*, is_tls: bool, secret: bytes = b"s") -> Website:
    """The default site with the paths of ``KEY``."""
    pages, folders = stock_site(secret)
    paths = {path_for_key(KEY)} | ({path_for_joining(NETWORK, certified()[1])} if is_tls else set())
    return Website(pages, folders, dress(secret, frozenset(paths), is_tls=is_tls), lambda: UNIX)


def _tls_server(rng: random.Random) -> Carrier:
    context, leaf = certified()
    return TlsServer(rng, website(is_tls=True), context, leaf)  # type: ignore[arg-type]


MAKERS: dict[str, Maker] = {
    "plain": Maker(lambda rng: Plain(rng, client=True), lambda rng: Plain(rng, client=False)),
    "http": Maker(
        lambda rng: HttpClient(rng, b"example.org", path_for_key(KEY)),
        lambda rng: HttpServer(rng, website(is_tls=False)),
    ),
    "tls": Maker(lambda rng: TlsClient(rng, b"example.org", "example.org", KEY, NETWORK, by_cookie=False), _tls_server),
    "http, in requests": Maker(
        lambda rng: PollingClient(rng, b"example.org", path_for_key(KEY)),
        lambda rng: HttpServer(rng, website(is_tls=False)),
    ),
    "tls, in requests": Maker(
        lambda rng: TlsClient(rng, b"example.org", "example.org", KEY, NETWORK, by_cookie=False, polls=True),
        _tls_server,
    ),
    "ssh": Maker(SshClient, lambda rng: host().server(rng)),
    "dns": Maker(
        lambda rng: DnsClient(rng, name_of(origin_for_key(KEY)), tsig_key(KEY), KEY),
        lambda rng: dns_host(KEY).server(rng),
    ),
    "tls, joining": Maker(lambda rng: TlsClient(rng, b"10.1.2.3", None, None, NETWORK, by_cookie=False), _tls_server),
}


class End:
    """One side, driven as a connection drives it."""

    def __init__(self, carrier: Carrier, *, client: bool, refuses: bool = False) -> None:
        self.carrier = carrier
        self.client = client
        self.refuses = refuses
        self.binding: bytes | None = None
        self.flights: list[bytes] = []
        self.data = bytearray()
        self.is_open = False
        self.finished: Finished | None = None
        self.inbox = bytearray()

    def on(self, events: list[CarrierEvent], now: float) -> None:
        for event in events:
            assert self.finished is None or isinstance(event, Finished), "after the end"
            if isinstance(event, Data):
                self.data += event.data
            elif isinstance(event, Ready):
                self.binding = event.binding
                self.carrier.send_flight(FLIGHT_1, now)
                self.is_open = self.carrier.STREAMED
            elif isinstance(event, Flight):
                self.flights.append(event.data)
                if self.client:
                    self.is_open = True
                elif self.refuses:
                    self.carrier.refuse(now)
                else:
                    self.binding = event.binding
                    self.carrier.send_flight(FLIGHT_2, now)
                    self.is_open = True
            else:
                self.finished = event


class Wire:
    """Two ends and what is between them. ``cuts``: how many bytes arrive at once at most, drawn anew each time."""

    def __init__(self, maker: Maker, *, seed: int = 1, cuts: int = 1 << 20, refuses: bool = False) -> None:
        self.rng = random.Random(seed)
        self.cuts = cuts
        self.now = 0.0
        self.client = End(maker.client(random.Random(seed + 1)), client=True)
        self.server = End(maker.server(random.Random(seed + 2)), client=False, refuses=refuses)
        self.tapped = {True: bytearray(), False: bytearray()}  # by who sent it: the client or not
        self.server.on(self.server.carrier.start(0.0), 0.0)
        self.client.on(self.client.carrier.start(0.0), 0.0)

    def other(self, end: End) -> End:
        return self.server if end is self.client else self.client

    def collect(self, end: End) -> None:
        for piece in end.carrier.take():
            self.tapped[end.client] += piece
            self.other(end).inbox += piece

    def deliver(self, end: End) -> bool:
        """One read of a socket."""
        if not end.inbox or end.finished is not None:
            end.inbox.clear()
            return False
        size = self.rng.randint(1, min(self.cuts, len(end.inbox)))
        piece = bytearray(end.inbox[:size])
        del end.inbox[:size]
        end.on(end.carrier.receive(memoryview(piece), self.now), self.now)
        piece[:] = bytes(len(piece))  # the buffer belongs to the socket
        return True

    def due(self, end: End) -> None:
        if end.finished is None and end.carrier.deadline() <= self.now:
            end.on(end.carrier.due(self.now), self.now)

    def run(self, steps: int = 1_000_000) -> None:
        """Until nothing moves but covers that pass the time, or so many reads."""
        patience, heard = PATIENCE, -1
        for _ in range(steps):
            moved = False
            for end in (self.client, self.server):
                self.collect(end)
                self.due(end)
                self.collect(end)
                moved |= self.deliver(self.other(end))
            if not moved and not self.client.inbox and not self.server.inbox:
                self.collect(self.client)
                self.collect(self.server)
                patience = PATIENCE if heard != self.heard else patience - 1
                heard = self.heard
                if not self.client.inbox and not self.server.inbox and not (patience and self.wait()):
                    return

    @property
    def heard(self) -> int:
        """How much was said through the carrier by now."""
        return sum(len(end.data) + len(end.flights) for end in (self.client, self.server))

    def wait(self) -> bool:
        """Let time pass to the next deadline, if one is within seconds: what covers do to look like people."""
        near = [end.carrier.deadline() for end in (self.client, self.server) if end.finished is None]
        soon = [when for when in near if self.now < when <= self.now + SOON_S]
        self.now = min(soon, default=self.now)
        return bool(soon)

    def opened(self) -> Wire:
        """Run the opening; both sides are open then."""
        self.run()
        assert self.server.finished is None
        assert self.client.finished is None
        if not self.client.carrier.STREAMED:
            assert self.server.flights == [FLIGHT_1]
            assert self.client.flights == [FLIGHT_2]
            assert self.client.binding == self.server.binding
        self.server.is_open = self.client.is_open = True
        self.server.data.clear()
        return self
