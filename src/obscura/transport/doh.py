"""DNS-over-HTTPS (RFC 8484): POST over HTTP/2 and TLS to an address that is known beforehand.

The name of the provider is only compared with its certificate. No resolver of the system is asked, no cookie is kept, no
redirect followed, no user agent sent, no session resumed: each lookup is a new connection that knows nothing of the last.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import Sequence

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from obscura.limits import DOH_ANSWER, DOH_CONNECT_S, DOH_CONNECTION, DOH_S
from obscura.node.resolvers import Answer, Provider
from obscura.transport.dns_query import query, read_answer
from obscura.transport.through import OpenSocket

_MEDIA_TYPE = "application/dns-message"
_READ = 16 << 10  # bytes of one read


class _Fault(Exception):
    """The provider cannot be used; the text says why, in words for the operator."""


async def open_tcp(address: str, port: int) -> socket.socket:
    """A connected, non-blocking socket to an IP address. Raises ``OSError``."""
    connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def ask(
    provider: Provider,
    name: str,
    kinds: Sequence[str],
    rng: random.Random,
    *,
    proxy: OpenSocket = open_tcp,
    timeout_s: float = DOH_S,
) -> tuple[Answer, ...]:
    """One answer per kind, over one connection. Whatever the provider does comes back as a fault, within ``timeout_s``.

    Its addresses are tried in random order until one is connected. ``proxy`` opens the socket: through SOCKS5, say.
    """
    answers: list[Answer] = []
    fault = "it has no address"
    try:
        async with asyncio.timeout(timeout_s):
            trust = _trust(provider)
            for address in rng.sample(provider.addresses, len(provider.addresses)):
                try:
                    async with asyncio.timeout(min(DOH_CONNECT_S, timeout_s)):
                        link = await _connect(provider, address, trust, proxy)
                except (OSError, _Fault) as error:
                    fault = _words(error)
                    continue
                try:
                    for kind in kinds[len(answers) :]:
                        answers.append(read_answer(await link.post(provider, query(name, kind)), name, kind))
                finally:
                    link.close()
                break
    except (OSError, _Fault) as error:
        fault = _words(error)
    return (*answers, *(Answer(kind, fault=fault) for kind in kinds[len(answers) :]))


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
    return str(error)


def _trust(provider: Provider) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=provider.ca)
    except OSError as error:
        raise _Fault(f"its file of certificates {provider.ca} cannot be read: {_words(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 7540, 9.2
    context.set_alpn_protocols(["h2"])
    return context


async def _connect(provider: Provider, address: str, trust: ssl.SSLContext, proxy: OpenSocket) -> _Link:
    raw = await proxy(address, provider.port)
    try:
        reader, writer = await asyncio.open_connection(
            sock=raw, ssl=trust, server_hostname=provider.host, ssl_shutdown_timeout=1.0
        )
    except BaseException:
        raw.close()
        raise
    spoken = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    if spoken != "h2":
        writer.transport.abort()
        raise _Fault("it does not speak HTTP/2")
    return _Link(reader, writer)


class _Link:
    """One HTTP/2 connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._received = 0
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._http.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.ENABLE_PUSH: 0}
        )
        self._http.initiate_connection()

    async def post(self, provider: Provider, body: bytes) -> bytes:
        """The body of the answer. Raises ``_Fault`` or ``OSError``."""
        try:
            stream = self._http.get_next_available_stream_id()
            self._http.send_headers(stream, _headers(provider, body))
            self._http.send_data(stream, body, end_stream=True)
            return await self._answer(stream)
        except h2.exceptions.H2Error as error:
            raise _Fault(f"it breaks HTTP/2: {type(error).__name__}") from None

    async def _answer(self, stream: int) -> bytes:
        body = bytearray()
        while True:
            self._writer.write(self._http.data_to_send())
            raw = await self._reader.read(_READ)
            self._received += len(raw)
            if not raw:
                raise _Fault("it ended the connection without an answer")
            if self._received > DOH_CONNECTION:
                raise _Fault(f"it sends more than {DOH_CONNECTION} bytes")
            for event in self._http.receive_data(raw):
                if self._take(event, stream, body):
                    return bytes(body)

    def _take(self, event: h2.events.Event, stream: int, body: bytearray) -> bool:
        """Whether the answer is complete."""
        if isinstance(event, h2.events.ConnectionTerminated):
            raise _Fault("it ended the connection without an answer")
        if getattr(event, "stream_id", None) != stream:
            return False
        if isinstance(event, h2.events.ResponseReceived):
            _check(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            body += event.data
            if len(body) > DOH_ANSWER:
                raise _Fault(f"its answer has more than {DOH_ANSWER} bytes")
            self._http.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.StreamReset):
            raise _Fault("it refuses the request")
        return isinstance(event, h2.events.StreamEnded)

    def close(self) -> None:
        """Say goodbye; what is not said within a second stays unsaid."""
        self._http.close_connection()
        self._writer.write(self._http.data_to_send())
        self._writer.close()


def _headers(provider: Provider, body: bytes) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", provider.authority),
        (":path", provider.path),
        ("accept", _MEDIA_TYPE),
        ("content-type", _MEDIA_TYPE),
        ("content-length", str(len(body))),
    ]


def _check(headers: Sequence[tuple[bytes, bytes]]) -> None:
    said = dict(headers)
    status = said.get(b":status", b"")
    if status != b"200":
        raise _Fault(f"it answers HTTP {status[:3].decode('ascii', 'replace')}")
    if said.get(b"content-type", b"").partition(b";")[0].strip().lower() != _MEDIA_TYPE.encode():
        raise _Fault("its answer is no DNS message")
