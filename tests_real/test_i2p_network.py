"""Nodes over several real I2P routers: tunnels, floodfills, lookups. Needs i2pd, unshare (util-linux) and ip (iproute2)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from i2p_network import in_namespace

PROGRAM = Path(__file__).parent / "i2p_network_process.py"


def test_two_nodes_behind_routers_of_their_own(tmp_path: Path) -> None:
    done = subprocess.run(
        in_namespace(sys.executable, str(PROGRAM), str(tmp_path)), capture_output=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"{seen}\n")
    assert (seen["height"], seen["pattern"]) == (12, "NX")
    assert "there is no such I2P destination now" in seen["absent"]
    assert seen["left"] == 0  # neither nodes nor routers tried to send anything elsewhere
