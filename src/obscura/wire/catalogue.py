"""The table of message types, and what each phase of a link admits of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from inspect import getattr_static

from obscura.errors import DecodeError, ExtensionFault
from obscura.limits import MAX_OPENING_PAYLOAD, MAX_UNKNOWN_PAYLOAD
from obscura.wire.frame import Decode, Kinds
from obscura.wire.message import Message, Phase, RawMessage, padded_type
from obscura.wire.messages.blocks import (
    Block,
    BlockTxn,
    CmpctBlock,
    GetBlocks,
    GetBlockTxn,
    GetHeaders,
    Headers,
    Inv,
    SendCmpct,
)
from obscura.wire.messages.network import Addr, GetAddr, Ping, Pong, Verack, Version
from obscura.wire.messages.privacy import PadNeg, Resume, Resumed, Rotate
from obscura.wire.messages.transactions import GetData, MempoolRequest, NotFound, StemTx, Tx

BUILT_IN: tuple[type[Message], ...] = (
    *(Version, Verack, Ping, Pong, Addr, GetAddr),
    *(Block, GetBlocks, Headers, GetHeaders, Inv),
    *(Tx, MempoolRequest, GetData, NotFound, StemTx),
    *(PadNeg, Resume, Resumed, Rotate),
    *(SendCmpct, CmpctBlock, GetBlockTxn, BlockTxn),
)
# Of the handshake alone. To ask this for each message that is sent is 20 times as quick as to ask its flags.
OPENING_ONLY = frozenset(cls for cls in BUILT_IN if not cls.PHASE & Phase.ESTABLISHED)


class Catalogue:
    """Message classes by type name. Immutable; iteration gives the classes."""

    def __init__(self, classes: Iterable[type[Message]]) -> None:
        self._classes = {cls.TYPE: cls for cls in classes}

    def __iter__(self) -> Iterator[type[Message]]:
        return iter(self._classes.values())

    def __len__(self) -> int:
        return len(self._classes)

    def get(self, type: str) -> type[Message] | None:
        """The class of a type name."""
        return self._classes.get(type)

    def with_message(self, cls: type[Message]) -> Catalogue:
        """This catalogue and an application's own message. What its ``decode`` raises counts as malformed, and what it returns
        that is no message of the class ends the link.

        ``ValueError`` for what is no message class with ``TYPE`` and ``MAX_SIZE``, or has fields and not both of ``encode``
        and ``decode``, or has a ``decode`` that only an instance has; for a type name that is taken or not
        ``[a-z0-9]{1,12}``, for a ``MAX_SIZE`` over 4 MiB (peers that do not know the type take more as a violation), and for a
        phase other than ``ESTABLISHED``.
        """
        if not (isinstance(cls, type) and issubclass(cls, Message)):
            raise ValueError(f"a message type is a subclass of obscura.Message, not {cls!r:.80}")
        for name, kind in (("TYPE", str), ("MAX_SIZE", int)):
            if not isinstance(getattr(cls, name, None), kind):
                raise ValueError(f"{cls.__name__}: {name} is not set, or no {kind.__name__}")
        decode = getattr_static(cls, "decode")
        if not isinstance(decode, classmethod | staticmethod):  # it would be called without the message that it wants
            raise ValueError(f"{cls.TYPE}: decode is a classmethod or staticmethod that takes the payload")
        is_empty = cls.encode is Message.encode, decode is getattr_static(Message, "decode")
        if cls.__struct_fields__ and any(is_empty):  # its fields would be lost, and each one that comes malformed
            raise ValueError(f"{cls.TYPE}: a message with fields has encode and decode of its own")
        padded_type(cls.TYPE)
        if cls.TYPE in self._classes:
            raise ValueError(f"the message type {cls.TYPE} is taken")
        if not 0 <= cls.MAX_SIZE <= MAX_UNKNOWN_PAYLOAD:
            raise ValueError(f"{cls.TYPE}: MAX_SIZE is 0 to {MAX_UNKNOWN_PAYLOAD} bytes")
        if cls.PHASE is not Phase.ESTABLISHED:
            raise ValueError(f"{cls.TYPE}: only established links carry messages of an application")
        return Catalogue((*self, cls))

    @cached_property
    def opening(self) -> Kinds:
        """Before both veracks: few types, small ones, nothing unknown or malformed."""
        return Kinds(
            self._admitted(Phase.OPENING, MAX_OPENING_PAYLOAD),
            self._illegal(Phase.OPENING),
            False,
            True,
            "opening",
        )

    @cached_property
    def established(self) -> Kinds:
        """After both veracks."""
        return Kinds(self._admitted(Phase.ESTABLISHED, MAX_UNKNOWN_PAYLOAD), self._illegal(Phase.ESTABLISHED))

    @cached_property
    def any_phase(self) -> Kinds:
        """Everything, as for a dissector that does not follow the handshake."""
        return Kinds(self._admitted(Phase.ALWAYS, MAX_UNKNOWN_PAYLOAD))

    def _admitted(self, phase: Phase, cap: int) -> dict[bytes, tuple[int, Decode]]:
        return {cls.NAME: (min(cls.MAX_SIZE, cap), _decode_of(cls)) for cls in self if cls.PHASE & phase}

    def _illegal(self, phase: Phase) -> frozenset[bytes]:
        return frozenset(cls.NAME for cls in self if not cls.PHASE & phase)


def _decode_of(cls: type[Message]) -> Decode:
    if cls not in BUILT_IN:
        return _translated(cls)
    return cls if issubclass(cls, RawMessage) else cls.decode  # there the constructor decodes: one call less


def _translated(cls: type[Message]) -> Decode:
    """The boundary to code that is not ours: whatever it raises on a peer's bytes is a ``DecodeError``.

    That it returns something else is its own defect whatever the bytes are: ``ExtensionFault`` costs the link and is logged.
    """
    decode = cls.decode

    def decode_foreign(payload: bytes) -> Message:
        try:
            message: object = decode(payload)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"{type(error).__name__} in the decoder") from error
        if type(message) is not cls:  # it would find no reaction, and nobody would hear of it
            raise ExtensionFault(f"{cls.__name__}.decode returned {type(message).__name__}, not {cls.__name__}")
        return message

    return decode_foreign


CATALOGUE = Catalogue(BUILT_IN)
