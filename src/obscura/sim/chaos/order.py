"""What every link owes: messages arrive as they were sent, each kind in its order, none twice and none missing in between."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from obscura.node.effects import LinkId
from obscura.sim.network import SimNode
from obscura.wire.message import Message

End: TypeAlias = tuple[SimNode, LinkId]  # a link as one of its nodes numbers it; it keeps the number when it moves


class Order:
    """What is on its way between watched nodes. A link that ends may take with it what was not served yet, from some point on.

    Kinds are kept apart since a peer that is over its rate for one kind is served with the others meanwhile.
    """

    def __init__(self) -> None:
        self._far: dict[End, End] = {}
        self._sent: dict[End, dict[type, deque[bytes]]] = {}  # to this end, not served there yet

    def sent(self, node: SimNode, link: LinkId, message: Message) -> None:
        """A watched node has queued a message on an established link."""
        end = node, link
        far = self._far.get(end)
        if far is None:  # the first one, so that the link is still where it began
            found = node.far_end(link)
            if found is None:
                return
            far = self._far[end] = found
        self._sent.setdefault(far, {}).setdefault(type(message), deque()).append(message.encode())

    def served(self, node: SimNode, link: LinkId, message: Message) -> str | None:
        """A watched node serves a message: what is wrong with that, or None."""
        kinds = self._sent.get((node, link))
        if kinds is None:
            return None  # of a node that is not watched
        waiting = kinds.get(type(message))
        if not waiting or waiting.popleft() != message.encode():
            return f"node {node.number} got {type(message).TYPE} on link {link} twice, too early, or never sent"
        return None

    def ended(self, node: SimNode, link: LinkId) -> None:
        """Nothing more is served at this end."""
        self._sent.pop((node, link), None)
        self._far.pop((node, link), None)
