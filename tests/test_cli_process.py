"""The command line as processes: what is imported, exit statuses, signals, and a node run by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from obscura.daemon.control import listening

OBSCURA = (sys.executable, "-m", "obscura.cli")
WAIT_S = 60


def environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home)}


def obscura(home: Path, *words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*OBSCURA, *words),
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        **kwargs,  # type: ignore[call-overload]
    )


@contextmanager
def running(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone at the end, whatever happens."""
    with subprocess.Popen(
        (*OBSCURA, *words),
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


HEAVY = ("asyncio", "cryptography", "logging", "msgspec", "obscura.daemon", "rich", "socket", "ssl", "tomllib")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["config", "show", "--help"], ["nonsense"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\nfrom obscura.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(found, file=sys.stderr)\nassert not found"
    )
    done = subprocess.run((sys.executable, "-c", script, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", ["version", "wire decode", "wire encode"])
def test_streams_that_are_closed_lead_to_nowhere(words: str, tmp_path: Path) -> None:
    line = f"exec {sys.executable} -m obscura.cli {words} <&- >&-"
    done = subprocess.run(("sh", "-c", line), env=environment(tmp_path), stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_node_finds_out_at_its_start_names_its_place_too(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('network = "dev"\n\nasmap = "/nowhere"\n')
    flag = obscura(tmp_path, "--network", "dev", "run", "--listen", "nonsense")
    assert (flag.returncode, flag.stderr[:39]) == (1, "Error: flag --listen: listen = nonsense")
    line = obscura(tmp_path, "--config", str(file), "run", "--no-listen")
    assert (line.returncode, line.stderr) == (1, f"Error: {file}:3: asmap = /nowhere: No such file or directory\n")


def test_help_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    line = f"exec {sys.executable} -m obscura.cli --help >/dev/full"
    done = subprocess.run(("sh", "-c", line), env=environment(tmp_path), stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


def test_exit_statuses(tmp_path: Path) -> None:
    assert obscura(tmp_path, "--help").returncode == 0
    assert obscura(tmp_path, "version").returncode == 0
    assert obscura(tmp_path).returncode == 2
    assert obscura(tmp_path, "pers").returncode == 2
    wrong = obscura(tmp_path, "--network", "nonsense", "status")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    alone = obscura(tmp_path, "--network", "test", "status")
    assert (alone.returncode, alone.stdout) == (3, "")
    assert alone.stderr == (
        f"Error: no node is running on {tmp_path}/.local/share/obscura/test: "
        "start one with `obscura run --network test`\n"
    )


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.write_text("0000000076657261636b0000000000005df6e0e2" * 20_000)
    with running(tmp_path, "wire", "decode", str(frames)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(WAIT_S) == 1


def test_ctrl_c_while_the_program_is_still_being_read_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    script = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom obscura.cli import main\nmain()"
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    folder = tmp_path / ".local/share/obscura/dev"
    folder.mkdir(parents=True)
    with listening(folder / "rpc.sock") as silent, running(tmp_path, "--network", "dev", "events") as process:
        silent.settimeout(WAIT_S)
        caller, _ = silent.accept()
        assert b"events.subscribe" in caller.recv(4096)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
        caller.close()
    assert (process.returncode, out, err.strip()) == (130, "", "")


NODE = ("--network", "dev", "--json", "run", "--listen", "127.0.0.1:0")


def ready(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    facts = json.loads(line)
    assert isinstance(facts, dict)
    return facts


def test_a_node_runs_answers_and_stops(tmp_path: Path) -> None:
    with running(tmp_path, *NODE) as node:
        (address,) = ready(node)["addresses"]  # type: ignore[misc]
        status = obscura(tmp_path, "--network", "dev", "status", "--json")
        assert (status.returncode, json.loads(status.stdout)["addresses"]) == (0, [address])
        assert obscura(tmp_path, "--network", "dev", "address").stdout == f"{address}\n"
        second = obscura(tmp_path, *NODE)
        assert (second.returncode, second.stdout) == (1, "")
        assert f"another node (pid {node.pid}) uses {tmp_path}/.local/share/obscura/dev" in second.stderr
        stopped = obscura(tmp_path, "--network", "dev", "stop", "--json")
        assert json.loads(stopped.stdout) == {"stopped": True, "pid": node.pid}
        assert node.wait(WAIT_S) == 0
    with running(tmp_path, *NODE) as again:  # nothing of the first is in the way
        ready(again)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_node_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, *NODE) as node:
        ready(node)
        node.send_signal(number)
        _, err = node.communicate(timeout=WAIT_S)
    assert node.returncode == 0
    assert "Traceback" not in err
    folder = tmp_path / ".local/share/obscura/dev"
    assert not (folder / "rpc.sock").exists()
    assert (folder / ".lock").read_bytes() == b""


def test_a_node_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    with running(tmp_path, *NODE) as node:
        ready(node)
        node.kill()
        node.wait(WAIT_S)
    assert (tmp_path / ".local/share/obscura/dev/rpc.sock").is_socket()
    assert obscura(tmp_path, "--network", "dev", "status").returncode == 3
    with running(tmp_path, *NODE) as again:
        ready(again)
        assert obscura(tmp_path, "--network", "dev", "status").returncode == 0
