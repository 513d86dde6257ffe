"""The key of a network's seed lists on disk, and the making of a list with it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from obscura.daemon.datadir import write_new
from obscura.errors import AddressError, UserError
from obscura.limits import KEY_BYTES
from obscura.node.seed_list import SeedList, sign, txt_strings, zone_line
from obscura.wire.address import Address, is_dns_name, key_text, parse_key

_DAY_S = 86_400
_TTL_MOST_S = (1 << 31) - 1  # RFC 2181, 8


class SignedList(msgspec.Struct, frozen=True):
    """A list ready to be published under ``name``."""

    name: str
    sequence: int
    expires: int
    public: bytes
    texts: tuple[str, ...]

    @property
    def records(self) -> list[list[str]]:
        """The character-strings of each TXT record."""
        return [txt_strings(text) for text in self.texts]

    def zone_lines(self, ttl_s: int) -> list[str]:
        """One line of a zone file per record. Raises ``UserError`` for a time to live that DNS cannot say."""
        if ttl_s > _TTL_MOST_S:
            raise UserError(f"a record is kept for {_TTL_MOST_S} s at most")
        return [zone_line(self.name, ttl_s, text) for text in self.texts]


def make(path: Path) -> str:
    """Write a new secret key; the public key as text. Raises ``UserError`` where the file exists or cannot be made."""
    key = Ed25519PrivateKey.generate()
    try:
        write_new(path, key_text(key.private_bytes_raw()) + "\n", 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists and is left as it is: a lost seed key cannot be made again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return key_text(key.public_key().public_bytes_raw())


def sign_list(
    network_id: bytes, name: str, path: Path, addresses: Iterable[str], days: int, sequence: int | None = None
) -> SignedList:
    """A signed list of the addresses, valid from now. ``sequence`` None = the unix time. Raises ``UserError``."""
    if not is_dns_name(name):
        raise UserError(f"{name!a} is not a host name in lower case, without a dot at its end")
    secret = _read(path)
    unix = int(time.time())
    wanted = tuple(dict.fromkeys(Address.parse(text) for text in addresses))
    made = SeedList(unix if sequence is None else sequence, unix + days * _DAY_S, wanted)
    public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return SignedList(name, made.sequence, made.expires, public, tuple(sign(made, name, network_id, secret, unix)))


def _read(path: Path) -> bytes:
    try:
        text = path.read_text("ascii")
        secret = parse_key(text.strip())
    except OSError as error:
        raise UserError(f"the seed key {path} cannot be read: {error.strerror}") from None
    except (AddressError, UnicodeDecodeError):
        raise UserError(f"{path} is not a key of `obscura seeds keygen`") from None
    assert len(secret) == KEY_BYTES
    return secret
