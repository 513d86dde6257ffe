"""A transaction that nobody can trace: four nodes in a row, the last one sends, and until it is public no mempool shows it."""

from __future__ import annotations

import random

from demo.stage import DemoNode, Stage
from obscura.ledger.mining import filler_transaction
from obscura.limits import EMBARGO_MISS

TRIES = 3
NAMES = ("ann", "ben", "cleo", "dora")


def play(stage: Stage) -> None:
    """Start a row, send from its end, follow the receipts."""
    stage.say("[bold]Private relay[/bold]")
    row: list[DemoNode] = []
    for name in NAMES:
        dials = ("--connect", row[-1].addresses[0]) if row else ()
        row.append(stage.start(name, "--listen", "127.0.0.1:0", *dials))
    for node, links in zip(row, (1, 2, 2, 1), strict=True):
        stage.wait(f"{node.name} has its links", lambda n=node, k=links: len(n.call("peers")) == k)  # type: ignore[misc]
    sender = row[-1]
    for left in range(TRIES - 1, -1, -1):
        stages = _send(stage, row)
        stage.expect(stages[:2] == ["queued", "stemmed"], f"receipts: {', '.join(stages)}")
        if "diffused" not in stages or not left:
            break
        stage.say(
            f"    {sender.name}'s embargo ended first, as some embargo may once in {1 / EMBARGO_MISS:.0f} times; again"
        )
    stage.expect("diffused" not in stages, f"{sender.name} did not make it public itself, and got it back from a peer")
    stage.figure("private relay", f"receipts of the sender: {', '.join(stages)}")
    for node in reversed(row):
        stage.end(node)


def _send(stage: Stage, row: list[DemoNode]) -> list[str]:
    """Send a transaction from the end of the row; the stages that its sender saw until a peer had it."""
    sender = row[-1]
    sent = sender.call("tx.send", raw=filler_transaction(random.SystemRandom()).hex())["id"]
    stage.say(f"  {sender.name} sends {sent[:16]}…; its stem can only run {' → '.join(reversed(NAMES))}")
    stages: list[str] = []
    while "seen" not in stages:
        for receipt in sender.call("tx.receipts", id=sent, after=len(stages)):
            stages.append(receipt["stage"])
            if receipt["stage"] == "stemmed":
                holders = [node.name for node in row if sent in node.call("mempool", ids=True)["ids"]]
                stage.say(f"    {sender.name}: stemmed; in the mempools of: {', '.join(holders) or 'nobody'}")
    return stages
