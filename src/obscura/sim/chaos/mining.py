"""Blocks for simulated nodes: mined on the acknowledged tip, with what waits in the mempool."""

from __future__ import annotations

import random
from collections.abc import Sequence

from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.mining import block_template, fitting, grind
from obscura.ledger.port import Transaction
from obscura.sim.network import UNIX_AT_START, SimNode

_TRIES = 1 << 16  # the easiest work takes two


def mined_on_tip(node: SimNode, transactions: Sequence[Transaction], rng: random.Random) -> bytes:
    """A valid block on the node's tip, by the node's clock."""
    relay = node.assembly.relay
    assert relay is not None
    assert isinstance(relay.chain.ledger, BitcoinLedger)
    unix = UNIX_AT_START + node.network.kernel.now + node.clock_error_s
    raw = block_template(relay.chain.ledger, relay.chain.branch(relay.blocks.tip), transactions, unix, rng)
    header = grind(raw[:80], _TRIES)
    assert header is not None
    return header + raw[80:]


def mine(node: SimNode, rng: random.Random) -> None:
    """The node finds a block with what waits."""
    relay = node.assembly.relay
    assert relay is not None
    waiting = fitting([entry.transaction for entry in relay.transactions.mempool])
    raw = mined_on_tip(node, waiting, rng)
    effects, fault = relay.submit_block(raw, node.network.kernel.now)
    assert fault is None, f"its own block is refused: {fault.reason}"
    node.apply(effects)
