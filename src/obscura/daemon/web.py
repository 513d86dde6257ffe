"""Requests, answers and routes as the operator's HTTP server knows them, and which addresses it may have.

A route is one path with one method; there are no patterns, so that no path leads anywhere else::

    routes = {("GET", "/metrics"): Route(show, Access.OPEN)}
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from typing import NamedTuple

import msgspec

from obscura.daemon.scope import Scope
from obscura.errors import ConfigError
from obscura.wire.address import join_host_port

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream"
PAGE_COOKIE = "obscura-page"


class Access(Enum):
    """What a request has to show: nothing, the page cookie of a login, or a secret in ``Authorization: Bearer``."""

    OPEN = "open"
    PAGE = "page"
    SECRET = "secret"


class Request(NamedTuple):
    """A request that passed every check of its route. ``headers`` by lower-case name, ``scope`` where a secret was shown."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    scope: Scope | None
    may_go_on: Callable[[], bool]  # whether the secret still holds; for answers that take long


class Answer(NamedTuple):
    """``body`` is all of it, or pieces that are sent as they come."""

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    kind: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Route(NamedTuple):
    """How a path is answered. ``scope`` is the least that a secret must open; ``max_body`` in bytes, 0 = takes none."""

    answer: Callable[[Request], Awaitable[Answer]]
    access: Access = Access.SECRET
    scope: Scope = Scope.READ
    max_body: int = 0


Routes = Mapping[tuple[str, str], Route]

# What a page may do: load from this server alone, run no script that stands in it, be framed by nobody, send forms nowhere.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def static(content: bytes, kind: str, access: Access = Access.PAGE) -> Route:
    """A page, script, style or image that holds no data of the node; its data come by ``/rpc`` and ``/events``."""

    async def give(request: Request) -> Answer:
        return Answer(200, content, kind, (("content-security-policy", PAGE_POLICY),))

    return Route(give, access)


class Loopback(NamedTuple):
    """Where to listen on this machine alone. ``port`` 0 = any."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)

    @classmethod
    def parse(cls, text: str, key: str) -> Loopback:
        """Of ``127.0.0.1:PORT`` or ``[::1]:PORT``. Raises ``ConfigError``, which names the configuration's ``key``."""
        host, colon, port = text.rpartition(":")
        try:
            address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        except ValueError:
            raise ConfigError(f'{key}: {text!r} is not an IP address with a port, such as "127.0.0.1:8470"') from None
        if not (colon and port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 0xFFFF):
            raise ConfigError(f'{key}: {text!r} has no port from 0 to 65535, such as "127.0.0.1:8470"')
        if not address.is_loopback:
            raise ConfigError(
                f"{key}: {text} is reached from other machines and has no encryption; use 127.0.0.1 or [::1] and let "
                "`ssh -L` or a proxy with TLS lead there"
            )
        return cls(str(address), int(port))


def error(status: int, told: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An answer that says what is wrong."""
    return Answer(status, msgspec.json.encode({"error": told}) + b"\n", JSON, headers)
