"""``obscura top``: its lines for every state of a node, and on a real terminal how it ends and what it leaves."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from obscura.cli.top import Rates, Seen, frame, rates

DEADLINE_S = 60.0
STATUS = {
    "version": "1.0",
    "network": "dev",
    "privacy": "medium",
    "uptime_s": 3700.0,
    "height": 7,
    "headers": 9,
    "tip": "ab" * 32,
    "mempool_transactions": 3,
    "mempool_bytes": 1234,
    "known_addresses": 12,
    "peers": {"inbound": 1, "outbound": 2},
    "wire_bytes_sent": 4000,
    "real_bytes_sent": 1000,
    "padding_bytes_sent": 1500,
    "dummy_bytes_sent": 500,
}
PEER = {
    "peer": 1,
    "address": "obscura://KEY@127.0.0.1:19733",
    "face": "clearnet",
    "carrier": "tls",
    "manual": False,
    "inbound": False,
    "purpose": "full",
    "user_agent": "Obscura/1.0.0",
    "connected_s": 61.0,
    "best_ping_ms": 12.3,
    "wire_bytes_sent": 2000,
    "wire_bytes_received": 3000,
}
# The command with a node that answers the same each time, in a process of its own.
STAND_IN = """
import json, sys
from contextlib import nullcontext
from obscura.cli.frame import Globals
class Node:
    answers = json.loads(sys.argv.pop(1))
    def call(self, method): return self.answers[method]
Globals.client = lambda self: nullcontext(Node())
from obscura.cli import main
main()
"""


def look(at: float, peers: list[dict[str, Any]] | None = None, **changed: Any) -> Seen:
    return Seen(at, {**STATUS, **changed}, [PEER] if peers is None else peers)


def test_rates_are_what_was_added() -> None:
    later = {
        "wire_bytes_sent": 5000,
        "real_bytes_sent": 1200,
        "padding_bytes_sent": 1600,
        "dummy_bytes_sent": 700,
    }
    now = look(12.0, [{**PEER, "wire_bytes_received": 3400}, {**PEER, "peer": 2}], **later)
    assert rates(look(10.0), now) == Rates(real=100.0, cover=150.0, rest=250.0, received=200.0)


def test_no_rates_for_a_first_look_or_across_a_restart() -> None:
    assert rates(None, look(1.0)) is None
    assert rates(look(1.0), look(1.0)) is None
    assert rates(look(1.0), look(2.0, uptime_s=0.5)) is None


def test_a_link_that_ended_takes_nothing_away() -> None:
    found = rates(look(1.0), look(2.0, []))
    assert found is not None
    assert found.received == 0


def test_the_essentials() -> None:
    text = "\n".join(frame(look(1.0), Rates(10, 2000, 5, 7), 200))
    words = ("dev", "privacy medium", "height 7 of 9", "3 transactions, 1.2 kB", "10 B/s real", "2.0 kB/s cover")
    assert [
        word for word in (*words, "4.0 bytes for each real one", "2 out, 1 in", "127.0.0.1:19733") if word not in text
    ] == []
    assert "KEY" not in text


def test_without_peers_and_before_the_second_look() -> None:
    text = "\n".join(frame(look(1.0, [], real_bytes_sent=0), None, 80))
    assert "no peers yet" in text
    assert "measuring" in text
    assert "nothing real yet" in text


@pytest.mark.parametrize("name", ["x" * 300, "漢" * 85, "e\u0301" * 60, "🧅" * 64, "\uff76\uff9e" * 42])
@pytest.mark.parametrize("size", [(80, 24), (20, 5), (1, 1), (200, 9)])
def test_no_window_is_overrun(size: tuple[int, int], name: str) -> None:
    """Names of characters that are two cells wide wrapped their lines, and the node's own state scrolled away."""
    width, height = size
    many = [{**PEER, "peer": n, "user_agent": name, "address": "y" * 300} for n in range(125)]
    lines = frame(look(1.0, many), Rates(1, 2, 3, 4), width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


def test_80_columns_have_every_rate() -> None:
    text = "\n".join(frame(look(1.0, []), Rates(999_000, 998_000, 997_000, 996_000), 80))
    assert [number for number in ("999 kB/s", "998 kB/s", "997 kB/s", "996 kB/s") if number not in text] == []


def test_columns_stand_below_each_other_whatever_a_name_is_made_of() -> None:
    rows = [{**PEER, "user_agent": name} for name in ("x" * 300, "漢" * 85, "漢x" * 9, "")]
    lines = frame(look(1.0, rows), None, 200)[-4:]
    assert len({cell_len(line[: line.rindex(lines[0].split()[-1])]) for line in lines}) == 1


def test_what_does_not_fit_is_said() -> None:
    lines = frame(look(1.0, [{**PEER, "peer": n} for n in range(125)]), None, 120, 24)
    assert len(lines) == 24
    assert "more: `obscura peers`" in lines[-1]


def test_a_peer_cannot_write_to_the_terminal() -> None:
    bad = {**PEER, "user_agent": "\x1b[2J\x07\u202e", "address": "\x1b]0;x\x07"}
    assert all(line.isprintable() for line in frame(look(1.0, [bad]), None, 300))


def words(*more: str) -> list[str]:
    answers = json.dumps({"status": STATUS, "peers": [PEER]})
    return [sys.executable, "-c", STAND_IN, answers, "top", "--interval", "0.2", *more]


def environ(folder: Path) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("OBSCURA_")},
        "HOME": str(folder),
        "TERM": "xterm",
    }


def test_once_into_a_pipe_is_plain_text(tmp_path: Path) -> None:
    got = subprocess.run(words("--once"), capture_output=True, text=True, env=environ(tmp_path), timeout=DEADLINE_S)
    assert got.returncode == 0, got.stderr
    assert "height 7 of 9" in got.stdout
    assert "\x1b" not in got.stdout


def test_once_as_json(tmp_path: Path) -> None:
    got = subprocess.run(
        words("--once", "--json"), capture_output=True, text=True, env=environ(tmp_path), timeout=DEADLINE_S
    )
    found = json.loads(got.stdout)
    assert found["status"]["height"] == 7
    assert found["rates"] == {"real": 0, "cover": 0, "rest": 0, "received": 0}


class Terminal:
    """A pseudo-terminal with the command on it."""

    def __init__(self, folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            words(), stdin=theirs, stdout=theirs, stderr=theirs, env=environ(folder), start_new_session=True
        )
        self.theirs = theirs
        self.text = ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, word: str) -> None:
        """Read until the word has come."""
        last = time.monotonic() + DEADLINE_S
        while word not in self.text:
            left = last - time.monotonic()
            assert left > 0, self.text
            if select.select([self.ours], [], [], left)[0]:
                self.text += os.read(self.ours, 65536).decode()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.mark.parametrize(("how", "status"), [("q", 0), ("interrupt", 130)])
def test_on_a_terminal_it_ends_and_leaves_it_as_it_was(how: str, status: int, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    try:
        terminal.until("height 7 of 9")
        assert "\x1b[?1049h" in terminal.text
        terminal.text = ""
        terminal.resize(10, 30)
        terminal.until("obscura 1.0  dev  privacy medi\x1b[K")  # cut at the new width
        if how == "q":
            os.write(terminal.ours, b"q")
        else:
            terminal.process.send_signal(2)
        terminal.until("\x1b[?1049l")
        assert terminal.process.wait(DEADLINE_S) == status
        assert termios.tcgetattr(terminal.theirs) == terminal.before
    finally:
        terminal.end()
