"""Print the published precision tables beside the simulator's (``make tables``). Status 1 if a figure is not as claimed."""

from __future__ import annotations

import argparse
import sys
import time

from amounts import whole
from obscura.sim.sweep import simulate
from obscura.sim.tables import (
    EXPOSURES,
    ROWS,
    SPIES,
    Claim,
    broken_exposures,
    exposure_scenario,
    stem_hops,
    told_recall,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=whole(), default=40, help="runs of each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--processes", type=whole())
    given = parser.parse_args()
    began = time.monotonic()
    rows = [row for row in ROWS if given.only in row.name]
    shows_exposures = not given.only or "exposure".startswith(given.only)
    if not rows and not shows_exposures:
        parser.error(f"no row is called {given.only}; there are exposure, {', '.join(row.name for row in ROWS)}")
    scenarios = [scenario for row in rows for scenario in row.scenarios(given.runs, given.seed)]
    results = simulate(scenarios, processes=given.processes)
    misses = 0
    print("precision, ours / theirs, at a share of spies of" + "".join(f"{p:>16g}" for p in SPIES))
    for row in rows:
        cells, hops, recalls = [], [], []
        for index in range(len(SPIES)):
            found = next(results)
            ours, error = found["precision"], found["precision_se"]
            is_kept = row.holds(index, ours, error)
            misses += not is_kept
            cells.append(f"{ours:.3f}{'' if is_kept else '!'} / {row.theirs[index]:.3f}".rjust(16))
            hops.append(f"{found['hops_mean']:.2f}")
            recalls.append(f"{found['recall']:.3f}")
        print(f"{row.name + ' ' + row.claim.value:48}{''.join(cells)}")
        q = scenarios[rows.index(row) * len(SPIES)].fluff
        print(
            f"    obscura simulate {row.flags}{'' if '--fluff' in row.flags else ' --fluff 0'} --follow 0 --runs {given.runs}"
        )
        if "diffusion" not in row.flags:
            theory = [f"{stem_hops(p, q):.2f}" for p in SPIES]
            print(f"    hops {' '.join(hops)} (theory {' '.join(theory)}); recall {' '.join(recalls)}", end="")
            if row.claim is Claim.AT_MOST:
                print(f" (told: {' '.join(f'{told_recall(p, q):.3f}' for p in SPIES)})", end="")
            print()
    if shows_exposures:
        misses += print_exposures(given.runs, given.seed, given.processes)
    print(f"{misses} figures are not as claimed (marked !); {time.monotonic() - began:.0f} s")
    return 1 if misses else 0


def print_exposures(runs: int, seed: int, processes: int | None) -> int:
    """How many of them are not as docs/simulator.md claims."""
    found_by = {}
    print("\norigin exposure, 100 nodes, 10 % spies, q = 0.2: shares of all honest transactions")
    scenarios = [exposure_scenario(flags, runs, seed) for _, flags in EXPOSURES]
    for (name, flags), found in zip(EXPOSURES, simulate(scenarios, processes=processes), strict=True):
        found_by[name] = found
        told = f"diffused first by its origin {found['origin_exposed']:.4f} ± {found['origin_exposed_se']:.4f}"
        if "swallowed" in found:
            told += f"; swallowed {found['swallowed']:.3f}, of those exposed {found['swallowed_exposed']:.4f}"
        if "claimed" in found:
            share = found["claimed_right"] / found["claimed"] if found["claimed"] else 0.0
            told += f"; blamed by the coin {found['claimed']:.4f}, {share:.0%} of those rightly"
        print(f"{name:30}{told}\n    obscura simulate {flags} --fluff 0.2 --spies 0.1 --runs {runs}")
    broken = broken_exposures(found_by)
    print(*(f"! {text}" for text in broken), sep="\n", end="\n" if broken else "")
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
