"""Everything by which the operator reaches a running node: control socket, RPC over HTTP, metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from obscura.daemon.control import ControlServer
from obscura.daemon.dashboard import Door, dashboard_routes
from obscura.daemon.gate import Gate
from obscura.daemon.http_rpc import RpcRoutes
from obscura.daemon.http_server import HttpServer
from obscura.daemon.logs import follow
from obscura.daemon.methods import rpc_methods
from obscura.daemon.metrics import Metrics
from obscura.daemon.node import Node
from obscura.daemon.reload import Load
from obscura.daemon.tokens import TokenFile, cookie_file
from obscura.daemon.web import Access
from obscura.limits import METRICS_CONNECTIONS


@contextlib.asynccontextmanager
async def fronts(node: Node, load: Load | None = None) -> AsyncIterator[dict[str, str]]:
    """Open what the configuration asks for, for the length of the block; gives where each is. Raises ``UserError``.

    ``load`` reads the configuration again when asked to.
    """
    door = Door()
    registry = rpc_methods(node, load, door)
    shown: dict[str, str] = {}
    rpc_at, metrics_at = node.config.fronts
    async with contextlib.AsyncExitStack() as stack:
        following = follow(node.events(), is_unsafe=node.config.unsafe_logs)
        stack.push_async_callback(ended, asyncio.create_task(following))
        metrics = Metrics(node)
        stack.push_async_callback(ended, asyncio.create_task(metrics.follow(node.events())))
        await stack.enter_async_context(ControlServer(node.data_dir.rpc_socket, registry, node.events_out))
        if rpc_at is not None:
            secret = stack.enter_context(cookie_file(node.data_dir.rpc_cookie))
            gate = Gate(secret, TokenFile(node.data_dir.rpc_tokens), node.now)
            routes = {**RpcRoutes(registry, node.events_out, gate).routes, **metrics.routes(Access.SECRET)}
            if node.config.dashboard:
                routes |= dashboard_routes()
            server = await stack.enter_async_context(HttpServer(rpc_at, routes, gate))
            shown["rpc_http"] = server.url
            if node.config.dashboard:
                shown["dashboard"] = door.url = f"{server.url}/"
                door.gate = gate
        if metrics_at is not None:
            open_to_all = HttpServer(metrics_at, metrics.routes(Access.OPEN), max_clients=METRICS_CONNECTIONS)
            await stack.enter_async_context(open_to_all)
            shown["metrics"] = f"{open_to_all.url}/metrics"
        yield shown


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is over."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
