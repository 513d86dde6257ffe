"""py-libp2p, which links are compared with, in a virtual environment of its own: it has 29 heavy dependencies."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.process import ROOT, Process

WANTED = "libp2p==0.8.1"
FOLDER = ROOT / ".venv" / "bench-libp2p"
INSTALL_S = 900  # seconds; it is installed once
PEER = Path(__file__).with_name("libp2p_peer.py")


class NotInstalled(Exception):
    """py-libp2p could not be installed; the text says why."""


def interpreter() -> Path:
    """The interpreter that has it; makes the environment if it is not there. Raises ``NotInstalled``."""
    stamp = FOLDER / WANTED.replace("==", "-")
    executable = FOLDER / "bin" / "python"
    if stamp.exists():
        return executable
    print(f"installing {WANTED} into {FOLDER} (once)", file=sys.stderr)
    try:
        venv.create(FOLDER, with_pip=True, clear=True)
        pip = [str(executable), "-m", "pip", "--disable-pip-version-check", "install", "-q", WANTED]
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{WANTED} could not be installed: {error.stderr.strip()[-300:]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{WANTED} could not be installed: {error}") from None
    stamp.touch()
    return executable


@contextmanager
def hosts(size: int) -> Iterator[tuple[Process, Process]]:
    """A sending and a receiving host in two processes, connected. Raises ``NotInstalled``."""
    python = str(interpreter())
    with Process([python, "-I", str(PEER), "receive", str(size)]) as receiver:
        address = receiver.hear()["address"]
        with Process([python, "-I", str(PEER), "send", str(size), address]) as sender:
            sender.hear()
            yield sender, receiver
