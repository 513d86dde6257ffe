"""Obscura: a peer-to-peer network stack for privacy.

``Node`` and ``Config`` are what an application needs; the layers below are importable on their own: ``obscura.wire``,
``obscura.channel``, ``obscura.connection``, ``obscura.node``, ``obscura.sim``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obscura.daemon.async_client import AsyncClient
    from obscura.daemon.client import Client
    from obscura.daemon.config import Config
    from obscura.daemon.node import Node
    from obscura.errors import AddressError, ConfigError, ObscuraError, Unreachable, UserError
    from obscura.node.effects import Disconnect, Penalise, Send
    from obscura.node.peer import Peer
    from obscura.wire.address import Address
    from obscura.wire.message import Message

__version__ = "1.0.0.dev0"

_HOMES = {
    "Address": "obscura.wire.address",
    "AddressError": "obscura.errors",
    "AsyncClient": "obscura.daemon.async_client",
    "Client": "obscura.daemon.client",
    "Config": "obscura.daemon.config",
    "ConfigError": "obscura.errors",
    "Disconnect": "obscura.node.effects",
    "Message": "obscura.wire.message",
    "Node": "obscura.daemon.node",
    "ObscuraError": "obscura.errors",
    "Peer": "obscura.node.peer",
    "Penalise": "obscura.node.effects",
    "Send": "obscura.node.effects",
    "Unreachable": "obscura.errors",
    "UserError": "obscura.errors",
}

__all__ = [
    "Address",
    "AddressError",
    "AsyncClient",
    "Client",
    "Config",
    "ConfigError",
    "Disconnect",
    "Message",
    "Node",
    "ObscuraError",
    "Peer",
    "Penalise",
    "Send",
    "Unreachable",
    "UserError",
]


def __getattr__(name: str) -> Any:
    """Load on first use: `obscura --help` must not pay for the node."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'obscura' has no attribute {name!r}")
