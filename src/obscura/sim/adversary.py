"""What an adversary makes of what its spies saw: exits, wards, and the matching of a graph that it knows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

Id = bytes


def ward_precision(origins: Mapping[Id, int], exits: Mapping[Id, int]) -> tuple[float, float]:
    """Precision and recall over all origins, one transaction each.

    The ward of an exit are all transactions that are blamed on it. Precision is the mean over honest nodes of 1/|ward|
    where the node's own transaction is blamed on it, recall the share of such nodes.
    """
    wards = Counter(exits.values())
    hits = [origin for id, origin in origins.items() if exits.get(id) == origin]
    return sum(1 / wards[origin] for origin in hits) / len(origins), len(hits) / len(origins)


def matched(
    origins: Mapping[Id, int],
    exits: Mapping[Id, int],
    successors: Mapping[int, Iterable[int]],
    spies: set[int],
    rng: random.Random,
) -> dict[Id, int]:
    """Whom max-weight matching blames: one transaction per node, the sum of likelihoods largest, ties by chance.

    ``successors`` of the honest nodes are known. The likelihood of node v for a transaction that came out of u is the expected
    number of visits of u by a walk from v that ends at the first spy.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    honest = sorted(set(origins.values()))
    row = {node: index for index, node in enumerate(honest)}
    step = np.zeros((len(honest), len(honest)))
    for node in honest:
        ahead = list(successors[node])
        for successor in ahead:
            if successor not in spies:
                step[row[node], row[successor]] += 1 / len(ahead)
    # A loop without spies would make the matrix singular; a walk that is lost at once in 10^9 steps changes nothing else.
    visits = np.linalg.inv(np.eye(len(honest)) - step * (1 - 1e-9))
    ids = list(exits)
    rng.shuffle(ids)
    nodes = list(honest)
    rng.shuffle(nodes)
    seen = [id for id in ids if exits[id] in row]
    if not seen:
        return {}
    weight = visits[np.ix_([row[node] for node in nodes], [row[exits[id]] for id in seen])]
    chosen_nodes, chosen_ids = linear_sum_assignment(np.minimum(weight, 1e6), maximize=True)
    return {seen[j]: nodes[i] for i, j in zip(chosen_nodes, chosen_ids, strict=True)}
