"""Private broadcast of real nodes over real sockets: receipts, outbox, and what is told to whom."""

from __future__ import annotations

import asyncio
import errno
import random
import stat
from pathlib import Path

import msgspec
import pytest

from obscura.daemon.config import Config
from obscura.daemon.datadir import DataDir
from obscura.daemon.methods import control_methods
from obscura.daemon.node import Node
from obscura.daemon.outbox import FileOutbox, Receipts
from obscura.errors import ConfigError, UserError
from obscura.ledger.mining import filler_transaction
from obscura.limits import MAX_OWN_BROADCASTS
from obscura.node.broadcast import Policy, Receipt, Stage, Submission
from obscura.node.face import Face
from obscura.shaping.levels import CustomKnobs

RAW = filler_transaction(random.Random(4))


def config(folder: Path, **given: object) -> Config:
    return Config(network="dev", data_dir=folder, listen=("127.0.0.1:0",), **given)  # type: ignore[arg-type]


async def steps(node: Node, until: Stage, **given: object) -> list[Receipt]:
    told = []
    async with asyncio.timeout(90):
        async for receipt in node.broadcast(RAW, **given):  # type: ignore[arg-type]
            told.append(receipt)
            if receipt.stage is until:
                break
    return told


def test_the_second_node_of_a_network_of_two_sends_privately_and_sees_it_back(tmp_path: Path) -> None:
    # Its embargo is half a day: it never diffuses before the other tells it.
    patient = CustomKnobs(fluff_probability=0.005)
    sender = config(tmp_path / "b", privacy="custom", privacy_custom=patient)

    async def scenario() -> None:
        async with Node(config(tmp_path / "a"), rng=random.Random(3)) as first, Node(sender) as second:
            await second.connect(first.addresses[0])
            events = second.events()
            told = await steps(second, Stage.SEEN)
            assert [receipt.stage for receipt in told] == [Stage.QUEUED, Stage.STEMMED, Stage.SEEN]
            assert told[1].first_hop_can_know, "the only peer knows that nobody else could have sent it"
            assert told[0].id in first.relay.transactions.mempool
            events.close()
            kinds = [event["kind"] async for event in events]
            assert set(kinds) <= {"peer-connected", "transaction"}

    asyncio.run(scenario())


def test_a_node_alone_waits_and_then_sends_unprotected_or_gives_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path)) as node:
            told = await steps(node, Stage.EXPIRED, policy="strict", deadline_s=0.2)
            assert [receipt.stage for receipt in told] == [Stage.QUEUED, Stage.EXPIRED]
            assert not len(node.relay.transactions.mempool)
            told = await steps(node, Stage.UNPROTECTED, deadline_s=0.2)
            assert told[0].id in node.relay.transactions.mempool

    asyncio.run(scenario())


def test_a_restart_goes_on_with_what_is_not_public(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path / "a"), rng=random.Random(3)) as first:
            async with Node(config(tmp_path / "b")) as second:
                id = second.broadcast(RAW).id
                answers = control_methods(second)
                assert id[::-1].hex() not in str(
                    [answers["status"](), answers["peers"](), answers["mempool"](ids=True)]
                )
            file = tmp_path / "b" / "dev" / "outbox"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            async with Node(config(tmp_path / "b")) as second:
                assert id not in second.relay.transactions.mempool
                await second.connect(first.addresses[0])
                async with asyncio.timeout(90):
                    while id not in first.relay.transactions.mempool:  # noqa: ASYNC110 (that has no event)
                        await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_what_goes_on_after_a_restart_is_followed_from_its_first_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path)) as node:
            id = node.broadcast(RAW, policy="strict").id
        async with Node(config(tmp_path)) as node:
            again = node.broadcast(RAW)  # before anything else happened in this run
            assert (await anext(aiter(again))).stage is Stage.QUEUED
        async with Node(config(tmp_path)) as node:
            async with asyncio.timeout(30):
                while not node.receipts._told:  # noqa: ASYNC110 (that has no event)
                    await asyncio.sleep(0.01)
            told = await control_methods(node)["tx.receipts"](id[::-1].hex())
            assert [step["stage"] for step in told] == ["queued"]

    asyncio.run(scenario())


def test_receipts_over_local_control_are_for_who_knows_the_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path)) as node:
            answers = control_methods(node)
            sent = answers["tx.send"](RAW.hex(), "direct")
            told = await answers["tx.receipts"](sent["id"])
            assert [step["stage"] for step in told] == ["queued", "diffused"]
            with pytest.raises(UserError, match="no such transaction"):
                await answers["tx.receipts"]("ab" * 32)
            with pytest.raises(UserError, match="policy"):
                answers["tx.send"](RAW.hex(), "loud")

    asyncio.run(scenario())


def test_what_was_given_up_and_is_public_meanwhile_is_told_as_public_when_it_is_sent_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path)) as node:
            first = node.broadcast(RAW, policy="strict", deadline_s=0.0)
            assert [receipt.stage async for receipt in first] == [Stage.QUEUED, Stage.EXPIRED]
            node.apply(node.relay.submit_transaction(node.network.ledger.decode_transaction(RAW), node.now())[1])
            again = node.broadcast(RAW)
            assert [receipt.stage async for receipt in again] == [Stage.SEEN]
            told = await control_methods(node)["tx.receipts"](again.id[::-1].hex())
            assert [step["stage"] for step in told] == ["seen"]
            late = await node.receipts.after(again.id, 7)
            assert [receipt.stage for receipt in late] == [Stage.SEEN], "whoever followed the first time hears its end"

    asyncio.run(scenario())


def test_the_steps_of_what_is_under_way_are_kept_however_many_came_and_went_meanwhile() -> None:
    receipts = Receipts()
    waiting = bytes(32)
    receipts.add(Receipt(waiting, Stage.QUEUED))
    for number in range(1, 3 * MAX_OWN_BROADCASTS):
        receipts.add(Receipt(number.to_bytes(32, "big"), Stage.QUEUED))
        receipts.add(Receipt(number.to_bytes(32, "big"), Stage.SEEN, final=True))
    assert len(receipts._told) == 2 * MAX_OWN_BROADCASTS
    receipts.add(Receipt(waiting, Stage.EXPIRED, final=True))
    assert [receipt.stage for receipt in asyncio.run(receipts.after(waiting, 0))] == [Stage.QUEUED, Stage.EXPIRED]


def test_the_outbox_keeps_what_it_was_given_and_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "dev")
    folder.path.mkdir()
    submission = Submission(b"i" * 32, b"raw", Policy.STRICT, 12.5)
    outbox = FileOutbox(folder)
    outbox.keep(submission)
    assert FileOutbox(folder).kept() == [submission]
    public = Submission(b"p" * 32, b"raw", Policy.PRIVATE, 0.0, True, Face.ONION)
    outbox.keep(public)
    assert FileOutbox(folder).kept() == [submission, public]
    outbox.forget(public.id)
    before = msgspec.structs.asdict(submission)
    del before["face"]  # from before it was kept
    (folder.path / "outbox").write_bytes(msgspec.msgpack.encode([before]))
    assert FileOutbox(folder).kept() == [submission]
    outbox.forget(submission.id)
    outbox.forget(submission.id)
    assert FileOutbox(folder).kept() == []
    (folder.path / "outbox").write_bytes(b"\xc1 rubbish")
    with pytest.raises(ConfigError, match="own transactions"):
        FileOutbox(folder)


def test_what_the_disk_does_not_take_is_refused_and_not_sent_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataDir(tmp_path, "dev")
    folder.path.mkdir()
    outbox = FileOutbox(folder)
    first, second = (Submission(bytes([n]) * 32, b"raw", Policy.PRIVATE, 1.0) for n in (1, 2))
    outbox.keep(first)

    def full(name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write", full)
        with pytest.raises(UserError, match="No space left"):
            outbox.keep(second)
        assert outbox.kept() == [first]
    outbox.keep(first)
    assert FileOutbox(folder).kept() == [first]
