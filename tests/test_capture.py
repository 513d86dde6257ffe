"""Captures: a real session is recorded and comes to the same again; what is cut, damaged or made up is told, not run."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.cli import root
from obscura.cli.frame import Globals
from obscura.daemon.chain_methods import chain_methods
from obscura.daemon.config import Config
from obscura.daemon.methods import control_methods
from obscura.daemon.node import Node
from obscura.errors import UserError
from obscura.ledger.mining import filler_transaction
from obscura.ledger.network_file import plan_network
from obscura.ledger.networks import load_network
from obscura.linkevents import Reason
from obscura.node.recording import (
    MAGIC,
    Agreed,
    AnyRecord,
    Begin,
    Channel,
    Comes,
    Cut,
    Dice,
    End,
    Got,
    Linked,
    Over,
    pack,
    unpack,
)
from obscura.sim.replay import Replay, load
from obscura.wire.frame import checksum_of
from obscura.wire.messages.blocks import Block
from obscura.wire.messages.network import GetAddr, Verack
from obscura.wire.messages.transactions import GetData, Tx

DEV = load_network("dev")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (the condition is the node's, and no event of ours)
            await asyncio.sleep(0.01)


async def session(folder: Path) -> dict[str, Any]:
    """A node that captures hears of blocks and transactions from another, which also sends a bad one."""
    told: dict[str, Any] = {}
    common: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "privacy": "standard"}
    one = Node(Config(data_dir=folder / "one", **common))
    other = Node(Config(data_dir=folder / "other", capture=folder / "capture", **common))
    async with one, other:
        await chain_methods(one)["mine"](blocks=3, fill=3_000)
        peer = await one.connect(other.addresses[0])
        await until(lambda: other.relay.blocks.tip_height == 3)
        waiting = one.broadcast(filler_transaction(random.Random(4)), "direct").id
        await until(lambda: waiting in other.relay.transactions.mempool)
        await chain_methods(one)["mine"](blocks=1)
        await until(lambda: other.relay.blocks.tip_height == 4)
        kept = one.broadcast(filler_transaction(random.Random(5)), "direct").id
        await until(lambda: kept in other.relay.transactions.mempool)
        one.send(peer, Tx(filler_transaction(random.Random(6))))  # that nobody asked for
        await one.ping(peer)
        [link] = other.peers()
        await other.ping(link)
        told["status"] = control_methods(other)["status"]()["capture"]
        capture = other.capture
        assert capture is not None
        await until(lambda: (folder / "capture" / "capture").stat().st_size == capture.bytes)  # before the end
        told["tip"] = other.relay.blocks.tip[::-1].hex()
    return told


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("capture")
    return folder / "capture" / "capture", asyncio.run(session(folder))


def records_of(data: bytes) -> list[AnyRecord]:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    return list(unpack(read, "it"))


def replayed(records: list[AnyRecord]) -> Replay:
    replay = load(records, DEV)
    replay.play(records)
    return replay


def test_a_session_comes_to_the_same_again(captured: tuple[Path, dict[str, Any]]) -> None:
    path, told = captured
    records = records_of(path.read_bytes())
    replay = replayed(records)
    report = replay.report()
    assert report["differs"] == []
    assert (report["height"], report["tip"], report["mempool_transactions"]) == (4, told["tip"], 1)
    assert report["received"]["ping"] >= 1
    assert report["received"]["pong"] >= 1
    assert [fault["why"] for fault in report["penalties"]] == ["a transaction that nobody asked for"]
    assert report["ended"] == "the node stopped"
    assert replayed(records).trace_hash == replay.trace_hash
    without = [record for record in records if not (isinstance(record, Got) and record.type == "ping")]
    assert replayed(without).trace_hash != replay.trace_hash


def test_that_a_long_message_comes_on_is_played_too(captured: tuple[Path, dict[str, Any]]) -> None:
    records = records_of(captured[0].read_bytes())
    at, agreed = next((at, record) for at, record in enumerate(records) if isinstance(record, Agreed))
    comes = Comes(agreed.at, agreed.link, "block")
    assert records_of(MAGIC + pack(comes)) == [comes]
    report = replayed([*records[: at + 1], comes, *records[at + 1 :]]).report()
    assert (report["received"]["arriving"], report["differs"]) == (1, [])


def test_what_the_node_had_is_compared(captured: tuple[Path, dict[str, Any]]) -> None:
    records = records_of(captured[0].read_bytes())
    without = [
        record for record in records if not (isinstance(record, Got) and record.type in ("tx", "cmpctblock", "block"))
    ]
    differs = replayed(without).report()["differs"]
    assert any(line.startswith("the tip: height 4 when recorded") for line in differs)
    assert any(line.startswith("the mempool") for line in differs)
    assert any("1 more when recorded" in line for line in differs)


def test_the_file_is_the_owners_and_holds_no_secret(captured: tuple[Path, dict[str, Any]]) -> None:
    path, told = captured
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert told["status"]["file"] == str(path)
    assert told["status"]["ended"] is None
    data = path.read_bytes()
    for keys in (path.parent.parent / "other" / "dev" / "keys").rglob("*"):
        assert not keys.is_file() or keys.read_bytes() not in data
    assert {type(record) for record in records_of(data)} >= {Linked, Channel, Got, Over, Dice, End}


def test_own_transactions_can_be_found_as_the_page_says(tmp_path: Path) -> None:
    """What peers ask for and nobody brought is the node's own: the page promised for long that they are not marked."""

    async def scenario() -> bytes:
        common: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "privacy": "standard"}
        one = Node(Config(data_dir=tmp_path / "one", capture=tmp_path, **common))
        async with one, Node(Config(data_dir=tmp_path / "other", **common)) as other:
            await one.connect(other.addresses[0])
            foreign = other.broadcast(filler_transaction(random.Random(7)), "direct").id
            own = one.broadcast(filler_transaction(random.Random(8)), "direct").id
            await until(lambda: own in other.relay.transactions.mempool and foreign in one.relay.transactions.mempool)
        return own

    own = asyncio.run(scenario())
    got = [record for record in records_of((tmp_path / "capture").read_bytes()) if isinstance(record, Got)]
    asked = {item.hash for record in got if record.type == "getdata" for item in GetData.decode(record.payload).items}
    brought = {DEV.ledger.decode_transaction(record.payload).id for record in got if record.type == "tx"}
    assert (asked - brought, len(brought)) == ({own}, 1)
    assert "**Own transactions can be found in it**" in (Path(__file__).parents[1] / "docs/capture.md").read_text()


def test_an_applications_messages_are_no_flood_of_unknown_ones(captured: tuple[Path, dict[str, Any]]) -> None:
    """They have no rate in the node that was recorded."""
    records = records_of(captured[0].read_bytes())
    at = next(place for place, record in enumerate(records) if isinstance(record, Got) and record.type == "ping")
    ping = records[at]
    assert isinstance(ping, Got)
    own = [msgspec.structs.replace(ping, type="greeting", payload=b"x")] * 2_000
    report = replayed([*records[:at], *own, *records[at:]]).report()
    assert (report["received"]["greeting"], report["differs"]) == (2_000, [])


@pytest.mark.parametrize("messages", [200, 300, 1_000])
def test_a_flood_comes_to_the_same_again(messages: int, tmp_path: Path) -> None:
    """What of a chunk is over the limits is told in one penalty, and so it is where records are played."""

    async def scenario() -> None:
        common: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "privacy": "standard"}
        one = Node(Config(data_dir=tmp_path / "one", capture=tmp_path, **common))
        async with one, Node(Config(data_dir=tmp_path / "other", **common)) as other:
            peer = await other.connect(one.addresses[0])
            await other.ping(peer)
            for _ in range(messages):
                other.send(peer, GetAddr())
            await until(lambda: not one.peers() if messages > 260 else one.engine.waiting(1) == 0)

    asyncio.run(scenario())
    report = replayed(records_of((tmp_path / "capture").read_bytes())).report()
    assert report["differs"] == []
    assert len(report["penalties"]) == (messages > 260)


def test_what_came_in_one_chunk_before_a_violation_is_played_before_it(tmp_path: Path) -> None:
    """A connection that ends within a chunk told of its end first, and in the replay all of the chunk came too late."""

    async def scenario() -> None:
        common: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "privacy": "standard"}
        one = Node(Config(data_dir=tmp_path / "one", capture=tmp_path, **common))
        async with one, Node(Config(data_dir=tmp_path / "other", **common)) as other:
            peer = await other.connect(one.addresses[0])
            await other.ping(peer)
            for message in (Block(b"that nobody asked for"), Verack()):
                other.engine.send(peer.link, message, other.now())
            other.apply(())
            await until(lambda: not one.peers())

    asyncio.run(scenario())
    records = records_of((tmp_path / "capture").read_bytes())
    assert [record.reason for record in records if isinstance(record, Over)] == [Reason.VIOLATION.value]
    report = replayed(records).report()
    assert report["differs"] == []
    assert [penalty["points"] for penalty in report["penalties"]] == [20, 100]
    assert report["ignored_after_the_end"] == 0


def test_a_link_that_a_defect_ended_is_over_in_the_replay_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        common: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "privacy": "standard"}
        one = Node(Config(data_dir=tmp_path / "one", capture=tmp_path, **common))
        async with one, Node(Config(data_dir=tmp_path / "other", **common)) as other:
            await other.ping(await other.connect(one.addresses[0]))
            [link] = one.peers()
            one.engine.broke(link.link, RuntimeError())
            one.apply(())
            await until(lambda: not one.peers())
            await other.ping(await other.connect(one.addresses[0]))

    asyncio.run(scenario())
    records = records_of((tmp_path / "capture").read_bytes())
    assert [record.link for record in records if isinstance(record, Over)] == [1, 2]
    report = replayed(records).report()
    assert (report["events"]["peer-connected"], report["events"]["peer-disconnected"]) == (2, 2)


def test_it_does_not_say_whose_home_the_network_file_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "alice"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    made = plan_network("isle", now=1_700_000_000)
    for folder, named in ((home, "~/isle.toml"), (tmp_path / "alices", None)):
        folder.mkdir(exist_ok=True)
        file = folder / "isle.toml"
        file.write_text(made.toml())

        async def scenario(node: Node) -> None:
            async with node:
                pass

        asyncio.run(scenario(Node(Config(network=str(file), data_dir=folder, listen=(), capture=folder))))
        raw = (folder / "capture").read_bytes()
        begin = records_of(raw)[0]
        assert isinstance(begin, Begin)
        assert begin.network == (named or str(file))
        assert (str(home).encode() in raw) == (named is None)
        assert load_network(begin.network).id == begin.network_id


def test_it_never_overwrites_and_is_not_made_unasked(captured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    async def scenario(config: Config) -> object:
        async with Node(config) as node:
            return control_methods(node)["status"]()["capture"]

    with pytest.raises(UserError, match="is there already"):
        asyncio.run(scenario(Config(network="dev", data_dir=tmp_path, listen=(), capture=captured[0].parent)))
    with pytest.raises(UserError, match=r"capture: .*/capture is no directory; choose another"):
        asyncio.run(scenario(Config(network="dev", data_dir=tmp_path, listen=(), capture=captured[0])))
    assert asyncio.run(scenario(Config(network="dev", data_dir=tmp_path, listen=()))) is None


def test_it_ends_at_its_size(tmp_path: Path) -> None:
    async def scenario() -> None:
        common: dict[str, Any] = {"network": "dev", "privacy": "standard", "listen": ("127.0.0.1:0",)}
        small = Config(data_dir=tmp_path / "b", capture=tmp_path / "c", capture_mb=1, **common)
        async with Node(Config(data_dir=tmp_path / "a", **common)) as one, Node(small) as other:
            await chain_methods(one)["mine"](blocks=4, fill=400_000)
            await one.connect(other.addresses[0])
            await until(lambda: other.relay.blocks.tip_height == 4)
            assert other.capture is not None
            shown = other.capture.show()
            assert shown is not None
            assert shown["ended"] == "it was full"

    asyncio.run(scenario())
    data = (tmp_path / "c" / "capture").read_bytes()
    assert len(data) <= 1_000_000
    report = replayed(records_of(data)).report()
    assert (report["ended"], report["differs"]) == ("it was full", [])


def test_cut_at_every_byte(captured: tuple[Path, dict[str, Any]]) -> None:
    records = records_of(captured[0].read_bytes())
    data = MAGIC + b"".join(pack(record) for record in records if not isinstance(record, Got))
    whole = {len(MAGIC)}
    for record in records:
        if not isinstance(record, Got):
            whole.add(max(whole) + len(pack(record)))
    for size in range(len(data)):
        if size in whole:
            assert len(records_of(data[:size])) == sorted(whole).index(size)
        elif size < len(MAGIC):
            with pytest.raises(UserError, match="is not a capture"):
                records_of(data[:size])
        else:
            with pytest.raises(Cut, match="inside a record that begins at byte"):
                records_of(data[:size])


def test_every_flipped_byte_is_told(captured: tuple[Path, dict[str, Any]]) -> None:
    data = captured[0].read_bytes()
    for at in random.Random(1).sample(range(len(data)), 60):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(UserError):
            records_of(changed)


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + checksum_of(payload) + payload


def changed_of(records: list[AnyRecord], kind: type, **fields: Any) -> list[AnyRecord]:
    """The records with the first of a kind changed."""
    at = next(index for index, record in enumerate(records) if isinstance(record, kind))
    return [*records[:at], msgspec.structs.replace(records[at], **fields), *records[at + 1 :]]


HOSTILE: dict[str, Callable[[list[AnyRecord]], list[AnyRecord]]] = {
    "no begin": lambda records: records[1:],
    "a node without a face": lambda records: changed_of(records, Begin, faces=()),
    "two begins": lambda records: [records[0], *records],
    "time that goes back": lambda records: changed_of(records, Over, at=-1.0),
    "a time that is none": lambda records: changed_of(records, Over, at=float("nan")),
    "the end of time": lambda records: changed_of(records, Over, at=1e300),
    "a link that never was": lambda records: changed_of(records, Channel, link=77),
    "a link with no number": lambda records: changed_of(records, Linked, link=-1),
    "a face that is none": lambda records: changed_of(records, Linked, face=9),
    "a link twice": lambda records: [
        r for record in records for r in ([record, record] if isinstance(record, Linked) else [record])
    ],
    "a message that does not decode": lambda records: changed_of(records, Got, type="ping", payload=b"1"),
    "a message that is too large": lambda records: changed_of(records, Got, type="verack", payload=b"1"),
    "dice beyond their faces": lambda records: changed_of(records, Dice, draws=((3, 8),)),
    "dice that say nan": lambda records: changed_of(records, Dice, draws=((0, float("nan")),)),
    "dice of nobody": lambda records: changed_of(records, Dice, part="keys"),
    "an end that is none": lambda records: changed_of(records, Over, reason="bored"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_made_up_file_is_told(name: str, captured: tuple[Path, dict[str, Any]]) -> None:
    records = HOSTILE[name](records_of(captured[0].read_bytes()))
    with pytest.raises(UserError, match="the capture is damaged"):
        replayed(records)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(framed)))
def test_noise_behind_the_magic_is_told(noise: bytes) -> None:
    try:
        found = records_of(MAGIC + noise)
    except UserError:
        return
    assert pairwise(found) is not None
    assert b"".join(map(pack, found)) != b"" or not noise


def test_a_huge_record_is_not_read() -> None:
    asked: list[int] = []

    def read(size: int) -> bytes:
        asked.append(size)
        return MAGIC if size == len(MAGIC) else b"\xff" * size

    with pytest.raises(UserError, match="a record of 4294967295 bytes"):
        list(unpack(read, "it"))
    assert max(asked) < 100


def test_the_command(captured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(root, ["replay", *words], obj=Globals())

    path, told = captured
    shown = run(str(path.parent), "--json")
    report = json.loads(shown.stdout)
    assert (shown.exit_code, shown.return_value) == (0, 0) or shown.exit_code == 0
    assert (report["tip"], report["differs"]) == (told["tip"], [])
    assert json.loads(run(str(path), "--until", "0", "--json").stdout)["height"] == 0
    assert "penalty: peer" in run(str(path)).stdout
    cut = tmp_path / "capture"
    cut.write_bytes(path.read_bytes()[:-5])
    assert "ends inside a record" in run(str(cut)).stderr
    assert "--partial replays" in run(str(cut)).stderr
    last = records_of(path.read_bytes())[-1]
    cut.write_bytes(path.read_bytes()[: -len(pack(last))])  # whole records, as a kill may leave them
    assert "lacks its last record" in run(str(cut)).stderr
    assert run(str(cut), "--partial").exit_code == 0
    assert '"ended": null' in run(str(cut), "--partial", "--json").stdout
    assert "cannot be read" in run(str(tmp_path / "nowhere")).stderr
    assert "another network" in run(str(path), "--network", "main").stderr
