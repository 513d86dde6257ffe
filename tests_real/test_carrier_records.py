"""Records of carrier tls beside the real nginx: tickets, sessions that are taken up again, answers. Fails without it.

apt install nginx-light
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

import probes
from probes import Pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(probes.FILES, "large.bin", bytes(range(256)) * 1_600)
        made = Pair("tls", tmp_path_factory.mktemp("records"), joining=False)
    yield made
    made.end()


class Visit:
    """One TLS connection; ``sizes`` of the records that came."""

    def __init__(self, port: int, version: ssl.TLSVersion, name: str | None = None) -> None:
        self.context = probes.visitor()
        self.context.minimum_version = self.context.maximum_version = version
        self._port = port
        self.open(name, None)

    def open(self, name: str | None, session: ssl.SSLSession | None) -> None:
        """Shake hands, with a session of before if there is one."""
        self._sock = socket.create_connection(("127.0.0.1", self._port), 5)
        self._sock.settimeout(0.3)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self._in, self._out, server_hostname=name, session=session)
        self._came = b""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._out.read())
                self._hear()
            else:
                break
        self.say(b"")

    def _hear(self) -> bool:
        try:
            data = self._sock.recv(1 << 16)
        except TimeoutError:
            return False
        self._came += data
        self._in.write(data)
        return bool(data)

    def say(self, data: bytes) -> bytes:
        """Write, and read until nothing more comes."""
        if data:
            self.tls.write(data)
        self._sock.sendall(self._out.read())
        while self._hear():
            pass
        said = b""
        try:
            while piece := self.tls.read(1 << 16):
                said += piece
        except ssl.SSLError:
            pass
        return said

    def close(self) -> None:
        self._sock.close()

    @property
    def sizes(self) -> list[int]:
        """Of all records since the connection was made."""
        found, rest = [], self._came
        while rest:
            found.append(int.from_bytes(rest[3:5], "big"))
            rest = rest[5 + found[-1] :]
        return found


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_handshakes_and_tickets_are_as_long_as_nginx_s_for_names_of_every_length(
    pair: Pair, version: ssl.TLSVersion
) -> None:
    for name in (None, *("a" * size + ".example" for size in range(1, 18))):
        mine, theirs = Visit(pair.ours, version, name), Visit(pair.theirs, version, name)
        assert mine.sizes == theirs.sizes, name
        mine.close()
        theirs.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tickets", [True, False])
def test_sessions_are_taken_up_again_where_nginx_does(pair: Pair, version: ssl.TLSVersion, tickets: bool) -> None:
    seen = []
    for port in (pair.ours, pair.theirs):
        visit = Visit(port, version, "a.example")
        visit.close()
        if not tickets:
            visit.context.options |= ssl.OP_NO_TICKET
            visit.open("a.example", None)
            visit.close()
        session = visit.tls.session
        again = []
        for name in ("a.example", "a.example", "other.example"):
            visit.open(name, session)
            again.append((visit.tls.session_reused, visit.sizes))
            visit.close()
        seen.append(again)
    assert seen[0] == seen[1]


def asks(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode()


ASKED = {
    "page": asks("/page.txt"),
    "error": asks("/none"),
    "two pages": asks("/page.txt") * 2,
    "three errors": asks("/none") * 3,
    "pages, errors and a head": asks("/page.txt") + asks("/none") + asks("/page.txt").replace(b"GET", b"HEAD"),
    "compressed": asks("/", "Accept-Encoding: gzip\r\n") * 2,
    "large": asks("/large.bin"),
    "large, then small": asks("/none") + asks("/large.bin") + asks("/page.txt"),
    "two large ones": asks("/large.bin") * 2,
    "large, and the end": asks("/large.bin", "Connection: close\r\n"),
    "expects": asks("/page.txt", "Content-Length: 3\r\nExpect: 100-continue\r\n") + b"abc",
    "nonsense": b"x\r\n\r\n",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_answers_stand_in_records_as_nginx_s_do(pair: Pair, version: ssl.TLSVersion, asked: bytes) -> None:
    seen = []
    for port in (pair.ours, pair.theirs):
        visit = Visit(port, version)
        visit.say(asked)
        seen.append(visit.sizes)
        visit.close()
    assert seen[0] == seen[1]
