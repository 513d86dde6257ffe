"""Blocks that the disk damaged are asked of peers anew: the chain stays as it is meanwhile, and nothing else is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from chain_nodes import SETTINGS, Scripted, archive_of, chain_of, easy_ledger, network, relay_of
from obscura.daemon.node import Node
from obscura.errors import UserError
from obscura.limits import REFETCH_REST_S, REFETCH_S
from obscura.node.peer import Peer
from obscura.store.sqlite import FILE_NAME
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Block, GetHeaders, Headers
from obscura.wire.messages.transactions import GetData, NotFound
from test_chain_node import call, config, dev_blocks, in_file, until


def flip(folder: Path, *heights: int, crashed: bool = False) -> None:
    """What a failing disk does to bodies, and whether the node was killed before."""
    connection = sqlite3.connect(next(folder.rglob(FILE_NAME)))
    for height in heights:
        connection.execute("UPDATE blocks SET raw = zeroblob(size) WHERE height = ?", (height,))
    if crashed:
        connection.execute("UPDATE meta SET value = x'00' WHERE key = 'clean'")
    connection.commit()
    connection.close()


async def damaged(node: Node) -> list[str]:
    return (await call(node, "chain.verify"))["damaged"]  # type: ignore[return-value]


def test_what_a_verification_finds_comes_anew_and_the_tip_stays(tmp_path: Path) -> None:
    blocks = dev_blocks(40, 95_000)

    async def scenario() -> None:
        async with Node(config(tmp_path / "whole")) as whole:
            await call(whole, "chain.import", str(in_file(tmp_path / "blocks", blocks)))
            async with Node(config(tmp_path / "hurt")) as hurt:
                await hurt.connect(whole.addresses[0])
                await until(lambda: hurt.relay.blocks.tip_height == 40)
                size = hurt.archive.store.body_bytes
            flip(tmp_path / "hurt", 1, 7, 39)
            async with Node(config(tmp_path / "hurt")) as hurt:
                assert hurt.relay.blocks.tip_height == 40
                assert len(await damaged(hurt)) == 3
                assert len(await damaged(hurt)) == 3, "nobody is there to give them"
                with pytest.raises(UserError, match="is damaged on the disk: peers are asked for it anew"):
                    await call(hurt, "block.get", "7", raw=True)
                await hurt.connect(whole.addresses[0])
                await until(lambda: not hurt.relay.blocks.lost)
                await hurt.archive.written(hurt.relay.blocks.newest_token)
                assert await damaged(hurt) == []
                assert hurt.relay.blocks.tip_height == 40
                assert hurt.archive.store.body_bytes == size
                assert (await call(hurt, "block.get", "7", raw=True))["raw"] == blocks[6].hex()
            async with Node(config(tmp_path / "hurt")) as again:
                assert (await damaged(again), again.relay.blocks.tip_height) == ([], 40)

    asyncio.run(scenario())


def test_a_damaged_block_that_a_peer_asks_for_comes_anew_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path / "whole")) as whole:
            await call(whole, "chain.import", str(in_file(tmp_path / "blocks", dev_blocks(10, 500))))
            async with Node(config(tmp_path / "hurt")) as hurt:
                await hurt.connect(whole.addresses[0])
                await until(lambda: hurt.relay.blocks.tip_height == 10)
                flip(tmp_path / "hurt", 4)
                async with Node(config(tmp_path / "new")) as new:
                    await new.connect(hurt.addresses[0])
                    await until(lambda: new.relay.blocks.tip_height == 3)
                    await until(lambda: not hurt.relay.blocks.lost)
                    assert await damaged(hurt) == []
                async with Node(config(tmp_path / "new")) as new:
                    await new.connect(hurt.addresses[0])
                    await until(lambda: new.relay.blocks.tip_height == 10)
                assert len(whole.engine.links) == 1, "nobody was ended"

    asyncio.run(scenario())


def test_what_a_crash_damaged_comes_anew_without_a_word_of_the_user(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path / "whole")) as whole:
            await call(whole, "chain.import", str(in_file(tmp_path / "blocks", dev_blocks(10, 500))))
            async with Node(config(tmp_path / "hurt")) as hurt:
                await hurt.connect(whole.addresses[0])
                await until(lambda: hurt.relay.blocks.tip_height == 10)
            flip(tmp_path / "hurt", 6, 10, crashed=True)
            async with Node(config(tmp_path / "hurt")) as hurt:
                assert hurt.relay.blocks.tip_height == 5
                await hurt.connect(whole.addresses[0])
                await until(lambda: hurt.relay.blocks.tip_height == 10)
                assert await damaged(hurt) == []

    asyncio.run(scenario())


def test_peers_that_pruned_it_are_asked_once_an_hour_and_whoever_has_it_gives_it() -> None:
    ledger = easy_ledger()
    blocks = chain_of(ledger, 5)
    third = ledger.block_id(blocks[2][:80])
    net = network()
    hurt = net.add(SETTINGS, archive=archive_of(ledger, blocks))
    asked = []

    def pruned(peer: Peer, message: GetData) -> list[NotFound]:
        asked.append(net.kernel.now)
        return [NotFound(message.items)]

    answers = {GetHeaders: lambda peer, message: [Headers(tuple(raw[:80] for raw in blocks))], GetData: pruned}
    for _ in range(2):
        net.add(SETTINGS, parts=[Scripted(answers)]).connect(hurt.address)
    net.kernel.run(until=5)
    relay_of(hurt).blocks.lose(third)
    hurt.apply(())
    net.kernel.run(until=REFETCH_REST_S / 2)
    assert len(asked) == 2
    assert asked[1] - asked[0] >= REFETCH_S - 1
    assert len(hurt.peers) == 2, "to have pruned it is no fault"
    net.add(SETTINGS, archive=archive_of(ledger, blocks)).connect(hurt.address)
    net.kernel.run(until=REFETCH_REST_S + 5 * REFETCH_S)
    assert len(asked) <= 4
    assert not relay_of(hurt).blocks.lost
    assert relay_of(hurt).blocks.tip_height == 5


def test_who_pruned_what_the_disk_damaged_is_asked_for_new_blocks_all_the_same() -> None:
    """Sixteen answers that it lacks such a one had it asked for nothing during two minutes, again and again."""
    ledger = easy_ledger()
    blocks = chain_of(ledger, 41)
    net = network()
    node = net.add(SETTINGS, archive=archive_of(ledger, blocks[:40]))
    new = {ledger.block_id(blocks[40][:80]): blocks[40]}

    def give(peer: Peer, message: GetData) -> list[Message]:
        lacked = tuple(item for item in message.items if item.hash not in new)
        return [*([NotFound(lacked)] if lacked else []), *(Block(new[i.hash]) for i in message.items if i.hash in new)]

    pruned = Scripted({GetHeaders: lambda peer, message: [Headers((blocks[39][:80],))], GetData: give})
    played = net.add(SETTINGS, parts=[pruned])
    played.connect(node.address)
    net.kernel.run(until=1.0)
    relay = relay_of(node)
    for raw in blocks[:20]:
        relay.blocks.lose(ledger.block_id(raw[:80]))
    net.kernel.run(until=2 * REFETCH_S + 5.0)
    asked = [item for message in pruned.of(GetData) for item in message.items]  # type: ignore[attr-defined]
    assert len(asked) == 20, "each once"
    played.send(played.peers[0].link, Headers((blocks[40][:80],)))
    net.kernel.run(until=2 * REFETCH_S + 8.0)
    assert relay.blocks.tip_height == 41


def test_blocks_that_nobody_has_keep_no_other_from_being_asked_for() -> None:
    """The first sixteen were asked of one peer after the other, and an hour later again: of a hundred most never were."""
    ledger = easy_ledger()
    blocks = chain_of(ledger, 60)
    net = network()
    node = net.add(SETTINGS, archive=archive_of(ledger, blocks))
    parts = []
    for _ in range(5):
        lacks = {GetHeaders: lambda peer, message: [Headers((blocks[59][:80],))]}
        parts.append(Scripted({**lacks, GetData: lambda peer, message: [NotFound(message.items)]}))
        net.add(SETTINGS, parts=[parts[-1]]).connect(node.address)
    net.kernel.run(until=1.0)
    relay = relay_of(node)
    for raw in blocks:
        relay.blocks.lose(ledger.block_id(raw[:80]))
    net.kernel.run(until=4 * REFETCH_S + 5.0)
    asked = {i.hash for part in parts for message in part.of(GetData) for i in message.items}  # type: ignore[attr-defined]
    assert len(asked) == 60
