"""The real nginx, configured like one of our listeners, and one question put to either of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Self

from obscura.morph.dress import Dress

CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 768; }}
http {{
  sendfile on; tcp_nopush on; types_hash_max_size 2048;
  include /etc/nginx/mime.types; default_type application/octet-stream;
  ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; ssl_prefer_server_ciphers on;
  ssl_session_cache shared:sessions:1m; ssl_session_tickets off; ssl_session_timeout 2h;
  access_log off; gzip on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $cookie_{cookie} $fresh {{ "" "{cookie}=$request_id{attributes}"; default ""; }}
  server {{
    listen {listen}; {certificate}
    root {site}; index index.html index.htm index.nginx-debian.html; server_name _;
    add_header Set-Cookie $fresh;
    location / {{ try_files $uri $uri/ =404; }}
    {protected}
  }}
}}
"""
PROTECTED = """location = {path} {{ keepalive_requests 1000000000; keepalive_time 365d;
      add_header WWW-Authenticate 'Bearer realm="{realm}"' always; return 401; }}
"""


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


PROXY = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 768; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""


class Nginx:
    """One nginx process on loopback, ended by its process id."""

    def __init__(self, folder: Path, text: str, port: int) -> None:
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "nginx.conf"
        file.write_text(text)
        self._process = subprocess.Popen(["/usr/sbin/nginx", "-p", str(folder), "-c", str(file)])
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError("nginx does not start")

    @classmethod
    def proxy(cls, folder: Path, certificate: Path, key: Path, upstream: int) -> Self:
        """TLS in front of a listener with ``binding=cookie``."""
        port = free_port()
        return cls(
            folder, PROXY.format(folder=folder, port=port, certificate=certificate, key=key, upstream=upstream), port
        )

    @classmethod
    def like(cls, folder: Path, site: Path, dress: Dress, tls: tuple[Path, Path] | None = None) -> Self:
        """What our listener with this dress and site would be."""
        port = free_port()
        certificate = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};" if tls else ""
        text = CONFIGURATION.format(
            folder=folder,
            site=site,
            cookie=dress.cookie.decode(),
            attributes=dress.attributes.decode(),
            listen=f"127.0.0.1:{port}{' ssl' if tls else ''}",
            certificate=certificate,
            protected="".join(
                PROTECTED.format(path=path.decode(), realm=dress.realm.decode()) for path in sorted(dress.paths)
            ),
        )
        return cls(folder, text, port)

    def end(self) -> None:
        """Stop it."""
        os.kill(self._process.pid, signal.SIGTERM)
        self._process.wait(10)


class Reply(NamedTuple):
    """What came back, with what differs between any two answers masked, and how the connection stood then."""

    data: bytes
    state: str  # open, closed, reset


_MASKS = (
    (re.compile(rb"(\r\nDate: )[^\r\n]*"), rb"\1-"),
    (re.compile(rb"(\r\nSet-Cookie: [^=\r\n]*=)[0-9a-f]{32}"), rb"\1-"),
    (re.compile(rb"[0-9]{20}"), rb"-"),  # the number of a multipart answer
)


def masked(data: bytes) -> bytes:
    """Without dates and cookie values."""
    for pattern, replacement in _MASKS:
        data = pattern.sub(replacement, data)
    return data


async def ask(
    port: int, pieces: list[bytes], *, tls: ssl.SSLContext | None = None, quiet_s: float = 0.25, pause_s: float = 0.02
) -> Reply:
    """Send the pieces, and read until nothing came for ``quiet_s``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    data, state = bytearray(), "open"
    try:
        for at, piece in enumerate(pieces):
            writer.write(piece)
            await writer.drain()
            if at < len(pieces) - 1:
                await asyncio.sleep(pause_s)
        while True:
            try:
                async with asyncio.timeout(quiet_s):
                    got = await reader.read(1 << 16)
            except TimeoutError:
                break
            if not got:
                state = "closed"
                break
            data += got
    except (ConnectionError, ssl.SSLError):
        state = "reset"
    finally:
        writer.transport.abort()
    return Reply(masked(bytes(data)), state)
