"""The dashboard: pages of this folder on the operator's HTTP server, and the way into them.

The pages hold no data of the node: scripts fetch those from ``/rpc`` and ``/events`` with the key of a login. ``/`` asks for a
secret and is open; everything else wants the cookie of a login.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from obscura.daemon.gate import Gate
from obscura.daemon.rpc import Session
from obscura.daemon.web import Access, Routes, static
from obscura.errors import UserError
from obscura.limits import LOGIN_CODE_S

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
OPEN = {"/": "login.html", "/login.js": "login.js", "/style.css": "style.css", "/icon.svg": "icon.svg"}
SCRIPTS = ("app", "book", "events", "nodes", "own", "parts", "privacy", "rpc", "traffic")
PAGES = {"/dashboard": "dashboard.html", **{f"/dashboard/{name}.js": f"{name}.js" for name in SCRIPTS}}


class Door:
    """Where the dashboard is, once it is served."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.gate: Gate | None = None


def dashboard_routes() -> Routes:
    """Paths and files."""
    tables = ((OPEN, Access.OPEN), (PAGES, Access.PAGE))
    return {("GET", path): _page(file, access) for table, access in tables for path, file in table.items()}


def _page(file: str, access: Access) -> Any:
    content = files(__name__).joinpath(file).read_bytes()
    return static(content, KINDS[file.rpartition(".")[2]], access)


def dashboard_methods(door: Door) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""

    def dashboard_open(session: Session) -> dict[str, Any]:
        """Where the dashboard is, and a code that logs one browser in, once, within ``code_s`` seconds. Not over HTTP."""
        if door.url is None or door.gate is None:
            raise UserError(
                'this node serves no dashboard: set rpc-http = "127.0.0.1:8470" and dashboard = true, and start it again'
            )
        if session is None:  # the code is the owner's, and would outlive the token that asked for it
            raise UserError(
                "codes are given over the control socket alone: `obscura dashboard`; a token logs in itself"
            )
        return {"url": door.url, "code": door.gate.login_code(), "code_s": LOGIN_CODE_S}

    return {"dashboard.open": dashboard_open}
