"""A wire tap: a TCP relay that keeps a copy of what passes, as an observer on the path would."""

from __future__ import annotations

import socket
import threading

CHUNK = 64 << 10


class Tap:
    """Listens on loopback and relays one connection to ``port``. ``up`` and ``down`` are the bytes seen so far."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.up = bytearray()
        self.down = bytearray()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut the relay."""
        for end in (self._server, *self._ends):
            end.close()

    def _accept(self) -> None:
        try:
            dialler, _ = self._server.accept()
        except OSError:
            return  # closed before anybody came
        listener = socket.create_connection(("127.0.0.1", self._target))
        self._ends += [dialler, listener]
        threading.Thread(target=_relay, args=(dialler, listener, self.up), daemon=True).start()
        threading.Thread(target=_relay, args=(listener, dialler, self.down), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    try:
        while data := source.recv(CHUNK):
            copy += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other side is gone: nothing more to relay
