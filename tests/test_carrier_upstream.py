"""A web site behind the web listeners: what reaches it, what comes back, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import h11
import pytest

from carriers import FLIGHT_1, FLIGHT_2, KEY, MAKERS, Maker, Wire, website
from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.node import Node
from obscura.daemon.upstream import upstream_place
from obscura.errors import ConfigError
from obscura.limits import BODY_S, KEEPALIVE_S, MAX_REQUEST_BODY, PROXY_READ_S, UPSTREAM_LOOK_S
from obscura.morph.behind import Ticket, Upstream
from obscura.morph.carrier import Finished
from obscura.morph.dress import path_for_key
from obscura.morph.http import HttpServer

ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: inner\r\nDate: never\r\nX-Own: 1\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 5\r\n\r\nhello"
)


class Canned(Ticket):
    def __init__(self, pieces: list[bytes], failure: int = 0) -> None:
        self.pieces = pieces
        self._failure = failure
        self.dropped = False

    @property
    def failure(self) -> int:
        return self._failure

    def take(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    @property
    def is_over(self) -> bool:
        return not self.pieces

    def drop(self) -> None:
        self.dropped = True


class Behind(Upstream):
    def __init__(self, *answers: Canned) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def ask(self, request: bytes) -> Ticket:
        self.asked.append(request)
        return self.answers.pop(0)


class Visit:
    def __init__(self, *answers: Canned) -> None:
        site = website(is_tls=False)
        self.behind = site.upstream = Behind(*answers)
        self.server = HttpServer(random.Random(1), site)
        self.server.start(0.0)
        self.now = 0.0
        self.is_over = False

    def say(self, data: bytes) -> bytes:
        events = self.server.receive(data, self.now)
        out = b"".join(self.server.take())
        for _ in range(2_000):
            self.is_over |= any(isinstance(event, Finished) for event in events)
            if self.is_over or self.server.deadline() > self.now + UPSTREAM_LOOK_S[1]:
                break
            self.now = max(self.now, self.server.deadline())
            events = self.server.due(self.now)
            out += b"".join(self.server.take())
        return out


GET = b"GET /a?b HTTP/1.1\r\nHost: h.example\r\n\r\n"


def test_what_reaches_the_site_tells_nothing_of_who_asks_but_what_he_said() -> None:
    visit = Visit(Canned([ANSWER]))
    visit.say(
        b"GET /a?b HTTP/1.1\r\nHost: h.example\r\nUser-Agent: x\r\nConnection: keep-alive\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nKeep-Alive: 5\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
    )
    assert visit.behind.asked == [
        b"GET /a?b HTTP/1.0\r\nHost: h.example\r\nConnection: close\r\nUser-Agent: x\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
    ]


def test_the_answer_has_the_front_s_fields_in_nginx_s_order() -> None:
    answer = Visit(Canned([ANSWER])).say(GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")]
    assert names == [
        *(b"HTTP/1.1 200 OK", b"Server", b"Date", b"Content-Type", b"Content-Length", b"Connection", b"X-Own"),
        b"Set-Cookie",
    ]
    assert b"inner" not in head
    assert b"never" not in head
    assert body == b"hello"


@pytest.mark.parametrize("cut", [1, 7, 1_000])
@pytest.mark.parametrize("length", [True, False])
def test_answers_in_any_pieces_are_whole_for_h11(cut: int, length: bool) -> None:
    body = random.Random(1).randbytes(3_000)
    said = b"HTTP/1.0 200 OK\r\n" + (b"Content-Length: 3000\r\n" if length else b"") + b"\r\n" + body
    pieces = [said[at : at + cut] for at in range(0, len(said), cut)] if cut > 1 else [said[:1], said[1:40], said[40:]]
    visit = Visit(Canned(pieces), Canned([ANSWER]))
    client = h11.Connection(h11.CLIENT)
    for expected in (body, b"hello"):
        client.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
        client.send(h11.EndOfMessage())
        client.receive_data(visit.say(GET))
        assert isinstance(client.next_event(), h11.Response)
        got = b""
        while isinstance(event := client.next_event(), h11.Data):
            got += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert got == expected
        client.start_next_cycle()
    assert not visit.is_over
    assert visit.server.deadline() == visit.now + KEEPALIVE_S


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde", b"abcde"),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("cut", [1, 1_000])
def test_bodies_are_read_first_and_go_with_their_length(request_: bytes, body: bytes, cut: int) -> None:
    visit = Visit(Canned([ANSWER]))
    for at in range(0, len(request_), cut):
        assert visit.behind.asked == []
        visit.say(request_[at : at + cut])
    (asked,) = visit.behind.asked
    assert asked.endswith(b"\r\n\r\n" + body)
    assert (b"Content-Length: %d\r\n" % len(body) in asked) == bool(body)
    assert b"chunked" not in asked


@pytest.mark.parametrize(
    ("ticket", "status"),
    [
        (Canned([], 502), b"502 Bad Gateway"),
        (Canned([], 504), b"504 Gateway Time-out"),
        (Canned([]), b"502 Bad Gateway"),
        (Canned([b"SSH-2.0-x\r\n\r\n"]), b"502 Bad Gateway"),
        (Canned([b"x" * 40_000]), b"502 Bad Gateway"),
        (Canned([b"HTTP/1.1 200 OK\r\nno field\r\n\r\n"]), b"502 Bad Gateway"),
        (Canned([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]), b"502 Bad Gateway"),
    ],
)
def test_a_site_that_fails_is_nginx_s_error(ticket: Canned, status: bytes) -> None:
    visit = Visit(ticket, Canned([ANSWER]))
    answer = visit.say(GET)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"<center>nginx/1.22.1</center>" in answer
    assert ticket.dropped
    assert not visit.is_over
    assert visit.say(GET).endswith(b"hello"), "and the connection goes on"


def test_the_last_answer_is_written_to_its_end_before_the_connection_closes() -> None:
    body = random.Random(4).randbytes(1_000_000)
    visit = Visit(Canned([b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n" + body]))
    assert visit.say(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).endswith(b"\r\n\r\n" + body)
    assert visit.is_over


def test_an_answer_that_breaks_off_ends_the_connection() -> None:
    visit = Visit(Canned([ANSWER[:-2]]))
    assert visit.say(GET).endswith(b"hel")
    assert visit.is_over


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_a_body(status: bytes) -> None:
    visit = Visit(Canned([b"HTTP/1.1 " + status + b"\r\n\r\n"]), Canned([ANSWER]))
    assert visit.say(GET).startswith(b"HTTP/1.1 " + status)
    assert visit.say(GET.replace(b"GET", b"HEAD")).endswith(b"\r\n\r\n")
    assert not visit.is_over


def test_pipelined_requests_are_answered_in_order() -> None:
    first = Canned([b"", b"", ANSWER.replace(b"hello", b"first")])
    answers = Visit(first, Canned([ANSWER])).say(GET + GET)
    assert answers.index(b"first") < answers.index(b"hello")


def test_what_is_too_large_or_no_body_never_reaches_the_site() -> None:
    for said, status in (
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (MAX_REQUEST_BODY + 1), b"413"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", b"400"),
        (b"GET " + path_for_key(KEY) + b" HTTP/1.1\r\nHost: h\r\n\r\n", b"401"),
    ):
        visit = Visit()
        assert visit.say(said).startswith(b"HTTP/1.1 " + status)
        assert visit.behind.asked == []


def test_a_body_that_trickles_is_awaited_as_long_as_nginx_does() -> None:
    """``client_body_timeout`` is between two reads, not of the whole body."""
    visit = Visit(Canned([ANSWER]))
    visit.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    for letter in b"abcde":
        assert visit.server.due(visit.now) == []
        visit.now += BODY_S - 1
        answer = visit.say(bytes((letter,)))
    assert answer.endswith(b"hello")
    visit = Visit()
    visit.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\na")
    assert visit.server.deadline() == BODY_S
    assert visit.server.due(BODY_S) == [Finished()]


def test_a_quick_site_is_answered_at_once_and_a_slow_one_costs_few_looks() -> None:
    quick, slow = Visit(Canned([b"", ANSWER])), Visit(Canned([b""] * 1_000_000))
    quick.server.receive(GET, 0.0)
    assert quick.server.deadline() <= 0.002
    slow.server.receive(GET, 0.0)
    looks = 0
    while slow.now < PROXY_READ_S:
        assert slow.server.deadline() > slow.now
        slow.now = slow.server.deadline()
        slow.server.due(slow.now)
        looks += 1
    assert looks < 350


def test_who_leaves_drops_the_question() -> None:
    ticket = Canned([b"", b""])
    visit = Visit(ticket)
    visit.server.receive(GET, 0.0)
    visit.server.eof(0.0)
    assert ticket.dropped


@pytest.mark.parametrize("name", ["http", "http, in requests"])
def test_links_open_in_front_of_such_a_site(name: str) -> None:
    site = website(is_tls=False)
    site.upstream = Behind(Canned([ANSWER]))
    wire = Wire(Maker(MAKERS[name].client, lambda rng: HttpServer(rng, site))).opened()
    assert (wire.server.flights, wire.client.flights) == ([FLIGHT_1], [FLIGHT_2])


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("http://example.org", "names are not looked up"),
        ("https://127.0.0.1", "nothing behind it"),
        ("http://127.0.0.1/x", "nothing behind it"),
        ("127.0.0.1:80", "names are not looked up"),
        ("http://127.0.0.1:99999", "names are not looked up"),
        ("http://10.0.0.1:80", "with only-net"),
    ],
)
def test_a_place_that_cannot_be_is_said(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        upstream_place(text, only_loopback=True)


def test_places() -> None:
    assert upstream_place("http://127.0.0.1:8080", only_loopback=True) == ("127.0.0.1", 8080)
    assert upstream_place("http://[::1]") == ("::1", 80)
    assert upstream_place("http://10.0.0.1/") == ("10.0.0.1", 80)


@pytest.mark.parametrize(
    "hidden", [{"only_net": ("tor",), "tor": "auto"}, {"proxy": "tor", "tor": "auto"}, {"proxy": "127.0.0.1:9"}]
)
def test_a_node_that_may_not_connect_directly_refuses_a_site_elsewhere(tmp_path: Path, hidden: dict[str, Any]) -> None:
    cover = CoverSettings(upstream="http://10.0.0.1:80")
    listen = ("127.0.0.1:0?carrier=http",)
    config = Config(network="dev", data_dir=tmp_path, listen=listen, max_outbound=0, cover=cover, **hidden)

    async def go() -> None:
        async with Node(config):
            pass

    with pytest.raises(ConfigError, match=r"cover\.upstream.*on this machine"):
        asyncio.run(go())
