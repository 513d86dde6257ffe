"""What a node that may use tor alone tries to send elsewhere, as the kernel counts it: nothing. Needs unshare (util-linux)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "namespace_process.py"


def life(folder: Path, is_restricted: str) -> dict[str, Any]:
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, str(PROGRAM), str(folder), is_restricted],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_tries_to_leave(tmp_path: Path) -> None:
    seen = life(tmp_path, "yes")
    assert seen["left"] == 0
    assert len(seen["dials"]) == 3


def test_the_kernel_counts_what_does(tmp_path: Path) -> None:
    assert life(tmp_path, "no")["left"] >= 2
