"""Carrier http: what libraries make of its bytes, what a stranger gets whatever he tries, what one can make it hold."""

from __future__ import annotations

import random
import re
import zlib
from time import process_time

import h11
import msgspec
import pytest
import wsproto.frame_protocol as rfc6455
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection as WebSocket
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from carriers import FLIGHT_1, FLIGHT_2, KEY, MAKERS, UNIX, Wire, website
from obscura.errors import Violation
from obscura.limits import (
    CLIENT_HEADER_S,
    KEEPALIVE_REQUESTS,
    KEEPALIVE_S,
    LINGER_S,
    PROXY_READ_S,
    SEND_STALL_S,
    SITE_STEP,
    SITE_UNREAD_BYTES,
    SITE_WRITE_BYTES,
)
from obscura.morph import masking, websocket
from obscura.morph.carrier import CarrierEvent, Finished, Flight
from obscura.morph.dress import dress, path_for_key
from obscura.morph.http import HttpServer, decode_token, encode_token
from obscura.morph.request import ChunkedBody
from obscura.morph.website import Page, Website
from obscura.morph.websocket import FrameReader, accept_of, frame
from playbook import Host
from web_probes import tables

PATH = path_for_key(KEY)
BARE = b"GET " + PATH + b" HTTP/1.1\r\nHost: h\r\n\r\n"


class Visit:
    """A stranger on one connection to a fresh listener."""

    def __init__(self, site: Website | None = None, *, seed: int = 1) -> None:
        self.server = HttpServer(random.Random(seed), site or website(is_tls=False))
        self.server.start(0.0)
        self.out = b""
        self.events: list[CarrierEvent] = []

    def say(self, data: bytes, now: float = 0.0) -> bytes:
        """Everything that is answered to ``data``, the flight refused."""
        self.events += self.server.receive(data, now)
        answer = b""
        for _ in range(100_000):
            if any(isinstance(event, Flight) for event in self.events):
                self.events.clear()
                self.server.refuse(now)
            pieces = self.server.take()
            answer += b"".join(pieces)
            if self.server.deadline() > now or self.is_over:
                break
            self.events += self.server.due(now)
        return answer

    @property
    def is_over(self) -> bool:
        return any(isinstance(event, Finished) for event in self.events)


# --- Libraries as judges ----------------------------------------------------------------------------------------------


def test_h11_reads_both_sides_of_the_opening() -> None:
    wire = Wire(MAKERS["http"]).opened()
    server, client = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    server.receive_data(bytes(wire.tapped[True]))
    page = server.next_event()
    assert isinstance(page, h11.Request)
    assert page.target == b"/"
    assert isinstance(server.next_event(), h11.EndOfMessage)
    server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    server.send(h11.EndOfMessage())
    server.start_next_cycle()
    upgrade = server.next_event()
    assert isinstance(upgrade, h11.Request)
    fields = dict(upgrade.headers)
    assert (upgrade.target, fields[b"upgrade"]) == (PATH, b"websocket")
    assert decode_token(fields[b"authorization"].removeprefix(b"Bearer ")) == FLIGHT_1
    client.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(bytes(wire.tapped[False]))
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    assert answer.status_code == 200
    while not isinstance(client.next_event(), h11.EndOfMessage):
        pass
    client.start_next_cycle()
    client.send(h11.Request(method="GET", target=PATH, headers=[*fields.items(), ("host", "h")][:-1]))
    client.send(h11.EndOfMessage())
    switched = client.next_event()
    assert isinstance(switched, h11.InformationalResponse)
    assert switched.status_code == 101
    back = dict(switched.headers)
    assert back[b"sec-websocket-accept"] == accept_of(fields[b"sec-websocket-key"])
    assert decode_token(back[b"set-cookie"].partition(b"=")[2].partition(b";")[0]) == FLIGHT_2


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=30)
def test_wsproto_reads_what_both_sides_write(messages: list[bytes], seed: int) -> None:
    rng = random.Random(seed)
    for mask, kind in ((rng, ConnectionType.SERVER), (None, ConnectionType.CLIENT)):
        reader = WebSocket(kind)
        reader.receive_data(b"".join(frame(message, mask) for message in messages))
        got = [
            bytes(event.data) for event in reader.events() if isinstance(event, BytesMessage) and event.message_finished
        ]
        assert got == messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("from_client", [True, False])
def test_frames_of_every_length_form_both_ways(size: int, from_client: bool) -> None:
    data = random.Random(size).randbytes(size)
    writer = WebSocket(ConnectionType.CLIENT if from_client else ConnectionType.SERVER)
    theirs = writer.send(BytesMessage(data=data)) + writer.send(Ping(payload=b"x")) + writer.send(Pong(payload=b""))
    theirs += writer.send(CloseConnection(code=1000))
    for step in (1_000_003, 3, 100) if size < 1_000 else (1_000_003, 1_400):
        reader = FrameReader(masked=from_client)
        found = [
            (opcode, bytes(piece))
            for at in range(0, len(theirs), step)
            for opcode, piece in reader.receive(theirs[at : at + step])
        ]
        assert b"".join(piece for opcode, piece in found if opcode == websocket.BINARY) == data
        assert [item for item in found if item[0] != websocket.BINARY] == [
            (websocket.PING, b"x"),
            (websocket.PONG, b""),
            (websocket.CLOSE, b"\x03\xe8"),
        ]


@pytest.mark.parametrize("name", ["http", "tls"])
@pytest.mark.parametrize("is_server", [True, False])
def test_who_pings_and_does_not_read_is_not_read(name: str, is_server: bool) -> None:
    wire = Wire(MAKERS[name]).opened()
    wire.run()
    asks, answers = (wire.client, wire.server) if is_server else (wire.server, wire.client)
    inner = {side: getattr(side.carrier, "_inner", None) or side.carrier for side in (asks, answers)}
    ping = frame(bytes(125), random.Random(1) if is_server else None, websocket.PING)
    sent = 0
    while not answers.carrier.is_full:
        inner[answers].receive(ping, wire.now)
        sent += 1
        assert sent < 2_000
    assert sent > 500
    assert b"".join(answers.carrier.take())
    assert not answers.carrier.is_full, "once it reads, all goes on"


def test_a_length_is_written_in_its_shortest_form() -> None:
    for size, head in ((125, 2), (126, 4), (65_535, 4), (65_536, 10)):
        assert len(frame(bytes(size), None)) == size + head
        assert len(frame(bytes(size), random.Random(1))) == size + head + 4
    assert rfc6455.Opcode.BINARY == websocket.BINARY


def test_masks_are_fresh() -> None:
    rng = random.Random(1)
    frames = {frame(bytes(8), rng) for _ in range(100)}
    assert len(frames) == 100


@pytest.mark.parametrize(
    "bad",
    [
        b"\xc2\x80aaaa",
        b"\x82\x00",
        b"\x83\x80aaaa",
        b"\x89\xfe\x00\x80aaaa",
        b"\x09\x80aaaa",
        b"\x82\xff" + b"\xff" * 8 + b"aaaa",
    ],
    ids=["reserved", "unmasked", "opcode", "long ping", "cut ping", "negative"],
)
def test_what_rfc_6455_forbids_is_a_violation(bad: bytes) -> None:
    with pytest.raises(Violation):
        list(FrameReader(masked=True).receive(bad))


# --- The stranger's path ----------------------------------------------------------------------------------------------


def opening(seed: int = 1) -> bytes:
    """A whole recorded opening that was let in."""
    wire = Wire(MAKERS["http"], seed=seed).opened()
    return bytes(wire.tapped[True])


def masked(data: bytes) -> bytes:
    """Without cookie values."""
    return b"\r\n".join(b"Set-Cookie" if line.startswith(b"Set-Cookie") else line for line in data.split(b"\r\n"))


def test_a_wrong_late_replayed_or_changed_token_gets_what_no_token_gets() -> None:
    page, upgrade = (part + b"\r\n\r\n" for part in opening().split(b"\r\n\r\n")[:2])
    nobody = masked(Visit(seed=9).say(page + BARE))
    assert b" 401 " in nobody
    assert b"WWW-Authenticate: Bearer" in nobody
    assert masked(Visit(seed=9).say(page + upgrade)) == nobody, "replayed: it names another connection's cookie"
    assert masked(Visit(seed=9).say(page + upgrade.replace(b"Cookie: ", b"X: "))) == nobody, "no cookie"
    assert masked(Visit(seed=9).say(upgrade)) == nobody[nobody.index(b"HTTP/1.1 401") :], "no page before"
    mine = Visit(seed=9)
    cookie = mine.say(page).partition(b"Set-Cookie: ")[2].partition(b";")[0]
    ours = upgrade.replace(upgrade.partition(b"Cookie: ")[2].partition(b"\r\n")[0], cookie)
    refused = mine.say(ours)
    assert refused == nobody[nobody.index(b"HTTP/1.1 401") :], "the channel did not take it"
    assert mine.say(ours) == refused, "nor is a second one tried"
    assert not mine.is_over, "and the connection goes on"
    assert mine.say(b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_each_changed_bit_of_an_upgrade_is_refused_or_the_same_token() -> None:
    """Whatever is flipped, the answer is one that nginx has, and the channel sees the token or nothing."""
    page, upgrade = (part + b"\r\n\r\n" for part in opening().split(b"\r\n\r\n")[:2])
    for at in range(len(upgrade)):
        changed = bytearray(upgrade)
        changed[at] ^= 1 << (at % 8)
        answer = Visit(seed=9).say(page + bytes(changed))
        last = answer[answer.rindex(b"HTTP/1.1 ") :] if b"HTTP/1.1 " in answer else answer
        assert last[:12] in (
            b"HTTP/1.1 401",
            b"HTTP/1.1 400",
            b"HTTP/1.1 404",
            b"HTTP/1.1 405",
            b"HTTP/1.1 505",
            b"HTTP/1.1 200",
        ), at
        assert b" 101 " not in answer


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"POST"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Version: 13", b"Version: 8"),
        (b"Sec-WebSocket-Key", b"Sec-WebSocket-Kex"),
        (b"Bearer ", b"Basic "),
        (b"\r\n\r\n", b"\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_no_flight_leaves_a_request_that_is_no_upgrade(old: bytes, new: bytes) -> None:
    page, upgrade = (part + b"\r\n\r\n" for part in opening().split(b"\r\n\r\n")[:2])
    visit = Visit(seed=9)
    cookie = visit.say(page).partition(b"Set-Cookie: ")[2].partition(b";")[0]
    ours = upgrade.replace(upgrade.partition(b"Cookie: ")[2].partition(b"\r\n")[0], cookie)
    events = visit.server.receive(ours.replace(old, new, 1), 0.0)
    assert not any(isinstance(event, Flight) for event in events)
    fresh = Visit(seed=9)
    fresh.say(page)
    assert any(isinstance(event, Flight) for event in fresh.server.receive(ours, 0.0)), "unchanged it is one"


def test_any_fragmentation_of_any_probe_gives_the_same_answer() -> None:
    etag, modified = b'"x"', b"Tue, 14 Nov 2023 22:13:20 GMT"
    probes = tables(PATH, b"/index.nginx-debian.html", etag, modified)
    rng = random.Random(4)
    for name in rng.sample(sorted(probes), 250):
        data = b"".join(probes[name])[:3_000]
        if b"chunked" in data and (name.startswith("mutant") or b"xx" in data):
            continue  # a body that is none spoils no answer that is out already, as in nginx
        whole, cut = Visit(), Visit()
        expected = whole.say(data)
        got = b""
        for at in range(len(data)):
            got += cut.say(data[at : at + 1])
            if cut.is_over:
                break
        if b" 414 " in expected or b"Too Large" in expected:
            continue  # which of both is said depends on what stands in one buffer, as in nginx
        assert (got, cut.is_over) == (expected, whole.is_over), name


def answered(
    method: bytes, path: bytes, fields: bytes = b"", version: bytes = b"HTTP/1.1", site: Website | None = None
) -> bytes:
    visit = Visit(site)
    visit.server.own_host = "192.0.2.7"
    return visit.say(method + b" " + path + b" " + version + b"\r\n" + fields + b"\r\n")


@pytest.mark.parametrize(
    ("value", "is_zipped"),
    [
        *((b"gzip", True), (b"a, GZIP ;q=0.5", True), (b"gzip;", True), (b"gzip; q=1.000", True), (b"xgzipgzip", True)),
        *((b"xgzip", False), (b"gzip-", False), (b"gzip;q=0", False), (b"gzip;q=0.000", False), (b"gzip;q=0.0001", False)),
        *((b"gzip;q=1.001", False), (b"gzip;q=2", False), (b"gzip q=1", False), (b"gzip;q=0.5x", False)),
    ],
)  # fmt: skip
def test_gzip_is_taken_as_nginx_takes_it(value: bytes, is_zipped: bool) -> None:
    answer = answered(b"HEAD", b"/", b"Host: h\r\nAccept-Encoding: " + value + b"\r\n")
    assert (b"Content-Encoding: gzip" in answer) is is_zipped


@pytest.mark.parametrize(
    ("date", "is_read"),
    [
        *((b"Tue, 14 Nov 2023 22:13:20 GMT", True), (b"x,14 N\xff\xfe 2023 22:13:20", True)),
        *((b"Tuesday, 14-Nov-23 22:13:20 GMT", True), (b"Tue Nov 14 22:13:20 2023", True)),
        *((b"Tue, 14 nov 2023 22:13:20 GMT", False), (b"Tue, 14 Nov 2023 22:13:61 GMT", False), (b"14 Nov 2023 22:13:20", False)),
        *((b"Tue, 31 Nov 2023 22:13:20 GMT", False), (b"Tue,\xa014 Nov 2023 22:13:20 GMT", False)),
        *((b"", False), (b"Tue, 14 Nov 0000 22:13:20", False)),
    ],
)  # fmt: skip
def test_dates_are_read_as_nginx_reads_them(date: bytes, is_read: bool) -> None:
    site = website(is_tls=False)
    (path,) = site.pages
    site.pages[path] = msgspec.structs.replace(site.pages[path], modified=1_700_000_000)
    answer = answered(b"GET", path, b"Host: h\r\nIf-Modified-Since: " + date + b"\r\n", site=site)
    assert (b" 304 " in answer) is is_read


def test_what_a_head_gets_for_a_wrong_line_has_no_body() -> None:
    for path, version, status in ((b"x", b"HTTP/1.1", 400), (b"/", b"HTTP/2.0", 505), (b"/..", b"HTTP/1.1", 400)):
        assert answered(b"HEAD", path, version=version).startswith(b"HTTP/1.1 %d " % status)
        assert answered(b"HEAD", path, version=version).endswith(b"\r\n\r\n")
        assert answered(b"GET", path, version=version).endswith(b"</html>\r\n")


def test_a_number_beyond_the_largest_file_cannot_be_served() -> None:
    for number, status in ((b"9" * 19, 416), (b"9" * 3_500, 416), (b"0" * 30 + b"1", 206)):
        assert b" %d " % status in answered(b"GET", b"/", b"Host: h\r\nRange: bytes=0-1,%s-%s\r\n" % (number, number))


def test_what_a_field_or_a_chunk_is_stuffed_with_costs_no_more_than_its_length() -> None:
    page = next(iter(website(is_tls=False).pages.values()))
    stuffed = b"," * 7_000 + page.etag
    assert b" 304 " in answered(b"GET", b"/", b"Host: h\r\nIf-None-Match: " + stuffed + b"\r\n")
    visit = Visit()
    visit.say(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        visit.say(b"0" * 10_000)
        assert len(visit.server._buffer) <= 1, "zeros before a size are read and forgotten"
    visit.say(b"1\r\nx\r\n0\r\n\r\n")
    assert bytes(visit.server._buffer) == b""
    stuffed = b"GET / HTTP/1.1\r\nHost: h\r\nRange: bytes=" + b" " * 8_000 + b"x\r\n\r\n"
    began = process_time()
    assert Visit().say(stuffed * 300).count(b" 416 ") == 300
    assert process_time() - began < 5.0, "each space was begun with anew"


def test_a_body_of_many_small_chunks_costs_no_more_than_its_length() -> None:
    body = bytearray(b"1\nx\n" * 600_000)
    chunks = ChunkedBody()
    began = process_time()
    while body:
        assert not chunks.skip(body)
    assert process_time() - began < 5.0, "what comes behind was copied for each"


IN_CHUNKS = b" / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"GET" + IN_CHUNKS + b"1\nx\n" * 10_000 + b"0\r\n\r\n" + b"GET /none HTTP/1.0\r\n\r\n", [200, 404]),
        (b"POST" + IN_CHUNKS + b"1\nx\n" * 10_000 + b"x", [405]),
        ((b"GET / HTTP/1.1\nHost:h\n" + b"a:\n" * 2_000 + b"\n") * 5, [200] * 5),
        (b"HEAD /none HTTP/1.1\nHost:h\n\n" * 1_000, [404] * 1_000),
        ((b"GET /" + b"%41" * 2_600 + b" HTTP/1.1\nHost:h\n\n") * 12, [404] * 12),
    ],
    ids=["chunks", "no chunk", "fields", "requests", "escapes"],
)
def test_of_much_that_comes_at_once_a_little_is_looked_at_in_each_turn(said: bytes, answers: list[int]) -> None:
    server = HttpServer(random.Random(1), website(is_tls=False))
    server.start(0.0)
    events = server.receive(said, 0.0)
    out, turns = b"".join(server.take()), 1
    while server.deadline() == 0.0 and not events:
        events = server.due(0.0)
        out += b"".join(server.take())
        turns += 1
    assert turns > 3
    assert server._reader.lines <= turns * 2 * SITE_STEP[0]
    assert [int(status) for status in re.findall(rb"HTTP/1.1 ([0-9]{3}) ", out)] == answers
    assert len(server._buffer) <= 1, "but for what is no chunk"


# --- Time and memory --------------------------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"", CLIENT_HEADER_S),
        (b"GET / HT", CLIENT_HEADER_S),
        (GET, KEEPALIVE_S),
        (GET + b"GET", CLIENT_HEADER_S),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab", LINGER_S[0]),
    ],
)
def test_time_is_up_when_nginx_says_so(said: bytes, seconds: float) -> None:
    visit = Visit()
    visit.say(said, 0.0)
    assert visit.server.deadline() == seconds
    assert visit.server.due(seconds - 0.1) == []
    assert [type(event) for event in visit.server.due(seconds)] == [Finished]
    assert visit.server.take() == [], "nothing is said"


def test_bytes_that_trickle_in_do_not_move_the_deadline_of_a_head() -> None:
    visit = Visit()
    for second in range(59):
        visit.say(b"X: y\r\n" if second else b"GET / HTTP/1.1\r\n", float(second))
        assert visit.server.deadline() == CLIENT_HEADER_S


def test_a_body_may_take_five_seconds_each_and_thirty_in_all() -> None:
    visit = Visit()
    visit.say(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n", 0.0)
    for second in range(4, 40, 4):
        if second < 28:
            visit.say(b"a", float(second))
            assert visit.server.deadline() == min(second + LINGER_S[0], LINGER_S[1])


def test_a_silent_websocket_ends_when_the_proxy_loses_patience() -> None:
    wire = Wire(MAKERS["http"]).opened()
    wire.server.carrier.refuse(7.0)
    assert wire.server.carrier.deadline() == 7.0 + PROXY_READ_S


def test_the_thousandth_request_is_the_last() -> None:
    visit = Visit()
    answers = visit.say(b"GET /none HTTP/1.1\r\nHost: h\r\n\r\n" * (KEEPALIVE_REQUESTS + 5))
    assert answers.count(b"HTTP/1.1 404") == KEEPALIVE_REQUESTS
    assert answers.count(b"Connection: close") == 1
    assert visit.is_over


def test_who_asks_and_does_not_read_is_answered_a_little_and_then_not_read() -> None:
    page = Page(bytes(1 << 20), b"text/plain", UNIX)
    site = Website(
        {b"/index.html": page}, frozenset({b"/"}), dress(b"x", frozenset({PATH}), is_tls=False), lambda: UNIX
    )
    server = HttpServer(random.Random(1), site)
    server.start(0.0)
    for _ in range(200):
        if server.is_full:
            break
        server.receive(GET * 40, 0.0)
    assert server.is_full, "after what no answer is out for"
    assert len(server._buffer) < SITE_UNREAD_BYTES + 40 * len(GET)
    assert server._waiting < SITE_WRITE_BYTES + (1 << 20) + 4_096, "one page is queued, by reference"
    assert sum(map(len, server.take())) <= 2 * SITE_WRITE_BYTES
    total = 0
    for _ in range(100_000):
        total += sum(map(len, server.take()))
        if server.deadline() > 0.0:
            break
        server.due(0.0)
    assert total > 900 << 20


def test_who_ends_the_own_side_gets_every_answer_and_then_the_end() -> None:
    page = Page(bytes(1 << 20), b"text/plain", UNIX)
    names = dress(b"x", frozenset({PATH}), is_tls=False)
    site = Website({b"/index.html": page}, frozenset({b"/"}), names, lambda: UNIX)
    last = (b"", b"GET / HT", b"wrong\r\n", BARE, GET[:-2] + b"Connection: close\r\n\r\n")
    for asked in (GET * 2 + each for each in last):
        whole = Visit(site).say(asked)
        assert len(whole) > 1 << 20
        visit = Visit(site)
        visit.events += visit.server.receive(asked, 0.0)
        said = b"".join(visit.server.take())
        for _ in range(2):  # the socket may say so twice
            visit.events += visit.server.eof(0.0)
        while not visit.is_over:
            assert visit.server.is_busy
            said += visit.say(b"")
        assert said == whole


def test_a_lost_socket_is_answered_no_more() -> None:
    host = Host()
    host.listener = msgspec.structs.replace(host.listener, carrier=lambda rng: HttpServer(rng, website(is_tls=False)))
    for is_lost in (False, True):
        link = host.accept()
        host.engine.receive(link, GET * 500, 0.0)
        host.engine.eof(link, 0.0, is_lost=is_lost)
        assert (link in host.engine.links) is not is_lost
        host.turn()
        host.at(1.0)
        answered = b"".join(host.writes.get(link, [])).count(b"HTTP/1.1 200 OK")
        assert answered == (0 if is_lost else 500)
        assert host.shut[-1] == link


@pytest.mark.parametrize("takes_more", [True, False])
def test_the_end_of_a_page_waits_for_a_socket_that_takes_nothing_just_then(takes_more: bool) -> None:
    site = website(is_tls=False)
    site.pages[b"/long"] = Page(bytes(SITE_WRITE_BYTES + 70_000), b"text/plain", UNIX)
    host = Host()
    host.listener = msgspec.structs.replace(host.listener, carrier=lambda rng: HttpServer(rng, site))
    link = host.accept()
    host.engine.receive(link, b"GET /long HTTP/1.0\r\n\r\n", 0.0)
    host.turn()
    host.engine.writable(link, False, 0.0)
    host.at(SEND_STALL_S - 1.0)
    assert host.shut == []
    if takes_more:
        host.engine.writable(link, True, host.now)
    host.at(SEND_STALL_S)
    assert host.shut == [link], "at once, or for want of progress"
    whole = b"".join(host.writes[link]).endswith(bytes(SITE_WRITE_BYTES + 70_000))
    assert whole or not takes_more


def test_a_page_is_compressed_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(b"0123456789" * 100_000 + b"of this test", b"text/html", UNIX)
    names = dress(b"x", frozenset({PATH}), is_tls=False)
    site = Website({b"/index.html": page}, frozenset({b"/"}), names, lambda: UNIX)
    made = []
    compress = zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *values: made.append(values) or compress(*values))
    visit = Visit(site)
    answers = [visit.say(b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n") for _ in range(50)]
    assert all(b"Content-Encoding: gzip" in answer for answer in answers)
    assert len(made) == 1


def test_heads_and_lines_have_limits() -> None:
    for endless in (
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"A" * 100_000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000,
    ):
        visit = Visit()
        said = 0
        for at in range(0, len(endless), 1_000):
            visit.say(endless[at : at + 1_000])
            said += 1_000
            if visit.is_over:
                break
        assert visit.is_over
        assert said <= 41_000, "one small buffer and four large ones"


# --- Nothing constant -------------------------------------------------------------------------------------------------


def test_twenty_listeners_have_names_of_their_own() -> None:
    rng = random.Random(3)
    seen = [dress(rng.randbytes(32), frozenset({path_for_key(rng.randbytes(32))}), is_tls=False) for _ in range(20)]
    assert len({path for names in seen for path in names.paths}) == 20
    for each in ({names.cookie for names in seen}, {names.realm for names in seen}):
        assert len(each) >= 8, "drawn, not fixed"
    assert dress(b"a", frozenset(), is_tls=False) == dress(b"a", frozenset(), is_tls=False), "the same over a restart"


def test_what_twenty_openings_share_is_what_the_library_and_nginx_write() -> None:
    """Bytes common to all openings of all listeners, beside field names: those of the client library and of nginx alone."""
    lines: list[set[bytes]] = []
    for seed in range(20):
        wire = Wire(MAKERS["http"], seed=seed * 3).opened()
        lines.append(set(bytes(wire.tapped[True]).split(b"\r\n")))
    shared = set.intersection(*lines)
    assert shared - {b"GET " + PATH + b" HTTP/1.1"} == {
        *(b"", b"GET / HTTP/1.1", b"Host: example.org", b"Accept: */*", b"Accept-Encoding: gzip, deflate"),
        *(
            b"User-Agent: Python/3.11 aiohttp/3.8.4",
            b"Upgrade: websocket",
            b"Connection: upgrade",
            b"Sec-WebSocket-Version: 13",
        ),
        b"Authorization: Bearer " + encode_token(FLIGHT_1),  # the same flight in this test
    }


@pytest.mark.parametrize("with_arrays", [True, False])
@pytest.mark.parametrize("size", [0, 1, 7, 1_023, 1_024, 1_030, 8_191, 8_192, 8_193, 70_001])
def test_a_mask_is_the_repeated_key_with_and_without_numpy(
    size: int, with_arrays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, key = random.Random(size).randbytes(size), b"\x01\x80\xff\x33"
    if not with_arrays:
        monkeypatch.setattr(masking, "numpy", None)
    expected = bytes(byte ^ key[at % 4] for at, byte in enumerate(data))
    assert bytes(masking.masked(memoryview(data), key)) == expected
    assert bytes(data) == random.Random(size).randbytes(size), "the input is left alone"
