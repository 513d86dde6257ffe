"""Sessions that move to another connection while messages flow: make before break (design 8, *rotation*).

Of two connections of a session, *old* and *new*, each direction is in one at a time. The initiator proves the session on the new
one (``resume``), the responder answers (``resumed``). From here on the initiator cannot go back: it ends its old direction with
flag 2 at a boundary of a frame and goes on in the new one. That flag 2 is the responder's sign to do the same. Whoever receives
holds what comes in the new connection until the old direction has ended: nothing is lost, doubled or overtaken. Until the
initiator leaves, the new connection may fail without consequence; afterwards the loss of either ends the session like any link.
"""

from __future__ import annotations

from typing import Protocol

from obscura.channel.resume import Find, ResumeSecret
from obscura.errors import UserError
from obscura.limits import MOVE_IDLE_S, MOVE_WAIT_S
from obscura.linkevents import Ended, Event, Reason
from obscura.node.effects import LinkId
from obscura.node.link import Link, Session
from obscura.node.peer import Moved
from obscura.node.timers import Timers

LOST = Ended(Reason.LOST)


class Links(Protocol):
    """What a handover asks of the engine."""

    def deliver(self, link: Link, events: list[Event], now: float) -> None:
        """Serve what a link brought."""
        ...

    def cut(self, link: Link, reason: Reason, now: float) -> None:
        """End a link at once, as if it had broken."""
        ...

    def retire(self, link: Link, now: float, *, cleanly: bool) -> None:
        """The link carries its session no more: let it go without a word to the core."""
        ...

    def touch(self, link: Link) -> None:
        """Something is to be sent on the link, or its deadline has changed."""
        ...

    def moved(self, moved: Moved, now: float) -> None:
        """Tell how a move went."""
        ...


class Handover:
    """All sessions of one node. Bounded: one secret per established link, one move at a time for each."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._sessions: dict[LinkId, Session] = {}
        self._by_id: dict[bytes, Session] = {}  # inbound ones that may move, by what ``resume`` would say
        self._timers: Timers[LinkId] = Timers()

    # --- Sessions ---------------------------------------------------------------------------------------------------

    def begin(self, link: Link) -> None:
        """A link is established."""
        if link.opened is not None:  # a bare one has no secret, and stays where it is
            link.session = session = Session(link.id, link, link.opened.resume_secret)
            self._sessions[link.id] = session
            self._admit(session)

    def link_of(self, id: LinkId) -> Link | None:
        """The link over which a session sends now; None if it runs where it began, or is over."""
        session = self._sessions.get(id)
        if session is None:
            return None
        has_left = session.next is not None and session.link.connection is not None and session.link.has_left
        return session.next if has_left else session.link

    def generation(self, id: LinkId) -> int:
        """How often the session has moved."""
        session = self._sessions.get(id)
        return session.secret.generation if session is not None else 0

    def over(self, link: Link, now: float) -> None:
        """The core was told that the session over this link has ended: nothing of it goes on."""
        session, link.session = link.session, None
        if session is None or self._sessions.pop(session.id, None) is None:
            return
        self._forget(session)
        for other in (session.link, session.next):
            if other is not None and other is not link:
                self._links.retire(other, now, cleanly=False)

    # --- The initiator ----------------------------------------------------------------------------------------------

    def movable(self, id: LinkId) -> Session:
        """The session, if this side may move it now. Raises ``UserError``."""
        session = self._sessions.get(id)
        if session is None:
            raise UserError(f"there is no encrypted link {id}: `obscura peers` lists them")
        if session.link.inbound:
            raise UserError(f"peer {id} made this link, and only the side that made it can move it")
        if session.next is not None:
            raise UserError(f"the link with peer {id} is being moved already")
        return session

    def resuming(self, link: Link) -> ResumeSecret | Find | None:
        """What the channel of a fresh link needs for ``resume``: the secret, or whom to ask for one."""
        if link.inbound:
            return lambda id: self._find(link, id)
        return None if link.session is None else link.session.secret

    def opened(self, link: Link) -> None:
        """A channel is up. If a session moves there, ``resume`` is on its way, and the peer may leave."""
        session = link.session
        if session is not None and session.next is link and session.link.connection is not None:
            session.link.connection.expects_leave = True

    # --- What the connections tell ----------------------------------------------------------------------------------

    def rejoined(self, link: Link, now: float) -> None:
        """``resume`` or ``resumed`` was right."""
        session = link.session
        assert session is not None
        if not link.inbound:
            self._commit(session, link, now)
            return
        if session.next is not None:  # the initiator has given that one up
            self._links.retire(session.next, now, cleanly=False)
        session.next = link
        self.opened(link)
        session.progress = self._progress(session)
        self._timers.set(session.id, now + MOVE_WAIT_S)

    def peer_left(self, link: Link, now: float) -> None:
        """The peer's direction on the old connection has ended."""
        session = link.session
        if session is None or session.next is None or session.link is not link:
            self._links.cut(link, Reason.LOST, now)
            return
        session.peer_left = True
        if session.is_committed:
            self._release(session, session.next, now)
        elif link.inbound:
            self._commit(session, session.next, now)

    def left(self, link: Link, now: float) -> None:
        """The own direction on the old connection has ended: what waits goes on in the new one."""
        session = link.session
        if session is None or session.next is None or link.connection is None or link.has_left:
            return
        new = session.next
        assert new.connection is not None
        link.has_left = True
        link.connection.outbox.hand_over(new.connection.outbox)
        new.awaits_room, link.awaits_room = link.awaits_room, None
        self._links.touch(new)
        self._settle(session, new, now)

    def failed(self, link: Link, why: str, now: float, ended: Ended = LOST) -> bool:
        """A link that is not established has ended. Whether a session was to move there: nobody else needs to hear of it then.

        ``ended``: what the core is told of a session that ends with it.
        """
        session, link.session = link.session, None
        if session is None or session.next is not link:
            return session is not None and not link.inbound
        session.next = None
        self._timers.clear(session.id)
        if not link.inbound:
            self._links.moved(Moved(session.id, link.dialled, session.secret.generation, why), now)
        if session.is_committed or session.peer_left:
            self._links.deliver(session.link, [ended], now)
            self._links.cut(session.link, Reason.LOST, now)
        elif session.link.connection is not None:
            session.link.connection.expects_leave = False
        return True

    def holds(self, link: Link) -> bool:
        """Whether what the link has brought still waits for the old one's end, though its own socket may have ended."""
        session = link.session
        if session is None or session.next is not link or not session.is_committed:
            return False
        return link.connection is not None and link.connection.is_parked

    # --- Time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When ``due`` wants to be called."""
        return self._timers.deadline()

    def due(self, now: float) -> None:
        """Moves that take too long: one that never began is dropped, one that is stuck half way ends the session."""
        for id in self._timers.due(now):
            session = self._sessions.get(id)
            if session is None or session.next is None:
                continue
            is_stuck = self._progress(session) == session.progress
            if not session.is_committed and (is_stuck or not self._is_amid(session)):
                self._links.cut(session.next, Reason.TIMEOUT, now)
            elif is_stuck:
                self._links.cut(session.link, Reason.LOST, now)
            else:
                self._look_later(session, now)

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _find(self, link: Link, id: bytes) -> ResumeSecret | None:
        """Faces of this node are not linked by anything: a session of another face does not exist here."""
        session = self._by_id.get(id)
        if session is None or session.link.face is not link.face:
            return None
        link.session = session
        return session.secret

    def _admit(self, session: Session) -> None:
        if session.link.inbound:
            self._by_id[session.secret.session_id16()] = session

    def _forget(self, session: Session) -> None:
        if session.link.inbound:
            self._by_id.pop(session.secret.session_id16(), None)
        self._timers.clear(session.id)

    def _commit(self, session: Session, new: Link, now: float) -> None:
        old = session.link
        assert old.connection is not None
        assert new.opened is not None
        self._forget(session)
        session.is_committed = True
        session.secret = session.secret.next(new.opened.session_id)
        old.connection.outbox.leave()
        self._links.touch(old)
        self._look_later(session, now)
        if session.peer_left:
            self._release(session, new, now)

    def _release(self, session: Session, new: Link, now: float) -> None:
        old = session.link
        assert old.connection is not None
        assert new.connection is not None
        new.peer, new.meter = old.peer, old.meter
        events = new.connection.release(old.connection, now)
        self._links.touch(new)
        self._settle(session, new, now)
        self._links.deliver(new, events, now)

    def _settle(self, session: Session, new: Link, now: float) -> None:
        """Once both directions have left, the move is over."""
        old = session.link
        if not (session.peer_left and old.has_left):
            return
        self._timers.clear(session.id)
        session.link, session.next = new, None
        session.is_committed = session.peer_left = False
        self._admit(session)
        self._links.retire(old, now, cleanly=True)
        self._links.moved(Moved(session.id, new.dialled, session.secret.generation), now)

    def _look_later(self, session: Session, now: float) -> None:
        session.progress = self._progress(session)
        self._timers.set(session.id, now + MOVE_IDLE_S)

    def _is_amid(self, session: Session) -> bool:
        """Whether a message is coming over the old connection, behind which the initiator leaves it: that may take long.

        Security: who lets it drip has two sockets for one session meanwhile, which a ``resume`` now and then gives him too.
        """
        connection = session.link.connection
        return connection is not None and connection.buffered > 0

    def _progress(self, session: Session) -> tuple[int, int]:
        connection = session.link.connection
        return (0, 0) if connection is None else (connection.wire_received, connection.wire_sent)
