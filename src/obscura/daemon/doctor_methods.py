"""What a running node answers to `obscura doctor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from obscura.daemon.examination import examine
from obscura.doctor.findings import judge

if TYPE_CHECKING:
    from obscura.daemon.node import Node


def doctor_methods(node: Node) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""

    async def doctor() -> list[dict[str, Any]]:
        """Look at clock, disk, doors, slots, tor; what was found, what is wrong, what to type. May take a minute."""
        return [msgspec.to_builtins(finding) for finding in judge(await examine(node.config, node))]

    return {"doctor": doctor}
