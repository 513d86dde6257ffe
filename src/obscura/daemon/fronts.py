"""Everything by which the operator reaches a running node: control socket, RPC over HTTP, metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from obscura.daemon.control import ControlServer
from obscura.daemon.gate import Gate
from obscura.daemon.http_rpc import RpcRoutes
from obscura.daemon.http_server import HttpServer
from obscura.daemon.methods import rpc_methods
from obscura.daemon.node import Node
from obscura.daemon.tokens import TokenFile, cookie_file


@contextlib.asynccontextmanager
async def fronts(node: Node) -> AsyncIterator[dict[str, str]]:
    """Open what the configuration asks for, for the length of the block; gives where each is. Raises ``UserError``."""
    registry = rpc_methods(node)
    shown: dict[str, str] = {}
    rpc_at, _ = node.config.fronts
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(ControlServer(node.data_dir.rpc_socket, registry, node.events_out))
        if rpc_at is not None:
            secret = stack.enter_context(cookie_file(node.data_dir.rpc_cookie))
            gate = Gate(secret, TokenFile(node.data_dir.rpc_tokens), node.now)
            routes = {**RpcRoutes(registry, node.events_out, gate).routes}
            server = await stack.enter_async_context(HttpServer(rpc_at, routes, gate))
            shown["rpc_http"] = server.url
        yield shown
