"""Bitcoin's blocks: header, transactions, what ties them together (merkle root, witness commitment)."""

from __future__ import annotations

from obscura import limits
from obscura.errors import DecodeError
from obscura.ledger.header import HEADER_BYTES, double_sha256
from obscura.ledger.merkle import merkle_root
from obscura.ledger.port import Block, Fault, FaultKind, Transaction, invalid
from obscura.ledger.transaction import CUT_SHORT, Fields, scan
from obscura.wire.fields import Reader, compact_size

COMMITMENT_MARK = bytes.fromhex("6a24aa21a9ed")  # OP_RETURN, 36 bytes, the mark of BIP141
_COMMITMENT_BYTES = len(COMMITMENT_MARK) + 32

NOT_THIS_HEADERS = Fault(FaultKind.BODY, "merkle root is not the header's")
REPEATED = Fault(FaultKind.BODY, "transactions repeated under the same merkle root")
NO_COINBASE = Fault(FaultKind.BODY, "the first transaction is not a coinbase")
BAD_WITNESS = Fault(FaultKind.BODY, "witnesses are not the committed ones")
UNCOMMITTED_WITNESS = Fault(FaultKind.BODY, "witnesses without a commitment")
SECOND_COINBASE = invalid("more than one coinbase")
DUPLICATE = invalid("a transaction twice in one block")
TOO_HEAVY = invalid("over the weight limit")
BAD_HEIGHT = invalid("the coinbase does not begin with the height")


def decode_block(raw: bytes) -> Block:
    """Header, transactions and ids. Raises ``DecodeError``."""
    if len(raw) > limits.MAX_BLOCK:
        raise DecodeError(f"a block of {len(raw)} bytes")
    reader = Reader(raw)
    header = reader.take(HEADER_BYTES)
    count = reader.count(limits.MAX_BLOCK, 1)
    at = reader.position
    transactions: list[Transaction] = []
    try:
        for _ in range(count):
            transaction, at = scan(raw, at)
            transactions.append(transaction)
    except CUT_SHORT:
        raise DecodeError("a block is cut short") from None
    if at != len(raw):
        raise DecodeError(f"{len(raw) - at} bytes too many")
    return Block(raw, header, double_sha256(header), transactions)


def check_body(block: Block, height: int, witness_active: bool, height_in_coinbase: bool) -> Fault | None:
    """The body against its header, and the rules that need no other block. No scripts, no spends.

    First what the merkle root does not vouch for (``BODY``: someone may have altered it on the way), then
    what it does.
    """
    transactions = block.transactions
    root, repeated = merkle_root([t.id for t in transactions])
    if root != block.header[36:68]:
        return NOT_THIS_HEADERS
    if repeated:
        return REPEATED
    if not transactions or not is_coinbase(transactions[0]):
        return NO_COINBASE  # a 64-byte transaction can pose as an inner node, so this too may be an altered body
    fault = _check_transactions(transactions)
    if fault:
        return fault
    coinbase = Fields.decode(transactions[0].raw)
    if height_in_coinbase and not coinbase.inputs[0].script.startswith(height_push(height)):
        return BAD_HEIGHT
    return _check_witnesses(coinbase, transactions, witness_active) or _check_weight(block)


def is_coinbase(transaction: Transaction) -> bool:
    """Whether it spends nothing: only a coinbase does."""
    return not transaction.spends


def _check_transactions(transactions: list[Transaction]) -> Fault | None:
    for transaction in transactions:
        if transaction.fault:
            return transaction.fault
    if not all(t.spends for t in transactions[1:]):
        return SECOND_COINBASE
    if len({t.id for t in transactions}) != len(transactions):
        return DUPLICATE
    return None


def height_push(height: int) -> bytes:
    """The script that pushes a height: how a coinbase must begin (BIP34)."""
    if height == 0:
        return b"\0"
    if height <= 16:
        return bytes([0x50 + height])
    number = height.to_bytes(height.bit_length() // 8 + 1, "little")  # a clear top bit: the sign
    return bytes([len(number)]) + number


def witness_commitment(witness_ids: list[bytes], reserved: bytes) -> bytes:
    """The commitment to all witnesses (BIP141); the coinbase, which comes first, counts as zeros."""
    root, _ = merkle_root([bytes(32), *witness_ids[1:]])
    return double_sha256(root + reserved)


def _check_witnesses(coinbase: Fields, transactions: list[Transaction], active: bool) -> Fault | None:
    """BIP141: a commitment is kept, and witnesses need one."""
    carries_witness = any(t.id != t.witness_id for t in transactions)
    given = [o.script for o in coinbase.outputs if _is_commitment(o.script)] if active else []
    if not given:
        return UNCOMMITTED_WITNESS if carries_witness else None
    reserved = coinbase.inputs[0].witness
    if len(reserved) != 1 or len(reserved[0]) != 32:
        return BAD_WITNESS
    commitment = witness_commitment([t.witness_id for t in transactions], reserved[0])
    return None if commitment == given[-1][len(COMMITMENT_MARK) : _COMMITMENT_BYTES] else BAD_WITNESS


def _is_commitment(script: bytes) -> bool:
    return len(script) >= _COMMITMENT_BYTES and script.startswith(COMMITMENT_MARK)


def weight(block: Block) -> int:
    """Three times the bytes without witnesses plus all bytes (BIP141)."""
    count = len(compact_size(len(block.transactions)))
    base = HEADER_BYTES + count + sum(t.base_bytes for t in block.transactions)
    return 3 * base + len(block.raw)


def _check_weight(block: Block) -> Fault | None:
    return TOO_HEAVY if weight(block) > limits.MAX_BLOCK_WEIGHT else None
