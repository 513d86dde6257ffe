"""The inside of a process of a measurement that runs a node: commands in, answers out, the rule of padding as asked for."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from bench.process import LIFE_S
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.daemon.runtime import keep_freed_memory, new_event_loop
from obscura.node.admission import AdmissionLimits
from obscura.node.assembly import Settings
from obscura.shaping.agreement import OFF
from obscura.shaping.levels import LEVELS, Knobs, PrivacyLevel
from obscura.shaping.padding import Rule

ON_PLAIN = "127.0.0.1:0?carrier=plain"


class BareNode(Node):
    """A node whose links use the padding rule that the figure names and nothing else (no delay, no dummies), or a whole level."""

    def __init__(self, config: Config, rule: Rule | PrivacyLevel) -> None:
        super().__init__(config)
        self._rule = rule

    def _settings(self) -> Settings:
        if isinstance(self._rule, PrivacyLevel):
            return msgspec.structs.replace(super()._settings(), knobs=LEVELS[self._rule], rate_factor=inf)
        knobs = Knobs(rule=self._rule, dummy_ms=OFF, chaff_ms=OFF, jitter_ms=OFF, burst=OFF, burst_hold_ms=OFF)
        return msgspec.structs.replace(super()._settings(), knobs=knobs, rate_factor=inf)


def node(folder: str, rule: Rule | PrivacyLevel, *listen: str) -> BareNode:
    """A node on loopback that admits as many links as anyone opens (the limits are lifted as an operator would)."""
    many = AdmissionLimits(
        trials_per_s=1e9, trials_per_group_per_s=1e9, trials_per_group_burst=1e9, max_unauthenticated=100_000
    )
    config = Config(
        network="dev",
        data_dir=Path(folder),
        privacy="standard",
        listen=listen,
        max_inbound=10_000,
        admission=many,
        log_level="error",
    )
    return BareNode(config, rule)


def say(**fields: Any) -> None:
    """One line of answer."""
    print(json.dumps(fields), flush=True)


async def commands() -> AsyncIterator[dict[str, Any]]:
    """What the parent says, until it closes the pipe."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while text := await reader.readline():
        yield json.loads(text)


def run(main: Callable[[str], Awaitable[None]], loop: str = "fast") -> None:
    """Run ``main(folder)`` as `obscura run` does, for ``LIFE_S`` at most; ``loop`` = "asyncio": without uvloop all the same."""
    signal.alarm(LIFE_S)
    keep_freed_memory()
    factory = asyncio.new_event_loop if loop == "asyncio" else new_event_loop
    with tempfile.TemporaryDirectory(prefix="obscura-bench-") as folder, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_awaited(main(folder)))


async def _awaited(main: Awaitable[None]) -> None:
    await main
