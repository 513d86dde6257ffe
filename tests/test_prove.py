"""The page of results says what was run, what was not, and nothing of the machine's folders."""

from __future__ import annotations

from pathlib import Path

import prove

SHOWN = prove.Result(True, 61, "2026-11-22", "abc1234", "2 cores", "5 passed")


def test_the_page_names_every_proof_also_those_that_were_not_run_or_failed() -> None:
    page = prove.page({"test": SHOWN, "soak": SHOWN._replace(is_shown=False, output="leaked 3 tasks")})
    assert "| [the test suite](#test) | yes | 2026-11-22, `abc1234` | 61 s | `make test` |" in page
    assert "](#soak) | **no** |" in page
    assert "leaked 3 tasks" in page
    assert page.count("| not run |") == len(prove.PROOFS) - 2


def test_names_are_once_each() -> None:
    names = [proof.name for proof in prove.PROOFS]
    assert len(set(names)) == len(names)


def test_lines_lose_colours_and_places() -> None:
    assert prove._plain(f"\x1b[31m{prove.ROOT}/docs\x1b[0m {Path.home()}/x") == "docs ~/x"
