"""What web listeners show: certificates and site folders, read or made at the edge, and the listeners' carriers from them."""

from __future__ import annotations

import random
import ssl
import time
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from obscura.channel.uniform import StaticKey
from obscura.daemon.certificates import host_name, make_certificate, server_side
from obscura.daemon.dns_cover import dns_host
from obscura.daemon.dns_cover import shown as dns_shown
from obscura.daemon.ssh_cover import shown as ssh_shown
from obscura.daemon.ssh_cover import ssh_host
from obscura.daemon.upstream import HttpUpstream, upstream_place
from obscura.errors import ConfigError, UserError
from obscura.limits import SITE_BYTES, SITE_FILE_BYTES
from obscura.morph.carrier import Carrier, CarrierFactory
from obscura.morph.dns_answer import NameServer
from obscura.morph.dress import Dress, dress, path_for_joining, path_for_key
from obscura.morph.http import HttpServer, ProxiedServer
from obscura.morph.kinds import plain_server
from obscura.morph.stock import DEFAULT_PAGE
from obscura.morph.tls import TlsServer
from obscura.morph.website import INDEX, SERVER, TYPES, Page, Website
from obscura.wire.address import Address, CarrierNumber

_STOCK_SINCE = 1_690_000_000  # unix seconds; default pages are as old as an installation of Debian 12 may be
_STOCK_SPAN = 75_000_000


class CoverSettings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What strangers see on web listeners."""

    site: Annotated[
        Path | None,
        Meta(description="folder of the web site that strangers see; unset is the web server's default page"),
    ] = None
    upstream: Annotated[
        str | None,
        Meta(
            description='web site behind this node that strangers see instead, such as "http://127.0.0.1:8080"; '
            "it must answer / with 200"
        ),
    ] = None
    certificate: Annotated[
        Path | None,
        Meta(description="PEM file with the certificate chain of carrier=tls; unset makes one and keeps it"),
    ] = None
    key: Annotated[Path | None, Meta(description="PEM file with the certificate's private key")] = None
    server_name: Annotated[
        str | None, Meta(description="the name in a certificate that the node makes; unset draws one")
    ] = None

    share_ports: Annotated[
        bool,
        Meta(
            description="let several carriers listen at one address, told apart by what a client says first; who tries "
            "can recognise that"
        ),
    ] = False
    ssh_host_keys: Annotated[
        tuple[Path, ...],
        Meta(description="private host keys of carrier=ssh in OpenSSH's format; unset makes them and keeps them"),
    ] = ()

    zone: Annotated[
        Path | None,
        Meta(description="zone file that carrier=dns shows, of the zone name= in its address; unset makes one"),
    ] = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("cover: give certificate and key together, or neither")
        if self.upstream is not None:
            if self.site is not None:
                raise ConfigError("cover: give site or upstream, not both")
            upstream_place(self.upstream)


class Covers:
    """The web listeners of one node. ``folder``: the private directory of its keys."""

    def __init__(self, settings: CoverSettings, folder: Path, network_id: bytes) -> None:
        self._settings = settings
        self._folder = folder
        self._network_id = network_id
        place = settings.upstream and upstream_place(settings.upstream)
        self._upstream = HttpUpstream(*place) if place else None
        self._site: tuple[dict[bytes, Page], frozenset[bytes]] | None = None
        self.shown: list[dict[str, Any]] = []  # what `obscura listen` prints, one per listener
        self.sites: list[Website] = []  # of the web listeners, in order
        self.name_servers: dict[Address, NameServer] = {}  # of the dns listeners, by where they listen

    def carrier_of(self, place: Address, static: StaticKey | None, *, strangers: bool) -> CarrierFactory:
        """How the listener at ``place`` answers. Raises ``UserError`` for files that cannot be used."""
        if place.carrier is CarrierNumber.SSH:
            host = ssh_host(place, self._settings.ssh_host_keys, self._folder, random.SystemRandom())
            self.shown.append(ssh_shown(place, host))
            return host.server
        if place.carrier is CarrierNumber.DNS and static is not None:
            dns = dns_host(place, static, self._settings.zone, self._folder, random.SystemRandom())
            self.shown.append(dns_shown(place, dns, self._settings.zone))
            self.name_servers[place] = dns.name_server
            return dns.server
        if place.carrier not in (CarrierNumber.HTTP, CarrierNumber.TLS) or static is None:
            self.shown.append(
                {"listen": str(place), "stranger": "nothing: what is not the channel is read and discarded"}
            )
            return plain_server
        if place.carrier is CarrierNumber.HTTP:
            http_site = self._website(place, static, frozenset({path_for_key(static.public)}))
            return lambda rng: HttpServer(rng, http_site)
        context, leaf = self._certificate(place)
        paths = {path_for_key(static.public)} | ({path_for_joining(self._network_id, leaf)} if strangers else set())
        site = self._website(place, static, frozenset(paths), leaf)
        if place.binding == "cookie":
            return lambda rng: ProxiedServer(rng, site, binding=leaf)

        def tls_server(rng: random.Random) -> Carrier:
            return TlsServer(rng, site, context, leaf)

        return tls_server

    def _website(
        self, place: Address, static: StaticKey, paths: frozenset[bytes], leaf: bytes | None = None
    ) -> Website:
        is_tls = place.carrier is CarrierNumber.TLS
        if self._site is None:
            self._site = read_site(self._settings.site) if self._settings.site else stock_site(static.secret())
        pages, folders = self._site
        names = dress(static.secret(), paths, is_tls=is_tls)
        self.shown.append(_shown(self._settings.site, pages, names, leaf))
        if self._settings.upstream is not None:
            self.shown[-1]["site"] = self._settings.upstream
        self.sites.append(Website(pages, folders, names, lambda: int(time.time()), place.port, upstream=self._upstream))
        return self.sites[-1]

    def _certificate(self, place: Address) -> tuple[ssl.SSLContext, bytes]:
        """The context of a listener and the SHA256 of its leaf."""
        certificate, key = self._settings.certificate, self._settings.key
        if certificate is None or key is None:
            stem = f"tls-{sha256(f'{place.host}:{place.port}'.encode()).hexdigest()[:12]}"
            certificate, key = self._folder / f"{stem}.crt", self._folder / f"{stem}.pem"
            if not (certificate.exists() and key.exists()):
                make_certificate(certificate, key, self._settings.server_name or place.name or host_name())
        return server_side(certificate, key)


def stock_site(secret: bytes) -> tuple[dict[bytes, Page], frozenset[bytes]]:
    """The default page, installed at a time of its own."""
    age = int.from_bytes(sha256(b"obscura stock/1" + secret).digest()[:8], "big") % _STOCK_SPAN
    page = Page(DEFAULT_PAGE, b"text/html", _STOCK_SINCE + age)
    return {b"/" + INDEX[-1]: page}, frozenset({b"/"})


def read_site(folder: Path) -> tuple[dict[bytes, Page], frozenset[bytes]]:
    """All files below a folder, in memory; links and what begins with a dot stay out. Raises ``UserError``."""
    if not folder.is_dir():
        raise UserError(f"cover.site: {folder} is not a folder")
    pages: dict[bytes, Page] = {}
    folders = {b"/"}
    total = 0
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_symlink() or any(part.startswith(".") for part in below.parts):
            continue
        name = b"/" + str(below).encode()
        if path.is_dir():
            folders.add(name + b"/")
            continue
        try:
            size, modified = path.stat().st_size, int(path.stat().st_mtime)
            total += size
            if size > SITE_FILE_BYTES or total > SITE_BYTES:
                raise UserError(
                    f"cover.site: {path} makes the site too large: {SITE_FILE_BYTES >> 20} MiB per file and "
                    f"{SITE_BYTES >> 20} MiB in all are kept in memory"
                )
            kind = TYPES.get(path.suffix.lower().lstrip("."), b"application/octet-stream")
            pages[name] = Page(path.read_bytes(), kind, modified)
        except OSError as error:
            raise UserError(f"cover.site: {path} cannot be read: {error.strerror}") from None
    return pages, frozenset(folders)


def _shown(site: Path | None, pages: dict[bytes, Page], names: Dress, leaf: bytes | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "stranger": f"a web site: {SERVER.decode()}",
        "site": str(site) if site else "the default page",
        "pages": len(pages),
        "cookie": (names.cookie + names.attributes).decode(),
        "protected": sorted(path.decode() for path in names.paths),
        "realm": names.realm.decode(),
    }
    if leaf is not None:
        shown["certificate"] = leaf.hex()
    return shown
