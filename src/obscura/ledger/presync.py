"""Headers from a peer that has not shown enough work: two passes, little memory (as Bitcoin Core's presync).

First pass: each header is checked against the one before it alone (its own proof of work, a difficulty step
that can be), its work is counted, and of every 600th one secret bit is kept. Once the count is enough, the
peer sends all of it again; now headers are held back until 24 kept bits stand behind each, and only then
handed to the chain. A peer that gave another chain on the second pass fails at the first bit that differs. At
most 34 KB are held on the first pass, 1.8 MB on the second.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from enum import Enum
from hashlib import sha256

import msgspec

from obscura import limits
from obscura.ledger.chain import Chain
from obscura.ledger.port import Fault, Ledger, invalid
from obscura.wire.messages.blocks import Headers

OTHER_CHAIN = invalid("the second pass showed other headers than the first")
ENDLESS = invalid("headers without end and without enough work")


class Pass(Enum):
    """Where a presync stands."""

    COUNTING = "counting"  # first pass
    FETCHING = "fetching"  # second pass
    DONE = "done"  # everything was handed over: go on as with any peer
    ENDED = "ended"  # the peer has no more or broke the rules: forget what it sent


class Step(msgspec.Struct, frozen=True):
    """What one ``headers`` message led to."""

    headers: Sequence[bytes] = ()  # to be given to ``Chain.add_all`` now, in order
    fault: Fault | None = None  # the peer's fault; without one, ``Pass.ENDED`` means only that its chain is short


class HeadersPresync:
    """One peer's presync, from a header that is known already up to ``enough_work`` in total.

    ``rng`` draws what the peer must not know: which headers leave a bit, and the key of the bits.
    """

    def __init__(self, chain: Chain, start: bytes, enough_work: int, rng: random.Random) -> None:
        self._ledger: Ledger = chain.ledger
        self._start = chain.header(start), chain.height(start), chain.work(start)
        self._base_locator = chain.locator(start)
        self._enough_work = enough_work
        self._key = rng.randbytes(16)
        self._offset = rng.randrange(limits.PRESYNC_PERIOD)
        self._bits = bytearray()  # one byte a bit: 33 KB after 20 million headers
        self._held: deque[bytes] = deque()
        self.state = Pass.COUNTING
        self._rewind()

    def _rewind(self) -> None:
        self._last, self._height, self._work = self._start
        self._bits_read = 0

    @property
    def locator(self) -> list[bytes]:
        """What to ask for next: the headers after the newest one of this pass."""
        last = self._ledger.block_id(self._last)
        return self._base_locator if last == self._base_locator[0] else [last, *self._base_locator]

    @property
    def held(self) -> int:
        """Headers held back now."""
        return len(self._held)

    def receive(self, headers: Sequence[bytes]) -> Step:
        """The headers of one message. Fewer than ``Headers.most`` mean that the peer has no more."""
        if self.state in (Pass.DONE, Pass.ENDED):
            return Step()
        fetching = self.state is Pass.FETCHING
        for number, header in enumerate(headers, 1):
            fault = self._follow(header, fetching)
            if fault:
                return self._end(fault)
            if self._work >= self._enough_work:
                if not fetching:
                    self.state = Pass.FETCHING
                    self._rewind()
                    return Step()
                return self._finish(headers[number:])
        released = self._release() if fetching else []
        if len(headers) < Headers.most(self._ledger.header_bytes):
            return self._end(OTHER_CHAIN if fetching else None)
        return Step(released)

    def _follow(self, header: bytes, fetching: bool) -> Fault | None:
        self._height += 1
        fault = self._ledger.check_step(self._height, self._last, header)
        if fault:
            return fault
        if self._height - self._start[1] > limits.PRESYNC_HEADERS:
            return ENDLESS
        self._last = header
        self._work += self._ledger.work(header)
        if fetching:
            self._held.append(header)
        if self._height % limits.PRESYNC_PERIOD != self._offset:
            return None
        bit = sha256(self._key + self._ledger.block_id(header)).digest()[0] & 1
        if not fetching:
            self._bits.append(bit)
        elif self._bits_read >= len(self._bits) or self._bits[self._bits_read] != bit:
            return OTHER_CHAIN
        else:
            self._bits_read += 1
        return None

    def _release(self) -> list[bytes]:
        return [self._held.popleft() for _ in range(len(self._held) - limits.PRESYNC_BUFFER)]

    def _finish(self, rest: Sequence[bytes]) -> Step:
        """The work is there again: all that was held, and what followed, whose checks are now the chain's."""
        released = [*self._held, *rest]
        self._held.clear()
        self.state = Pass.DONE
        return Step(released)

    def _end(self, fault: Fault | None) -> Step:
        self._held.clear()
        self._bits.clear()
        self.state = Pass.ENDED
        return Step(fault=fault)
