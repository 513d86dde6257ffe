"""What one face of a node knows of transactions and waits for, apart from every other face (design 5, 9).

A transaction that came in through one face is public there. At the others it is as if it had not come yet, for as long as it
would take by way of a neighbour; meanwhile it is asked for there like any other. Else who hands one in here and looks there
would know both faces as one node's.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Container
from math import inf

from obscura.ledger.port import Transaction
from obscura.limits import LEAVING_BYTES, TX_INBOUND_MEAN_S, TX_OUTBOUND_MEAN_S, TX_REFUSED, TX_SECOND_SOURCE_S
from obscura.node.effects import LinkId
from obscura.node.face import Face
from obscura.node.knowers import Knowers
from obscura.node.rolling import Rolling
from obscura.node.timers import Timers


class Side:
    """One face's part of the announcements. Nothing in it may be read for another face."""

    __slots__ = (
        "_leaving_bytes",
        "asked",
        "entering",
        "face",
        "knowers",
        "leaving",
        "links",
        "refused",
        "shows_late",
        "sources",
        "unfetched",
    )

    def __init__(self, face: Face, *, shows_late: bool = False) -> None:
        self.face = face
        self.shows_late = shows_late  # what leaves is to be had here until ``take_left``
        self.links: dict[LinkId, None] = {}
        self.knowers = Knowers()
        self.asked: OrderedDict[bytes, tuple[LinkId, float]] = OrderedDict()  # in order of time
        self.sources: dict[bytes, list[LinkId]] = {}  # who else announced it
        self.refused: Rolling[bool] = Rolling(TX_REFUSED)  # brought here and not taken
        self.unfetched: dict[
            bytes, float
        ] = {}  # public, and no peer has fetched or announced it; when it was told last
        self.entering: Timers[bytes] = Timers()  # public at another face, and here at that time
        # What left the mempool, or came with a block that waits to be shown here: all of it is answered as before until then.
        self.leaving: OrderedDict[bytes, Transaction | None] = OrderedDict()  # None: it did not wait
        self._leaving_bytes = 0

    def deadline(self) -> float:
        """When something enters, or is asked of another link because the first does not answer."""
        second = next(iter(self.asked.values()))[1] + TX_SECOND_SOURCE_S if self.asked else inf
        return min(second, self.entering.deadline())

    def waits(self, transaction_id: bytes) -> None:
        """It has come into the mempool."""
        if self.leaving.get(transaction_id) is None:
            self.knowers.waits(transaction_id)

    def is_news(self, transaction: Transaction) -> bool:
        """It was brought here, and the node had it: whether this face has to take it as if it had just come."""
        if transaction.id in self.entering:
            return True
        if transaction.id not in self.leaving or self.leaving[transaction.id] is not None:
            return False
        self.waits(transaction.id)
        self.leave(transaction.id, transaction)
        return True

    # --- What left ----------------------------------------------------------------------------------------------------

    def is_confirmed(self, transaction_id: bytes, confirmed: Container[bytes]) -> bool:
        """Whether it is in a block that this face shows."""
        return transaction_id in confirmed and transaction_id not in self.leaving

    def has(self, transaction_id: bytes, mempool: Container[bytes]) -> bool:
        """Whether it waits and is public here, or did and was until what this face does not show yet."""
        if transaction_id in self.entering:
            return False
        return transaction_id in mempool or self.leaving.get(transaction_id) is not None

    def leave(self, transaction_id: bytes, transaction: Transaction | None) -> None:
        """It waits no longer, or is in a block (None: and did not wait), which is not to be seen here yet."""
        if transaction is not None:
            self.stay(transaction_id)
            self._leaving_bytes += len(transaction.raw)
            self.leaving[transaction_id] = transaction
        else:
            self.leaving.setdefault(transaction_id, None)

    def stay(self, transaction_id: bytes) -> bool:
        """It waits again. Whether it was public all the while."""
        transaction = self.leaving.pop(transaction_id, None)
        if transaction is not None:
            self._leaving_bytes -= len(transaction.raw)
        return transaction is not None

    def lose(self, transaction_id: bytes) -> None:
        """From now on it is not to be had here."""
        self.knowers.went(transaction_id)
        self.unfetched.pop(transaction_id, None)
        self.entering.clear(transaction_id)

    def take_left(self, *, all: bool) -> list[bytes]:
        """What the face shows to have left; without ``all`` only the oldest, as far as there are too many."""
        left = list(self.leaving) if all else []
        if all:
            self.leaving.clear()
            self._leaving_bytes = 0
        while len(self.leaving) > TX_REFUSED or self._leaving_bytes > LEAVING_BYTES:
            left.append(next(iter(self.leaving)))
            self.stay(left[-1])
        return left

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
