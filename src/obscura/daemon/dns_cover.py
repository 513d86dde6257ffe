"""What dns listeners show: a zone, read from the operator's file or made, signed with a key that is kept."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import dns.dnssec
import dns.dnssectypes
import dns.exception
import dns.name
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from obscura.channel.uniform import StaticKey
from obscura.daemon.datadir import write_atomic
from obscura.daemon.logs import log_fault
from obscura.errors import UserError
from obscura.limits import DNS_RESIGN_S, DNS_RSA_BITS, DNS_SIGNED_S, DNS_ZONE_BYTES, DNS_ZONE_RECORDS
from obscura.morph.dns_answer import NameServer
from obscura.morph.dns_message import RRSIG, text_of
from obscura.morph.dns_names import origin_for_key, tsig_key, zone_text
from obscura.morph.dns_server import DnsHost
from obscura.morph.dns_zone import Nodes, RRset, Zone
from obscura.wire.address import Address

log = logging.getLogger(__name__)
_HOUR = 3_600


class LiveZone:
    """A zone that is signed anew from time to time, at times that a restart does not change.

    ``make(serial, unix)`` gives it as signed at that time.
    """

    def __init__(self, make: Callable[[int, int], Zone], since: int, unix: Callable[[], int]) -> None:
        """``since``: unix seconds of its first signatures."""
        self._make = make
        self._since = since
        self._unix = unix
        self._period = self._now()
        self._zone = self._made(self._period)

    def __call__(self) -> Zone:
        """The zone. What cannot be made any more stays as it was, for strangers ask on: a file may be gone by then.

        Signing takes half a second: a thread does it, and the old zone is shown until it has.
        """
        period = self._now()
        if period != self._period:
            self._period = period
            make = functools.partial(self._made, period)
            try:
                made = asyncio.get_running_loop().run_in_executor(None, make)
            except RuntimeError:  # there is no loop that would wait for it
                self._take(make, period)
            else:
                made.add_done_callback(lambda done: self._take(done.result, period))
        return self._zone

    def _take(self, made: Callable[[], Zone], period: int) -> None:
        """``period`` may be over: a clock was set."""
        try:
            zone = made()
            self._zone = zone if period == self._period else self._zone
        except UserError:
            log.warning("cover.zone cannot be used any more: it is shown as it was, for another week")
        except Exception as fault:
            log_fault(log, "signing the zone anew, it is shown as it was", fault)

    def _now(self) -> int:
        return max(0, int((self._unix() - self._since) // DNS_RESIGN_S))

    def _made(self, period: int) -> Zone:
        first = int(time.strftime("%Y%m%d01", time.gmtime(self._since)))
        zone = self._make(first + period, self._since + int(period * DNS_RESIGN_S))
        if not zone.is_signed:
            raise UserError("cover.zone: the file has keys and no signatures: leave out both, or sign it")
        return zone


def dns_host(place: Address, static: StaticKey, file: Path | None, folder: Path, rng: random.Random) -> DnsHost:
    """What the connections at ``place`` share. ``file``: the operator's zone of the name in ``place``; none = made.

    Raises ``UserError`` for files that cannot be used.
    """
    if file is not None and place.name is None:
        raise UserError(f"listen = {place}: say which zone {file} is, with carrier=dns&name=ZONE")
    origin = place.name or origin_for_key(static.public)
    path = folder / f"dns-{sha256(f'{place.host}:{place.port}'.encode()).hexdigest()[:12]}.pem"
    key = sign_key(path)

    def make(serial: int, unix: int) -> Zone:
        if file is not None:
            try:
                return signed(read_zone(file, origin), key, unix)
            except (dns.exception.DNSException, ValueError) as error:
                raise UserError(f"cover.zone: {file} cannot be signed: {error}") from None
        return signed(parse_zone(zone_text(static.secret(), origin, serial), origin), key, unix)

    def unix() -> int:
        return int(time.time())

    live = LiveZone(make, int(path.stat().st_mtime), unix)
    return DnsHost(NameServer(live, tsig_key(static.public), rng.randbytes(16), unix), static.public)


def shown(place: Address, host: DnsHost, file: Path | None) -> dict[str, Any]:
    """What `obscura listen` prints of it."""
    zone = host.name_server.zone()
    return {
        "listen": str(place),
        "stranger": "BIND 9.18 without a version, for one signed zone; REFUSED for other names, transfers and updates",
        "zone": text_of(zone.origin),
        "site": str(file) if file else "a zone that was made",
        "names": sorted(text_of(name) for name in zone.nodes)[:40],
        "serial": zone.serial,
        "tsig": text_of(host.name_server.key.name),
    }


def sign_key(path: Path) -> rsa.RSAPrivateKey:
    """The zone's signing key in a file of mode 0600, made if it is missing. Raises ``UserError``."""
    if not path.exists():
        private = rsa.generate_private_key(public_exponent=65_537, key_size=DNS_RSA_BITS)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomic(path, pem)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise UserError(f"the zone's key {path} cannot be used: {error}") from None
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size != DNS_RSA_BITS:
        raise UserError(f"the zone's key {path} is no RSA key of {DNS_RSA_BITS} bits")
    return key


def read_zone(path: Path, origin: str) -> dns.zone.Zone:
    """A zone file (RFC 1035, 5). Raises ``UserError``."""
    try:
        if path.stat().st_size > DNS_ZONE_BYTES:
            raise UserError(f"cover.zone: {path} is larger than {DNS_ZONE_BYTES >> 20} MiB, which are kept in memory")
        return parse_zone(path.read_text("utf-8"), origin)
    except OSError as error:
        raise UserError(f"cover.zone: {path} cannot be read: {error.strerror}") from None
    except (dns.exception.DNSException, ValueError) as error:
        raise UserError(f"cover.zone: {path} is no zone file of {origin}: {error}") from None


def parse_zone(text: str, origin: str) -> dns.zone.Zone:
    """The text of a zone file. Raises ``ValueError`` or an exception of the library."""
    zone = dns.zone.from_text(text, origin=dns.name.from_text(origin), relativize=False)
    is_signed = zone.get_rdataset(zone.origin or "@", dns.rdatatype.DNSKEY) is not None
    most = DNS_ZONE_RECORDS[is_signed]
    if sum(1 for _ in zone.iterate_rdatas()) > most:
        raise ValueError(f"more than {most} records" + ("" if is_signed else ", which is what is signed here"))
    return zone


def signed(zone: dns.zone.Zone, key: rsa.RSAPrivateKey, unix: int) -> Zone:
    """The zone with its signatures, valid from an hour ago; one that brings its own keeps them."""
    origin = zone.origin
    assert origin is not None
    if zone.get_rdataset(origin, dns.rdatatype.DNSKEY) is None:
        public = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.RSASHA256, flags=257)
        dns.dnssec.sign_zone(zone, keys=[(key, public)], inception=unix - _HOUR, expiration=unix + DNS_SIGNED_S)
    return converted(zone)


def converted(zone: dns.zone.Zone) -> Zone:
    """The same in wire form."""
    assert zone.origin is not None
    nodes: Nodes = {}
    for name, node in zone.nodes.items():
        wire = name.to_wire() or b""
        signatures: dict[int, list[bytes]] = {}
        for rdataset in node:
            if rdataset.rdtype == RRSIG:
                signatures.setdefault(rdataset.covers, []).extend(rdata.to_wire() or b"" for rdata in rdataset)
        kinds = nodes.setdefault(wire.lower(), {})
        for rdataset in node:
            if rdataset.rdtype != RRSIG:
                kind = int(rdataset.rdtype)
                data = tuple(sorted(rdata.to_wire() or b"" for rdata in rdataset))
                kinds[kind] = RRset(wire, kind, rdataset.ttl, data, tuple(signatures.get(kind, ())))
    return Zone((zone.origin.to_wire() or b"").lower(), nodes)
