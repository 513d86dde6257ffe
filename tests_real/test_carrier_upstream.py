"""A real nginx behind a web listener, and beside it the same nginx behind another nginx: strangers see no difference.

apt install nginx-light curl
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from mutated import mutants
from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.node import Node
from web_servers import Nginx, Reply, ask, free_port

BEHIND = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 768; }}
http {{
  include /etc/nginx/mime.types; default_type application/octet-stream; access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port}; root {site};
    location = /said {{
      add_header X-Said "$request_method|$http_host|$http_x_forwarded_for|$http_cookie|$http_connection" always;
      return 200 x; }}
    location = /gone {{ return 404; }}
    location = /moved {{ return 302 /elsewhere; }}
  }}
}}
"""
FRONT = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 768; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $cookie_{cookie} $fresh {{ "" "{cookie}=$request_id{attributes}"; default ""; }}
  server {{
    listen 127.0.0.1:{port}; add_header Set-Cookie $fresh;
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Host $http_host; proxy_redirect off; }}
  }}
}}
"""
PROBES = {
    "page": [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"],
    "close": [b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"],
    "old": [b"GET / HTTP/1.0\r\n\r\n"],
    "head": [b"HEAD /large.bin HTTP/1.1\r\nHost: h\r\n\r\n"],
    "large": [b"GET /large.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"],
    "range": [b"GET /large.bin HTTP/1.1\r\nHost: h\r\nRange: bytes=5-9\r\n\r\n"],
    "none": [b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n"],
    "gone": [b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n"],
    "moved": [b"GET /moved HTTP/1.1\r\nHost: h\r\n\r\n"],
    "pipelined": [b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /none HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n"],
    "said": [b"GET /said HTTP/1.1\r\nHost: a.example:80\r\nCookie: a=b\r\nConnection: keep-alive\r\n\r\n"],
    "hops": [b"GET /said HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-A\r\nX-A: b\r\nUpgrade: websocket\r\nTE: x\r\n\r\n"],
    "nobody's": [b"GET /said HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /none HTTP/1.0\r\nHost: h\r\n\r\n"],
    "posted": [b"POST /said HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde"],
    "chunked": [b"POST /said HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    "no method": [b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n"],
    "too large": [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n"],
    "no host": [b"GET / HTTP/1.1\r\n\r\n"],
    "rubbish": [b"\0\1\2\r\n\r\n"],
    "not modified": [b"GET / HTTP/1.1\r\nHost: h\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n\r\n"],
}  # fmt: skip


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("behind")
    folder.chmod(0o755)
    site = folder / "site"
    site.mkdir()
    (site / "index.html").write_bytes(b"<p>a shop</p>" * 20)
    (site / "large.bin").write_bytes(random.Random(3).randbytes(2_000_000))
    port = free_port()
    nginx = Nginx(folder, BEHIND.format(folder=folder, port=port, site=site), port)
    yield nginx
    nginx.end()


@asynccontextmanager
async def both(folder: Path, upstream: int) -> AsyncIterator[tuple[int, int]]:
    """Ports of a listener of ours and of an nginx, each in front of that port."""
    cover = CoverSettings(upstream=f"http://127.0.0.1:{upstream}")
    config = Config(
        network="dev", data_dir=folder / "a", listen=("127.0.0.1:0?carrier=http",), max_outbound=0, cover=cover
    )
    async with Node(config) as node:
        assert node.covers is not None
        cookie, attributes = re.fullmatch(r"([^;=]*)(.*)", node.covers.shown[0]["cookie"]).groups()  # type: ignore[union-attr]
        port, place = free_port(), folder / "front"
        text = FRONT.format(folder=place, port=port, upstream=upstream, cookie=cookie, attributes=attributes)
        nginx = await asyncio.to_thread(Nginx, place, text, port)
        try:
            yield node.addresses[0].port, port
        finally:
            nginx.end()


def compared(folder: Path, upstream: int, probes: dict[str, list[bytes]]) -> dict[str, tuple[Reply, Reply]]:
    async def go() -> dict[str, tuple[Reply, Reply]]:
        room = asyncio.Semaphore(10)
        async with both(folder, upstream) as (mine, theirs):

            async def one(pieces: list[bytes]) -> tuple[Reply, Reply]:
                async with room:
                    ours, real = await asyncio.gather(*(ask(port, pieces, quiet_s=1.0) for port in (mine, theirs)))
                    return ours, real

            found = dict(zip(probes, await asyncio.gather(*map(one, probes.values())), strict=True))
            again = {name: await one(probes[name]) for name, (ours, real) in found.items() if ours != real}
        return {name: (ours, real) for name, (ours, real) in again.items() if ours != real}

    return asyncio.run(go())


def test_strangers_see_what_they_see_through_nginx(behind: Nginx, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    right = [b"".join(pieces) for pieces in PROBES.values()]
    changed = {f"mutant {n}": [data] for n, data in enumerate(islice(mutants(right, random.Random(4)), 300))}
    assert compared(tmp_path, behind.port, PROBES | changed) == {}


def test_a_site_that_is_down_is_nginx_s_502(tmp_path: Path) -> None:
    probes = {name: PROBES[name] for name in ("page", "old", "head", "pipelined", "posted")}
    assert compared(tmp_path, free_port(), probes) == {}


def test_curl_and_a_link_at_the_same_port(behind: Nginx, tmp_path: Path) -> None:
    cover = CoverSettings(upstream=f"http://127.0.0.1:{behind.port}")
    listen = ("127.0.0.1:0?carrier=http", "127.0.0.1:0?carrier=tls")

    async def go() -> None:
        async with (
            Node(Config(network="dev", data_dir=tmp_path / "a", listen=listen, max_outbound=0, cover=cover)) as alice,
            Node(Config(network="dev", data_dir=tmp_path / "b", listen=(), max_outbound=0)) as bob,
        ):
            for address, scheme in zip(alice.addresses, ("http", "https"), strict=True):
                argv = ["curl", "-sk", "--max-time", "20", f"{scheme}://127.0.0.1:{address.port}/large.bin"]
                found = await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=True)
                assert found.stdout == random.Random(3).randbytes(2_000_000)
                assert (await bob.connect(address)).pattern == "NK"

    asyncio.run(go())
