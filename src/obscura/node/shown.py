"""What each face of a node with several shows of the chain and of what left the mempool: what is new, after its own delay.

Else who watches two faces sees both change at the same moment, block after block.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from obscura.limits import NEAR_TIP_HEADERS, SHOWN_BRANCHES, TIP_LAG_S
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
        # Tips of branches that it left.
        self._left: dict[Face, deque[bytes]] = {face: deque(maxlen=SHOWN_BRANCHES) for face in self.late}
        self._lags: Timers[Face] = Timers()

    def tip(self, face: Face) -> bytes:
        """The tip that this face shows."""
        return self._tips.get(face, self._blocks.tip)

    def end(self, face: Face) -> bytes:
        """Where the chain ends that this face answers from; a single face has blocks that are not on the disk yet."""
        return self._tips.get(face, self._blocks.chain.tip)

    def gives(self, face: Face, block_id: bytes) -> bool:
        """Whether a peer may learn at this face that the block is here: it was part of a chain that the face has shown."""
        if not self._blocks.may_show(block_id, self.end(face)):
            return False
        return face not in self._tips or any(self._is_on(end, block_id) for end in (self.tip(face), *self._left[face]))

    def known(self, face: Face, locator: Sequence[bytes]) -> Sequence[bytes]:
        """Those of the ids that are on the chain from which this face answers."""
        if face not in self._tips:
            return locator
        chain, end = self._blocks.chain, self.end(face)
        return [*(each for each in locator if each in chain and self._is_on(end, each)), chain.genesis]

    def asks_from(self, face: Face, newest: bytes) -> bytes:
        """What peers of this face are told to have followed so far, when they are asked for more: ``newest``, or what is shown.

        Far behind that there is more to come than anybody could compare, and all of it would be sent again.
        """
        end, chain = self._tips.get(face, newest), self._blocks.chain
        return end if chain.height(newest) - chain.height(end) <= NEAR_TIP_HEADERS else newest

    def _is_on(self, end: bytes, block_id: bytes) -> bool:
        chain, height = self._blocks.chain, self._blocks.chain.height(block_id)
        return height <= chain.height(end) and chain.ancestor(end, height) == block_id

    def show(self, face: Face, tip: bytes) -> None:
        """From now on the face shows this tip."""
        if face not in self._tips:
            return
        if not self._is_on(tip, self.tip(face)):
            self._left[face].append(self.tip(face))
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
