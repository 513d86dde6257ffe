"""What one simulation is told, and what it tells: plain values, so that they travel to other processes and into JSON."""

from __future__ import annotations

from hashlib import blake2b
from math import isqrt, sqrt
from statistics import fmean, median, stdev
from typing import Any, Literal

import msgspec

from obscura.errors import UserError
from obscura.node.stem import Coin, Routing
from obscura.sim.graphs import GRAPHS

Adversary = Literal["first-spy", "first-spy-told", "max-weight", "supernode", "black-hole", "coin-prober"]
ADVERSARIES: dict[str, str] = {
    "first-spy": "spies follow the protocol and blame whoever first sends them a transaction",
    "first-spy-told": "the same, and they are told who gave it to the node that diffuses: no real spy can do better",
    "max-weight": "spies know the graph of successors and match transactions to nodes by likelihood",
    "supernode": "spies dial every honest node and blame whoever first sends them a transaction",
    "black-hole": "spies swallow what comes to them in the stem phase and blame whoever diffuses it first",
    "coin-prober": "spies dial everyone, read coins with transactions of their own, and blame relaying nodes whose coin "
    "says diffuse",
}

# Of what is a number. The upper ends keep a run finite: it ends when every transaction has arrived.
_RANGES: dict[str, tuple[int, int]] = {
    "nodes": (3, 1_000_000),
    "runs": (1, 1_000_000),
    "seed": (0, 2**63),  # numpy's generators take none below 0
    "fluff": (0, 1),
    "latency_ms": (0, 60_000),  # a minute
    "latency_spread": (0, 3),  # one link of a thousand is 10,000 times as slow as the median
    "churn": (0, 3_600),  # a link per node and second
    "followed": (0, 1_000_000),
}
_MOST_BYTES_PER_S = 10**12  # more than any link has


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation: ``runs`` times a new graph, new spies, new paths, one transaction of each honest node.

    ``fluff`` and ``spies`` are shares in 0..1; ``latency_ms`` is one way, the median of a log-normal law with
    ``latency_spread`` as its sigma; ``churn`` is lost and replaced links per node and hour. ``followed`` transactions of
    each run go on until every honest node has them; the others end once the adversary has seen them.
    """

    nodes: int = 100
    graph: str = "out8"
    routing: str = Routing.ONE_TO_ONE.value
    coin: str = Coin.PER_EDGE.value
    fluff: float = 0.1
    spies: float = 0.1
    adversary: str = "first-spy"
    runs: int = 20
    seed: int = 1
    restem: bool = True
    latency_ms: float = 55.0
    latency_spread: float = 0.5
    bytes_per_s: float = 1_250_000.0
    churn: float = 0.0
    followed: int = 1
    transactions: int = 0  # of so many honest nodes; 0 = of all

    def check(self) -> None:
        """Raises ``UserError`` for what cannot be simulated."""
        choices = {
            "graph": list(GRAPHS),
            "routing": [routing.value for routing in Routing],
            "coin": [coin.value for coin in Coin],
            "adversary": list(ADVERSARIES),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r}: one of {', '.join(allowed)}")
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:  # not a number is in no range
                raise UserError(f"{name} {getattr(self, name):g}: from {least:,} to {most:,}")
        if not 0 <= self.spies < 1:
            raise UserError(f"spies {self.spies:g}: a share from 0 to below 1")
        if not 0 < self.bytes_per_s <= _MOST_BYTES_PER_S:
            raise UserError(f"bytes_per_s {self.bytes_per_s:g}: from above 0 to {_MOST_BYTES_PER_S:,}")
        if self.nodes - self.spy_count < 2:
            raise UserError("at least two honest nodes are needed")

    @property
    def spy_count(self) -> int:
        """Spies among the nodes, rounded down as in the published experiments."""
        return int(self.spies * self.nodes + 1e-9)

    @property
    def reach(self) -> int:
        """A scale of the network's width in hops, for time-outs."""
        return self.nodes if self.graph == "line" else isqrt(self.nodes) + 10


class Outcome(msgspec.Struct, frozen=True):
    """What one run showed. Shares are of all honest nodes' transactions."""

    precision: float
    recall: float
    hops: float  # mean stem hops until a spy or the diffusion
    latencies_s: tuple[float, ...]  # until half of the honest nodes have a followed transaction
    messages: int
    events: int
    trace: str
    origin_exposed: float  # diffused first by its origin
    swallowed: float  # came to a spy that swallows
    swallowed_exposed: float  # of those, diffused first by the origin
    claimed: float  # blamed with certainty by the coin prober
    claimed_right: float
    unseen: float  # no spy ever saw it


def combined(scenario: Scenario, outcomes: list[Outcome]) -> dict[str, Any]:
    """The figures of all runs, in their order, ready for JSON. Equal scenarios give equal texts."""
    trace = blake2b("".join(outcome.trace for outcome in outcomes).encode(), digest_size=32)
    latencies = [latency for outcome in outcomes for latency in outcome.latencies_s]
    told: dict[str, Any] = dict(msgspec.to_builtins(scenario))
    told.update(_mean("precision", outcomes))
    told.update(_mean("recall", outcomes))
    told["hops_mean"] = _rounded(fmean(outcome.hops for outcome in outcomes))
    told["latency_p50_s"] = _rounded(median(latencies)) if latencies else None
    told["messages"] = sum(outcome.messages for outcome in outcomes)
    told["events"] = sum(outcome.events for outcome in outcomes)
    told["unseen"] = _rounded(fmean(outcome.unseen for outcome in outcomes))
    told.update(_mean("origin_exposed", outcomes))
    if scenario.adversary == "black-hole":
        swallowed = fmean(outcome.swallowed for outcome in outcomes)
        told["swallowed"] = _rounded(swallowed)
        share = fmean(outcome.swallowed_exposed for outcome in outcomes) / swallowed if swallowed else 0.0
        told["swallowed_exposed"] = _rounded(share)
    if scenario.adversary == "coin-prober":
        claimed = fmean(outcome.claimed for outcome in outcomes)
        told["claimed"] = _rounded(claimed)
        told.update(_mean("claimed_right", outcomes))
    told["trace_hash"] = trace.hexdigest()
    return told


def _mean(name: str, outcomes: list[Outcome]) -> dict[str, float]:
    values = [getattr(outcome, name) for outcome in outcomes]
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return {name: _rounded(fmean(values)), f"{name}_se": _rounded(error)}


def _rounded(value: float) -> float:
    return round(value, 5)
