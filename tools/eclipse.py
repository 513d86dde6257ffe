"""Attack one simulated node over ten restarts, many seeds, and compare the attacker's share with the formula of docs/peers.md.

    python tools/eclipse.py [--seeds 1000] [--processes 2]

Prints one line per attack and start; exit status 1 if anything is worse than it may be.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from multiprocessing import Pool

from amounts import whole
from obscura.sim.eclipse import Attack, Life, Victim

LIVES = 11  # the first start and ten restarts
ATTACKS = (Attack(groups=2, addresses=1_024), Attack(groups=256, addresses=2_048))


def lives(job: tuple[Attack, int]) -> list[Life]:
    attack, seed = job
    return list(Victim(attack, seed).lives(LIVES))


def report(attack: Attack, rows: list[list[Life]]) -> bool:
    """Print what came out; whether all of it is as it must be."""
    is_fine = True
    for number in range(LIVES):
        column = [row[number] for row in rows]
        shares = [life.bad_slots / life.slots for life in column]
        mean = statistics.fmean(shares)
        error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else 0.0
        worst, bound = max(life.bad_slots for life in column), attack.share(number)
        kept = all(life.kept_anchors for life in column)
        is_fine &= kept and worst <= attack.groups and mean <= bound + 3 * error
        print(
            f"{attack.groups:3} /16s, start {number:2}: mean share {mean:.3f} (s.e. {error:.3f}), formula {bound:.3f}, "
            f"most slots {worst:2} of {min(life.slots for life in column)}, anchors {'kept' if kept else 'LOST'}"
        )
    return is_fine


def main() -> int:
    parser = argparse.ArgumentParser(description="Eclipse attacks on one simulated node.")
    parser.add_argument("--seeds", type=whole(), default=1_000)
    parser.add_argument("--processes", type=whole(), default=2)
    options = parser.parse_args()
    is_fine = True
    with Pool(options.processes) as pool:
        for attack in ATTACKS:
            rows = pool.map(lives, [(attack, seed) for seed in range(options.seeds)], chunksize=1)
            is_fine &= report(attack, rows)
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
