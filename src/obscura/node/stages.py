"""What the stages of a link mean to the node: its channel is up, it is established, its session moves, it has ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from obscura.limits import DISCONNECT_POINTS
from obscura.linkevents import Ended, Established, Opened, PeerLeft, Reason, Rejoined
from obscura.node.admission import Admissions
from obscura.node.core import Core
from obscura.node.effects import Effect, LinkId
from obscura.node.handover import Handover
from obscura.node.link import Link, failure_of, peer_of
from obscura.node.ourselves import Ourselves
from obscura.node.outgoing import Outgoing
from obscura.node.ratelimit import Meter
from obscura.node.traffic import Traffic

Stage = Opened | Established | Rejoined | PeerLeft | Ended


class Links(Protocol):
    """What a stage asks of the engine."""

    @property
    def links(self) -> Mapping[LinkId, Link]:
        """All there are."""
        ...

    def apply(self, effects: Iterable[Effect], now: float) -> None:
        """Carry out effects of the core."""
        ...

    def disconnect(self, link_id: LinkId, why: str, now: float) -> bool:
        """End a link cleanly."""
        ...

    def cut(self, link: Link, reason: Reason, now: float) -> None:
        """End a link at once."""
        ...

    def count_stranger(self, link: Link) -> None:
        """An inbound socket holds no slot any more."""
        ...


class Stages:
    """Of all links of one node."""

    def __init__(
        self,
        links: Links,
        core: Core,
        outgoing: Outgoing,
        handover: Handover,
        admissions: Admissions,
        ourselves: Ourselves,
        traffic: Traffic,
    ) -> None:
        self._links = links
        self._core = core
        self._outgoing = outgoing
        self._handover = handover
        self._admissions = admissions
        self._ourselves = ourselves
        self._traffic = traffic

    def reach(self, link: Link, stage: Stage, now: float) -> None:
        """A link has come to a stage; nothing follows its end."""
        if link.has_ended:
            return
        if isinstance(stage, Opened):
            link.opened = stage
            other = self._ourselves.opened(link.id, stage.session_id, inbound=link.inbound)
            if other is not None:
                self._cut_ourselves(other, link.id, now)
            self._handover.opened(link)
        elif isinstance(stage, Established):
            self._establish(link, stage, now)
        elif isinstance(stage, Rejoined):
            self._admissions.of(link.face).release(link.id)
            self._handover.rejoined(link, now)
        elif isinstance(stage, PeerLeft):
            self._handover.peer_left(link, now)
        else:
            self.end(link, stage, now)

    def end(self, link: Link, stage: Ended, now: float) -> None:
        """The core hears that the link, or the attempt to make it, is over."""
        link.has_ended, link.meter = True, Meter({})  # its socket may live on: nothing is held for it any more
        if link.inbound and link.connection is not None and not link.connection.over:
            self._links.count_stranger(link)  # its socket lives on for a while, in no slot
        why = f"{stage.reason.value}: {stage.detail}" if stage.detail else stage.reason.value
        if link.peer is not None:
            known, link.peer = link.peer.link, None
            self._handover.over(link, now)
            if stage.reason is Reason.VIOLATION:
                self._links.apply(self._core.penalise(known, DISCONNECT_POINTS, why, now), now)
            self._links.apply(self._core.closed(known, why, now), now)
        elif not self._handover.failed(link, why, now, stage) and link.dialled is not None:
            self._outgoing.failed(link, *failure_of(link, stage.reason, why), now)

    def _establish(self, link: Link, stage: Established, now: float) -> None:
        opened = link.opened
        if opened is None and (other := self._ourselves.heard(stage.negotiated.peer.nonce)) is not None:
            self._cut_ourselves(other, link.id, now)
            return
        peer = peer_of(link, stage.negotiated, now)
        room = self._core.room_for(peer, now) if link.inbound else ()
        if room is None:
            self._links.disconnect(link.id, "no free inbound slot", now)
            return
        self._links.apply(room, now)
        self._admissions.of(link.face).release(link.id)  # from here on it has a slot
        self._traffic.handshakes.observe(now - link.attached)
        link.peer = peer
        self._handover.begin(link)
        self._links.apply(self._core.established(peer, now), now)

    def _cut_ourselves(self, one: LinkId, other: LinkId, now: float) -> None:
        for link_id in (one, other):
            if link_id in self._links.links:
                self._links.cut(self._links.links[link_id], Reason.OURSELVES, now)
