"""What one peer can make a node hold or do by asking: bounded, whatever it asks for and however slowly it reads."""

from __future__ import annotations

from collections import Counter
from random import Random
from time import process_time
from types import SimpleNamespace

import msgspec
import pytest

from chain_nodes import SETTINGS, START, Scripted, archive_of, chain_of, easy_ledger, network, relay_of, submit, told
from obscura import limits
from obscura.ledger.chain import Chain
from obscura.node.blocks import Blocks
from obscura.node.blocksource import Request
from obscura.node.download import Download
from obscura.node.effects import AwaitRoom, Penalise, Send
from obscura.node.face import Face
from obscura.node.serving import Serving, Wanted
from obscura.wire.messages.blocks import GetHeaders, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, NotFound
from small_chains import extend

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


def many_sources(count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Download, Counter[str]]:
    """A window of small blocks, of which as many peers have all as may be linked; and what is looked at."""
    chain, looked = Chain(LEDGER), Counter[str]()
    extend(LEDGER, chain, chain.genesis, limits.BLOCK_WINDOW + 100)
    blocks = Blocks(chain, lambda: START + 10**9)
    blocks.size_expected = 300.0
    download = Download(blocks)
    for link in range(1, count + 1):
        peer = SimpleNamespace(is_inbound=True, is_manual=False)
        download.joined(SimpleNamespace(link=link, best=chain.best, has_compact=False, peer=peer))  # type: ignore[arg-type]
    at, wait_s = chain.at, Request.wait_s

    def counted_at(height: int) -> bytes:
        looked["heights"] += 1
        return at(height)

    def counted_wait(request: Request, comes: bool) -> float:
        looked["waits"] += 1
        return wait_s(request, comes)

    monkeypatch.setattr(chain, "at", counted_at)
    monkeypatch.setattr(Request, "wait_s", counted_wait)
    return download, looked


def test_many_peers_that_lack_blocks_do_not_have_the_window_looked_through_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """115 of them that said so one block after the other took 94 s of the processor."""
    download, looked = many_sources(60, monkeypatch)
    asked = download.assign(0.0)
    answers = 0
    while asked:
        question = asked.pop(0)
        assert isinstance(question, Send)
        assert isinstance(question.message, GetData)
        for item in question.message.items:
            answers += 1
            asked += download.lacks(question.link, [item.hash], 0.1)
    assert answers > 60 * limits.BLOCKS_IN_FLIGHT
    assert looked["heights"] < 1_000 * answers, "each peer went through the window after each answer"


def test_peers_with_nothing_to_do_do_not_each_look_through_all_that_is_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 115 of them each second of a sync had 0.16 s of it."""
    download, looked = many_sources(60, monkeypatch)
    download.assign(0.0)
    assert download.in_flight == limits.BLOCK_WINDOW
    effects = download.due(limits.BLOCK_STEAL_S)
    stolen = [effect.message.items[0].hash for effect in effects if isinstance(effect, Send)]  # type: ignore[attr-defined]
    assert len(set(stolen)) == len(stolen) > 40, "each idle one is asked for another block"
    assert looked["waits"] <= 2 * limits.BLOCK_WINDOW
