"""What comes from this machine: RPC, its HTTP form, configuration, kept files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from fuzz import target
from fuzz.targets.routes import Nowhere, replying, within
from obscura.daemon.config import load
from obscura.daemon.gate import Gate
from obscura.daemon.http_server import Connection, HttpServer
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.tokens import TokenFile
from obscura.daemon.web import Loopback
from obscura.errors import ConfigError
from obscura.transport.destinations import DialledFile

METHODS = MethodRegistry()


@METHODS.method("ping")
async def ping(peer: str, count: int = 1) -> dict[str, float]:
    """For the fuzzer."""
    return {peer: float(count)}


RPC = [
    b'{"jsonrpc":"2.0","method":"ping","params":{"peer":"a"},"id":1}',
    b'[{"jsonrpc":"2.0","method":"ping","params":["a",2],"id":"x"},{"jsonrpc":"2.0","method":"help"}]',
    b'{"jsonrpc":"2.0","method":"rpc.discover","id":null}',
]


@target(
    "rpc",
    "Every text is answered by valid JSON-RPC or, a notification, by nothing; no method's fault gets out.",
    lambda: RPC,
)
def rpc(data: bytes) -> None:
    async def scene() -> None:
        answer = await METHODS.respond(data)
        if answer is not None:
            told = json.loads(answer)
            for each in told if isinstance(told, list) else [told]:
                assert each["jsonrpc"] == "2.0"
                assert ("result" in each) != ("error" in each)

    within(scene())


class Kept(Nowhere):
    """A writer that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data


HTTP = [
    b"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /metrics HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer x\r\nOrigin: null\r\n\r\n",
    b"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1:1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n",
    b"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1:1\r\nTransfer-Encoding: gzip\r\n\r\n",
]


@target("http-rpc", "Whoever has no secret gets refusals only, and every answer is HTTP.", lambda: HTTP)
def http_rpc(data: bytes) -> None:
    async def scene() -> None:
        writer = Kept()
        server = HttpServer(Loopback("127.0.0.1", 1), {}, GATE, head_s=0.2, idle_s=0.2, stall_s=0.2)
        try:
            await Connection(server, replying(data), writer).serve()  # type: ignore[arg-type]
        except (ConnectionError, TimeoutError):
            pass
        assert not writer.sent or writer.sent.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501", b"HTTP/1.1 505"))

    within(scene())


FOLDER = Path(tempfile.mkdtemp(prefix="obscura-fuzz-"))
GATE = Gate("c" * 64, TokenFile(FOLDER / "tokens"), lambda: 0.0)
CONFIG = [
    b'network = "dev"\nlisten = ["obscura://127.0.0.1:0"]\n[log]\n',
    b'privacy = "high"\nmax-inbound = 3\n',
    b"x = [1, {a = 2}]\n",
]


@target(
    "configuration",
    "A configuration file is read or refused with ConfigError, which names what is wrong.",
    lambda: CONFIG,
)
def configuration(data: bytes) -> None:
    path = FOLDER / "obscura.toml"
    path.write_bytes(data)
    try:
        load(path, environ={})
    except ConfigError as error:
        if not str(error):
            raise AssertionError("a refusal without a word") from error


@target(
    "destinations",
    "A damaged file of dialled I2P destinations gives what is whole in it, each number once.",
    lambda: [b"", bytes(600)],
)
def destinations(data: bytes) -> None:
    path = FOLDER / "destinations"
    path.write_bytes(data)
    numbers = [number for number, _ in DialledFile(path).load()]
    assert len(numbers) == len(set(numbers))
