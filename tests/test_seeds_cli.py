"""``obscura seeds``: what the operator sees, and lists signed for publication."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from doh_server import Authority
from h2_server import Session, serving
from obscura.cli import root
from obscura.cli.frame import Globals
from obscura.daemon.datadir import DataDir
from obscura.daemon.discovery import keep_sequences, read_sequences
from obscura.ledger.network_file import plan_network, read_network
from obscura.ledger.networks import BUILT_IN
from obscura.node.seed_list import SeedList, verify
from obscura.wire.address import key_text, parse_key

NAME = "seeds.example.org"
SEED = f"obscura://{'a' * 52}@192.0.2.7:9733?carrier=tls"
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    for name in ("OBSCURA_DATA_DIR", "OBSCURA_CONFIG", "OBSCURA_NETWORK", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*words: str, input: str | None = None, status: int = 0, network: str = "test") -> Result:
        words = ("--data-dir", str(tmp_path), "--network", network, *words)
        result = CliRunner().invoke(root, words, obj=Globals(), input=input)
        assert result.exit_code == status, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def key(invoke: Invoke, tmp_path: Path) -> Path:
    path = tmp_path / "seed.key"
    invoke("seeds", "keygen", str(path))
    return path


def public_of(path: Path) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(parse_key(path.read_text().strip())).public_key().public_bytes_raw()


def texts_of(zone: str) -> list[bytes]:
    """The TXT records of lines of a zone file."""
    return [
        b"".join(item.strings)
        for line in zone.splitlines()
        for owner, ttl, rdclass, rdtype, data in [line.split(" ", 4)]
        for item in dns.rrset.from_text(owner, int(ttl), rdclass, rdtype, data)
    ]


def test_a_key_is_secret_and_never_overwritten(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "seed.key"
    said = invoke("seeds", "keygen", str(path)).output
    assert said == f'seed-key = "{key_text(public_of(path))}"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert "exists" in invoke("seeds", "keygen", str(path), status=1).output
    assert path.read_bytes() == before
    assert "cannot be written" in invoke("seeds", "keygen", str(tmp_path / "none" / "key"), status=1).output


def test_signed_records_are_read_back_by_a_node(invoke: Invoke, key: Path) -> None:
    lines = f"# ours\n\n{SEED}\nobscura://192.0.2.9:22?carrier=ssh\n"
    zone = invoke("seeds", "sign", "--key", str(key), "--name", NAME, "--file", "-", input=lines).output
    (text,) = texts_of(zone)
    found = verify(text, NAME, BUILT_IN["test"].id, public_of(key), int(time.time()))
    assert isinstance(found, SeedList)
    assert [str(address) for address in found.addresses] == [SEED, "obscura://192.0.2.9:22?carrier=ssh"]
    assert abs(found.expires - time.time() - 30 * 86_400) < 3_600


def test_signed_records_as_json(invoke: Invoke, key: Path) -> None:
    words = ("seeds", "sign", "--json", "--key", str(key), "--name", NAME, "--sequence", "7", "--days", "2")
    said = json.loads(invoke(*words, *(SEED.replace(".7:", f".{n}:") for n in range(1, 20))).output)
    assert (said["name"], said["sequence"]) == (NAME, 7)
    assert len(said["records"]) > 1
    for strings in said["records"]:
        read = verify("".join(strings).encode(), NAME, BUILT_IN["test"].id, public_of(key), int(time.time()))
        assert isinstance(read, SeedList)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", NAME), "at least one"),
        (("--name", "Seeds.Example"), "host name"),
        (("--name", f"{NAME}."), "host name"),
        (("--name", NAME, "seed.example.org:1"), "names"),
        (("--name", NAME, "nonsense"), "port"),
        (("--name", NAME, "203.0.114.5:9733"), "carrier=tls"),  # forgotten: no node would dial it
        (("--name", NAME, "--days", "367", SEED), "366 days"),
    ],
)
def test_lists_that_no_node_would_take_are_not_signed(
    words: tuple[str, ...], says: str, invoke: Invoke, key: Path
) -> None:
    assert says in invoke("seeds", "sign", "--key", str(key), *words, status=1).output


def test_what_no_reader_of_the_zone_would_take_is_not_written(invoke: Invoke, key: Path, tmp_path: Path) -> None:
    sign = ("seeds", "sign", "--key", str(key), "--name", NAME, SEED)
    assert f" {'9' * 19} " in invoke(*sign, "--sequence", "9" * 19).output
    assert "at most 19 digits" in invoke(*sign, "--sequence", "9" * 20, status=1).output
    assert invoke(*sign, "--ttl", str((1 << 31) - 1)).output.split()[1] == str((1 << 31) - 1)
    assert "a record is kept for 2147483647 s at most" in invoke(*sign, "--ttl", str(1 << 31), status=1).output
    (tmp_path / "noise").write_bytes(b"\xff\n")
    assert "not UTF-8 text" in invoke(*sign, "--file", str(tmp_path / "noise"), status=1).output


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"a" * 51 + b"\n", b"1" * 52])
def test_what_is_no_key_is_refused(content: bytes, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "bad.key"
    path.write_bytes(content)
    said = invoke("seeds", "sign", "--key", str(path), "--name", NAME, SEED, status=1).output
    assert "is not a key" in said


def test_a_missing_key_is_named(invoke: Invoke, tmp_path: Path) -> None:
    said = invoke("seeds", "sign", "--key", str(tmp_path / "no.key"), "--name", NAME, SEED, status=1).output
    assert "cannot be read" in said


def network_file(folder: Path, seed_key: bytes | None = None, **others: object) -> str:
    path = folder / "mine.toml"
    plan = plan_network("mine", 1_790_000_000, work=0x207FFFFF, seed_key=seed_key, **others)
    path.write_text(plan.toml())
    assert read_network(plan.toml()).seed_names == plan.seed_names
    return str(path)


def test_another_networks_key_signs_nothing_for_this_one(invoke: Invoke, key: Path, tmp_path: Path) -> None:
    words = ("seeds", "sign", "--key", str(key), "--name", NAME, SEED)
    said = invoke(*words, status=1, network=network_file(tmp_path, bytes(31) + b"\1")).output
    assert "not the key of the network mine" in said
    assert "obscura-seeds/1" in invoke(*words, network=network_file(tmp_path, public_of(key))).output


def test_a_network_file_with_names_that_are_none_is_refused() -> None:
    for names in (("No Name",), ("a.example",) * 9):
        with pytest.raises(Exception, match="seed-names"):
            plan_network("mine", 1_790_000_000, seed_names=names)
    text = plan_network("mine", 1_790_000_000, work=0x207FFFFF).toml()
    with pytest.raises(Exception, match="seed-names"):
        read_network(text.replace("seeds = []", "seeds = []\nseed-names = [1]"))


def test_without_a_node_the_plan_is_shown_and_nobody_asked(invoke: Invoke, tmp_path: Path) -> None:
    said = json.loads(invoke("seeds", "--json").output)
    assert [provider["asked"] for provider in said["providers"]] == [0, 0, 0]
    assert {provider["host"] for provider in said["providers"]} == {
        "cloudflare-dns.com",
        "dns.google",
        "dns.quad9.net",
    }
    text = invoke("seeds").output
    assert "quad9" in text
    assert "names no place in the DNS" in text
    shown = json.loads(invoke("seeds", "--json", network=network_file(tmp_path, seed_names=(NAME,))).output)
    assert (shown["names"], shown["signed"]) == ([NAME], False)


def test_wrong_settings_are_one_sentence(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[seeds]\nproviders = ["https://dns.example/dns-query"]\n')
    said = invoke("--config", str(path), "seeds", status=1).output
    assert re.search(r"seeds\.providers: .* lacks ip=", said)


@contextmanager
def a_provider(folder: Path, texts: list[bytes]) -> Iterator[str]:
    """A DNS-over-HTTPS server in a thread of its own that knows these TXT records."""
    authority = Authority(folder)
    certificate = authority.issue("doh.example")
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []
    ready = threading.Event()

    async def act(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
        message = dns.message.make_response(dns.message.from_wire(body))
        data = [" ".join(f'"{text[at : at + 255].decode()}"' for at in range(0, len(text), 255)) for text in texts]
        message.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "TXT", *data))
        await session.answer(stream, message.to_wire())

    async def serve() -> None:
        over = asyncio.Event()
        async with serving(act, certificate) as server:
            started.append((asyncio.get_running_loop(), over, server.port))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    loop, over, port = started[0]
    try:
        yield f"https://doh.example:{port}/dns-query?ip=127.0.0.1&ca={authority.ca}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)


def test_ask_shows_what_came_back(invoke: Invoke, key: Path, tmp_path: Path) -> None:
    network = network_file(tmp_path, public_of(key), seed_names=(NAME,))
    zone = invoke("seeds", "sign", "--key", str(key), "--name", NAME, SEED, network=network).output
    with a_provider(tmp_path, texts_of(zone)) as provider:
        path = tmp_path / "own.toml"
        path.write_text(f"[seeds]\nproviders = [{json.dumps(provider)}]\n")
        said = json.loads(invoke("--config", str(path), "--json", "seeds", "ask", network=network).output)
        text = invoke("--config", str(path), "seeds", "ask", network=network).output
    assert said["found"] == [{"address": SEED, "signed": True}]
    assert said["providers"][0]["outcome"].startswith("signed list ")
    assert SEED in text


def test_the_newest_sequence_outlives_the_process_and_a_damaged_file_does_not_matter(tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "test")
    assert read_sequences(folder) == {}
    folder.path.mkdir()
    keep_sequences(folder, {NAME: 9})
    assert read_sequences(folder) == {NAME: 9}
    for damaged in (b"", b"{", b"[]", b'{"a": "b", "c": -1, "d": true}', b"[" * 100_000):
        (folder.path / "seeds.json").write_bytes(damaged)
        assert read_sequences(folder) == {}
    keep_sequences(DataDir(tmp_path / "none", "test"), {NAME: 9})  # no folder: a warning, no fault
