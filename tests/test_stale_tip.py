"""A node whose outbound peers all withhold blocks finds the honest chain (simulator: shipped slots, chain and links)."""

from __future__ import annotations

import msgspec
import pytest

from chain_nodes import SETTINGS, Scripted, archive_of, chain_of, easy_ledger, network, nothing, relay_of, submit, told
from obscura.daemon.config import Config
from obscura.daemon.neighbours import neighbour_settings
from obscura.ledger.networks import load_network
from obscura.limits import SETTLED_S, STALE_CHECK_S, STALE_LEAST_S
from obscura.node.face import Face
from obscura.node.slots import OutboundLimits
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.messages.blocks import GetHeaders, Headers
from obscura.wire.messages.transactions import GetData
from playbook import QUIET

LIARS, HONEST = 6, 3
SLOTS = OutboundLimits(full=3, blocks=1)
QUIETLY = msgspec.structs.replace(SETTINGS, knobs=QUIET)
ALONE = msgspec.structs.replace(QUIETLY, outbound=OutboundLimits(0, 0, False))  # dials nobody: the victim has to


def surrounded(spacing_s: float) -> tuple[SimNetwork, SimNode, list[bytes]]:
    """A victim all of whose slots are taken by peers that keep new blocks to themselves; the blocks that honest ones have."""
    ledger = easy_ledger()
    blocks = chain_of(ledger, 12)
    net = network()
    old = archive_of(ledger, blocks[:4])
    victim = net.add(msgspec.structs.replace(QUIETLY, outbound=SLOTS, spacing_s=spacing_s), archive=old)
    for _ in range(LIARS):
        net.add(ALONE, archive=archive_of(ledger, blocks[:4]))  # they say that this is all there is
    for _ in range(HONEST):
        net.add(ALONE, archive=archive_of(ledger, blocks[:8]))
    book = victim.assembly.book
    book.add_seeds([node.address for node in net.nodes[1 : 1 + LIARS]], True, Face.CLEARNET, 0.0)
    victim.turn()
    net.kernel.run(until=120.0)
    assert len(victim.peers) == SLOTS.full + SLOTS.blocks
    book.add_seeds([node.address for node in net.nodes[1 + LIARS :]], True, Face.CLEARNET, net.kernel.now)
    victim.turn()
    return net, victim, blocks


def test_a_node_among_withholding_peers_finds_the_honest_chain() -> None:
    net, victim, blocks = surrounded(60.0)
    tries = LIARS + HONEST  # one more peer at each look; the worst order meets all liars first, twice
    net.kernel.run(until=SETTLED_S + STALE_LEAST_S + 4 * tries * STALE_CHECK_S)
    assert told(victim, "stale-tip")
    assert relay_of(victim).chain.best == easy_ledger().block_id(blocks[7][:80])
    assert relay_of(victim).best_block()[1] == 8  # bodies and all
    assert sum(not peer.is_inbound for peer in victim.peers) <= SLOTS.full + SLOTS.blocks
    honest = next(node for node in net.nodes[1 + LIARS :] if node.peers)
    for raw in blocks[8:]:  # and stays with it: the link that brought blocks is not the one that goes
        submit(honest, raw)
        net.kernel.run(until=net.kernel.now + 60)
    assert relay_of(victim).best_block()[1] == 12


def headers_alone(blocks: list[bytes]) -> Scripted:
    """A peer that shows every header and gives no body."""
    headers = [raw[:80] for raw in blocks]
    ids = [easy_ledger().block_id(header) for header in headers]

    def answer(peer: object, message: GetHeaders) -> list[Headers]:
        start = next((ids.index(entry) + 1 for entry in message.locator if entry in ids), 0)
        return [Headers(tuple(headers[start:]))]

    return Scripted({GetHeaders: answer, GetData: nothing})


def test_peers_that_show_headers_and_keep_the_bodies_lose_their_slots() -> None:
    """The best header moves, so its age says nothing: the download's patience ends such links, and the slots are filled anew."""
    ledger = easy_ledger()
    blocks = chain_of(ledger, 12)
    net = network()
    victim = net.add(msgspec.structs.replace(QUIETLY, outbound=SLOTS, spacing_s=60.0), archive=archive_of(ledger))
    for _ in range(LIARS):
        net.add(ALONE, parts=[headers_alone(blocks)])
    book = victim.assembly.book
    book.add_seeds([node.address for node in net.nodes[1:]], True, Face.CLEARNET, 0.0)
    victim.turn()
    net.kernel.run(until=5.0)
    assert relay_of(victim).chain.best_height == 12
    assert relay_of(victim).best_block()[1] == 0
    honest = [net.add(ALONE, archive=archive_of(ledger, blocks)) for _ in range(HONEST)]
    book.add_seeds([node.address for node in honest], True, Face.CLEARNET, net.kernel.now)
    victim.turn()
    net.kernel.run(until=1_800.0)
    assert relay_of(victim).best_block()[1] == 12


def test_without_the_look_at_the_tip_it_stays_in_the_dark() -> None:
    """The control: the same node and time, with blocks on request, where no age of a tip means anything."""
    net, victim, _ = surrounded(0.0)
    net.kernel.run(until=SETTLED_S + STALE_LEAST_S + STALE_CHECK_S)
    assert not told(victim, "stale-tip")
    assert relay_of(victim).best_block()[1] == 4


@pytest.mark.parametrize("name", ["test", "main", "bitcoin"])
def test_networks_with_a_spacing_watch_their_tip(name: str) -> None:
    assert neighbour_settings(Config(network=name), load_network(name))["spacing_s"] > 0
