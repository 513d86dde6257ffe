"""Signed lists of seeds in TXT records: who serves them does not matter, the network's seed key does (design 11).

One text is complete by itself::

    obscura-seeds/1 SEQUENCE EXPIRES ADDRESS ... SIGNATURE

SEQUENCE and EXPIRES (unix seconds) are decimal, ADDRESS is an ``obscura://`` address without its scheme, SIGNATURE is
Ed25519 (RFC 8032) in base64url without padding over::

    "obscura seed list/1" NUL | network id, 32 bytes | name that was asked for, lower case | NUL | text before " SIGNATURE"

so that no list serves for another network or name, and an old one only until it expires or a newer one was seen. A long
list is several such texts with one SEQUENCE, each in its own TXT record.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from obscura.errors import AddressError, UserError
from obscura.limits import SEED_DAYS, SEED_TEXT_BYTES, SEED_TEXT_MOST
from obscura.node.dialable import Ways, check_dialable, face_of
from obscura.wire.address import SCHEME, Address, CarrierNumber

MARK = "obscura-seeds/1"
_DOMAIN = b"obscura seed list/1\0"
_SIGNATURE_CHARACTERS = 86
_STRING_BYTES = 255  # of one character-string (RFC 1035, 3.3)
_DAY_S = 86_400
_DIGITS = 19  # of a number in a text
_ALL_WAYS = Ways(onion=True, i2p=True)  # each seed is for those nodes that can reach it


class Refusal(Enum):
    """Why a text is not a list that counts."""

    FOREIGN = "not a list of seeds"  # a TXT record of something else beside ours is no fault
    FORGED = "its signature is not the network's"
    MALFORMED = "signed, but not in the form of a list"
    EXPIRED = "expired"
    OLD = "older than a list seen before"


class SeedList(msgspec.Struct, frozen=True):
    """What one or more texts of the same list say."""

    sequence: int
    expires: int  # unix seconds
    addresses: tuple[Address, ...]


def sign(seeds: SeedList, name: str, network_id: bytes, secret: bytes, unix: int) -> list[str]:
    """The texts of a list. ``UserError`` for addresses and times that a node would not take. ``secret``: 32 bytes."""
    if not unix < seeds.expires <= unix + SEED_DAYS[1] * _DAY_S:
        raise UserError(f"a list of seeds is valid for 1 to {SEED_DAYS[1]} days")
    if len(str(seeds.sequence)) > _DIGITS:
        raise UserError(f"the sequence of a list has at most {_DIGITS} digits")
    if not seeds.addresses:
        raise UserError("a list of seeds names at least one address")
    for address in seeds.addresses:
        if not is_seed(address):
            raise UserError(f"{address}: a seed is an IP address, .onion or .b32.i2p with a channel, since names "
                            "are not looked up")  # fmt: skip
        check_dialable(address, face_of(address), _ALL_WAYS)  # else nodes that take the list are left without a seed
    key = Ed25519PrivateKey.from_private_bytes(secret)
    head = f"{MARK} {seeds.sequence} {seeds.expires}"
    return [_signed(body, name, network_id, key) for body in _bodies(head, seeds.addresses)]


def is_seed(address: Address) -> bool:
    """Whether a seed may be this: reachable without a resolver, through a channel."""
    return address.endpoint is not None and address.carrier is not CarrierNumber.BARE


def verify(text: bytes, name: str, network_id: bytes, public: bytes, unix: int) -> SeedList | Refusal:
    """Read one text. Addresses of a form that this version does not know are left out. ``public``: 32 bytes."""
    mark = f"{MARK} ".encode()
    if not text.startswith(mark):
        return Refusal.FOREIGN
    body, _, signature = text.rpartition(b" ")
    if len(text) > SEED_TEXT_MOST or not _is_signed(body, signature, name, network_id, public):
        return Refusal.FORGED
    words = body.removeprefix(mark).decode("ascii", "replace").split(" ")
    if len(words) < 2 or not all(word.isascii() and word.isdecimal() and len(word) <= _DIGITS for word in words[:2]):
        return Refusal.MALFORMED
    sequence, expires = int(words[0]), int(words[1])
    if expires <= unix:
        return Refusal.EXPIRED
    return SeedList(sequence, expires, tuple(_addresses(words[2:])))


def newest(lists: Iterable[SeedList], least: int) -> SeedList | Refusal:
    """All texts of the highest sequence as one list; ``least`` is the highest sequence that was seen before."""
    found = list(lists)
    highest = max((part.sequence for part in found), default=0)
    if highest < least:
        return Refusal.OLD
    parts = [part for part in found if part.sequence == highest]
    addresses = dict.fromkeys(address for part in parts for address in part.addresses)
    return SeedList(highest, min(part.expires for part in parts), tuple(addresses))


def txt_strings(text: str) -> list[str]:
    """The character-strings of a TXT record; whoever reads it joins them."""
    return [text[at : at + _STRING_BYTES] for at in range(0, len(text), _STRING_BYTES)]


def zone_line(name: str, ttl_s: int, text: str) -> str:
    """The record in the form of a zone file (RFC 1035, 5.1). Nothing in a text needs escaping."""
    return f"{name}. {ttl_s} IN TXT " + " ".join(f'"{part}"' for part in txt_strings(text))


def _bodies(head: str, addresses: Iterable[Address]) -> Iterator[str]:
    most = SEED_TEXT_BYTES - 1 - _SIGNATURE_CHARACTERS
    body = head
    for address in addresses:
        word = " " + str(address).removeprefix(SCHEME)
        if len(body) + len(word) > most and body != head:
            yield body
            body = head
        body += word
    yield body


def _message(body: bytes, name: str, network_id: bytes) -> bytes:
    return _DOMAIN + network_id + name.encode("ascii") + b"\0" + body


def _signed(body: str, name: str, network_id: bytes, key: Ed25519PrivateKey) -> str:
    signature = key.sign(_message(body.encode("ascii"), name, network_id))
    return f"{body} {urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _is_signed(body: bytes, signature: bytes, name: str, network_id: bytes, public: bytes) -> bool:
    if len(signature) != _SIGNATURE_CHARACTERS:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(urlsafe_b64decode(signature + b"=="), _message(body, name, network_id))
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _addresses(words: Iterable[str]) -> Iterator[Address]:
    for word in words:
        try:
            address = Address.parse(word)
        except AddressError:
            continue
        if is_seed(address):
            yield address
