"""Carrier tls: what binds a flight to one session, who gets no further than a stranger, what cleartext and bad TLS get."""

from __future__ import annotations

import gc
import random
import ssl

import msgspec
import pytest

from carriers import FLIGHT_1, KEY, MAKERS, NETWORK, Wire, certified, website
from obscura.channel.opening import ListenerKind
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.connection import Connection, Dialling, Ended, Listening, Opened
from obscura.limits import CLIENT_HEADER_S, MAX_CLIENT_HELLO, TLS_RECORD
from obscura.morph.carrier import CarrierEvent, Finished, Flight
from obscura.morph.dress import path_for_joining, path_for_key
from obscura.morph.hello import NO_APPLICATION_PROTOCOL, offered_protocols
from obscura.morph.http import ProxiedServer, encode_token
from obscura.morph.tls import TlsClient, TlsServer
from obscura.morph.visitor import HttpClient
from obscura.morph.website import Page
from obscura.wire.address import CarrierNumber
from obscura.wire.catalogue import CATALOGUE
from playbook import offer

CONTEXT, LEAF = certified()
assert isinstance(CONTEXT, ssl.SSLContext)


def server(seed: int = 2) -> TlsServer:
    assert isinstance(CONTEXT, ssl.SSLContext)
    made = TlsServer(random.Random(seed), website(is_tls=True), CONTEXT, LEAF)
    made.start(0.0)
    return made


class Visitor:
    """A TLS client of the standard library on one connection to ``far``."""

    def __init__(
        self,
        far: TlsServer,
        *,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        alpn: tuple[str, ...] = (),
        name: str | None = None,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = newest
        if alpn:
            context.set_alpn_protocols(list(alpn))
        self.far = far
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.events: list[CarrierEvent] = []
        self.wire = b""

    def exchange(self) -> None:
        self.events += self.far.receive(self.outgoing.read(), 0.0)
        for piece in self.far.take():
            self.wire += piece
            self.incoming.write(piece)

    def wait(self) -> None:
        """What the server does next by itself; a flight is refused."""
        while not self.events and self.far.deadline() == 0.0:
            self.events += self.far.due(0.0)
            if any(isinstance(event, Flight) for event in self.events):
                self.events.clear()
                self.far.refuse(0.0)
            self.exchange()

    def shake_hands(self) -> None:
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange()
            else:
                self.exchange()
                return

    def say(self, data: bytes) -> bytes:
        self.tls.write(data)
        self.exchange()
        answer = b""
        try:
            while piece := self.tls.read(1 << 16):
                answer += piece
        except ssl.SSLWantReadError:
            pass
        return answer


def upgrade(token: bytes = b"QUJD" * 60, path: bytes = b"") -> bytes:
    return (
        b"GET " + (path or path_for_key(KEY)) + b" HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token + b"\r\n"
        b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: DRIsBJcaLpNGAXKrj2W42g==\r\n\r\n"
    )  # fmt: skip


def test_the_binding_is_the_session_s_finished_and_the_certificate() -> None:
    wire = Wire(MAKERS["tls"]).opened()
    binding = wire.server.binding
    assert binding is not None
    assert binding.endswith(LEAF)
    assert len(binding) >= 32 + 32


def test_the_first_request_leaves_with_the_end_of_the_handshake() -> None:
    """One round trip less, and no tell-tale wait between Finished and the first request."""
    wire = Wire(MAKERS["tls"])
    wire.collect(wire.client)
    hello = len(wire.tapped[True])
    while wire.deliver(wire.server):
        pass
    wire.collect(wire.server)
    while wire.deliver(wire.client):
        pass
    pieces = wire.client.carrier.take()
    assert len(pieces) == 1
    assert len(pieces[0]) > 400, "Finished and the request"
    assert hello > 100


def test_a_visitor_finds_a_web_site() -> None:
    visitor = Visitor(server(), alpn=("http/1.1",))
    visitor.shake_hands()
    assert visitor.tls.version() == "TLSv1.3"
    assert visitor.tls.selected_alpn_protocol() == "http/1.1"
    assert visitor.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\nServer: nginx/")
    bare = visitor.say(b"GET " + path_for_key(KEY) + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert bare.startswith(b"HTTP/1.1 401 ")
    assert not visitor.events


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_good_bye_is_answered_by_silence_as_nginx_does(newest: ssl.TLSVersion, asks: bool) -> None:
    visitor = Visitor(server(), newest=newest)
    visitor.shake_hands()
    if asks:
        visitor.tls.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(ssl.SSLWantReadError):
        visitor.tls.unwrap()
    before = len(visitor.wire)
    visitor.exchange()
    visitor.wait()
    assert [type(event) for event in visitor.events] == [Finished]
    assert (len(visitor.wire) > before) is asks, "the page alone"
    if asks:
        visitor.tls.read(1 << 16)
    with pytest.raises(ssl.SSLWantReadError):  # an answer is still awaited
        visitor.tls.read(1)


@pytest.mark.parametrize(
    "bad", [b"\x17\x03\x03\0\x20" + bytes(32), b"\x14\x03\x03\0\x01\x01", b"GET / HTTP/1.0\r\n\r\n"]
)
def test_a_broken_record_behind_a_request_gets_its_alert_alone_as_from_nginx(bad: bytes) -> None:
    visitor = Visitor(server())
    visitor.shake_hands()
    before = len(visitor.wire)
    visitor.tls.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    visitor.outgoing.write(bad)
    visitor.exchange()
    visitor.wait()
    assert [type(event) for event in visitor.events] == [Finished]
    assert len(visitor.wire) - before == 24, "one record with two bytes inside"
    with pytest.raises(ssl.SSLError, match="ALERT"):
        visitor.tls.read(1)


@pytest.mark.parametrize("says_goodbye", [False, True])
def test_who_ends_the_own_side_gets_every_answer_and_then_the_end(says_goodbye: bool) -> None:
    visitor = Visitor(server())
    visitor.shake_hands()
    visitor.tls.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 500 + upgrade())
    if says_goodbye:
        with pytest.raises(ssl.SSLWantReadError):
            visitor.tls.unwrap()
    visitor.exchange()
    visitor.events += visitor.far.eof(0.0)
    assert visitor.far.is_busy
    visitor.wait()
    assert [type(event) for event in visitor.events] == [Finished]
    answer = b""
    while visitor.incoming.pending:
        answer += visitor.tls.read(1 << 16)
    assert answer.count(b"HTTP/1.1 200 OK") == 500
    assert answer.count(b"HTTP/1.1 401 ") == 1
    with pytest.raises(ssl.SSLWantReadError):  # no good-bye
        visitor.tls.read(1)


def test_a_flight_inside_an_older_tls_gets_what_no_flight_gets() -> None:
    older = Visitor(server(), newest=ssl.TLSVersion.TLSv1_2)
    older.shake_hands()
    assert older.tls.version() == "TLSv1.2"
    assert older.say(upgrade()).startswith(b"HTTP/1.1 401 ")
    assert not older.events
    newer = Visitor(server())
    newer.shake_hands()
    newer.say(upgrade())
    assert [type(event) for event in newer.events] == [Flight]


def test_each_answer_has_records_of_its_own_and_all_but_the_last_of_them_are_full() -> None:
    far = server()
    page = Page(bytes(300_000), b"text/plain", 0)
    far._site = msgspec.structs.replace(far._site, pages={**far._site.pages, b"/large": page})
    visitor = Visitor(far)
    with pytest.raises(ssl.SSLWantReadError):
        visitor.tls.do_handshake()
    visitor.exchange()
    visitor.tls.do_handshake()
    visitor.exchange()
    before = len(visitor.wire)
    for path in (b"/none", b"/none", b"/large", b"/none"):
        visitor.tls.write(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % path)
    visitor.exchange()
    while far.deadline() == 0.0:
        far.due(0.0)
        visitor.exchange()
    sizes, rest = [], visitor.wire[before:]
    while rest:
        sizes.append(int.from_bytes(rest[3:5], "big") - 17)
        rest = rest[5 + 17 + sizes[-1] :]
    error, full = sizes[0], TLS_RECORD
    assert sizes[:2] == [error] * 2
    assert sizes[2:-2] == [full] * (300_000 // full)
    assert 300_000 % full < sizes[-2] < 300_000 % full + 400
    assert sizes[-1] == error


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_leaves_without_a_good_bye_finds_the_session_again_as_with_nginx(
    newest: ssl.TLSVersion, ends: bool
) -> None:
    """OpenSSL forgets the session of a connection that is freed before close_notify was said, by whomever."""
    visitor = Visitor(server(), newest=newest)
    visitor.shake_hands()
    visitor.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    if ends:
        assert [type(event) for event in visitor.far.eof(0.0)] == [Finished]
        assert not visitor.far.take()
    session, context = visitor.tls.session, visitor.tls.context
    visitor.far = server()
    gc.collect()  # the listener's end is freed
    visitor.incoming, visitor.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    visitor.tls = context.wrap_bio(visitor.incoming, visitor.outgoing, session=session)
    visitor.shake_hands()
    assert visitor.tls.session_reused


@pytest.mark.parametrize("name", ["a.example", "shop.example", "a-longer.shop.example"])
def test_a_ticket_is_as_long_for_every_name(name: str) -> None:
    """Else it holds Python's short name of its sessions, and is a block of AES shorter than nginx's for most names."""
    visitor = Visitor(server(), name=name)
    with pytest.raises(ssl.SSLWantReadError):
        visitor.tls.do_handshake()
    visitor.exchange()
    visitor.tls.do_handshake()
    before = len(visitor.wire)
    visitor.exchange()
    tickets = visitor.wire[before:]
    sizes = []
    while tickets:
        sizes.append(int.from_bytes(tickets[3:5], "big"))
        tickets = tickets[5 + sizes[-1] :]
    assert sizes == [74, 74]


def test_cleartext_is_told_so_and_closed() -> None:
    far = server()
    events = far.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 0.0)
    said = b"".join(far.take())
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\nServer: nginx/")
    assert b"The plain HTTP request was sent to HTTPS port" in said
    assert [type(event) for event in events] == [Finished]


@pytest.mark.parametrize("cuts", [1, 5, 1 << 14])
def test_protocols_that_a_web_server_has_not_end_the_handshake(cuts: int) -> None:
    visitor = Visitor(server(), alpn=("h2", "spdy/3"))
    with pytest.raises(ssl.SSLWantReadError):
        visitor.tls.do_handshake()
    hello = visitor.outgoing.read()
    assert offered_protocols(hello) == [b"h2", b"spdy/3"]
    assert offered_protocols(hello[:-1]) is None
    said = b""
    for at in range(0, len(hello), cuts):
        visitor.events += visitor.far.receive(hello[at : at + cuts], 0.0)
        said += b"".join(visitor.far.take())
    assert said == NO_APPLICATION_PROTOCOL
    assert [type(event) for event in visitor.events] == [Finished]


@pytest.mark.parametrize(
    ("old", "new", "alert"),
    [
        (b"\x00\x10\x00\x05\x00\x03\x02h2", b"\x00\x10\x00\x05\x00\x03\x09h2", 50),  # decode_error: no list of names
        (b"\x00\x33\x00\x26", b"\x00\xe5\x00\x26", 120),  # no key_share: that is missed later
        (b"\x00\x0a\x00", b"\x00\xf1\x00", 109),  # no supported_groups: missing_extension, before anything else
        (b"", b"", 120),
    ],
)
def test_what_openssl_refuses_first_gets_its_alert(old: bytes, new: bytes, alert: int) -> None:
    visitor = Visitor(server(), alpn=("h2",))
    with pytest.raises(ssl.SSLWantReadError):
        visitor.tls.do_handshake()
    hello = visitor.outgoing.read()
    assert hello.count(old) == 1 or not old
    events = visitor.far.receive(hello.replace(old, new, 1) + b"broken, what comes behind it", 0.0)
    assert b"".join(visitor.far.take()) == b"\x15\x03\x03\x00\x02\x02" + bytes([alert])
    assert [type(event) for event in events] == [Finished]


def test_any_bytes_may_pretend_to_be_a_hello() -> None:
    rng = random.Random(1)
    for _ in range(300):
        far = server()
        far.receive(b"\x16\x03\x01" + rng.randbytes(rng.randint(0, 600)), 0.0)
        far.take()
    far = server()
    far.receive(b"\x16\x03\x01\x40\x00" + bytes(MAX_CLIENT_HELLO * 3), 0.0)
    assert len(far._hello) <= MAX_CLIENT_HELLO * 4


def test_half_a_handshake_ends_with_the_head_s_time() -> None:
    far = server()
    far.receive(b"\x16\x03\x01\x02\x00\x01", 3.0)
    assert far.deadline() == CLIENT_HEADER_S
    assert [type(event) for event in far.due(CLIENT_HEADER_S)] == [Finished]


# --- With the channel inside ------------------------------------------------------------------------------------------

STATIC = StaticKey.from_bytes(bytes(range(1, 33)))


def connections(
    client: TlsClient | HttpClient,
    far: TlsServer | ProxiedServer,
    *,
    key: bytes | None = STATIC.public,
    network: bytes = NETWORK,
) -> tuple[Connection, Connection]:
    """A dialler and a listener over these carriers."""
    rng = random.Random(7)
    dialling = Dialling(network, ListenerKind.DIRECT, key, joining=key is None)
    listening = Listening(NETWORK, ListenerKind.DIRECT, STATIC, True, ReplayCache(), lambda: True)
    made = [
        Connection(carrier, security, offer(), CATALOGUE, rng, lambda: 1_700_000_000, initiator=initiator, now=0.0)
        for carrier, security, initiator in ((client, dialling, True), (far, listening, False))
    ]
    return made[0], made[1]


def pump(one: Connection, other: Connection) -> list[object]:
    events: list[object] = [*one.start(0.0), *other.start(0.0)]
    for _ in range(40):
        for sender, receiver in ((one, other), (other, one)):
            for piece in sender.flush(0.0):
                events += receiver.receive(piece, 0.0)
    return events


def dial(key: bytes | None, network: bytes = NETWORK) -> TlsClient:
    return TlsClient(random.Random(3), b"h", None, key, network, by_cookie=False)


def far_site() -> TlsServer:
    site = website(is_tls=True)
    names = site.dress
    paths = frozenset({path_for_key(STATIC.public), path_for_joining(NETWORK, LEAF)})
    site.dress = type(names)(names.cookie, names.attributes, names.realm, paths, True)
    assert isinstance(CONTEXT, ssl.SSLContext)
    return TlsServer(random.Random(4), site, CONTEXT, LEAF)


@pytest.mark.parametrize(("key", "pattern"), [(STATIC.public, "NK"), (None, "NXpsk0")])
def test_a_link_opens_with_the_key_and_by_joining(key: bytes | None, pattern: str) -> None:
    events = pump(*connections(dial(key), far_site(), key=key))
    assert [event.pattern for event in events if isinstance(event, Opened)] == [pattern] * 2


def test_who_knows_neither_key_nor_network_finds_no_more_than_a_page_that_is_not_there() -> None:
    near, far = connections(dial(None, b"m" * 32), far_site(), key=None, network=b"m" * 32)
    events = pump(near, far)
    assert not any(isinstance(event, Opened) for event in events)
    assert any(isinstance(event, Ended) for event in events)


def test_a_wrong_key_at_the_right_place_is_refused() -> None:
    other = StaticKey.from_bytes(bytes(range(2, 34)))
    near, far = connections(dial(STATIC.public), far_site(), key=other.public)
    assert not any(isinstance(event, Opened) for event in pump(near, far))


def test_a_request_carried_into_another_session_is_refused() -> None:
    """A man in the middle ends TLS on both sides and passes every byte of the inside on: the bindings differ."""
    near, far = connections(dial(STATIC.public), far_site())
    visitor = Visitor(far._carrier)  # type: ignore[arg-type]  # his own session with the listener
    visitor.shake_hands()
    near.start(0.0)
    caught: list[CarrierEvent] = []
    catcher = far_site()  # his own end towards the dialler; the certificate is even the same
    catcher.start(0.0)
    for _ in range(4):
        for piece in near.flush(0.0):
            caught += catcher.receive(piece, 0.0)
        for piece in catcher.take():
            near.receive(piece, 0.0)
    flight = next(event for event in caught if isinstance(event, Flight))
    visitor.tls.write(upgrade(encode_token(flight.data), path_for_key(STATIC.public)))
    events = far.receive(visitor.outgoing.read(), 0.0)
    assert not any(isinstance(event, Opened) for event in events)
    for piece in far.flush(0.0):
        visitor.incoming.write(piece)
    assert visitor.tls.read(1 << 14).startswith(b"HTTP/1.1 401 ")


def test_behind_a_proxy_the_cookie_and_the_certificate_bind() -> None:
    site = far_site()._site
    client = HttpClient(random.Random(1), b"h", path_for_key(STATIC.public), binding=LEAF)
    client.NUMBER = CarrierNumber.TLS  # type: ignore[misc]  # the TLS around it ends at the proxy
    near, far = connections(client, ProxiedServer(random.Random(2), site, binding=LEAF))
    assert [event.pattern for event in pump(near, far) if isinstance(event, Opened)] == ["NK"] * 2
    stranger = HttpClient(random.Random(1), b"h", path_for_key(STATIC.public), binding=bytes(32))
    stranger.NUMBER = CarrierNumber.TLS  # type: ignore[misc]
    near, far = connections(stranger, ProxiedServer(random.Random(2), site, binding=LEAF))
    assert not any(isinstance(event, Opened) for event in pump(near, far)), "another certificate"


def test_flights_of_the_suite_are_what_arrives() -> None:
    wire = Wire(MAKERS["tls, joining"]).opened()
    assert wire.server.flights == [FLIGHT_1]
