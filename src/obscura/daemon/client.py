"""A blocking client of a node's control socket, for the command line and scripts. Imports no event loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from obscura.daemon import jsonrpc
from obscura.daemon.datadir import socket_address
from obscura.errors import Unreachable
from obscura.limits import RPC_CALL_S

START = "obscura run"  # the command that starts a node, as the error for a missing one says


class NoNode(Unreachable):
    """No node answers on the control socket, or it went away."""


class Client:
    """One connection to a node.

    >>> with Client(DataDir(root, "dev").rpc_socket) as node:    # doctest: +SKIP
    ...     node.call("connect", address="obscura://...")

    Raises ``NoNode`` if there is no node, ``jsonrpc.RemoteError`` for what the node refuses.
    """

    def __init__(self, path: Path, timeout_s: float = RPC_CALL_S, start: str = START) -> None:
        self._path = path
        self._calls = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._timeout_s = timeout_s
        try:
            with socket_address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                raise NoNode(f"{path} belongs to another user's node: use that user's account") from None
            raise NoNode(f"no node is running on {path.parent}: start one with `{start}`") from None
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a method, with parameters by position or by name (not both)."""
        if args and kwargs:
            raise TypeError("JSON-RPC takes parameters by position or by name, not both")
        self._calls += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the reason may wait to be read
            self._socket.sendall(jsonrpc.request(method, list(args) or kwargs, self._calls))
        while True:
            reply = self._receive()
            if "method" not in reply and reply.get("id") in (self._calls, None):
                return jsonrpc.result(reply)

    def events(self, kinds: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """Events as they happen, without end; ``{"kind": "lost", "lost": N}`` stands where N are missing."""
        self.call("events.subscribe", kinds=None if kinds is None else list(kinds))
        self._socket.settimeout(None)
        while True:
            told = self._receive()
            if told.get("method") == "event":
                yield told["params"]

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except TimeoutError:
            raise NoNode(f"the node on {self._path.parent} did not answer in {self._timeout_s:g} s") from None
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise NoNode(f"the node on {self._path.parent} went away; `obscura status` shows if it runs")
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError):
            raise NoNode(f"what listens on {self._path} does not speak JSON-RPC") from None
