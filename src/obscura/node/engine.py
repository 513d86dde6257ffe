"""All links of one node and its core, without I/O: what sockets and clocks bring goes in, what they shall do comes out.

Both interpreters (asyncio, simulator) do the same four things: pass bytes in, call ``due`` at ``deadline``, and after each
turn carry out what ``drain`` gives. One ``Write`` per link and turn, however many messages were queued.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from obscura.connection import Connection
from obscura.handshake.machine import Offer
from obscura.limits import FLOOD_POINTS, MEMORY_BUDGET, SEND_QUEUE_MAX, SEND_STALL_S
from obscura.linkevents import Ended, Established, Event, Reason, Shaping, unshaped
from obscura.morph.carrier import Carrier
from obscura.morph.kinds import CLIENTS
from obscura.node.admission import Admissions
from obscura.node.core import Core
from obscura.node.dialable import DIRECT, Ways
from obscura.node.effects import AwaitRoom, Credit, Dial, Disconnect, Effect, LinkId, Move, Penalise, Send, no_effect
from obscura.node.handover import Handover
from obscura.node.io import Faulted, Io, Listener, Outward, Reach, Shut, Write
from obscura.node.link import Link, describe, security_of
from obscura.node.ourselves import Ourselves
from obscura.node.outgoing import Outgoing
from obscura.node.peer import Face, Failure, Moved, Purpose
from obscura.node.pressure import Memory, greediest, hold, next_look
from obscura.node.ratelimit import Meter, Rates
from obscura.node.stages import Stage, Stages
from obscura.node.timers import Timers
from obscura.node.traffic import Traffic
from obscura.security import Bare, Dialling, Listening
from obscura.wire.address import Address, Endpoint
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
        admissions: Admissions,
        shaping: Callable[[Face], Shaping] = lambda face: unshaped,
        rates: Rates | None = None,
        ways: Ways = DIRECT,
        faces: int = 1,
    ) -> None:
        self.core = core
        self.links: dict[LinkId, Link] = {}
        self.traffic = traffic = Traffic()
        self._catalogue, self._network_id, self._offer_for = catalogue, network_id, offer_for
        self._rng, self._unix = rng, unix
        self._shaping, self._admissions = shaping, admissions
        self._rates, self._memory = rates or {}, Memory(MEMORY_BUDGET, faces)
        self._now, self._last_id, self._ourselves = now, 0, Ourselves()
        self._io: list[Io] = []
        self._dirty: dict[LinkId, None] = {}  # in order of touching, so that a replay is exact
        self._timers: Timers[LinkId] = Timers()
        self.is_stopping = False  # no link comes up any more
        self._handover = handover = Handover(self)
        self._outgoing = outgoing = Outgoing(self, core, handover, ways)
        self._stages = Stages(self, core, outgoing, handover, admissions, self._ourselves, traffic)
        self.connection_of: Callable[[Link], Callable[..., Connection]] = lambda link: Connection  # a recording's place

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
        return self._outgoing.dial(address, now, manual=manual, purpose=purpose, face=face)

    def move(self, link_id: LinkId, address: Address, now: float) -> None:
        """Begin to move an established link to a new connection to the same peer. Raises ``UserError`` where that cannot be.

        The core hears how it went by ``on_moved``; until then, and if it fails, the link goes on as it is.
        """
        self._now = now
        self._outgoing.move(link_id, address, now)

    def begin(self, address: Address, face: Face, *, manual: bool, purpose: Purpose) -> Link:
        """A new link, whose socket is asked for. What may be dialled is for ``dial`` and ``move`` to say."""
        link = self._new_link(face, dialled=address, manual=manual, purpose=purpose)
        self._io.append(Reach(link.id, address))
        return link

    def connected(self, link_id: LinkId, remote: Endpoint | None, now: float) -> None:
        """The socket of a dialled link is up."""
        link = self.links.get(link_id)
        if link is None or link.dialled is None or link.fault is not None:
            return
        address = link.dialled
        link.remote = remote
        security = security_of(address, link.face, self._network_id)
        self._attach(link, CLIENTS[address.carrier](address, self._rng, self._network_id), security, now)

    def unreachable(self, link_id: LinkId, why: str, now: float, failure: Failure = Failure.UNREACHABLE) -> None:
        """The socket of a dialled link could not be opened."""
        link = self.links.pop(link_id, None)
        if link is not None:
            self._now = now
            if not self._handover.failed(link, why, now):
                self._outgoing.failed(link, failure, why, now)

    def accepted(self, listener: Listener, remote: Endpoint | None, now: float, own_host: str = "") -> LinkId:
        """A socket was accepted; ``own_host``: the address that it was reached at."""
        self._now = now
        link = self._new_link(listener.face)
        link.carrier, link.remote = listener.address.carrier, remote
        try:
            if self.is_stopping or self.core.refuses(remote, now) is not None:
                self._drop(link)
                return link.id
            self.count_stranger(link)
            admission = self._admissions.of(listener.face)
            security = listener.security(self._network_id, lambda: admission.may_try(remote, self._now))
            self._attach(link, listener.served(self._rng, own_host), security, now)
        except Exception as fault:  # whoever called knows no number yet
            self.broke(link.id, fault)
        return link.id

    def receive(self, link_id: LinkId, data: bytes | memoryview, now: float) -> None:
        """Bytes of a socket; the buffer may be reused afterwards."""
        link = self.links.get(link_id)
        if link is None or link.connection is None or link.fault is not None:
            return
        self._now = now
        events = link.connection.receive(data, now)
        if events:
            self.deliver(link, events, now)
        self.touch(link)

    def eof(self, link_id: LinkId, now: float, *, is_lost: bool = False) -> None:
        """The peer's side of the socket ended, or (``is_lost``) all of it: then nobody gets what is still to be said."""
        link = self.links.get(link_id)
        if link is None:
            return
        self._now, link.blocked_since = now, None if is_lost else link.blocked_since  # no socket, no room to wait for
        if link.connection is not None and link.fault is None:
            self.deliver(link, link.connection.eof(now), now)
        if not self._handover.holds(link) and (is_lost or not link.is_busy):
            self._drop(link)

    def writable(self, link_id: LinkId, is_writable: bool, now: float) -> None:
        """The socket takes no more for now (back-pressure), or takes again."""
        link = self.links.get(link_id)
        if link is not None:
            link.blocked_since = None if is_writable else now
            self.touch(link)

    def broke(self, link_id: LinkId, fault: Exception) -> None:
        """A call about the link failed by a defect of this node, or of an application's reaction: it costs the link."""
        link = self.links.get(link_id)
        if link is not None:
            link.fault = link.fault or fault
            self.touch(link)

    # --- The archive and time -----------------------------------------------------------------------------------------

    def kept(self, token: int, now: float) -> None:
        """The archive has everything up to this ``Keep`` on the disk."""
        self._now = now
        self.apply(self.core.kept(token, now), now)

    def fetched(self, token: int, raw: bytes | None, now: float) -> None:
        """What the ``Fetch`` of this token found."""
        self._now = now
        self.apply(self.core.fetched(token, raw, now), now)

    def deadline(self) -> float:
        """When ``due`` wants to be called."""
        return min(self._timers.deadline(), self.core.deadline(), self._handover.deadline())

    def due(self, now: float) -> None:
        """A deadline has passed."""
        self._now = now
        for link_id in self._timers.due(now):
            link = self.links.get(link_id)
            if link is None or link.connection is None or link.fault is not None:
                continue
            if link.blocked_since is not None and now - link.blocked_since >= SEND_STALL_S:
                self.cut(link, Reason.STALLED, now)
                continue
            try:
                self.deliver(link, link.connection.due(now), now)
                self._react(link, link.meter.ready(now), now)
            except Exception as fault:
                link.fault = fault
            self.touch(link)
        self._handover.due(now)
        if self.core.deadline() <= now:
            self.apply(self.core.due(now), now)

    # --- What shall happen ------------------------------------------------------------------------------------------

    def apply(self, effects: Iterable[Effect], now: float) -> None:
        """Carry out effects of the core or of the application."""
        for effect in effects:
            if type(effect) is Send:
                self.send(effect.link, effect.message, now)
            elif isinstance(effect, Outward):
                self._io.append(effect)
            elif isinstance(effect, AwaitRoom):
                if (link := self._link_of(effect.link)) is not None:
                    link.awaits_room = effect.most if link.awaits_room is None else min(effect.most, link.awaits_room)
                    self.touch(link)
            elif isinstance(effect, Disconnect):
                self.disconnect(effect.link, effect.why, now)
            elif isinstance(effect, Penalise):
                self.apply(self.core.penalise(effect.link, effect.points, effect.why, now), now)
            elif isinstance(effect, Credit):
                self.apply(self.core.credit(effect.link, effect.merit, now), now)
            elif isinstance(effect, Dial):
                self._outgoing.dial_as_told(effect, now)
            elif isinstance(effect, Move):
                self._outgoing.move_as_told(effect, now)
            else:
                raise no_effect(effect)

    def send(self, link_id: LinkId, message: Message, now: float) -> bool:
        """Queue a message. False if the link is not established. A peer for whom too much waits is cut."""
        link = self._link_of(link_id)
        if link is None or link.connection is None or not link.connection.is_established:
            return False
        link.connection.send(message)
        self._dirty[link.id] = None
        if link.connection.waiting > SEND_QUEUE_MAX:
            self.cut(link, Reason.STALLED, now)
        return True

    def disconnect(self, link_id: LinkId, why: str, now: float) -> bool:
        """End a link cleanly. False if there is none."""
        link = self._link_of(link_id)
        if link is None:
            return False
        if link.connection is None:
            self.unreachable(link.id, why, now, Failure.LOCAL)
            return True
        events = link.connection.close(now, Reason.LOCAL, why)
        # Without an event it has failed already, perhaps later in the chunk that is being served: for the core it ends here.
        self.deliver(link, events or [Ended(Reason.LOCAL, why)], now)
        self.touch(link)
        return True

    def stop(self, now: float) -> None:
        """End every link, and let none come up any more. Links that had ended already and only keep up appearances go at once."""
        self.is_stopping = True
        for link, has_ended in [(link, link.has_ended) for link in self.links.values()]:
            if has_ended:
                self.cut(link, Reason.LOCAL, now)
            else:
                self.disconnect(link.id, "the node stops", now)

    def waiting(self, link_id: LinkId) -> int:
        """Bytes of frames queued for the link and not sealed yet; 0 if it is gone."""
        link = self._link_of(link_id)
        return link.connection.waiting if link is not None and link.connection is not None else 0

    def drain(self, now: float) -> Iterator[Io]:
        """Everything that sockets and subscribers shall get now, in order. Carry out each before asking for the next.

        Much that waits for one link is several writes; the next one is made only if the socket took the one before. A defect in
        what is one link's alone ends that link (``Faulted``); what else is raised here leaves nothing that could be relied on.
        """
        while self._dirty or self._io:
            dirty, self._dirty = self._dirty, {}
            for link_id in dirty:
                link = self.links.get(link_id)
                if link is not None and link.connection is not None and link.fault is None:
                    self._flush(link, link.connection, now)
                if link is not None and link.fault is not None:
                    self._break(link, link.fault, now)
            io, self._io = self._io, []
            yield from io

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _link_of(self, link_id: LinkId) -> Link | None:
        """By the number that the core knows: the link over which it is reached now."""
        return self._handover.link_of(link_id) or self.links.get(link_id)

    def _new_link(
        self, face: Face, *, dialled: Address | None = None, manual: bool = False, purpose: Purpose = Purpose.FULL
    ) -> Link:
        self._last_id += 1
        id, inbound = self._last_id, dialled is None
        link = Link(id, dialled=dialled, inbound=inbound, manual=manual, face=face, purpose=purpose, rates=self._rates)
        return self.links.setdefault(id, link)

    def _attach(self, link: Link, carrier: Carrier, security: Dialling | Listening | Bare, now: float) -> None:
        self._now = link.attached = now
        offer = self._offer_for(link.face, link.remote, isinstance(security, Bare))
        if isinstance(security, Bare):
            link.nonce = offer.version.nonce
            self._ourselves.say(link.id, link.nonce)
        link.connection = self.connection_of(link)(
            carrier,
            security,
            offer,
            self._catalogue,
            self._rng,
            self._unix,
            initiator=not link.inbound,
            now=now,
            shaping=self._shaping(link.face),
            resuming=None if isinstance(security, Bare) else self._handover.resuming(link),
            tallies=self.traffic.tallies,
        )
        self.deliver(link, link.connection.start(now), now)
        self.touch(link)

    def deliver(self, link: Link, events: list[Event], now: float) -> None:
        """What a chunk brought: within its rates at once, over them later or never."""
        if link.peer is None or not self._rates:
            self._react(link, events, now)
            return
        served, dropped = link.meter.admit(events, now)
        self._react(link, served, now)
        if dropped and link.peer is not None:  # what was served may have ended the link
            self.apply(self.core.penalise(link.peer.link, dropped * FLOOD_POINTS, "a flood of messages", now), now)

    def _react(self, link: Link, events: list[Event], now: float) -> None:
        routes, peer = self.core.routes, link.peer
        for index, event in enumerate(events):
            reaction = routes.get(type(event))  # type: ignore[arg-type]  # link events have no route
            if reaction is not None and peer is not None:
                effects = reaction(peer, event, now)
                if effects:
                    self.apply(effects, now)
                    peer = link.peer  # nothing more of a peer whose link that ended
            elif isinstance(event, Stage):
                self._stages.reach(link, event, now)
                if isinstance(event, Established):
                    self.deliver(link, events[index + 1 :], now)
                    return
                peer = link.peer

    # --- What handovers and stages ask for ----------------------------------------------------------------------------

    def count_stranger(self, link: Link) -> None:
        """An inbound socket that holds no slot; a newcomer beyond the limit replaces one of its kind."""
        victim = self._admissions.of(link.face).admit(link.id, link.remote)
        if victim is not None:
            self._drop(self.links[victim])

    def cut(self, link: Link, reason: Reason, now: float) -> None:
        """End a link without waiting for what is queued."""
        if link.connection is not None:
            self.deliver(link, link.connection.abort(now, reason) or [Ended(reason)], now)
            link.blocked_since = None  # whether its socket takes anything matters no more
            self.touch(link)

    def retire(self, link: Link, now: float, *, cleanly: bool) -> None:
        """End a link that carries its session no more, or not yet: the core does not hear of it."""
        link.peer, link.session, link.meter, link.has_ended = None, None, Meter({}), True
        if link.connection is None:
            self._drop(link)
            return
        if cleanly:
            link.connection.finish(now)
        else:
            link.connection.abort(now, Reason.LOST)
        if link.inbound and not link.connection.over:
            self.count_stranger(link)
        self.touch(link)

    def moved(self, moved: Moved, now: float) -> None:
        """Tell the core how a move went."""
        self.apply(self.core.moved(moved, now), now)

    def touch(self, link: Link) -> None:
        """Something changed: flush it at the next drain, and look at its deadline again."""
        self._dirty[link.id] = None

    def _flush(self, link: Link, connection: Connection, now: float) -> None:
        if link.blocked_since is None:
            try:
                pieces = connection.flush(now)
            except Exception as fault:
                link.fault = fault
                return
            if pieces:
                self._io.append(Write(link.id, pieces, connection.closing[1]))
            if connection.has_more:
                self._dirty[link.id] = None
            if connection.outbox.has_left:
                self._handover.left(link, now)
        if connection.over and link.blocked_since is None and not self._handover.holds(link):
            self._drop(link)  # not before its socket has taken the last words, if it takes any
            return
        waiting = connection.waiting
        if self._memory.count(link, waiting + connection.buffered + link.meter.held):
            self.cut(greediest(self.links.values(), link.face), Reason.STALLED, now)
        changed = hold(link, connection)
        if changed is not None:
            self._io.append(changed)
        if link.awaits_room is not None and waiting <= link.awaits_room:
            link.awaits_room = None
            self.apply(self.core.room(link.core_id, now), now)
        self._timers.set(link.id, next_look(link, connection, now))

    def _break(self, link: Link, fault: Exception, now: float) -> None:
        """End a link by a defect of ours. Its connection is asked nothing any more, and the peer sees a lost one."""
        self._io.append(Faulted(link.id, fault))
        self._stages.reach(link, Ended(Reason.LOCAL, "a defect of its own"), now)
        self._drop(link)

    def _drop(self, link: Link) -> None:
        """Forget the link and close its socket."""
        if self.links.pop(link.id, None) is None:
            return
        if link.connection is not None:
            self.traffic.ended(link)
        self._timers.clear(link.id)
        self._memory.count(link, 0)
        session_id = None if link.opened is None else link.opened.session_id
        self._ourselves.forget(link.nonce, session_id, inbound=link.inbound)
        if link.peer is not None:
            self._stages.end(link, Ended(Reason.LOST), self._now)
        elif link.session is not None:
            self._handover.failed(link, Reason.LOST.value, self._now)
        self._admissions.of(link.face).release(link.id)
        closing = () if link.connection is None or link.fault is not None else link.connection.closing
        self._io.append(Shut(link.id, *closing))

    def describe(self, now: float) -> list[dict[str, Any]]:
        """One dict per established link, ready for JSON."""
        found = [(peer, self._link_of(id)) for id, peer in self.core.peers.items()]
        return [{**describe(peer, link, now), **self.core.describe(peer.link, now)} for peer, link in found if link]
