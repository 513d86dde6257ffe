"""An attacker who dials two faces tries to tell whether they are one node's; each attack must do no better than chance.

Every attack gives a score that is higher where the faces look like one node's. An attack that yields a yes or no must get the
same one in every world of both kinds. One that yields times is measured over ``SEEDS`` worlds of each kind: its AUC, the chance
that a one-node world scores above a two-node world, has to lie within ``BOUND`` of one half: three standard errors of an AUC
without information, sqrt((2n + 1) / (12 n^2)). Each attack has a control: with its protection off it links.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import pytest

from chain_nodes import easy_ledger, submit
from face_worlds import CLEAR, ONION, FacedNetwork, Sabotage, World
from obscura.handshake.features import BUILT, BUILT_ANONYMOUS
from obscura.ledger.port import Transaction
from obscura.limits import DISCONNECT_POINTS, MALFORMED_POINTS
from obscura.node.admission import Admissions
from obscura.node.effects import Disconnect
from obscura.node.eviction import victim
from obscura.node.face import Face, Purpose
from obscura.node.reputation import _Score
from obscura.sim.network import UNIX_AT_START, SimNode
from obscura.wire.frame import encode_raw
from obscura.wire.message import Message
from obscura.wire.messages.blocks import BlockTxn, GetBlockTxn, GetHeaders, Headers, Inv, InventoryItem, InventoryKind
from obscura.wire.messages.network import OBSERVED_ADDRESS, Addr, AddrEntry, Extension, GetAddr, Ping, Version
from obscura.wire.messages.transactions import GetData, Tx

SEEDS = 24
FEW = 4  # seeds of an attack that yields a yes or no, and of a control
BOUND = 3 * sqrt((2 * SEEDS + 1) / (12 * SEEDS**2))
LINKS = 0.85  # AUC from which on a control counts as linking
Score = Callable[[World], float]


class Attack(NamedTuple):
    """``sabotage`` switches the protection off in each node; ``patch`` does where it is a number or a function of a module."""

    score: Score
    sabotage: Sabotage = lambda node: None
    patch: tuple[str, Any] | None = None
    changes: dict[str, Any] = {}
    is_exact: bool = True  # yields a yes or no


def auc(ones: list[float], twos: list[float]) -> float:
    """How often a one-node world scores higher; ties count half."""
    wins = sum((one > two) + (one == two) / 2 for one in ones for two in twos)
    return wins / len(ones) / len(twos)


def measured(attack: Attack, seeds: int, sabotage: Sabotage = lambda node: None) -> float:
    """The AUC of an attack."""

    return auc(*(scores(attack, seeds, one, sabotage) for one in (True, False)))


def scores(attack: Attack, seeds: int, one: bool, sabotage: Sabotage = lambda node: None) -> list[float]:
    """What it yields in worlds of one kind."""
    worlds = (World(seed + 1_000 * one, one=one, sabotage=sabotage, **attack.changes) for seed in range(seeds))
    return [attack.score(world) for world in worlds]


# --- What an attacker looks at ------------------------------------------------------------------------------------------


def inventory(transaction: Transaction) -> Inv:
    return Inv((InventoryItem(InventoryKind.TX, transaction.id),))


def has(transaction: Transaction) -> Callable[[Any], bool]:
    """Whether an inv or getdata names it."""
    return lambda message: any(item.hash == transaction.id for item in message.items)


def near(a: float, b: float) -> float:
    """Higher for times that are closer; what never came tells nothing."""
    return -inf if inf in (a, b) else -abs(a - b)


def diffused_at_the_same_time(world: World) -> float:
    """A transaction of the network: when does each face announce it."""
    world.dial_both()
    world.give_transaction(0)
    world.run(120)
    wanted = has(world.transactions[0])
    return near(world.first(CLEAR, Inv, wanted), world.first(ONION, Inv, wanted))


def handed_in(world: World, face: Face = CLEAR) -> Transaction:
    """Give one face a transaction that nobody else has."""
    world.dial_both()
    given = world.transactions[0]
    world.send(face, inventory(given), Tx(given.raw))
    world.run(0.5)
    return given


def asks_for_what_the_other_face_has(world: World) -> float:
    """Offered what the other face got just now: a node that has it does not ask."""
    given = handed_in(world)
    world.send(ONION, inventory(given))
    world.run(0.2)
    return float(not world.got(ONION, GetData))


def told_soon_after(world: World) -> float:
    """Handed in at one face, announced at the other: after how long."""
    given, now = handed_in(world), world.kernel.now
    world.run(120)
    return now - world.first(ONION, Inv, has(given))


def asks_for_what_the_other_face_waits_for(world: World) -> float:
    """Announced to both, delivered to neither: a node asks one of the two."""
    world.dial_both()
    nowhere = world.transactions[1]
    for face in (CLEAR, ONION):
        world.send(face, inventory(nowhere))
    world.run(1.0)
    asked = [any(has(nowhere)(message) for _, message in world.got(face, GetData)) for face in (CLEAR, ONION)]
    return float(not all(asked))


def refuses_what_the_other_face_refused(world: World) -> float:
    """A transaction that no node takes, given to one face and offered at the other."""
    world.dial_both()
    coinbase = easy_ledger().decode_block(world.blocks[2]).transactions[0]
    world.send(CLEAR, inventory(coinbase), Tx(coinbase.raw))
    world.run(1.0)
    world.send(ONION, inventory(coinbase))
    world.run(1.0)
    return float(not world.got(ONION, GetData))


def tip_at_the_same_time(world: World) -> float:
    """A block of the network: when does each face tell of it."""
    world.dial_both()
    world.give_block(1)
    world.run(10)
    times = []
    for face in (CLEAR, ONION):
        said = [at for kind in (Inv, Headers) for at, _ in world.got(face, kind)]
        times.append(max(said, default=inf))
    return near(*times)


def tip_in_the_handshake(world: World) -> float:
    """Both faces dialled again and again while a block is new: when does each say the new height."""
    world.run(5.0)  # each has a link to the neighbour by then, however far it is
    world.give_block(1)
    since: dict[Face, float] = {}
    for _ in range(200):
        world.run(0.02)
        for face in (CLEAR, ONION):
            if _said(world, face).best_block_height > 1:
                since.setdefault(face, world.kernel.now)
    return near(since.get(CLEAR, inf), since.get(ONION, inf))


def tip_asked_for(world: World) -> float:
    """Both faces asked for headers again and again while a block is new, at first not even on the disk."""
    world.dial_both()
    for node in world.victims:
        assert node.archive is not None
        node.archive.write_s = 0.5
    question = GetHeaders(1, (easy_ledger().block_id(world.blocks[0][:80]),), bytes(32))
    world.give_block(1)
    for _ in range(100):
        for face in (CLEAR, ONION):
            world.send(face, question)
        world.run(0.05)
    return near(*(world.first(face, Headers, lambda message: message.headers) for face in (CLEAR, ONION)))


def _said(world: World, face: Face) -> Version:
    """What a link that is dialled now would hear."""
    return world.behind[face].assembly.engine._offer_for(face, None, False).version


def gives_of_the_block_of_the_other_face(world: World) -> float:
    """A block that one face got just now: does the other one give transactions of it."""
    world.dial_both()
    submit(world.behind[CLEAR], world.blocks[1])
    world.send(ONION, GetBlockTxn(easy_ledger().block_id(world.blocks[1][:80]), (0,)))
    world.run(0.05)
    return float(len(world.got(ONION, BlockTxn)))


def pings_in_phase(world: World) -> float:
    """When do pings come, modulo their interval."""
    world.dial_both()
    world.run(125)
    return near(*(world.first(face, Ping) % 120 for face in (CLEAR, ONION)))


def clocks_that_are_wrong_alike(world: World) -> float:
    """How wrong is each clock: clearnet says it to the second, elsewhere one looks when the rounded time steps on."""
    for number, node in enumerate(world.victims):
        node.clock_error_s = float((world.kernel.seed * 7_919 + number * 104_729) % 120)
    exact = _said(world, CLEAR).timestamp - _unix(world)
    first, seconds = _said(world, ONION).timestamp, 0
    while _said(world, ONION).timestamp == first and seconds < 400:
        seconds += 1
        world.run(1.0)
    looks = (150 - _unix(world)) % 300  # a clock that is right steps at 150
    off = abs(exact - looks) % 300
    return -min(off, 300 - off)


def _unix(world: World) -> int:
    return UNIX_AT_START + int(world.kernel.now)


def says_the_same(world: World) -> float:
    """Everything that a handshake says and that may differ between nodes: nonce, user agent, flags of its own, padding terms."""
    first, second = (msgspec.structs.asdict(world.dial(face).negotiated.peer) for face in (CLEAR, ONION))
    differing = ("nonce", "user_agent")
    padneg = [world.attacker.assembly.core.peers[link].negotiated.peer_padneg for link in world.links.values()]
    return float(sum(first[name] == second[name] for name in differing) + (padneg[0] == padneg[1]))


def shows_the_same_addresses(world: World) -> float:
    """What each face answers to getaddr, and the times in it."""
    for node in world.victims:
        _fill(node, CLEAR, 40)
        _fill(node, ONION, 40)
    return _shared(_answer(world, CLEAR), _answer(world, ONION))


def answers_anew_when_the_other_face_is_fed(world: World) -> float:
    """The cached answer of one face, before and after the other face was told a lot."""
    for node in world.victims:
        _fill(node, CLEAR, 40)
    before = _answer(world, CLEAR)
    _fill(world.behind[ONION], ONION, 300)
    return float(before != _answer(world, CLEAR))


def _fill(node: SimNode, face: Face, count: int) -> None:
    for number in range(count):
        host = bytes([face, *number.to_bytes(2, "big")])
        told = AddrEntry(UNIX_AT_START, 1, 4, host.ljust(32, b"\1"), 9_733, 0, None)
        endpoint = told.endpoint
        assert endpoint is not None
        node.assembly.book.learn(endpoint, 0, face, bytes([face]), told.time, 1)  # type: ignore[arg-type]


def _answer(world: World, face: Face) -> frozenset[tuple[bytes, int]]:
    world.dial(face)
    world.send(face, GetAddr())
    world.run(3.0)
    return frozenset((entry.host, entry.time) for _, message in world.got(face, Addr) for entry in message.entries)


def _shared(one: frozenset[Any], other: frozenset[Any]) -> float:
    return len(one & other) / max(1, len(one | other))


def loses_a_link_when_the_other_face_fills(world: World) -> float:
    """As many links as one face takes, then some at the other: does one of the first end."""
    clear = world.dial_many(CLEAR, 12)
    world.dial_many(ONION, 5)
    left = world.attacker.assembly.core.peers
    return float(sum(link not in left for link in clear))


def drops_strangers_when_the_other_face_fills(world: World) -> float:
    """Silent connections at one face, then many at the other: are the first dropped."""
    victim, other = world.behind[CLEAR].assembly.engine, world.behind[ONION].assembly.engine
    strangers = [victim.accepted(world.behind[CLEAR].listener, None, world.kernel.now) for _ in range(6)]
    _, listener = world.network.onions[world.addresses[ONION].endpoint]  # type: ignore[index]
    for _ in range(7):
        other.accepted(listener, None, world.kernel.now)
    return float(sum(link not in victim.links for link in strangers))


def stem_epochs_in_phase(world: World) -> float:
    """When the routes of private transactions change: read from inside, an attacker would have to infer it."""
    world.dial_both()
    ends = []
    for face in (CLEAR, ONION):
        own = world.behind[face].assembly.own_transactions
        assert own is not None
        ends.append(own.dandelion._epochs._when[face][0])
    return near(*ends)


def tells_of_the_other_face(world: World) -> float:
    """The onion service is published: what do clearnet peers hear in that second."""
    world.dial_both()
    now = world.kernel.now
    node = world.behind[ONION]
    near_ = node.assembly.neighbours
    near_.own.add_external(world.addresses[ONION])
    node.apply(near_.gossip.announce_all(now, ONION))
    world.run(1.0)
    return float(len(world.got(CLEAR, Addr, now)))


FAULTS = (
    (encode_raw("inv", b"\xff\xff"),) * 5,  # malformed, until it is too much
    (encode_raw("ping", bytes(8), checksum=bytes(4)),) * 5,
    (encode_raw("version", b""),),  # a violation
    (encode_raw("block", bytes(90)),) * 6,  # what nobody asked for
    (encode_raw("sendcmpct", b"\x07"), encode_raw("getblocktxn", bytes(33)), encode_raw("stemtx", b"")) * 3,
    (encode_raw("neverheard", b"x"), bytes(4_000)),  # no frame at all
)


def says_why_it_ends(world: World) -> float:
    """The same faults at both faces: everything that is said from then on, and the way in which each link ends."""
    alike = 0
    for frames in FAULTS:
        world.dial_both()
        now = world.kernel.now
        said = {}
        for face in (CLEAR, ONION):
            world.inject(face, *frames)
            world.run(10.0)
            said[face] = {
                msgspec.structs.astuple(m)
                for at, link, m in world.seen
                if link == world.links[face] and at > now and not isinstance(m, (Addr, Ping, Inv, Headers))
            }
            now = world.kernel.now
        alike += len(said[CLEAR] & said[ONION])
    return float(alike)


def ends_alike(world: World) -> float:
    """The same, looked at by what ends a link, and how soon after the fault."""
    alike = 0
    for frames in FAULTS:
        world.dial_both()
        ends = []
        for face in (CLEAR, ONION):
            now = world.kernel.now
            world.inject(face, *frames)
            world.run(5.0)
            at, why = world.end_of(face) or (now, "goes on")
            ends.append((at - now, why))
        assert ends[0][1] == ends[1][1], "told by the same words, whatever node it is"
        alike += near(ends[0][0], ends[1][0]) > -0.2  # less is the own shaping's
    return float(alike)


def counts_faults_of_the_other_face(world: World) -> float:
    """As many faults at one face as a link may have, and then some at the other: how many are too many."""
    world.dial_both()
    fault, most = encode_raw("inv", b"\xff\xff"), DISCONNECT_POINTS // MALFORMED_POINTS
    world.inject(CLEAR, *[fault] * (most - 1))
    world.run(1.0)
    for count in range(1, 2 * most):
        world.inject(ONION, fault)
        world.run(1.0)
        if world.end_of(ONION) is not None:
            return -float(count)
    raise AssertionError("faults end a link")


def shows_the_same_key(world: World) -> float:
    """The channel key that each face proves, the session's own name, and what the channel is."""
    peers = [world.dial(face) for face in (CLEAR, ONION)]
    keys = [peer.proved_key or world.addresses[face].key for face, peer in zip((CLEAR, ONION), peers, strict=True)]
    assert None not in keys, "both faces have proved one"
    return float(keys[0] == keys[1]) + (peers[0].session_id == peers[1].session_id)


def speaks_the_same_words(world: World) -> float:
    """Version, features, user agent and extensions of the handshake, less what the specification lets faces differ in."""
    said = [_words(world.dial(face).negotiated.peer) for face in (CLEAR, ONION)]
    return float(sum(one == other for one, other in zip(*said, strict=True)))


def _words(version: Version) -> tuple[object, ...]:
    differing = BUILT.privacy ^ BUILT_ANONYMOUS.privacy, BUILT.features ^ BUILT_ANONYMOUS.features
    told = tuple(each for each in version.extensions if each.type != OBSERVED_ADDRESS)
    flags = version.privacy_feature_flags & ~differing[0], version.feature_flags & ~differing[1]
    return (version.protocol_version, version.user_agent, told, *flags)


def goes_on_at_the_other_face(world: World) -> float:
    """A session that began at one face, resumed at the other: does anybody know it there."""
    world.dial_both()
    engine, now = world.attacker.assembly.engine, world.kernel.now
    session = engine._handover.movable(world.links[CLEAR])
    link = engine.begin(world.addresses[ONION], ONION, manual=True, purpose=Purpose.FULL)
    link.session, session.next = session, link  # what an honest node refuses to begin
    world.attacker.turn()
    world.run(60.0)
    assert world.kernel.now >= now + 60
    return float(engine._handover.generation(world.links[CLEAR]))


# --- Protections switched off -------------------------------------------------------------------------------------------


def one_audience(node: SimNode) -> None:
    """All inbound links of the node share one timer."""
    relay = node.assembly.relay
    assert relay is not None
    joined = relay.transactions.joined

    def join(peer: Any, now: float) -> None:
        joined(peer, now)
        if peer.is_inbound:
            relay.transactions._links[peer.link].audience = -1

    relay.transactions.joined = join  # type: ignore[method-assign]


def one_side(node: SimNode) -> None:
    """All faces share what was asked for, refused and seen."""
    relay = node.assembly.relay
    assert relay is not None
    sides = relay.transactions._sides
    for face in sides:
        sides[face] = sides[CLEAR]


def pings_by_the_clock(node: SimNode) -> None:
    """The phase of pings is the node's, not the link's."""
    liveness, phase = node.assembly.liveness, node.rng.uniform(0, 120)
    established = liveness.on_established

    def on_established(peer: Any, now: float) -> Any:
        effects = established(peer, now)
        liveness._timers.set(peer.link, now - now % 120 + phase + (120 if now % 120 > phase else 0))
        return effects

    liveness.on_established = on_established  # type: ignore[method-assign]


def one_clock(node: SimNode) -> None:
    """Rounded, and not shifted."""
    offer, assembly = node.assembly.engine._offer_for, node.assembly

    def exact(face: Face, remote: Any, is_bare: bool) -> Any:
        made = offer(face, remote, is_bare)
        unix = assembly.engine._unix()
        shown = unix if face is CLEAR else (unix + 150) // 300 * 300
        return msgspec.structs.replace(made, version=msgspec.structs.replace(made.version, timestamp=shown))

    assembly.engine._offer_for = exact


def one_nonce(node: SimNode) -> None:
    """The nonce is the node's, not the link's."""
    offer, nonce = node.assembly.engine._offer_for, node.rng.getrandbits(64)

    def constant(face: Face, remote: Any, is_bare: bool) -> Any:
        made = offer(face, remote, is_bare)
        return msgspec.structs.replace(made, version=msgspec.structs.replace(made.version, nonce=nonce))

    node.assembly.engine._offer_for = constant


def one_answer(node: SimNode) -> None:
    """getaddr gets the same answer on every face."""
    gossip = node.assembly.neighbours.gossip
    answer = gossip._answer
    gossip._answer = lambda face, now: answer(CLEAR, now)  # type: ignore[method-assign]


def one_book(node: SimNode) -> None:
    """How full the whole book is decides when answers are made anew."""
    book = node.assembly.book
    book.known_through = lambda face: len(book)  # type: ignore[method-assign]


def one_pool_of_slots(node: SimNode) -> None:
    """A face takes what the other leaves free, and gets it back when it is full."""
    inbound = node.assembly.neighbours.inbound

    def room_for(newcomer: Any, now: float) -> Any:
        peers = [peer for pool in inbound._peers.values() for peer in pool.values()]
        if len(peers) < inbound._max:
            return ()
        mine = [peer for peer in peers if peer.face is newcomer.face]
        pool = mine if len(mine) >= inbound._max // 2 else [peer for peer in peers if peer not in mine]
        goes = victim([inbound._candidate(peer, now) for peer in pool], b"")
        return None if goes is None else (Disconnect(goes.link, "makes room"),)

    inbound.room_for = room_for  # type: ignore[method-assign]


def one_bound_for_strangers(node: SimNode) -> None:
    """Strangers of all faces are counted together."""
    admissions = node.assembly.engine._admissions
    shared = Admissions.of(admissions, CLEAR)
    admissions.of = lambda face: shared  # type: ignore[method-assign]


def one_epoch(node: SimNode) -> None:
    """All faces begin their epochs together."""
    own = node.assembly.own_transactions
    assert own is not None
    dandelion, end = own.dandelion, node.rng.uniform(300, 600)
    established = dandelion.on_established

    def on_established(peer: Any, now: float) -> Any:
        effects = established(peer, now)
        dandelion._epochs.set(peer.face, end)
        return effects

    dandelion.on_established = on_established  # type: ignore[method-assign]


def news_for_all(node: SimNode) -> None:
    """What is new of one face is told to the peers of all."""
    gossip = node.assembly.neighbours.gossip
    announce = gossip.announce_all
    node.assembly.neighbours.own.add_external(node.address)

    def announce_all(now: float, face: Face) -> Any:
        return [effect for each in (CLEAR, ONION) for effect in announce(now, each)]

    gossip.announce_all = announce_all  # type: ignore[method-assign]


class Why(Message, frozen=True):
    """Why a link ends, as other protocols say it."""

    TYPE: ClassVar[str] = "reject"
    MAX_SIZE: ClassVar[int] = 1_000

    text: bytes

    def encode(self) -> bytes:
        return self.text

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        return cls(payload)


def with_reasons(node: SimNode) -> None:
    """Whoever is disconnected is told why, in words that hold something of the node's own."""
    engine, own = node.assembly.engine, node.rng.getrandbits(32)
    disconnect = engine.disconnect

    def told(link: int, why: str, now: float) -> bool:
        engine.send(link, Why(f"{why} (fault {own})".encode()), now)
        return disconnect(link, why, now)

    engine.disconnect = told  # type: ignore[method-assign]


def ends_late(node: SimNode) -> None:
    """A node takes its time to end a link: how long is its own."""
    engine, late_s = node.assembly.engine, node.rng.uniform(0.0, 3.0)
    disconnect, kernel = engine.disconnect, node.network.kernel

    def later(link: int, why: str, now: float) -> bool:
        kernel.at(now + late_s, lambda: (disconnect(link, why, kernel.now), node.turn()))
        return True

    engine.disconnect = later  # type: ignore[method-assign]


def one_score(node: SimNode) -> None:
    """Faults are held against all links together."""
    reputation = node.assembly.neighbours.reputation
    established, shared = reputation.on_established, _Score(0.0)

    def on_established(peer: Any, now: float) -> Any:
        effects = established(peer, now)
        reputation._scores[peer.link] = shared
        return effects

    reputation.on_established = on_established  # type: ignore[method-assign]


def one_key(node: SimNode) -> None:
    """The onion service has the channel key of the clearnet address."""
    network = node.network
    assert isinstance(network, FacedNetwork)
    static = node.listener.static
    assert static is not None
    network.onion_keys[node.number] = static


def own_words(node: SimNode) -> None:
    """What a node says of itself is its own: a build in the user agent, an extension, features of an application."""
    offer, own = node.assembly.engine._offer_for, node.rng.getrandbits(16)

    def marked(face: Face, remote: Any, is_bare: bool) -> Any:
        made = offer(face, remote, is_bare)
        said = {
            "user_agent": f"{made.version.user_agent} build {own}",
            "extensions": (*made.version.extensions, Extension(200, own.to_bytes(2, "big"))),
            "feature_flags": made.version.feature_flags | own << 8,
        }
        return msgspec.structs.replace(made, version=msgspec.structs.replace(made.version, **said))

    node.assembly.engine._offer_for = marked


def one_set_of_sessions(node: SimNode) -> None:
    """A session may go on at any face."""
    handover = node.assembly.engine._handover

    def find(link: Any, id: bytes) -> Any:
        session = handover._by_id.get(id)
        link.session = session
        return None if session is None else session.secret

    handover._find = find  # type: ignore[method-assign]


AT_ONCE = ("obscura.node.transactions.crossing_s", lambda rng: 0.0)
NO_LAG = ("obscura.node.shown.TIP_LAG_S", 0.0)
ATTACKS = {
    "inventory: diffused at the same time": Attack(diffused_at_the_same_time, one_audience, AT_ONCE, is_exact=False),
    "inventory: asks for what the other face has": Attack(asks_for_what_the_other_face_has, patch=AT_ONCE),
    "inventory: waits for the other face's answer": Attack(asks_for_what_the_other_face_waits_for, one_side),
    "inventory: refuses what the other face refused": Attack(refuses_what_the_other_face_refused, one_side),
    "tip: told at the same time": Attack(tip_at_the_same_time, patch=NO_LAG, changes={"uneven_s": 0.3}, is_exact=False),
    "tip: in the handshake": Attack(tip_in_the_handshake, patch=NO_LAG, changes={"uneven_s": 0.3}, is_exact=False),
    "tip: asked for": Attack(tip_asked_for, patch=NO_LAG, changes={"uneven_s": 0.3}, is_exact=False),
    "tip: transactions of a block not shown yet": Attack(
        gives_of_the_block_of_the_other_face, patch=NO_LAG, is_exact=False
    ),
    "timing: pings": Attack(pings_in_phase, pings_by_the_clock, is_exact=False),
    "timing: stem epochs": Attack(stem_epochs_in_phase, one_epoch, is_exact=False),
    "timing: clocks that are wrong alike": Attack(clocks_that_are_wrong_alike, one_clock, is_exact=False),
    "nonce, user agent, padding terms": Attack(says_the_same, one_nonce),
    "addr: the same answer": Attack(shows_the_same_addresses, one_answer),
    "addr: an answer renewed by the other face": Attack(answers_anew_when_the_other_face_is_fed, one_book),
    "addr: the own address is news": Attack(tells_of_the_other_face, news_for_all),
    "slots: links end": Attack(loses_a_link_when_the_other_face_fills, one_pool_of_slots, changes={"max_inbound": 12}),
    "strangers: connections end": Attack(drops_strangers_when_the_other_face_fills, one_bound_for_strangers),
    "faults: what is said of them": Attack(says_why_it_ends, with_reasons),
    "faults: how and when a link ends": Attack(ends_alike, ends_late),
    "faults: counted together": Attack(counts_faults_of_the_other_face, one_score),
    "channel keys": Attack(shows_the_same_key, one_key),
    "versions, features, user agent, extensions": Attack(speaks_the_same_words, own_words),
    "sessions: one of the other face goes on": Attack(goes_on_at_the_other_face, one_set_of_sessions),
}


def check_it_does_no_better_than_chance(attack: Attack) -> None:
    if attack.is_exact:
        assert len({*scores(attack, FEW, True), *scores(attack, FEW, False)}) == 1
    else:
        assert abs(measured(attack, SEEDS) - 0.5) < BOUND


def check_it_links_where_the_protection_is_off(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    if attack.patch is not None:
        monkeypatch.setattr(*attack.patch)
    assert measured(attack, FEW, attack.sabotage) >= LINKS


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_no_better_than_chance(name: str) -> None:
    check_it_does_no_better_than_chance(ATTACKS[name])


@pytest.mark.parametrize("name", ATTACKS)
def test_it_links_where_the_protection_is_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_it_links_where_the_protection_is_off(ATTACKS[name], monkeypatch)


def test_what_remains_one_transaction_handed_in_shows_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both faces follow one mempool: what is handed in at one appears at the other, as late as by a neighbour and no later.

    A node is nearer to itself than any other node is, so this is better than chance, and repeating it is better still
    (docs/threat-model.md). The delay takes a good part of it away.
    """
    attack = Attack(told_soon_after, is_exact=False)
    delayed = measured(attack, SEEDS)
    monkeypatch.setattr(*AT_ONCE)
    assert 0.5 < delayed < measured(attack, SEEDS) - 0.03
    assert delayed < 0.82
