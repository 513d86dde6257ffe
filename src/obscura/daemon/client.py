"""A blocking client of a node's RPC, for the command line and scripts."""

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
from obscura.daemon.http_client import HttpLine, Secret, is_url
from obscura.daemon.nonode import START as START
from obscura.daemon.nonode import NoNode as NoNode
from obscura.daemon.nonode import silent
from obscura.limits import RPC_CALL_S


class Client:
    """One connection to a node: to its control socket, or to its HTTP server with the cookie or a token.

    >>> with Client(DataDir(root, "dev").rpc_socket) as node:    # doctest: +SKIP
    ...     node.call("connect", address="obscura://...")
    >>> Client("http://127.0.0.1:8470", DataDir(root, "dev").rpc_cookie)    # doctest: +SKIP

    ``secret`` is a text, or the path of the file that holds it. Raises ``NoNode`` if there is no node,
    ``jsonrpc.RemoteError`` for what the node refuses.
    """

    def __init__(
        self, where: Path | str, secret: Secret = None, *, timeout_s: float = RPC_CALL_S, start: str = START
    ) -> None:
        self._calls = 0
        self._line: HttpLine | _SocketLine
        if isinstance(where, str) and is_url(where):
            self._line = HttpLine(where, secret, timeout_s)
        else:
            self._line = _SocketLine(Path(where), timeout_s, start)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of a method, with parameters by position or by name (not both)."""
        if args and kwargs:
            raise TypeError("JSON-RPC takes parameters by position or by name, not both")
        self._calls += 1
        return self._line.ask(jsonrpc.request(method, list(args) or kwargs, self._calls), self._calls)

    def events(self, kinds: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """Events from the first ``next`` on, without end; ``{"kind": "lost", "lost": N}`` stands where N are missing."""
        return self._line.events(kinds)


class _SocketLine:
    """The control socket: one text per line both ways."""

    def __init__(self, path: Path, timeout_s: float, start: str) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._start = start
        self._connect()

    def _connect(self) -> None:
        self._is_late = False  # an answer did not come in time: nothing more can be read from this connection
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(self._timeout_s)
        try:
            with socket_address(self._path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                raise NoNode(f"{self._path} belongs to another user's node: use that user's account") from None
            raise silent(self._path.parent, self._start) from None
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, request: bytes, number: int) -> Any:
        if self._is_late:
            self.close()
            self._connect()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the reason may wait to be read
            self._socket.sendall(request)
        while True:
            reply = self._receive()
            if "method" not in reply and reply.get("id") in (number, None):
                return jsonrpc.result(reply)

    def events(self, kinds: Collection[str] | None) -> Iterator[dict[str, Any]]:
        asked = {"kinds": None if kinds is None else list(jsonrpc.one_or_many(kinds))}
        self.ask(jsonrpc.request("events.subscribe", asked, 0), 0)
        self._socket.settimeout(None)
        while True:
            told = self._receive()
            if told.get("method") == "event":
                yield told["params"]

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except TimeoutError:
            self._is_late = True
            raise NoNode(f"the node on {self._path.parent} did not answer in {self._timeout_s:g} s") from None
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise NoNode(f"the node on {self._path.parent} went away; `obscura status` shows if it runs")
        try:
            return msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError):
            raise NoNode(f"what listens on {self._path} does not speak JSON-RPC") from None
