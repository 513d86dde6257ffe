"""Chains for tests: mined on the spot with the easiest work, from a seed, so that they are the same each time."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from obscura.ledger.bitcoin import BitcoinLedger, Rules, median_time
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header
from obscura.ledger.mining import block_template, grind
from obscura.ledger.network import own_genesis
from obscura.ledger.port import Transaction

EASY = 0x207FFFFF
START = 1_700_000_000
LATER = START + 10**9  # a clock that is ahead of every header


def easy_ledger(**rules: Any) -> BitcoinLedger:
    """A ledger whose blocks take two hashes each."""
    settings = {"limit_bits": EASY, "spacing_s": 60, "retarget_blocks": 0} | rules
    return BitcoinLedger(Rules(**settings), own_genesis("test", START, EASY, 0))


def mined(header: bytes) -> bytes:
    """The header with a nonce that meets its bits."""
    found = grind(header, 1 << 20)
    assert found is not None
    return found


def unmined(header: bytes) -> bytes:
    """The header with a nonce that does not meet its bits."""
    return next(h for h in (header[:76] + n.to_bytes(4, "little") for n in range(1 << 20)) if grind(h, 1) is None)


def child(ledger: BitcoinLedger, chain: Chain, after: bytes, /, salt: int = 0, **changes: Any) -> bytes:
    """A mined header after ``after``, valid but for ``changes`` of its fields."""
    branch = chain.branch(after)
    time = median_time(branch.recent(11)) + 60
    root = salt.to_bytes(32, "little")
    header = Header(0x20000000, after, root, time, ledger.next_bits(branch), 0)
    return mined(msgspec.structs.replace(header, **changes).encode())


def extend(ledger: BitcoinLedger, chain: Chain, parent: bytes, count: int, salt: int = 0) -> list[bytes]:
    """``count`` headers on ``parent``, added to the chain; their ids."""
    ids = []
    for _ in range(count):
        header = child(ledger, chain, parent, salt)
        assert chain.add(header, LATER) is None
        parent = ledger.block_id(header)
        ids.append(parent)
    return ids


def mined_block(
    ledger: BitcoinLedger, chain: Chain, parent: bytes, transactions: list[Transaction] | None = None, seed: int = 1
) -> bytes:
    """A valid block on ``parent``."""
    raw = block_template(ledger, chain.branch(parent), transactions or [], START, random.Random(seed))
    return mined(raw[:80]) + raw[80:]
