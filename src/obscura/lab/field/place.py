"""A network of its own for one run: loopback with the packet sizes of Ethernet, addresses, a capture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obscura.errors import UserError

# Addresses for documentation (RFC 5737): what is behind the relay, and in front of it where the capture is taken.
NODE, COVER = "198.51.100.20", "198.51.100.21"
OURS, GENUINE, OTHERS = "192.0.2.20", "192.0.2.21", "192.0.2.22"
SYSTEM_FOLDERS = os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin"])
_SEEN = "net 192.0.2.0/24"
_SETTLE_S = 1.5  # until the capture has what the kernel holds


def unshared(*command: str) -> list[str]:
    """The command in a network namespace of its own; for others than root with a user namespace."""
    return ["unshare", "-n", *([] if os.geteuid() == 0 else ["-r"]), *command]


def prepare() -> None:
    """Loopback up, as Ethernet would have it; the addresses; servers found where systems keep them. Raises ``UserError``."""
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), SYSTEM_FOLDERS])
    commands = [["ip", "link", "set", "lo", "mtu", "1500", "gso_max_segs", "1", "up"]]
    commands += [["ip", "address", "add", f"{host}/32", "dev", "lo"] for host in (NODE, COVER, OURS, GENUINE, OTHERS)]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def captured(file: Path) -> Iterator[None]:
    """Everything in front of the relay, into this file."""
    command = ["dumpcap", "-q", "-i", "lo", "-B", "64", "-f", _SEEN, "-w", str(file)]
    try:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise UserError(f"dumpcap cannot be started: {error.strerror}") from None
    for _ in range(100):
        if file.exists() and file.stat().st_size:
            break
        if process.poll() is not None:
            raise UserError("dumpcap ended at once: it needs root, or a user namespace in which it may capture")
        time.sleep(0.1)
    try:
        time.sleep(0.3)
        yield
        time.sleep(_SETTLE_S)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


class Processes:
    """What a run has started; ended one by one, by process id, last first."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, command: list[str], *, says: bool = False, log: Path | None = None) -> str:
        """Start it; with ``says`` wait for its first line. Raises ``UserError`` if it ends without one."""
        errors = log.open("a") if log is not None else None
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE if says else subprocess.DEVNULL, stderr=errors, text=True
        )
        if errors is not None:
            errors.close()
        self._running.append(process)
        if process.stdout is None:
            return ""
        line = process.stdout.readline()
        if not line:
            last = log.read_text().strip().splitlines()[-1:] if log is not None else []
            raise UserError(f"{' '.join(command[:4])} … ended at once: {''.join(last) or 'no word'}")
        return line

    def end(self) -> None:
        """End all."""
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


PYTHON = sys.executable
