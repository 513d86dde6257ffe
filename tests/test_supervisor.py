"""What a supervisor hears (sd_notify), the limit of open files, the word about root: on a real socket, from real processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from obscura.daemon import supervisor
from obscura.daemon.datadir import DataDir
from obscura.daemon.supervisor import Supervisor, raise_open_files, warn_of_root
from obscura.ledger.networks import load_network
from obscura.store.sqlite import Store

WAIT_S = 60.0


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """A supervisor's socket at ``tmp_path/notify``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WAIT_S)
        yield listening


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}


def test_readiness_life_signs_and_the_end(heard: socket.socket, tmp_path: Path) -> None:
    variables = environ(tmp_path, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid()), HOME="/")
    told = Supervisor(variables)
    assert variables == {"HOME": "/"}, "what a tor of the node inherits must not speak for it"

    async def live() -> list[bytes]:
        async with told.served():
            words = [heard.recv(99)]
            for _ in range(3):
                words.append(await asyncio.to_thread(heard.recv, 99))
        return words

    assert asyncio.run(live()) == [b"READY=1", *[b"WATCHDOG=1"] * 3]
    rest = []
    heard.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            rest.append(heard.recv(99))
    assert rest[-1] == b"STOPPING=1"


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # meant for another process
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_served_only_where_one_waits_for_this_process(
    variables: dict[str, str], seconds: float | None
) -> None:
    assert Supervisor(dict(variables)).watchdog_s == seconds or seconds is None


def test_abstract_sockets_and_sockets_that_are_gone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # autobind: an abstract name of the kernel's choice
        name = listening.getsockname()
        Supervisor({"NOTIFY_SOCKET": "@" + name[1:].decode()}).tell("READY=1", "STATUS=up")
        listening.settimeout(WAIT_S)
        assert listening.recv(99) == b"READY=1\nSTATUS=up"
    for place in ("", str(tmp_path / "nobody"), "@" + name[1:].decode(), "x" * 500, "/dev/null"):
        Supervisor({"NOTIFY_SOCKET": place}).tell("READY=1")


def test_open_files_are_raised_and_said(caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    caplog.set_level(logging.INFO)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert "raised from 200 to" in caplog.text
        caplog.clear()
        raise_open_files()
        assert caplog.text == ""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_root_is_warned(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor.os, "geteuid", lambda: 1000)
    warn_of_root()
    assert caplog.text == ""
    monkeypatch.setattr(supervisor.os, "geteuid", lambda: 0)
    warn_of_root()
    assert "running as root" in caplog.text


def run_node(tmp_path: Path) -> subprocess.Popen[str]:
    words = (
        "--network",
        "dev",
        "--data-dir",
        str(tmp_path / "data"),
        "run",
        "--listen",
        "127.0.0.1:0",
        "--set",
        "max-outbound=0",
    )
    return subprocess.Popen(
        (sys.executable, "-m", "obscura.cli", *words),
        env={**os.environ, **environ(tmp_path, WATCHDOG_USEC="200000"), "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_node_process_speaks_to_its_supervisor(heard: socket.socket, tmp_path: Path) -> None:
    with run_node(tmp_path) as node:
        try:
            assert heard.recv(99) == b"READY=1"
            assert heard.recv(99) == b"WATCHDOG=1"
            assert (tmp_path / "data/dev/rpc.sock").exists(), "ready means that it answers"
            node.send_signal(signal.SIGTERM)
            while (word := heard.recv(99)) != b"STOPPING=1":
                assert word == b"WATCHDOG=1"
            assert node.wait(WAIT_S) == 0
        finally:
            node.kill()


SLOW = """
import asyncio, signal, sys
from pathlib import Path
from obscura.daemon import runtime
from obscura.daemon.config import Config
from obscura.daemon.node import Node

async def hang(self):
    print("stopping", flush=True)
    await asyncio.sleep(1_000)

Node._close_links = hang
config = Config(network="dev", data_dir=Path(sys.argv[1]), listen=(), max_outbound=0)
runtime.run(config, ready=lambda facts: print("ready", flush=True))
"""


def test_a_second_signal_ends_a_node_that_does_not_come_to_its_end(tmp_path: Path) -> None:
    with subprocess.Popen((sys.executable, "-c", SLOW, str(tmp_path)), stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        try:
            assert node.stdout.readline() == "ready\n"
            node.send_signal(signal.SIGTERM)
            assert node.stdout.readline() == "stopping\n"
            assert node.poll() is None
            node.send_signal(signal.SIGTERM)
            assert node.wait(WAIT_S) == -signal.SIGTERM
        finally:
            node.kill()


READING = """
import signal, sys
from pathlib import Path
from obscura.daemon import runtime
from obscura.daemon.config import Config
from obscura.store.sqlite import Store

load_chain = Store.load_chain

def endless(self, ledger):
    print("reading", flush=True)
    while True:
        load_chain(self, ledger)

Store.load_chain = endless
config = Config(network="dev", data_dir=Path(sys.argv[1]), listen=(), max_outbound=0)
print("status", runtime.run(config, ready=lambda facts: print("ready", flush=True)))
"""


def test_a_signal_ends_a_node_that_still_reads_its_store(tmp_path: Path) -> None:
    with subprocess.Popen((sys.executable, "-c", READING, str(tmp_path)), stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        try:
            assert node.stdout.readline() == "reading\n"
            node.send_signal(signal.SIGTERM)
            assert node.wait(WAIT_S) == 0
            assert node.stdout.read() == "status 0\n"
        finally:
            node.kill()
    with DataDir(tmp_path, "dev").hold() as folder, Store.open(folder.path, load_network("dev").id) as store:
        assert store.forgotten == ()
