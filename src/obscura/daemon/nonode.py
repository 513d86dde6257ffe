"""What every client of the RPC says when there is nobody."""

from __future__ import annotations

from obscura.errors import Unreachable

START = "obscura run"  # the command that starts a node, as the error for a missing one says


class NoNode(Unreachable):
    """No node answers, or it went away."""
