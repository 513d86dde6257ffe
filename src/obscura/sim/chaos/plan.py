"""What goes wrong in one seed's network, drawn before anything happens: values only."""

from __future__ import annotations

import random
from typing import Literal, get_args

import msgspec

from obscura.limits import ROTATION_HOURS

FAULTS_S = 900.0  # seconds in which things go wrong
SHORTEST_S, LONGEST_S = 5.0, 150.0  # a fault that lasts
MOST_DELAY_S = 6.0
MOST_CLOCK_ERROR_S = 6_000.0  # below the two hours by which a block may be ahead
MOST_DOWN_S = 90.0

MOST_APART_S = (3_700.0, MOST_CLOCK_ERROR_S)  # one clock ahead and one behind by so much: over the two hours together

Kind = Literal[
    "crash",
    "disk",
    "partition",
    "delay",
    "cut",
    "flips",
    "clock",
    "clocks",
    "block",
    "blocks",
    "transaction",
    "fork",
    "back",
    "move",
]
WORST: tuple[Kind, ...] = ("block", "blocks", "transaction", "fork")  # just after them a crash is worst
WEIGHTS: dict[Kind, int] = {  # of those that every seed may have
    "block": 10,
    "blocks": 2,
    "transaction": 6,
    "crash": 3,
    "disk": 2,
    "partition": 2,
    "delay": 3,
    "cut": 3,
    "flips": 2,
    "clock": 2,
    "clocks": 2,
    "fork": 2,
    "back": 1,
}


class Fault(msgspec.Struct, frozen=True):
    """Something that happens at ``at`` seconds to ``node`` (a number) or to all; some last ``for_s``.

    ``amount``: seconds of delay or clock error, share of nodes on one side (of a fork: the losing one), blocks, writes until
    a disk fails, or seconds after which a connection of a node that moves breaks (0 = none).
    """

    at: float
    kind: Kind
    node: int
    for_s: float = 0.0
    amount: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """One seed's network and all that happens to it. Nodes from ``honest`` on are hostile."""

    seed: int
    honest: int
    hostile: int
    level: str
    write_s: float
    faults: tuple[Fault, ...]
    rotation_h: tuple[float, float] = ROTATION_HOURS  # between two moves of a link

    @property
    def nodes(self) -> int:
        """All of them."""
        return self.honest + self.hostile

    @property
    def moves(self) -> bool:
        """Whether links move all the time."""
        return self.rotation_h != ROTATION_HOURS

    def describe(self) -> str:
        """One line for people."""
        kinds = [fault.kind for fault in self.faults]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in get_args(Kind) if kind in kinds)
        return f"{self.honest} honest and {self.hostile} hostile nodes at {self.level}: {counts}"


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"obscura chaos {seed}")
    honest, hostile = rng.randint(4, 8), rng.choice((0, 1, 1, 2))
    count = rng.randint(20, 40)
    kinds = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    drawn = [_fault(rng, kind, honest) for kind in kinds]
    drawn += [_crash_after(rng, fault) for fault in drawn if fault.kind in WORST and rng.random() < 0.2]
    rotation_h, moves = _rotation(random.Random(f"obscura chaos moves {seed}"), honest)
    faults = sorted(drawn + moves, key=lambda fault: fault.at)
    level = rng.choice(("standard", "standard", "standard", "medium"))
    return Plan(seed, honest, hostile, level, rng.choice((0.0, 0.01, 0.5, 3.0)), tuple(faults), rotation_h)


def _rotation(rng: random.Random, honest: int) -> tuple[tuple[float, float], list[Fault]]:
    """In half of the seeds links move all the time, and several times all links of a node at once."""
    if rng.random() < 0.5:
        return ROTATION_HOURS, []
    moves = [
        Fault(rng.uniform(30.0, FAULTS_S), "move", rng.randrange(honest), 0.0, rng.choice((0.0, rng.expovariate(2.0))))
        for _ in range(rng.randint(3, 10))
    ]
    return (0.01, rng.choice((0.03, 0.1, 0.5))), moves


def _crash_after(rng: random.Random, fault: Fault) -> Fault:
    """The worst moment: what was just begun, or a fork just ended, is not on the disk, or just is."""
    return Fault(fault.at + fault.for_s + rng.expovariate(0.5), "crash", fault.node, rng.uniform(1.0, MOST_DOWN_S))


def _fault(rng: random.Random, kind: Kind, honest: int) -> Fault:
    at, node = rng.uniform(30.0, FAULTS_S), rng.randrange(honest)
    for_s = min(rng.uniform(SHORTEST_S, LONGEST_S), FAULTS_S - at)
    match kind:
        case "crash":
            return Fault(at, kind, node, min(rng.uniform(1.0, MOST_DOWN_S), FAULTS_S - at))
        case "disk":
            return Fault(at, kind, node, rng.uniform(1.0, MOST_DOWN_S), rng.randrange(4))
        case "partition":
            return Fault(at, kind, node, for_s, rng.uniform(0.2, 0.8))
        case "delay":
            return Fault(at, kind, node, for_s, rng.uniform(0.2, MOST_DELAY_S))
        case "flips":
            return Fault(at, kind, node, for_s, rng.uniform(0.01, 0.2))
        case "clock":
            return Fault(at, kind, node, for_s, rng.uniform(-MOST_CLOCK_ERROR_S, MOST_CLOCK_ERROR_S))
        case "clocks":
            return Fault(at, kind, node, for_s, rng.uniform(*MOST_APART_S))
        case "fork":
            return Fault(at, kind, node, for_s, rng.uniform(0.0, 0.6))
        case "blocks":
            return Fault(at, kind, node, 0.0, rng.randint(2, 6))
        case "block":
            return Fault(at, kind, node, 0.0, 1)
        case _:
            return Fault(at, kind, node)
