"""Carries out the lookups that the pure node wants, and keeps over a restart which lists of seeds it has seen."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from obscura.daemon.datadir import DataDir
from obscura.node.effects import Effect, Lookup
from obscura.node.resolvers import Provider
from obscura.node.seeds import Seeds

if TYPE_CHECKING:
    from obscura.transport.doh import OpenSocket

log = logging.getLogger(__name__)

_FILE = "seeds.json"


def read_sequences(folder: DataDir) -> dict[str, int]:
    """The highest sequence seen of each name's list. A file that cannot be understood is as good as none."""
    try:
        found = json.loads((folder.path / _FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: number for name, number in found.items() if type(number) is int and number >= 0}


class Discovery:
    """One per node. ``done`` carries out effects; ``now`` is the node's clock; ``proxy`` opens sockets, None = directly."""

    def __init__(
        self,
        seeds: Seeds,
        folder: DataDir,
        rng: random.Random,
        now: Callable[[], float],
        done: Callable[[Iterable[Effect]], None],
        proxy: OpenSocket | None = None,
    ) -> None:
        self._seeds = seeds
        self._folder = folder
        self._rng = rng
        self._now = now
        self._done = done
        self._proxy = proxy
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, lookup: Lookup) -> None:
        """Begin a lookup; what comes of it goes to the seeds."""
        task = asyncio.get_running_loop().create_task(self._look_up(lookup, self._seeds.providers[lookup.provider]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_up(self, lookup: Lookup, provider: Provider) -> None:
        doh = import_module("obscura.transport.doh")  # 15 MB and 150 ms that most nodes never need
        proxy = self._proxy or doh.open_tcp
        answers = await doh.ask(provider, lookup.name, lookup.kinds, self._rng, proxy=proxy)
        before = dict(self._seeds.sequences)
        effects = self._seeds.answered(lookup, answers, self._now())
        if self._seeds.sequences != before:
            try:
                self._folder.write(_FILE, json.dumps(self._seeds.sequences).encode())
            except OSError as error:
                log.warning("the sequences of seed lists cannot be kept: %s", error.strerror)
        self._done(effects)
