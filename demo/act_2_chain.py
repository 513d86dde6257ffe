"""Five nodes and a chain: real blocks, 20 MB of own ones, a crash in the middle, two branches joined, a transaction mined."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table

from demo.stage import DemoNode, Stage
from obscura.ledger.mining import filler_transaction

REAL_BLOCKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mainnet-blocks-0-255.bin"
NAMES = ("ada", "ben", "cleo", "dan", "eve")
FILLED_BLOCKS = 24
FILL_BYTES = 1_000_000
QUICK = ("--privacy", "standard", "--no-listen")  # jitter of the default level would only lengthen the show


def play(stage: Stage) -> None:
    """Both networks, one after the other."""
    _real(stage)
    _own(stage)


def _real(stage: Stage) -> None:
    file = Path(os.environ.get("BLOCKS", REAL_BLOCKS))
    if not file.is_file():
        stage.say(f"[bold]Real blocks[/bold]: did not run, {file} is not there (BLOCKS=FILE names another)")
        return
    stage.say("[bold]Real Bitcoin blocks[/bold]")
    nodes = _start_five(stage, "bitcoin", "real")
    began = time.monotonic()
    took = _repeat(nodes[0], "chain.import", {"path": str(file)})
    height = nodes[0].call("chain.info")["height"]
    stage.expect(height > 0, f"{nodes[0].name} imported {took:,} blocks of {file.name}, up to height {height}")
    _same_tip(stage, nodes, "all five have them")
    stage.figure("real blocks", f"{height + 1:,} blocks at five nodes in {time.monotonic() - began:.1f} s")
    for node in nodes:
        stage.end(node)


def _own(stage: Stage) -> None:
    stage.say("[bold]A chain of our own[/bold]")
    nodes = _start_five(stage, "dev", "own")
    ada, ben, cleo = nodes[:3]
    began = time.monotonic()
    _mine(ada, FILLED_BLOCKS // 2, FILL_BYTES)
    status = stage.end(cleo, signal.SIGKILL)
    stage.expect(status == -signal.SIGKILL, "cleo killed (-9) in the middle of it")
    _mine(ada, FILLED_BLOCKS - FILLED_BLOCKS // 2, FILL_BYTES)
    cleo = stage.start("cleo", *QUICK, "--connect", ada.addresses[0], folder=cleo.folder)
    nodes[2] = cleo
    _same_tip(stage, nodes, "cleo came back and all five have the same tip")
    seconds = time.monotonic() - began
    bytes_each = ada.call("chain.info")["block_bytes"]
    stage.expect(bytes_each >= 20_000_000, f"{bytes_each / 1e6:.1f} MB of blocks mined and at every node")
    stage.figure("own chain", f"{bytes_each / 1e6:.1f} MB mined and synced by five nodes in {seconds:.1f} s, one crash")
    _branches(stage, nodes, ben)
    _transaction(stage, nodes)
    for node in nodes:
        stage.expect(stage.end(node) == 0, f"{node.name} ended cleanly")


def _branches(stage: Stage, nodes: list[DemoNode], ben: DemoNode) -> None:
    """ben mines alone while the others go on; joined again, the branch with more work wins."""
    ada = nodes[0]
    for link in ben.call("peers"):
        ben.call("disconnect", peer=link["peer"])
    alone = _mine(ben, 2)
    _mine(ada, 4)
    before = ben.call("chain.info")["tip"]
    stage.expect(
        before == alone[-1] != ada.call("chain.info")["tip"], "two branches: ben mined 2 blocks alone, the others 4"
    )
    ben.call("connect", address=ada.addresses[0])
    _same_tip(stage, nodes, "joined again: ben left his branch for the one with more work (a reorganisation)")


def _transaction(stage: Stage, nodes: list[DemoNode]) -> None:
    giver, miner = nodes[4], nodes[0]
    raw = filler_transaction(random.SystemRandom())
    own = giver.call("tx.send", raw=raw.hex(), policy="direct")["id"]
    began = time.monotonic()
    stage.wait(
        "the transaction reaches all",
        lambda: all(own in node.call("mempool", ids=True)["ids"] for node in nodes),
        60.0,
    )
    spread = time.monotonic() - began
    stage.expect(True, f"a transaction given to {giver.name} reached all five within {spread:.1f} s")
    block = _mine(miner, 1)[0]
    _same_tip(stage, nodes, "it was mined and the block reached all")
    left = [node.call("mempool")["transactions"] for node in nodes]
    stage.expect(not any(left), f"no mempool holds it any more (block {block[:16]}…)")
    stage.figure("transaction", f"at all five nodes after {spread:.1f} s, then mined")


def _start_five(stage: Stage, network: str, label: str) -> list[DemoNode]:
    """ada listens, the others keep a link to her."""
    folders = [stage.folder / f"{label}-{name}" for name in NAMES]
    listening = ("--privacy", "standard", "--listen", "127.0.0.1:0")
    ada = stage.start(NAMES[0], *listening, network=network, folder=folders[0])
    others = [
        stage.start(name, *QUICK, "--connect", ada.addresses[0], network=network, folder=folder)
        for name, folder in zip(NAMES[1:], folders[1:], strict=True)
    ]
    stage.wait("all are linked to ada", lambda: len(ada.call("peers")) == len(others))
    return [ada, *others]


def _mine(node: DemoNode, blocks: int, fill: int = 0) -> list[str]:
    ids: list[str] = []
    while len(ids) < blocks:
        ids += node.call("mine", blocks=blocks - len(ids), fill=fill)["ids"]
    return ids


def _repeat(node: DemoNode, method: str, parameters: dict[str, Any]) -> int:
    """Go on with a job that is answered in slices; the number of blocks that were new."""
    new, offset = 0, 0
    while True:
        answer = node.call(method, **parameters, offset=offset)
        new, offset = new + answer["new"], answer["offset"]
        if answer["done"]:
            return int(new)


def _same_tip(stage: Stage, nodes: list[DemoNode], what: str) -> None:
    """Wait until all nodes have the first one's tip; a live table shows how they come."""
    began = time.monotonic()

    def rows() -> list[dict[str, Any]]:
        return [{**node.call("chain.info"), "name": node.name, "peers": len(node.call("peers"))} for node in nodes]

    def is_same() -> bool:
        now = rows()
        live.update(_table(now, time.monotonic() - began))
        return len({row["tip"] for row in now}) == 1

    with Live(console=stage.console, refresh_per_second=8, transient=not stage.console.is_terminal) as live:
        stage.wait(what, is_same, 60.0)
    stage.expect(True, what)


def _table(rows: list[dict[str, Any]], seconds: float) -> Table:
    table = Table("node", "peers", "height", "headers", "MB of blocks", "tip", title=f"{seconds:.1f} s", box=None)
    for row in rows:
        megabytes = f"{row['block_bytes'] / 1e6:.1f}"
        table.add_row(
            row["name"], str(row["peers"]), str(row["height"]), str(row["headers"]), megabytes, row["tip"][:16]
        )
    return table
