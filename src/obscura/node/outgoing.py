"""Links that this node begins: to an address that is to be reached, and to where one of its sessions moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from obscura.errors import AddressError, UserError
from obscura.node.core import Core
from obscura.node.dialable import Ways, check_dialable, face_of
from obscura.node.effects import Dial, Effect, LinkId, Move
from obscura.node.face import Face, Purpose
from obscura.node.handover import Handover
from obscura.node.link import Link
from obscura.node.peer import DialFailed, Failure, Moved
from obscura.wire.address import Address


class Links(Protocol):
    """What beginning a link asks of the engine."""

    is_stopping: bool  # none comes up any more

    def dial(self, address: Address, now: float, *, manual: bool, purpose: Purpose, face: Face | None = None) -> LinkId:
        """Start a link."""
        ...

    def move(self, link_id: LinkId, address: Address, now: float) -> None:
        """Begin to move a link."""
        ...

    def begin(self, address: Address, face: Face, *, manual: bool, purpose: Purpose) -> Link:
        """A new link, whose socket is asked for."""
        ...

    def apply(self, effects: Iterable[Effect], now: float) -> None:
        """Carry out effects of the core."""
        ...


class Outgoing:
    """All of one node."""

    def __init__(self, links: Links, core: Core, handover: Handover, ways: Ways) -> None:
        self._links = links
        self._core = core
        self._handover = handover
        self._ways = ways

    def dial(self, address: Address, now: float, *, manual: bool, purpose: Purpose, face: Face | None) -> LinkId:
        """Start a link. Raises ``AddressError`` where that carrier may not be used for that address (design 8)."""
        face = face or face_of(address)
        self._check(address, face, now)
        return self._links.begin(address, face, manual=manual, purpose=purpose).id

    def move(self, link_id: LinkId, address: Address, now: float) -> None:
        """Begin the link to which a session is to move. Raises ``UserError`` where that cannot be."""
        session = self._handover.movable(link_id)
        old = session.link
        if old.dialled is None or face_of(address) is not face_of(old.dialled):
            raise AddressError(
                f"{address}: peer {link_id} is reached in another network, and the two must not be linked"
            )
        self._check(address, old.face, now)
        link = self._links.begin(address, old.face, manual=old.manual, purpose=old.purpose)
        link.session, session.next = session, link

    def dial_as_told(self, wanted: Dial, now: float) -> None:
        """The core wants a link; what forbids it is told to the core alone."""
        if self._links.is_stopping:
            return
        address, manual, purpose = wanted.address, wanted.manual, wanted.purpose
        try:
            self._links.dial(address, now, manual=manual, purpose=purpose, face=wanted.face)
        except AddressError as error:
            failed = DialFailed(0, address, Failure.LOCAL, str(error), purpose, manual)
            self._links.apply(self._core.dial_failed(failed, now), now)

    def move_as_told(self, wanted: Move, now: float) -> None:
        """The core wants a link to move; what forbids it is told to the core alone."""
        try:
            self._links.move(wanted.link, wanted.address, now)
        except UserError as error:
            generation = self._handover.generation(wanted.link)
            moved = Moved(wanted.link, wanted.address, generation, str(error))
            self._links.apply(self._core.moved(moved, now), now)

    def failed(self, link: Link, failure: Failure, why: str, now: float) -> None:
        """A link that this node began ended before it was established."""
        if link.dialled is not None:
            failed = DialFailed(link.id, link.dialled, failure, why, link.purpose, link.manual)
            self._links.apply(self._core.dial_failed(failed, now), now)

    def _check(self, address: Address, face: Face, now: float) -> None:
        """Whether the address may be dialled. Raises ``AddressError``."""
        check_dialable(address, face, self._ways)
        if self._links.is_stopping:
            raise AddressError(f"{address} is not dialled any more: the node stops")
        unwanted = self._core.refuses(address.endpoint, now)
        if unwanted is not None:
            raise AddressError(f"{address.host} is {unwanted}")
