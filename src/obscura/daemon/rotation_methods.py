"""What a node answers about moving its links to new connections (specification, *Protocol Rotation*)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from obscura.errors import UserError
from obscura.limits import HANDSHAKE_S
from obscura.node.effects import LinkId, Move
from obscura.shaping.levels import ALL_CARRIERS
from obscura.wire.address import Address

if TYPE_CHECKING:
    from obscura.daemon.node import Node

_OUTCOMES = ("rotated", "rotation-failed", "rotation-asked", "peer-disconnected")


def rotation_methods(node: Node) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""

    async def rotate(
        peer: int | None = None, to: str | None = None, carrier: str | None = None
    ) -> list[dict[str, Any]]:
        """Move the link of a peer (without one: all links that this node made) to a new connection; how each went.

        A peer that made its link is asked to move it. ``to``: an address of the same peer; ``carrier``: the name of one.
        """
        if carrier is not None and carrier not in ALL_CARRIERS:
            raise UserError(f"carrier {carrier!r} is none of {', '.join(ALL_CARRIERS)}")
        if peer is None and to is not None:
            raise UserError("an address is one peer's: say which peer")
        place = None if to is None else Address.parse(to)
        links = [peer] if peer is not None else [other.link for other in node.peers() if not other.is_inbound]
        return list(await asyncio.gather(*(_rotate(node, link, place, carrier) for link in links)))

    return {"rotate": rotate}


async def _rotate(node: Node, link: LinkId, to: Address | None, carrier: str | None) -> dict[str, Any]:
    effects = node.assembly.rotation.ask(link, to, carrier)
    with contextlib.closing(node.events(_OUTCOMES)) as events:
        node.apply(effects)
        patience_s = max(
            (node.routes.patience_s(move.address) for move in effects if isinstance(move, Move)), default=0
        )
        try:
            async with asyncio.timeout(patience_s + HANDSHAKE_S):
                async for event in events:
                    if event.get("peer") == link:
                        return _outcome(node, link, event)
        except TimeoutError:
            pass
    return {"peer": link, "outcome": "under way", "why": "the old connection has not ended yet"}


def _outcome(node: Node, link: LinkId, event: Mapping[str, Any]) -> dict[str, Any]:
    if event["kind"] == "rotation-asked":
        return {"peer": link, "outcome": "asked", "why": "the peer made this link: it may move it, or not"}
    if event["kind"] == "rotated":
        now = next((row for row in node.engine.describe(node.now()) if row["peer"] == link), None)
        if now is None:  # since the event
            return {"peer": link, "outcome": "failed", "why": "the link moved and ended right after"}
        return {
            "peer": link,
            "outcome": "rotated",
            "address": now["address"],
            "carrier": now["carrier"],
            "rotations": now["rotations"],
            "session_id": now["session_id"],
        }
    why = event["why"] if event["kind"] == "rotation-failed" else f"the link ended: {event['reason']}"
    return {"peer": link, "outcome": "failed", "why": why}
