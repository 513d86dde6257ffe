"""An operator's day on real processes, from an empty home to a clean end (tools/operators_day.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators_day import STEPS, Day, expect, live


@pytest.mark.slow
def test_the_day_goes_as_it_should(tmp_path: Path) -> None:
    told: list[str] = []
    live(tmp_path, told.append)
    assert len(told) == len(STEPS)


def test_a_step_that_goes_otherwise_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit status 3"):
        Day(tmp_path).obscura("status")
    with pytest.raises(AssertionError, match="the reason"):
        expect(False, "the reason")
