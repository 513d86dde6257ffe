"""The secret by which a session proves itself on a new connection (design 8, rotation)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Literal

from obscura.wire.fields import U32

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
