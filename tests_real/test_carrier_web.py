"""Web carriers beside the real nginx, and with curl and openssl as visitors. Fails without them: nothing is passed by.

apt install nginx-light curl openssl
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon.certificates import make_certificate
from obscura.daemon.client import Client
from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.morph.dress import Dress
from obscura.wire.address import Address
from web_probes import tables
from web_servers import Nginx, Reply, ask

MODIFIED = 1_700_000_000
FILES = {
    "index.html": b"<html><body>" + b"hello world " * 40 + b"</body></html>\n",
    "page.txt": bytes(range(33, 126)) * 11,
    "folder/page.html": b"<p>x</p>",
    "folder/index.html": b"<p>folder</p>" * 10,
    "picture.png": b"\x89PNG" * 30,
    "data.json": b"{}",
    "style.css": b"a{}",
    "script.js": b"1",
    "a b": b"space",
    "large.bin": random.Random(5).randbytes(3_000_000),
}


class Listening:
    """A node in a process of its own with both web listeners, and an nginx configured like each of them."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        site = folder / "site"
        (site / "folder").mkdir(parents=True)
        (site / "empty").mkdir()
        for name, body in FILES.items():
            (site / name).write_bytes(body)
            os.utime(site / name, (MODIFIED, MODIFIED))
        self.site = site
        command = [
            sys.executable,
            "-m",
            "obscura.cli",
            "--network",
            "dev",
            "--data-dir",
            str(folder / "node"),
            "run",
            "--json",
        ]
        command += ["--set", f"cover.site={site}", "--set", "max-outbound=0"]
        for carrier in ("http", "tls"):
            command += ["--listen", f"127.0.0.1:0?carrier={carrier}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.addresses = [Address.parse(text) for text in ready["addresses"]]
        self.client = Client(Path(ready["rpc"]))
        self.shown: list[dict[str, Any]] = self.client.call("listeners")
        keys = folder / "node" / "dev" / "keys"
        certificate, key = next(keys.glob("tls-*.crt")), next(keys.glob("tls-*.pem"))
        assert {path.stat().st_mode & 0o777 for path in (certificate, key)} == {0o600}
        self.nginx = [
            Nginx.like(folder / "nginx-http", site, self.dress(0)),
            Nginx.like(folder / "nginx-tls", site, self.dress(1), (certificate, key)),
        ]

    def dress(self, which: int) -> Dress:
        shown = self.shown[which]
        cookie, attributes = re.fullmatch(r"([^;]*)(.*)", shown["cookie"]).groups()  # type: ignore[union-attr]
        paths = frozenset(path.encode() for path in shown["protected"])
        return Dress(cookie.encode(), attributes.encode(), shown["realm"].encode(), paths, which == 1)

    def ports(self, which: int) -> tuple[int, int]:
        return self.addresses[which].port, self.nginx[which].port

    def end(self) -> None:
        for nginx in self.nginx:
            nginx.end()
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    made = Listening(tmp_path_factory.mktemp("web"))
    yield made
    made.end()


def probes_of(listening: Listening, which: int) -> dict[str, list[bytes]]:
    etag = b'"%x-%x"' % (MODIFIED, len(FILES["page.txt"]))
    protected = min(listening.dress(which).paths)
    return tables(protected, b"/page.txt", etag, formatdate(MODIFIED, usegmt=True).encode())


def visitor() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def compare(
    listening: Listening, which: int, probes: dict[str, list[bytes]], tls: ssl.SSLContext | None = None
) -> dict[str, tuple[Reply, Reply]]:
    """Probes that the two servers answer differently; a first difference is looked at again, alone and patiently."""
    mine, theirs = listening.ports(which)
    room = asyncio.Semaphore(20)

    async def both(pieces: list[bytes], quiet_s: float) -> tuple[Reply, Reply]:
        ours, real = await asyncio.gather(
            ask(mine, pieces, tls=tls, quiet_s=quiet_s), ask(theirs, pieces, tls=tls, quiet_s=quiet_s)
        )
        return unported(ours, mine), unported(real, theirs)

    async def one(pieces: list[bytes]) -> tuple[Reply, Reply]:
        async with room:
            return await both(pieces, 0.3)

    found = dict(zip(probes, await asyncio.gather(*map(one, probes.values())), strict=True))
    doubtful = [name for name, (ours, real) in found.items() if ours != real]
    again = {name: await both(probes[name], 1.5) for name in doubtful[:100]}
    return {name: pair for name, pair in again.items() if pair[0] != pair[1]}


def unported(reply: Reply, port: int) -> Reply:
    """Redirects name the port: the one of nginx, or none where the listener was given port 0."""
    return reply._replace(data=re.sub(rb"(Location: https?://[^/\r\n]*?)(:%d)?/" % port, rb"\1/", reply.data))


def test_nothing_tells_the_listener_from_nginx(listening: Listening) -> None:
    probes = probes_of(listening, 0)
    assert len(probes) > 1_800
    assert asyncio.run(compare(listening, 0, probes)) == {}


def test_nothing_inside_tls_tells_the_listener_from_nginx(listening: Listening) -> None:
    probes = {name: pieces for name, pieces in probes_of(listening, 1).items() if hash_of(name) % 4 == 0}
    assert asyncio.run(compare(listening, 1, probes, visitor())) == {}


def hash_of(name: str) -> int:
    """The same in every run."""
    return sum(name.encode())


def test_cleartext_on_the_tls_port_is_answered_as_nginx_does(listening: Listening) -> None:
    probes = {
        name: pieces
        for name, pieces in probes_of(listening, 1).items()
        if hash_of(name) % 3 == 0 and not (pieces[0][0] >= 0x80 or pieces[0][0] == 0x16)
    }
    assert asyncio.run(compare(listening, 1, probes)) == {}


def hellos() -> dict[str, list[bytes]]:
    """First bytes of TLS, good and bad."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = visitor().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    rng = random.Random(3)
    probes = {f"hello cut at {size}": [hello[:size]] for size in (1, 2, 3, 4, 5, 6, 9, 11, 40, 44, 100, len(hello) - 1)}
    for at in (0, 1, 2, 3, 4, 5, 6, 9, 10, 43, 44, 76, 77, 78, 79, 140, 141, 142, 150, 160, 180):
        flipped = bytearray(hello)
        flipped[at] ^= 1 << rng.randrange(8)
        if flipped[0] >= 0x80 or flipped[0] == 0x16:
            probes[f"hello flipped at {at}"] = [bytes(flipped)]
    for size in (1, 4, 5, 10, 50, 200, 2_000):
        for first in (b"\x16\x03\x01", b"\x16", b"\x80", b"\xff"):
            probes[f"{first!r} and {size} random"] = [first + rng.randbytes(size)]
    probes["alert"] = [hello, b"\x15\x03\x01\x00\x02\x02\x28"]
    probes["hello and rubbish"] = [hello, rng.randbytes(100)]
    probes["close"] = [hello[:20], b""]
    return probes


def test_broken_tls_is_answered_as_nginx_does(listening: Listening) -> None:
    """What OpenSSL answers itself, up to the ServerHello, whose bytes are fresh each time."""

    def shape(reply: Reply) -> tuple[str, bytes]:
        return reply.state, reply.data if reply.data[:1] != b"\x16" else reply.data[:5]

    async def go() -> dict[str, Any]:
        mine, theirs = listening.ports(1)
        different = {}
        for name, pieces in hellos().items():
            ours, real = await asyncio.gather(ask(mine, pieces), ask(theirs, pieces))
            if shape(ours) != shape(real):
                different[name] = (shape(ours), shape(real))
        return different

    assert asyncio.run(go()) == {}


def s_client(port: int, *more: str) -> str:
    """What openssl s_client says of the server, without what is fresh each time."""
    found = subprocess.run(
        ["openssl", "s_client", "-ign_eof", "-connect", f"127.0.0.1:{port}", *more],
        input="GET /none HTTP/1.0\n\n",
        capture_output=True,
        text=True,
        timeout=20,
    )
    kept = []
    for line in (found.stdout + found.stderr).splitlines():
        if re.search(
            r"Protocol|Cipher|ALPN|Server Temp Key|Peer sign|Verif|subject=|alert|New,|Compression|Early|lifetime hint",
            line,
        ):
            kept.append(re.sub(r"^[0-9A-F]{10,}", "", line).strip())
    return "\n".join(kept)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("-alpn", "http/1.1"),
        ("-alpn", "h2,http/1.1"),
        ("-alpn", "h2"),
        ("-alpn", "nonsense"),
        ("-servername", "example.org"),
        ("-noservername",),
        ("-tls1_2",),
        ("-tls1_1",),
        ("-tls1",),
        ("-tls1_2", "-cipher", "AES128-SHA"),
        ("-tls1_2", "-cipher", "CAMELLIA256-SHA"),
        ("-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
        ("-groups", "P-521"),
    ],
    ids=" ".join,
)
def test_openssl_sees_the_same_server(listening: Listening, more: tuple[str, ...]) -> None:
    mine, theirs = listening.ports(1)
    assert s_client(mine, *more) == s_client(theirs, *more)


def first_flight(port: int, name: str | None) -> list[int]:
    """The lengths of the records that the server answers a hello with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = visitor()
    context.set_alpn_protocols(["http/1.1"])
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(outgoing.read())
        said, lengths = b"", []
        while len(lengths) < 6:  # ServerHello, ChangeCipherSpec, extensions, certificate, its proof, Finished
            said += sock.recv(65_536)
            while len(said) >= 5 and len(said) >= 5 + (size := int.from_bytes(said[3:5], "big")):
                lengths.append(size)
                said = said[5 + size :]
    return lengths


@pytest.mark.parametrize("name", [None, "h.example"])
def test_the_records_of_the_handshake_are_as_long_as_nginx_s(listening: Listening, name: str | None) -> None:
    mine, theirs = listening.ports(1)
    assert first_flight(mine, name) == first_flight(theirs, name)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "more",
    [
        ("/",),
        ("/", "-I"),
        ("/none",),
        ("/folder",),
        ("/page.txt", "-r", "10-20"),
        ("/page.txt", "--compressed"),
        ("/", "--compressed"),
        ("/", "-d", "a=b"),
        ("/", "-T", "/etc/hostname"),
        ("/", "-X", "DELETE"),
        ("/large.bin",),
        ("/", "--http1.0"),
        ("/page.txt", "-z", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("/", "-H", "Expect: 100-continue", "-d", "a=b"),
    ],
    ids=" ".join,
)
def test_curl_gets_the_same(listening: Listening, which: int, more: tuple[str, ...]) -> None:
    def get(port: int) -> bytes:
        scheme = "https" if which else "http"
        path, *options = more
        command = ["curl", "-sik", "--max-time", "10", *options, f"{scheme}://127.0.0.1:{port}{path}"]
        found = subprocess.run(command, capture_output=True, timeout=20)
        assert found.returncode == 0
        text = re.sub(rb"(Date: |Set-Cookie: [^=]*=)[^\r\n;]*", rb"\1", found.stdout)
        return re.sub(rb"(Location: https?://[^/\r\n]*?)(:%d)?/" % port, rb"\1/", text)

    mine, theirs = listening.ports(which)
    assert get(mine) == get(theirs)


async def dialled(address: Address, folder: Path) -> str:
    """The pattern of a link to the address, or why there is none."""
    async with Node(Config(network="dev", data_dir=folder, listen=(), max_outbound=0)) as node:
        try:
            return (await node.connect(address)).pattern
        except Unreachable as error:
            return str(error)


def test_the_dialler_is_an_ordinary_visitor_of_the_real_nginx(listening: Listening, tmp_path: Path) -> None:
    """Its opening is a whole conversation with nginx, which knows no token and says so."""
    for which in (0, 1):
        real = Address(
            listening.addresses[which].key, "127.0.0.1", listening.nginx[which].port, listening.addresses[which].carrier
        )
        assert "did not prove its key" in asyncio.run(dialled(real, tmp_path / str(which)))
        assert asyncio.run(dialled(listening.addresses[which], tmp_path / f"own{which}")) == "NK"


def test_a_link_through_an_nginx_that_ends_tls(listening: Listening, tmp_path: Path) -> None:
    """``binding=cookie``: each request reaches the listener on a connection of its own."""
    make_certificate(tmp_path / "proxy.crt", tmp_path / "proxy.pem", "shop.example")
    cover = CoverSettings(certificate=tmp_path / "proxy.crt", key=tmp_path / "proxy.pem")
    listen = ("127.0.0.1:0?carrier=tls&binding=cookie",)

    async def go() -> list[str]:
        config = Config(network="dev", data_dir=tmp_path / "a", listen=listen, max_outbound=0, cover=cover)
        async with Node(config) as node:
            own = node.addresses[0]
            nginx = await asyncio.to_thread(
                Nginx.proxy, tmp_path / "nginx", tmp_path / "proxy.crt", tmp_path / "proxy.pem", own.port
            )
            try:
                outer = Address(own.key, "127.0.0.1", nginx.port, own.carrier, binding="cookie")
                direct = Address(own.key, "127.0.0.1", nginx.port, own.carrier)
                return [await dialled(outer, tmp_path / "b"), await dialled(direct, tmp_path / "c")]
            finally:
                nginx.end()

    through, unsaid = asyncio.run(go())
    assert through == "NK"
    assert "did not prove its key" in unsaid


def closing_time(port: int, first: bytes, *, every_s: float = 0.0) -> tuple[str, float, bytes]:
    """How and after how many seconds the server ends a connection on which ``first`` was sent, one byte each ``every_s``."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        began = time.monotonic()
        link.settimeout(every_s or 120)
        if not every_s:
            link.sendall(first)
        data = b""
        at = 0
        while True:
            try:
                if every_s and at < len(first):
                    link.sendall(first[at : at + 1])
                    at += 1
                got = link.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                return "reset", time.monotonic() - began, data
            if not got:
                return "closed", time.monotonic() - began, data
            data += got


SLOW = {
    "nothing": b"",
    "half a line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nHost: h\r\n",
    "kept alive": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "half a second head": b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /",
    "half a body": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
    "half a TLS record": b"\x16\x03\x01\x02\x00\x01",
}


def test_time_outs_are_those_of_nginx(listening: Listening) -> None:
    """One and a half minutes of waiting for both servers at once."""

    async def go() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(64))
        jobs = {
            (name, which, whose): asyncio.to_thread(closing_time, port, first)
            for name, first in SLOW.items()
            for which in (0, 1)
            for whose, port in enumerate(listening.ports(which))
        }
        for which in (0, 1):
            for whose, port in enumerate(listening.ports(which)):
                jobs["slowloris", which, whose] = asyncio.to_thread(
                    closing_time, port, b"GET / HTTP/1.1\r\nX: " + b"a" * 500, every_s=1.0
                )
        return dict(zip(jobs, await asyncio.gather(*jobs.values()), strict=True))

    found = asyncio.run(go())
    different = []
    for name, which, whose in found:
        if whose:
            continue
        ours, real = found[name, which, 0], found[name, which, 1]
        if ours[0] != real[0] or abs(ours[1] - real[1]) > max(1.5, 0.1 * real[1]):
            different.append((name, which, ours[:2], real[:2]))
    assert different == []
