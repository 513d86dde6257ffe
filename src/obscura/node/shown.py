"""What each face of a node with several shows of the chain and of what left the mempool: what is new, after its own delay.

Else who watches two faces sees both change at the same moment, block after block.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from obscura.limits import TIP_LAG_S
from obscura.node.blocks import Blocks
from obscura.node.face import Face
from obscura.node.timers import Timers


class Shown:
    """The view of each face. A single one shows everything at once."""

    def __init__(self, blocks: Blocks, rng: random.Random, faces: Iterable[Face]) -> None:
        self._blocks = blocks
        self._rng = rng
        several = sorted(faces)
        self.late = tuple(several) if len(several) > 1 else ()  # faces that show what is new after a delay
        self._tips: dict[Face, bytes] = dict.fromkeys(self.late, blocks.tip)
        self._lags: Timers[Face] = Timers()

    def tip(self, face: Face) -> bytes:
        """The tip that this face shows."""
        return self._tips.get(face, self._blocks.tip)

    def is_hidden(self, face: Face, block_id: bytes) -> bool:
        """Whether the block came lately, is perhaps not even on the disk, and this face does not show it yet."""
        chain = self._blocks.chain
        return face in self._tips and block_id in chain and chain.height(block_id) > chain.height(self.tip(face))

    def visible(self, face: Face, ids: Sequence[bytes]) -> Sequence[bytes]:
        """Those of the ids, in order of height, that this face shows."""
        if face not in self._tips:
            return ids
        chain = self._blocks.chain
        return ids[: bisect_right(ids, chain.height(self.tip(face)), key=chain.height)]

    def show(self, face: Face, tip: bytes) -> None:
        """From now on the face shows this tip."""
        if face in self._tips:
            self._tips[face] = tip

    def news(self, now: float) -> None:
        """Something is new: each face shows it after a delay of its own, with what was new before."""
        for face in self.late:
            if face not in self._lags:
                self._lags.set(face, now + self._rng.uniform(0, TIP_LAG_S))

    def deadline(self) -> float:
        return self._lags.deadline()

    def due(self, now: float) -> Iterator[Face]:
        """Faces whose time to show what is new has come."""
        return self._lags.due(now)
