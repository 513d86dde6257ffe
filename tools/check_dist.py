"""A wheel as a new user meets it: an empty virtual environment, an empty home, a node that runs and stops.

python tools/check_dist.py dist/*.whl                    # dependencies come from the package index
python tools/check_dist.py --borrow dist/*.whl           # dependencies of the environment that runs this; no network
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

WAIT_S = 300


def check(wheel: Path, work: Path, *, borrow: bool) -> str:
    """Install it below ``work`` and use it. What it said of itself. Raises ``CalledProcessError`` or ``AssertionError``."""
    home, place = work / "home", work / "venv"
    home.mkdir()
    venv.create(place, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", f"--python={place}", "install", "-q"]
    if borrow:
        subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, timeout=WAIT_S)
        packages = next(place.glob("lib/python*/site-packages"))
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    else:
        subprocess.run([*pip, str(wheel)], check=True, timeout=WAIT_S)
    program = str(place / "bin" / "obscura")
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}

    def run(*words: str) -> str:
        done = subprocess.run(
            [program, *words], env=environment, cwd=home, check=True, timeout=WAIT_S, capture_output=True, text=True
        )
        return done.stdout

    assert "Run a node" in run("--help")
    assert not list(home.iterdir()), "asking for help leaves nothing in the home"
    where = subprocess.run(
        [place / "bin" / "python", "-c", "import obscura; print(obscura.__file__)"],
        env=environment,
        cwd=home,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(str(place)), f"it runs from {where.strip()}"
    run("lab", "--help")
    words = ["--network", "dev", "run", "--json", "--listen", "127.0.0.1:0", "--set", "max-outbound=0"]
    words += ["--set", "rpc-http=127.0.0.1:0", "--set", "dashboard=true"]
    with subprocess.Popen([program, *words], env=environment, cwd=home, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout is not None
            facts = json.loads(node.stdout.readline())
            assert facts["network"] == "dev"
            assert json.loads(run("--network", "dev", "status", "--json"))
            run("--network", "dev", "stop")
            assert node.wait(WAIT_S) == 0
        finally:
            node.kill()
    assert (place / "share" / "man" / "man1" / "obscura.1").exists()
    return run("version").strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Install a wheel as a new user would, and run it.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--borrow", action="store_true", help="take the dependencies of this environment")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        print(check(arguments.wheel.absolute(), Path(work), borrow=arguments.borrow))
    return 0


if __name__ == "__main__":
    sys.exit(main())
