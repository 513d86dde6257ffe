"""Real nodes on real sockets with real stores: real blocks, restarts, kills, a bad file, a full disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from obscura.daemon.archive import Archive
from obscura.daemon.chain_methods import body_is_sound, chain_methods
from obscura.daemon.config import Config, parse_bytes
from obscura.daemon.datadir import DataDir
from obscura.daemon.node import Node
from obscura.daemon.outbox import FileOutbox
from obscura.daemon.peerstore import decoded
from obscura.errors import ConfigError, UserError
from obscura.ledger.chain import Chain
from obscura.ledger.mining import block_template, filler_transaction, grind
from obscura.ledger.network_file import plan_network
from obscura.ledger.networks import load_network
from obscura.store.faults import StoreFull, full
from obscura.store.sqlite import Store
from shared_data import BLOCK_FILES, FOLDER, real_blocks

DEV = load_network("dev")


def config(path: Path, network: str = "dev", **more: object) -> Config:
    return Config(network=network, data_dir=path, listen=("127.0.0.1:0",), privacy="standard", **more)  # type: ignore[arg-type]


async def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 (the condition is the node's, and no event of ours)
            await asyncio.sleep(0.01)


def dev_blocks(count: int, size: int = 0, seed: int = 1) -> list[bytes]:
    """A chain of dev blocks with one transaction of ``size`` bytes each."""
    rng = random.Random(seed)
    chain, blocks = Chain(DEV.ledger), []
    for _ in range(count):
        inside = [DEV.ledger.decode_transaction(filler_transaction(rng, size))] if size else []
        raw = block_template(DEV.ledger, chain.branch(chain.best), inside, 1_760_000_000, rng)  # type: ignore[arg-type]
        header = grind(raw[:80], 1 << 20)
        assert header is not None
        assert chain.add(header, 1_760_000_000) is None
        blocks.append(header + raw[80:])
    return blocks


def in_file(path: Path, blocks: list[bytes]) -> Path:
    path.write_bytes(b"".join(len(raw).to_bytes(4, "little") + raw for raw in blocks))
    return path


async def call(node: Node, method: str, *args: object, **kwargs: object) -> dict[str, object]:
    """A control method, without the socket."""
    found = chain_methods(node)[method](*args, **kwargs)
    return await found if asyncio.iscoroutine(found) else found  # type: ignore[no-any-return]


@pytest.mark.shared_data
def test_two_nodes_sync_real_blocks(tmp_path: Path) -> None:
    blocks = real_blocks()
    if not blocks:
        return

    async def scenario() -> None:
        async with Node(config(tmp_path / "a", "bitcoin")) as one, Node(config(tmp_path / "b", "bitcoin")) as other:
            done = await call(one, "chain.import", str(FOLDER / BLOCK_FILES[0]))
            assert (done["new"], done["known"], done["done"]) == (255, 1, True)
            seen = other.events({"tip"})
            await other.connect(one.addresses[0])
            await until(lambda: other.relay.blocks.tip_height == 255)
            assert (await anext(aiter(seen)))["kind"] == "tip"
            for height in (0, 1, 170, 255):
                found = await call(other, "block.get", str(height), raw=True)
                assert bytes.fromhex(str(found["raw"])) == blocks[height]
        async with Node(config(tmp_path / "b", "bitcoin")) as again:
            assert again.relay.blocks.tip_height == 255
            checked = await call(again, "chain.verify")
            assert (checked["blocks"], checked["damaged"], checked["done"]) == (255, [], True)

    asyncio.run(scenario())


def test_a_pipe_in_place_of_a_file_of_blocks_does_not_stop_the_node(tmp_path: Path) -> None:
    """Opening it waits for somebody who writes: that would be the loop, with every link and the word to stop."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Lest a failure lasts for ever.
    freed = threading.Timer(5.0, lambda: os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK)))
    freed.start()

    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            for path in (pipe, tmp_path):
                with pytest.raises(UserError, match="is no plain file"):
                    await call(node, "chain.import", str(path))
            with pytest.raises(UserError, match="a NUL in its name"):
                await call(node, "chain.import", "blocks\0")
            (tmp_path / "none").touch()
            with pytest.raises(UserError, match="has 0 bytes: 9223372036854775808 is behind its end"):
                await call(node, "chain.import", str(tmp_path / "none"), 1 << 63)

    try:
        asyncio.run(scenario())
        assert freed.is_alive()
    finally:
        freed.cancel()


def test_two_miners_join_and_a_transaction_reaches_the_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as one, Node(config(tmp_path / "b")) as other:
            mined = await call(one, "mine", blocks=3, fill=20_000)
            assert mined["height"] == 3
            await call(other, "mine", blocks=5)
            waiting = one.broadcast(filler_transaction(random.Random(4)), "direct").id
            seen = one.events({"reorganisation"})
            await one.connect(other.addresses[0])
            await until(lambda: one.relay.blocks.tip == other.relay.blocks.tip)
            told = await anext(aiter(seen))
            assert (told["fork_height"], told["disconnected"]) == (0, 3)
            await until(lambda: len(one.relay.transactions.mempool) > 80)  # of the three blocks that were left behind
            await until(lambda: waiting in other.relay.transactions.mempool)
            await call(other, "mine", blocks=1)
            await until(lambda: one.relay.blocks.tip_height == 6)
            assert waiting not in one.relay.transactions.mempool
        async with Node(config(tmp_path / "a")) as again:
            assert again.relay.blocks.tip_height == 6
            assert waiting not in again.relay.transactions.mempool

    asyncio.run(scenario())


LONG = 250  # blocks of a chain that takes a while

CHILD = Path(__file__).with_name("killed_process.py")


class Acknowledged:
    """What a child said that it has, as it said it."""

    def __init__(self) -> None:
        self.height = self.book = 0
        self.own: set[str] = set()

    def hear(self, line: bytes) -> None:
        kind, _, value = line.decode().strip().partition(" ")
        if kind == "tip":
            self.height = max(self.height, int(value))
        elif kind == "book":
            self.book = int(value)
        elif kind == "own":
            self.own.add(value)
        elif kind == "gone":
            self.own.discard(value)

    def is_kept(self, folder: Path) -> int:
        """All of it is there, and what is there is whole; the height of the chain."""
        if self.book:
            assert len(decoded((folder / "dev" / "peers.dat").read_bytes()).book.entries) >= self.book
        outbox = FileOutbox(DataDir(folder, "dev"))
        assert self.own <= {submission.id.hex() for submission in outbox.kept()}
        with Store.open(folder / "dev", DEV.id) as store:
            chain = store.load_chain(DEV.ledger)
            assert chain.tip_height >= self.height
            for step in store.verify(lambda id, raw: body_is_sound(DEV.ledger, id, raw, chain.height(id))):
                assert step.damaged is None
            for height in range(1, chain.tip_height + 1):
                assert store.has_block(chain.ancestor(chain.tip, height))
        return chain.tip_height


async def killed_while_syncing(folder: Path, address: str, rng: random.Random) -> Acknowledged:
    """Run a child that syncs, sends and learns, kill it at a random instant; what it had acknowledged."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(folder), address, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    told = Acknowledged()

    async def hear(kind: bytes) -> None:
        line = b""
        while not line.startswith(kind):
            line = await child.stdout.readline()  # type: ignore[union-attr]
            assert line, "the child ended by itself"
            told.hear(line)

    await hear(b"tip")
    if rng.random() < 0.7:  # after some progress, however fast the machine is; else at any time
        for _ in range(rng.randint(1, 6)):
            if told.height < LONG:
                await hear(rng.choice((b"tip", b"tip", b"own", b"book")))
    else:
        await asyncio.sleep(rng.uniform(0.0, 0.6))
    child.send_signal(signal.SIGKILL)
    for line in (await child.stdout.read()).split(b"\n")[:-1]:  # the last may be cut
        told.hear(line)
    await child.wait()
    return told


def kill_again_and_again(tmp_path: Path, kills: int) -> None:
    blocks = dev_blocks(LONG, 95_000)
    rng = random.Random(kills)

    async def scenario() -> None:
        async with Node(config(tmp_path / "server")) as server:
            await call(server, "chain.import", str(in_file(tmp_path / "blocks", blocks)))
            heights: list[int] = []
            most_own = most_book = 0
            for _ in range(kills):
                folder = tmp_path / f"child{heights.count(LONG)}"  # a fresh life after each that came to its end
                told = await killed_while_syncing(folder, str(server.addresses[0]), rng)
                heights.append(told.is_kept(folder))
                most_own, most_book = max(most_own, len(told.own)), max(most_book, told.book)
            assert any(0 < height < LONG for height in heights), f"no kill was in the middle: {heights}"
            assert most_own, "no own transaction waited"
            assert most_book, "no address was written"
            print(
                f"{kills} kills, in the middle {sum(0 < h < LONG for h in heights)}; nothing acknowledged was lost: ",
                end="",
            )
            print(f"blocks, at most {most_own} own transactions, at most {most_book} addresses")
            async with Node(Config(network="dev", data_dir=tmp_path / "child0", listen=())) as again:
                await again.connect(server.addresses[0])
                await until(lambda: again.relay.blocks.tip_height == LONG)

    asyncio.run(scenario())


def test_killed_while_syncing_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 5)


@pytest.mark.slow
def test_killed_many_times_while_syncing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, int(os.environ.get("TEST_KILLS", "10")))


def test_a_file_with_a_bad_block_says_where_and_keeps_what_was_before(tmp_path: Path) -> None:
    blocks = dev_blocks(6)
    blocks[3] = blocks[3][:-1] + b"\x01"
    path = in_file(tmp_path / "blocks", blocks)
    cut = in_file(tmp_path / "cut", blocks[:2])
    cut.write_bytes(cut.read_bytes()[:-1])
    (tmp_path / "noise").write_bytes(b"\xff" * 100)
    at = sum(4 + len(raw) for raw in blocks[:3])

    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            with pytest.raises(UserError, match=f"block at byte {at} of .* refused"):
                await call(node, "chain.import", str(path))
            with pytest.raises(UserError, match="cut short"):
                await call(node, "chain.import", str(cut))
            with pytest.raises(UserError, match="no file of blocks"):
                await call(node, "chain.import", str(tmp_path / "noise"))
            with pytest.raises(UserError, match="cannot be read"):
                await call(node, "chain.import", str(tmp_path / "nowhere"))
            await until(lambda: node.relay.blocks.tip_height == 3)

    asyncio.run(scenario())


REFUSED = {
    "no hex": ("block.submit", {"raw": "xyz"}, "hexadecimal"),
    "no block": ("block.submit", {"raw": "00"}, "refused"),
    "no transaction": ("tx.send", {"raw": "0102"}, "not a transaction"),
    "a height above the tip": ("block.get", {"block": "7"}, "the tip has height 0"),
    "an unknown hash": ("block.get", {"block": "ab" * 32}, "no block"),
    "a short hash": ("block.get", {"block": "abcd"}, "64 hexadecimal digits"),
    "too full": ("mine", {"fill": 2_000_000}, "0 to 1000000 bytes"),
    "nothing": ("mine", {"blocks": 0}, "at least 1"),
    "an unknown transaction": ("tx.get", {"id": "ab" * 32}, "no transaction"),
}


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            for method, given, words in REFUSED.values():
                with pytest.raises(UserError, match=words):
                    await call(node, method, **given)  # type: ignore[arg-type]
        async with Node(config(tmp_path / "b", "bitcoin")) as real:
            with pytest.raises(UserError, match="not for bitcoin"):
                await call(real, "mine")

    asyncio.run(scenario())


def test_verifications_at_the_same_time_hear_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obscura.daemon.chain_methods.JOB_SLICE_S", 0.001)
    monkeypatch.setattr("obscura.daemon.chain_methods.is_sound", lambda node, block_id, raw: False)

    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            for raw in dev_blocks(40):
                await node.submit_block(raw)
            verify = chain_methods(node)["chain.verify"]

            async def verified() -> int:
                found = await verify()
                while not found["done"]:
                    found = await verify(begin=False)
                return len(found["damaged"])

            assert await asyncio.gather(verified(), verified(), verified()) == [40, 40, 40]

    asyncio.run(scenario())


def test_mining_ends_with_its_slice_where_the_work_is_hard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obscura.daemon.chain_methods.JOB_SLICE_S", 0.2)
    file = tmp_path / "hard.toml"
    file.write_text(plan_network("hard", 1_760_000_000, work=0x1800FFFF).toml())

    async def scenario() -> None:
        async with Node(config(tmp_path / "a", str(file))) as node:
            async with asyncio.timeout(30):
                assert await call(node, "mine", blocks=2, fill=3_000) == {"ids": [], "height": 0}

    asyncio.run(scenario())


def test_a_block_is_described(tmp_path: Path) -> None:
    (raw,) = dev_blocks(1, 700)

    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            submitted = await call(node, "block.submit", raw.hex())
            assert (submitted["height"], submitted["is_tip"]) == (1, True)
            found = await call(node, "block.get", str(submitted["id"]))
            assert (found["height"], found["confirmations"], found["bytes"]) == (1, 1, len(raw))
            assert found == await call(node, "block.get", "1")
            assert len(found["transactions"]) == 2  # type: ignore[arg-type]
            assert (await call(node, "chain.info"))["block_bytes"] == len(raw)

    asyncio.run(scenario())


def test_a_full_disk_stops_the_node_with_a_reason(tmp_path: Path) -> None:
    (raw,) = dev_blocks(1)

    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            node.archive.store._writer._fail(full(node.archive.store.path))
            with pytest.raises(StoreFull, match="no room to write"):
                await node.submit_block(raw)
            await asyncio.wait_for(node.stopped.wait(), 5)
            assert isinstance(node.fault, StoreFull)
            assert node.relay.blocks.tip_height == 0, "nothing that is not on the disk counts"

    asyncio.run(scenario())


def test_a_pruned_node_syncs_and_says_what_it_no_longer_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obscura.limits.KEPT_BLOCKS", 10)
    monkeypatch.setattr("obscura.daemon.node.parse_bytes", lambda text: 1_000_000)
    blocks = dev_blocks(60, 95_000)

    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as one, Node(config(tmp_path / "b", prune="1 GB")) as pruned:
            await call(one, "chain.import", str(in_file(tmp_path / "blocks", blocks)))
            await pruned.connect(one.addresses[0])
            await until(lambda: pruned.relay.blocks.tip_height == 60)
            assert pruned.archive.store.body_bytes <= 1_000_000
            with pytest.raises(UserError, match="pruned"):
                await call(pruned, "block.get", "1")
            async with Node(config(tmp_path / "c")) as late:
                await late.connect(pruned.addresses[0])
                await asyncio.sleep(0.3)
                await late.connect(one.addresses[0])
                await until(lambda: late.relay.blocks.tip_height == 60)

    asyncio.run(scenario())


SIZES = {"2 GB": 2 * 10**9, "500MB": 500 * 10**6, "1.5 gb": 1_500_000_000, "100000000": 10**8, "64 MiB": 64 << 20}


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text: str) -> None:
    assert parse_bytes(text) == SIZES[text]


@pytest.mark.parametrize("text", ["", "much", "2 XB", "-1 GB", "1 MB", "1e9"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="prune"):
        parse_bytes(text)


def test_the_archive_answers_the_genesis_from_the_network(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Node(config(tmp_path / "a")) as node:
            assert isinstance(node.archive, Archive)
            assert await node.archive.block(DEV.genesis_id) == DEV.ledger.genesis_block

    asyncio.run(scenario())
