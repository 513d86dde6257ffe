"""Embargo (specification, *Stem phase: Timeout mechanism*; design 9): after what time a node diffuses what it relayed.

Each of the K nodes that a stem visits draws an exponential time of mean T. The times must be exponential: whoever fires
first is then any of them alike, while nearly equal times (uniform, Poisson counts) let the first node of the stem, the
origin, fire first. T is the least mean for which the whole stem is travelled and its diffusion comes back before any of
the K fires, with probability 1 - e.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, inf, log

from obscura.limits import DIFFUSION_RETURN_S, EMBARGO_MISS, STEM_HOP_S

_TAIL = 1e-12  # part of the geometric sum that is left out
LEAST_Q = 0.005  # below it the embargo stays that of it: a stem of 200 hops on average, and half a day


def undisturbed(mean_s: float, q: float, hop_s: float, return_s: float) -> float:
    """Probability that no embargo of a stem fires early. ``q`` in (0, 1]; K is geometric from 1.

    The nodes of a stem of length k wait k(k-1)/2 hops in all until it is travelled, and each one ``return_s`` for the diffusion.
    """
    total, weight, k = 0.0, q, 1
    while weight > _TAIL * q:
        total += weight * exp(-(k * (k - 1) * hop_s / 2 + k * return_s) / mean_s)
        weight *= 1 - q
        k += 1
    return total


@lru_cache(maxsize=1024)
def embargo_mean(q: float, hop_s: float, return_s: float = DIFFUSION_RETURN_S, miss: float = EMBARGO_MISS) -> float:
    """Mean embargo T in seconds by bisection; ``inf`` for ``q`` = 0, where a stem has no expected end."""
    if q <= 0:
        return inf
    q = max(q, LEAST_Q)
    low, high = 0.0, 1.0
    while undisturbed(high, q, hop_s, return_s) < 1 - miss:
        low, high = high, high * 2
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if undisturbed(middle, q, hop_s, return_s) < 1 - miss:
            low = middle
        else:
            high = middle
    return high


def closed_form(q: float, hop_s: float, miss: float = EMBARGO_MISS) -> float:
    """The often quoted k(k-1)d / (-2 ln(1-e)), k = 1/q: too short, as it takes E[K]^2 for E[K^2], forgets the way back."""
    k = 1 / q
    return k * (k - 1) * hop_s / (-2 * log(1 - miss))


def clamped_hop(measured_s: float | None) -> float:
    """A measured hop time within what is believed, in steps of 50 ms. Security: a peer can delay its pongs."""
    low, high = STEM_HOP_S
    hop = low if measured_s is None else min(max(measured_s, low), high)
    return round(hop * 20) / 20
