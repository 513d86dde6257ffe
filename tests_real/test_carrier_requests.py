"""Carrier http in requests and answers, judged by tshark and curl beside the real nginx. Fails without them.

apt install tshark nginx-light curl
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.morph.dress import Dress
from obscura.wire.address import Address
from web_servers import Nginx, free_port

DECODED = ("-o", "tcp.analyze_sequence_numbers:FALSE")


@contextmanager
def captured(port: int, file: Path) -> Iterator[None]:
    """All of a port of loopback while it is left."""
    process = subprocess.Popen(
        ["tshark", "-q", "-i", "lo", "-f", f"tcp port {port}", "-w", str(file)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for text in process.stderr:
        if "Capturing" in text or "File:" in text:
            break
    time.sleep(1.0)  # it says so a little before it does
    try:
        yield
    finally:
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        process.wait(20)


def fields(file: Path, port: int, shown: str, *names: str) -> list[list[str]]:
    """What tshark makes of it."""
    argv = ["tshark", "-r", str(file), *DECODED, "-d", f"tcp.port=={port},http", "-Y", shown, "-T", "fields"]
    argv += ["-E", "separator=|", *(word for name in names for word in ("-e", name))]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    return list(csv.reader(found.stdout.splitlines(), delimiter="|"))


def in_requests(address: Address) -> Address:
    return Address.parse(f"{address}&shape=requests")


def test_tshark_pairs_every_request_with_its_answer(tmp_path: Path) -> None:
    port = free_port()
    listen = (f"127.0.0.1:{port}?carrier=http",)

    async def go() -> None:
        async with (
            Node(Config(network="dev", data_dir=tmp_path / "a", listen=listen, max_outbound=0)) as alice,
            Node(Config(network="dev", data_dir=tmp_path / "b", listen=(), max_outbound=0)) as bob,
        ):
            for _ in range(5):
                peer = await bob.connect(in_requests(alice.addresses[0]))
                for _ in range(4):
                    assert await bob.ping(peer) < 5
                bob.disconnect(peer)
                await asyncio.sleep(0.5)

    file = tmp_path / "session.pcapng"
    with captured(port, file):
        asyncio.run(go())
    requests = fields(file, port, "http.request", "frame.number", "http.request.method")
    answers = fields(file, port, "http.response", "http.request_in", "http.response.code")
    assert len(requests) >= 5 * 6
    assert sorted(number for number, _ in requests) == sorted(number for number, _ in answers), "one answer for each"
    assert {code for _, code in answers} == {"200", "204"}
    assert fields(file, port, "_ws.expert.severity >= 6291456 && !tcp.analysis.flags", "frame.number") == []
    types = {kind for (kind,) in fields(file, port, "http.content_type", "http.content_type")}
    assert types == {"image/jpeg", "application/json", "text/html"}


def test_the_dialler_is_a_visitor_of_the_real_nginx_and_is_told_so(tmp_path: Path) -> None:
    nginx = Nginx.like(tmp_path, tmp_path, Dress(b"sid", b"; Path=/", b"api", frozenset({b"/x"}), False))
    (tmp_path / "index.html").write_text("<p>hello</p>")
    tmp_path.chmod(0o755)

    async def go() -> str:
        async with Node(Config(network="dev", data_dir=tmp_path / "b", listen=(), max_outbound=0)) as bob:
            with contextlib.suppress(Unreachable):
                await bob.connect(f"obscura://{'a' * 52}@127.0.0.1:{nginx.port}?carrier=http&shape=requests")
                return "a link"
            return "none"

    try:
        assert asyncio.run(go()) == "none"
    finally:
        nginx.end()
