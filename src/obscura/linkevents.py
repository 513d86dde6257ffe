"""What happens on one link, as its connection tells it, and how the link is shaped once that is agreed."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import msgspec

from obscura.channel.resume import ResumeSecret
from obscura.handshake.machine import Negotiated
from obscura.shaping.padding import Cells, Padding
from obscura.shaping.schedule import IMMEDIATE, Schedule
from obscura.shaping.watch import Breach, Watch
from obscura.wire.address import CarrierNumber
from obscura.wire.frame import Malformed, Unknown
from obscura.wire.message import Message


class Reason(Enum):
    """Why a link ended. Only ``VIOLATION`` says anything about the peer; the others may be a man in the middle's work."""

    CLEAN = "closed cleanly"
    LOST = "connection lost"
    FAULT = "the channel failed"
    UNPROVEN = "the peer did not prove its key"
    VIOLATION = "protocol violation"
    REFUSED = "refused"
    TIMEOUT = "no handshake in time"
    STALLED = "the peer does not read"
    OURSELVES = "connected to itself"
    LOCAL = "closed by this node"


class Opened(msgspec.Struct, frozen=True):
    """The channel is up. ``session_id`` is the final handshake hash, shown for out-of-band comparison.

    ``resume_secret``: by which the session that begins here, if one does, may go on elsewhere.
    """

    session_id: bytes
    pattern: str
    peer_key: bytes | None
    resume_secret: ResumeSecret
    carrier: CarrierNumber | None = (
        None  # of several at one port the one that the client chose; None = as the link says
    )


class Established(msgspec.Struct, frozen=True):
    """Both veracks were exchanged; messages may flow."""

    negotiated: Negotiated


class Rejoined(msgspec.Struct, frozen=True):
    """A session that was established elsewhere has proved itself here. What comes behind is held until ``release``."""


class PeerLeft(msgspec.Struct, frozen=True):
    """The peer ended its direction while it was expected to leave. The own direction may go on."""


class Arriving(msgspec.Struct, frozen=True):
    """Something long is on its way, and bytes of it keep coming. ``type``: of its frame, "" = not known yet."""

    type: str


class Ended(msgspec.Struct, frozen=True):
    """Nothing is delivered after this. The socket may live on for a while, as the carrier's cover would."""

    reason: Reason
    detail: str = ""


Event = Message | Malformed | Unknown | Arriving | Breach | Opened | Established | Rejoined | PeerLeft | Ended


class Shape(NamedTuple):
    """How one link is shaped: its own direction's sizes and times, and what the peer's is held to (None: to nothing)."""

    padding: Padding
    schedule: Schedule
    watch: Watch | None


Shaping = Callable[[Negotiated], Shape]  # may raise ``Refused``


def unshaped(negotiated: Negotiated) -> Shape:
    """Cells and no schedule: what a link has until a level says more."""
    return Shape(Cells(), IMMEDIATE, None)
