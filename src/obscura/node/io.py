"""What an interpreter passes to the engine and carries out for it: listeners in, sockets' and disks' work out. Values only."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.morph.carrier import Carrier, CarrierFactory
from obscura.morph.kinds import plain_server
from obscura.node.broadcast import Receipt
from obscura.node.effects import Fetch, Keep, LinkId, Lookup, Notify
from obscura.node.face import Face
from obscura.security import Bare, Listening
from obscura.wire.address import Address


class Listener(msgspec.Struct, frozen=True):
    """One listening address: one carrier, one channel key of its own (None for bare), one face."""

    address: Address
    face: Face
    static: StaticKey | None
    strangers: bool
    replay: ReplayCache
    carrier: CarrierFactory = plain_server  # the server's side, with the cover that strangers get

    def served(self, rng: random.Random, own_host: str) -> Carrier:
        """The carrier of one connection, reached at ``own_host``."""
        carrier = self.carrier(rng)
        carrier.own_host = own_host
        return carrier

    def security(self, network_id: bytes, may_try: Callable[[], bool]) -> Listening | Bare:
        """The responder's side of the channel on one connection."""
        if self.static is None:
            return Bare()
        return Listening(network_id, self.face, self.static, self.strangers, self.replay, may_try)


class Write(msgspec.Struct, frozen=True):
    """Put bytes on the link's socket, in order. ``resets``: they are the last ones, and a reset follows."""

    link: LinkId
    pieces: list[bytes]
    resets: bool = False


class Shut(msgspec.Struct, frozen=True):
    """Close the link's socket once what was written is out.

    ``lingers``: the own side first, discarding what still comes. ``resets``: with a reset.
    """

    link: LinkId
    lingers: bool = False
    resets: bool = False


class Reach(msgspec.Struct, frozen=True):
    """Open a socket to the address; answer with ``connected`` or ``unreachable``."""

    link: LinkId
    address: Address


class Hold(msgspec.Struct, frozen=True):
    """Stop (``held``) or go on reading from the link's socket."""

    link: LinkId
    held: bool


class Faulted(msgspec.Struct, frozen=True):
    """A link ended for a defect of this node. Log the kind and place of ``fault``; its text may hold what a peer sent."""

    link: LinkId
    fault: Exception


Outward = Notify | Keep | Fetch | Lookup | Receipt  # effects of the core that the engine only passes on
Io = Write | Shut | Reach | Hold | Faulted | Outward
