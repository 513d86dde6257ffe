"""Blocks for simulated nodes: on the acknowledged tip with what waits in the mempool, or where somebody else would mine."""

from __future__ import annotations

import random
from collections.abc import Sequence

from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.mining import block_template, fitting, grind
from obscura.ledger.port import FaultKind, Transaction
from obscura.node.relay import ChainRelay
from obscura.sim.network import UNIX_AT_START, SimNode

_TRIES = 1 << 16  # the easiest work takes two


def mined_on_tip(node: SimNode, transactions: Sequence[Transaction], rng: random.Random) -> bytes:
    """A valid block on the node's tip, by the node's clock."""
    return _mined_on(node, relay_of(node).blocks.tip, transactions, rng)


def mine(node: SimNode, rng: random.Random) -> int:
    """The node finds a block with what waits, if its clock lets it: how many it found."""
    waiting = fitting([entry.transaction for entry in relay_of(node).transactions.mempool])
    return _submit(node, mined_on_tip(node, waiting, rng))


def overtake(node: SimNode, parent: bytes, work: int, rng: random.Random) -> int:
    """The node finds empty blocks after ``parent`` until they have more work than ``work``: how many."""
    chain, count = relay_of(node).chain, 0
    while chain.work(parent) <= work:
        raw = _mined_on(node, parent, (), rng)
        if not _submit(node, raw):
            break
        parent = chain.ledger.block_id(raw[: chain.ledger.header_bytes])
        count += 1
    return count


def left_branch(node: SimNode) -> bytes | None:
    """The newest block of the best branch that is not the node's own and whose blocks are all here."""
    chain = relay_of(node).chain
    ends = [chain._ids[number] for number in sorted(chain._leaves)]
    left = [end for end in ends if end != chain.tip and not chain.is_bad(end)]
    whole = [end for end in left if all(map(chain.has_body, chain.reorganisation(chain.tip, end).connect))]
    return max(whole, key=chain.work, default=None)


def _mined_on(node: SimNode, parent: bytes, transactions: Sequence[Transaction], rng: random.Random) -> bytes:
    chain = relay_of(node).chain
    assert isinstance(chain.ledger, BitcoinLedger)
    unix = UNIX_AT_START + node.network.kernel.now + node.clock_error_s
    raw = block_template(chain.ledger, chain.branch(parent), transactions, unix, rng)
    header = grind(raw[:80], _TRIES)
    assert header is not None
    return header + raw[80:]


def _submit(node: SimNode, raw: bytes) -> int:
    """A clock that is far behind the chain's median cannot mine: the node takes no block of its own from the future either."""
    effects, fault = relay_of(node).submit_block(raw, node.network.kernel.now)
    assert fault is None or fault.kind is FaultKind.EARLY, f"its own block is refused: {fault.reason}"
    node.apply(effects)
    return int(fault is None)


def relay_of(node: SimNode) -> ChainRelay:
    """The chain part of a node that has one."""
    relay = node.assembly.relay
    assert relay is not None
    return relay
