"""All links of one node and its core, without I/O: what sockets and clocks bring goes in, what they shall do comes out.

Both interpreters (asyncio, simulator) do the same four things: pass bytes in, call ``due`` at ``deadline``, and after each
turn carry out what ``drain`` gives. One ``Write`` per link and turn, however many messages were queued.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from obscura.connection import Connection
from obscura.errors import AddressError
from obscura.handshake.machine import Offer
from obscura.limits import (
    BLOCKED_POLL_S,
    DISCONNECT_POINTS,
    FLOOD_POINTS,
    MEMORY_BUDGET,
    SEND_QUEUE_HIGH,
    SEND_QUEUE_LOW,
    SEND_QUEUE_MAX,
    SEND_STALL_S,
)
from obscura.linkevents import Ended, Established, Event, Opened, Reason, Shaping, unshaped
from obscura.morph.carrier import Carrier
from obscura.morph.kinds import CLIENTS, JOINABLE
from obscura.node.admission import AdmissionLimits, Admissions
from obscura.node.broadcast import Receipt
from obscura.node.core import Core
from obscura.node.dialable import DIRECT, Ways, check_dialable, face_of
from obscura.node.effects import (
    AwaitRoom,
    Credit,
    Dial,
    Disconnect,
    Effect,
    Fetch,
    Keep,
    LinkId,
    Lookup,
    Notify,
    Penalise,
    Send,
)
from obscura.node.groups import Grouping
from obscura.node.io import Hold, Io, Listener, Reach, Shut, Write
from obscura.node.link import SENT, Link, describe, failure_of, sent
from obscura.node.ourselves import Ourselves
from obscura.node.peer import DialFailed, Face, Failure, Peer, Purpose
from obscura.node.ratelimit import Rates
from obscura.node.timers import Timers
from obscura.node.traffic import Traffic
from obscura.security import Bare, Dialling, Listening
from obscura.wire.address import Address, CarrierNumber, Endpoint
from obscura.wire.catalogue import Catalogue
from obscura.wire.message import Message

OfferFor = Callable[[Face, Endpoint | None, bool], Offer]  # face, where we see the peer, whether the link is bare


class Engine:
    """One node's links. Entry points take ``now``; nothing is done until ``drain`` hands it out."""

    def __init__(
        self,
        core: Core,
        catalogue: Catalogue,
        network_id: bytes,
        offer_for: OfferFor,
        rng: random.Random,
        unix: Callable[[], int],
        *,
        now: float,
        shaping: Shaping = unshaped,
        admission: AdmissionLimits | None = None,
        loopback_is_free: bool = False,
        grouping: Grouping | None = None,
        rates: Rates | None = None,
        memory_budget: int = MEMORY_BUDGET,
        ways: Ways = DIRECT,
    ) -> None:
        self.core = core
        self.links: dict[LinkId, Link] = {}
        self.traffic = Traffic()
        self.sent_before = dict.fromkeys(SENT, 0)  # bytes, on links that ended
        self._catalogue = catalogue
        self._network_id = network_id
        self._offer_for = offer_for
        self._rng = rng
        self._unix = unix
        self._shaping = shaping
        self._admissions = Admissions(
            admission or AdmissionLimits(), loopback_is_free=loopback_is_free, now=now, grouping=grouping or Grouping()
        )
        self._rates, self._ways = rates or {}, ways
        self._memory_budget = memory_budget
        self._memory = 0  # bytes held for all peers
        self._now = now
        self._last_id = 0
        self._io: list[Io] = []
        self._dirty: dict[LinkId, None] = {}  # in order of touching, so that a replay is exact
        self._timers: Timers[LinkId] = Timers()
        self._ourselves = Ourselves()
        self._is_stopping = False

    # --- Sockets come and go ----------------------------------------------------------------------------------------

    def dial(
        self,
        address: Address,
        now: float,
        *,
        manual: bool = False,
        purpose: Purpose = Purpose.FULL,
        face: Face | None = None,
    ) -> LinkId:
        """Start a link. Raises ``AddressError`` where that carrier may not be used for that address (design 8)."""
        self._now = now
        face = face or face_of(address)
        check_dialable(address, face, self._ways)
        if self._is_stopping:
            raise AddressError(f"{address} is not dialled any more: the node stops")
        unwanted = self.core.refuses(address.endpoint, now)
        if unwanted is not None:
            raise AddressError(f"{address.host} is {unwanted}")
        link = self._new_link(dialled=address, inbound=False, manual=manual, face=face, purpose=purpose)
        self._io.append(Reach(link.id, address))
        return link.id

    def connected(self, link_id: LinkId, remote: Endpoint | None, now: float) -> None:
        """The socket of a dialled link is up."""
        link = self.links.get(link_id)
        if link is None or link.dialled is None:
            return
        address = link.dialled
        link.remote = remote
        security = (
            Bare()
            if address.carrier is CarrierNumber.BARE
            else Dialling(
                self._network_id,
                link.face,
                address.key,
                joining=address.key is None and address.carrier in JOINABLE,
            )
        )
        self._attach(link, CLIENTS[address.carrier](address, self._rng, self._network_id), security, now)

    def unreachable(self, link_id: LinkId, why: str, now: float, failure: Failure = Failure.UNREACHABLE) -> None:
        """The socket of a dialled link could not be opened."""
        link = self.links.pop(link_id, None)
        if link is not None:
            self._now = now
            self._dial_failed(link, failure, why, now)

    def accepted(self, listener: Listener, remote: Endpoint | None, now: float) -> LinkId:
        """A socket was accepted."""
        self._now = now
        link = self._new_link(dialled=None, inbound=True, manual=False, face=listener.face)
        link.carrier = listener.address.carrier
        link.remote = remote
        if self._is_stopping or self.core.refuses(remote, now) is not None:
            self._drop(link)
            return link.id
        self._count_stranger(link)
        security: Listening | Bare = Bare()
        if listener.static is not None:
            security = Listening(
                self._network_id,
                listener.face,
                listener.static,
                listener.strangers,
                listener.replay,
                lambda: self._admissions.of(listener.face).may_try(remote, self._now),
            )
        self._attach(link, listener.carrier(self._rng), security, now)
        return link.id

    def receive(self, link_id: LinkId, data: bytes | memoryview, now: float) -> None:
        """Bytes of a socket; the buffer may be reused afterwards."""
        link = self.links.get(link_id)
        if link is None or link.connection is None:
            return
        self._now = now
        events = link.connection.receive(data, now)
        if events:
            self._on_events(link, events, now)
        self._touch(link)

    def eof(self, link_id: LinkId, now: float) -> None:
        """The peer's side of the socket ended, or it broke."""
        link = self.links.get(link_id)
        if link is None:
            return
        self._now = now
        if link.connection is not None:
            self._on_events(link, link.connection.eof(now), now)
        self._drop(link)

    def writable(self, link_id: LinkId, is_writable: bool, now: float) -> None:
        """The socket takes no more for now (back-pressure), or takes again."""
        link = self.links.get(link_id)
        if link is not None:
            link.blocked_since = None if is_writable else now
            self._touch(link)

    # --- The archive ------------------------------------------------------------------------------------------------

    def kept(self, token: int, now: float) -> None:
        """The archive has everything up to this ``Keep`` on the disk."""
        self._now = now
        self.apply(self.core.kept(token, now), now)

    def fetched(self, token: int, raw: bytes | None, now: float) -> None:
        """What the ``Fetch`` of this token found."""
        self._now = now
        self.apply(self.core.fetched(token, raw, now), now)

    # --- Time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When ``due`` wants to be called."""
        return min(self._timers.deadline(), self.core.deadline())

    def due(self, now: float) -> None:
        """A deadline has passed."""
        self._now = now
        for link_id in self._timers.due(now):
            link = self.links.get(link_id)
            if link is None or link.connection is None:
                continue
            if link.blocked_since is not None and now - link.blocked_since >= SEND_STALL_S:
                self._cut(link, Reason.STALLED, now)
                continue
            self._on_events(link, link.connection.due(now), now)
            self._react(link, link.meter.ready(now), now)
            self._touch(link)
        if self.core.deadline() <= now:
            self.apply(self.core.due(now), now)

    # --- What shall happen ------------------------------------------------------------------------------------------

    def apply(self, effects: Iterable[Effect], now: float) -> None:
        """Carry out effects of the core or of the application."""
        for effect in effects:
            if type(effect) is Send:
                self.send(effect.link, effect.message, now)
            elif isinstance(effect, Notify | Keep | Fetch | Lookup | Receipt):
                self._io.append(effect)
            elif isinstance(effect, AwaitRoom):
                self._await_room(effect.link)
            elif isinstance(effect, Disconnect):
                self.disconnect(effect.link, effect.why, now)
            elif isinstance(effect, Penalise):
                self.apply(self.core.penalise(effect.link, effect.points, effect.why, now), now)
            elif isinstance(effect, Credit):
                self.apply(self.core.credit(effect.link, effect.merit, now), now)
            elif isinstance(effect, Dial):
                self._dial(effect, now)

    def send(self, link_id: LinkId, message: Message, now: float) -> bool:
        """Queue a message. False if the link is not established. A peer for whom too much waits is cut."""
        link = self.links.get(link_id)
        if link is None or link.connection is None or not link.connection.is_established:
            return False
        link.connection.send(message)
        self._dirty[link_id] = None
        if link.connection.waiting > SEND_QUEUE_MAX:
            self._cut(link, Reason.STALLED, now)
        return True

    def disconnect(self, link_id: LinkId, why: str, now: float) -> bool:
        """End a link cleanly. False if there is none."""
        link = self.links.get(link_id)
        if link is None:
            return False
        if link.connection is None:
            self.unreachable(link_id, why, now, Failure.LOCAL)
            return True
        events = link.connection.close(now, Reason.LOCAL, why)
        # Without an event it has failed already, perhaps later in the chunk that is being served: for the core it ends here.
        self._on_events(link, events or [Ended(Reason.LOCAL, why)], now)
        self._touch(link)
        return True

    def stop(self, now: float) -> None:
        """End every link, and let none come up any more. Links that had ended already and only keep up appearances go at once."""
        self._is_stopping = True
        for link in list(self.links.values()):
            if link.has_ended:
                self._cut(link, Reason.LOCAL, now)
            else:
                self.disconnect(link.id, "the node stops", now)

    def waiting(self, link_id: LinkId) -> int:
        """Bytes of frames queued for the link and not sealed yet; 0 if it is gone."""
        link = self.links.get(link_id)
        return link.connection.waiting if link is not None and link.connection is not None else 0

    def drain(self, now: float) -> Iterator[Io]:
        """Everything that sockets and subscribers shall get now, in order. Carry out each before asking for the next.

        Much that waits for one link is several writes; the next one is made only if the socket took the one before.
        """
        while self._dirty or self._io:
            dirty, self._dirty = self._dirty, {}
            for link_id in dirty:
                link = self.links.get(link_id)
                if link is not None and link.connection is not None:
                    self._flush(link, link.connection, now)
            io, self._io = self._io, []
            yield from io

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _dial(self, wanted: Dial, now: float) -> None:
        if self._is_stopping:
            return
        address, manual, purpose = wanted.address, wanted.manual, wanted.purpose
        try:
            self.dial(address, now, manual=manual, purpose=purpose, face=wanted.face)
        except AddressError as error:
            failed = DialFailed(0, address, Failure.LOCAL, str(error), purpose, manual)
            self.apply(self.core.dial_failed(failed, now), now)

    def _dial_failed(self, link: Link, failure: Failure, why: str, now: float) -> None:
        if link.dialled is not None:
            failed = DialFailed(link.id, link.dialled, failure, why, link.purpose, link.manual)
            self.apply(self.core.dial_failed(failed, now), now)

    def _new_link(
        self,
        *,
        dialled: Address | None,
        inbound: bool,
        manual: bool,
        face: Face,
        purpose: Purpose = Purpose.FULL,
    ) -> Link:
        self._last_id += 1
        link = Link(
            self._last_id,
            dialled=dialled,
            inbound=inbound,
            manual=manual,
            face=face,
            purpose=purpose,
            rates=self._rates,
        )
        self.links[link.id] = link
        return link

    def _attach(self, link: Link, carrier: Carrier, security: Dialling | Listening | Bare, now: float) -> None:
        self._now = link.attached = now
        offer = self._offer_for(link.face, link.remote, isinstance(security, Bare))
        if isinstance(security, Bare):
            link.nonce = offer.version.nonce
            self._ourselves.say(link.id, link.nonce)
        link.connection = Connection(
            carrier,
            security,
            offer,
            self._catalogue,
            self._rng,
            self._unix,
            initiator=not link.inbound,
            now=now,
            shaping=self._shaping,
        )
        self._on_events(link, link.connection.start(now), now)
        self._touch(link)

    def _on_events(self, link: Link, events: list[Event], now: float) -> None:
        """What a chunk brought: within its rates at once, over them later or never."""
        if link.peer is None or not self._rates:
            self._react(link, events, now)
            return
        served, dropped = link.meter.admit(events, now)
        self._react(link, served, now)
        if dropped:
            self.apply(self.core.penalise(link.id, dropped * FLOOD_POINTS, "a flood of messages", now), now)

    def _react(self, link: Link, events: list[Event], now: float) -> None:
        routes, peer = self.core.routes, link.peer
        for index, event in enumerate(events):
            reaction = routes.get(type(event))  # type: ignore[arg-type]  # link events have no route
            if reaction is not None and peer is not None:
                effects = reaction(peer, event, now)
                if effects:
                    self.apply(effects, now)
                    peer = link.peer  # nothing more of a peer whose link that ended
            elif isinstance(event, Opened | Established | Ended):
                self._on_link_event(link, event, now)
                if isinstance(event, Established):
                    self._on_events(link, events[index + 1 :], now)
                    return
                peer = link.peer

    def _on_link_event(self, link: Link, event: Opened | Established | Ended, now: float) -> None:
        if link.has_ended:
            return
        if isinstance(event, Opened):
            link.opened = event
            other = self._ourselves.opened(link.id, event.session_id, inbound=link.inbound)
            if other is not None:
                self._cut_ourselves(other, link.id, now)
        elif isinstance(event, Established):
            self._on_established(link, event, now)
        else:
            self._on_ended(link, event, now)

    def _on_established(self, link: Link, event: Established, now: float) -> None:
        opened = link.opened
        if opened is None and (other := self._ourselves.heard(event.negotiated.peer.nonce)) is not None:
            self._cut_ourselves(other, link.id, now)
            return
        peer = Peer(
            link=link.id,
            face=link.face,
            carrier=link.carrier,
            is_inbound=link.inbound,
            is_manual=link.manual,
            dialled=link.dialled,
            remote=link.remote,
            session_id=opened.session_id if opened is not None else b"",
            proved_key=opened.peer_key if opened is not None else None,
            pattern=opened.pattern if opened is not None else "none",
            negotiated=event.negotiated,
            since=now,
            purpose=link.purpose,
        )
        room = self.core.room_for(peer, now) if link.inbound else ()
        if room is None:
            self.disconnect(link.id, "no free inbound slot", now)
            return
        self.apply(room, now)
        self._admissions.of(link.face).release(link.id)  # from here on it has a slot
        self.traffic.handshakes.observe(now - link.attached)
        link.peer = peer
        self.apply(self.core.established(peer, now), now)

    def _on_ended(self, link: Link, event: Ended, now: float) -> None:
        link.has_ended = True
        if link.inbound and link.connection is not None and not link.connection.over:
            self._count_stranger(link)  # its socket lives on for a while, in no slot
        why = f"{event.reason.value}: {event.detail}" if event.detail else event.reason.value
        if link.peer is not None:
            link.peer = None
            if event.reason is Reason.VIOLATION:
                self.apply(self.core.penalise(link.id, DISCONNECT_POINTS, why, now), now)
            self.apply(self.core.closed(link.id, why, now), now)
        elif link.dialled is not None:
            failure = failure_of(link, event.reason)
            if failure is Failure.UNPROVEN:
                place = f"{link.dialled.host}:{link.dialled.port}"
                why = f"{place} did not prove its key: offline, key changed, wrong clock, or interference"
            self._dial_failed(link, failure, why, now)

    def _cut_ourselves(self, one: LinkId, other: LinkId, now: float) -> None:
        for link_id in (one, other):
            if link_id in self.links:
                self._cut(self.links[link_id], Reason.OURSELVES, now)

    def _count_stranger(self, link: Link) -> None:
        """An inbound socket that holds no slot; a newcomer beyond the limit replaces one of its kind."""
        victim = self._admissions.of(link.face).admit(link.id, link.remote)
        if victim is not None:
            self._drop(self.links[victim])

    def _cut(self, link: Link, reason: Reason, now: float) -> None:
        """End a link without waiting for what is queued."""
        if link.connection is not None:
            self._on_events(link, link.connection.abort(now, reason) or [Ended(reason)], now)
            self._touch(link)

    def _await_room(self, link_id: LinkId) -> None:
        link = self.links.get(link_id)
        if link is not None:
            link.awaits_room = True
            self._touch(link)

    def _touch(self, link: Link) -> None:
        """Something changed: flush it at the next drain, and look at its deadline again."""
        self._dirty[link.id] = None

    def _flush(self, link: Link, connection: Connection, now: float) -> None:
        if link.blocked_since is None:
            pieces = connection.flush(now)
            if pieces:
                self._io.append(Write(link.id, pieces))
            if connection.has_more:
                self._dirty[link.id] = None
        if connection.over:
            self._drop(link)
            return
        waiting = connection.waiting
        self._count_memory(link, waiting + connection.buffered + link.meter.held, now)
        is_behind = link.meter.is_behind
        if (waiting > SEND_QUEUE_HIGH or connection.is_full or is_behind) and not link.held:
            link.held = True  # who does not read, or sends over its rate, is not read from
            self._io.append(Hold(link.id, True))
        elif waiting <= SEND_QUEUE_LOW and link.held and not connection.is_full and not is_behind:
            link.held = False
            self._io.append(Hold(link.id, False))
        if link.awaits_room and waiting <= SEND_QUEUE_LOW:
            link.awaits_room = False
            self.apply(self.core.room(link.id, now), now)
        deadline = min(connection.deadline(), link.meter.deadline(now))
        if link.blocked_since is not None:
            later = max(deadline, now + BLOCKED_POLL_S)  # a schedule that is due cannot be served now
            deadline = min(later, link.blocked_since + SEND_STALL_S)
        self._timers.set(link.id, deadline)

    def _count_memory(self, link: Link, held: int, now: float) -> None:
        """Keep the sum; over the budget whoever makes us hold most goes, manual peers last."""
        self._memory += held - link.memory
        link.memory = held
        if self._memory > self._memory_budget:
            greediest = max(self.links.values(), key=lambda other: (not other.manual, other.memory))
            self._cut(greediest, Reason.STALLED, now)

    def _drop(self, link: Link) -> None:
        """Forget the link and close its socket."""
        if self.links.pop(link.id, None) is None:
            return
        if link.connection is not None:
            self.traffic.ended(link)
            for name, amount in sent(link.connection).items():
                self.sent_before[name] += amount
        self._timers.clear(link.id)
        self._memory -= link.memory
        link.memory = 0
        session_id = None if link.opened is None else link.opened.session_id
        self._ourselves.forget(link.nonce, session_id, inbound=link.inbound)
        if link.peer is not None:
            self._on_ended(link, Ended(Reason.LOST), self._now)
        self._admissions.of(link.face).release(link.id)
        self._io.append(Shut(link.id, *(() if link.connection is None else link.connection.closing)))

    def describe(self, now: float) -> list[dict[str, Any]]:
        """One dict per established link, ready for JSON."""
        return [
            {**describe(peer, self.links[link_id], now), **self.core.describe(link_id, now)}
            for link_id, peer in self.core.peers.items()
        ]
