"""The checker of the tutorial (tools/run_tutorial.py) on small pages: it finds what is wrong, and only that."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "run_tutorial.py"
spec = importlib.util.spec_from_file_location("run_tutorial", TOOL)
assert spec is not None
assert spec.loader is not None
tutorial = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tutorial)

# expected, printed, the line that is missed
MATCHES = [
    (["a", "c"], "a\nb\nc\n", None),
    (["a  b"], "  a     b \n", None),
    (["height ... 5"], "height    5\n", None),
    (["height 5"], "height 50\n", "height 5"),
    (["x...z"], "xyz\n", None),
    (["...", "a"], "b\na\n", None),
    (["b", "a"], "a\nb\n", "a"),
    (["a.c"], "abc\n", "a.c"),
    (["a"], "", "a"),
    ([], "anything", None),
]


@pytest.mark.parametrize(("expected", "printed", "lost"), MATCHES)
def test_expected_lines(expected: list[str], printed: str, lost: str | None) -> None:
    assert tutorial.missing(expected, printed) == lost


PAGES = {
    "right": ("$ A=1\n$ echo $A two\n1 two\n", 0, ""),
    "a line that does not come": ("$ echo one\ntwo\n", 1, "this line did not come: two"),
    "a wrong command": ("$ no-such-command\n", 1, "the exit status is 127"),
    "an error that is expected": ("$ echo Error: so && false\nError: so\n", 0, ""),
    "an error that does not come": ("$ echo Error: so\nError: so\n", 1, "the exit status is 0"),
    "a job that says it later": ("$ (sleep 0.3; echo up) &\nup\n", 0, ""),
    "output without a command": ("one\n", 1, "begins with a command"),
    "the end of the shell": ("$ exit 0\n", 1, "ended the shell"),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    block, status, words = PAGES[name]
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n```sh\nnot run\n```\n\n```console\n{block}```\n")
    assert tutorial.main(page) == status
    assert words in capfd.readouterr().err


def test_the_home_is_empty_and_what_runs_on_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ ls -A $HOME | wc -l\n0\n$ sleep 60 &\n```\n")
    monkeypatch.setattr(tutorial, "WAIT_S", 1.0)
    assert tutorial.main(page) == 1
    assert "leaves something running" in capfd.readouterr().err
