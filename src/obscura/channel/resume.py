"""The secret by which a session proves itself on a new connection, and both sides of that proof (design 8, rotation)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from obscura.errors import Violation
from obscura.wire.fields import U32
from obscura.wire.messages.privacy import Resume, Resumed

ID_BYTES = 16


@dataclass(frozen=True, slots=True, repr=False)
class ResumeSecret:
    """rs (32 bytes) and its generation g, which counts the rotations of the session so far."""

    value: bytes
    generation: int = 0

    @classmethod
    def first(cls, chaining_key: bytes) -> ResumeSecret:
        """The secret of a session whose first channel ended with this chaining key."""
        return cls(hmac.digest(chaining_key, b"obscura/1 resume", "sha256"))

    def session_id16(self) -> bytes:
        """The 16 bytes by which ``resume`` and ``resumed`` name the session; new in each generation."""
        return self._keyed(b"id" + U32.pack(self.generation))[:ID_BYTES]

    def mac(self, side: Literal["i", "r"], h_new: bytes) -> bytes:
        """The proof (32 bytes) of the initiator's or responder's side over the new channel's session id."""
        return self._keyed(side.encode("ascii") + U32.pack(self.generation) + h_new)

    def proves(self, side: Literal["i", "r"], h_new: bytes, mac: bytes) -> bool:
        """Whether ``mac`` is that proof, in constant time."""
        return hmac.compare_digest(self.mac(side, h_new), mac)

    def next(self, h_new: bytes) -> ResumeSecret:
        """The secret after a rotation to the channel ``h_new``."""
        return ResumeSecret(self._keyed(b"next" + h_new), self.generation + 1)

    def _keyed(self, data: bytes) -> bytes:
        return hmac.digest(self.value, data, "sha256")


Find = Callable[[bytes], ResumeSecret | None]  # by the id in ``resume``: the secret of a session that may go on here


class Claim:
    """One side's part in ``resume`` and ``resumed`` on one new channel, whose session id is ``h_new``."""

    def __init__(self, secret: ResumeSecret | Find, h_new: bytes) -> None:
        """The initiator has the secret; the responder finds it by the id that it is told."""
        self._secret = secret
        self._h_new = h_new

    def begin(self) -> Resume | None:
        """The initiator's first frame; None for a responder."""
        secret = self._secret
        if not isinstance(secret, ResumeSecret):
            return None
        return Resume(secret.session_id16(), secret.mac("i", self._h_new))

    def answer(self, resume: Resume) -> Resumed:
        """The responder's first frame. Raises ``Violation``, in the same words whether the id or the proof is wrong."""
        secret = None if isinstance(self._secret, ResumeSecret) else self._secret(resume.id)
        if secret is None or not secret.proves("i", self._h_new, resume.mac):
            raise Violation("there is no session to resume")
        return Resumed(resume.id, secret.mac("r", self._h_new))

    def check(self, resumed: Resumed) -> None:
        """The initiator's look at the answer. Raises ``Violation``."""
        secret = self._secret
        is_ours = isinstance(secret, ResumeSecret) and hmac.compare_digest(secret.session_id16(), resumed.id)
        if not (is_ours and isinstance(secret, ResumeSecret) and secret.proves("r", self._h_new, resumed.mac)):
            raise Violation("the peer does not prove that it has the session")
