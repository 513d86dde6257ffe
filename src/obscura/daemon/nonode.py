"""What every client of the RPC says when there is nobody."""

from __future__ import annotations

from pathlib import Path

from obscura.daemon.datadir import DataDir
from obscura.errors import Unreachable

START = "obscura run"  # the command that starts a node, as the error for a missing one says


class NoNode(Unreachable):
    """No node answers, or it went away."""


def silent(folder: Path, start: str = START) -> NoNode:
    """What to raise where nothing listens in a node's directory: no node, or one that holds it and does not answer now."""
    pid = DataDir(folder.parent, folder.name).locked_by()
    if pid is None:
        return NoNode(f"no node is running on {folder}: start one with `{start}`")
    return NoNode(
        f"the node on {folder} (pid {pid}) does not answer: it is starting, for minutes where its store is large, "
        f"or ending, or it is no node but `obscura chain verify`, say; try again, or end it with `kill {pid}`"
    )
