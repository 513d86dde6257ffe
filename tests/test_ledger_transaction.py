"""Transactions: published examples both ways, an independent decoder, every malformed field, random mutations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bitcoin.core import CTransaction
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import DecodeError
from obscura.ledger.block import is_coinbase
from obscura.ledger.port import FaultKind
from obscura.ledger.transaction import NULL_OUTPOINT, Fields, Input, Output, decode_transaction

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/ledger/transactions.json").read_text())
ALL_SOUND = [bytes.fromhex(case["raw"]) for case in VECTORS["valid"] + VECTORS["sound"]]


def by_name(which: str) -> Any:
    return pytest.mark.parametrize("case", VECTORS[which], ids=lambda case: case["name"])


def fields_of(case: dict[str, Any]) -> Fields:
    inputs = tuple(
        Input(
            bytes.fromhex(i["txid"])[::-1] + i["index"].to_bytes(4, "little"),
            bytes.fromhex(i["script"]),
            i["sequence"],
            tuple(bytes.fromhex(item) for item in i["witness"]),
        )
        for i in case["inputs"]
    )
    outputs = tuple(Output(o["value"], bytes.fromhex(o["script"])) for o in case["outputs"])
    return Fields(case["version"], inputs, outputs, case["lock_time"])


@by_name("valid")
def test_published_transactions_both_ways(case: dict[str, Any]) -> None:
    raw, fields = bytes.fromhex(case["raw"]), fields_of(case)
    assert Fields.decode(raw) == fields
    assert fields.encode() == raw
    transaction = decode_transaction(raw)
    assert transaction.id[::-1].hex() == case["txid"]
    assert transaction.witness_id[::-1].hex() == case["wtxid"]
    assert list(transaction.spends) == [i.outpoint for i in fields.inputs]
    assert transaction.fault is None
    stripped = Fields(fields.version, tuple(Input(i.outpoint, i.script, i.sequence) for i in fields.inputs),
                      fields.outputs, fields.lock_time).encode()  # fmt: skip
    assert transaction.base_bytes == len(stripped)
    assert decode_transaction(stripped).id == transaction.id, "the id does not cover witnesses"


@by_name("sound")
def test_sound(case: dict[str, str]) -> None:
    raw = bytes.fromhex(case["raw"])
    assert decode_transaction(raw).fault is None
    assert Fields.decode(raw).encode() == raw


@by_name("malformed")
def test_malformed(case: dict[str, str]) -> None:
    for decode in (decode_transaction, Fields.decode):
        with pytest.raises(DecodeError):
            decode(bytes.fromhex(case["raw"]))


@by_name("faulty")
def test_faulty(case: dict[str, str]) -> None:
    fault = decode_transaction(bytes.fromhex(case["raw"])).fault
    assert fault is not None
    assert (fault.kind, fault.reason) == (FaultKind.INVALID, case["reason"])


def test_only_a_lone_null_outpoint_is_a_coinbase() -> None:
    raw = {case["name"]: bytes.fromhex(case["raw"]) for case in VECTORS["sound"] + VECTORS["faulty"]}
    assert is_coinbase(decode_transaction(raw["coinbase script of 2 bytes"]))
    assert is_coinbase(decode_transaction(raw["coinbase script of 101 bytes"]))
    assert not is_coinbase(decode_transaction(raw["null outpoint beside another"]))
    assert not is_coinbase(decode_transaction(raw["null index, other id"]))


def test_every_truncation_is_malformed() -> None:
    for raw in ALL_SOUND:
        for size in range(len(raw)):
            with pytest.raises(DecodeError):
                decode_transaction(raw[:size])


scripts = st.one_of(st.binary(max_size=40), st.binary(min_size=250, max_size=260))
outpoints = st.one_of(st.binary(min_size=36, max_size=36), st.just(NULL_OUTPOINT))
u32 = st.integers(0, 2**32 - 1)
inputs = st.builds(Input, outpoints, scripts, u32, st.lists(scripts, max_size=3).map(tuple))
outputs = st.builds(Output, st.integers(0, 2**64 - 1), scripts)
transactions = st.builds(
    Fields,
    st.integers(-(2**31), 2**31 - 1),
    st.lists(inputs, min_size=1, max_size=4).map(tuple),
    st.lists(outputs, max_size=4).map(tuple),
    u32,
)


@given(transactions)
@settings(deadline=None, max_examples=150)
def test_any_transaction_survives_and_an_independent_decoder_agrees(fields: Fields) -> None:
    raw = fields.encode()
    assert Fields.decode(raw) == fields
    ours, theirs = decode_transaction(raw), CTransaction.deserialize(raw)
    assert ours.id == theirs.GetTxid()
    assert ours.witness_id == (theirs.GetHash() if theirs.has_witness() else theirs.GetTxid())
    assert ours.raw == raw


@given(st.sampled_from(ALL_SOUND), st.data())
@settings(deadline=None, max_examples=300)
def test_mutations_give_a_decode_error_or_the_same_bytes_back(raw: bytes, data: st.DataObject) -> None:
    mutated = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=9))
        if not mutated:
            break
    try:
        transaction = decode_transaction(bytes(mutated))
    except DecodeError:
        return
    assert transaction.raw == bytes(mutated)
    assert Fields.decode(bytes(mutated)).encode() == bytes(mutated)
