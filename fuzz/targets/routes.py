"""Local daemons and servers on the way: Tor's control port, SOCKS, SAM, DNS over HTTPS, routers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

from fuzz import target
from obscura.errors import DecodeError
from obscura.limits import DOH_ANSWER, TOR_LINE_BYTES
from obscura.node.resolvers import Provider
from obscura.transport import doh, portmap, sam, sam_words, socks5
from obscura.transport.dns_query import query, read_answer
from obscura.transport.sam import SamFault
from obscura.transport.socks5 import Credentials, SocksFault
from obscura.transport.tor import TorControl, TorFault

LOOP = asyncio.new_event_loop()
ENOUGH_S = 5.0
PROVIDER = Provider("dns.example.org", ("192.0.2.1",), "example")


class Nowhere:
    """A writer whose bytes are lost."""

    def __init__(self) -> None:
        self.transport = self

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


def within(work: Awaitable[object]) -> None:
    """Run it to its end, which has to come by itself."""

    async def guarded() -> None:
        async with asyncio.timeout(ENOUGH_S):
            await work

    LOOP.run_until_complete(guarded())


def replying(data: bytes, limit: int = 1 << 16) -> asyncio.StreamReader:
    """A stream of these bytes and its end."""
    reader = asyncio.StreamReader(limit=limit, loop=LOOP)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


TOR = [
    b"250-version=0.4.8.9\r\n250 OK\r\n",
    b"250+info/names=\r\na\r\n..b\r\n.\r\n250 OK\r\n",
    b"650 HS_DESC UPLOADED a b c\r\n515 Bad authentication\r\n",
    b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/x/\\"y"\r\n250-VERSION Tor="0.4.8"\r\n250 OK\r\n',
]


@target(
    "tor-control",
    "Whatever listens on the control port, an answer is a Reply or a TorFault, and it comes to an end.",
    lambda: TOR,
)
def tor_control(data: bytes) -> None:
    async def scene() -> None:
        control = TorControl(replying(data, TOR_LINE_BYTES), Nowhere())  # type: ignore[arg-type]
        for question in (lambda: control.get("version"), lambda: control.authenticate(None)):
            try:
                await question()  # type: ignore[operator]
            except TorFault:
                pass
        await control.close()

    within(scene())


def over_socket(data: bytes, speak: Callable[[socket.socket], Awaitable[Any]], fault: type[Exception]) -> None:
    """Speak with somebody who has said ``data`` and gone."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        try:
            within(speak(near))
        except fault:
            pass


@target(
    "sam",
    "Whatever listens for SAM, a reply is a Reply or a SamFault, and no line is longer than its limit.",
    lambda: [
        b"HELLO REPLY RESULT=OK VERSION=3.1\n",
        b'SESSION STATUS RESULT=I2P_ERROR MESSAGE="a \\"b\\""\n',
        b"NAMING REPLY RESULT=OK NAME=ME VALUE=" + b"A" * 516 + b"\n",
    ],
)
def sam_reply(data: bytes) -> None:
    for kind in ("HELLO REPLY", "NAMING REPLY"):
        over_socket(data, lambda sock, kind=kind: sam._ask(sock, sam_words.hello(), kind, ENOUGH_S), SamFault)  # type: ignore[misc]
    text = data.decode("utf-8", "replace")
    for parse in (sam_words.parse_reply, sam_words.Destination.parse, sam_words.PrivateDestination.parse):
        try:
            parse(text)
        except ValueError:
            pass


@target(
    "socks",
    "Whatever listens as a proxy, there is a connection or a SocksFault.",
    lambda: [
        b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6),
        b"\x05\x00\x05\xf0\x00\x01" + bytes(6),
        b"\x05\x00\x05\x00\x00\x03\x02ab\x00\x01",
    ],
)
def socks(data: bytes) -> None:
    async def speak(sock: socket.socket) -> None:
        await socks5._negotiate(sock, Credentials("a", "b") if len(data) % 2 else None)
        await socks5._ask(sock, "example.org", 80)

    over_socket(data, speak, (SocksFault, ConnectionError))  # type: ignore[arg-type]


def answers() -> Iterator[bytes]:
    asked = query("seeds.example.org", "TXT")
    yield asked
    record = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x06\x05hello"
    yield asked[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + asked[12:35] + record


@target(
    "dns-answer",
    "No answer raises: it is what was asked for, or a fault in words.",
    answers,
)
def dns_answer(data: bytes) -> None:
    for kind in ("TXT", "A", "AAAA"):
        answer = read_answer(data, "seeds.example.org", kind)
        assert answer.kind == kind


@target(
    "doh",
    "Whatever a DoH server sends, its answer has at most the promised size, or there is a fault; HTTP/2 cannot hang it.",
    lambda: [
        bytes.fromhex("000000040000000000"),
        bytes.fromhex("00000004000000000000000004010000000000002c010400000001")
        + b"\x88"
        + b"\x5f\x17application/dns-message",
    ],
)
def doh_link(data: bytes) -> None:
    async def scene() -> None:
        link = doh._Link(replying(data), Nowhere())  # type: ignore[arg-type]
        try:
            body = await link.post(PROVIDER, query("a.example.org", "A"))
        except (doh._Fault, OSError):
            return
        assert len(body) <= DOH_ANSWER

    within(scene())


@target(
    "router",
    "What a router answers, or is asked, is refused with DecodeError, or is read back as the same when it is written.",
    lambda: [
        bytes.fromhex("0080000000000000cb007105"),
        bytes.fromhex("0081000000000000000a4d1500000e10"),
        b"\x02\x81" + bytes(34) + b"\x06" + bytes(23),
        portmap.PcpRequest(IPv4Address("192.0.2.1"), bytes(12), 9_733).encode(),
    ],
    1_100,
)
def router(data: bytes) -> None:
    for decode in (portmap.decode_answer, portmap.decode_request):
        try:
            read = decode(data)  # type: ignore[operator]
        except DecodeError:
            continue
        assert decode(read.encode()) == read  # type: ignore[operator]
