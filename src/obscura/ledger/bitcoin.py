"""The built-in ledger: Bitcoin's headers, blocks and transactions under the rules of one network.

It checks proof of work, difficulty, times, merkle root, witness commitment, sizes and structure. It runs no
scripts and follows no spends: whoever has the work can make coins of nothing here. It says which blocks are
real work, not which payments are good.
"""

from __future__ import annotations

import msgspec

from obscura import limits
from obscura.errors import DecodeError
from obscura.ledger import work
from obscura.ledger.block import check_body, decode_block, is_coinbase
from obscura.ledger.header import HEADER_BYTES, Header, bits_in, double_sha256, time_of
from obscura.ledger.port import Block, Branch, Fault, FaultKind, Ledger, Transaction, invalid
from obscura.ledger.transaction import CUT_SHORT, decode_transaction, scan

WRONG_PARENT = invalid("wrong parent")
WRONG_SIZE = invalid("a header of the wrong size")
WRONG_BITS = invalid("bits are not what the difficulty rule gives")
NO_WORK = invalid("the hash does not meet the target")
TOO_OLD = invalid("time not after the median of the last 11")
TOO_NEW = Fault(FaultKind.EARLY, "time more than 2 h ahead")
OLD_VERSION = invalid("a version that the network has left behind")
LOOSE_COINBASE = invalid("a coinbase outside a block")


class Rules(msgspec.Struct, frozen=True):
    """What differs between networks."""

    limit_bits: int  # easiest target, compact
    spacing_s: int  # intended seconds between blocks
    retarget_blocks: int  # blocks from one retarget to the next; 0 = the bits never change
    height_from: int = 1  # BIP34: from this height the coinbase begins with the height
    witness_from: int = 1  # BIP141: from this height witnesses are allowed and committed to
    versions: tuple[tuple[int, int], ...] = ()  # (height, least version from there on)


class BitcoinLedger(Ledger):
    """Bitcoin's encodings under ``rules``; ``genesis_block`` is trusted by its hash."""

    header_bytes = HEADER_BYTES

    def __init__(self, rules: Rules, genesis_block: bytes) -> None:
        self.rules = rules
        self.genesis_block = genesis_block
        self.genesis = genesis_block[:HEADER_BYTES]

    def block_id(self, header: bytes) -> bytes:
        return double_sha256(header)

    def parent_id(self, header: bytes) -> bytes:
        return header[4:36]

    def work(self, header: bytes) -> int:
        return work.work_of(bits_in(header))

    def decode_block(self, raw: bytes) -> Block:
        return decode_block(raw)

    def decode_transaction(self, raw: bytes) -> Transaction:
        return decode_transaction(raw)

    def scan_transaction(self, data: bytes, at: int) -> tuple[Transaction, int]:
        try:
            return scan(data, at)
        except CUT_SHORT:
            raise DecodeError("a transaction is cut short") from None

    def check_header(self, header: bytes, branch: Branch, now: float) -> Fault | None:
        """Linkage, difficulty, proof of work, median time past, the clock, versions left behind."""
        if len(header) != HEADER_BYTES:
            return WRONG_SIZE
        recent = branch.recent(limits.MEDIAN_TIME_SPAN)
        block_id = double_sha256(header)
        if header[4:36] != double_sha256(recent[0]):
            return WRONG_PARENT
        if bits_in(header) != self.next_bits(branch):
            return WRONG_BITS
        if not work.meets(block_id, bits_in(header), self.rules.limit_bits):
            return NO_WORK
        if time_of(header) <= median_time(recent):
            return TOO_OLD
        if time_of(header) > now + limits.MAX_FUTURE_S:
            return TOO_NEW
        return self._check_version(header, branch.height + 1)

    def _check_version(self, header: bytes, height: int) -> Fault | None:
        left_behind = self.rules.versions
        if left_behind and any(height >= h and Header.decode(header).version < v for h, v in left_behind):
            return OLD_VERSION
        return None

    def next_bits(self, branch: Branch) -> int:
        """Compact target of the header after the branch's newest."""
        last = branch.header(branch.height)
        rules = self.rules
        interval = rules.retarget_blocks
        if not interval or (branch.height + 1) % interval:
            return bits_in(last)
        first = branch.header(branch.height + 1 - interval)
        span = interval * rules.spacing_s
        return work.retarget(bits_in(last), time_of(first), time_of(last), span, rules.limit_bits)

    def check_step(self, height: int, parent: bytes, header: bytes) -> Fault | None:
        """Linkage, own proof of work, and a difficulty that some retarget could have given."""
        if len(header) != HEADER_BYTES:
            return WRONG_SIZE
        if header[4:36] != double_sha256(parent):
            return WRONG_PARENT
        old, new, limit = bits_in(parent), bits_in(header), self.rules.limit_bits
        interval = self.rules.retarget_blocks
        span = interval * self.rules.spacing_s
        if old != new and (not interval or height % interval or not work.may_change_to(old, new, span, limit)):
            return WRONG_BITS
        return None if work.meets(double_sha256(header), new, limit) else NO_WORK

    def check_block(self, block: Block, height: int) -> Fault | None:
        rules = self.rules
        return check_body(block, height, height >= rules.witness_from, height >= rules.height_from)

    def check_transaction(self, transaction: Transaction) -> Fault | None:
        return LOOSE_COINBASE if is_coinbase(transaction) else transaction.fault


def median_time(recent: list[bytes]) -> int:
    """Median of the times of the newest headers, at most eleven; the upper one of an even number."""
    return sorted(map(time_of, recent))[len(recent) // 2]
