"""Own doors as strangers find them, for `obscura doctor`: what comes back at each listening address. Stays on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import os
import secrets
import socket
import ssl
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509

from obscura.doctor.facts import Door
from obscura.limits import PROBE_S, PROBE_SILENCE_S
from obscura.wire.address import Address, CarrierNumber

_READ = 64 << 10  # bytes of an answer that are looked at
_ASKED = b"GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
_NOISE = 24  # bytes: less than any opening of the channel


class _Answer(NamedTuple):
    text: str
    is_cover: bool
    certificate_days: int | None = None


async def visit(place: Address) -> Door:
    """Go to a listening address of a running node as a stranger would."""
    seen = str(place).removeprefix("obscura://").rpartition("@")[2].partition("?")[0]
    carrier = place.carrier.name.lower()
    try:
        async with asyncio.timeout(PROBE_S):
            answer = await _ask(place)
    except TimeoutError:
        return Door(seen, carrier, answer=f"nothing within {PROBE_S:.0f} s", is_cover=False)
    except OSError as error:
        if isinstance(error, ConnectionRefusedError):
            return Door(seen, carrier, fault="nothing listens there")
        return Door(seen, carrier, answer=f"an error: {_reason(error)}", is_cover=False)
    return Door(seen, carrier, answer=answer.text, is_cover=answer.is_cover, certificate_days=answer.certificate_days)


def try_port(place: Address) -> Door:
    """Whether a node that is started now could have the port. Takes it for a moment; connects to nothing."""
    carrier = place.carrier.name.lower()
    seen = f"{place.host}:{place.port}"
    endpoint = place.endpoint
    if endpoint is None:
        return Door(seen, carrier, fault="give the IP address to listen on, not a name", is_probed=False)
    family = socket.AF_INET6 if ":" in endpoint.host_text else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((endpoint.host_text, endpoint.port))
    except OSError as error:
        is_privileged = error.errno == errno.EACCES
        return Door(seen, carrier, fault=_reason(error), is_privileged=is_privileged, is_probed=False)
    return Door(seen, carrier, is_probed=False)


async def _ask(place: Address) -> _Answer:
    host = _own_host(place.host)
    is_web = place.carrier in (CarrierNumber.HTTP, CarrierNumber.TLS)
    trust = None
    # Else something in front of it has the certificate.
    if place.carrier is CarrierNumber.TLS and place.binding is None:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
    name = (place.name or host) if trust is not None else None
    reader, writer = await asyncio.open_connection(host, place.port, ssl=trust, server_hostname=name)
    try:
        if is_web:
            return await _web(place, reader, writer)
        if place.carrier is CarrierNumber.SSH:
            line = _line(await reader.readline())
            return _Answer(f"an ssh server: {line}", line.startswith("SSH-2.0-"))
        return await _silence(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _web(place: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Answer:
    writer.write(_ASKED % (place.name or _own_host(place.host)).encode())
    status = _line(await reader.readline())
    server = ""
    for _ in range(100):
        field = _line(await reader.readline())
        if not field:
            break
        if field.lower().startswith("server:"):
            server = field.partition(":")[2].strip()
    is_cover = status.startswith("HTTP/1.1 ") and bool(server)
    days = None
    session = writer.get_extra_info("ssl_object")
    if session is not None:
        leaf = x509.load_der_x509_certificate(session.getpeercert(binary_form=True))
        days = (leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days
    return _Answer(f"a web site of {server or 'no server'}: {status}", is_cover, days)


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Answer:
    writer.write(secrets.token_bytes(_NOISE))
    try:
        async with asyncio.timeout(PROBE_SILENCE_S):
            came = await reader.read(_READ)
    except TimeoutError:
        return _Answer("no answer", True)
    return _Answer(f"{len(came)} bytes" if came else "the end of the connection", False)


def _own_host(host: str) -> str:
    """Where a wildcard address is found on this machine."""
    with contextlib.suppress(ValueError):
        address = ip_address(host)
        if address.is_unspecified:
            return "::1" if address.version == 6 else "127.0.0.1"
    return host


def _line(raw: bytes) -> str:
    return raw[:200].decode("latin-1").strip()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
