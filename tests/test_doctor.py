"""`obscura doctor`: what facts mean, one by one; what it says of real processes, files, ports, and of a tor that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from obscura.cli import root
from obscura.cli.frame import Globals
from obscura.daemon.client import Client
from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.datadir import DataDir, make_private, write_atomic
from obscura.daemon.examination import examine
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.node import Node
from obscura.daemon.ways import TorSettings
from obscura.doctor import configuration, machine, networks
from obscura.doctor.facts import (
    Clock,
    Control,
    Disk,
    Door,
    External,
    Facts,
    Inbound,
    Onion,
    Private,
    Sam,
    Settings,
    Socks,
)
from obscura.doctor.finding import Finding, State
from obscura.doctor.findings import is_wrong, judge
from obscura.node.resolvers import SeedSettings
from obscura.store.check import check_structure
from sam_fakes import FakeSam
from test_tor_node import onion_port, published
from tor_fakes import FakeSocks, FakeTor

FINE, NOTE, WRONG = State.FINE, State.NOTE, State.WRONG
HOUR = 3_600
NOW = 1_800_000_000

# --- What facts mean ----------------------------------------------------------------------------------------------------

CLOCKS: list[tuple[Clock, State, str]] = [
    (Clock(NOW), NOTE, "no peer to compare"),
    (Clock(NOW, (3, -4, 0)), FINE, "3 peers, median offset 0 s"),
    (Clock(NOW, (3 * HOUR, 3 * HOUR, 0)), WRONG, "2 peers|3 peers are 3.0 h ahead of this one"),
    (Clock(NOW, (-3 * HOUR,)), WRONG, "1 peer are 3.0 h behind"),
    (Clock(NOW, (0, 1, 9 * HOUR)), NOTE, "1 differ by more than two hours"),  # one liar moves nothing
    (Clock(NOW, (), (NOW - HOUR, NOW + HOUR)), FINE, "tor's consensus is valid now"),
    (Clock(NOW, (), (NOW + 2 * HOUR, NOW + 5 * HOUR)), WRONG, "before the time"),
    (Clock(NOW, (5,), (NOW - 50 * HOUR, NOW - 25 * HOUR)), WRONG, "after the time"),
    (Clock(3_600), WRONG, "(3600 s since 1970) is before this program"),  # a board without a battery
    (Clock(3_600, (NOW, NOW)), WRONG, "(3600 s since 1970) is before this program"),
    (Clock(3_600, (), (0, 9_000)), WRONG, "(3600 s since 1970) is before this program"),
]
SOCKS: list[tuple[Socks, Control | None, State, str]] = [
    (Socks("127.0.0.1:9050", True, "no SOCKS proxy listens"), None, WRONG, "no SOCKS proxy listens"),
    (Socks("127.0.0.1:9050", True, None, True), Control(()), FINE, "with a user and a password"),
    (Socks("127.0.0.1:9050", True, None, False), Control(()), NOTE, "does not say why"),
    (Socks("127.0.0.1:9050", True, None, False), Control((), managed=True), FINE, "takes connections"),
    (Socks("127.0.0.1:1080", False, "it is no SOCKS5 proxy"), None, WRONG, "no SOCKS5"),
    (Socks("127.0.0.1:1080", False), None, FINE, "takes connections"),
]
CONTROLS: list[tuple[Control, State, str, str]] = [
    (Control(("a",), version="0.4.9", percent=100), FINE, "connected to its network", ""),
    (Control(("a",), version="0.4.9", percent=40, doing="Loading"), WRONG, "tor is at 40 %: Loading", "wait"),
    (
        Control(("a",), version="0.4.9", percent=100, refuses_isolation=("9050 NoIsolateSOCKSAuth",)),
        WRONG,
        "SocksPort 9050 NoIsolateSOCKSAuth",
        "remove NoIsolateSOCKSAuth",
    ),
    (Control(("a",), fault="no tor listens for control at a"), WRONG, "no tor listens", "ControlPort 9051"),
    (Control(("a",), fault="tor's cookie x may not be read: y"), WRONG, "may not be read", "adduser"),
    (Control(("a",), fault="tor refuses us: the cookie is wrong"), WRONG, "cookie is wrong", "restart tor"),
    (Control(("a",), fault="tor wants a password on its control port"), WRONG, "password", "tor-daemon.password"),
    (Control(("a",), fault="what listens does not say"), WRONG, "does not say", "journalctl"),
    (Control((), managed=True, fault="there is no program 'tor'"), WRONG, "no program", "apt install tor"),
    (Control((), managed=True, program="/usr/bin/tor", fault="ended"), WRONG, "ended", "tor.log"),
    (Control((), managed=True, program="/usr/bin/tor"), FINE, "/usr/bin/tor is there", ""),
]
ONIONS: list[tuple[Onion, bool, State, str]] = [
    (Onion(), False, NOTE, "no node runs"),
    (Onion(), True, NOTE, "no onion service yet"),
    (Onion(fault="no tor listens"), True, WRONG, "there is no onion service: no tor listens"),
    (Onion("x.onion"), True, WRONG, "x.onion is not published yet"),
    (Onion("x.onion", True, reach_fault="it is late"), True, WRONG, "cannot be reached through the Tor network: it is"),
    (Onion("x.onion", True, reach_fault="a key", reply=0xF4), True, NOTE, "admits only those with a key"),
    (Onion("x.onion", True, reach_s=1.5), True, FINE, "answers through the Tor network within 1.5 s"),
    (Onion("x.onion", True, reach_s=1.5, circuits=2), True, FINE, "two circuits"),
    (Onion("x.onion", True, reach_s=1.5, circuits=1), True, WRONG, "rode one circuit"),
]
SAMS: list[tuple[Sam, bool, State, str]] = [
    (Sam("127.0.0.1:7656", fault="nothing listens there"), True, WRONG, "nothing listens"),
    (Sam("127.0.0.1:7656", version="3.3"), False, NOTE, "no node runs"),
    (Sam("127.0.0.1:7656", version="3.3"), True, NOTE, "being built"),
    (Sam("127.0.0.1:7656", version="3.3", session_fault="the session was lost"), True, WRONG, "was lost"),
    (Sam("127.0.0.1:7656", version="3.3", serves=False, is_up=True), True, FINE, "outwards"),
    (Sam("127.0.0.1:7656", version="3.3", destination="x.b32.i2p"), True, FINE, "x.b32.i2p has its tunnels"),
]
DOORS: list[tuple[Door, State, str, str]] = [
    (Door("127.0.0.1:1", "tls", answer="a web site"), FINE, "a stranger gets a web site", ""),
    (Door("127.0.0.1:1", "http", answer="3 bytes", is_cover=False), WRONG, "gets 3 bytes", "sport = :1"),
    (Door("127.0.0.1:1", "tls", fault="nothing listens there"), WRONG, "nothing listens", "stop and start"),
    (Door("a:19733", "plain", fault="in use", is_probed=False), WRONG, "in use", "sport = :19733"),
    (Door("a:80", "http", fault="denied", is_privileged=True, is_probed=False), WRONG, "denied", "setcap"),
    (Door("a:1", "plain", is_probed=False), NOTE, "the port is free", ""),
    (Door("a:1", "tls", answer="a web site", certificate_days=3), WRONG, "ends in 3 days", "renew"),
    (Door("a:1", "tls", answer="a web site", certificate_days=-1), WRONG, "has expired", "renew"),
    (Door("a:1", "tls", answer="a web site", certificate_days=300), FINE, "a web site", ""),
]
INBOUND: list[tuple[Inbound, State, str]] = [
    (Inbound(125, 3, 1), FINE, "3 of 125"),
    (Inbound(125, None, 0), NOTE, "accepts no links"),
    (Inbound(0, 0, 1), WRONG, "max-inbound is 0"),
    (Inbound(11, 0, 1), WRONG, "max-inbound is 11"),  # Bitcoin's users lost all inbound links at that number
    (Inbound(40, 0, 1), FINE, "0 of 40"),
    (Inbound(40, 0, 1, networks=3), WRONG, "max-inbound is 40, 13 for each of 3 networks"),
    (Inbound(2, 0, 1, networks=3), WRONG, "max-inbound is 2, 0 for each of 3 networks"),
    (Inbound(125, 5, 1, networks=3), FINE, "5 of 125"),
    (Inbound(125, 125, 1), NOTE, "all 125 slots"),
    (Inbound(1_000, 5, 1, open_files=1_024), WRONG, "1024 open files are allowed, 1064 may be needed"),
]
DISKS: list[tuple[Disk, State, str, str]] = [
    (Disk("/d", exists=False), NOTE, "does not exist yet", ""),
    (Disk("/d", True, 50_000_000_000), FINE, "50.0 GB free", ""),
    (Disk("/d", True, 50_000_000), WRONG, "0.1 GB free", "prune"),
    (Disk("/d", True, 1_000_000_000), NOTE, "1.0 GB free", "prune"),
    (Disk("/d", True, 1_000_000_000, prunes=True), FINE, "1.0 GB free", ""),
    (Disk("/d", True, 50_000_000_000, is_writable=False), WRONG, "cannot be written", "chown"),
    (Disk("/d", True, 5 * 10**10, is_writable=False, is_read_only=True), WRONG, "is read-only", "dmesg"),
    (Disk("/d", True, 5 * 10**9, private=(Private("/d/k", 0o644, True),)), WRONG, "has mode 644", "chmod 600 /d/k"),
    (Disk("/d", True, 5 * 10**9, private=(Private("/d", 0o750, True, True),)), WRONG, "mode 750", "chmod 700 /d"),
    (Disk("/d", True, 5 * 10**9, private=(Private("/d/k", 0o600, False),)), WRONG, "another user", "chown"),
    (
        Disk("/d", True, 9**10, private=(Private("/d/k", 0o600, False),), owner="obscura"),
        WRONG,
        "another",
        "chown obscura /d/k",
    ),
    (Disk("/d", True, 9**10, private=(Private("/my d/k", 0o644, True),)), WRONG, "has mode", "chmod 600 '/my d/k'"),
    (Disk("/my d", True, 9**10, is_writable=False), WRONG, "cannot be written", "$USER '/my d'"),
    (Disk("/d", True, 5 * 10**9, private=(Private("/d/k", 0o600, True),)), FINE, "the owner's alone", ""),
    (Disk("/d", True, 5 * 10**9, store_fault="chain.sqlite is damaged"), WRONG, "damaged", "chain verify"),
    (Disk("/d", True, 5 * 10**9, store_bytes=5), FINE, "is sound", ""),
    (Disk("/d", True, 5 * 10**9, store_bytes=5, is_store_complete=False), FINE, "as far as there was time", ""),
]
SETTINGS: list[tuple[dict[str, Any], State, str]] = [
    ({}, FINE, "nothing in it contradicts itself"),
    ({"uses_clearnet": False, "only_net": ("tor",), "clearnet_doors": ("127.0.0.1:1",)}, WRONG, "listen = 127.0.0.1:1"),
    ({"unlisted": True, "external": ("203.0.113.5:1",)}, WRONG, "unlisted and external-address"),
    ({"network": "test", "allows_plaintext": True}, WRONG, "allow-plaintext"),
    ({"rate_factor": 1e6}, WRONG, "rate-factor"),
    ({"max_outbound": 0}, WRONG, "no listener"),
    ({"max_outbound": 0, "clearnet_doors": ("a",)}, NOTE, "dials nobody by itself"),
    ({"has_service": True}, NOTE, "a clearnet face and one on an anonymity network"),
    ({"allows_unauthenticated": True}, NOTE, "can be intercepted"),
    ({"network": "main"}, NOTE, "no public network main"),
]


def check(found: list[Finding], state: State, text: str, do: str = "") -> None:
    """One of the findings is this one; what is wrong says what to do; nothing is worse than expected."""
    hits = [f for f in found if f.state is state and any(part in f.found for part in text.split("|"))]
    assert hits, found
    assert all(f.wrong and f.do for f in found if f.state is WRONG)
    assert do in (hits[0].do or "")
    assert is_wrong(found) == (state is WRONG)


@pytest.mark.parametrize(("facts", "state", "text"), CLOCKS)
def test_clock(facts: Clock, state: State, text: str) -> None:
    check(list(machine.clock(facts)), state, text)


@pytest.mark.parametrize(("facts", "bond", "state", "text"), SOCKS)
def test_socks(facts: Socks, bond: Control | None, state: State, text: str) -> None:
    check(list(networks.socks(facts, bond)), state, text)


@pytest.mark.parametrize(("facts", "state", "text", "do"), CONTROLS)
def test_control(facts: Control, state: State, text: str, do: str) -> None:
    check(list(networks.control(facts)), state, text, do)


@pytest.mark.parametrize(("facts", "is_running", "state", "text"), ONIONS)
def test_onion(facts: Onion, is_running: bool, state: State, text: str) -> None:
    check(list(networks.onion(facts, is_running)), state, text)


@pytest.mark.parametrize(("facts", "is_running", "state", "text"), SAMS)
def test_sam(facts: Sam, is_running: bool, state: State, text: str) -> None:
    check(list(networks.sam(facts, is_running)), state, text)


@pytest.mark.parametrize(("facts", "state", "text", "do"), DOORS)
def test_door(facts: Door, state: State, text: str, do: str) -> None:
    check(list(machine.door(facts)), state, text, do)


@pytest.mark.parametrize(("facts", "state", "text"), INBOUND)
def test_inbound(facts: Inbound, state: State, text: str) -> None:
    check(list(machine.inbound(facts)), state, text)


@pytest.mark.parametrize(("facts", "state", "text", "do"), DISKS)
def test_disk(facts: Disk, state: State, text: str, do: str) -> None:
    check(list(machine.disk(facts)), state, text, do)


def test_a_peer_that_is_never_dialled_is_told(tmp_path: Path) -> None:
    """The node asks nobody for names and takes no plain link to clearnet: such a peer would be missing without a word."""
    key = "a" * 51 + "q"
    good = (f"obscura://{key}@203.0.113.5:443?carrier=tls&name=shop.example", "127.0.0.1:19733")
    bad = (
        f"obscura://{key}@shop.example:443?carrier=tls",
        f"obscura://{key}@203.0.113.5:9733",
        f"{'a' * 52}.b32.i2p:0",
    )
    config = Config(network="dev", data_dir=tmp_path, listen=(), connect=(*good, *bad))
    found = [finding for finding in judge(asyncio.run(examine(config))) if finding.state is WRONG]
    assert [finding.check for finding in found] == ["configuration"] * len(bad)
    for finding, words in zip(
        found, ("names are not looked up", "carrier plain is for", "I2P is not used"), strict=True
    ):
        assert finding.found.startswith("connect: ")
        assert words in finding.found


def test_a_file_that_no_node_could_read_is_told(tmp_path: Path) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.touch()
    cover = CoverSettings(site=gone, ssh_host_keys=(here, gone))
    config = Config(network="dev", data_dir=gone, capture=gone, listen=(), asmap=gone, cover=cover)
    found = [finding.found for finding in judge(asyncio.run(examine(config))) if finding.state is WRONG]
    assert [words.split(" = ")[0] for words in found] == ["asmap", "cover.site", "cover.ssh-host-keys"]
    assert all(words.endswith(f"{gone} is not there, or may not be read") for words in found)


@pytest.mark.parametrize(("changes", "state", "text"), SETTINGS)
def test_settings(changes: dict[str, Any], state: State, text: str) -> None:
    usual = Settings("dev", clearnet_doors=(), connect=0)
    check(list(configuration.settings(msgspec.structs.replace(usual, **changes))), state, text)


def test_an_external_address_that_no_peer_is_told_is_wrong(tmp_path: Path) -> None:
    """A home with a name of dynamic DNS, or without the carrier, waited for links that never came."""
    given = (
        "home.example.org:8443?carrier=tls",
        "8.8.8.8:8443",
        "192.168.1.5:8443?carrier=tls",
        "8.8.4.4:443?carrier=tls",
    )
    config = Config(
        network="test", data_dir=tmp_path, listen=(), external_address=given, seeds=SeedSettings(enabled=False)
    )
    told = [each.found for each in judge(asyncio.run(examine(config))) if each.state is WRONG]
    assert [text for text in given if any(text in found for found in told)] == list(given[:3])
    assert sum("host name" in found for found in told) == 1


def test_an_external_address_is_true_or_not() -> None:
    check([networks.external(External("203.0.113.5:443"))], FINE, "is reached")
    check([networks.external(External("203.0.113.5:443", "nothing listens there"))], WRONG, "nothing listens there")


def test_a_configuration_with_secrets_is_nobody_elses() -> None:
    assert configuration.exposed_file("/x.toml", 0o600) is None
    found = configuration.exposed_file("/x.toml", 0o640)
    assert found is not None
    check([found], WRONG, "mode 640", "chmod 600 /x.toml")


def test_every_subject_has_its_say() -> None:
    facts = Facts(
        True, "/d", Settings("dev"), Clock(0), Disk("/d", False), Inbound(125, 0, 1), (Door("a:1", "tls", answer="x"),),
        (External("b:1"),), Socks("c:1", False), Socks("d:1", True), Control(()), Onion(), Sam("e:1"),
    )  # fmt: skip
    checks = {finding.check for finding in judge(facts)}
    assert checks >= {"node", "configuration", "clock", "disk", "listening", "inbound", "external-address", "proxy"}
    assert checks >= {"tor-socks", "onion", "i2p-sam"}


# --- Without a node -----------------------------------------------------------------------------------------------------


def ask(folder: Path, *words: str, environ: dict[str, str] | None = None) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and findings of `obscura doctor --json`."""
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "obscura.cli",
            "--network",
            "dev",
            "--data-dir",
            str(folder),
            "doctor",
            "--json",
            *words,
        ],
        capture_output=True,
        timeout=60,
        env={**os.environ, **(environ or {})},
    )
    assert process.stdout, process.stderr.decode()
    return process.returncode, json.loads(process.stdout)


def of(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [finding for finding in found if finding["check"] == name]


def test_without_a_node_it_says_so_and_checks_what_it_can(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, found = ask(tmp_path, environ={"OBSCURA_LISTEN": f"127.0.0.1:{port}"})
    assert status == 1
    assert "no node runs" in of(found, "node")[0]["found"]
    (door,) = of(found, "listening")
    assert (door["state"], "address already in use" in door["found"]) == ("wrong", True)
    assert f":{port}" in door["do"]
    assert not tmp_path.joinpath("dev").exists()  # looking changes nothing


@pytest.mark.parametrize(
    ("key", "value"), [("PRIVACY", "enough"), ("LISTEN", "[127.0.0.1]"), ("TOR_DAEMON_SOCKS", "x")]
)
def test_a_configuration_that_no_node_starts_with_is_a_finding(key: str, value: str, tmp_path: Path) -> None:
    status, found = ask(tmp_path, environ={f"OBSCURA_{key}": value})
    assert status == 1
    (only,) = found
    assert (only["check"], only["state"]) == ("configuration", "wrong")


def test_usage_has_its_own_status(tmp_path: Path) -> None:
    result = CliRunner().invoke(root, ["doctor", "--everything"], obj=Globals())
    assert result.exit_code == 2


def test_a_store_below_a_path_that_is_no_text_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"j\xf6rg")
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(os.fsencode(folder / "chain.sqlite"))) as made:
        made.execute("CREATE TABLE t (x BLOB)")
    checked = check_structure(folder, 10)
    assert checked is not None
    assert checked.fault is None


def test_a_damaged_store_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (x BLOB)")
        made.executemany("INSERT INTO t VALUES (?)", [(os.urandom(3_000),) for _ in range(100)])
        made.commit()
    sound = check_structure(tmp_path, 10)
    assert sound is not None
    assert (sound.fault, sound.is_complete) == (None, True)
    size = sound.size
    path.with_name(f"{path.name}-wal").write_bytes(bytes(1_000))  # what a running node has not moved to the file yet
    waiting = check_structure(tmp_path, 10)
    assert waiting is not None
    assert (waiting.fault, waiting.size - size) == (None, 1_000)
    path.with_name(f"{path.name}-wal").unlink()
    raw = bytearray(path.read_bytes())
    raw[8_192:60_000] = os.urandom(60_000 - 8_192)
    path.write_bytes(raw)
    damaged = check_structure(tmp_path, 10)
    assert damaged is not None
    assert "is damaged" in str(damaged.fault)
    assert check_structure(tmp_path / "none", 10) is None


# --- With a node --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("node")
    listen = [
        word for carrier in ("plain", "http", "tls", "ssh") for word in ("--listen", f"127.0.0.1:0?carrier={carrier}")
    ]
    command = [sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", str(folder), "run", "--json"]
    process = subprocess.Popen([*command, *listen], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield folder
    process.terminate()
    process.wait()
    process.stdout.close()


def test_a_running_node_is_looked_at_from_inside(running: Path) -> None:
    status, found = ask(running)
    assert (status, [f for f in found if f["state"] == "wrong"]) == (0, [])
    said = {
        carrier: f["found"]
        for f in of(found, "listening")
        for carrier in ("plain", "http", "tls", "ssh")
        if f"({carrier})" in f["found"]
    }
    assert "gets no answer" in said["plain"]
    assert all("nginx" in said[web] and "200 OK" in said[web] for web in ("http", "tls"))
    assert "SSH-2.0-OpenSSH" in said["ssh"]
    assert "is sound" in of(found, "store")[0]["found"]


def test_a_key_that_others_may_read_is_wrong_until_it_is_mended(running: Path) -> None:
    key = next((running / "dev" / "keys").glob("plain-*.key"))
    key.chmod(0o644)
    status, found = ask(running)
    assert status == 1
    (wrong,) = [finding for finding in found if finding["state"] == "wrong"]
    assert wrong["do"] == f"chmod 600 {key}"
    subprocess.run(wrong["do"].split(), check=True)
    assert ask(running)[0] == 0


SECRET = (
    "rpc.cookie",
    "rpc.tokens",
    "outbox",
    "i2p-dialled.dat",
    "peers.dat",
    "chain.sqlite-wal",
    "keys/tls-x.pem",
    "keys/i2p.key",
)


@pytest.mark.parametrize("name", [*SECRET, "something-new", "keys", "tor", "tor/data"])
def test_every_secret_of_the_data_directory_is_looked_at(name: str, tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "dev")
    with folder.hold():
        make_private(folder.path / "tor" / "data")
        make_private(folder.path / "tor")
        for each in (*SECRET, "something-new"):
            write_atomic(folder.path / each, b"secret")
        for public in ("chain.lock", "keys/tls-x.crt", "tor/torrc", "tor/data/cached-certs"):
            (folder.path / public).write_bytes(b"public")
            (folder.path / public).chmod(0o644)
    exposed = folder.path / name
    config = Config(network="dev", data_dir=tmp_path, listen=())

    def wrong() -> list[tuple[str, str | None]]:
        found = judge(asyncio.run(examine(config)))
        return [(finding.found, finding.do) for finding in found if finding.check == "permissions" and finding.do]

    assert wrong() == []
    mode = 0o750 if exposed.is_dir() else 0o640
    exposed.chmod(mode)
    assert wrong() == [(f"{exposed} has mode {mode:o}", f"chmod {'700' if exposed.is_dir() else '600'} {exposed}")]


def test_a_node_that_is_starting_is_no_reason_to_start_one(tmp_path: Path) -> None:
    with DataDir(tmp_path, "dev").hold():
        found = judge(asyncio.run(examine(Config(network="dev", data_dir=tmp_path, listen=()))))
    told = next(finding for finding in found if finding.check == "node")
    assert f"(pid {os.getpid()}) starts or ends" in told.found
    assert told.do == "obscura doctor again, when it is up"


def test_root_who_looks_at_a_stopped_service_is_told_what_is_not_the_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo obscura doctor` said of each file that it belongs to another user, and to give it to root."""
    folder = DataDir(tmp_path, "dev")
    with folder.hold():
        write_atomic(folder.path / "peers.db", b"secret")
    if os.getuid() == 0:
        for each in (folder.path, *folder.path.rglob("*")):
            os.chown(each, 65_534, 65_534)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    uid = folder.path.stat().st_uid

    def wrong() -> list[tuple[str, str | None]]:
        found = judge(asyncio.run(examine(Config(network="dev", data_dir=tmp_path, listen=()))))
        return [(finding.found, finding.do) for finding in found if finding.check == "permissions" and finding.do]

    assert wrong() == []
    if os.getuid() != 0:
        return  # only root can make what is not the service's
    os.chown(folder.path / "peers.db", 0, 0)
    name = pwd.getpwuid(uid).pw_name
    told = f"{folder.path}/peers.db belongs to another user"
    assert wrong() == [(told, f"sudo chown {name} {folder.path}/peers.db")]


def test_a_file_that_goes_while_it_is_looked_at_is_no_fault(tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "dev")
    with folder.hold():
        (folder.path / "gone").symlink_to(tmp_path / "nowhere")
    found = judge(asyncio.run(examine(Config(network="dev", data_dir=tmp_path, listen=()))))
    assert [finding for finding in found if finding.check == "permissions" and finding.do] == []


def test_for_people_it_is_lines_with_what_to_type(running: Path) -> None:
    words = ["--network", "dev", "--data-dir", str(running), "doctor"]
    said = subprocess.run([sys.executable, "-m", "obscura.cli", *words], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0
    assert said.stdout.splitlines()[-1] == "nothing is wrong"
    assert "+ node" in said.stdout


def test_the_method_is_there_for_others(running: Path) -> None:
    with Client(running / "dev" / "rpc.sock") as client:
        assert {finding["state"] for finding in client.call("doctor")} <= {"fine", "note", "wrong"}


# --- Tor that is not right ----------------------------------------------------------------------------------------------


def tor_config(folder: Path, tor: FakeTor, **keys: Any) -> Config:
    settings = TorSettings(control=str(tor.place), **keys)
    return Config(network="dev", data_dir=folder, tor="auto", only_net=("tor",), tor_daemon=settings, max_outbound=0)


def run(scenario: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40):
            await scenario()

    asyncio.run(bounded())


def wrong_of(found: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in found if finding.check == name and finding.state is WRONG]


@contextlib.asynccontextmanager
async def fake_tor(folder: Path, **keys: Any) -> Any:
    cookie = folder / "cookie"
    cookie.write_bytes(bytes(range(32)))
    invalid = keys.pop("invalid", 0xF6)
    async with (
        FakeSocks({"doctor.onion:1": invalid}).running() as proxy,
        FakeTor(cookie, socks=proxy.place, **keys).running() as tor,
    ):
        yield tor, proxy


def streams(circuits: tuple[int, ...], place: str) -> str:
    lines = "\n".join(f"{n} SUCCEEDED {circuit} {place}" for n, circuit in enumerate(circuits))
    return f"250+stream-status=\n{lines}\n.\n250 OK"


@pytest.mark.parametrize(("circuits", "is_isolated"), [((7, 9), True), ((7, 7), False)])
def test_the_onion_service_is_dialled_and_its_circuits_counted(
    circuits: tuple[int, ...], is_isolated: bool, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with fake_tor(tmp_path) as (tor, proxy), Node(tor_config(tmp_path / "a", tor)) as node:
            await published(node)
            (own,) = node.addresses
            proxy.targets[f"{own.host}:{own.port}"] = ("127.0.0.1", onion_port(tor, own))
            tor.answers = lambda line: streams(circuits, f"{own.host}:{own.port}") if "stream-status" in line else None
            found = judge(await examine(node.config, node))
            assert [f for f in found if f.check == "onion" and f.state is FINE]
            assert bool(wrong_of(found, "tor-circuits")) is not is_isolated
            assert is_wrong(found) is not is_isolated
            users = [user for _, user, _ in proxy.asked]
            assert len(set(users)) == len(users)

    run(scenario)


def test_what_tor_says_of_its_ports_is_read(tmp_path: Path) -> None:
    def answers(line: str) -> str | None:
        return {
            "GETCONF SocksPort": "250-SocksPort=9050 NoIsolateSOCKSAuth\n250 SocksPort=9052",
            "GETINFO consensus/valid-after": "250-consensus/valid-after=2001-01-01 00:00:00\n250 OK",
            "GETINFO consensus/valid-until": "250-consensus/valid-until=2001-01-01 03:00:00\n250 OK",
        }.get(line)

    async def scenario() -> None:
        async with fake_tor(tmp_path, answers=answers, invalid=1) as (tor, _):
            found = judge(await examine(tor_config(tmp_path / "a", tor)))
            (isolation,) = wrong_of(found, "tor-isolation")
            assert "9050 NoIsolateSOCKSAuth" in isolation.found
            assert "after the time" in wrong_of(found, "clock")[0].found
            assert [f for f in found if f.check == "tor-errors"]

    run(scenario)


def test_a_wrong_cookie_and_a_tor_that_is_down_are_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fake_tor(tmp_path, secret=bytes(32)) as (tor, _):
            found = judge(await examine(tor_config(tmp_path / "a", tor)))
            (wrong,) = wrong_of(found, "tor-control")
            assert "does not know tor's cookie" in wrong.found
        found = judge(await examine(tor_config(tmp_path / "a", tor, socks="127.0.0.1:1")))
        assert "no tor listens for control" in wrong_of(found, "tor-control")[0].found
        assert "no SOCKS proxy listens" in wrong_of(found, "tor-socks")[0].found
        program = str(tmp_path / "no-tor")
        managed = Config(network="dev", data_dir=tmp_path, tor="managed", tor_daemon=TorSettings(program=program))
        (missing,) = wrong_of(judge(await examine(managed)), "tor-control")
        assert "apt install tor" in str(missing.do)

    run(scenario)


def test_the_i2p_router_is_greeted_and_the_sessions_are_looked_at(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeSam().running() as router:
            settings = I2pSettings(sam=str(router.place))
            keys = {"network": "dev", "i2p": "auto", "only_net": ("i2p",), "i2p_router": settings, "max_outbound": 0}
            config = Config(data_dir=tmp_path, **keys)  # type: ignore[arg-type]
            found = judge(await examine(config))
            assert [f.state for f in found if f.check == "i2p-sam"] == [FINE]
            assert not is_wrong(found)
            async with Node(config) as node:
                while not node.routes.show()["i2p"]["connected"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                (session,) = [f for f in judge(await examine(config, node)) if f.check == "i2p-session"]
                assert session.state is FINE
                assert ".b32.i2p (3 hops in, 3 out)" in session.found
        (missing,) = wrong_of(judge(await examine(config)), "i2p-sam")
        assert "apt install i2pd" in str(missing.do)

    run(scenario)


def test_a_proxy_is_asked_for_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeSocks(methods=(0,)).running() as proxy:
            config = Config(network="dev", data_dir=tmp_path, proxy=str(proxy.place))
            found = judge(await examine(config))
            assert [f.state for f in found if f.check == "proxy"] == [FINE]
            assert proxy.asked == []
        assert wrong_of(judge(await examine(config)), "proxy")

    run(scenario)
