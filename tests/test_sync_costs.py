"""What one peer can make a node hold or do by asking: bounded, whatever it asks for and however slowly it reads."""

from __future__ import annotations

from random import Random
from time import process_time

import msgspec

from chain_nodes import SETTINGS, START, Scripted, archive_of, chain_of, easy_ledger, network, relay_of, submit, told
from obscura import limits
from obscura.ledger.chain import Chain
from obscura.node.blocks import Blocks
from obscura.node.effects import AwaitRoom, Penalise
from obscura.node.face import Face
from obscura.node.serving import Serving, Wanted
from obscura.wire.messages.blocks import GetHeaders, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, NotFound

LEDGER = easy_ledger()
BLOCKS = chain_of(LEDGER, 3)
IDS = [LEDGER.block_id(raw[:80]) for raw in BLOCKS]


def unknown(count: int) -> list[InventoryItem]:
    """Transactions that nobody has."""
    rng = Random(count)
    return [InventoryItem(InventoryKind.TX, rng.randbytes(32)) for _ in range(count)]


def test_who_does_not_read_may_ask_for_so_many_transactions_and_no_more() -> None:
    blocks = Blocks(Chain(LEDGER), lambda: START + 10**9)
    for raw in BLOCKS:
        assert blocks.accept(raw)[1] is None
    serving = Serving(blocks, lambda link, id: None, lambda link, id: True)
    serving.joined(1)
    serving.ask(1, [Wanted(InventoryItem(InventoryKind.BLOCK, IDS[0]))])
    effects = [*blocks.fetched(1, BLOCKS[0], 0.0)]
    assert effects[-1] == AwaitRoom(1), "nothing more is given until it has read"
    items = [Wanted(item) for item in unknown(limits.MAX_INVENTORY)]
    assert serving.ask(1, items) == [], "as many as one message holds"
    assert isinstance(serving.ask(1, items[:1])[0], Penalise)
    assert serving.room(1) == [], "nothing of it is kept"
    assert isinstance(serving.ask(1, items[:1])[0].message, NotFound)  # type: ignore[attr-defined]


def test_a_question_costs_no_more_while_a_face_does_not_show_the_newest_block() -> None:
    net = network()
    both = msgspec.structs.replace(SETTINGS, faces=frozenset({Face.CLEARNET, Face.ONION}))
    node = net.add(both, archive=archive_of(LEDGER, BLOCKS[:2]))
    part = Scripted({GetHeaders: lambda peer, message: None, NotFound: lambda peer, message: None})
    played = net.add(SETTINGS, parts=[part])
    played.connect(node.address)
    net.kernel.run(until=1.0)
    submit(node, BLOCKS[2])
    net.kernel.run(until=1.1)
    assert not relay_of(node)._shown.gives(Face.CLEARNET, IDS[2])
    hidden = [InventoryItem(InventoryKind.BLOCK, IDS[2])] * limits.BLOCKS_WANTED
    played.send(played.peers[0].link, GetData((*hidden, *unknown(limits.MAX_INVENTORY - len(hidden)))))
    began = process_time()
    net.kernel.run(until=1.3)
    assert process_time() - began < 5.0, "each was compared with each"
    assert part.of(NotFound)
    assert not told(node, "penalty")
