"""Networks: ids that never change, the genesis blocks, own networks from a file, read strictly."""

from __future__ import annotations

import json
import random
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from bitcoin.core import CBlock, CoreMainParams
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import ConfigError
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.chain import Chain
from obscura.ledger.header import Header, bits_in
from obscura.ledger.mining import block_template, grind
from obscura.ledger.network import display_id, is_mined, network_id, own_genesis
from obscura.ledger.network_file import BUILT_IN_NAMES, Plan, plan_network, read_network
from obscura.ledger.networks import BUILT_IN, load_network
from obscura.ledger.transaction import Fields

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/ledger/networks.json").read_text())


def rules_of(name: str) -> BitcoinLedger:
    ledger = BUILT_IN[name].ledger
    assert isinstance(ledger, BitcoinLedger)
    return ledger


@pytest.mark.parametrize("case", VECTORS["networks"], ids=lambda case: case["name"])
def test_built_in_networks_never_change(case: dict[str, Any]) -> None:
    network, ledger = BUILT_IN[case["name"]], rules_of(case["name"])
    assert network.id.hex() == case["id"]
    assert display_id(network.genesis_id) == case["genesis_id"]
    assert ledger.genesis.hex() == case["genesis_header"]
    assert f"{ledger.rules.limit_bits:08x}" == f"{bits_in(ledger.genesis):08x}" == case["work"]
    assert (ledger.rules.spacing_s, ledger.rules.retarget_blocks) == (case["spacing"], case["retarget"])
    assert network.port == case["port"]
    text = b"obscura network/1\0" + case["name"].encode() + b"\0" + bytes.fromhex(case["genesis_id"])[::-1]
    assert sha256(text).hexdigest() == case["id"]


def test_the_table_is_complete() -> None:
    assert tuple(BUILT_IN) == BUILT_IN_NAMES == tuple(case["name"] for case in VECTORS["networks"])
    assert network_id("x", None) == network_id("x", bytes(32)) != network_id("y", None)


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_a_genesis_block_is_a_sound_block(name: str) -> None:
    ledger = rules_of(name)
    block = ledger.decode_block(ledger.genesis_block)
    assert (block.header, len(block.transactions)) == (ledger.genesis, 1)
    assert ledger.check_block(block, 0) is None
    assert is_mined(ledger.genesis) == (name != "main")
    theirs = CBlock.deserialize(ledger.genesis_block)
    assert theirs.calc_merkle_root() == theirs.hashMerkleRoot


def test_bitcoins_genesis_is_bitcoins() -> None:
    assert rules_of("bitcoin").genesis_block == CoreMainParams.GENESIS_BLOCK.serialize()


@pytest.mark.parametrize("name", ["dev", "test", "main"])
def test_an_own_genesis_says_whose_it_is(name: str) -> None:
    raw = rules_of(name).genesis_block
    assert Fields.decode(raw[81:]).inputs[0].script.endswith(f"Obscura {name} genesis".encode())


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "name": "isle", "port": 40_000, "work": 0x207FFFFF, "spacing": 60, "retarget": 144, "message": "hello isle",
        "time": 1_700_000_000, "seeds": ("obscura://10.0.0.1:40000",), "seed_key": bytes(range(32)),
    }  # fmt: skip
    return Plan(**values | changes)


@pytest.mark.parametrize("changes", [{}, {"seeds": (), "seed_key": None}, {"retarget": 0}, {"nonce": 2**32 - 1}])
def test_a_file_says_what_the_plan_says(changes: dict[str, Any], tmp_path: Path) -> None:
    made = plan(**changes)
    path = tmp_path / "isle.toml"
    path.write_text(made.toml())
    for network in (made.network(), read_network(made.toml()), load_network(str(path))):
        assert isinstance(network.ledger, BitcoinLedger)
        assert network.id == made.network().id
        assert (network.name, network.port, network.seeds, network.seed_key) == (
            made.name, made.port, made.seeds, made.seed_key,
        )  # fmt: skip
        assert network.ledger.rules == made.network().ledger.rules  # type: ignore[attr-defined]
        assert network.ledger.genesis_block == own_genesis(made.message, made.time, made.work, made.nonce)


def test_an_own_network_can_be_mined_on() -> None:
    network = plan().network()
    assert isinstance(network.ledger, BitcoinLedger)
    chain = Chain(network.ledger)
    raw = block_template(network.ledger, chain.branch(chain.best), [], 1_700_000_100, random.Random(1))
    header = grind(raw[:80], 1000)
    assert header is not None
    assert chain.add(header, 1_700_000_100) is None
    assert Header.decode(header).parent == network.genesis_id


def test_a_name_is_enough_for_a_plan() -> None:
    made = plan_network("isle", now=1_700_000_000.5, seeds=("obscura://10.0.0.1:40000",))
    assert (made.time, made.message, made.seeds) == (1_700_000_000, "isle genesis", ("obscura://10.0.0.1:40000",))
    assert read_network(made.toml()).id == made.network().id != plan_network("isle", now=1_700_000_001).network().id
    with pytest.raises(ConfigError):
        plan_network("main", now=1)


GOOD = plan().toml()
BAD_FILES = [
    ("not TOML", GOOD.replace('name = "isle"', "name = isle"), "not TOML"),
    ("empty", "", "name is missing"),
    ("unknown setting", "colour = 1\n" + GOOD, "colour is not a setting"),
    ("unknown setting of the genesis", GOOD + "bits = 1\n", "genesis.bits is not a setting"),
    ("no genesis", GOOD[: GOOD.index("[genesis]")], "genesis is missing"),
    ("genesis not a table", GOOD[: GOOD.index("[genesis]")] + 'genesis = "x"', "genesis is to be a TOML table"),
    ("port as text", GOOD.replace("port = 40000", 'port = "40000"'), "port is to be a TOML integer"),
    ("port as truth", GOOD.replace("port = 40000", "port = true"), "port is to be a TOML integer"),
    ("port of others", GOOD.replace("port = 40000", "port = 80"), "port = 80 is not in 1024..65535"),
    ("built-in name", GOOD.replace('"isle"', '"main"'), "built-in network"),
    ("name with a space", GOOD.replace('"isle"', '"is le"'), "a network's name is"),
    ("name too long", GOOD.replace('"isle"', f'"{"i" * 33}"'), "a network's name is"),
    ("name with a NUL", GOOD.replace('"isle"', '"isle\\u0000"'), "a network's name is"),
    ("work in capitals", GOOD.replace("207fffff", "207FFFFF"), "eight hexadecimal digits"),
    ("work negative", GOOD.replace("207fffff", "20ffffff"), "work is not a target"),
    ("work of nothing", GOOD.replace("207fffff", "00000000"), "work is not a target"),
    ("work beyond 256 bits", GOOD.replace("207fffff", "ff7fffff"), "work is not a target"),
    ("spacing 0", GOOD.replace("spacing = 60", "spacing = 0"), "spacing = 0 is not in"),
    ("retarget 1", GOOD.replace("retarget = 144", "retarget = 1"), "retarget = 1 is not in"),
    (
        "no time between retargets",
        GOOD.replace("retarget = 144", "retarget = 3").replace("spacing = 60", "spacing = 1"),
        "spacing x retarget is to be 4 seconds at least",
    ),
    ("retarget below 0", GOOD.replace("retarget = 144", "retarget = -1"), "retarget = -1 is not in 2..100000 or 0"),
    ("seed not an address", GOOD.replace("obscura://", "http://"), "seeds: an address begins with obscura://"),
    ("seed not in its canonical form", GOOD.replace("obscura://10.0", "10.0"), "seeds: write obscura://10.0.0.1:40000"),
    ("seed a number", GOOD.replace('["obscura://10.0.0.1:40000"]', "[1]"), "array of strings"),
    ("seed key too short", GOOD.replace('seed-key = "aa', 'seed-key = "a'), "seed-key is to be 52 characters"),
    ("seed key not base32", GOOD.replace('seed-key = "aa', 'seed-key = "a1'), "seed-key is to be 52 characters"),
    ("message of two lines", GOOD.replace("hello isle", "hello\\nisle"), "genesis.message is"),
    ("no message", GOOD.replace("hello isle", ""), "genesis.message is"),
    ("message too long", GOOD.replace("hello isle", "h" * 76), "genesis.message is"),
    ("time beyond 32 bits", GOOD.replace("time = 1700000000", "time = 4294967296"), "genesis.time"),
    ("nonce below 0", GOOD.replace("nonce = 0", "nonce = -1"), "genesis.nonce"),
    ("another message", GOOD.replace("hello isle", "hello isles"), "the file was altered"),
    ("another id", GOOD[:-66] + "0" * 64 + '"\n', "the file was altered"),
]


@pytest.mark.parametrize(("text", "message"), [c[1:] for c in BAD_FILES], ids=[c[0] for c in BAD_FILES])
def test_a_bad_file_is_refused_and_named(text: str, message: str) -> None:
    assert text != GOOD
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_network(text)


def test_names_and_paths(tmp_path: Path) -> None:
    assert load_network("dev") is BUILT_IN["dev"]
    with pytest.raises(ConfigError, match="there are dev, test, main, bitcoin"):
        load_network("mainnet")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_network(str(tmp_path / "none.toml"))
    for name in ("a\0b.toml", "~nobody-of-this-name/n.toml"):
        with pytest.raises(ConfigError, match="cannot be read: no file has such a name"):
            load_network(name)
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):  # a capture may name a device that has no end
        load_network("/dev/zero")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_network(str(tmp_path / "x.toml"))
    (tmp_path / "odd.toml").write_text("colour = 1\n" + GOOD)
    with pytest.raises(ConfigError, match=r"the network file .*/odd\.toml: colour is not a setting"):
        load_network(str(tmp_path / "odd.toml"))


def test_a_file_below_the_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ours.toml").write_text(GOOD)
    assert load_network("~/ours.toml").id == read_network(GOOD).id


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_text_is_a_network_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        read_network(text)
