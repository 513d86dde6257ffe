"""What tools/growth.py measures, each at one size: processor time or resident memory of this process."""

from __future__ import annotations

import gc
import random
from ipaddress import IPv4Address
from math import inf
from pathlib import Path
from time import process_time

from obscura.daemon.chain_methods import body_is_sound
from obscura.ledger.bitcoin import BitcoinLedger, Rules
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header
from obscura.ledger.mining import block_template, filler_transaction, grind
from obscura.ledger.network import own_genesis
from obscura.ledger.networks import load_network
from obscura.ledger.port import Transaction
from obscura.node.admission import AdmissionLimits
from obscura.node.assembly import Settings
from obscura.node.book import Book
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.node.mempool import Mempool
from obscura.node.slots import OutboundLimits
from obscura.shaping.levels import Knobs
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork, SimNode
from obscura.sim.run import Run
from obscura.sim.scenario import Scenario
from obscura.wire.address import CarrierNumber, Endpoint
from obscura.wire.message import Message

DEV = load_network("dev").ledger
EASY_BITS, EASY_START = 0x207FFFFF, 1_700_000_000
EASY = BitcoinLedger(
    Rules(limit_bits=EASY_BITS, spacing_s=60, retarget_blocks=0), own_genesis("growth", EASY_START, EASY_BITS, 0)
)
UNIX = 1_800_000_000
QUIET = Knobs(dummy_ms=(0, 0), chaff_ms=(0, 0), jitter_ms=(0, 0), burst=(0, 0), burst_hold_ms=(0, 0))
IDLE_S = 600.0
SENT_BYTES, SENT_MOST = 16 << 20, 5_000  # of messages of one size, whichever is less


def rss_kib() -> int:
    """Resident memory of this process's own."""
    gc.collect()
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssAnon:"))


# --- Links ------------------------------------------------------------------------------------------------------------------


class _Sample(Message, frozen=True, gc=False):
    """Bytes."""

    TYPE = "sample"
    MAX_SIZE = 4 << 20
    raw: bytes = b""

    def encode(self) -> bytes:
        return self.raw

    @classmethod
    def decode(cls, data: bytes) -> _Sample:
        return cls(bytes(data))


def _pair(links: int, got: list[int] | None = None) -> tuple[SimNetwork, SimNode, SimNode]:
    """Two nodes of the simulator: the shipped engines, wires without delay."""
    many = AdmissionLimits(
        trials_per_s=1e9, trials_per_group_per_s=1e9, trials_per_group_burst=1e9, max_unauthenticated=100_000
    )
    settings = Settings(
        network_id=bytes(32),
        is_dev=True,
        knobs=QUIET,
        max_inbound=links + 10,
        outbound=OutboundLimits(0, 0, feelers=False),
        admission=many,
        rate_factor=inf,
    )
    net = SimNetwork(Kernel(1), lambda a, b: 0.01)
    count = (lambda peer, message, now: got.append(len(message.raw))) if got is not None else (lambda *_: None)
    hub, other = (net.add(settings, messages=(_Sample,), reactions={_Sample: count}) for _ in range(2))
    return net, hub, other


def _joined(links: int) -> SimNetwork:
    net, hub, other = _pair(links)
    for number in range(links):
        other.connect(hub.address)
        if number % 50 == 49:
            net.kernel.run(until=net.kernel.now + 1)
    net.kernel.run(until=net.kernel.now + 5)
    if len(hub.peers) != links:
        raise AssertionError(f"{len(hub.peers)} of {links} links stand")
    return net


def links_memory(links: int) -> float:
    _joined(2)
    before = rss_kib()
    net = _joined(links)
    return max(0, rss_kib() - before) if net else 0


def links_open(links: int) -> float:
    began = process_time()
    _joined(links)
    return process_time() - began


def links_idle(links: int) -> float:
    net = _joined(links)
    began = process_time()
    net.kernel.run(until=net.kernel.now + IDLE_S)
    return process_time() - began


def message(size: int) -> float:
    """Microseconds of both ends, frames, hashes, channel and records included."""
    got: list[int] = []
    net, hub, other = _pair(1, got)
    link = other.connect(hub.address)
    net.kernel.run(until=5)
    count = max(4, min(SENT_MOST, SENT_BYTES // size))
    sample = _Sample(bytes(size))
    began = process_time()
    for number in range(count):
        other.assembly.engine.send(link, sample, net.kernel.now)
        if number % max(1, (256 << 10) // size) == 0:
            other.turn()
            net.kernel.run(until=net.kernel.now + 0.1)
    other.turn()
    net.kernel.run(until=net.kernel.now + 1)
    spent = process_time() - began
    if got != [size] * count:
        raise AssertionError(f"{len(got)} of {count} messages arrived")
    return 1e6 * spent / count


# --- Chain ------------------------------------------------------------------------------------------------------------------


def _headers(count: int) -> list[bytes]:
    """A chain whose headers take two hashes each."""
    parent, made, rng = EASY.block_id(EASY.genesis), [], random.Random(1)
    for number in range(count):
        time = EASY_START + 60 * (number + 1)
        raw = grind(Header(0x20000000, parent, rng.randbytes(32), time, EASY_BITS, 0).encode(), 1 << 20)
        assert raw is not None
        made.append(raw)
        parent = EASY.block_id(raw)
    return made


def _chain(headers: list[bytes]) -> Chain:
    chain = Chain(EASY)
    new, fault = chain.add_all(headers, UNIX)
    if fault is not None or len(new) != len(headers):
        raise AssertionError(f"{len(new)} of {len(headers)} headers were taken: {fault}")
    return chain


def chain_add(count: int) -> float:
    headers = _headers(count)
    began = process_time()
    _chain(headers)
    return process_time() - began


def chain_memory(count: int) -> float:
    headers = _headers(count)
    before = rss_kib()
    chain = _chain(headers)
    return rss_kib() - before if chain else 0


def chain_locator(count: int) -> float:
    chain = _chain(_headers(count))
    began = process_time()
    for _ in range(300):
        chain.locator()
    return 1e6 * (process_time() - began) / 300


def block_check(count: int) -> float:
    chain, rng = Chain(DEV), random.Random(1)
    raw = block_template(DEV, chain.branch(chain.best), _transactions(count), UNIX, rng)
    block_id = DEV.block_id(raw[:80])
    began, times = process_time(), max(1, 3_000 // count)
    for _ in range(times):
        body_is_sound(DEV, block_id, raw, 1)
    return 1e3 * (process_time() - began) / times


# --- Mempool ----------------------------------------------------------------------------------------------------------------


def _transactions(count: int, seed: int = 1) -> list[Transaction]:
    rng = random.Random(seed)
    return [DEV.decode_transaction(filler_transaction(rng, 250)) for _ in range(count)]


def _pool(transactions: list[Transaction], max_bytes: int = 1 << 40) -> Mempool:
    pool = Mempool(DEV, max_bytes)
    for number, transaction in enumerate(transactions):
        pool.add(transaction, number % 100, 0.0)
    return pool


def mempool_add(count: int) -> float:
    transactions = _transactions(count)
    began = process_time()
    _pool(transactions)
    return process_time() - began


def mempool_full(count: int) -> float:
    pool = _pool(_transactions(count))
    pool = _pool(_transactions(count), pool.bytes)
    more = _transactions(count, 2)
    began = process_time()
    for number, transaction in enumerate(more):
        pool.add(transaction, 100 + number % 100, 0.0)
    return process_time() - began


def mempool_confirm(count: int) -> float:
    transactions = _transactions(count)
    pool = _pool(transactions)
    began = process_time()
    pool.confirm(transactions)
    return process_time() - began


# --- Address book -----------------------------------------------------------------------------------------------------------


def _book(count: int) -> Book:
    """Addresses spread over networks and tellers, a third of them proven."""
    rng = random.Random(1)
    book = Book(bytes(32), Grouping(), rng, lambda: float(UNIX))
    first = int(IPv4Address("20.0.0.1"))
    for number in range(count):
        place = Endpoint.of(str(IPv4Address(first + 7_919 * number % (1 << 30))), 9_733)
        source = (number % 997).to_bytes(2, "big")
        entry = book.learn(place, CarrierNumber.TLS, Face.CLEARNET, source, UNIX - 60)
        if entry is not None and number % 3 == 0:
            book.good(entry.place, None)
    return book


def book_learn(count: int) -> float:
    began = process_time()
    _book(count)
    return process_time() - began


def book_pick(count: int) -> float:
    book = _book(count)
    began = process_time()
    for _ in range(1_000):
        book.pick(lambda entry: True)
    return 1e3 * (process_time() - began)


def book_sample(count: int) -> float:
    book = _book(count)
    began = process_time()
    for _ in range(10):
        book.sample(Face.CLEARNET, 0.23, 1_000)
    return 1e2 * (process_time() - began)


# --- Simulator --------------------------------------------------------------------------------------------------------------


def simulated(nodes: int) -> float:
    run = Run(Scenario(nodes=nodes, graph="out8", fluff=0.1, spies=0.0, followed=8, transactions=8), 0)
    began = process_time()
    run.play()
    return process_time() - began
