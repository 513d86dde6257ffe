"""The interface of a carrier: the outermost layer of one connection, in one role (specification, *Protocol Morphing*).

A carrier carries the channel's bytes inside a genuine session of another protocol. It is pure: bytes and ``now`` in, events and
bytes out. ``receive(send(m)) == m``, in order, at any fragmentation of the wire.

The life of a session, as the connection sees it:

* client: ``start`` -> ``Ready`` -> ``send_flight`` (flight 1) -> ``Flight`` (flight 2) or ``Data`` -> ``send`` / ``Data`` ...
* server: ``start`` -> ``Flight`` (flight 1) -> ``send_flight`` (flight 2) or ``refuse`` -> ``send`` / ``Data`` ...

A *streamed* carrier (plain) has no place of its own for flights: all bytes are ``Data``, and the channel finds their ends.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import ClassVar

import msgspec

from obscura.limits import MAX_JOINED_WRITE
from obscura.wire.address import CarrierNumber


class Ready(msgspec.Struct, frozen=True):
    """Client: the place of flight 1 is open. ``binding`` goes into the prologue, ``flight_size`` is that slot's law in bytes."""

    binding: bytes
    flight_size: tuple[int, int]


class Flight(msgspec.Struct, frozen=True):
    """A whole flight arrived; on the server with its binding and the law of the answer's total size in bytes."""

    data: bytes
    binding: bytes = b""
    answer_size: tuple[int, int] = (0, 0)


class Data(msgspec.Struct, frozen=True, gc=False):
    """Channel bytes. The buffer is valid until ``receive`` is called again."""

    data: bytes | memoryview


class Finished(msgspec.Struct, frozen=True):
    """The session is over: write what ``take`` still gives, then close the socket.

    ``lingers``: end the own side only, and discard for some seconds what the peer still sends, so that nothing is reset.
    ``resets``: as of a program that leaves input unread, whose system answers with a reset.
    """

    lingers: bool = False
    resets: bool = False


CarrierEvent = Ready | Flight | Data | Finished


class Carrier(ABC):
    """One session. Created per connection by a ``CarrierFactory``."""

    NUMBER: ClassVar[CarrierNumber]
    STREAMED: ClassVar[bool] = False
    own_host: str = ""  # where the connection came in, for covers that tell it

    @abstractmethod
    def start(self, now: float) -> list[CarrierEvent]:
        """The connection is up. A client may queue its first bytes; ``Ready`` may come now or later."""

    @abstractmethod
    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        """Bytes of the socket. Never raises: what breaks the outer protocol is answered as the cover would answer it."""

    @abstractmethod
    def send_flight(self, flight: bytes, now: float) -> None:
        """Put a flight into its place."""

    @abstractmethod
    def send(self, data: bytes, now: float) -> None:
        """Queue channel bytes."""

    @abstractmethod
    def take(self) -> list[bytes]:
        """All bytes to write to the socket, in as few pieces as are cheap; empties the queue."""

    @abstractmethod
    def refuse(self, now: float) -> None:
        """The channel did not take the flight, or failed later: the session goes on as the cover's, by itself, to its end."""

    @abstractmethod
    def end(self, now: float) -> list[CarrierEvent]:
        """Close cleanly, as the cover closes."""

    @abstractmethod
    def eof(self, now: float) -> list[CarrierEvent]:
        """The peer closed its writing side."""

    def deadline(self) -> float:
        """When ``due`` wants to be called; ``inf`` = never."""
        return inf

    def due(self, now: float) -> list[CarrierEvent]:
        """A deadline has passed."""
        return []

    @property
    def is_full(self) -> bool:
        """Whether it holds as much unread input as it may: the socket is not read until it does not."""
        return False

    @property
    def is_blocked(self) -> bool:
        """Whether the cover's own flow control lets nothing out and enough waits: nothing more is sealed until it does."""
        return False

    @property
    def is_busy(self) -> bool:
        """Whether it still answers what came before the peer's side ended: the socket is kept until it does not."""
        return False


CarrierFactory = Callable[[random.Random], Carrier]


def coalesced(pieces: list[bytes]) -> list[bytes]:
    """The same bytes for one write where that is cheap; large pieces stay, since joining them would copy megabytes."""
    if len(pieces) > 1 and sum(map(len, pieces)) <= MAX_JOINED_WRITE:
        return [b"".join(pieces)]
    return pieces
