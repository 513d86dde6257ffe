"""What cover costs a node with many idle links: CPU seconds per second, from the shipped engine under a virtual clock.

    python tools/idle_cover.py [--links 1000] [--level medium] [--seconds 600]

One hub has that many links; each far end is a whole node of its own. Printed is the CPU of everything, so both ends and the
simulator, and half of it, which is about the hub's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from amounts import positive, whole
from obscura.limits import MAX_INBOUND
from obscura.node.assembly import Settings
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork


def main(links: int, level: PrivacyLevel, seconds: float) -> int:
    kernel = Kernel(1)
    network = SimNetwork(kernel, lambda a, b: 0.02)
    settings = Settings(network_id=bytes(32), is_dev=True, knobs=LEVELS[level], max_inbound=max(MAX_INBOUND, links))
    hub = network.add(settings)
    for _ in range(links):
        node = network.add(settings)
        node.connect(hub.address)
        kernel.run(until=kernel.now + 0.01)
    kernel.run(until=kernel.now + 60)
    established = len(hub.peers)
    dummies = sum(link["dummies_sent"] for link in hub.assembly.engine.describe(kernel.now))
    started, since = time.process_time(), kernel.now
    kernel.run(until=since + seconds)
    spent = time.process_time() - started
    dummies = sum(link["dummies_sent"] for link in hub.assembly.engine.describe(kernel.now)) - dummies
    print(
        json.dumps(
            {
                "links": established,
                "level": level.value,
                "virtual_s": seconds,
                "hub_dummies_per_s": round(dummies / seconds, 2),
                "core_share_everything": round(spent / seconds, 5),
                "core_share_hub_about": round(spent / seconds / 2, 5),
            }
        )
    )
    return 0 if established == links else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What cover costs a node with many idle links.")
    parser.add_argument("--links", type=whole(), default=1_000)
    parser.add_argument("--level", choices=[level.value for level in LEVELS], default="medium")
    parser.add_argument("--seconds", type=positive, default=600.0, help="of the virtual clock")
    options = parser.parse_args()
    sys.exit(main(options.links, PrivacyLevel(options.level), options.seconds))
