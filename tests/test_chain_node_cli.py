"""The commands of the chain against a node that runs beside them, and against a store that no node holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result

from obscura.cli import root
from obscura.cli.frame import Globals
from obscura.daemon.config import Config
from obscura.daemon.methods import local_control
from obscura.daemon.node import Node
from obscura.ledger.mining import filler_transaction
from obscura.ledger.networks import load_network
from obscura.store.sqlite import FILE_NAME
from shared_data import BLOCK_FILES, FOLDER, real_blocks


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OBSCURA_DATA_DIR", "OBSCURA_CONFIG", "OBSCURA_NETWORK", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("obscura.daemon.config.SYSTEM_FILE", tmp_path / "none.toml")


def invoke(folder: Path, *words: str, network: str = "dev", status: int = 0) -> Result:
    result = CliRunner().invoke(root, ("--data-dir", str(folder), "--network", network, *words), obj=Globals())
    assert result.exit_code == status, (result.output, result.exception)
    return result


def told(folder: Path, *words: str, network: str = "dev") -> dict[str, object]:
    return json.loads(invoke(folder, "--json", *words, network=network).stdout)  # type: ignore[no-any-return]


def with_node(folder: Path, act: Callable[[], None]) -> None:
    """Run commands, which block, beside a node."""

    async def scenario() -> None:
        config = Config(network="dev", data_dir=folder, listen=("127.0.0.1:0",), privacy="standard")
        async with Node(config) as node, local_control(node):
            await asyncio.to_thread(act)

    asyncio.run(scenario())


def test_a_chain_is_mined_shown_copied_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[bytes] = []

    def act() -> None:
        ids = invoke(tmp_path, "mine", "--blocks", "4", "--fill", "5000").stdout.split()
        assert len(ids) == 4
        transaction = filler_transaction(Random(1))
        (tmp_path / "tx").write_bytes(transaction)
        sent = invoke(tmp_path, "send-tx", "--policy", "direct", str(tmp_path / "tx")).stdout.strip()
        assert sent == invoke(tmp_path, "send-tx", transaction.hex()).stdout.strip()
        assert told(tmp_path, "send-tx", "--policy", "direct", "--random")["id"] != sent
        assert told(tmp_path, "status")["mempool_transactions"] == 2
        invoke(tmp_path, "mine")
        shown = told(tmp_path, "block", "get", "5")
        assert sent in [t["id"] for t in shown["transactions"]]  # type: ignore[attr-defined]
        assert told(tmp_path, "block", "get", ids[1])["height"] == 2
        assert told(tmp_path, "chain", "info")["height"] == 5
        assert told(tmp_path, "chain", "verify") == {"blocks": 5, "damaged": []}
        blocks.extend(invoke(tmp_path, "block", "get", str(height), "--raw").stdout_bytes for height in range(1, 6))

    with_node(tmp_path, act)
    assert told(tmp_path, "chain", "verify") == {"blocks": 5, "damaged": []}, "without a node the store is opened"

    copy = tmp_path / "copy"
    file = tmp_path / "blocks"
    file.write_bytes(b"".join(len(raw).to_bytes(4, "little") + raw for raw in blocks[:4]))
    last = tmp_path / "00ff"  # as somebody may name it who names blocks by their ids
    last.write_bytes(blocks[4])

    def act_on_copy() -> None:
        assert told(copy, "chain", "import", str(file)) == {"new": 4, "known": 0, "bytes": file.stat().st_size}
        assert told(copy, "chain", "import", str(file)) == {"new": 0, "known": 4, "bytes": file.stat().st_size}
        monkeypatch.chdir(tmp_path)
        assert told(copy, "block", "submit", last.name)["is_tip"]

    with_node(copy, act_on_copy)
    offline = tmp_path / "offline"
    assert told(offline, "chain", "import", str(file))["new"] == 4
    assert told(offline, "chain", "import", str(file))["known"] == 4


def test_a_transaction_that_nobody_will_have_is_a_failure_for_scripts(tmp_path: Path) -> None:
    words = ["send-tx", "--random", "--policy", "anonymity-only", "--deadline", "0.2", "--follow"]

    def act() -> None:
        failed = invoke(tmp_path, *words, status=1)
        assert [line.split()[1] for line in failed.stdout.splitlines()] == ["queued", "expired"]
        assert failed.stderr == "Error: the transaction was given up: no successor over Tor or I2P by its deadline\n"

    with_node(tmp_path, act)


@pytest.mark.shared_data
def test_real_blocks_are_imported_without_a_node(tmp_path: Path) -> None:
    if not real_blocks():
        return
    done = told(tmp_path, "chain", "import", str(FOLDER / BLOCK_FILES[0]), network="bitcoin")
    assert (done["new"], done["known"]) == (255, 1)
    assert told(tmp_path, "chain", "verify", network="bitcoin") == {"blocks": 255, "damaged": []}


def test_a_damaged_block_is_found(tmp_path: Path) -> None:
    def mine_three() -> None:
        invoke(tmp_path, "mine", "--blocks", "3", "--fill", "3000")

    with_node(tmp_path, mine_three)
    store = tmp_path / "dev" / FILE_NAME
    data = bytearray(store.read_bytes())
    at = data.rindex(b"\x02\0\0\0\x04", 0, len(data) - 4096)  # inside the body of some block
    data[at + 20] ^= 1
    store.write_bytes(data)
    found = invoke(tmp_path, "--json", "chain", "verify", status=1)
    assert len(json.loads(found.stdout)["damaged"]) == 1


WRONG = {
    "neither": (["send-tx"], 2, "give either"),
    "both": (["send-tx", "00", "--random"], 2, "give either"),
    "no digits": (["send-tx", "hello"], 1, "neither a file that can be read nor"),
    "no number": (["send-tx", "00", "--deadline", "nan"], 2, "'nan' is no finite number"),
    "no node": (["mine"], 3, "no node is running"),
    "no chain": (["chain", "verify"], 1, "there is no chain at"),
    "no file": (["chain", "import", "nowhere"], 2, "does not exist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_said(case: str, tmp_path: Path) -> None:
    words, status, said = WRONG[case]
    assert said in invoke(tmp_path / "mistyped", *words, status=status).output
    assert not (tmp_path / "mistyped").exists()


def test_a_file_that_is_refused_says_where(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(100))
    failed = invoke(tmp_path, "chain", "import", str(tmp_path / "noise"), status=1)
    assert "no file of blocks: at byte 0" in failed.output


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    made = json.loads(invoke(tmp_path, "--json", "network", "init", str(file), "--work", "207fffff").stdout)
    network = load_network(str(file))
    assert (network.name, network.id.hex(), network.port) == ("ours", made["network_id"], 49_733)
    again = invoke(tmp_path, "network", "init", str(file), status=1)
    assert "is there already" in again.output
    named = tmp_path / "x.toml"
    invoke(tmp_path, "network", "init", str(named), "--name", "other", "--port", "50000", "--message", "hello")
    assert load_network(str(named)).port == 50_000
    wrong = invoke(tmp_path, "network", "init", str(tmp_path / "y.toml"), "--work", "zz", status=2)
    assert "eight hexadecimal digits" in wrong.output
    taken = invoke(tmp_path, "network", "init", str(tmp_path / "y.toml"), "--name", "main", status=1)
    assert "built-in" in taken.output
    assert not (tmp_path / "y.toml").exists()


def test_a_synchronisation_is_followed_to_its_end(tmp_path: Path) -> None:
    async def scenario() -> dict[str, object]:
        full = Config(network="dev", data_dir=tmp_path / "full", listen=("127.0.0.1:0",), privacy="standard")
        empty = Config(network="dev", data_dir=tmp_path / "empty", listen=(), privacy="standard")
        async with Node(full) as miner, local_control(miner), Node(empty) as node, local_control(node):
            await asyncio.to_thread(invoke, tmp_path / "full", "mine", "--blocks", "12")
            await node.connect(miner.addresses[0])
            return await asyncio.to_thread(told, tmp_path / "empty", "chain", "sync")

    found = asyncio.run(scenario())
    assert found["height"] == 12
    assert found["peers"] == 1
