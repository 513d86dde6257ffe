"""Metrics as Prometheus reads them: its text format 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/. Label values come from closed sets of this program
(types, networks, carriers), never from a peer; they are escaped all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from obscura.limits import DURATION_BOUNDS_S
from obscura.node.durations import Durations

KIND = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
Samples = Sequence[tuple[Labels, float | Durations]]


class Family(NamedTuple):
    """One metric with its help and its samples: labels and a value."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Samples


def exposed(families: Sequence[Family]) -> bytes:
    """The text of all of them."""
    lines: list[str] = []
    for family in families:
        lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            if isinstance(value, Durations):
                lines += _histogram(family.name, labels, value)
            else:
                lines.append(_sample(family.name, labels, value))
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, labels: Labels, durations: Durations) -> list[str]:
    lines, below = [], 0
    bounds = (*map(str, DURATION_BOUNDS_S), "+Inf")
    for bound, count in zip(bounds, durations.counts, strict=True):
        below += count
        lines.append(_sample(f"{name}_bucket", {**labels, "le": bound}, below))
    return [
        *lines,
        _sample(f"{name}_sum", labels, round(durations.sum_s, 1)),
        _sample(f"{name}_count", labels, below),
    ]


def _sample(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
