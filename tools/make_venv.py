"""Make the virtual environment that every make target runs in. Needs Python 3.11+ with venv, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(folder: str) -> int:
    if sys.version_info < (3, 11):
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"Obscura needs Python 3.11 or newer, and this is {version}: run make PYTHON=python3.11", file=sys.stderr)
        return 1
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it unless python3-venv is installed)
        import venv
    except ImportError:
        print(
            "This Python has no venv module: install it (Debian and Ubuntu: apt install python3-venv) and run make again",
            file=sys.stderr,
        )
        return 1
    target = ROOT / folder
    if not (target / "bin" / "python").exists():
        venv.create(target, with_pip=True)
    pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    installed = subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[dev]"], check=False)
    if installed.returncode:
        print("The dependencies could not be installed: pip's own message above says why", file=sys.stderr)
    return installed.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ".venv"))
