"""Who dials whom: the graphs of the published experiments, as lists of (dialler, listener)."""

from __future__ import annotations

import random
from collections.abc import Callable

Edges = list[tuple[int, int]]


def hamiltonian_cycle(nodes: int, rng: random.Random) -> Edges:
    """One directed cycle through all nodes in random order."""
    order = list(range(nodes))
    rng.shuffle(order)
    return list(zip(order, order[1:] + order[:1], strict=True))


def _cycles(count: int) -> Callable[[int, random.Random], Edges]:
    def graph(nodes: int, rng: random.Random) -> Edges:
        edges: dict[tuple[int, int], None] = {}
        for _ in range(count):
            edges.update(dict.fromkeys(hamiltonian_cycle(nodes, rng)))
        return list(edges)

    return graph


def _outbound(count: int) -> Callable[[int, random.Random], Edges]:
    def graph(nodes: int, rng: random.Random) -> Edges:
        return [
            (node, other if other < node else other + 1)
            for node in range(nodes)
            for other in rng.sample(range(nodes - 1), min(count, nodes - 1))
        ]

    return graph


class Graph:
    """A family of graphs: how to draw one, and how many of its outbound links are successors."""

    def __init__(self, draw: Callable[[int, random.Random], Edges], successors: int, meaning: str) -> None:
        self.draw = draw
        self.successors = successors
        self.meaning = meaning


GRAPHS: dict[str, Graph] = {
    "line": Graph(_cycles(1), 1, "one random cycle: every node dials one and is dialled by one"),
    "regular4": Graph(_cycles(2), 2, "two random cycles: every node dials two and is dialled by two"),
    "regular6": Graph(_cycles(3), 3, "three random cycles, three successors"),
    "quasi4": Graph(_outbound(2), 2, "every node dials two at random, both are its successors"),
    "out8": Graph(_outbound(8), 2, "every node dials eight at random and draws two successors among them"),
}


def supernode(edges: Edges, spies: set[int], nodes: int) -> Edges:
    """The same graph, but every spy dials every honest node instead of what it dialled."""
    honest = [node for node in range(nodes) if node not in spies]
    kept = [(dialler, listener) for dialler, listener in edges if dialler not in spies]
    return kept + [(spy, node) for spy in sorted(spies) for node in honest]
