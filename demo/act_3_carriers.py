"""The same link inside other protocols: what its bytes look like, and what a stranger at the same port gets."""

from __future__ import annotations

import ssl
import subprocess
import urllib.error
import urllib.request
from shutil import which
from typing import Any

import msgspec

from demo.stage import Stage
from demo.tap import Tap
from obscura.wire.address import Address

PINGS = 5


def play(stage: Stage) -> None:
    """One node that listens as four kinds of servers, a link over each of its carriers, a stranger at the web sites."""
    stage.say("[bold]Carriers: a link that is another protocol's session[/bold]")
    places = [f"127.0.0.1:0?carrier={carrier}" for carrier in ("tls&name=shop.example", "http", "ssh", "dns")]
    host = stage.start("shop", *(word for place in places for word in ("--listen", place)))
    guest = stage.start("visitor", "--no-listen")
    for text, shown in zip(host.addresses, host.call("listeners"), strict=True):
        _carrier(stage, guest, Address.parse(text), shown)
    stage.expect(stage.end(guest) == 0, "the visitor ended cleanly")
    stage.expect(stage.end(host) == 0, "the shop ended cleanly")


def _carrier(stage: Stage, guest: Any, address: Address, shown: dict[str, Any]) -> None:
    name = address.carrier.name.lower()
    tap = Tap(address.port)
    shape = "websocket" if name == "http" else None
    through = msgspec.structs.replace(address, port=tap.port, shape=shape)
    link = guest.call("connect", address=str(through))
    trips = [guest.call("ping", peer=link["peer"])["rtt_ms"] for _ in range(PINGS)]
    stage.expect(
        link["carrier"] == name and link["key_proved"],
        f"a link over {name} ({link['pattern']}), {PINGS} pings, the fastest {min(trips):.2f} ms",
    )
    _on_the_wire(stage, name, bytes(tap.up), bytes(tap.down))
    if name in ("tls", "http"):
        _stranger(stage, address, shown)
    guest.call("disconnect", peer=link["peer"])
    tap.close()


def _on_the_wire(stage: Stage, name: str, up: bytes, down: bytes) -> None:
    """What the first bytes of each direction are."""
    if name == "tls":
        stage.expect(up[:3] == b"\x16\x03\x01" and down[:3] == b"\x16\x03\x03", "on the wire: ClientHello, ServerHello")
    elif name == "ssh":
        stage.expect(up[:8] == down[:8] == b"SSH-2.0-", f"on the wire: {_line(up)}, {_line(down)}, a key exchange")
    elif name == "dns":
        is_answered = up[2:4] == down[2:4] and down[4] & 0x80 > 0
        stage.expect(
            is_answered, "on the wire: a query over TCP and its answer, then signed updates and a zone transfer"
        )
    else:
        stage.say(f"    → {_line(up)}   ← {_line(down)}")
        asked = up.split(b"\r\n\r\n")[1]
        stage.expect(
            b"\r\nUpgrade: websocket\r\n" in asked and b"HTTP/1.1 101 Switching Protocols" in down,
            f"on the wire: a page, then {asked.split(b' HTTP')[0].decode()} with a token, and a WebSocket",
        )


def _line(data: bytes) -> str:
    return data.partition(b"\r\n")[0].decode("latin-1")


def _stranger(stage: Stage, address: Address, shown: dict[str, Any]) -> None:
    """A visitor with a browser's means: the page for everybody, 401 at the protected place, replayed or not."""
    scheme = "https" if address.carrier.name == "TLS" else "http"
    visit = _by_curl if which("curl") else _by_library

    def get(path: str) -> tuple[int, str, bytes]:
        return visit(f"{scheme}://127.0.0.1:{address.port}{path}")

    status, server, page = get("/")
    stage.expect(
        status == 200 and b"Welcome" in page,
        f"a stranger{' with curl' if which('curl') else ''} gets a page of {len(page)} bytes from {server} at {scheme}",
    )
    statuses = [get(path)[0] for path in ("/none", *shown["protected"])]
    stage.expect(
        statuses == [404] + [401] * len(shown["protected"]),
        f"404 for what is not there, 401 at {shown['protected'][0]}, whoever asks without the right token",
    )


def _by_curl(url: str) -> tuple[int, str, bytes]:
    """Status, server and body, as curl sees them."""
    said = subprocess.run(["curl", "-sSki", "--http1.1", "-m", "5", url], capture_output=True, check=True).stdout
    head, _, body = said.partition(b"\r\n\r\n")
    server = next(line[8:] for line in head.split(b"\r\n") if line.lower().startswith(b"server: "))
    return int(head.split()[1]), server.decode(), body


def _by_library(url: str) -> tuple[int, str, bytes]:
    """The same where there is no curl."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, context=careless, timeout=5) as answer:
            return answer.status, str(answer.headers["Server"]), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.headers["Server"]), error.read()
