"""The published figures, each with the flags that make ours: what `make tables` prints side by side.

Theirs come from the simulator of the paper's authors (100 nodes, 20 graphs x 10 paths, standard error up to 0.01, for
max-weight 0.024). Theirs with q > 0 tell the adversary who gave a transaction to the node that diffuses it, as
``first-spy-told`` does here: that is to be equal, and first-spy at or below.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import log, sqrt
from typing import Any

from obscura.sim.scenario import Scenario

SPIES = (0.05, 0.1, 0.2, 0.3, 0.5)
THEIR_SE = 0.01
THEIR_MATCHING_SE = 0.024
SIGMAS = 3


class Claim(Enum):
    """How ours is to stand to theirs."""

    EQUAL = "="
    AT_MOST = "<="


@dataclass(frozen=True)
class Row:
    """One row: its name, the flags of `obscura simulate` but ``--spies``, their precision by share of spies."""

    name: str
    flags: str
    theirs: tuple[float, ...]
    claim: Claim = Claim.EQUAL

    def scenarios(self, runs: int, seed: int) -> list[Scenario]:
        """One for each share of spies."""
        words = shlex.split(self.flags)
        given: dict[str, Any] = {"fluff": 0.0}
        given |= {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        given["fluff"] = float(given["fluff"])
        return [Scenario(spies=p, runs=runs, seed=seed, followed=0, **given) for p in SPIES]

    def allowance(self, their: float, our_se: float) -> float:
        """How far ours may be from theirs by chance alone."""
        their_se = THEIR_MATCHING_SE if "max-weight" in self.flags else THEIR_SE
        return SIGMAS * sqrt(our_se**2 + their_se**2)

    def holds(self, index: int, ours: float, our_se: float) -> bool:
        """Whether one figure is as claimed."""
        their, allowance = self.theirs[index], self.allowance(self.theirs[index], our_se)
        return ours <= their + allowance and (self.claim is Claim.AT_MOST or ours >= their - allowance)


def line_precision(p: float) -> float:
    """First-spy on an exact line, q = 0: p^2 ln(1/p) / (1-p)."""
    return p * p * log(1 / p) / (1 - p)


def stem_hops(p: float, q: float) -> float:
    """Mean hops until a spy or the diffusion: 1 / (p + q - pq)."""
    return 1 / (p + q - p * q)


def told_recall(p: float, q: float) -> float:
    """Recall of first-spy-told: 1 - (1-p)(1-q)."""
    return 1 - (1 - p) * (1 - q)


def _fluff_rows(name: str, flags: str, by_q: dict[float, tuple[float, ...]]) -> list[Row]:
    rows = []
    for q, theirs in by_q.items():
        rows.append(Row(f"{name}, q={q:g}, told", f"{flags} --fluff {q:g} --adversary first-spy-told", theirs))
        rows.append(Row(f"{name}, q={q:g}", f"{flags} --fluff {q:g}", theirs, Claim.AT_MOST))
    return rows


_FIRST_SPY = [
    Row("closed form line", "--graph line", tuple(line_precision(p) for p in SPIES)),
    Row("Fig 3 2-regular (line)", "--graph line", (0.007, 0.021, 0.089, 0.153, 0.344)),
    Row("Fig 3 4-regular per-tx", "--graph regular4 --routing per-tx", (0.006, 0.026, 0.087, 0.176, 0.371)),
    Row("Fig 3 6-regular per-tx", "--graph regular6 --routing per-tx", (0.010, 0.031, 0.100, 0.179, 0.375)),
    Row("Fig 6 4-regular one-to-one", "--graph regular4", (0.010, 0.036, 0.104, 0.177, 0.370)),
    Row("Fig 6 4-regular per-edge", "--graph regular4 --routing per-edge", (0.017, 0.043, 0.113, 0.186, 0.363)),
    Row("Fig 6 4-regular all-to-one", "--graph regular4 --routing all-to-one", (0.021, 0.050, 0.107, 0.183, 0.380)),
    Row("Fig 6 4-regular per-tx", "--graph regular4 --routing per-tx", (0.007, 0.027, 0.091, 0.186, 0.386)),
    Row("Fig 7 quasi-4 per-tx", "--graph quasi4 --routing per-tx", (0.019, 0.042, 0.109, 0.187, 0.384)),
    Row("quasi-4 of 8-out per-tx", "--graph out8 --routing per-tx", (0.023, 0.051, 0.124, 0.206, 0.403)),
    Row("quasi-4 of 8-out one-to-one", "--graph out8", (0.026, 0.060, 0.119, 0.200, 0.414)),
    Row(
        "the same, spies dial everyone",
        "--graph out8 --routing per-tx --adversary supernode",
        (0.021, 0.037, 0.101, 0.188, 0.380),
    ),
]
_DIFFUSION = [
    Row("Fig 6 diffusion", "--graph regular4 --routing diffusion", (0.028, 0.094, 0.240, 0.369, 0.572)),
]
_MATCHING = [
    Row("Fig 3 2-regular max-weight", "--graph line --adversary max-weight", (0.039, 0.111, 0.189, 0.289, 0.520)),
    Row(
        "Fig 3 4-regular max-weight",
        "--graph regular4 --routing per-tx --adversary max-weight",
        (0.023, 0.061, 0.162, 0.247, 0.455),
    ),
    Row(
        "Fig 3 6-regular max-weight",
        "--graph regular6 --routing per-tx --adversary max-weight",
        (0.030, 0.055, 0.129, 0.224, 0.466),
    ),
]
_FLUFF = [
    *_fluff_rows(
        "quasi-4 per-tx",
        "--graph out8 --routing per-tx",
        {
            0.1: (0.100, 0.132, 0.199, 0.276, 0.454),
            0.2: (0.173, 0.206, 0.265, 0.338, 0.499),
            0.25: (0.209, 0.239, 0.296, 0.369, 0.531),
            0.5: (0.418, 0.443, 0.492, 0.549, 0.663),
        },
    ),
    *_fluff_rows(
        "quasi-4 one-to-one",
        "--graph out8",
        {
            0.1: (0.103, 0.127, 0.195, 0.270, 0.441),
            0.2: (0.173, 0.208, 0.265, 0.335, 0.480),
            0.25: (0.217, 0.244, 0.314, 0.356, 0.534),
            0.5: (0.419, 0.449, 0.500, 0.547, 0.657),
        },
    ),
    *(
        Row(
            f"spies dial everyone, q={q:g}",
            f"--graph out8 --routing per-tx --fluff {q:g} --adversary supernode",
            theirs,
            Claim.AT_MOST,
        )
        for q, theirs in {
            0.1: (0.101, 0.126, 0.201, 0.267, 0.441),
            0.2: (0.171, 0.194, 0.270, 0.322, 0.493),
            0.25: (0.209, 0.234, 0.292, 0.367, 0.526),
            0.5: (0.426, 0.448, 0.493, 0.551, 0.665),
        }.items()
    ),
]
ROWS: tuple[Row, ...] = (*_FIRST_SPY, *_DIFFUSION, *_MATCHING, *_FLUFF)

EXPOSURES: tuple[tuple[str, str], ...] = (
    ("black hole, re-stem", "--graph out8 --adversary black-hole"),
    ("black hole, embargo alone", "--graph out8 --adversary black-hole --no-restem"),
    ("coin prober, coin per edge", "--graph out8 --adversary coin-prober --coin per-edge"),
    ("coin prober, coin per node", "--graph out8 --adversary coin-prober --coin per-node"),
)


def exposure_scenario(flags: str, runs: int, seed: int) -> Scenario:
    """A row of ``EXPOSURES`` at 10 % spies and q = 0.2."""
    words = [word for word in shlex.split(flags) if word != "--no-restem"]
    given: dict[str, Any] = {
        name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)
    }
    return Scenario(fluff=0.2, spies=0.1, runs=runs, seed=seed, followed=0, restem="--no-restem" not in flags, **given)


def broken_exposures(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the figures of ``EXPOSURES``, by their names, do not bear out of what is said of them."""
    with_it, alone, per_edge, per_node = (found[name] for name, _ in EXPOSURES)
    right = [one["claimed_right"] / one["claimed"] if one["claimed"] else 0.0 for one in (per_edge, per_node)]
    error = sqrt(with_it["origin_exposed_se"] ** 2 + alone["origin_exposed_se"] ** 2)
    claims = {
        "spies swallow nothing": min(with_it["swallowed"], alone["swallowed"]) > 0,
        "a re-stem hides no more origins from a black hole": (
            with_it["origin_exposed"] + SIGMAS * error < alone["origin_exposed"]
        ),
        "a prober blames nobody by a coin per node": per_node["claimed"] > 0,
        "a coin per edge tells a prober as much as one per node": right[0] < right[1] / 2,
    }
    return [text for text, is_kept in claims.items() if not is_kept]
