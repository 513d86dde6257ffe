"""Protocol rotation in the simulator: sessions move to new connections under load, and nothing is lost, doubled or noticed."""

from __future__ import annotations

import pytest

from obscura.shaping.levels import LEVELS, PrivacyLevel
from rotating import Pair


@pytest.mark.parametrize("level", [None, *PrivacyLevel])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_doubled_under_load(level: PrivacyLevel | None, seed: int) -> None:
    pair = Pair(seed, **({} if level is None else {"knobs": LEVELS[level]}))
    pair.load(20.0, (0, 3_000), 0.5 if level is PrivacyLevel.HIGH else 0.02)
    for _ in range(4):
        pair.run(5.0)
        pair.rotate()
    pair.run(400.0 if level is PrivacyLevel.HIGH else 30.0)
    pair.check()
    assert [moved["generation"] for moved in pair.one.told("rotated")] == [1, 2, 3, 4]
    assert [moved["generation"] for moved in pair.other.told("rotated")] == [1, 2, 3, 4]
    for side in (pair.one, pair.other):
        assert len(side.node.assembly.engine.links) == 1, "the old connections are gone"
