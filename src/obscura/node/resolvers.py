"""DNS-over-HTTPS providers: who they are, where they are, what one of them answered (design 11, RFC 8484).

A provider is dialled at an address that is written here or in the configuration, and has to show a certificate for its
name: no other resolver is ever asked where it is.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Meta

from obscura import limits
from obscura.errors import AddressError, ConfigError
from obscura.wire.address import is_dns_name, join_host_port, parse_key

_FORM = "https://NAME[:PORT]/PATH?ip=ADDRESS"


class Provider(msgspec.Struct, frozen=True):
    """One DoH server. ``operator`` is who runs it: unsigned answers count once per operator."""

    host: str  # in the certificate and in :authority
    addresses: tuple[str, ...]  # IPv4 or IPv6, pinned
    operator: str
    path: str = "/dns-query"
    port: int = 443
    ca: str | None = None  # file of the only certificates to trust; None = those of the system

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``https://NAME[:PORT]/PATH?ip=ADDRESS[&ip=...][&operator=WHO][&ca=FILE]``. ``ConfigError``."""
        try:
            parts = urlsplit(text)
            port = parts.port or 443
            options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
            addresses = tuple(str(ip_address(value)) for key, value in options if key == "ip")
        except ValueError as error:
            raise ConfigError(f"seeds.providers: {text!a} is not {_FORM}: {error}") from None
        single = dict(option for option in options if option[0] != "ip")
        host = parts.hostname or ""
        if parts.scheme != "https" or not is_dns_name(host) or parts.username is not None or parts.fragment:
            raise ConfigError(f"seeds.providers: {text!a} is not {_FORM}")
        if not addresses:
            raise ConfigError(f"seeds.providers: {text!a} lacks ip=: the system's resolver is never asked where it is")
        if single.keys() - {"operator", "ca"} or len(single) + len(addresses) != len(options):
            raise ConfigError(f"seeds.providers: {text!a}: ip= (several), operator= and ca= (once) go behind the ?")
        operator = single.get("operator") or host
        return cls(host, addresses, operator, parts.path or "/", port, single.get("ca"))

    @property
    def authority(self) -> str:
        """Host, and the port unless it is that of https."""
        return self.host if self.port == 443 else join_host_port(self.host, self.port)


BUILT_IN = {
    "cloudflare": Provider(
        "cloudflare-dns.com", ("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"), "cloudflare"
    ),
    "google": Provider("dns.google", ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"), "google"),
    "quad9": Provider("dns.quad9.net", ("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"), "quad9"),
}


class Answer(msgspec.Struct, frozen=True):
    """What a provider said of one kind of record; ``fault`` instead if it could not be asked or talked nonsense.

    ``records`` are 4 bytes (A), 16 bytes (AAAA) or the joined strings (TXT). Without any, there is no such record.
    """

    kind: str
    records: tuple[bytes, ...] = ()
    ttl_s: int = 0
    fault: str | None = None


class SeedSettings(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The section ``seeds`` of the configuration. Raises ``ConfigError``."""

    enabled: Annotated[
        bool, Meta(description="ask DNS-over-HTTPS providers for seeds while too few peers are known")
    ] = True
    providers: Annotated[
        tuple[str, ...],
        Meta(
            description="whom to ask: cloudflare, google, quad9, or your own as "
            "https://NAME[:PORT]/PATH?ip=ADDRESS[&operator=WHO][&ca=FILE]"
        ),
    ] = tuple(BUILT_IN)
    names: Annotated[
        tuple[str, ...], Meta(description="names to ask for, instead of the network's; [] keeps the network's")
    ] = ()
    key: Annotated[
        str, Meta(description="public key that lists of seeds are signed with, instead of the network's")
    ] = ""

    def __post_init__(self) -> None:
        if len(self.providers) > limits.SEED_PROVIDERS or len(self.names) > limits.SEED_NAMES:
            raise ConfigError(f"seeds: {limits.SEED_PROVIDERS} providers and {limits.SEED_NAMES} names at most")
        for name in self.names:
            if not is_dns_name(name):
                raise ConfigError(f"seeds.names: {name!a} is not a host name in lower case")
        self.resolvers()
        if self.key:
            try:
                parse_key(self.key)
            except AddressError:
                raise ConfigError(
                    "seeds.key: 52 characters of a-z and 2-7 are wanted, see `obscura seeds keygen`"
                ) from None

    def resolvers(self) -> dict[str, Provider]:
        """The providers by what they are called in the list."""
        return {_label(text): BUILT_IN.get(text) or Provider.parse(text) for text in self.providers}


def _label(text: str) -> str:
    return text if text in BUILT_IN else text.partition("?")[0].removeprefix("https://")
