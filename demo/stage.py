"""Nodes as separate processes for the demo: started, asked over their control sockets, ended by process id."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from obscura.daemon.client import Client

READY_S = 20.0  # seconds for a node to say that it is up
END_S = 15.0  # seconds for a node to end after SIGTERM


class Failed(Exception):
    """Something that the demo promises did not happen."""


class DemoNode:
    """One running `obscura run`."""

    def __init__(self, name: str, folder: Path, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.name = name
        self.folder = folder
        self.process = process
        self.addresses: list[str] = ready["addresses"]
        self.rpc = Client(Path(ready["rpc"]))

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask the node over its control socket."""
        return self.rpc.call(method, **parameters)


class Stage:
    """What all acts share: a folder that goes away, processes that are ended, a place to print, figures for the summary."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.folder = Path(tempfile.mkdtemp(prefix="obscura-demo-"))
        self.figures: list[tuple[str, str]] = []
        self.began = time.monotonic()
        self.ends = contextlib.ExitStack()  # what else has to be ended
        self._nodes: list[DemoNode] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: object) -> None:
        for node in list(self._nodes):
            self.end(node)
        self.ends.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def say(self, text: str) -> None:
        """One line of the story."""
        self.console.print(text, soft_wrap=True)

    def figure(self, what: str, value: str) -> None:
        """One line of the summary at the end."""
        self.figures.append((what, value))

    def expect(self, happened: bool, what: str) -> None:
        """Say that it happened, or end the demo."""
        if not happened:
            raise Failed(what)
        self.say(f"  [green]✓[/green] {what}")

    def wait(self, what: str, ready: Callable[[], Any], seconds: float = 20.0) -> Any:
        """The first true answer of ``ready``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = ready()
            if answer:
                return answer
            time.sleep(0.02)
        raise Failed(f"{what}: not within {seconds:.0f} s")

    def start(self, name: str, *arguments: str, network: str = "dev", folder: Path | None = None) -> DemoNode:
        """Start a node and wait until it says where it listens."""
        place = folder or self.folder / name
        command = [sys.executable, "-m", "obscura.cli", "--network", network, "--data-dir", str(place), "run", "--json"]
        process = subprocess.Popen([*command, "--log-level", "error", *arguments], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()  # ends when the process does
        if not line:
            raise Failed(f"node {name} did not start")
        node = DemoNode(name, place, process, json.loads(line))
        self._nodes.append(node)
        return node

    def end(self, node: DemoNode, how: signal.Signals = signal.SIGTERM) -> int:
        """End a node by its process id; its exit status."""
        self._nodes.remove(node)
        node.rpc.close()
        node.process.send_signal(how)
        try:
            status = node.process.wait(END_S)
        except subprocess.TimeoutExpired:
            node.process.kill()
            status = node.process.wait()
        if node.process.stdout is not None:
            node.process.stdout.close()
        return status
