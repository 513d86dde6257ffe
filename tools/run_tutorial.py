"""Runs every command of docs/tutorial.md in an empty HOME with real processes, and compares what is printed with the page.

In a ``console`` block a line that begins with ``$ `` is a command, and the lines behind it are expected in that order among
what it prints; ``...`` in them is anything, and so is any white space. A command that ends in ``&`` runs on until the page stops
it; the next one waits for what is expected of it. Reading commands are asked again for a while, as a person would.

    python tools/run_tutorial.py [PAGE]
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
WAIT_S = 300.0  # for what is expected, and for any command: an embargo that ends early takes a minute and the next ping
READING = re.compile(r"obscura .*\b(status|peers|mempool|privacy show)\b")  # may be asked twice
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "end-of-the-command"


class Step(NamedTuple):
    """A command, the lines expected of it, and its line on the page."""

    command: str
    expected: list[str]
    line: int


class Wrong(Exception):
    """The page says something else than the program."""


def steps_of(page: str) -> list[Step]:
    """The commands of a page, in order. Raises ``Wrong`` for one whose block does not begin with a command."""
    steps: list[Step] = []
    for block in BLOCK.finditer(page):
        first = page.count("\n", 0, block.start(1)) + 1
        for number, line in enumerate(block[1].splitlines(), first):
            if line.startswith("$ "):
                steps.append(Step(line[2:], [], number))
            elif number == first:
                raise Wrong(f"line {number}: a block begins with a command")
            else:
                steps[-1].expected.append(line)
    return steps


def missing(expected: list[str], printed: str) -> str | None:
    """The first expected line that is not there behind those before it; None if all are."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for wanted in expected:
        pattern = r"\s?".join(".*".join(map(re.escape, word.split("..."))) for word in wanted.split())
        if wanted.strip() != "..." and not any(re.fullmatch(pattern, line) for line in lines):
            return wanted
    return None


class Shell:
    """One bash that lives as long as the page, in an empty HOME. Its children are its process group's and end with it."""

    def __init__(self, home: Path) -> None:
        here = str(Path(sys.executable).parent)
        environment = {"HOME": str(home), "PATH": f"{here}:/usr/bin:/bin", "LANG": "C.UTF-8"}
        self._home = home
        self._jobs = 0
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=home,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Exit status and what was printed. Raises ``Wrong`` if it does not end."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\necho {END} $?\n".encode())
        self._bash.stdin.flush()
        printed, until = b"", time.monotonic() + WAIT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while not (found := re.search(rf"{END} (\d+)\n\Z".encode(), printed)):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise Wrong(f"did not end in {WAIT_S:.0f} s; it printed:\n{printed.decode(errors='replace')}")
                piece = os.read(self._bash.stdout.fileno(), 65_536)
                if not piece:
                    raise Wrong("ended the shell")
                printed += piece
        return int(found[1]), printed[: found.start()].decode(errors="replace")

    def begin(self, command: str) -> Path:
        """Start a command that runs on; the file that it prints to."""
        self._jobs += 1
        out = self._home / f"out{self._jobs}"
        out.touch()
        self.run(f"{command.rstrip(' &')} </dev/null >{out} 2>&1 &")
        return out

    def left(self) -> str:
        """Commands that still run."""
        return self.run("jobs -r")[1]

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()


def check(shell: Shell, step: Step) -> None:
    """Run one step. Raises ``Wrong``."""
    until = time.monotonic() + WAIT_S
    is_job = step.command.endswith("&")
    out = shell.begin(step.command) if is_job else None
    is_fault = bool(step.expected) and step.expected[0].startswith("Error:")
    while True:
        status, printed = (0, out.read_text()) if out is not None else shell.run(step.command)
        lost = missing(step.expected, printed)
        if lost is None and (status != 0) == is_fault:
            return
        may_wait = is_job or READING.match(step.command)
        if not may_wait or time.monotonic() > until:
            break
        time.sleep(0.2)
    why = f"the exit status is {status}" if lost is None else f"this line did not come: {lost}"
    raise Wrong(f"{why}\nwhat came:\n{printed}")


def main(page: Path) -> int:
    """Exit status 0 if the page is right."""
    with tempfile.TemporaryDirectory() as folder:
        shell = Shell(Path(folder))
        step = None
        try:
            for step in steps_of(page.read_text()):
                print(f"$ {step.command}", flush=True)
                check(shell, step)
            until = time.monotonic() + WAIT_S
            while (left := shell.left()) and time.monotonic() < until:
                time.sleep(0.2)
            if left:
                raise Wrong(f"the page leaves something running: {left}")
        except Wrong as fault:
            where = "" if step is None else f":{step.line}: `{step.command}`"
            print(f"{page}{where}: {fault}", file=sys.stderr)
            return 1
        finally:
            shell.end()
    print(f"{page.name}: every command does what the page says")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else PAGE))
