"""The stem alone as arrays of numpy: all transactions of a hundred thousand nodes take a hop at once.

It knows epochs that never end and no diffusion: first-spy without fluff, and ``first-spy-told``. The core is the
reference: a test compares both at a thousand nodes.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from obscura.errors import UserError
from obscura.node.stem import Coin, Routing
from obscura.sim.graphs import GRAPHS
from obscura.sim.scenario import Outcome, Scenario

Indices = NDArray[np.int64]
_BESIDE = (
    "restem",
    "latency_ms",
    "latency_spread",
    "bytes_per_s",
    "transactions",
)  # of a scenario; arrays have none of it
LOST_AFTER = 60  # mean stem lengths; what is still under way then runs in a circle without spies


def check(scenario: Scenario) -> None:
    """Raises ``UserError`` for what arrays cannot tell: where diffusion would decide, or nobody spies."""
    scenario.check()
    if not scenario.spy_count:
        raise UserError("--vector knows spies in the stem alone: give at least one, by --spies")
    knows = scenario.adversary == "first-spy-told" or (scenario.adversary == "first-spy" and not scenario.fluff)
    if not knows or scenario.churn or scenario.routing == Routing.DIFFUSION.value:
        raise UserError("--vector knows spies in the stem alone: --adversary first-spy-told, or --fluff 0; no churn")
    usual = Scenario()
    ignored = [name for name in _BESIDE if getattr(scenario, name) != getattr(usual, name)]
    ignored += ["followed"] if scenario.followed > usual.followed else []
    if ignored:  # else figures would seem to show that it makes no difference
        raise UserError(f"--vector knows no time and nothing after the stem: leave out what sets {', '.join(ignored)}")


def run_once(scenario: Scenario, number: int) -> Outcome:
    """One run: new graph, spies, map, coins; one transaction of each honest node."""
    rng = np.random.default_rng([scenario.seed, number])
    nodes, degree = scenario.nodes, GRAPHS[scenario.graph].successors
    target = _targets(scenario, degree, rng)  # edge node * degree + slot -> node
    spy = np.zeros(nodes, dtype=bool)
    spy[rng.choice(nodes, scenario.spy_count, replace=False)] = True
    own = rng.integers(degree, size=nodes)
    slot = _slots(scenario, target, own, degree, rng)
    per_node = rng.random(nodes) < scenario.fluff
    per_edge = rng.random(len(target)) < scenario.fluff
    coin = per_node[target] if scenario.coin == Coin.PER_NODE.value else per_edge

    origin = np.flatnonzero(~spy)
    edge = origin * degree + own[origin]
    exits = np.full(nodes, -1)
    hops = np.zeros(nodes, dtype=np.int64)
    walking = origin
    mean_length = 1 / (scenario.spies + scenario.fluff - scenario.spies * scenario.fluff)
    for _ in range(int(LOST_AFTER * mean_length)):
        hops[walking] += 1
        over = spy[target[edge]] | coin[edge]
        exits[walking[over]] = edge[over] // degree
        walking, edge = walking[~over], edge[~over]
        if not len(walking):
            break
        ahead = rng.integers(degree, size=len(edge)) if scenario.routing == Routing.PER_TX.value else slot[edge]
        edge = target[edge] * degree + ahead
    if scenario.routing != Routing.PER_TX.value:
        for node in walking:
            exits[node], hops[node] = _circle(int(node * degree + own[node]), target, slot, degree)
    hits = origin[exits[origin] == origin]
    wards = np.bincount(exits[origin][exits[origin] >= 0], minlength=nodes)
    return Outcome(
        precision=float(np.sum(1 / wards[hits])) / len(origin),
        recall=len(hits) / len(origin),
        hops=float(hops[origin].mean()),
        latencies_s=(),
        messages=int(hops.sum()),
        events=int(hops.sum()),
        trace=blake2b(exits.tobytes() + hops.tobytes(), digest_size=32).hexdigest(),
        origin_exposed=0.0,
        swallowed=0.0,
        swallowed_exposed=0.0,
        claimed=0.0,
        claimed_right=0.0,
        unseen=float(np.mean(exits[origin] < 0)),
    )


def _circle(edge: int, target: Indices, slot: Indices, degree: int) -> tuple[int, int]:
    """Who gave it to the node that sees it twice from the same peer and diffuses it, and after how many hops."""
    passed: set[int] = set()
    while edge not in passed:
        passed.add(edge)
        edge = int(target[edge] * degree + slot[edge])
    return edge // degree, len(passed) + 1


def _targets(scenario: Scenario, degree: int, rng: np.random.Generator) -> Indices:
    nodes = scenario.nodes
    if scenario.graph in ("quasi4", "out8"):  # two of eight at random are two at random
        drawn = rng.integers(nodes - 1, size=(nodes, degree))
        again = drawn[:, 0] == drawn[:, 1]
        drawn[again, 1] = (drawn[again, 0] + rng.integers(1, nodes - 1, size=int(again.sum()))) % (nodes - 1)
        return (drawn + (drawn >= np.arange(nodes)[:, None])).reshape(-1)
    targets = np.empty((nodes, degree), dtype=np.int64)
    for slot in range(degree):
        order = rng.permutation(nodes)
        targets[order, slot] = np.roll(order, -1)
    return targets.reshape(-1)


def _slots(scenario: Scenario, target: Indices, own: Indices, degree: int, rng: np.random.Generator) -> Indices:
    """The slot of the node behind an inbound edge, by edge."""
    routing = Routing(scenario.routing)
    if routing is Routing.ALL_TO_ONE:
        return own[target]
    if routing is not Routing.ONE_TO_ONE:
        return rng.integers(degree, size=len(target))
    order = np.lexsort((rng.random(len(target)), target))  # edges by the node that they reach, else by chance
    reached = target[order]
    first = np.searchsorted(reached, np.arange(scenario.nodes))
    rank = np.arange(len(target)) - first[reached]
    deal = rng.permuted(np.tile(np.arange(degree), (len(target), 1)), axis=1)  # one shuffled hand per group of edges
    slots = np.empty(len(target), dtype=np.int64)
    slots[order] = deal[first[reached] + rank // degree, rank % degree]
    return slots
