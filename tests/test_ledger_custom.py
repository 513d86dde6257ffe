"""The port is small enough for a chain of twenty lines, and the rest works on it as on the built-in one."""

from __future__ import annotations

import ast
import asyncio
import runpy
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain_nodes import SETTINGS, network, relay_of, submit, told
from obscura import Config, Node
from obscura.cli import root
from obscura.cli.frame import Globals
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.chain import Chain
from obscura.ledger.network import Network
from obscura.ledger.networks import BUILT_IN
from obscura.ledger.port import Block, Fault, FaultKind, Ledger
from obscura.node.recording import unpack
from obscura.sim.archive import MemoryArchive
from obscura.sim.replay import load
from obscura.store.sqlite import Store

EXAMPLE = Path(__file__).parents[1] / "examples/custom_ledger.py"
LEDGER: Any = runpy.run_path(str(EXAMPLE))["NoteLedger"]()


def test_the_example_runs() -> None:
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True, timeout=60)
    assert "3 notes" in done.stdout


def test_it_is_twenty_lines() -> None:
    tree = ast.parse(EXAMPLE.read_text())
    (ledger,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    statements = [node for node in ast.walk(ledger) if isinstance(node, ast.stmt) and not isinstance(node, ast.Expr)]
    assert len(statements) <= 26, "statements of the class, definitions included, docstrings not"


def test_branches_and_store_work_on_it(tmp_path: Path) -> None:
    chain = Chain(LEDGER)
    ids = []
    with Store.open(tmp_path, bytes(32)) as store:
        for note in (b"a", b"b", b"c"):
            header = chain.best + sha256(note).digest()
            assert chain.add(header, 0) is None
            ids.append(chain.best)
            chain.received(chain.best)
            store.put_headers([header])
            store.put_block(chain.best, header + note, chain.best_height)
        store.flush().result()
        assert store.load_chain(LEDGER).tip == ids[-1]
    side = chain.genesis + sha256(b"x").digest()
    assert chain.add(side, 0) is None
    assert chain.best == ids[-1]
    fault = LEDGER.check_block(LEDGER.decode_block(side + b"y"), 1)
    assert fault.kind is FaultKind.BODY


def test_real_nodes_keep_and_relay_it(tmp_path: Path) -> None:
    def node(name: str) -> Node:
        settings = Config(network="dev", data_dir=tmp_path / name, listen=("127.0.0.1:0",), max_outbound=0)
        return Node(settings, network=Network("notes", LEDGER, port=40_100))

    async def scenario() -> None:
        async with node("a") as a, node("b") as b, asyncio.timeout(30):
            await b.connect(a.addresses[0])
            tips = b.events({"tip"})
            header = LEDGER.block_id(LEDGER.genesis) + sha256(b"note").digest()
            id = await a.submit_block(header + b"note")
            assert (await anext(tips))["id"] == id[::-1].hex()
        assert (tmp_path / "a" / "notes").is_dir(), "beside the directory of another network, not in it"

    asyncio.run(scenario())


def test_what_it_heard_is_replayed_by_whoever_has_the_ledger(tmp_path: Path) -> None:
    notes = Network("notes", LEDGER, port=40_100)
    common: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "privacy": "standard"}

    async def scenario() -> None:
        a = Node(Config(data_dir=tmp_path / "a", **common), network=notes)
        b = Node(Config(data_dir=tmp_path / "b", capture=tmp_path, **common), network=notes)
        async with a, b, asyncio.timeout(30):
            tips = b.events({"tip"})
            await b.connect(a.addresses[0])
            await a.submit_block(LEDGER.block_id(LEDGER.genesis) + sha256(b"note").digest() + b"note")
            await anext(tips)

    asyncio.run(scenario())
    with (tmp_path / "capture").open("rb") as file:
        records = list(unpack(file.read, "it"))
    replay = load(records, notes)
    replay.play(records)
    assert (replay.report()["height"], list(replay.differences())) == (1, [])
    told = CliRunner().invoke(root, ["replay", str(tmp_path)], obj=Globals()).stderr
    assert "no network is called 'notes'" in told
    assert "a chain that an application brought" in told


@pytest.mark.parametrize("ledger", [LEDGER, *(n.ledger for n in BUILT_IN.values())], ids=["notes", *BUILT_IN])
def test_every_ledger_answers_the_port(ledger: Ledger) -> None:
    """What the core takes for granted of any ledger."""
    assert len(ledger.genesis) == ledger.header_bytes
    assert len(ledger.block_id(ledger.genesis)) == len(ledger.parent_id(ledger.genesis)) == 32
    assert ledger.work(ledger.genesis) > 0
    block = ledger.decode_block(ledger.genesis_block)
    assert (block.header, block.id, block.raw) == (
        ledger.genesis, ledger.block_id(ledger.genesis), ledger.genesis_block,
    )  # fmt: skip
    assert ledger.check_block(block, 0) is None
    assert ledger.encode_block(block.header, [t.raw for t in block.transactions]) == block.raw
    for transaction in block.transactions:
        again = ledger.decode_transaction(transaction.raw)
        assert (again.id, again.witness_id) == (transaction.id, transaction.witness_id)
    wrong = ledger.parent_id(ledger.genesis)
    assert ledger.check_step(1, ledger.genesis, ledger.genesis) is not None
    assert wrong == bytes(32)
    assert isinstance(ledger, BitcoinLedger) or ledger is LEDGER


class LongHeaders(type(LEDGER)):  # type: ignore[misc]
    """The same with 164 bytes of header."""

    header_bytes = 164
    genesis = genesis_block = LEDGER.genesis + bytes(100)

    def decode_block(self, raw: bytes) -> Block:
        note = self.decode_transaction(raw[164:])
        return Block(raw, raw[:164], self.block_id(raw[:164]), [note])

    def check_block(self, block: Block, height: int) -> Fault | None:
        return None


@pytest.mark.parametrize(("ledger", "count"), [(LEDGER, 5), (LongHeaders(), 2_100)], ids=["short", "long"])
def test_nodes_sync_on_it_and_tell_each_other_of_blocks(ledger: Any, count: int) -> None:
    chain, blocks = Chain(ledger), []
    for number in range(count + 3):
        note = b"%d" % number
        header = chain.best + sha256(note).digest() + bytes(ledger.header_bytes - 64)
        assert chain.add(header, 0) is None
        blocks.append(header + note)
    net = network()
    archive = MemoryArchive(ledger)
    for raw in blocks[:count]:
        archive.headers.append(raw[: ledger.header_bytes])
        archive.blocks[ledger.block_id(archive.headers[-1])] = raw
    one, other = net.add(SETTINGS, archive=archive), net.add(SETTINGS, archive=MemoryArchive(ledger))
    other.connect(one.address)
    net.kernel.run(until=60.0)
    assert relay_of(other).blocks.tip_height == count
    for raw in blocks[count:]:  # whoever was first with a block may send the next one in its compact form
        submit(one, raw)
        net.kernel.run(until=net.kernel.now + 5.0)
    assert relay_of(other).blocks.tip == chain.best
    assert not told(other, "penalty")
