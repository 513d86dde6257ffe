"""One node put together from its settings: the only place that names all parts. Both interpreters start here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import msgspec

from obscura.handshake import features
from obscura.handshake.features import Flags
from obscura.handshake.machine import Offer
from obscura.ledger.chain import Chain
from obscura.limits import COMPACT_VERSION, MAX_INBOUND, PROTOCOL_VERSION
from obscura.node.admission import AdmissionLimits, Admissions
from obscura.node.asmap import Asmap
from obscura.node.bans import Bans
from obscura.node.book import Book
from obscura.node.broadcast import Outbox
from obscura.node.coarse import CoarseClock
from obscura.node.core import Core, Part, Reaction
from obscura.node.cover import Cover, Shapes
from obscura.node.dandelion import Dandelion
from obscura.node.dialable import DIRECT, Way, Ways
from obscura.node.effects import LinkId, Waiting
from obscura.node.engine import Engine
from obscura.node.gossip import Gossip
from obscura.node.groups import Grouping
from obscura.node.inbound import Inbound
from obscura.node.manual import ManualPeers
from obscura.node.ownaddress import OwnAddress
from obscura.node.peer import Face
from obscura.node.ping import Liveness
from obscura.node.public import RelayPool
from obscura.node.ratelimit import rates_of
from obscura.node.relay import ChainRelay
from obscura.node.reputation import Reputation
from obscura.node.resolvers import SeedSettings
from obscura.node.rotation import Rotation, RotationSettings
from obscura.node.seeds import Seeds, SeedSource
from obscura.node.slots import OutboundLimits, Slots, Tip
from obscura.node.stem import StemTerms
from obscura.node.submission import OwnTransactions
from obscura.shaping.levels import LEVELS, Knobs, PrivacyLevel, padneg
from obscura.wire.address import Address, Endpoint, Network
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.message import Message
from obscura.wire.messages.blocks import BLOCK_HEADER_BYTES, SendCmpct
from obscura.wire.messages.network import Extension, Version

USER_AGENT = "Obscura/1.0.0"  # constant and without platform: it must not tell nodes apart (design 5)
NO_BLOCK = (bytes(32), 0)


class Settings(msgspec.Struct, frozen=True):
    """What the pure node has to know. The daemon derives it from its configuration, the simulator makes it."""

    network_id: bytes
    is_dev: bool = False  # loopback is a network like any other
    knobs: Knobs = LEVELS[PrivacyLevel.MEDIUM]
    required: Flags = Flags()
    extra: Flags = Flags()  # experimental bits and those of registered messages
    manual: tuple[Address, ...] = ()
    max_inbound: int = MAX_INBOUND
    admission: AdmissionLimits = AdmissionLimits()
    faces: frozenset[Face] = frozenset({Face.CLEARNET})  # through which peers may be had
    ways: Ways = DIRECT  # how connections may leave
    asmap: bytes | None = None  # an asmap file's content
    outbound: OutboundLimits = OutboundLimits()
    allow_unauthenticated: bool = False  # full links to clearnet addresses without a known key
    external: tuple[Address, ...] = ()  # how the operator says that this node is reached, with keys
    spacing_s: float = 0.0  # usual seconds between blocks, for the look at a stale tip; 0 = on request
    seeds: SeedSettings = SeedSettings()
    seed_source: SeedSource | None = None  # what the network says of its seeds; None = nobody is ever asked
    are_lookups_proxied: bool = False  # questions to DNS leave through an anonymity network
    seed_sequences: dict[str, int] = {}  # of the newest list of each name that an earlier run saw
    rotation: RotationSettings = RotationSettings()
    rate_factor: float = 1.0  # how much more than ``limits.RATES`` a peer may send; ``inf`` = anything


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The parts that decide with whom the node speaks (design 10)."""

    grouping: Grouping
    book: Book
    own: OwnAddress
    gossip: Gossip
    slots: Slots
    reputation: Reputation
    bans: Bans
    inbound: Inbound
    manual: ManualPeers
    seeds: Seeds | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """In the order in which they hear of things: who judges before who chooses."""
        seeds = () if self.seeds is None else (self.seeds,)
        return (self.reputation, self.bans, self.own, self.gossip, *seeds, self.slots, self.inbound, self.manual)


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts by name, for whoever asks them something, and the engine over all of them."""

    engine: Engine
    core: Core
    liveness: Liveness
    neighbours: Neighbours
    relay: ChainRelay | None
    own_transactions: OwnTransactions | None
    rotation: Rotation

    @property
    def book(self) -> Book:
        """The address book."""
        return self.neighbours.book


def assemble(
    settings: Settings,
    rng: random.Random,
    unix: Callable[[], int],
    now: float,
    *,
    messages: Sequence[type[Message]] = (),
    reactions: Mapping[type[Message], Reaction] | None = None,
    parts: Sequence[Part] = (),
    chain: Chain | None = None,
    waiting: Iterable[Waiting] = (),
    outbox: Outbox | None = None,
    dice: Callable[[str, random.Random], random.Random] = lambda part, rng: rng,
) -> Assembly:
    """A node without links. ``messages``, ``reactions`` and ``parts`` are what an application adds.

    ``chain`` and ``waiting`` are what its archive holds; without a chain it relays neither blocks nor transactions.
    ``outbox`` holds own transactions that are not public yet. ``dice`` may put a recording, or one that is played, between a part
    and its generator (``obscura.node.recording``).
    """
    liveness = Liveness(dice("ping", rng))
    relay = ChainRelay(chain, dice("relay", rng), unix, waiting, settings.faces) if chain is not None else None
    best_block = relay.best_block if relay is not None else _no_block
    tip = Tip(lambda: chain.best, settings.spacing_s) if chain is not None and settings.spacing_s else None
    near = _neighbours(settings, liveness, rng, unix, now, tip)
    own = None if relay is None else _own_transactions(settings.knobs, relay, liveness, dice("stem", rng), now, outbox)
    about_chain = () if relay is None or own is None else (relay, own.dandelion, own)
    rotation = Rotation(
        settings.rotation,
        near.book,
        rng,
        unix,
        carriers=settings.knobs.carriers,
        ways=settings.ways,
        named=settings.manual,
    )
    core = Core([liveness, *near.parts, Cover(settings.knobs), rotation, *about_chain, *parts])
    shape = Shapes(settings.knobs, rng, now, faces=len(settings.faces)).of
    for message, reaction in (reactions or {}).items():
        core.route(message, reaction)
    catalogue = CATALOGUE
    for message in messages:
        catalogue = catalogue.with_message(message)

    coarse = CoarseClock(unix, rng)

    def offer(face: Face, remote: Endpoint | None, is_bare: bool) -> Offer:
        made = _offer(settings, face, remote, is_bare, best_block(face), (unix(), coarse.shown(face)), rng)
        if relay is None or relay.chain.ledger.header_bytes != BLOCK_HEADER_BYTES:
            return made
        return msgspec.structs.replace(made, compact=SendCmpct(False, COMPACT_VERSION))

    engine = Engine(
        core,
        catalogue,
        settings.network_id,
        offer,
        rng,
        unix,
        now=now,
        admissions=Admissions(settings.admission, loopback_is_free=settings.is_dev, now=now, grouping=near.grouping),
        shaping=shape,
        rates=rates_of(catalogue, settings.rate_factor) if settings.rate_factor < inf else None,
        ways=settings.ways,
        faces=len(settings.faces),
    )
    return Assembly(engine, core, liveness, near, relay, own, rotation)


def _own_transactions(
    knobs: Knobs, relay: ChainRelay, liveness: Liveness, rng: random.Random, now: float, outbox: Outbox | None
) -> OwnTransactions:
    """Dandelion++ over the public mempool, and the own transactions over that."""
    held_s = knobs.mean_hold_s  # what the own shaping adds to a hop

    def hop_s(link: LinkId) -> float | None:
        round_trip = liveness.best_s(link)
        return None if round_trip == inf else round_trip / 2 + held_s

    terms = StemTerms(
        q=knobs.fluff_probability,
        prefers_anonymity=knobs.anonymous_first_hop,
        awaits_epoch=knobs.waits_for_epoch,
    )
    pool = RelayPool(relay.transactions, relay.chain.ledger, liveness.answered)
    return OwnTransactions(Dandelion(rng, pool, terms, hop_s=hop_s), pool, now, outbox)


def _neighbours(
    settings: Settings, liveness: Liveness, rng: random.Random, unix: Callable[[], int], now: float, tip: Tip | None
) -> Neighbours:
    faces, key = settings.faces, rng.randbytes(32)
    grouping = Grouping(Asmap(settings.asmap) if settings.asmap else None, loopback_apart=settings.is_dev)
    reputation, bans = Reputation(), Bans(grouping, unix)
    is_proxied = settings.ways.clearnet is not Way.DIRECT
    book = Book(rng.randbytes(32), grouping, rng, unix, faces, is_proxied)
    own = OwnAddress(grouping, loopback=settings.is_dev, external=settings.external, is_proxied=is_proxied)
    services = features.BUILT.with_(settings.extra).features
    return Neighbours(
        grouping=grouping,
        book=book,
        own=own,
        gossip=Gossip(book, own, grouping, rng, unix, key, loopback=settings.is_dev, services=services, faces=faces),
        slots=Slots(
            book,
            own,
            grouping,
            rng,
            now,
            limits=settings.outbound,
            faces=faces,
            refuses=bans.refuses,
            is_discouraged=reputation.is_discouraged,
            allow_unauthenticated=settings.allow_unauthenticated,
            is_proxied=is_proxied,
            tip=tip,
        ),
        reputation=reputation,
        bans=bans,
        inbound=Inbound(
            settings.max_inbound,
            grouping,
            key,
            faces=faces,
            best_ping_s=liveness.best_s,
            is_discouraged=reputation.is_discouraged,
        ),
        manual=ManualPeers(settings.manual, rng, now),
        seeds=_seeds(settings, book, rng, unix, now),
    )


def _seeds(settings: Settings, book: Book, rng: random.Random, unix: Callable[[], int], now: float) -> Seeds | None:
    source = settings.seed_source
    if source is None:
        return None
    known, wanted = settings.seed_sequences, settings.seeds
    if Face.CLEARNET not in settings.faces and not settings.are_lookups_proxied:
        wanted = msgspec.structs.replace(wanted, enabled=False)  # fail closed (design 11): DNS included
    faces, is_dev = settings.faces, settings.is_dev
    return Seeds(wanted, source, book, rng, unix, now, allow_loopback=is_dev, sequences=known, faces=faces)


def _no_block(face: Face) -> tuple[bytes, int]:
    return NO_BLOCK


def _offer(
    settings: Settings,
    face: Face,
    remote: Endpoint | None,
    is_bare: bool,
    best: tuple[bytes, int],
    times: tuple[int, int],  # exact, coarse
    rng: random.Random,
) -> Offer:
    is_clearnet = face is Face.CLEARNET
    built = features.BUILT_BARE if is_bare else features.BUILT if is_clearnet else features.BUILT_ANONYMOUS
    flags = built.with_(settings.extra)
    is_direct = is_clearnet and settings.ways.clearnet is Way.DIRECT
    observed = is_clearnet and remote is not None and remote.network in (Network.IPV4, Network.IPV6)
    version = Version(
        protocol_version=PROTOCOL_VERSION,
        timestamp=times[0] if is_direct else times[1],
        feature_flags=flags.features,
        privacy_feature_flags=flags.privacy,
        user_agent=USER_AGENT,
        best_block_hash=best[0],
        best_block_height=best[1],
        nonce=rng.getrandbits(64),
        extensions=(Extension.observed(remote),) if observed and remote is not None else (),
    )
    core = features.CORE_BARE if is_bare else features.CORE
    return Offer(
        version=version,
        padneg=None if is_bare else padneg(settings.knobs),
        demanded=core.with_(settings.required),
    )
