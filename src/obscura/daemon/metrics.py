"""What a node measures of itself, in sums that identify nobody.

What is not here is left out on purpose: addresses, keys, ids, anything by peer, anything of the stem. A transaction of the
stem is in no count of messages or of their bytes; it is in the bytes of the wire alone, where whoever watches the wire has
it too. Queues are shown in coarse steps, and everything once in ten seconds, so that a reader who asks often sees no more.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import obscura
from obscura.daemon.config import Config
from obscura.daemon.events import Event
from obscura.daemon.exposition import KIND, Family, Samples, exposed
from obscura.daemon.web import Access, Answer, Request, Route, Routes
from obscura.ledger.network import Network
from obscura.limits import METRICS_EVERY_S, METRICS_QUEUE_STEP
from obscura.node.assembly import Assembly
from obscura.wire.catalogue import BUILT_IN
from obscura.wire.tally import OTHER, Tally

BUILT_IN_NAMES = {cls.NAME for cls in BUILT_IN}


class Metered(Protocol):
    """A node, as far as it is measured."""

    @property
    def config(self) -> Config:
        """What it was told."""

    @property
    def network(self) -> Network:
        """Its network."""

    @property
    def assembly(self) -> Assembly:
        """Its parts."""

    @property
    def uptime_s(self) -> float:
        """Seconds since its start."""


class Metrics:
    """The metrics of one node: events are given to ``count``, the rest is asked of the node when it is read."""

    def __init__(self, node: Metered, now: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._now = now
        self._seen: Counter[str] = Counter()
        self._points = 0
        self._kinds = {
            (face.name.lower(), "plain", "out", "full") for face in node.config.plan.faces
        }  # of links until now
        self._text = b""
        self._made = float("-inf")

    def routes(self, access: Access) -> Routes:
        """``GET /metrics``."""
        return {("GET", "/metrics"): Route(self._show, access)}

    async def follow(self, events: AsyncIterable[Event]) -> None:
        """Count events until there are no more."""
        async for event in events:
            self.count(event)

    def count(self, event: Event) -> None:
        """Count one event, by its kind alone."""
        self._seen[event["kind"]] += 1
        if event["kind"] == "penalty":
            self._points += event["points"]

    async def _show(self, request: Request) -> Answer:
        return Answer(200, self.text(), KIND)

    def text(self) -> bytes:
        """All metrics, made anew once in ``METRICS_EVERY_S``."""
        now = self._now()
        if now - self._made >= METRICS_EVERY_S:
            self._made = now
            self._text = exposed([*self._about(), *self._peers(), *self._traffic(), *self._chain(), *process()])
        return self._text

    # --- Families ---------------------------------------------------------------------------------------------------

    def _about(self) -> Iterator[Family]:
        config = self._node.config
        labels = {"version": obscura.__version__, "network": self._node.network.name, "privacy": config.privacy}
        yield Family("obscura_info", "gauge", "What runs here; the value is 1.", [(labels, 1)])
        up: Samples = [({}, round(self._node.uptime_s))]
        yield Family("obscura_uptime_seconds", "gauge", "Seconds since the start.", up)

    def _peers(self) -> Iterator[Family]:
        engine, near = self._node.assembly.engine, self._node.assembly.neighbours
        established = self._node.assembly.core.peers.values()
        peers = Counter(
            (
                peer.face.name.lower(),
                peer.carrier.name.lower(),
                "in" if peer.is_inbound else "out",
                "manual" if peer.is_manual else "inbound" if peer.is_inbound else peer.purpose.name.lower(),
            )
            for peer in established
        )
        # A sum over no series is nothing, not 0: whoever waits for "no peers any more" would hear nothing.
        self._kinds |= peers.keys()
        names = ("network", "carrier", "direction", "slot")
        samples = [(dict(zip(names, labels, strict=True)), peers[labels]) for labels in sorted(self._kinds)]
        yield Family("obscura_peers", "gauge", "Established links.", samples)
        opening = len(engine.links) - len(established)
        yield Family("obscura_opening_links", "gauge", "Sockets that are no established link.", [({}, opening)])
        new, tried = near.book.sizes
        book = [({"table": "new"}, new), ({"table": "tried"}, tried)]
        yield Family("obscura_known_addresses", "gauge", "Addresses in the book.", book)
        yield Family("obscura_bans", "gauge", "Bans in force.", [({}, sum(1 for _ in near.bans.in_force()))])
        yield _counter("obscura_penalties_total", "Penalties given to peers.", self._seen["penalty"])
        yield _counter("obscura_penalty_points_total", "Points of these penalties.", self._points)
        yield _counter("obscura_dials_failed_total", "Links that did not come up.", self._seen["dial-failed"])
        yield _counter("obscura_links_ended_total", "Established links that ended.", self._seen["peer-disconnected"])

    def _traffic(self) -> Iterator[Family]:
        engine = self._node.assembly.engine
        sent, received = engine.traffic.total(engine.links.values())
        both = (("out", sent), ("in", received))
        frames = [sample for direction, flow in both for sample in by_type(direction, flow.tally, 0)]
        sizes = [sample for direction, flow in both for sample in by_type(direction, flow.tally, 1)]
        yield Family("obscura_messages_total", "counter", "Messages, those of the stem apart.", frames)
        yield Family("obscura_message_bytes_total", "counter", "Bytes of these messages with their headers.", sizes)
        wire = [({"direction": direction}, flow.wire) for direction, flow in both]
        told = "Bytes of the sockets: messages, cover, padding, seals, carriers, and the stem among it."
        yield Family("obscura_wire_bytes_total", "counter", told, wire)
        queued = sum(engine.waiting(link) for link in engine.links) // METRICS_QUEUE_STEP * METRICS_QUEUE_STEP
        told = f"Bytes that wait to be sent, in steps of {METRICS_QUEUE_STEP >> 10} KiB."
        yield Family("obscura_queued_bytes", "gauge", told, [({}, queued)])
        told = "From a socket that stands to an established link."
        yield Family("obscura_handshake_seconds", "histogram", told, [({}, engine.traffic.handshakes)])

    def _chain(self) -> Iterator[Family]:
        relay = self._node.assembly.relay
        if relay is None:
            return
        found = relay.status()
        yield Family("obscura_height", "gauge", "Height of the tip.", [({}, found["height"])])
        yield Family("obscura_headers", "gauge", "Height of the best header.", [({}, found["headers"])])
        told = "Blocks that were asked for and have not come."
        yield Family("obscura_blocks_in_flight", "gauge", told, [({}, found["blocks_in_flight"])])
        told = "From asking a peer for a block to having it."
        yield Family("obscura_block_relay_seconds", "histogram", told, [({}, relay.download.waits)])
        pool: Samples = [({}, found["mempool_transactions"])]
        yield Family("obscura_mempool_transactions", "gauge", "Public transactions that wait for a block.", pool)
        yield Family("obscura_mempool_bytes", "gauge", "Bytes of these.", [({}, found["mempool_bytes"])])
        told = "Times that a branch took the tip's place."
        yield _counter("obscura_reorganisations_total", told, self._seen["reorganisation"])


def by_type(direction: str, tally: Tally, column: int) -> list[tuple[dict[str, str], float]]:
    """Samples of a tally. Types of an application stand as one: their names may say who uses the node for what."""
    sums: Counter[str] = Counter()
    for name, counted in tally.items():
        shown = name.rstrip(b"\0").decode() if name in BUILT_IN_NAMES or name == OTHER else "application"
        sums[shown] += counted[column]
    return [({"direction": direction, "type": shown}, count) for shown, count in sorted(sums.items())]


def process() -> Iterator[Family]:
    """Of the whole process, under the names that Prometheus's own libraries use."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield _counter("process_cpu_seconds_total", "Seconds of processor time.", round(used.ru_utime + used.ru_stime, 1))
    proc = Path("/proc/self")
    if proc.is_dir():
        pages = int((proc / "statm").read_text().split()[1])
        size = pages * os.sysconf("SC_PAGE_SIZE")
        yield Family("process_resident_memory_bytes", "gauge", "Resident memory.", [({}, size)])
        yield Family("process_open_fds", "gauge", "Open descriptors.", [({}, len(os.listdir(proc / "fd")))])
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Family("process_max_fds", "gauge", "Descriptors that it may open.", [({}, most)])


def _counter(name: str, told: str, value: float) -> Family:
    return Family(name, "counter", told, [({}, value)])
