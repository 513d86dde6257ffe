"""Carrier ``tls``: real TLS 1.3 around the web carrier (design 8; RFC 8446). ``SSLObject`` over memory: no socket is touched.

Binding: ``tls-unique`` of the session (the Finished of the client, at both ends) and the SHA256 of the leaf certificate, so that
nothing recorded is of use in another session, and a man in the middle with another certificate gets no further than a stranger.
"""

from __future__ import annotations

import contextlib
import random
import ssl
from abc import abstractmethod
from hashlib import sha256
from math import inf
from typing import ClassVar

from obscura.limits import CLIENT_HEADER_S, MAX_CLIENT_HELLO, TLS_RECORD
from obscura.morph.carrier import Carrier, CarrierEvent, Finished, coalesced
from obscura.morph.dress import path_for_joining, path_for_key
from obscura.morph.hello import NO_APPLICATION_PROTOCOL, comes_first, offered_protocols
from obscura.morph.http import HttpServer
from obscura.morph.poller import PollingClient
from obscura.morph.visitor import HttpClient
from obscura.morph.website import Website
from obscura.wire.address import CarrierNumber

_READ = (
    TLS_RECORD  # bytes asked for at once: OpenSSL gives one record, and the room for more would be got and given back
)
PROTOCOLS = frozenset({b"http/1.1", b"http/1.0", b"http/0.9"})  # that nginx without HTTP/2 speaks inside TLS
_IS_TLS = frozenset({0x16, *range(0x80, 0x100)})  # first bytes that nginx gives to OpenSSL; others are cleartext


def client_context() -> ssl.SSLContext:
    """What a dialler offers: this Python's own hello, ALPN http/1.1. The chain is not checked: the channel proves the key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


CLIENT_CONTEXT = client_context()  # made once: it takes longer than a handshake


class _Tls(Carrier):
    """What both sides share: bytes through OpenSSL, and the session inside once there is one."""

    NUMBER = CarrierNumber.TLS
    ANSWERS_GOODBYE: ClassVar[bool]  # whether the peer's close_notify gets one back

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._in = ssl.MemoryBIO()
        self._wire = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._inner: Carrier | None = None
        self._deadline = inf
        self._is_ending = False  # close_notify follows what is still inside
        self._is_left = False  # nothing more can be read: the peer has said good-bye, or a record is broken

    @abstractmethod
    def _session(self) -> Carrier | None:
        """The inner session of a handshake that is done; None: this is not for us."""

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        tls = self._tls
        if tls is None or self._is_ending:
            return []
        return self._noted(self._through(tls, data, now))

    def _noted(self, events: list[CarrierEvent]) -> list[CarrierEvent]:
        self._is_ending = self._is_ending or any(isinstance(event, Finished) for event in events)
        return events

    def _through(self, tls: ssl.SSLObject, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        self._in.write(data)
        events: list[CarrierEvent] = []
        try:
            if self._inner is None:
                tls.do_handshake()
                self._inner = self._session()
                if self._inner is None:
                    return self._over()
                self._inner.own_host = self.own_host
                self._deadline = inf
                events += self._inner.start(now)
        except ssl.SSLWantReadError:
            return events
        except ssl.SSLError:  # OpenSSL has queued its alert
            return self._over()
        plain, is_over = self._opened(tls)
        self._is_left = self._is_left or is_over
        if plain:
            events += self._inner.receive(plain, now)
        if is_over and not (events and isinstance(events[-1], Finished)):
            events += self._inner.eof(now)
        return events

    @staticmethod
    def _opened(tls: ssl.SSLObject) -> tuple[bytes, bool]:
        """All that the records hold, in one piece, and whether no more will come: a good-bye, or a broken record."""
        pieces: list[bytes] = []
        try:
            while piece := tls.read(_READ):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces), False
        except ssl.SSLError:
            pass
        return b"".join(pieces), True

    def send_flight(self, flight: bytes, now: float) -> None:
        if self._inner is not None:
            self._inner.send_flight(flight, now)

    def send(self, data: bytes, now: float) -> None:
        if self._inner is not None:
            self._inner.send(data, now)

    def take(self) -> list[bytes]:
        tls = self._tls
        if self._inner is not None and tls is not None:
            with contextlib.suppress(ssl.SSLError):  # behind a broken record its alert is the last word, as with nginx
                for said in self._said(self._inner):
                    view = memoryview(said)
                    while view:
                        view = view[tls.write(view) :]
        says_goodbye = self._is_ending and (self.ANSWERS_GOODBYE or not self._is_left)
        if says_goodbye and self._inner is not None and tls is not None:
            with contextlib.suppress(ssl.SSLError):  # it wants the peer's as well, which nobody waits for
                tls.unwrap()
        return coalesced([self._wire.read()]) if self._wire.pending else []

    @staticmethod
    def _said(inner: Carrier) -> list[bytes]:
        """What goes into records: of each piece only the last one is not full."""
        return [b"".join(inner.take())]

    def refuse(self, now: float) -> None:
        if self._inner is not None:
            self._inner.refuse(now)

    def end(self, now: float) -> list[CarrierEvent]:
        return self._noted(self._inner.end(now) if self._inner is not None else self._over())

    def eof(self, now: float) -> list[CarrierEvent]:
        self._is_left = True
        return self._inner.eof(now) if self._inner is not None else self._over()

    def deadline(self) -> float:
        return self._inner.deadline() if self._inner is not None else self._deadline

    def due(self, now: float) -> list[CarrierEvent]:
        if self._inner is not None:
            return self._noted(self._inner.due(now))
        return self._over() if now >= self._deadline else []

    @property
    def is_full(self) -> bool:
        return self._inner is not None and self._inner.is_full

    @property
    def is_blocked(self) -> bool:
        return self._inner is not None and self._inner.is_blocked

    @property
    def is_busy(self) -> bool:
        return self._inner is not None and self._inner.is_busy

    def _over(self) -> list[CarrierEvent]:
        self._deadline = inf
        return [Finished()]


class TlsServer(_Tls):
    """The server's side. What does not begin as TLS does is served as cleartext on a TLS port."""

    ANSWERS_GOODBYE = False  # nginx

    def __init__(self, rng: random.Random, site: Website, context: ssl.SSLContext, certificate: bytes) -> None:
        """``certificate``: SHA256 of the leaf of ``context``."""
        super().__init__(rng)
        self._site = site
        self._context = context
        self._certificate = certificate
        self._hello = bytearray()

    def start(self, now: float) -> list[CarrierEvent]:
        self._deadline = now + CLIENT_HEADER_S
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._tls is None and self._inner is None and data:
            if data[0] in _IS_TLS:
                self._tls = self._context.wrap_bio(self._in, self._wire, server_side=True)
            else:
                self._inner = HttpServer(self._rng, self._site, is_misplaced=True)
                self._inner.own_host = self.own_host
                self._inner.start(now)
        if self._tls is None and self._inner is not None:
            return self._inner.receive(data, now)
        is_hello = self._inner is None and not self._is_ending
        events = super().receive(data, now)
        if is_hello and not self._is_welcome(data):
            said = self._wire.read()
            if not said or comes_first(said, bytes(self._hello)):
                self._wire.write(said)
                return events
            self._wire.write(NO_APPLICATION_PROTOCOL)
            return events if self._is_ending else self._noted(self._over())
        return events

    def __del__(self) -> None:
        """However it ends, say to OpenSSL that it ended well, as nginx does: else it forgets the session, and ours alone is
        not taken up again by who left without close_notify."""
        if self._tls is not None:
            with contextlib.suppress(
                ssl.SSLError
            ):  # the session of a broken handshake or record is gone already, as there
                self._tls.unwrap()

    def _is_welcome(self, data: bytes | memoryview) -> bool:
        """False once the hello is complete and wants other protocols than a web server's."""
        if len(self._hello) > MAX_CLIENT_HELLO:
            return True
        self._hello += data
        offered = offered_protocols(bytes(self._hello))
        return not offered or not PROTOCOLS.isdisjoint(offered)

    def take(self) -> list[bytes]:
        return self._inner.take() if self._tls is None and self._inner is not None else super().take()

    @staticmethod
    def _said(inner: Carrier) -> list[bytes]:
        assert isinstance(inner, HttpServer), "_session has made it"
        return inner.take_answers()

    def _session(self) -> Carrier:
        assert self._tls is not None
        unique = self._tls.get_channel_binding("tls-unique") if self._tls.version() == "TLSv1.3" else None
        binding = unique + self._certificate if unique else b""  # without one no flight is taken
        return HttpServer(self._rng, self._site, binding=binding, by_cookie=False)


class TlsClient(_Tls):
    """The dialler's side. Nothing but a visitor's TLS is sent before the handshake is done."""

    ANSWERS_GOODBYE = True  # asyncio

    def __init__(
        self,
        rng: random.Random,
        host: bytes,
        name: str | None,
        key: bytes | None,
        network_id: bytes,
        *,
        by_cookie: bool,
        polls: bool = False,
    ) -> None:
        """``host``: the Host field; ``name``: SNI, None sends none; ``key`` None joins; ``by_cookie``: a proxy ends TLS.

        ``polls``: in requests and answers instead of a WebSocket.
        """
        super().__init__(rng)
        self._host = host
        self._key = key
        self._network_id = network_id
        self._by_cookie = by_cookie
        self._visit = PollingClient if polls else HttpClient
        self._tls = CLIENT_CONTEXT.wrap_bio(self._in, self._wire, server_hostname=name)

    def start(self, now: float) -> list[CarrierEvent]:
        return self.receive(b"", now)

    def refuse(self, now: float) -> None:
        super().refuse(now)
        self._deadline = now

    def _session(self) -> Carrier | None:
        assert self._tls is not None
        certificate = self._tls.getpeercert(binary_form=True)
        unique = self._tls.get_channel_binding("tls-unique")
        if self._tls.version() != "TLSv1.3" or certificate is None or unique is None:
            return None
        leaf = sha256(certificate).digest()
        path = path_for_joining(self._network_id, leaf) if self._key is None else path_for_key(self._key)
        if self._by_cookie:
            return self._visit(self._rng, self._host, path, binding=leaf)
        return self._visit(self._rng, self._host, path, binding=unique + leaf, fetches=False)
