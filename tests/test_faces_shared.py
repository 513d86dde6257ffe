"""More attacks of ``test_faces_unlinkable``: on what the faces of a node share because they follow one chain and one mempool.

As there, each must do no better than chance, and each has a control that links.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chain_nodes import easy_ledger, relay_of, submit, transactions
from face_worlds import CLEAR, ONION, World
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template
from obscura.ledger.port import Transaction
from obscura.limits import COMPACT_VERSION, HIGH_BANDWIDTH_PEERS, LEAVING_BYTES, MEMPOOL_ASKED, TX_KNOWN, TX_REFUSED
from obscura.linkevents import Reason
from obscura.node.effects import LinkId
from obscura.node.face import Face
from obscura.node.link import Link
from obscura.node.side import Side
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.network import SimNode
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Block, GetHeaders, Headers, Inv, InventoryItem, InventoryKind, SendCmpct
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, Tx
from small_chains import START, mined
from test_faces_unlinkable import (
    Attack,
    check_it_does_no_better_than_chance,
    check_it_links_where_the_protection_is_off,
    has,
    inventory,
    near,
)

POLL_S = 0.05

# --- What an attacker looks at ------------------------------------------------------------------------------------------


def block_on(parents: list[bytes], *inside: Transaction, salt: int = 0) -> bytes:
    """A block on the last of these."""
    ledger = easy_ledger()
    chain = Chain(ledger)
    for raw in parents:
        assert chain.add(raw[:80], START + 10**9) is None
    raw = block_template(ledger, chain.branch(chain.best), inside, START, random.Random(f"block {salt}"))
    return mined(raw[:80]) + raw[80:]


def polled(world: World, ask: Callable[[Face], Message], seconds: float) -> None:
    """Ask both faces again and again."""
    for _ in range(int(seconds / POLL_S)):
        for face in (CLEAR, ONION):
            world.send(face, ask(face))
        world.run(POLL_S)


def given_until(world: World, raw: Callable[[Transaction], bytes]) -> float:
    """A transaction that both faces announced, asked for again and again while a block is new: until when is it given."""
    given = world.transactions[0]
    world.dial_both()
    world.give_transaction(0)
    world.run(60.0)
    submit(world.neighbour, raw(given))
    polled(world, lambda face: GetData(inventory(given).items), 5.0)
    return near(*(world.first(face, NotFound, has(given)) for face in (CLEAR, ONION)))


def leaves_with_a_block(world: World) -> float:
    """The block has it."""
    return given_until(world, lambda given: block_on(world.blocks[:1], given))


def leaves_for_a_conflict(world: World) -> float:
    """The block has another one that spends what it spends."""
    decode = easy_ledger().decode_transaction
    return given_until(world, lambda given: block_on(world.blocks[:1], decode(given.raw[:-4] + bytes([1, 0, 0, 0]))))


def gives_a_block_beside_the_chain(world: World) -> float:
    """A block that comes second at its height, and never is the tip: when does each face begin to give it."""
    world.dial_both()
    world.give_block(1)
    world.run(5.0)
    beside = block_on(world.blocks[:1], salt=1)
    for node in world.victims:  # it comes as the tip of a neighbour that was first with it
        late_s = world.network.latency(world.neighbour.number, node.number)
        world.kernel.at(world.kernel.now + late_s, lambda node=node: submit(node, beside))  # type: ignore[misc]
    question = GetData((InventoryItem(InventoryKind.BLOCK, easy_ledger().block_id(beside[:80])),))
    polled(world, lambda face: question, 5.0)
    return near(*(world.first(face, Block, lambda message: message.raw == beside) for face in (CLEAR, ONION)))


def follows_another_branch(world: World) -> float:
    """A reorganisation: when does each face show the new branch's first header, which is no higher than the tip before."""
    world.dial_both()
    world.give_block(1)
    world.run(5.0)
    beside = [*world.blocks[:1], block_on(world.blocks[:1], salt=1)]
    for raw in (beside[1], block_on(beside, salt=2)):
        submit(world.neighbour, raw)
    question = GetHeaders(1, (easy_ledger().block_id(world.blocks[0][:80]),), bytes(32))
    polled(world, lambda face: question, 5.0)
    return near(
        *(world.first(face, Headers, lambda message: beside[1][:80] in message.headers) for face in (CLEAR, ONION))
    )


def knows_a_locator(world: World) -> float:
    """Headers asked for from a new block, or else the genesis: from when on is there nothing that follows."""
    world.dial_both()
    question = GetHeaders(
        1, (easy_ledger().block_id(world.blocks[1][:80]), easy_ledger().block_id(easy_ledger().genesis)), bytes(32)
    )
    world.give_block(1)
    polled(world, lambda face: question, 5.0)
    return near(*(world.first(face, Headers, lambda message: not message.headers) for face in (CLEAR, ONION)))


def asks_from_a_new_block(world: World) -> float:
    """Blocks that are not known are told of again and again, and headers asked for each time: from when on below a new one."""
    world.dial_both()
    world.give_block(1)
    world.run(5.0)
    world.give_block(2)
    unknown = Inv((InventoryItem(InventoryKind.BLOCK, bytes(range(32))),))
    polled(world, lambda face: unknown, 5.0)
    new = easy_ledger().block_id(world.blocks[1][:80])
    return near(*(world.first(face, GetHeaders, lambda message: message.locator[0] == new) for face in (CLEAR, ONION)))


def asks_for_what_a_block_brought(world: World) -> float:
    """A transaction of a block that the other face got just now: a node that has it does not ask."""
    world.dial_both()
    submit(world.behind[CLEAR], block_on(world.blocks[:1], world.transactions[0]))
    world.send(ONION, inventory(world.transactions[0]))
    world.run(0.1)
    return float(not world.got(ONION, GetData))


def asks_for_mempools(world: World) -> float:
    """As many links at one face as are asked for their mempools, then one at the other: is that one asked."""
    world.dial_many(CLEAR, MEMPOOL_ASKED)
    world.dial(ONION)
    return float(not world.got(ONION, MempoolRequest))


def chooses_for_compact_blocks(world: World) -> float:
    """A link of one face is asked to send blocks unasked; as many of the other are first after that: is it to go on."""
    speaks_of_compact_blocks(world.attacker)
    world.dial(CLEAR)
    others = world.dial_many(ONION, HIGH_BANDWIDTH_PEERS)
    blocks = world.blocks[:1]
    for link in (world.links[CLEAR], *others):
        blocks.append(block_on(blocks))
        is_first_with(world, link, blocks[-1])
    told = [message.announce for _, message in world.got(CLEAR, SendCmpct)]
    assert True in told, "it was asked to"
    return float(not told[-1])


def forgets_who_knows(world: World) -> float:
    """An id announced at one face, very many at the other, then its transaction: is it announced to who announced it."""
    world.dial_both()
    given = world.transactions[0]
    world.send(ONION, inventory(given))
    world.run(1.0)
    world.send(ONION, NotFound(inventory(given).items))
    many = [InventoryItem(InventoryKind.TX, number.to_bytes(32, "big")) for number in range(2 * TX_KNOWN)]
    for at in range(0, len(many), 1_000):
        world.send(CLEAR, Inv(tuple(many[at : at + 1_000])))
        world.run(1.2)  # within the rate
    world.give_transaction(0)
    world.run(90.0)
    return float(any(has(given)(message) for _, message in world.got(ONION, Inv)))


def loses_a_link_for_what_the_other_face_holds(world: World) -> float:
    """Links of one face make the node hold much, and one of the other a little more than each of them: does it end."""
    for node in world.victims:
        node.assembly.engine._memory._budget = 1_000_000
    world.dial(ONION)
    world.send(ONION, *[Inv((InventoryItem(InventoryKind.BLOCK, bytes(32)),) * 3_000)] * 3)  # more than its rate
    for link in world.dial_many(CLEAR, 4):
        for _ in range(7):
            world.attacker.send(link, Inv((InventoryItem(InventoryKind.BLOCK, bytes(32)),) * 1_000))
    world.run(0.5)
    return float(world.end_of(ONION) is not None)


def gets_less_cover_when_the_other_face_fills(world: World) -> float:
    """How many dummies a link gets of a bounded budget, before and after the other face has many links."""
    world.dial(ONION)
    link = world.attacker.assembly.engine.links[world.links[ONION]].connection
    assert link is not None
    world.run(100.0)
    before = link.dummies_received
    world.dial_many(CLEAR, 20)
    world.run(100.0)
    return before - (link.dummies_received - before)


def speaks_of_compact_blocks(node: SimNode) -> None:
    """The attacker's node has no chain, and says in the handshake what one with a chain would."""
    offer = node.assembly.engine._offer_for

    def with_compact(face: Face, remote: Any, is_bare: bool) -> Any:
        return msgspec.structs.replace(offer(face, remote, is_bare), compact=SendCmpct(False, COMPACT_VERSION))

    node.assembly.engine._offer_for = with_compact


def is_first_with(world: World, link: LinkId, raw: bytes) -> None:
    """Give a block over one of the attacker's links, and let everybody have it."""
    world.attacker.send(link, Headers((raw[:80],)))
    world.run(0.1)
    world.attacker.send(link, Block(raw))
    world.run(3.0)


# --- Protections switched off -------------------------------------------------------------------------------------------


class Together(defaultdict[Any, Any]):
    """What was kept for each face, once for all."""

    def __getitem__(self, face: object) -> Any:
        return super().__getitem__(None)

    def __setitem__(self, face: object, value: Any) -> None:
        super().__setitem__(None, value)


def one_count_of_inbound(node: SimNode) -> None:
    """Links of all faces are counted together."""
    relay_of(node)._inbound = Together(int)  # type: ignore[assignment]


def one_choice_of_peers(node: SimNode) -> None:
    """Three peers of the whole node send blocks unasked."""
    relay_of(node)._compact._chosen = Together(list)


def one_memory_of_who_knows(node: SimNode) -> None:
    """Who knows of what is remembered for all faces together."""
    sides = relay_of(node).transactions._sides
    shared = sides[CLEAR].knowers
    waits = shared.waits
    shared.waits = lambda id: None if id in shared._waiting else waits(id)  # type: ignore[method-assign]
    for side in sides.values():
        side.knowers = shared


def answers_from_the_tree(node: SimNode) -> None:
    """What a face gives follows from what is here, whether or not it was shown."""
    relay = relay_of(node)
    relay._shown.gives = lambda face, id: relay.blocks.may_show(id, relay.chain.tip)  # type: ignore[method-assign]
    relay._shown.known = lambda face, locator: locator  # type: ignore[method-assign]


FEW_DUMMIES = msgspec.structs.replace(LEVELS[PrivacyLevel.MEDIUM], cover_bytes_per_s=300)
NO_LAG = ("obscura.node.shown.TIP_LAG_S", 0.0)


def one_budget_of_cover(node: SimNode) -> None:
    """Dummies of all faces are paid from one budget."""
    engine = node.assembly.engine
    of = engine._shaping
    engine._shaping = lambda face: of(CLEAR)


def one_memory(node: SimNode) -> None:
    """What is held for the links of all faces is counted together."""
    engine = node.assembly.engine
    engine._memory._held = Together(int)  # type: ignore[assignment]
    cut = engine.cut

    def cut_greediest(link: Link, reason: Reason, now: float) -> None:
        cut(max(engine.links.values(), key=lambda each: each.memory) if reason is Reason.STALLED else link, reason, now)

    engine.cut = cut_greediest  # type: ignore[method-assign]


ATTACKS = {
    "leaves: with a block": Attack(leaves_with_a_block, patch=NO_LAG, changes={"uneven_s": 0.3}, is_exact=False),
    "leaves: for a conflict": Attack(leaves_for_a_conflict, patch=NO_LAG, changes={"uneven_s": 0.3}, is_exact=False),
    "branches: beside the chain": Attack(
        gives_a_block_beside_the_chain, answers_from_the_tree, changes={"uneven_s": 0.3}, is_exact=False
    ),
    # Both blocks are asked for, so that how far a neighbour is counts for more.
    "branches: another one": Attack(follows_another_branch, patch=NO_LAG, changes={"uneven_s": 0.15}, is_exact=False),
    "branches: from a new block": Attack(
        knows_a_locator, answers_from_the_tree, changes={"uneven_s": 0.3}, is_exact=False
    ),
    "branches: asks from a new block": Attack(
        asks_from_a_new_block, patch=NO_LAG, changes={"uneven_s": 0.3}, is_exact=False
    ),
    "leaves: asks for what a block brought": Attack(asks_for_what_a_block_brought, patch=NO_LAG),
    "asks for mempools": Attack(asks_for_mempools, one_count_of_inbound),
    "compact blocks: who sends unasked": Attack(chooses_for_compact_blocks, one_choice_of_peers),
    "cover: paid from one budget": Attack(
        gets_less_cover_when_the_other_face_fills, one_budget_of_cover, changes={"knobs": FEW_DUMMIES}, is_exact=False
    ),
    "memory: a link ends": Attack(loses_a_link_for_what_the_other_face_holds, one_memory),
    "inventory: forgets who knows": Attack(forgets_who_knows, one_memory_of_who_knows),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_no_better_than_chance(name: str) -> None:
    check_it_does_no_better_than_chance(ATTACKS[name])


@pytest.mark.parametrize("name", ATTACKS)
def test_it_links_where_the_protection_is_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_it_links_where_the_protection_is_off(ATTACKS[name], monkeypatch)


def test_what_comes_back_before_a_face_showed_that_it_left_was_there_all_the_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block has it, and one block later a reorganisation leaves that block."""
    monkeypatch.setattr("obscura.node.shown.TIP_LAG_S", 20.0)
    world = World(7, one=True)
    given = world.transactions[0]
    world.dial_both()
    world.give_transaction(0)
    world.run(60.0)
    beside = [*world.blocks[:1], block_on(world.blocks[:1], salt=1)]
    for raw in (block_on(world.blocks[:1], given), beside[1], block_on(beside, salt=2)):
        submit(world.victims[0], raw)
    world.run(60.0)
    assert relay_of(world.victims[0]).blocks.tip_height == 3
    for face in (CLEAR, ONION):
        now = world.kernel.now
        world.send(face, GetData(inventory(given).items))
        world.run(1.0)
        assert [message.raw for _, message in world.got(face, Tx, now)] == [given.raw]


def test_what_left_is_kept_within_bounds() -> None:
    side, some = Side(ONION, shows_late=True), transactions(90, size=100_000)
    for transaction in some:
        side.leave(transaction.id, transaction)
        side.leave(transaction.id, transaction)
    kept = LEAVING_BYTES // 100_000
    assert side.take_left(all=False) == [transaction.id for transaction in some[:-kept]]
    assert side.take_left(all=False) == []
    for number in range(TX_REFUSED):
        side.leave(number.to_bytes(32, "big"), None)
    assert len(side.take_left(all=False)) == kept
    assert len(side.take_left(all=True)) == TX_REFUSED
    assert not side.leaving
