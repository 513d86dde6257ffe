"""Methods about privacy: what the level sets, what each link agreed to, what cover has cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from obscura.node.cover import peer_terms
from obscura.shaping.levels import PrivacyLevel, explained
from obscura.transport.profile import CANNOT_IMITATE

if TYPE_CHECKING:
    from obscura.daemon.node import Node


def privacy_methods(node: Node) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""

    def privacy_show() -> dict[str, Any]:
        """Every knob of the privacy level with its value and source, what each link is shaped by, and what cover has cost."""
        config = node.config
        return {
            "level": config.privacy,
            "knobs": explained(
                PrivacyLevel(config.privacy), config.privacy_custom, constant_slots=config.constant_slots
            ),
            "mean_hold_s": config.knobs.mean_hold_s,
            "tcp_profile": config.tcp_profile,
            "tcp_cannot_imitate": list(CANNOT_IMITATE[config.tcp_profile]),
            "links": [peer_terms(config.knobs, peer) for peer in node.peers()],
            "cost": node.engine.traffic.all_sent(node.engine.links.values()),
        }

    return {"privacy.show": privacy_show}
