"""The same link inside other protocols: what its bytes look like, and what a stranger at the same port gets."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import Any

from demo.stage import Stage
from demo.tap import Tap
from obscura.wire.address import Address

PINGS = 5


def play(stage: Stage) -> None:
    """One node that listens as a web server with and without TLS, a peer over each, a stranger at each."""
    stage.say("[bold]Carriers: a link that is a web site's traffic[/bold]")
    host = stage.start(
        "shop", "--listen", "127.0.0.1:0?carrier=tls&name=shop.example", "--listen", "127.0.0.1:0?carrier=http"
    )
    guest = stage.start("visitor", "--no-listen")
    for text, shown in zip(host.addresses, host.call("listeners"), strict=True):
        _carrier(stage, guest, Address.parse(text), shown)
    stage.expect(stage.end(guest) == 0, "the visitor ended cleanly")
    stage.expect(stage.end(host) == 0, "the shop ended cleanly")


def _carrier(stage: Stage, guest: Any, address: Address, shown: dict[str, Any]) -> None:
    name = address.carrier.name.lower()
    tap = Tap(address.port)
    through = Address(address.key, address.host, tap.port, address.carrier, address.name)
    link = guest.call("connect", address=str(through))
    trips = [guest.call("ping", peer=link["peer"])["rtt_ms"] for _ in range(PINGS)]
    stage.expect(
        link["carrier"] == name and link["key_proved"],
        f"a link over {name} ({link['pattern']}), {PINGS} pings, the fastest {min(trips):.2f} ms",
    )
    up, down = bytes(tap.up), bytes(tap.down)
    if name == "tls":
        stage.expect(up[:3] == b"\x16\x03\x01" and down[:3] == b"\x16\x03\x03", "on the wire: ClientHello, ServerHello")
    else:
        stage.say(f"    → {_line(up)}   ← {_line(down)}")
        asked = up.split(b"\r\n\r\n")[1]
        stage.expect(
            b"\r\nUpgrade: websocket\r\n" in asked and b"HTTP/1.1 101 Switching Protocols" in down,
            f"on the wire: a page, then {asked.split(b' HTTP')[0].decode()} with a token, and a WebSocket",
        )
    _stranger(stage, address, shown)
    guest.call("disconnect", peer=link["peer"])
    tap.close()


def _line(data: bytes) -> str:
    return data.partition(b"\r\n")[0].decode("latin-1")


def _stranger(stage: Stage, address: Address, shown: dict[str, Any]) -> None:
    """A visitor with a browser's means: the page for everybody, 401 at the protected place, replayed or not."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    scheme = "https" if address.carrier.name == "TLS" else "http"

    def get(path: str) -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{address.port}{path}")
        try:
            with urllib.request.urlopen(request, context=careless, timeout=5) as answer:
                return answer.status, str(answer.headers["Server"]), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, str(error.headers["Server"]), error.read()

    status, server, page = get("/")
    stage.expect(
        status == 200 and b"Welcome" in page, f"a stranger gets a page of {len(page)} bytes from {server} at {scheme}"
    )
    statuses = [get(path)[0] for path in ("/none", *shown["protected"])]
    stage.expect(
        statuses == [404] + [401] * len(shown["protected"]),
        f"404 for what is not there, 401 at {shown['protected'][0]}, whoever asks without the right token",
    )
