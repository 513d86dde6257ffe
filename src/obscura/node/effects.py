"""What a reaction may want done. Values only; the engine and the two interpreters carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from obscura.wire.address import Address
from obscura.wire.message import Message

LinkId = int


class Send(msgspec.Struct, frozen=True, gc=False):
    """Queue a message on an established link; nothing happens if the link is gone."""

    link: LinkId
    message: Message


class Disconnect(msgspec.Struct, frozen=True):
    """End a link cleanly. ``why`` is for the own operator; the peer sees a clean end."""

    link: LinkId
    why: str


class Dial(msgspec.Struct, frozen=True):
    """Open a link. ``manual`` = wanted by the operator: exempt from slots."""

    address: Address
    manual: bool = False


class Penalise(msgspec.Struct, frozen=True):
    """A fault in *authenticated* content (design 10): ``points`` against the peer of the link."""

    link: LinkId
    points: int
    why: str


class Notify(msgspec.Struct, frozen=True):
    """Tell the application and RPC subscribers. ``fields`` is ready for JSON."""

    kind: str
    fields: Mapping[str, Any]


Effect = Send | Disconnect | Dial | Penalise | Notify
