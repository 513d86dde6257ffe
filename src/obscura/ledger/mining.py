"""Making blocks: a template on a parent, the nonce in bounded steps, transactions to fill it. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from obscura import limits
from obscura.ledger.bitcoin import BitcoinLedger, median_time
from obscura.ledger.block import COMMITMENT_MARK, height_push, witness_commitment
from obscura.ledger.header import HEADER_BYTES, Header, bits_in, double_sha256
from obscura.ledger.merkle import merkle_root
from obscura.ledger.port import Branch, Transaction
from obscura.ledger.transaction import NULL_OUTPOINT, Fields, Input, Output, decode_transaction
from obscura.ledger.work import target_of
from obscura.wire.fields import U32, compact_size

_NONCES = 1 << 32
_ANYONE = b"\x51"  # OP_TRUE: coins without scripts belong to whoever comes
_RESERVED = bytes(32)  # the coinbase's witness (BIP141)
_SUBSIDY = 50 * 100_000_000
_HALVING = 210_000  # blocks
_COINBASE_WEIGHT = 1_000  # units kept free for header, count and coinbase


def fitting(transactions: Sequence[Transaction]) -> list[Transaction]:
    """The first transactions, in order, that one block has room for."""
    chosen, left = [], limits.MAX_BLOCK_WEIGHT - _COINBASE_WEIGHT
    for transaction in transactions:
        left -= 3 * transaction.base_bytes + len(transaction.raw)
        if left < 0:
            break
        chosen.append(transaction)
    return chosen


def block_template(
    ledger: BitcoinLedger, branch: Branch, transactions: Sequence[Transaction], now: float, rng: random.Random
) -> bytes:
    """A block after the branch's newest header that lacks only its nonce; ``rng`` sets it apart from others.

    Times: unix seconds; never below what the median rule asks for, so blocks in quick succession work.
    """
    height = branch.height + 1
    coinbase = _coinbase(ledger, height, transactions, rng)
    ids = [decode_transaction(coinbase).id, *(t.id for t in transactions)]
    root, _ = merkle_root(ids)
    recent = branch.recent(limits.MEDIAN_TIME_SPAN)
    time = max(int(now), median_time(recent) + 1)
    parent = double_sha256(recent[0])
    header = Header(0x20000000, parent, root, time, ledger.next_bits(branch), 0).encode()
    return ledger.encode_block(header, [coinbase, *(t.raw for t in transactions)])


def _coinbase(ledger: BitcoinLedger, height: int, transactions: Sequence[Transaction], rng: random.Random) -> bytes:
    script = height_push(height) + b"\x08" + rng.randbytes(8)
    outputs = [Output(_SUBSIDY >> (height // _HALVING), _ANYONE)]
    witness: tuple[bytes, ...] = ()
    if height >= ledger.rules.witness_from and any(t.id != t.witness_id for t in transactions):
        commitment = witness_commitment([bytes(32), *(t.witness_id for t in transactions)], _RESERVED)
        outputs.append(Output(0, COMMITMENT_MARK + commitment))
        witness = (_RESERVED,)
    return Fields(1, (Input(NULL_OUTPOINT, script, witness=witness),), tuple(outputs)).encode()


def grind(header: bytes, tries: int) -> bytes | None:
    """Try at most ``tries`` nonces from the header's own upwards: the header that has the work, or ``None``.

    To go on, give it ``after(header, tries)``; the nonces end at 2^32, then a new template is needed.
    """
    target = target_of(bits_in(header))
    first = int.from_bytes(header[76:HEADER_BYTES], "little")
    stem = header[:76]
    for nonce in range(first, min(first + tries, _NONCES)):
        candidate = stem + U32.pack(nonce)
        if int.from_bytes(double_sha256(candidate), "little") <= target:
            return candidate
    return None


def after(header: bytes, tries: int) -> bytes | None:
    """The header with its nonce ``tries`` further, or ``None`` where the nonces end."""
    nonce = int.from_bytes(header[76:HEADER_BYTES], "little") + tries
    return header[:76] + U32.pack(nonce) if nonce < _NONCES else None


_INPUT, _PAYMENT, _FRAME = 148, 34, 10  # bytes of a usual input, a usual output, and everything around them
LEAST_FILLER = _FRAME + _INPUT + _PAYMENT + 9  # bytes: one input, one payment, one output for the rest
MOST_FILLER = limits.MAX_STEM_TX


def filler_transaction(rng: random.Random, size: int = 700) -> bytes:
    """A random transaction of the usual shape, ``size`` bytes or up to 2 fewer; it spends what never was.

    Raises ``ValueError`` outside ``LEAST_FILLER``..``MOST_FILLER``.
    """
    if not LEAST_FILLER <= size <= MOST_FILLER:
        raise ValueError(f"{size} bytes are not in {LEAST_FILLER}..{MOST_FILLER}")
    inputs = min(250, (size - LEAST_FILLER) // _INPUT + 1)
    noise = rng.randbytes(inputs * (_INPUT - 5) + 20)
    parts = [b"\x02\0\0\0", bytes([inputs])]
    for at in range(0, inputs * (_INPUT - 5), _INPUT - 5):
        parts += (noise[at : at + 36], b"\x6b", noise[at + 36 : at + _INPUT - 5], b"\xff\xff\xff\xff")
    parts.append(b"\x02" + (5_000).to_bytes(8, "little") + b"\x19\x76\xa9\x14" + noise[-20:] + b"\x88\xac")
    rest = size - _FRAME - inputs * _INPUT - _PAYMENT - 9
    rest -= len(compact_size(rest)) - 1
    script = (b"\x6a" + rng.randbytes(rest - 1)) if rest > 0 else b""
    parts += (bytes(8), compact_size(len(script)), script, bytes(4))
    return b"".join(parts)


def filled(rng: random.Random, block_bytes: int, size: int = 700) -> list[Transaction]:
    """Random transactions of about ``size`` bytes, at most ``block_bytes`` with a coinbase."""
    room = min(block_bytes, limits.MAX_BLOCK_WEIGHT // 4) - _COINBASE_WEIGHT // 4
    count = room // size
    return [decode_transaction(filler_transaction(rng, size)) for _ in range(count)]
