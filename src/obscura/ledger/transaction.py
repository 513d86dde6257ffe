"""Bitcoin's transactions with witnesses (BIP144): one tight pass for the node, the fields for others."""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from struct import error as StructError

import msgspec

from obscura import limits
from obscura.errors import DecodeError
from obscura.ledger.port import Fault, Transaction, invalid
from obscura.wire.fields import U32, U64, Reader, compact_size

NULL_OUTPOINT = bytes(32) + b"\xff" * 4
OUTPOINT_BYTES = 36
_I32 = Struct("<i")
_LEAST_INPUT, _LEAST_OUTPUT = 41, 9  # bytes: outpoint, empty script, sequence; value, empty script

NO_OUTPUTS = invalid("a transaction without outputs")
BAD_VALUE = invalid("an output value out of range")
SPENT_TWICE = invalid("an outpoint spent twice in one transaction")
NULL_SPENT = invalid("a null outpoint beside others")
BAD_COINBASE_SCRIPT = invalid("a coinbase script of the wrong size")

CUT_SHORT = (IndexError, StructError, OverflowError)  # how running past the end shows itself
_u64_at = U64.unpack_from
_LONG = {0xFD: (Struct("<H"), 2, 0xFD), 0xFE: (U32, 4, 0x10000), 0xFF: (U64, 8, 1 << 32)}


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A CompactSize of more than one byte whose first byte is at ``at``: value and where it ends."""
    form, size, least = _LONG[data[at]]
    (value,) = form.unpack_from(data, at + 1)
    if value < least:
        raise DecodeError("CompactSize not in its shortest form")
    return value, at + 1 + size


def scan(data: bytes, start: int) -> tuple[Transaction, int]:
    """The transaction that begins at ``start``, and its end. Raises ``DecodeError`` or one of ``CUT_SHORT``.

    The hot path of block validation, so it is one function with plain integers: boundaries are found by
    adding lengths, nothing but outpoints is sliced, values are only summed (a negative one is a huge unsigned
    one, so the sum tells all).
    """
    at = start + 4
    with_witness = not data[at]
    if with_witness:
        if data[at + 1] != 1:
            raise DecodeError("unknown flag after the witness marker")
        at += 2
    spends: list[bytes] = []
    size = 0
    count = data[at]
    count, at = (count, at + 1) if count < 0xFD else _long(data, at)
    if not count:
        raise DecodeError("a transaction without inputs")
    for _ in range(count):
        spends.append(data[at : at + 36])
        at += 36
        size = data[at]
        if size < 0xFD:
            at += size + 5
        else:
            size, at = _long(data, at)
            at += size + 4
    total = 0
    outputs = data[at]
    outputs, at = (outputs, at + 1) if outputs < 0xFD else _long(data, at)
    for _ in range(outputs):
        total += _u64_at(data, at)[0]
        at += 8
        length = data[at]
        if length < 0xFD:
            at += length + 1
        else:
            length, at = _long(data, at)
            at += length
    base_end = at
    if with_witness:
        at = _skip_witnesses(data, at, count)
    at += 4
    raw = data[start:at]
    if at > len(data):
        raise DecodeError("a transaction is cut short")
    identity = witness_id = sha256(sha256(raw).digest()).digest()
    base = at - start
    if with_witness:
        stripped = b"".join((raw[:4], data[start + 6 : base_end], raw[-4:]))
        identity, base = sha256(sha256(stripped).digest()).digest(), len(stripped)
    fault = None
    coinbase = count == 1 and spends[0] == NULL_OUTPOINT
    repeated = count > 1 and (len(set(spends)) < count or NULL_OUTPOINT in spends)
    if coinbase or repeated or not outputs or total > limits.MAX_MONEY:
        fault = _fault(spends, outputs, total, size)
        if coinbase:
            spends = []
    return Transaction(raw, identity, witness_id, spends, base, fault), at


def _skip_witnesses(data: bytes, at: int, inputs: int) -> int:
    """Where the witnesses of ``inputs`` inputs end."""
    present = 0
    for _ in range(inputs):
        items = data[at]
        items, at = (items, at + 1) if items < 0xFD else _long(data, at)
        present |= items
        for _ in range(items):
            length = data[at]
            if length < 0xFD:
                at += length + 1
            else:
                length, at = _long(data, at)
                at += length
    if not present:
        raise DecodeError("a witness marker without a witness")
    return at


def _fault(spends: list[bytes], outputs: int, total: int, script_bytes: int) -> Fault | None:
    """What is wrong in any context (Bitcoin's CheckTransaction); ``script_bytes`` of the last input."""
    if not outputs:
        return NO_OUTPUTS
    if total > limits.MAX_MONEY:
        return BAD_VALUE
    if len(spends) > 1:
        return SPENT_TWICE if len(set(spends)) < len(spends) else NULL_SPENT
    least, most = limits.COINBASE_SCRIPT
    return None if least <= script_bytes <= most else BAD_COINBASE_SCRIPT


def decode_transaction(raw: bytes) -> Transaction:
    """The whole of ``raw`` as one transaction. Raises ``DecodeError``."""
    try:
        transaction, end = scan(raw, 0)
    except CUT_SHORT:
        raise DecodeError("a transaction is cut short") from None
    if end != len(raw):
        raise DecodeError(f"{len(raw) - end} bytes too many")
    return transaction


class Input(msgspec.Struct, frozen=True):
    """One input: what it spends, and its witness (the items of the stack)."""

    outpoint: bytes  # id of the transaction 32, index u32
    script: bytes
    sequence: int = 0xFFFFFFFF
    witness: tuple[bytes, ...] = ()


class Output(msgspec.Struct, frozen=True, gc=False):
    """One output. ``value`` in smallest units, unsigned here: a negative one shows as over ``MAX_MONEY``."""

    value: int
    script: bytes


class Fields(msgspec.Struct, frozen=True):
    """A transaction taken apart. ``decode(raw).encode() == raw`` for everything that decodes."""

    version: int
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    lock_time: int = 0

    def encode(self) -> bytes:
        with_witness = any(i.witness for i in self.inputs)
        parts = [_I32.pack(self.version), b"\0\x01" if with_witness else b"", compact_size(len(self.inputs))]
        parts += (i.outpoint + _sized(i.script) + U32.pack(i.sequence) for i in self.inputs)
        parts.append(compact_size(len(self.outputs)))
        parts += (U64.pack(o.value) + _sized(o.script) for o in self.outputs)
        if with_witness:
            parts += (compact_size(len(i.witness)) + b"".join(map(_sized, i.witness)) for i in self.inputs)
        parts.append(U32.pack(self.lock_time))
        return b"".join(parts)

    @classmethod
    def decode(cls, raw: bytes) -> Fields:
        """Raises ``DecodeError``."""
        decode_transaction(raw)  # the whole encoding is sound from here on, counts included
        reader = Reader(raw)
        (version,) = _I32.unpack(reader.take(4))
        with_witness = raw[4] == 0
        if with_witness:
            reader.take(2)
        inputs = [
            Input(reader.take(OUTPOINT_BYTES), _take_sized(reader), reader.u32())
            for _ in range(reader.count(len(raw), _LEAST_INPUT))
        ]
        outputs = [Output(reader.u64(), _take_sized(reader)) for _ in range(reader.count(len(raw), _LEAST_OUTPUT))]
        if with_witness:
            stacks = [tuple(_take_sized(reader) for _ in range(reader.count(len(raw), 1))) for _ in inputs]
            inputs = [Input(i.outpoint, i.script, i.sequence, s) for i, s in zip(inputs, stacks, strict=True)]
        return cls(version, tuple(inputs), tuple(outputs), reader.u32())


def _sized(data: bytes) -> bytes:
    return compact_size(len(data)) + data


def _take_sized(reader: Reader) -> bytes:
    return reader.take(reader.compact_size(reader.left))
