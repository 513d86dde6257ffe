"""What a running node answers over local control: the methods behind the commands of ``obscura``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import obscura
from obscura.daemon.chain_methods import chain_methods
from obscura.daemon.control import ControlServer
from obscura.daemon.dashboard import Door, dashboard_methods
from obscura.daemon.doctor_methods import doctor_methods
from obscura.daemon.node import Node
from obscura.daemon.openrpc import describe_itself
from obscura.daemon.peer_methods import peer_methods
from obscura.daemon.privacy_methods import privacy_methods
from obscura.daemon.reload import Load, reload_methods
from obscura.daemon.rotation_methods import rotation_methods
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.scope import SCOPES, Scope
from obscura.errors import AddressError, UserError
from obscura.handshake import features
from obscura.node.face import Face
from obscura.wire.address import Address, key_text


def rpc_methods(node: Node, load: Load | None = None, door: Door | None = None) -> MethodRegistry:
    """All methods of a running node, each for callers of its scope: what every transport of the RPC answers from."""
    registry = MethodRegistry()
    methods = control_methods(node) | reload_methods(node, load) | dashboard_methods(door or Door())
    for name, method in methods.items():
        registry.method(name, SCOPES.get(name, Scope.ADMIN))(method)
    describe_itself(registry)
    return registry


def local_control(node: Node) -> ControlServer:
    """The control socket of a running node, to be entered with ``async with``: what the command line talks to."""
    return ControlServer(node.data_dir.rpc_socket, rpc_methods(node), node.events_out)


def control_methods(node: Node) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""

    def status() -> dict[str, Any]:
        """What this node is and does."""
        peers = node.peers()
        traffic, links = node.engine.traffic, node.engine.links.values()
        return {
            "version": obscura.__version__,
            "network": node.network.name,
            "network_id": node.network.id.hex(),
            "privacy": node.config.privacy,
            "uptime_s": round(node.uptime_s, 1),
            "addresses": [str(address) for address in node.addresses],
            "ways": node.routes.show(),
            "capture": None if node.capture is None else node.capture.show(),
            "peers": {
                "inbound": sum(peer.is_inbound for peer in peers),
                "outbound": sum(not peer.is_inbound for peer in peers),
            },
            **node.relay.status(),
            "known_addresses": len(node.assembly.book),
            "wire_bytes_received": traffic.total(links)[1].wire,
            **traffic.all_sent(links),
        }

    def peers() -> list[dict[str, Any]]:
        """All established links."""
        return node.engine.describe(node.now())

    def listeners() -> list[dict[str, Any]]:
        """Where the node listens, and what a stranger sees there."""
        shown = node.covers.shown if node.covers is not None else []
        return [{"address": str(address), **seen} for address, seen in zip(node.addresses, shown, strict=False)]

    async def connect(address: str) -> dict[str, Any]:
        """Open a link and wait until it is established."""
        peer = await node.connect(address)
        return next(link for link in node.engine.describe(node.now()) if link["peer"] == peer.link)

    def disconnect(peer: int) -> bool:
        """End a link cleanly."""
        node.disconnect(peer)
        return True

    async def ping(peer: int) -> dict[str, float]:
        """Measure one round trip."""
        return {"rtt_ms": round(await node.ping(peer) * 1000, 3)}

    def addresses_own() -> list[str]:
        """Where this node listens, with its keys, and what else it tells peers: configured, observed, mapped by a router."""
        own = node.assembly.neighbours.own
        told = [address for face in Face for address in own.announced(face)]
        return [str(address) for address in dict.fromkeys((*node.addresses, *told))]

    def keys_show(address: str | None = None) -> list[dict[str, Any]]:
        """The channel keys of the own listening addresses, or what is known of a peer's."""
        if address is None:
            return [
                {
                    "address": f"{own.host}:{own.port}",
                    "carrier": own.carrier.name.lower(),
                    "key": key_text(own.key),
                }
                for own in node.addresses
                if own.key is not None
            ]
        place = _place(address)
        entry = node.assembly.book.get(place)
        if entry is None:
            raise UserError(f"{address} is not in the address book")
        return [
            {
                "address": address,
                "verified": key_text(entry.keys.verified) if entry.keys.verified is not None else None,
                "candidates": [key_text(candidate.key) for candidate in entry.keys.candidates],
            }
        ]

    def keys_forget(address: str) -> bool:
        """Forget every key that was learnt for a peer's address."""
        entry = node.assembly.book.get(_place(address))
        if entry is None or not entry.keys.forget():
            raise UserError(f"no key is known for {address}: `obscura key show {address}` shows what is")
        return True

    def features_list() -> list[dict[str, Any]]:
        """The feature table and what this node offers on clearnet links."""
        return features.describe()

    def seeds_show() -> dict[str, Any]:
        """Whom this node asks for its first peers, and what came back."""
        return node.discovery.show()

    async def seeds_ask() -> dict[str, Any]:
        """Ask for seeds now, whatever is known already; returns when all have answered."""
        await node.discovery.ask()
        return node.discovery.show()

    def stop() -> bool:
        """Stop the node; answered before it does."""
        asyncio.get_running_loop().call_soon(node.stop)
        return True

    return {
        "status": status,
        "peers": peers,
        "listeners": listeners,
        "connect": connect,
        "disconnect": disconnect,
        "ping": ping,
        "addresses.own": addresses_own,
        "keys.show": keys_show,
        "keys.forget": keys_forget,
        "features": features_list,
        "seeds.show": seeds_show,
        "seeds.ask": seeds_ask,
        "stop": stop,
        **chain_methods(node),
        **privacy_methods(node),
        **peer_methods(node),
        **rotation_methods(node),
        **doctor_methods(node),
    }


def _place(text: str) -> Any:
    address = Address.parse(text)
    endpoint = address.endpoint
    if endpoint is None:
        raise AddressError(f"{text}: give the IP address of the peer, as `obscura peers` shows it")
    return endpoint, address.carrier
