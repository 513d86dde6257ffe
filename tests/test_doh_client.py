"""The DNS-over-HTTPS client against servers that answer well, badly, slowly or never, on loopback."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest

from doh_server import Authority
from h2_server import Server, Session, serving
from obscura.limits import DOH_ANSWER, DOH_CONNECTION
from obscura.node.resolvers import Answer, Provider
from obscura.transport import doh

NAME = "seeds.example.org"
HOST = "doh.example"
RESOLVING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
SHORT = 0.5  # seconds that a lookup has where it is to run out of them


@dataclass
class Certificates:
    folder: Path
    ca: Path
    good: tuple[Path, Path]
    other_name: tuple[Path, Path]
    expired: tuple[Path, Path]
    stranger: tuple[Path, Path]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    ours, theirs = Authority(tmp_path_factory.mktemp("ca")), Authority(tmp_path_factory.mktemp("other"))
    return Certificates(
        ours.folder,
        ours.ca,
        ours.issue(HOST),
        ours.issue("other.example"),
        ours.issue(HOST, expired=True),
        theirs.issue(HOST),
    )


def txt(query: bytes, text: str = "hello") -> bytes:
    question = dns.message.from_wire(query)
    message = dns.message.make_response(question)
    kind = question.question[0].rdtype.name
    value = {"TXT": f'"{text}"', "A": "192.0.2.1", "AAAA": "2001:db8::1"}[kind]
    message.answer.append(dns.rrset.from_text(f"{NAME}.", 300, "IN", kind, value))
    return message.to_wire()


async def good(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    await session.answer(stream, txt(body))


def run(
    behaviour: Any,
    certificates: Certificates,
    *,
    kinds: tuple[str, ...] = ("TXT",),
    certificate: str = "good",
    protocols: tuple[str, ...] = ("h2",),
    ca: str | None = "ours",
    addresses: tuple[str, ...] = ("127.0.0.1",),
    **options: Any,
) -> tuple[tuple[Answer, ...], Server]:
    """One lookup at a server that behaves so; its answers, and what the server saw."""

    async def scenario() -> tuple[tuple[Answer, ...], Server]:
        async with serving(behaviour, getattr(certificates, certificate), protocols) as server:
            trusted = str(certificates.ca) if ca == "ours" else ca
            provider = Provider(HOST, addresses, "test", "/q", server.port, trusted)
            answers = await doh.ask(provider, NAME, kinds, random.Random(1), **options)
        return answers, server

    return asyncio.run(scenario())


# --- What works, and what it shows ----------------------------------------------------------------------------------


def test_all_kinds_over_one_connection(certificates: Certificates) -> None:
    answers, server = run(good, certificates, kinds=("TXT", "A", "AAAA"))
    assert answers == (
        Answer("TXT", (b"hello",), 300),
        Answer("A", (bytes([192, 0, 2, 1]),), 300),
        Answer("AAAA", (bytes.fromhex("20010db8" + "0" * 23 + "1"),), 300),
    )
    assert (server.connections, len(server.requests)) == (1, 3)


def test_a_request_is_rfc_8484_and_says_nothing_of_the_software(certificates: Certificates) -> None:
    _, server = run(good, certificates)
    ((headers, body),) = server.requests
    assert headers == {
        ":method": "POST",
        ":scheme": "https",
        ":authority": f"{HOST}:{server.port}",
        ":path": "/q",
        "accept": "application/dns-message",
        "content-type": "application/dns-message",
        "content-length": str(len(body)),
    }
    assert len(body) % 128 == 0
    assert server.names == [HOST]


def test_a_cookie_does_not_come_back(certificates: Certificates) -> None:
    async def baker(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
        await session.answer(stream, txt(body), set_cookie="id=1", alt_svc='h2="evil.example:443"')

    _, server = run(baker, certificates, kinds=("TXT", "A"))
    assert [set(headers) & {"cookie"} for headers, _ in server.requests] == [set(), set()]


def test_no_resolver_is_asked(certificates: Certificates) -> None:
    asked: list[tuple[str, Any]] = []
    sys.addaudithook(lambda event, given: asked.append((event, given)) if event in RESOLVING else None)
    (answer,), _ = run(good, certificates)
    assert answer.records == (b"hello",)
    assert asked == []
    socket.getaddrinfo("127.0.0.1", 1, flags=socket.AI_NUMERICHOST)
    assert len(asked) == 1  # the hook does see such a call


def test_the_socket_can_be_opened_by_a_proxy_and_only_by_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, int]] = []
    real = doh.open_tcp

    async def proxy(address: str, port: int) -> socket.socket:
        opened.append((address, port))
        return await real("127.0.0.1", port)

    answers, server = run(good, certificates, addresses=("192.0.2.53",), proxy=proxy)
    assert answers[0].records == (b"hello",)
    assert opened == [("192.0.2.53", server.port)]


def test_a_dead_address_leads_to_the_next(certificates: Certificates) -> None:
    answers, server = run(good, certificates, addresses=("127.0.0.9", "127.0.0.1", "127.0.0.8"))
    assert answers[0].records == (b"hello",)
    assert server.connections == 1


# --- Certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "options", "fault"),
    [
        ("wrong name", {"certificate": "other_name"}, "Hostname mismatch"),
        ("expired", {"certificate": "expired"}, "has expired"),
        ("authority unknown to the file", {"certificate": "stranger"}, "certificate"),
        ("authority unknown to the system", {"ca": None}, "certificate"),
        ("file missing", {"ca": "/nonexistent/ca.pem"}, "/nonexistent/ca.pem cannot be read"),
        ("no HTTP/2", {"protocols": ("http/1.1",)}, "does not speak HTTP/2"),
    ],
)
def test_who_does_not_prove_its_name_gets_no_question(
    what: str, options: dict[str, Any], fault: str, certificates: Certificates
) -> None:
    (answer,), server = run(good, certificates, **options)
    assert answer.fault is not None
    assert fault in answer.fault
    assert server.requests == []


# --- Servers that misbehave -----------------------------------------------------------------------------------------

Act = Callable[[Session, int, dict[str, str], bytes], Awaitable[None]]


def replying(status: int = 200, kind: str | None = None, body: bytes | None = None, **more: str) -> Act:
    async def act(session: Session, stream: int, headers: dict[str, str], query: bytes) -> None:
        await session.answer(stream, txt(query) if body is None else body, status, kind, **more)

    return act


async def dripping(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    session.http.send_headers(stream, [(":status", "200"), ("content-type", "application/dns-message")])
    for _ in range(1_000):
        session.http.send_data(stream, b"\0")
        await session.flush()
        await asyncio.sleep(SHORT / 20)


async def silent(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    return None


async def flooding(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    await session.raw(bytes([0, 0, 8, 6, 0, 0, 0, 0, 0, *b"12345678"]) * (DOH_CONNECTION // 16))  # PING


async def resetting(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    session.http.reset_stream(stream)


async def ending(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    session.http.close_connection()


async def cutting(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    session.writer.close()


async def garbage(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    await session.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    session.writer.close()


async def misplaced_frame(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    await session.raw(bytes([0, 0, 0, 4, 0]) + stream.to_bytes(4, "big"))  # SETTINGS belong to stream 0


async def huge_frame(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    await session.raw(b"\xff\xff\xff\x00\x00" + stream.to_bytes(4, "big") + bytes(2 * DOH_CONNECTION))


async def pushing(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    block = session.http.encoder.encode(
        [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", HOST)]
    )
    payload = (2).to_bytes(4, "big") + block
    await session.raw(len(payload).to_bytes(3, "big") + b"\x05\x04" + stream.to_bytes(4, "big") + payload)


async def nameless(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    block = session.http.encoder.encode([("content-type", "application/dns-message")])
    await session.raw(len(block).to_bytes(3, "big") + b"\x01\x05" + stream.to_bytes(4, "big") + block)


async def long_headers(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
    await session.answer(stream, txt(body), **{f"x{number}": "y" * 1_000 for number in range(100)})


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (replying(302, location="https://evil.example/"), "HTTP 302"),
        (replying(301, location="/other"), "HTTP 301"),
        (replying(404), "HTTP 404"),
        (replying(500), "HTTP 500"),
        (replying(204, body=b""), "HTTP 204"),
        (replying(kind="text/html"), "no DNS message"),
        (replying(kind="application/dns-json"), "no DNS message"),
        (replying(kind=""), "no DNS message"),
        (replying(body=bytes(DOH_ANSWER + 1)), f"more than {DOH_ANSWER} bytes"),
        (replying(body=bytes(10 * DOH_CONNECTION)), f"more than {DOH_ANSWER} bytes"),
        (replying(body=b""), "nonsense"),
        (replying(body=b"<html>"), "nonsense"),
        (flooding, f"more than {DOH_CONNECTION} bytes"),
        (resetting, "refuses"),
        (ending, "ended the connection"),
        (cutting, "ended the connection"),
        (garbage, "ended the connection"),
        (misplaced_frame, "breaks HTTP/2"),
        (huge_frame, f"more than {DOH_CONNECTION} bytes"),
        (pushing, "breaks HTTP/2"),
        (nameless, "HTTP"),
        (long_headers, "breaks HTTP/2"),
    ],
)
def test_a_fault_of_the_server_is_a_value(behaviour: Act, fault: str, certificates: Certificates) -> None:
    (answer,), server = run(behaviour, certificates)
    assert answer.records == ()
    assert answer.fault is not None
    assert fault in answer.fault
    assert len(server.requests) == 1  # never again, nowhere else


@pytest.mark.parametrize("behaviour", [dripping, silent])
def test_time_runs_out_however_alive_the_server_looks(behaviour: Act, certificates: Certificates) -> None:
    (answer,), _ = run(behaviour, certificates, timeout_s=SHORT)
    assert answer.fault == "no answer in time"


def test_what_came_before_the_fault_counts(certificates: Certificates) -> None:
    async def once(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
        await (good if len(session.server.requests) == 1 else ending)(session, stream, headers, body)

    answers, server = run(once, certificates, kinds=("TXT", "A", "AAAA"))
    assert [answer.fault is None for answer in answers] == [True, False, False]
    assert len(server.requests) == 2


def test_an_interim_answer_and_a_charset_are_no_fault(certificates: Certificates) -> None:
    async def hinting(session: Session, stream: int, headers: dict[str, str], body: bytes) -> None:
        session.http.send_headers(stream, [(":status", "103"), ("link", "</x>")])
        await session.answer(stream, txt(body), kind="Application/DNS-Message; x=1")

    (answer,), _ = run(hinting, certificates)
    assert answer.records == (b"hello",)


def test_nobody_listens_and_nobody_answers() -> None:
    with socket.socket() as bound:  # bound, not listening: refused
        bound.bind(("127.0.0.1", 0))
        provider = Provider(HOST, ("127.0.0.1",), "test", "/q", bound.getsockname()[1])
        (answer,) = asyncio.run(doh.ask(provider, NAME, ("TXT",), random.Random(1)))
    assert answer.fault == "connection refused"
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts by its backlog, never speaks
        provider = Provider(HOST, ("127.0.0.1",), "test", "/q", mute.getsockname()[1])
        (answer,) = asyncio.run(doh.ask(provider, NAME, ("TXT",), random.Random(1), timeout_s=SHORT))
    assert answer.fault == "no answer in time"


def test_giving_up_leaves_no_socket(certificates: Certificates) -> None:
    async def scenario() -> None:
        async with serving(silent, certificates.good) as server:
            provider = Provider(HOST, ("127.0.0.1",), "test", "/q", server.port, str(certificates.ca))
            task = asyncio.create_task(doh.ask(provider, NAME, ("TXT",), random.Random(1)))
            await server.asked.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await server.emptied.wait()

    asyncio.run(scenario())
