"""What every message is: a frozen value with a type name, a maximum size, a phase, an encoding and its inverse."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Self

import msgspec


class Phase(Enum):
    """When a message is legal on a link (specification, Handshake Sequence)."""

    OPENING = "opening"  # before both veracks; a violation afterwards
    ESTABLISHED = "established"  # after both veracks; a violation before


class Message(msgspec.Struct, frozen=True, gc=False):
    """Base of all messages. A subclass is one row of the catalogue.

    ``TYPE`` is the name on the wire (``[a-z0-9]{1,12}``), ``MAX_SIZE`` the largest payload in bytes, ``PHASE`` when it is legal.
    ``decode(encode(m)) == m`` for every message; ``encode(decode(b)) == b`` for every payload that decodes.
    """

    TYPE: ClassVar[str]
    MAX_SIZE: ClassVar[int]
    PHASE: ClassVar[Phase] = Phase.ESTABLISHED

    def encode(self) -> bytes:
        """The payload, without the frame's header."""
        return b""

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """The message of a whole payload of at most ``MAX_SIZE`` bytes. Raises ``DecodeError`` and nothing else."""
        raise NotImplementedError
