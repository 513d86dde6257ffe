"""Mining inside a node, in slices so short that its peers do not notice. For networks whose work is easy."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from obscura.errors import UserError
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.mining import after, block_template, filler_transaction, fitting, grind
from obscura.ledger.port import Transaction
from obscura.limits import FILLER_BYTES, MAX_BLOCK_WEIGHT, MINING_FILLERS, MINING_TRIES

if TYPE_CHECKING:
    from obscura.daemon.node import Node

_RESERVED = 300  # bytes for header, count and coinbase


async def mine(node: Node, blocks: int, fill: int, deadline: float) -> AsyncIterator[bytes]:
    """Mine on the tip: the ids of up to ``blocks`` blocks, as many as there is time for, each once it is on the disk.

    Waiting transactions go in first; random ones make each block ``fill`` bytes. ``deadline`` by ``node.now()``.
    Raises ``UserError``.
    """
    ledger = node.network.ledger
    if not isinstance(ledger, BitcoinLedger) or node.network.name in ("main", "bitcoin"):
        raise UserError(f"mining is for dev, test and networks of your own, not for {node.network.name}")
    if not 0 <= fill <= MAX_BLOCK_WEIGHT // 4:
        raise UserError(f"a block has 0 to {MAX_BLOCK_WEIGHT // 4} bytes, not {fill}")
    rng = random.SystemRandom()
    for _ in range(blocks):
        raw = None
        while raw is None:
            if node.now() >= deadline:  # within a block too: else work that is hard goes on with nobody waiting for it
                return
            raw = await _mine_one(node, ledger, await _contents(node, ledger, fill, rng), rng, deadline)
        yield await node.submit_block(raw)


async def _contents(node: Node, ledger: BitcoinLedger, fill: int, rng: random.Random) -> list[Transaction]:
    chosen = fitting([entry.transaction for entry in node.relay.transactions.mempool])
    room = (fill - _RESERVED - sum(len(transaction.raw) for transaction in chosen)) // FILLER_BYTES
    for number in range(max(0, room)):
        chosen.append(ledger.decode_transaction(filler_transaction(rng, FILLER_BYTES)))
        if not number % MINING_FILLERS:
            await asyncio.sleep(0)
    return chosen


async def _mine_one(
    node: Node, ledger: BitcoinLedger, contents: list[Transaction], rng: random.Random, deadline: float
) -> bytes | None:
    """One block on the tip; None if the tip moved meanwhile, or the nonces or the time ended."""
    chain = node.relay.chain
    tip = chain.tip
    raw = block_template(ledger, chain.branch(tip), contents, time.time(), rng)
    header: bytes | None = raw[: ledger.header_bytes]
    while header is not None and chain.tip == tip:
        found = grind(header, MINING_TRIES)
        if found is not None:
            return found + raw[ledger.header_bytes :]
        if node.now() >= deadline:
            return None
        header = after(header, MINING_TRIES)
        await asyncio.sleep(0)
    return None
