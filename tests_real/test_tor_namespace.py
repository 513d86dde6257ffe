"""What a node that may use tor or I2P alone tries to send elsewhere, as the kernel counts it: nothing. Needs unshare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "namespace_process.py"


def life(folder: Path, network: str) -> dict[str, Any]:
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, str(PROGRAM), str(folder), network],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_tries_to_leave(tmp_path: Path) -> None:
    seen = life(tmp_path, "tor")
    assert seen["left"] == 0
    assert len(seen["dials"]) == 3


def test_nothing_tries_to_leave_where_i2p_is_the_only_way(tmp_path: Path) -> None:
    seen = life(tmp_path, "i2p")
    assert seen["left"] == 0
    assert len(seen["dials"]) == 3
    assert all("only-net leaves clearnet out" in said for said in seen["dials"])


def test_the_kernel_counts_what_does(tmp_path: Path) -> None:
    assert life(tmp_path, "all")["left"] >= 2
