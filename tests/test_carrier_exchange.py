"""The web carriers in requests and answers: what h11 makes of every byte, who gets in, what polls and uploads cost and hold."""

from __future__ import annotations

import random
import re

import h11
import pytest

from carriers import FLIGHT_1, FLIGHT_2, KEY, MAKERS, Wire, website
from obscura.limits import (
    BODY_S,
    KEEPALIVE_REQUESTS,
    MAX_PICTURE,
    POLL_END_S,
    POLL_S,
    PROXY_READ_S,
    SITE_UNREAD_BYTES,
)
from obscura.morph.carrier import CarrierEvent, Data, Finished, Flight
from obscura.morph.dress import dress, path_for_key
from obscura.morph.exchange import PICTURE, PICTURE_END, PictureReader, Pile, decode_answer, encode_answer
from obscura.morph.http import HttpServer, ProxiedServer
from obscura.morph.tokens import decode_token, encode_token

PATH = path_for_key(KEY)
NAME = "http, in requests"
EITHER = pytest.mark.parametrize("name", ["http, in requests", "tls, in requests"])
BARE = b"GET " + PATH + b" HTTP/1.1\r\nHost: h\r\n\r\n"


def opening(seed: int = 1) -> tuple[bytes, bytes]:
    """The two requests of a recorded opening that was let in."""
    page, login = bytes(Wire(MAKERS[NAME], seed=seed).opened().tapped[True]).split(b"\r\n\r\n")[:2]
    return page + b"\r\n\r\n", login + b"\r\n\r\n"


class Visit:
    """A stranger on one connection; every flight is refused."""

    def __init__(self, kind: type[HttpServer] = HttpServer) -> None:
        self.server = kind(random.Random(9), website(is_tls=False))
        self.server.start(0.0)
        self.flights = 0
        self.is_over = False

    def say(self, data: bytes, now: float = 0.0) -> bytes:
        answer = b""
        self.on(self.server.receive(data, now), now)
        for _ in range(10_000):
            answer += b"".join(self.server.take())
            if self.is_over or self.server.deadline() > now:
                return answer
            self.on(self.server.due(now), now)
        raise AssertionError("it does not come to rest")

    def on(self, events: list[CarrierEvent], now: float) -> None:
        for event in events:
            assert not isinstance(event, Data), "a stranger's bytes"
            if isinstance(event, Flight):
                self.flights += 1
                self.server.refuse(now)
            self.is_over |= isinstance(event, Finished)


# --- A library as judge -----------------------------------------------------------------------------------------------


def conversation(wire: Wire) -> list[tuple[h11.Request, bytes, h11.Response, bytes]]:
    """Every request with its answer, as h11 reads both sides; nothing may be left over but one poll."""
    server, client = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    server.receive_data(bytes(wire.tapped[True]))
    client.receive_data(bytes(wire.tapped[False]))
    pairs = []
    while isinstance(request := server.next_event(), h11.Request):
        body = body_of(server)
        client.send(h11.Request(method=request.method, target=request.target, headers=[("host", "h")]))
        client.send(h11.EndOfMessage())
        response = client.next_event()
        if not isinstance(response, h11.Response):
            assert client.trailing_data == (b"", False), "an answer that is none"
            break
        answer = body_of(client)
        pairs.append((request, body, response, answer))
        server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        server.send(h11.EndOfMessage())
        server.start_next_cycle()
        client.start_next_cycle()
    return pairs


def body_of(side: h11.Connection) -> bytes:
    body = b""
    while not isinstance(event := side.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += event.data
    return body


def test_h11_reads_every_request_and_every_answer() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    rng = random.Random(3)
    said = {True: b"", False: b""}
    for _ in range(60):
        for carrier, mine in ((wire.client.carrier, True), (wire.server.carrier, False)):
            if rng.random() < 0.6:
                data = rng.randbytes(rng.choice((1, 400, 30_000)))
                carrier.send(data, wire.now)
                said[mine] += data
        wire.run(rng.randint(1, 6))
    wire.run()
    wire.now = wire.server.carrier.deadline()  # the last upload is held as a poll until then
    wire.due(wire.server)
    wire.run()
    page, login, *session = conversation(wire)
    assert (page[0].method, page[0].target, page[2].status_code) == (b"GET", b"/", 200)
    assert dict(login[0].headers)[b"authorization"] == b"Bearer " + encode_token(FLIGHT_1)
    token = decode_answer(login[3])
    assert token is not None
    assert decode_token(token) == FLIGHT_2
    assert len(session) > 20
    bodies = {True: b"", False: b""}
    for request, up, answer, down in session:
        assert request.target == PATH
        assert (request.method == b"POST") == bool(up)
        assert (answer.status_code == 200) == bool(down)
        for mine, body, fields in ((True, up, request.headers), (False, down, answer.headers)):
            if body:
                assert body.startswith(PICTURE)
                assert dict(fields)[b"content-type"] == b"image/jpeg"
                bodies[mine] += opened(body)
    assert bodies == said


def test_the_fields_come_in_the_orders_of_nginx_and_of_the_library() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.client.carrier.send(b"up", 0.0)
    wire.run()
    wire.server.carrier.send(b"down", 0.0)
    wire.run()
    heads = [
        re.findall(rb"(?m)^([A-Za-z-]+): ", part)
        for part in bytes(wire.tapped[True]).split(b"\r\n\r\n")
        if part.startswith(PICTURE) or b"POST" in part
    ]
    assert heads[0] == [
        *(b"Host", b"Accept", b"Accept-Encoding", b"User-Agent", b"Cookie", b"Content-Length", b"Content-Type")
    ]
    down = bytes(wire.tapped[False]).rpartition(b"HTTP/1.1 200")[2].partition(b"\r\n\r\n")[0]
    assert re.findall(rb"(?m)^([A-Za-z-]+): ", down) == [
        *(b"Server", b"Date", b"Content-Type", b"Content-Length", b"Connection")
    ]


# --- Polls and uploads ------------------------------------------------------------------------------------------------


@EITHER
def test_a_poll_is_held_longer_each_time_and_then_answered_with_nothing(name: str) -> None:
    wire = Wire(MAKERS[name])
    for _ in range(40):  # up to the first poll, and no further
        wire.run(1)
        if wire.client.flights:
            break
    wire.collect(wire.client)
    while wire.deliver(wire.server):
        pass
    held = []
    for _ in range(12):
        held.append(round(wire.server.carrier.deadline() - wire.now, 6))
        wire.now = wire.server.carrier.deadline()
        wire.due(wire.server)
        wire.collect(wire.server)
        while wire.deliver(wire.client):
            pass
        wire.collect(wire.client)
        while wire.deliver(wire.server):
            pass
        wire.collect(wire.server)
    assert held == sorted(held)
    assert held[0] <= 1.0
    assert POLL_S[0] <= held[-1] <= POLL_S[1]
    assert wire.server.finished is None
    wire.server.carrier.send(b"still there", wire.now)
    wire.collect(wire.server)
    while wire.deliver(wire.client):
        pass
    assert bytes(wire.client.data) == b"still there", "it does not wait"


def test_the_client_says_its_next_word_when_the_poll_is_over_and_gets_the_answer_at_once() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.collect(wire.client)
    while wire.deliver(wire.server):
        pass
    wire.client.carrier.send(b"word", wire.now)
    assert wire.client.carrier.take() == [], "a request is out"
    wire.now = wire.server.carrier.deadline()
    wire.due(wire.server)
    wire.collect(wire.server)
    while wire.deliver(wire.client):
        pass
    wire.collect(wire.client)
    while wire.deliver(wire.server):
        pass
    assert bytes(wire.server.data) == b"word"
    before = len(wire.tapped[False])
    wire.server.carrier.send(b"answer", wire.now)
    wire.collect(wire.server)
    assert bytes(wire.tapped[False][before:]).endswith(PICTURE + b"answer" + PICTURE_END), (
        "in the answer to the same request"
    )


def test_one_request_is_out_at_a_time_and_a_full_pile_stops_the_sealing() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.collect(wire.client)
    for at in range(30):
        wire.client.carrier.send(bytes([at]) * 100_000, 0.0)
    assert wire.client.carrier.take() == []
    assert wire.client.carrier.is_blocked
    wire.run()
    assert not wire.client.carrier.is_blocked
    assert len(wire.server.data) == 3_000_000
    uploads = re.findall(rb"POST [^\r]*\r\n(?:[^\r]+\r\n)*?Content-Length: (\d+)", bytes(wire.tapped[True]))
    assert len(uploads) == 6
    assert max(map(int, uploads)) <= MAX_PICTURE


def test_what_waits_while_no_request_is_there_leaves_with_the_next() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.run()
    big = random.Random(1).randbytes(3 * MAX_PICTURE)
    for at in range(0, len(big), 60_000):
        wire.server.carrier.send(big[at : at + 60_000], 0.0)
    wire.run()
    assert bytes(wire.client.data) == big
    sizes = [int(size) for size in re.findall(rb"Content-Length: (\d+)", bytes(wire.tapped[False]))]
    assert max(sizes) <= MAX_PICTURE


def test_who_asks_for_nothing_makes_the_server_hold_a_picture_and_no_more() -> None:
    """Else a peer that wants blocks and never polls would have all of them kept, in no queue that anybody counts."""
    wire = Wire(MAKERS[NAME]).opened()
    wire.run()
    server, said, total = wire.server.carrier, bytes(60_000), 0
    wire.now = server.deadline()  # the poll is answered ...
    wire.due(wire.server)
    server.take()  # ... by what never arrives, so that there is no other
    while not server.is_blocked:
        server.send(said, wire.now)
        assert server.take() == []
        total += len(said)
        assert total <= MAX_PICTURE + len(said)
    server.receive(BARE, wire.now)
    assert not server.is_blocked, "a poll lets some of it out"
    assert MAX_PICTURE // 4 < sum(map(len, server.take())) <= MAX_PICTURE + 500


def opened(body: bytes) -> bytes:
    """What a picture says, read in pieces of three."""
    reader = PictureReader()
    reader.begin(len(body))
    return b"".join(reader.read(body[at : at + 3]) for at in range(0, len(body), 3))


@pytest.mark.parametrize("said", [b"", b"\xff", b"\xff\0", b"\0\xff\xff\xd9\0", bytes(range(256)) * 3, b"\xff" * 1_000])
def test_no_byte_inside_a_picture_is_a_marker(said: bytes) -> None:
    pile = Pile()
    pile.put(said or b"x")
    body = b"".join(pile.take())
    inside = body[len(PICTURE) : -len(PICTURE_END)]
    assert not re.search(rb"\xff[^\0]|\xff$", inside, re.DOTALL)
    assert body.endswith(PICTURE_END)
    assert opened(body) == (said or b"x")


def test_a_pile_gives_all_in_order_and_no_body_is_too_large() -> None:
    pile, rng, all_of_it, got = Pile(), random.Random(2), b"", b""
    for size in (1, 1 << 20, 3 << 20, 5, 0, 60_000, 1 << 19, 1 << 19):
        data = rng.randbytes(size)
        pile.put(data)
        all_of_it += data
    while pile.size:
        body = b"".join(pile.take())
        assert body.startswith(PICTURE)
        assert len(PICTURE) < len(body) <= MAX_PICTURE
        got += opened(body)
    assert got == all_of_it


@EITHER
def test_a_session_has_as_many_requests_as_it_likes(name: str) -> None:
    wire = Wire(MAKERS[name]).opened()
    for number in range(KEEPALIVE_REQUESTS + 10):
        wire.client.carrier.send(b"%d," % number, 0.0)
        wire.run(4)
    wire.run()
    assert bytes(wire.server.data).endswith(b",%d," % (KEEPALIVE_REQUESTS + 9))
    assert wire.client.finished is None


@EITHER
def test_a_server_that_ends_says_so_in_its_last_answer_and_first_says_everything(name: str) -> None:
    wire = Wire(MAKERS[name]).opened()
    wire.collect(wire.client)
    while wire.deliver(wire.server):
        pass
    wire.server.carrier.send(b"x" * 100, wire.now)
    wire.collect(wire.server)  # the poll is answered, the next one has not come
    wire.server.carrier.send(b"last", wire.now)
    wire.server.on(wire.server.carrier.end(wire.now), wire.now)
    assert wire.server.finished is None
    assert wire.server.carrier.deadline() == wire.now + POLL_END_S
    wire.run()
    assert bytes(wire.client.data) == b"x" * 100 + b"last"
    assert wire.client.finished is not None
    assert wire.server.finished is not None
    if name == NAME:
        assert bytes(wire.tapped[False]).count(b"Connection: close") == 1


@EITHER
def test_a_client_that_ends_gets_an_answer_to_each_request(name: str) -> None:
    wire = Wire(MAKERS[name]).opened()
    wire.collect(wire.client)
    wire.client.carrier.send(b"last words", wire.now)
    wire.client.on(wire.client.carrier.end(wire.now), wire.now)
    assert wire.client.carrier.deadline() == wire.now + POLL_END_S
    wire.run()
    assert bytes(wire.server.data) == b"last words"
    assert wire.client.finished is not None
    assert wire.server.finished is not None
    if name == NAME:
        requests = bytes(wire.tapped[True]).count(b" HTTP/1.1\r\nHost: ")
        assert requests == bytes(wire.tapped[False]).count(b"HTTP/1.1 ")
        assert bytes(wire.tapped[True]).count(b"Connection: close") == 1


def test_a_client_without_a_request_out_just_closes() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.now = wire.server.carrier.deadline()
    wire.due(wire.server)
    wire.collect(wire.server)
    while wire.deliver(wire.client):
        pass
    assert [type(event) for event in wire.client.carrier.end(wire.now)] == [Finished]


def test_an_upload_that_stops_ends_the_session_when_nginx_would() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.client.carrier.send(b"y" * 1_000, wire.now)
    while not bytes(wire.server.inbox).startswith(b"POST"):
        wire.now = wire.server.carrier.deadline()
        wire.due(wire.server)
        wire.collect(wire.server)
        wire.deliver(wire.client)
        wire.collect(wire.client)
    del wire.server.inbox[-500:]
    while wire.deliver(wire.server):
        pass
    assert wire.server.carrier.deadline() == wire.now + BODY_S
    assert any(isinstance(event, Finished) for event in wire.server.carrier.due(wire.now + BODY_S))


def test_a_broken_channel_becomes_an_application_that_hangs() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    broken = wire.now
    wire.server.carrier.refuse(broken)
    wire.client.carrier.send(b"z" * 200, broken)
    wire.run()
    assert wire.server.carrier.deadline() == broken + PROXY_READ_S
    before = len(wire.tapped[False])
    wire.now = broken + PROXY_READ_S
    wire.due(wire.server)
    wire.run()
    said = bytes(wire.tapped[False][before:])
    assert said.startswith(b"HTTP/1.1 504 Gateway Time-out\r\n")
    assert wire.client.finished is not None
    wire.server.carrier.receive(b"POST " + PATH + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", wire.now)
    assert b"".join(wire.server.carrier.take()).startswith(b"HTTP/1.1 401 "), "what comes then is a stranger's"
    assert not wire.server.data


def test_a_peer_that_goes_on_after_a_failure_is_not_read_without_end() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    server = wire.server.carrier
    server.refuse(wire.now)
    for _ in range(SITE_UNREAD_BYTES // 1_000 + 2):
        server.receive(bytes(1_000), wire.now)
    assert server.is_full


# --- Strangers --------------------------------------------------------------------------------------------------------


def masked(data: bytes) -> bytes:
    """Without cookie values."""
    return re.sub(rb"(Set-Cookie: [^=]*=)[^;]*", rb"\1", data)


def test_whatever_is_wrong_with_a_login_is_answered_as_no_login_is() -> None:
    page, login = opening()
    nobody = masked(Visit().say(page + BARE))
    assert nobody.count(b"HTTP/1.1 401 ") == 1
    mine = Visit()
    cookie = mine.say(page).partition(b"Set-Cookie: ")[2].partition(b";")[0]
    ours = login.replace(login.partition(b"Cookie: ")[2].partition(b"\r\n")[0], cookie)
    for wrong in (
        login,  # replayed: another connection's cookie
        login.replace(b"Cookie: ", b"X: "),
        login.replace(b"Bearer ", b"Basic "),
        ours.replace(b"GET ", b"POST ", 1),
        ours.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\n\r\n"),  # a half of an upgrade
        ours.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: eA==\r\n\r\n"),
    ):
        visit = Visit()
        assert masked(visit.say(page + wrong)) == nobody, wrong
        assert visit.flights == 0, wrong
    assert masked(mine.say(ours)) == nobody[nobody.index(b"HTTP/1.1 401") :], "the channel did not take it"
    assert mine.flights == 1
    assert masked(mine.say(ours)) == nobody[nobody.index(b"HTTP/1.1 401") :], "nor is a second one tried"
    assert mine.flights == 1
    upload = b"POST " + PATH + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + PICTURE + bytes(10)
    assert mine.say(upload).startswith(b"HTTP/1.1 401 "), "and no message without a session"


def test_each_changed_bit_of_a_login_gets_an_answer_of_nginx() -> None:
    page, login = opening()
    for at in range(len(login)):
        changed = bytearray(login)
        changed[at] ^= 1 << (at % 8)
        answer = Visit().say(page + bytes(changed))
        last = answer[answer.rindex(b"HTTP/1.1 ") :]
        assert last[9:12] in (b"401", b"400", b"404", b"405", b"505", b"200"), at
        assert b"application/json" not in answer


def test_a_whole_recorded_session_opens_nothing() -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.client.carrier.send(b"secret" * 50, 0.0)
    wire.run()
    visit = Visit()
    answers = visit.say(bytes(wire.tapped[True]))
    assert visit.flights == 0
    assert answers.count(b"HTTP/1.1 401 ") == bytes(wire.tapped[True]).count(PATH)


def test_behind_a_proxy_that_ends_tls_there_is_no_such_session() -> None:
    page, login = opening()
    visit = Visit(ProxiedServer)
    cookie = visit.say(page).partition(b"Set-Cookie: ")[2].partition(b";")[0]
    visit.say(login.replace(login.partition(b"Cookie: ")[2].partition(b"\r\n")[0], cookie))
    assert visit.flights == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",  # shorter than a picture's beginning
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 000009999" + b"9" * 20 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 000009999" + b"9" * 5_000 + b"\r\n\r\n",  # more digits than int() takes
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",  # nobody asked for the second
        b"\0" * 40_000,
    ],
)
def test_a_server_that_breaks_the_session_ends_it(answer: bytes) -> None:
    wire = Wire(MAKERS[NAME]).opened()
    wire.run()
    events = wire.client.carrier.receive(answer, 0.0)
    assert any(isinstance(event, Finished) for event in events)
    assert not any(isinstance(event, Data) for event in events)


def test_the_answer_to_a_login_has_a_name_of_the_listeners_own() -> None:
    rng = random.Random(3)
    names = {dress(rng.randbytes(32), frozenset(), is_tls=False).answer for _ in range(40)}
    assert len(names) >= 8
    for name in names:
        assert decode_answer(encode_answer(name, b"A" * 200)) == b"A" * 200
    assert decode_answer(b'{"token":"short"}') is None
