"""Commands against a scripted node: what they ask for, what they print, and with which status they end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shlex
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from obscura.cli import COMMANDS, root
from obscura.cli.frame import Globals
from obscura.cli.output import printable
from obscura.daemon import datadir
from obscura.daemon.control import ControlServer
from obscura.daemon.events import Broadcast
from obscura.daemon.rpc import MethodRegistry
from obscura.errors import UserError

EVIL = "Obscura/1.0\x1b[2J\x9b31m\u202e[red]x\r\n"  # what a peer may call itself
SHOWN = r"Obscura/1.0\x1b[2J\x9b31m\u202e[red]x\r\n"
PEERS = [{"peer": 1, "address": "127.0.0.1:2", "inbound": True, "user_agent": EVIL, "features": ["a", "b"]}]

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OBSCURA_DATA_DIR", "OBSCURA_CONFIG", "OBSCURA_NETWORK", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("obscura.daemon.config.SYSTEM_FILE", tmp_path / "none.toml")


@pytest.fixture
def invoke(tmp_path: Path) -> Invoke:
    """Run a command line on ``tmp_path``."""

    def run(*words: str, input: bytes | None = None, status: int = 0) -> Result:
        words = ("--data-dir", str(tmp_path), "--network", "dev", *words)
        result = CliRunner().invoke(root, words, obj=Globals(), input=input)
        assert result.exit_code == status, (result.output, result.exception)
        return result

    return run


def node_methods(asked: list[Any]) -> MethodRegistry:
    registry = MethodRegistry()
    registry.method("status")(lambda: {"version": "1", "peers": {"inbound": 1}, "addresses": ["a", "b"]})
    registry.method("peers")(lambda: PEERS)
    registry.method("addresses.own")(lambda: ["obscura://k@127.0.0.1:1"])
    registry.method("features")(lambda: [{"name": "Padding", "offered": True}])

    @registry.method("connect")
    def connect(address: str) -> dict[str, Any]:
        asked.append(("connect", address))
        return PEERS[0]

    @registry.method("disconnect")
    def disconnect(peer: int) -> bool:
        asked.append(("disconnect", peer))
        if peer == 9:
            raise UserError(f"there is no peer 9 called {EVIL}")
        return True

    @registry.method("ping")
    def ping(peer: int) -> dict[str, float]:
        asked.append(("ping", peer))
        return {"rtt_ms": 1.25}

    @registry.method("keys.show")
    def keys_show(address: str | None = None) -> list[dict[str, Any]]:
        asked.append(("keys.show", address))
        return [{"address": "127.0.0.1:2", "verified": None}] if address else []

    @registry.method("keys.forget")
    def keys_forget(address: str) -> bool:
        asked.append(("keys.forget", address))
        return True

    @registry.method("method.with.clash")
    def clash(method: str, self: int) -> str:
        return f"{method}{self}"

    @registry.method("stop")
    def stop() -> bool:
        asked.append(("stop",))
        return True

    return registry


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[list[Any]]:
    """A node on ``tmp_path/dev`` that notes what it was asked. As soon as one listens, it tells an event and goes."""
    calls: list[Any] = []
    ready, done = threading.Event(), threading.Event()
    (tmp_path / "dev").mkdir()

    async def serve() -> None:
        broadcast = Broadcast()
        async with ControlServer(tmp_path / "dev/rpc.sock", node_methods(calls), broadcast):
            ready.set()
            while not done.is_set():
                if len(broadcast):
                    broadcast.publish({"kind": "peer-connected", "user_agent": EVIL})
                    for _ in range(10):  # turns of the loop, for the event to leave
                        await asyncio.sleep(0)
                    return
                await asyncio.to_thread(done.wait, 0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield calls
    done.set()
    thread.join()


NO_NODE_NEEDED = {"run", "config", "wire", "version", "features"}


@pytest.mark.parametrize("name", [name for group in COMMANDS.values() for name in group])
def test_every_command_loads_and_its_summary_is_its_help(name: str) -> None:
    lazy = next(group[name] for group in COMMANDS.values() if name in group)
    command = lazy.load()
    assert command.name == name
    assert (command.help or "").split("\n")[0] == lazy.summary
    result = CliRunner().invoke(root, [name, "--help"], obj=Globals())
    assert result.exit_code == 0
    assert "--json" in result.output or isinstance(command, click.Group)


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["peers"],
        ["connect", "a:1"],
        ["disconnect", "1"],
        ["ping", "1"],
        ["address"],
        ["key", "show"],
        ["key", "forget", "a:1"],
        ["rpc", "status"],
        ["events"],
        ["stop"],
    ],
)
def test_without_a_node_every_command_says_how_to_start_one(words: list[str], invoke: Invoke, tmp_path: Path) -> None:
    start = f"obscura run --data-dir {tmp_path} --network dev"
    result = invoke(*words, status=3)
    assert result.stdout == ""
    assert result.stderr == f"Error: no node is running on {tmp_path}/dev: start one with `{start}`\n"


def test_the_hint_can_be_typed_as_it_stands(invoke: Invoke, tmp_path: Path) -> None:
    told = invoke("--data-dir", f"{tmp_path}/my data; x", "status", status=3).stderr
    words = shlex.split(told[told.index("`") + 1 : told.rindex("`")])
    assert words == ["obscura", "run", "--data-dir", f"{tmp_path}/my data; x", "--network", "dev"]


def test_the_doctor_gives_the_same_hint(invoke: Invoke, tmp_path: Path) -> None:
    told = json.loads(invoke("--json", "doctor").stdout)
    (node,) = (finding for finding in told if finding["check"] == "node")
    assert node["do"].startswith(f"obscura run --data-dir {tmp_path} --network dev, and then")


def test_to_root_the_hint_for_a_service_is_the_service(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datadir, "other_owner", lambda folder: (61_184, 61_184) if folder == tmp_path / "dev" else None)
    told = invoke("status", status=3).stderr  # `obscura run` of root is refused there
    assert told.endswith("start one with `systemctl start obscura`\n")


def test_the_hint_without_options_is_a_network_to_try(tmp_path: Path) -> None:
    result = CliRunner().invoke(root, ["status"], obj=Globals())
    assert result.exit_code == 3
    assert result.stderr.endswith("main: start one with `obscura run --network dev`\n")


def test_status(invoke: Invoke, asked: list[Any]) -> None:
    shown = invoke("status").stdout
    assert [line.split() for line in shown.splitlines()] == [
        ["version", "1"],
        ["peers.inbound", "1"],
        ["addresses", "a,", "b"],
    ]
    assert json.loads(invoke("status", "--json").stdout)["peers"] == {"inbound": 1}
    assert json.loads(invoke("--json", "status").stdout)["peers"] == {"inbound": 1}


def test_nothing_that_a_peer_chose_controls_the_terminal(invoke: Invoke, asked: list[Any]) -> None:
    table = invoke("peers").stdout
    assert SHOWN in table
    refused = invoke("disconnect", "9", status=1)
    assert refused.stderr == f"Error: there is no peer 9 called {SHOWN}\n"
    assert json.loads(invoke("peers", "--json").stdout) == PEERS
    for words in (["peers"], ["peers", "--json"], ["connect", "a:1"], ["rpc", "peers"], ["events"]):
        result = invoke(*words, status=3 if words == ["events"] else 0)
        assert all(c.isprintable() or c in "\n\t" for c in result.stdout), words


def test_rows_into_a_pipe_are_tab_separated(invoke: Invoke, asked: list[Any]) -> None:
    header, row = invoke("peers").stdout.splitlines()
    shown = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (shown["peer"], shown["address"], shown["inbound"]) == ("1", "127.0.0.1:2", "yes")


def test_rows_on_a_terminal_are_a_table_without_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from obscura.cli.output import show_rows

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    show_rows([{"peer": 1, "user_agent": EVIL}], "none")
    shown = capsys.readouterr().out
    assert SHOWN in shown
    assert "\x1b" not in shown
    show_rows([], "There is nothing.")
    assert capsys.readouterr().out == "There is nothing.\n"


def test_commands_ask_what_they_say(invoke: Invoke, asked: list[Any]) -> None:
    invoke("connect", "obscura://k@h:1")
    invoke("disconnect", "4")
    assert invoke("ping", "4", "--count", "2", "--interval", "0").stdout == "peer 4: 1.250 ms\n" * 2
    assert json.loads(invoke("ping", "4", "--json").stdout) == {"peer": 4, "rtt_ms": [1.25]}
    assert invoke("key", "show").stderr.startswith("This node listens nowhere, so it has no keys; `obscura key show")
    assert "127.0.0.1:2" in invoke("key", "show", "a:1").stdout
    invoke("key", "forget", "a:1")
    invoke("stop")
    assert asked == [
        ("connect", "obscura://k@h:1"),
        ("disconnect", 4),
        *[("ping", 4)] * 3,
        ("keys.show", None),
        ("keys.show", "a:1"),
        ("keys.forget", "a:1"),
        ("stop",),
    ]
    assert invoke("address").stdout == "obscura://k@127.0.0.1:1\n"
    assert json.loads(invoke("address", "--json").stdout) == ["obscura://k@127.0.0.1:1"]


def test_features_with_and_without_a_node(invoke: Invoke, asked: list[Any]) -> None:
    assert invoke("features").stdout == "name\toffered\nPadding\tyes\n"
    alone = CliRunner().invoke(root, ["--network", "test", "features", "--json"], obj=Globals())
    assert "SecureChannel" in {row["name"] for row in json.loads(alone.stdout)}


def test_rpc_passes_parameters_of_any_name(invoke: Invoke, asked: list[Any]) -> None:
    assert json.loads(invoke("rpc", "method.with.clash", '{"method": "m", "self": 2}').stdout) == "m2"
    assert json.loads(invoke("rpc", "method.with.clash", '["m", 2]').stdout) == "m2"
    for wrong in ("{", "3", '"x"', "[" * 100_000):
        assert "Invalid value for '[PARAMS]'" in invoke("rpc", "status", wrong, status=2).stderr
    assert "did you mean status?" in invoke("rpc", "statsu", status=1).stderr


def test_events_are_json_lines_until_the_node_goes(invoke: Invoke, asked: list[Any]) -> None:
    result = invoke("events", "--kind", "peer-connected", status=3)
    assert json.loads(result.stdout) == {"kind": "peer-connected", "user_agent": EVIL}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pers"], "there is no command 'pers'; did you mean peers?"),
        (["xyzzy"], "there is no command 'xyzzy'; `obscura --help` lists them."),
        (["\x1b[2J"], r"there is no command '\\x1b[2J'"),
        (["key", "sohw"], "did you mean show?"),
        (["status", "--jsn"], "--json"),
        (["connect"], "Missing argument 'ADDRESS'"),
        (["disconnect", "me"], "'me' is not a valid integer"),
        (["ping", "1", "--count", "0"], "0 is not in the range"),
        (["ban", "add", "203.0.113.1", "--for", "0h"], "a number and one of s, m, h, d, w, such as 24h"),
        (["run", "--set", "privacy"], "'privacy' is not KEY=VALUE"),
        (["run", "--listen", "a:1", "--no-listen"], "--listen and --no-listen exclude each other"),
    ],
)
def test_usage_errors_end_with_status_2(words: list[str], sentence: str, invoke: Invoke) -> None:
    result = invoke(*words, status=2)
    assert sentence in result.stderr
    assert result.stdout == ""


def test_run_hands_the_configuration_to_the_node(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from obscura.daemon import runtime

    seen: list[Any] = []

    def run(config: Any, *, ready: Callable[[Any], None], load: Callable[[], Any]) -> int:
        seen.append(config)
        ready({"addresses": ["obscura://k@127.0.0.1:5", "obscura://k@127.0.0.1:6"], "rpc": "r"})
        return 0

    monkeypatch.setattr(runtime, "run", run)
    words = ["run", "--privacy", "high", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:1", "--unlisted"]
    shown = invoke(*words, "--set", "max-inbound=3", "--connect", "127.0.0.1:9").stdout
    assert shown == "obscura://k@127.0.0.1:5\nobscura://k@127.0.0.1:6\n"
    found = seen[0]
    assert (found.network, found.data_dir, found.privacy, found.max_inbound) == ("dev", tmp_path, "high", 3)
    assert (found.listen, found.connect) == (("127.0.0.1:0", "127.0.0.1:1"), ("127.0.0.1:9",))
    assert (found.unlisted, found.allow_plaintext) == (True, False)
    assert json.loads(invoke("run", "--no-listen", "--json").stdout)["rpc"] == "r"
    assert seen[1].listen == ()
    assert "privacy is" in invoke("run", "--privacy", "hihg", status=1).stderr
    assert len(seen) == 2


def test_config_show_tells_origins(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my.toml"
    file.write_text('privacy = "high"\n[admission]\nmax-unauthenticated = 8\n')
    monkeypatch.setenv("OBSCURA_CONNECT", "127.0.0.1:1,127.0.0.1:2")
    shown = invoke("--config", str(file), "config", "show", "--origin").stdout.splitlines()
    assert f'privacy = "high"  # {file}:1' in shown
    assert 'network = "dev"  # flag --network' in shown
    assert 'connect = ["127.0.0.1:1", "127.0.0.1:2"]  # environment variable OBSCURA_CONNECT' in shown
    assert "unlisted = false  # default" in shown
    assert shown[shown.index("[admission]") :].count(f"max-unauthenticated = 8  # {file}:3") == 1
    tree = json.loads(invoke("config", "show", "--origin", "--json", "--config", str(file)).stdout)
    assert tree["privacy"] == {"value": "high", "origin": f"{file}:1"}
    assert tree["admission"]["max-unauthenticated"]["value"] == 8


def test_what_config_show_prints_is_a_configuration(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "again.toml"
    file.write_text(invoke("config", "show").stdout)
    assert invoke("config", "check", str(file)).stdout == f"{file} is valid (network dev)\n"
    odd = f"{tmp_path}/a\u00a0b\u00adc\u202ed\U000e0001"  # what does not print is escaped as TOML has it
    shown = invoke("--data-dir", odd, "config", "show").stdout
    assert shown.isascii()
    assert tomllib.loads(shown)["data-dir"] == odd
    assert json.loads(invoke("config", "show", "--json", "--config", str(file)).stdout) == json.loads(
        invoke("config", "show", "--json").stdout
    )


def test_config_check_names_the_line(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("\nprivcy = 1\n")
    sentence = f"Error: {file}:2: unknown key privcy; did you mean privacy?\n"
    assert invoke("config", "check", str(file), status=1).stderr == sentence
    assert invoke("--config", str(file), "status", status=1).stderr == sentence
    assert "cannot be read" in invoke("config", "check", str(tmp_path / "none"), status=1).stderr
    for place, why in (("nowhere", "lacks a port"), ("0.0.0.0:1", "carrier plain is for loopback")):
        file.write_text(f'network = "dev"\nlisten = ["{place}"]\n')
        told = invoke("config", "check", str(file), status=1).stderr
        assert told.startswith(f"Error: {file}:2: listen = ")
        assert why in told
    assert json.loads(invoke("config", "check", "--json").stdout)["network"] == "dev"


@pytest.mark.parametrize("flag", ["--proxy", "--tor", "--i2p", "--privacy", "--capture", "--log-level", "--only-net"])
def test_an_empty_option_is_refused_not_left_out(invoke: Invoke, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--proxy "$UNSET"` would dial peers directly otherwise."""
    monkeypatch.setattr("obscura.daemon.runtime.run", lambda *_, **__: 0)
    assert f"flag {flag}: " in invoke("run", flag, "", status=1).stderr


@pytest.mark.parametrize("flag", ["--data-dir", "--network", "--config"])
def test_an_empty_global_option_is_not_the_default(invoke: Invoke, flag: str) -> None:
    """`--data-dir "$UNSET" stop` would stop another node than the one that was meant."""
    assert f"flag {flag}: " in invoke("status", flag, "", status=1).stderr
    assert f"flag {flag}: " in invoke("config", "show", flag, "", status=1).stderr
    assert invoke("config", "check", "", status=1).stderr


def test_a_secret_is_not_shown_and_its_file_is_to_be_private(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[tor-daemon]\npassword = "swordfish"\n')
    for words in ([], ["--origin"], ["--json"], ["--json", "--origin"]):
        shown = invoke("--config", str(file), "config", "show", *words).stdout
        assert "swordfish" not in shown
        assert "(set, not shown)" in shown
    file.chmod(0o644)
    assert "every user of this machine may read it" in invoke("config", "check", str(file)).stderr
    file.chmod(0o640)
    assert invoke("config", "check", str(file)).stderr == ""
    file.write_text('privacy = "high"\n')
    file.chmod(0o644)
    assert invoke("config", "check", str(file)).stderr == ""


def test_config_init_writes_once(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / ".config/obscura/obscura.toml"
    assert invoke("config", "init").stdout == f"wrote {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert invoke("config", "init", "-").stdout == file.read_text()
    assert "exists already" in invoke("config", "init", status=1).stderr
    assert "cannot be written" in invoke("config", "init", f"{file}/x", status=1).stderr
    assert invoke("config", "check", str(file)).exit_code == 0


@pytest.mark.parametrize("words", [("config", "init"), ("network", "init"), ("seeds", "keygen")])
def test_a_full_disk_leaves_no_half_of_a_new_file(
    words: tuple[str, ...], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one would be refused as existing once there is room, or taken for the configuration."""

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "ours.toml"
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", full)
        assert "cannot be written: No space left" in invoke(*words, str(file), status=1).stderr
    assert not file.exists()
    invoke(*words, str(file))
    assert file.stat().st_size


VERACK = "0000000076657261636b0000000000005df6e0e2"
PING = "0800000070696e6700000000000000003b5a75130807060504030201"


@pytest.mark.parametrize("form", ["raw", "hex", "spaced", "--raw", "--hex"])
def test_wire_both_ways(form: str, invoke: Invoke, tmp_path: Path) -> None:
    raw = bytes.fromhex(VERACK + PING)
    given = {"raw": raw, "--raw": raw, "spaced": raw.hex(" ", 4).upper().encode() + b"\n"}
    file = tmp_path / "frames"
    file.write_bytes(given.get(form, raw.hex().encode()))
    options = [form] if form.startswith("--") else []
    text = invoke("wire", "decode", str(file), *options).stdout_bytes
    assert [json.loads(line)["type"] for line in text.splitlines()] == ["verack", "ping"]
    assert invoke("wire", "decode", *options, input=file.read_bytes()).stdout_bytes == text
    assert invoke("wire", "encode", input=text).stdout_bytes == raw
    assert invoke("wire", "encode", "--hex", input=text).stdout == f"{VERACK}\n{PING}\n"
    assert json.loads(invoke("wire", "encode", "--json", input=text).stdout) == {"frames": [VERACK, PING]}


@pytest.mark.parametrize(
    ("data", "frames", "words"),
    [
        (bytes.fromhex(VERACK + "ffffffff" + VERACK[8:]), 1, "the next frame breaks the protocol"),
        (bytes.fromhex(VERACK + VERACK[:8] + "00" * 16), 1, "the next frame breaks the protocol"),
        (bytes.fromhex(VERACK + PING)[:-1], 1, "ends inside a frame"),
        (b"abc", 0, "odd number of digits"),
    ],
)
def test_wire_decode_prints_what_is_before_a_fault(data: bytes, frames: int, words: str, invoke: Invoke) -> None:
    result = invoke("wire", "decode", input=data, status=1)
    assert len(result.stdout.splitlines()) == frames
    assert words in result.stderr


def test_wire_encode_names_the_line(invoke: Invoke) -> None:
    good = b'{"type": "verack", "payload": {}}\n\n'
    result = invoke("wire", "encode", "--hex", input=good + b"{\n", status=1)
    assert result.stdout == VERACK + "\n"
    assert "Error: line 3 is not JSON" in result.stderr
    assert "Error: line 1: " in invoke("wire", "encode", input=b'{"type": 1}', status=1).stderr


def test_a_path_that_the_system_refuses_is_one_sentence(invoke: Invoke) -> None:
    name = "x" * 5_000
    for words in (["replay", name], ["--network", f"{name}.toml", "status"], ["config", "init", name]):
        told = invoke(*words, status=1).stderr
        assert told.startswith("Error: ")
        assert told.endswith("File name too long\n")


def test_the_home_of_somebody_who_is_not_there_is_one_sentence(invoke: Invoke) -> None:
    told = invoke("config", "init", "~nobody-of-this-name/x", status=1).stderr
    assert told == "Error: ~nobody-of-this-name/x: there is no such home directory\n"


def test_an_argument_that_is_not_utf_8_is_one_sentence(invoke: Invoke, asked: list[Any]) -> None:
    for words in (("connect", "\udcff"), ("rpc", "\udcff"), ("rpc", "ping", '{"\udcff": 1}'), ("ban", "add", "\udcff")):
        assert "is not UTF-8 text" in invoke(*words, status=1).stderr


def test_version(invoke: Invoke) -> None:
    assert json.loads(invoke("version", "--json").stdout)["protocol"] == 1
    assert invoke("version").stdout.startswith("obscura ")


def test_printable_leaves_words_alone() -> None:
    assert printable("Zürich 北京 🙂") == "Zürich 北京 🙂"
    assert printable("\x00\x7f\x85\u200b\u2028\ud800") == r"\x00\x7f\x85\u200b\u2028\ud800"
