"""The inside of a process of a measurement that runs a node: commands in, answers out, the rule of padding as asked for."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.process import LIFE_S
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.daemon.runtime import new_event_loop
from obscura.node.admission import AdmissionLimits
from obscura.node.assembly import Settings
from obscura.shaping.padding import Rule


class BareNode(Node):
    """A node at privacy level `standard` whose links use the padding rule that the figure names."""

    def __init__(self, config: Config, rule: Rule) -> None:
        super().__init__(config)
        self._rule = rule

    def _settings(self) -> Settings:
        settings = super()._settings()
        return msgspec.structs.replace(settings, knobs=msgspec.structs.replace(settings.knobs, rule=self._rule))


def node(folder: str, rule: Rule, *, listens: bool) -> BareNode:
    """A node on loopback that admits as many links as anyone opens (the limits are lifted as an operator would)."""
    many = AdmissionLimits(
        trials_per_s=1e9, trials_per_group_per_s=1e9, trials_per_group_burst=1e9, max_unauthenticated=100_000
    )
    config = Config(
        network="dev",
        data_dir=Path(folder),
        privacy="standard",
        listen=("127.0.0.1:0?carrier=plain",) if listens else (),
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
    """Run ``main(folder)`` under uvloop if it is installed (``loop`` = "asyncio": never), for ``LIFE_S`` at most."""
    signal.alarm(LIFE_S)
    factory = asyncio.new_event_loop if loop == "asyncio" else new_event_loop
    with tempfile.TemporaryDirectory(prefix="obscura-bench-") as folder, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_awaited(main(folder)))


async def _awaited(main: Awaitable[None]) -> None:
    await main
