"""How the channel of one connection is opened: what either side has to know, and the opening made of it (design 6)."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from obscura.channel.opening import Initiator, Prologue, Responder
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.morph.carrier import Carrier, Ready


class Bare(msgspec.Struct, frozen=True):
    """No channel: frames as they are (design 6, *Plaintext*: debugging and very small clients, loopback only)."""


class Dialling(msgspec.Struct, frozen=True):
    """The initiator's side of the channel. ``responder_key`` None = NX; ``joining`` = NXpsk0 inside a carrier."""

    network_id: bytes
    listener_kind: int
    responder_key: bytes | None
    joining: bool = False


class Listening(msgspec.Struct, frozen=True):
    """The responder's side: the listener's own key, whether strangers without it may join, and what all its links share."""

    network_id: bytes
    listener_kind: int
    static: StaticKey
    strangers: bool
    replay: ReplayCache
    may_try: Callable[[], bool]


def begin_opening(security: Dialling, carrier: Carrier, ready: Ready, rng: random.Random, unix: int) -> Initiator:
    """The dialling side, once the carrier has a place for flight 1. Raises ``ChannelFault`` for a key that is none."""
    return Initiator(
        Prologue(security.network_id, security.listener_kind, carrier.NUMBER, ready.binding),
        rng,
        unix,
        responder_key=security.responder_key,
        joining=security.joining,
        streamed=carrier.STREAMED,
        flight_size=ready.flight_size,
    )


def answer_opening(
    security: Listening, carrier: Carrier, rng: random.Random, binding: bytes, answer_size: tuple[int, int]
) -> Responder:
    """The listening side, as soon as the carrier's binding is known."""
    return Responder(
        Prologue(security.network_id, security.listener_kind, carrier.NUMBER, binding),
        security.static,
        rng,
        strangers=security.strangers,
        streamed=carrier.STREAMED,
        replay=security.replay,
        may_try=security.may_try,
        answer_size=answer_size,
    )
