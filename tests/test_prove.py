"""The page of results says what was run, what was not, and nothing of the machine's folders."""

from __future__ import annotations

from pathlib import Path

import pytest

import prove

SHOWN = prove.Result(True, 61, "2026-11-22", "abc1234", "2 cores", "5 passed")


def test_the_page_names_every_proof_also_those_that_were_not_run_or_failed() -> None:
    page = prove.page({"test": SHOWN, "soak": SHOWN._replace(is_shown=False, output="leaked 3 tasks")})
    assert "| [the test suite](#test) | yes | 2026-11-22, `abc1234` | 61 s | `make test` |" in page
    assert "](#soak) | **no** |" in page
    assert "leaked 3 tasks" in page
    assert page.count("| not run |") == len(prove.PROOFS) - 2


@pytest.mark.parametrize(("changed", "commit"), [("", "abc1234"), ("tools", "abc1234+"), ("docs", "abc1234")])
def test_a_result_is_of_the_commit_that_was_there_when_it_began(
    changed: str, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that was changed is another proof; the page itself is written by each."""

    def git(*command: str) -> str:
        assert not list(tmp_path.iterdir()), "the proof runs already"
        return "abc1234" if "rev-parse" in command else " M x" if changed in command[3:] else ""

    monkeypatch.setattr(prove, "LIVE", tmp_path)
    monkeypatch.setattr(prove, "_said", git)
    assert prove._run(prove.Proof("x", "nothing", "true")).commit == commit


def test_names_are_once_each() -> None:
    names = [proof.name for proof in prove.PROOFS]
    assert len(set(names)) == len(names)


def test_lines_lose_colours_and_places() -> None:
    assert prove._plain(f"\x1b[31m{prove.ROOT}/docs\x1b[0m {Path.home()}/x") == "docs ~/x"
