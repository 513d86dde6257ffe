"""Carries out the lookups that the pure node wants, and keeps over a restart which lists of seeds it has seen."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from obscura.daemon.config import Config
from obscura.daemon.datadir import DataDir
from obscura.ledger.network import Network
from obscura.ledger.networks import load_network
from obscura.node.effects import Effect, Lookup
from obscura.node.face import Face
from obscura.node.resolvers import Answer, Provider
from obscura.node.seeds import Seeds, SeedSource
from obscura.wire.address import Address

if TYPE_CHECKING:
    from obscura.transport.through import OpenSocket

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


def keep_sequences(folder: DataDir, sequences: Mapping[str, int]) -> None:
    """Write what ``read_sequences`` reads; a disk that cannot take it is a warning."""
    try:
        folder.write(_FILE, json.dumps(sequences).encode())
    except OSError as error:
        log.warning("the sequences of seed lists cannot be kept: %s", error.strerror)


def seed_source(network: Network) -> SeedSource:
    """What a network says of its seeds."""
    built_in = tuple(Address.parse(text) for text in network.seeds)
    return SeedSource(network.id, network.port, network.seed_names, network.seed_key, built_in)


class _NoBook:
    """A book that knows nobody and keeps nothing."""

    def usable(self, now: float) -> int:
        return 0

    def add_seeds(
        self, addresses: Sequence[Address], *, signed: bool, face: Face, now: float, is_built_in: bool = False
    ) -> None:
        pass


def without_node(config: Config) -> Seeds:
    """The discovery that a node with this configuration would do."""
    network = load_network(config.network)
    folder = DataDir(config.data_dir, network.name)
    return Seeds(
        config.seeds,
        seed_source(network),
        _NoBook(),
        random.SystemRandom(),
        lambda: int(time.time()),
        0.0,
        allow_loopback=network.name == "dev",
        sequences=read_sequences(folder),
    )


class Discovery:
    """One per ``Seeds``. ``carry_out`` gets the effects; ``now`` is the clock of the seeds' ``due``.

    ``keep`` is told when a newer list was seen. ``proxy`` opens sockets; None = directly.
    """

    def __init__(
        self,
        seeds: Seeds,
        rng: random.Random,
        now: Callable[[], float],
        carry_out: Callable[[Iterable[Effect]], None],
        keep: Callable[[Mapping[str, int]], None] = lambda sequences: None,
        proxy: OpenSocket | None = None,
    ) -> None:
        self._seeds = seeds
        self._rng = rng
        self._now = now
        self._carry_out = carry_out
        self._keep = keep
        self._proxy = proxy
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self, lookup: Lookup) -> None:
        """Begin a lookup; what comes of it goes to the seeds."""
        self._idle.clear()
        task = asyncio.get_running_loop().create_task(self._look_up(lookup, self._seeds.providers[lookup.provider]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self) -> None:
        """One round now, or the end of the one under way."""
        self._carry_out(self._seeds.ask(self._now()))
        if self._seeds.is_asking:
            self._idle.clear()
            await self._idle.wait()

    def show(self) -> dict[str, Any]:
        """What would be asked and what came back, ready for JSON."""
        return self._seeds.show(self._now())

    async def end(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._idle.set()  # nobody answers any more whoever waits in ``ask``

    async def _look_up(self, lookup: Lookup, provider: Provider) -> None:
        try:
            doh = import_module("obscura.transport.doh")  # 15 MB and 150 ms that most nodes never need
            proxy = self._proxy or doh.open_tcp
            answers = await doh.ask(provider, lookup.name, lookup.kinds, self._rng, proxy=proxy)
        except Exception as error:  # a defect of ours: others are asked, rather than waiting for what never comes
            log.error("fault in a lookup of seeds: %s", type(error).__name__)
            answers = tuple(Answer(kind, fault=f"it cannot be asked: {type(error).__name__}") for kind in lookup.kinds)
        before = dict(self._seeds.sequences)
        try:
            effects = self._seeds.answered(lookup, answers, self._now())
        except Exception as error:
            log.error("fault in an answer about seeds: %s", type(error).__name__)
            self._idle.set()  # the round may never come to its end
            return
        if self._seeds.sequences != before:
            self._keep(self._seeds.sequences)
        if not self._seeds.is_asking:
            self._idle.set()
        self._carry_out(effects)


async def ask_once(
    seeds: Seeds, rng: random.Random, proxy: OpenSocket | None = None, now: Callable[[], float] | None = None
) -> None:
    """One round without a node. ``now`` None = the loop's clock."""

    def carry_out(effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Lookup):
                discovery.start(effect)

    discovery = Discovery(seeds, rng, now or asyncio.get_running_loop().time, carry_out, proxy=proxy)
    await discovery.ask()
