"""``obscura run`` as a process: how it starts, refuses, and ends, with links up and after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon.client import Client
from obscura.daemon.datadir import DataDir

DEADLINE_S = 20.0
Start = Callable[..., "Process"]


class Process:
    """One ``obscura`` of ours; whatever happens it is ended by its own pid."""

    def __init__(self, *words: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("OBSCURA_", "XDG_"))}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "obscura.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environ,
        )

    def line(self) -> str:
        """The next line that it prints; empty at its end."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], DEADLINE_S)
        assert ready, "nothing was printed in time"
        return self.popen.stdout.readline()

    def facts(self) -> dict[str, Any]:
        """What ``run --json`` prints when it is up."""
        line = self.line()
        if not line:
            raise AssertionError(self.end()[1])
        facts: dict[str, Any] = json.loads(line)
        return facts

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Exit status and standard error, after a signal if one is given."""
        if number is not None:
            self.popen.send_signal(number)
        _, err = self.popen.communicate(timeout=DEADLINE_S)
        return self.popen.returncode, err


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes, and ends those that a test leaves."""
    started: list[Process] = []

    def begin(*words: str) -> Process:
        started.append(Process(*words))
        return started[-1]

    yield begin
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def run_words(data_dir: Path, *words: str) -> tuple[str, ...]:
    """A node of the dev network on any port that finds nobody by itself."""
    listen = (
        ()
        if any(word.startswith("--listen") or word == "--no-listen" for word in words)
        else ("--listen", "127.0.0.1:0")
    )
    return (
        "run",
        "--json",
        "--network",
        "dev",
        "--data-dir",
        str(data_dir),
        "--set",
        "max-outbound=0",
        *listen,
        *words,
    )


def ask(data_dir: Path, method: str) -> Any:
    """One RPC of the node of this directory."""
    with Client(DataDir(data_dir, "dev").rpc_socket) as client:
        return client.call(method)


def until(true: Callable[[], Any]) -> Any:
    """Try until it is so, at most for the deadline."""
    last = time.monotonic() + DEADLINE_S
    while not (found := true()):
        assert time.monotonic() < last, "it did not happen in time"
        time.sleep(0.02)
    return found


def left_in(data_dir: Path) -> set[str]:
    """Every file below the directory, by its path in it."""
    return {str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_node_cleanly_while_links_are_up(start: Start, tmp_path: Path, number: int) -> None:
    first = start(*run_words(tmp_path / "a"))
    facts = first.facts()
    second = start(*run_words(tmp_path / "b", "--connect", facts["addresses"][0], "--no-listen"))
    assert second.facts()["addresses"] == []
    until(lambda: ask(tmp_path / "a", "peers") and ask(tmp_path / "b", "peers"))
    place = facts["addresses"][0].rpartition("@")[2]
    stranger = socket.create_connection((place.split(":")[0], int(place.split(":")[1])))
    stranger.sendall(bytes(2_000))
    status, err = first.end(number)
    assert status == 0, err
    assert "Traceback" not in err
    until(lambda: not ask(tmp_path / "b", "peers"))
    status, err = second.end(number)
    assert status == 0, err
    stranger.close()
    for name in "ab":
        assert not [file for file in left_in(tmp_path / name) if _is_debris(file)]


def _is_debris(file: str) -> bool:
    """What must not outlive a node: sockets, half-written files, write-ahead logs."""
    return file.endswith((".sock", "-wal", "-shm", ".tmp")) or (
        Path(file).name.startswith(".") and Path(file).name != ".lock"
    )


def test_a_second_node_on_the_same_directory_is_refused(start: Start, tmp_path: Path) -> None:
    first = start(*run_words(tmp_path))
    first.facts()
    status, err = start(*run_words(tmp_path)).end()
    assert status == 1
    assert f"another node (pid {first.popen.pid}) uses {tmp_path}" in err
    assert "choose another --data-dir" in err
    assert _is_one_sentence(err)
    assert ask(tmp_path, "status")["network"] == "dev", "the first one did not notice"


def _is_one_sentence(err: str) -> bool:
    return len(err.strip().splitlines()) == 1 and "Traceback" not in err


def test_after_a_crash_the_next_start_works_and_the_key_is_the_same(start: Start, tmp_path: Path) -> None:
    first = start(*run_words(tmp_path, "--listen", "127.0.0.1:0"))
    address = first.facts()["addresses"][0]
    first.popen.kill()
    first.end()
    assert any(file.endswith("rpc.sock") for file in left_in(tmp_path)), "the crash left its socket"
    again = start(*run_words(tmp_path, "--listen", "127.0.0.1:0"))
    assert again.facts()["addresses"][0].split("@")[0] == address.split("@")[0]
    assert ask(tmp_path, "status")["network"] == "dev"
    assert again.end(signal.SIGTERM)[0] == 0


def test_a_stale_socket_file_of_nobody_is_replaced(start: Start, tmp_path: Path) -> None:
    path = DataDir(tmp_path, "dev").rpc_socket
    path.parent.mkdir(parents=True, mode=0o700)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(path))
    node = start(*run_words(tmp_path))
    node.facts()
    assert ask(tmp_path, "status")["network"] == "dev"
    assert node.end(signal.SIGTERM)[0] == 0
    assert not path.exists()


def test_an_unknown_key_names_the_nearest(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "obscura.toml"
    file.write_text('network = "dev"\nlistn = ["127.0.0.1:0"]\n')
    status, err = start("run", "--config", str(file), "--data-dir", str(tmp_path / "d")).end()
    assert status == 1
    assert "listn" in err
    assert "listen" in err
    assert str(file) in err
    assert _is_one_sentence(err)
    assert not (tmp_path / "d").exists(), "nothing was begun"


def test_a_port_in_use_is_said(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, err = start(*run_words(tmp_path, "--listen", f"127.0.0.1:{port}")).end()
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use; choose another address with --listen" in err
    assert _is_one_sentence(err)
    assert not [file for file in left_in(tmp_path) if _is_debris(file)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--listen", "203.0.113.5:1?carrier=plain"), "carrier plain is for loopback"),
        (("--listen", "127.0.0.1:0?carrier=bare"), "allow-plaintext"),
        (("--connect", "obscura://nonsense@:1"), "connect"),
        (("--privacy", "extreme"), "extreme"),
        (("--set", "experimental=Dandelion"), "cannot be switched on by hand"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    start: Start, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    status, err = start(*run_words(tmp_path, *words)).end()
    assert status == 1
    assert said in err
    assert _is_one_sentence(err)
