"""An operator's day, with real processes and an empty home: each step says what is done and what has to follow.

python tools/operators_day.py            # on loopback, in a folder of its own that is gone afterwards

Configure, start, look, ban, rotate, reload, upgrade, crash, restore, prune, stop. Exit status 1 where it goes otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAIT_S = 120.0  # for any step, on a busy machine
LINES = 'network = "dev"\nlisten = ["127.0.0.1:0"]\nmax-outbound = 0\n'


class Running:
    """One node of ours and what it says in its log."""

    def __init__(self, home: Path, *words: str) -> None:
        self.log = (home / f"{len(list(home.glob('*.log')))}.log").open("w+b")
        command = [sys.executable, "-m", "obscura.cli", *words, "run", "--json"]
        self.process = subprocess.Popen(
            command, env=environment(home), cwd=home, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.facts: dict[str, Any] = json.loads(line) if line else {}

    def said(self) -> str:
        """Its log so far."""
        self.log.seek(0)
        return self.log.read().decode()

    def end(self, number: int) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        return status


class Day:
    """The commands of one operator, whose home is a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / ".config" / "obscura" / "obscura.toml"
        self.data = home / ".local" / "share" / "obscura"
        self.node: Running | None = None
        self.friend: Running | None = None

    def obscura(self, *words: str, status: int = 0) -> str:
        """What a command prints (standard error if it is to fail)."""
        command = [sys.executable, "-m", "obscura.cli", *words]
        done = subprocess.run(
            command,
            env=environment(self.home),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        expect(done.returncode == status, f"`obscura {' '.join(words)}`: exit status {done.returncode}; {done.stderr}")
        return done.stdout if status == 0 else done.stderr

    def ask(self, *words: str) -> Any:
        """The same as JSON."""
        return json.loads(self.obscura(*words, "--json"))

    def start(self) -> Running:
        """Start the node by its configuration file alone."""
        self.node = Running(self.home)
        expect(bool(self.node.facts), "the node starts")
        return self.node

    def configure(self, *lines: str) -> None:
        """Put lines before what `config init` wrote."""
        kept = self.file.read_text(encoding="utf-8").partition("# Obscura.")[2]
        self.file.write_text(LINES + "".join(f"{line}\n" for line in lines) + "# Obscura." + kept, encoding="utf-8")

    def height(self) -> int:
        """Blocks of the node's chain."""
        return int(self.ask("status")["height"])


def environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's but the way to programs."""
    return {"HOME": str(home), "PATH": os.environ["PATH"]}


def expect(is_so: bool, what: str) -> None:
    """Raises ``AssertionError``, also where Python leaves asserts out."""
    if not is_so:
        raise AssertionError(what)


def until(is_so: Callable[[], bool], what: str) -> None:
    """Ask again until it is so."""
    last = time.monotonic() + WAIT_S
    while not is_so():
        expect(time.monotonic() < last, f"{what}: not within {WAIT_S:g} s")
        time.sleep(0.1)


def configures(day: Day) -> None:
    """config init, config check: a commented file; a mistake is told with its line"""
    day.obscura("config", "init")
    expect("is there" in (said := day.obscura("config", "init", status=1)) or "exists already" in said, said)
    day.obscura("config", "check")
    day.configure('privcy = "high"')
    said = day.obscura("config", "check", status=1)
    expect(":4: " in said and "privcy" in said, said)
    day.configure()
    expect("network dev" in day.obscura("config", "check"), "the file names the network")


def starts(day: Day) -> None:
    """run, status: a peer comes, the chain follows"""
    expect("no node" in day.obscura("status", status=3).lower(), "without a node it says so")
    node = day.start()
    (address,) = node.facts["addresses"]
    friend = day.home / "friend"
    words = ("--network", "dev", "--data-dir", str(friend), "--config", str(day.home / "friend.toml"))
    (day.home / "friend.toml").write_text(f'listen = []\nmax-outbound = 0\nconnect = ["{address}"]\n', encoding="utf-8")
    day.friend = Running(day.home, *words)
    until(lambda: len(day.ask("peers")) == 1, "the friend is linked")
    day.obscura(*words, "mine", "--blocks", "5")
    until(lambda: day.height() == 5, "the friend's blocks arrive")


def bans(day: Day) -> None:
    """ban: a network that nobody is to be linked to"""
    day.obscura("ban", "add", "203.0.113.7")
    expect("203.0.113.7" in day.obscura("ban", "list"), "it is listed")


def rotates(day: Day) -> None:
    """rotate: the friend's link moves to a new connection, and blocks go on"""
    words = ("--network", "dev", "--data-dir", str(day.home / "friend"))
    rows = day.ask(*words, "rotate")
    expect([row["outcome"] for row in rows] == ["rotated"], str(rows))
    day.obscura(*words, "mine")
    until(lambda: day.height() == 6, "a block over the new connection")


def reloads(day: Day) -> None:
    """SIGHUP: what can change does, links stay; a broken file changes nothing"""
    node = day.node
    expect(node is not None, "it runs")
    assert node is not None
    day.configure('log-level = "debug"', "max-inbound = 50")
    node.process.send_signal(signal.SIGHUP)
    until(lambda: "changed: log-level, max-inbound" in node.said(), "the log names what changed")
    day.configure("max-inbound = many")
    node.process.send_signal(signal.SIGHUP)
    until(lambda: "everything stays as it was" in node.said(), "the log says that it is not taken")
    day.configure()
    day.obscura("config", "reload")
    expect(len(day.ask("peers")) == 1, "the link stands")


def upgrades(day: Day) -> None:
    """An older data directory is brought forward, a later one is refused and left alone"""
    stop(day)
    version = day.data / "dev" / "version"
    said = version.read_text(encoding="ascii")
    version.unlink()  # as it was before directories had a number
    day.start()
    expect(version.read_text(encoding="ascii") == said, "it has its number again")
    expect(day.height() == 6, "the chain is there")
    stop(day)
    version.write_text("99\n", encoding="ascii")
    refused = day.obscura("run", status=1)
    expect("later version" in refused and len(refused.splitlines()) == 1, refused)
    version.write_text(said, encoding="ascii")
    day.start()


def crashes(day: Day) -> None:
    """kill -9: everything acknowledged is there again"""
    mined = day.obscura("mine", "--blocks", "4").split()
    assert day.node is not None
    expect(day.node.end(signal.SIGKILL) == -signal.SIGKILL, "it is gone")
    day.start()
    expect(day.height() == 10, "the blocks are there")
    expect(day.ask("block", "get", mined[-1])["height"] == 10, "the last one too")
    expect("203.0.113.7" in day.obscura("ban", "list"), "the ban too")


def restores(day: Day) -> None:
    """A copy of the data directory, made while the node was stopped, is the node"""
    before = key_of(day)
    stop(day)
    shutil.copytree(day.data, day.home / "backup", symlinks=True)
    shutil.rmtree(day.data)
    shutil.copytree(day.home / "backup", day.data, symlinks=True)
    day.start()
    expect(day.height() == 10, "the chain is there")
    expect(key_of(day) == before, "its key is the same: addresses that were given out still lead to it")


def key_of(day: Day) -> str:
    """The channel key in the node's address."""
    assert day.node is not None
    return str(day.node.facts["addresses"][0]).partition("@")[0]


def prunes(day: Day) -> None:
    """prune: old blocks go, the newest 288 stay, the chain goes on"""
    stop(day)
    day.configure('prune = "64 MiB"')
    day.start()
    day.obscura("mine", "--blocks", "75", "--fill", "990000")
    day.obscura("mine", "--blocks", "290")
    said = day.obscura("block", "get", "12", status=1)
    expect("pruned" in said or "not" in said, said)
    expect(day.ask("block", "get", "375")["height"] == 375, "the newest is there")
    expect(not day.ask("chain", "verify")["damaged"], "nothing is damaged")


def stops(day: Day) -> None:
    """stop: a clean end, nothing left behind"""
    day.obscura("stop")
    assert day.node is not None
    expect(day.node.process.wait(WAIT_S) == 0, day.node.said())
    left = [path.name for path in day.data.rglob("*") if path.name.endswith((".sock", "-wal", "-shm", ".cookie"))]
    expect(left == [], f"left behind: {left}")


def stop(day: Day) -> None:
    """End the node as systemd does."""
    assert day.node is not None
    expect(day.node.end(signal.SIGTERM) == 0, "a clean end")


STEPS = (configures, starts, bans, rotates, reloads, upgrades, crashes, restores, prunes, stops)


def live(home: Path, tell: Callable[[str], object] = print) -> None:
    """The whole day in a home that is empty. Raises ``AssertionError``."""
    day = Day(home)
    try:
        for step in STEPS:
            tell(f"{step.__name__:10}  {step.__doc__}")
            step(day)
    finally:
        for each in (day.node, day.friend):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.process.kill()
                    each.process.wait(WAIT_S)


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        try:
            live(Path(home), lambda line: print(line, flush=True))
        except AssertionError as missed:
            print(f"NOT SO: {missed}", file=sys.stderr)
            return 1
    print("the day is over, everything as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
