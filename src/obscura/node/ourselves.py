"""Links of a node to itself (design 5): recognised by the session id, which nobody can copy; on bare links by the nonce."""

from __future__ import annotations

from obscura.node.effects import LinkId


class Ourselves:
    """What would show that two links are the two ends of one connection."""

    def __init__(self) -> None:
        self._sessions: dict[bool, dict[bytes, LinkId]] = {True: {}, False: {}}  # by "is inbound"
        self._nonces: dict[int, LinkId] = {}  # ours, of bare links

    def opened(self, link: LinkId, session_id: bytes, *, inbound: bool) -> LinkId | None:
        """A channel is up; its other end, if that is ours too."""
        self._sessions[inbound][session_id] = link
        return self._sessions[not inbound].get(session_id)

    def say(self, link: LinkId, nonce: int) -> None:
        """Our own nonce on a bare link."""
        self._nonces[nonce] = link

    def heard(self, nonce: int) -> LinkId | None:
        """A peer's nonce on a bare link: the link on which it is our own."""
        return self._nonces.get(nonce)

    def forget(self, nonce: int, session_id: bytes | None, *, inbound: bool) -> None:
        """The link is gone."""
        self._nonces.pop(nonce, None)
        if session_id is not None:
            self._sessions[inbound].pop(session_id, None)
