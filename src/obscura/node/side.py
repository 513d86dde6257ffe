"""What one face of a node knows of transactions and waits for, apart from every other face (design 5, 9).

A transaction that came in through one face is public there. At the others it is as if it had not come yet, for as long as it
would take by way of a neighbour; meanwhile it is asked for there like any other. Else who hands one in here and looks there
would know both faces as one node's.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from math import inf

from obscura.limits import TX_INBOUND_MEAN_S, TX_OUTBOUND_MEAN_S, TX_REFUSED, TX_SECOND_SOURCE_S
from obscura.node.effects import LinkId
from obscura.node.face import Face
from obscura.node.knowers import Knowers
from obscura.node.rolling import Rolling
from obscura.node.timers import Timers


class Side:
    """One face's part of the announcements. Nothing in it may be read for another face."""

    __slots__ = ("asked", "entering", "face", "knowers", "links", "refused", "sources", "unfetched")

    def __init__(self, face: Face) -> None:
        self.face = face
        self.links: dict[LinkId, None] = {}
        self.knowers = Knowers()
        self.asked: OrderedDict[bytes, tuple[LinkId, float]] = OrderedDict()  # in order of time
        self.sources: dict[bytes, list[LinkId]] = {}  # who else announced it
        self.refused: Rolling[bool] = Rolling(TX_REFUSED)  # brought here and not taken
        self.unfetched: dict[
            bytes, float
        ] = {}  # public, and no peer has fetched or announced it; when it was told last
        self.entering: Timers[bytes] = Timers()  # public at another face, and here at that time

    def deadline(self) -> float:
        """When something enters, or is asked of another link because the first does not answer."""
        second = next(iter(self.asked.values()))[1] + TX_SECOND_SOURCE_S if self.asked else inf
        return min(second, self.entering.deadline())

    def forget_source(self, transaction_id: bytes, link: LinkId) -> None:
        """The link is not going to be asked for it any more."""
        sources = self.sources.get(transaction_id)
        if sources is not None:
            sources.remove(link)
            if not sources:
                del self.sources[transaction_id]


def crossing_s(rng: random.Random) -> float:
    """Seconds that a transaction takes from one face to another: told to a neighbour, and by that one told on."""
    return rng.expovariate(1 / TX_OUTBOUND_MEAN_S) + rng.expovariate(1 / TX_INBOUND_MEAN_S)
