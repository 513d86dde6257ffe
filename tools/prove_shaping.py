"""The whole of what docs/shaping.md says was measured, against its targets; takes many minutes on one core.

python tools/prove_shaping.py [--mix FILE] [--windows 500] [--messages 40000]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from amounts import whole
from obscura.lab.classify import QUESTIONS, classify
from obscura.lab.leakage import SCHEMES, measure
from obscura.lab.mix import DEFAULT_MIX, load_mix

BY_NAME = {scheme.name: scheme for scheme in SCHEMES}
CLASSIFIED = ("none", "standard", "medium", "high", "high-constant")
faults: list[str] = []


def expect(what: str, value: float, low: float, high: float) -> None:
    """One target, one line."""
    reached = low <= value <= high
    print(json.dumps({"what": what, "value": round(value, 4), "from": low, "to": high, "reached": reached}), flush=True)
    if not reached:
        faults.append(what)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mix", type=Path)
    parser.add_argument("--windows", type=whole(), default=500)
    parser.add_argument("--messages", type=whole(), default=40_000)
    given = parser.parse_args()
    mix = load_mix(given.mix) if given.mix else DEFAULT_MIX
    none = measure(BY_NAME["none"], mix, 1, messages=given.messages)
    expect("none: bits of type (control)", none.mi_type_bits.value, 1.90, 2.00)
    cells = measure(BY_NAME["cells"], mix, 1, messages=given.messages)
    busy = measure(BY_NAME["cells"], mix, 1, messages=given.messages, rate_per_s=10 * mix.rate_per_s)
    expect("cells: bits of type", cells.mi_type_bits.value, 0.0, 0.22)
    expect("cells: type guessed above prior", cells.type_accuracy.value - cells.prior.value, -1.0, 0.04)
    expect("cells: overhead", cells.overhead.value, 0.0, 0.15)
    expect("cells: overhead of small messages", cells.overhead_small.value, 0.0, 3.40)
    expect("cells: overhead of small messages at ten times the rate", busy.overhead_small.value, 0.0, 1.20)
    expect("cells: mean delay, ms", cells.delay_ms.value, 0.0, 100.0)
    for name in CLASSIFIED:
        for question in QUESTIONS:
            verdict = classify(BY_NAME[name], question, mix, given.windows, 1)
            best = max(verdict.auc_forest.value, verdict.auc_boosting.value)
            bounds = {"none": (0.95, 1.0), "high-constant": (0.0, 0.60)}.get(name, (0.0, 1.0))
            expect(f"{name}: {question}, area under the curve", best, *bounds)
            null = max(verdict.null_forest, verdict.null_boosting)
            expect(f"{name}: {question}, null control", null, 0.40, 0.60)
            print(json.dumps({"records_per_s": verdict.records_per_s, "event_delay_p95_s": verdict.event_delay_p95_s}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
