"""What the parameters of the stem phase mean together, for `obscura dandelion explain`."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

from obscura.limits import (
    DIFFUSION_RETURN_S,
    EMBARGO_MISS,
    STEM_EPOCH_EXTRA_S,
    STEM_EPOCH_S,
    STEM_HOP_S,
    STEM_SUCCESSORS,
    TX_INBOUND_MEAN_S,
    TX_OUTBOUND_MEAN_S,
)
from obscura.node.embargo import LEAST_Q, clamped_hop, closed_form, embargo_mean
from obscura.shaping.levels import Knobs

SPIES = (0.05, 0.1, 0.2, 0.3)
FLUFFS = (0.05, 0.1, 0.2, 0.3)

NOTES = (
    "The often quoted closed form k(k-1)d/(-2 ln(1-e)) with k = 1/q is too short: stems are not all of their mean length,"
    " and the diffusion has to come back before an embargo ends.",
    "A lower q makes stems longer and hides origins better, and where a stem is swallowed it costs minutes: the embargo"
    " grows faster than 1/q, and a re-stem waits for it twice.",
)
SHORT_EMBARGO = (
    f"Below q = {LEAST_Q:g} the embargo stays that of {LEAST_Q:g}, or it would last for days: it ends before the stem does, and"
    " somebody on the way diffuses."
)


def first_spy_line(p: float) -> float:
    """Precision of first-spy on an exact line without fluff: p^2 ln(1/p) / (1-p)."""
    return p * p * log(1 / p) / (1 - p)


def explanation(
    knobs: Knobs, sources: Mapping[str, str], q: float | None = None, hop_s: float | None = None
) -> dict[str, Any]:
    """Parameters with their origin, what is to be expected of them, and the same for other q. Times in seconds.

    ``sources``: where each knob's value comes from, by its name in the configuration. ``q`` and ``hop_s`` are tried instead.
    """
    fluff = knobs.fluff_probability if q is None else q
    hop = clamped_hop(knobs.mean_hold_s) if hop_s is None else hop_s
    origin_q = sources["fluff-probability"] if q is None else "--fluff"
    least, most = STEM_HOP_S
    held = f"own shaping holds {knobs.mean_hold_s * 1_000:.0f} ms; a node adds half its pings, {least:g}-{most:g} s are believed"
    origin_hop = held if hop_s is None else "--hop-s"
    rows = (
        ("fluff probability q", fluff, origin_q),
        ("successors per epoch", STEM_SUCCESSORS, "Dandelion++ paper, quasi-4-regular graph"),
        ("routing", "one-to-one per inbound edge", "Dandelion++ paper; fixed in a node"),
        ("coin", "per inbound edge and epoch", "design; a coin per node can be read by probing"),
        ("epoch", f"{STEM_EPOCH_S:g} + U(0, {STEM_EPOCH_EXTRA_S:g}) s", "Dandelion++ paper, Monero"),
        ("time of a hop d", f"{hop:g} s", origin_hop),
        ("return of the diffusion r", f"{DIFFUSION_RETURN_S:g} s", "measured in the simulator"),
        ("early end of some embargo e", EMBARGO_MISS, "Dandelion++ paper, proposition 3"),
        ("embargo", "exponential, at its end once to the other successor, then diffused", "design"),
        (
            "own transactions' first hop",
            "over Tor or I2P if there is one" if knobs.anonymous_first_hop else "any successor",
            sources["anonymous-first-hop"],
        ),
        (
            "own transactions leave",
            "in the next epoch" if knobs.waits_for_epoch else "at once",
            sources["waits-for-epoch"],
        ),
        ("announcement timers", f"{TX_OUTBOUND_MEAN_S:g} s outbound, {TX_INBOUND_MEAN_S:g} s inbound", "Bitcoin Core"),
    )
    return {
        "parameters": [{"parameter": name, "value": value, "origin": origin} for name, value, origin in rows],
        "expected": _expected(fluff, hop),
        "changing_q": [{"q": other, **_expected(other, hop)} for other in FLUFFS],
        "exposure": [
            {
                "spies": p,
                "precision_q0_line": round(first_spy_line(p), 4),
                "lower_bound": round(p * p, 4),
                "recall_at_most": round(1 - (1 - p) * (1 - fluff), 4),
            }
            for p in SPIES
        ],
        "notes": [*NOTES, *([SHORT_EMBARGO] if fluff < LEAST_Q else [])],
    }


def _expected(q: float, hop: float) -> dict[str, float]:
    hops = 1 / q
    return {
        "stem_hops": round(hops, 2),
        "stem_latency_s": round(hops * hop, 2),
        "embargo_mean_s": round(embargo_mean(q, hop), 1),
        "embargo_closed_form_s": round(closed_form(q, hop), 1),
        "swallowed_costs_s": round(2 * embargo_mean(q, hop) / hops, 1),
        "recall_more_than_q0": round(q, 3),
    }
