"""What the project's own tools refuse: a run of nothing, which would pass."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("chaos", ["--seeds", "0"], "0 is too few: 1 or more"),
        ("chaos", ["--first", "one"], "'one' is not a whole number"),
        ("soak", ["--minutes", "nan"], "nan is not above 0 and finite"),
        ("soak", ["--minutes", "soon"], "'soon' is not a number"),
        ("mutants", ["--least", "80"], "80 is more than 1, which is all"),
        ("spies", ["--nodes", "5", "--spies", "5"], "5 spies among 5 nodes leave nobody to spy on"),
    ],
)
def test_a_run_of_nothing_is_refused(tool: str, arguments: list[str], why: str) -> None:
    command = [sys.executable, str(TOOLS / f"{tool}.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr
