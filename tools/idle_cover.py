"""What cover costs a node with many idle links: CPU seconds per second, from the shipped engine under a virtual clock.

    python tools/idle_cover.py [links] [level] [seconds]

One hub has that many links; each far end is a whole node of its own. Printed is the CPU of everything, so both ends and the
simulator, and half of it, which is about the hub's.
"""

from __future__ import annotations

import json
import sys
import time

from obscura.limits import MAX_INBOUND
from obscura.node.assembly import Settings
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork


def main(links: int = 1_000, level: str = "medium", seconds: float = 600.0) -> int:
    kernel = Kernel(1)
    network = SimNetwork(kernel, lambda a, b: 0.02)
    settings = Settings(
        network_id=bytes(32), is_dev=True, knobs=LEVELS[PrivacyLevel(level)], max_inbound=max(MAX_INBOUND, links)
    )
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
                "level": level,
                "virtual_s": seconds,
                "hub_dummies_per_s": round(dummies / seconds, 2),
                "core_share_everything": round(spent / seconds, 5),
                "core_share_hub_about": round(spent / seconds / 2, 5),
            }
        )
    )
    return 0 if established == links else 1


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*(int(x) for x in given[:1]), *given[1:2], *(float(x) for x in given[2:3])))
