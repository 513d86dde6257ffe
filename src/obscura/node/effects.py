"""What a reaction may want done. Values only; the engine and the two interpreters carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from obscura.errors import ExtensionFault
from obscura.limits import SEND_QUEUE_LOW
from obscura.node.broadcast import Receipt
from obscura.node.face import Face, Purpose
from obscura.wire.address import Address
from obscura.wire.message import Message

LinkId = int


class Send(msgspec.Struct, frozen=True, gc=False):
    """Queue a message on an established link; nothing happens if the link is gone."""

    link: LinkId
    message: Message


class Disconnect(msgspec.Struct, frozen=True):
    """End a link cleanly. ``why`` is for the own operator; the peer sees a clean end."""

    link: LinkId
    why: str


class Dial(msgspec.Struct, frozen=True):
    """Open a link. ``manual`` = wanted by the operator: exempt from slots. ``face`` None = the address's own one."""

    address: Address
    manual: bool = False
    purpose: Purpose = Purpose.FULL
    face: Face | None = None


class Move(msgspec.Struct, frozen=True):
    """Let an established link that this node made go on over a new connection to the same peer (design 8, rotation)."""

    link: LinkId
    address: Address


class Penalise(msgspec.Struct, frozen=True):
    """A fault in *authenticated* content (design 10): ``points`` against the peer of the link."""

    link: LinkId
    points: int
    why: str


class Merit(Enum):
    """What a peer was the first to bring. It protects the peer from eviction (design 10)."""

    BLOCK = "block"
    TRANSACTION = "transaction"


class Credit(msgspec.Struct, frozen=True):
    """The peer of the link was the first to bring something new and valid."""

    link: LinkId
    merit: Merit


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A transaction of the mempool as it is kept over a restart. ``arrival`` in unix seconds."""

    id: bytes
    raw: bytes
    arrival: float
    own: bool


class Keep(msgspec.Struct, frozen=True):
    """Write to the archive, behind everything given before; fields in the order in which they are written.

    Once all of it is on the disk the core hears ``on_kept`` with this token or a later one: tokens ascend.
    """

    token: int
    headers: tuple[bytes, ...] = ()  # parents first
    block: tuple[bytes, bytes, int] | None = None  # id, bytes, height
    refused: bytes | None = None  # id of a block that can never be valid
    tip: tuple[bytes, int] | None = None  # id, height
    transactions: tuple[Waiting, ...] = ()
    dropped: tuple[bytes, ...] = ()  # ids of transactions that wait no longer


DAMAGED = b""  # what a fetch finds of a block that is on the disk and not what was written


class Fetch(msgspec.Struct, frozen=True, gc=False):
    """Read a block from the archive; the core hears ``on_fetched`` with the token and it, ``DAMAGED``, or None: not there."""

    block_id: bytes
    token: int


class AwaitRoom(msgspec.Struct, frozen=True, gc=False):
    """Once at most so many bytes wait for the link, perhaps at once, the core hears ``on_room``. Who waits for less is heeded."""

    link: LinkId
    most: int = SEND_QUEUE_LOW


class Lookup(msgspec.Struct, frozen=True):
    """Ask a DNS-over-HTTPS provider of the section ``seeds`` for records of a name; ``Seeds.answered`` hears what came."""

    provider: str
    name: str
    kinds: tuple[str, ...]  # TXT, A, AAAA


class Notify(msgspec.Struct, frozen=True):
    """Tell the application and RPC subscribers. ``fields`` is ready for JSON. Raises ``ExtensionFault`` where it is none."""

    kind: str
    fields: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.fields, Mapping):  # where it is made it costs a link, where it is carried out the node
            raise ExtensionFault("the fields of a Notify are a mapping, such as {}")


Effect = Send | Disconnect | Dial | Move | Penalise | Credit | Notify | Keep | Fetch | AwaitRoom | Lookup | Receipt


def no_effect(found: object) -> ExtensionFault:
    """What to raise for something else than an effect."""
    return ExtensionFault(f"{type(found).__name__} is no effect: obscura.node.effects has those that there are")
