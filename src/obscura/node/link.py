"""The engine's records of one socket and of the session that may move between two, and what they say of it."""

from __future__ import annotations

from typing import Any

from obscura.channel.resume import ResumeSecret
from obscura.connection import Connection
from obscura.handshake.machine import Negotiated
from obscura.linkevents import Opened, Reason
from obscura.morph.kinds import JOINABLE
from obscura.node.effects import LinkId
from obscura.node.face import Face, Purpose
from obscura.node.peer import Failure, Peer
from obscura.node.ratelimit import Meter, Rates
from obscura.security import Bare, Dialling
from obscura.wire.address import Address, CarrierNumber, Endpoint

UNPROVEN = "did not prove its key: offline, key changed, wrong clock, or interference"


class Link:
    """The engine's record of one socket."""

    __slots__ = (
        "attached",
        "awaits_room",
        "blocked_since",
        "carrier",
        "connection",
        "dialled",
        "face",
        "fault",
        "has_ended",
        "has_left",
        "held",
        "id",
        "inbound",
        "is_slow",
        "manual",
        "memory",
        "meter",
        "nonce",
        "opened",
        "peer",
        "purpose",
        "remote",
        "session",
    )

    def __init__(
        self,
        link: LinkId,
        *,
        dialled: Address | None,
        inbound: bool,
        manual: bool,
        face: Face,
        purpose: Purpose,
        rates: Rates,
    ) -> None:
        self.id = link
        self.connection: Connection | None = None
        self.dialled = dialled
        self.inbound = inbound
        self.manual = manual
        self.face = face
        self.purpose = purpose
        self.attached = 0.0  # when its socket stood
        self.carrier = CarrierNumber.PLAIN if dialled is None else dialled.carrier
        self.remote: Endpoint | None = None
        self.opened: Opened | None = None
        self.peer: Peer | None = None
        self.nonce = 0
        self.meter = Meter(rates)
        self.memory = 0  # bytes held for it when last counted
        self.is_slow = False  # much waits for it
        self.held = False  # we do not read from it
        self.has_ended = False  # the core was told, or need not be; the socket may live on
        self.session: Session | None = None  # which may move, or was to move here
        self.has_left = False  # what we send of it goes over another link
        self.awaits_room: int | None = None  # the core wants to hear when no more than so many bytes wait for it
        self.blocked_since: float | None = None  # its socket takes no more
        self.fault: Exception | None = None  # a defect of ours that it met: it ends at the next drain

    @property
    def core_id(self) -> LinkId:
        """The number by which the core knows it: that of its session, which may have moved here, or be about to."""
        return self.id if self.session is None else self.session.id

    @property
    def is_busy(self) -> bool:
        """Whether its socket, whose other side has ended, still gets something."""
        return self.connection is not None and self.fault is None and self.connection.is_busy


class Session:
    """What outlives a connection: its secret, the link that it runs over, and the one to which it moves, if it does."""

    __slots__ = ("id", "is_committed", "link", "next", "peer_left", "progress", "secret", "waits_since")

    def __init__(self, id: LinkId, link: Link, secret: ResumeSecret) -> None:
        self.id = id  # by which the core knows it
        self.link = link
        self.next: Link | None = None
        self.secret = secret
        self.is_committed = False  # the own side cannot go back to ``link``
        self.peer_left = False  # ``link`` brings nothing more
        self.progress = (0, 0)  # bytes of ``link`` at the last look
        self.waits_since = 0.0


def security_of(address: Address, face: Face, network_id: bytes) -> Dialling | Bare:
    """The initiator's side of the channel for an address."""
    if address.carrier is CarrierNumber.BARE:
        return Bare()
    return Dialling(network_id, face, address.key, joining=address.key is None and address.carrier in JOINABLE)


def peer_of(link: Link, negotiated: Negotiated, now: float) -> Peer:
    """What the reactions get to know of a link that has just been established."""
    opened = link.opened
    return Peer(
        link=link.id,
        face=link.face,
        carrier=_carrier_of(link),
        is_inbound=link.inbound,
        is_manual=link.manual,
        dialled=link.dialled,
        remote=link.remote,
        session_id=opened.session_id if opened is not None else b"",
        proved_key=opened.peer_key if opened is not None else None,
        pattern=opened.pattern if opened is not None else "none",
        negotiated=negotiated,
        since=now,
        purpose=link.purpose,
    )


def _carrier_of(link: Link) -> CarrierNumber:
    opened = link.opened
    return link.carrier if opened is None or opened.carrier is None else opened.carrier


def failure_of(link: Link, reason: Reason, why: str) -> tuple[Failure, str]:
    """What the end of a dialled link before its handshake says of the address, and in words."""
    failure = _failure_of(link, reason)
    if failure is Failure.UNPROVEN and link.dialled is not None:
        place = f"{link.dialled.host}:{link.dialled.port}"
        why = f"{place} {UNPROVEN}"
    return failure, why


def _failure_of(link: Link, reason: Reason) -> Failure:
    if reason is Reason.LOCAL:
        return Failure.LOCAL
    if reason is Reason.OURSELVES:
        return Failure.OURSELVES
    if link.opened is None:  # a connection stood, so whoever answered there has not the key that we expected
        return Failure.UNPROVEN if link.dialled is not None and link.dialled.key is not None else Failure.SILENT
    return Failure.SILENT if reason in (Reason.TIMEOUT, Reason.LOST) else Failure.REFUSED


SENT = ("wire_bytes_sent", "real_bytes_sent", "padding_bytes_sent", "dummy_bytes_sent")


def sent(connection: Connection) -> dict[str, int]:
    """What one link has sent and what cover has cost it: bytes of the socket, of frames, of padding, of whole dummies.

    The rest of the first are seals, flights and the carrier.
    """
    outbox = connection.outbox
    return dict(
        zip(
            SENT,
            (connection.wire_sent, outbox.real_sent, outbox.padding_sent, outbox.dummy_bytes_sent),
            strict=True,
        )
    )


def describe(peer: Peer, link: Link, now: float) -> dict[str, Any]:
    """What `obscura peers` shows of the link over which the peer is reached now, ready for JSON."""
    connection, opened = link.connection, link.opened
    return {
        "peer": peer.link,
        "address": str(link.dialled or (link.remote and f"{link.remote}") or ""),
        "inbound": peer.is_inbound,
        "manual": peer.is_manual,
        "face": peer.face.name.lower(),
        "carrier": _carrier_of(link).name.lower(),
        "pattern": opened.pattern if opened is not None else peer.pattern,
        "session_id": (opened.session_id if opened is not None else peer.session_id).hex(),
        "key_proved": opened is not None and opened.peer_key is not None,
        "features": list(peer.negotiated.flags.names),
        "protocol_version": peer.negotiated.version,
        "user_agent": peer.negotiated.peer.user_agent,
        "best_block_height": str(peer.negotiated.peer.best_block_height),
        "connected_s": round(now - peer.since, 3),
        **(sent(connection) if connection else dict.fromkeys(SENT, 0)),
        "wire_bytes_received": connection.wire_received if connection else 0,
        "dummies_sent": connection.outbox.dummies_sent if connection else 0,
        "dummies_received": connection.dummies_received if connection else 0,
        "queued_bytes": connection.waiting if connection else 0,
        "purpose": peer.purpose.name.lower(),
        "held_bytes": {
            "send_queue": connection.waiting if connection else 0,
            "incomplete_message": connection.buffered if connection else 0,
            "over_their_rate": link.meter.held,
        },
        "messages_served_late": link.meter.late,
    }
