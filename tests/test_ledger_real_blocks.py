"""Real mainnet blocks: to the byte, valid, and as an independent library has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitcoin.core import CBlock

import shared_data
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header
from obscura.ledger.merkle import merkle_root
from obscura.ledger.network import display_id
from obscura.ledger.networks import BUILT_IN
from obscura.ledger.port import FaultKind
from obscura.ledger.transaction import Fields
from shared_data import BLOCK_FILES, real_blocks

pytestmark = pytest.mark.shared_data
LEDGER = BUILT_IN["bitcoin"].ledger
HEIGHT_OF_FIRST = {BLOCK_FILES[0]: 0, BLOCK_FILES[1]: 277_647}
NOW = 1_700_000_000


def test_where_the_data_is_missing_it_is_said_or_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared_data, "FOLDER", tmp_path)
    monkeypatch.delenv("TEST_REQUIRE_SHARED_DATA", raising=False)
    assert real_blocks() == []
    assert capsys.readouterr().out == "did not run: ../shared/data is not there\n"
    monkeypatch.setenv("TEST_REQUIRE_SHARED_DATA", "1")
    with pytest.raises(AssertionError, match="required"):
        real_blocks()


@pytest.mark.parametrize("name", BLOCK_FILES)
def test_to_the_byte_and_as_an_independent_library_has_it(name: str) -> None:
    for raw in real_blocks(name):
        block, theirs = LEDGER.decode_block(raw), CBlock.deserialize(raw)
        assert block.id == theirs.GetHash()
        assert [t.id for t in block.transactions] == [t.GetTxid() for t in theirs.vtx]
        assert merkle_root([t.id for t in block.transactions]) == (theirs.calc_merkle_root(), False)
        assert LEDGER.encode_block(block.header, [t.raw for t in block.transactions]) == raw
        assert Header.decode(block.header).encode() == block.header
        assert (
            b"".join(Fields.decode(t.raw).encode() for t in block.transactions)
            == raw[-sum(len(t.raw) for t in block.transactions) :]
        )


@pytest.mark.parametrize("name", BLOCK_FILES)
def test_valid_at_their_heights_and_not_when_altered(name: str) -> None:
    for height, raw in enumerate(real_blocks(name), HEIGHT_OF_FIRST[name]):
        block = LEDGER.decode_block(raw)
        assert LEDGER.check_block(block, height) is None
        altered = LEDGER.decode_block(raw[:-1] + bytes([raw[-1] ^ 1]))
        fault = LEDGER.check_block(altered, height)
        assert fault is not None
        assert fault.kind is FaultKind.BODY


def test_the_first_headers_form_the_chain() -> None:
    chain = Chain(LEDGER)
    blocks = [LEDGER.decode_block(raw) for raw in real_blocks()]
    assert chain.add_all([block.header for block in blocks[1:]], NOW)[1] is None
    for block in blocks:
        assert block.id == chain.at(chain.height(block.id))
        chain.received(block.id)
    assert chain.tip_height == max(len(blocks) - 1, 0)
    assert chain.work(chain.tip) == max(len(blocks), 1) * 0x100010001
    if blocks:
        assert display_id(chain.tip) == display_id(blocks[-1].id)
        assert chain.add(blocks[5].header[:79] + b"\0", NOW) is not None


def test_block_277647_has_its_height_in_its_coinbase() -> None:
    for raw in real_blocks(BLOCK_FILES[1]):
        block = LEDGER.decode_block(raw)
        fault = LEDGER.check_block(block, 277_646)
        assert fault is not None
        assert fault.kind is FaultKind.INVALID
