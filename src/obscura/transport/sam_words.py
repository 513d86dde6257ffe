"""The words of SAM v3, by which a program speaks to an I2P router: text and bytes (geti2p.net: SAM v3, Common structures)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from obscura.limits import DESTINATION_BYTES
from obscura.wire.address import Endpoint, Network

ED25519 = 7  # signature type EdDSA_SHA512_Ed25519
TRANSIENT = "TRANSIENT"
_KEYS_BYTES = 384  # of a destination before its certificate: public key and signing key, padded
_KEY_CERTIFICATE = 5

_PART = re.compile(r'([^\s="]+)(?:=("(?:[^"\\]|\\.)*"|\S*))?')

# What a router's RESULT means to whoever waits for a connection.
RESULTS: dict[str, str] = {
    "CANT_REACH_PEER": "the I2P destination cannot be reached now: it is down, or has just started, or moved",
    "PEER_NOT_FOUND": "the I2P destination cannot be found now: it is down, or the address is mistyped",
    "TIMEOUT": "the I2P destination did not answer in time",
    "KEY_NOT_FOUND": "there is no such I2P destination now: it is down, or the address is mistyped",
    "INVALID_KEY": "the I2P router does not take this destination or key",
    "INVALID_ID": "the I2P router does not know our session any more",
    "DUPLICATED_ID": "another program has a session of this name with the I2P router",
    "DUPLICATED_DEST": "another program uses this node's I2P destination: does a second node run with the same key?",
    "ALREADY_ACCEPTING": "the I2P router lets one program accept at a time",
    "NOVERSION": "the I2P router speaks no SAM version 3",
    "I2P_ERROR": "the I2P router reports an error",
}
# Answers to a lookup that say that nobody is there (i2pd says INVALID_KEY).
ABSENT = frozenset({"KEY_NOT_FOUND", "INVALID_KEY"})


class Destination(NamedTuple):
    """Where streams lead in I2P: public keys and a certificate, 391 bytes for Ed25519."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Of its text in I2P's base64. Raises ``ValueError``."""
        raw = unbase64(text)
        if not DESTINATION_BYTES[0] <= len(raw) <= DESTINATION_BYTES[1] or len(raw) != _length(raw):
            raise ValueError("this is no I2P destination")
        return cls(raw)

    @property
    def text(self) -> str:
        """I2P's base64, as SAM has it."""
        return base64.b64encode(self.raw, altchars=b"-~").decode()

    @property
    def hash(self) -> bytes:
        """SHA-256: what an address holds, 32 bytes."""
        return hashlib.sha256(self.raw).digest()

    @property
    def host(self) -> str:
        """The name that follows from the hash, ``.b32.i2p``."""
        return Endpoint(Network.I2P, self.hash, 0).host_text

    @property
    def is_ed25519(self) -> bool:
        """Whether it signs with Ed25519."""
        certificate = self.raw[_KEYS_BYTES:]
        return certificate[0] == _KEY_CERTIFICATE and int.from_bytes(certificate[3:5], "big") == ED25519


class PrivateDestination(NamedTuple):
    """A destination with its private keys, as the router gives and takes it. Secret."""

    text: str

    @classmethod
    def parse(cls, text: str) -> PrivateDestination:
        """Raises ``ValueError`` for what is no such thing, or signs with something other than Ed25519."""
        if not cls(text).public.is_ed25519:
            raise ValueError("the destination does not sign with Ed25519")
        return cls(text)

    @property
    def public(self) -> Destination:
        """What others may know of it. Raises ``ValueError``."""
        raw = unbase64(self.text)
        length = _length(raw)
        if len(raw) < length + 64:  # a private key and a signing key follow, 32 bytes each at least
            raise ValueError("this is no private I2P destination")
        return Destination.parse(Destination(raw[:length]).text)

    def __repr__(self) -> str:
        return "PrivateDestination(...)"


class Reply(NamedTuple):
    """One line of the router: two words such as ``STREAM STATUS``, then values. What is no such line has no words."""

    words: str
    values: dict[str, str]

    @property
    def result(self) -> str:
        """``OK``, or what is wrong; empty where there is none."""
        return self.values.get("RESULT", "")

    @property
    def why(self) -> str:
        """The fault as a sentence. The router's own words follow where it adds some."""
        known = RESULTS.get(self.result, f"the I2P router answers {self.result[:40]!a}")
        said = self.values.get("MESSAGE", "")
        return f"{known}: {said[:200]!a}" if said else known


def parse_reply(line: str) -> Reply:
    """Any line at all; quoted values are unquoted, of repeated ones the last counts."""
    words: list[str] = []
    values: dict[str, str] = {}
    for name, value in _PART.findall(line):
        if value or f"{name}=" in line:
            values[name] = _unquoted(value)
        elif not values:
            words.append(name)
    return Reply(" ".join(words[:2]), values)


def hello(first: str = "3.0", last: str = "3.3") -> str:
    """The first line of every connection. i2pd 2.45 takes 3.0 of this and can do all that is asked below nevertheless."""
    return f"HELLO VERSION MIN={first} MAX={last}"


def generate() -> str:
    """Ask for a new destination."""
    return f"DEST GENERATE SIGNATURE_TYPE={ED25519}"


def create(name: str, destination: str, options: Mapping[str, object]) -> str:
    """Make a session; ``destination`` is private keys, or ``TRANSIENT``. Raises ``ValueError`` for what is no option."""
    kind = [f"SIGNATURE_TYPE={ED25519}"] if destination == TRANSIENT else []
    chosen = [f"{option}={value}" for option, value in options.items()]
    words = ["SESSION CREATE STYLE=STREAM", f"ID={name}", f"DESTINATION={destination}", *kind, *chosen]
    return _joined(words)


def connect(name: str, destination: Destination) -> str:
    """Open a stream."""
    return f"STREAM CONNECT ID={name} DESTINATION={destination.text} SILENT=false"


def accept(name: str) -> str:
    """Wait for a stream."""
    return f"STREAM ACCEPT ID={name} SILENT=false"


def lookup(name: str) -> str:
    """Ask for the destination behind a name. Raises ``ValueError``."""
    return _joined(["NAMING LOOKUP", f"NAME={name}"])


def session_options(
    *, inbound: tuple[int, int], outbound: tuple[int, int], lease_set: int | None, encryption: Iterable[int]
) -> dict[str, object]:
    """Tunnels as (length, quantity) and what the LeaseSet is; ``lease_set`` None leaves its kind to the router."""
    options: dict[str, object] = {}
    for way, (length, quantity) in (("inbound", inbound), ("outbound", outbound)):
        options[f"{way}.length"] = length
        options[f"{way}.quantity"] = quantity
    kinds = ",".join(str(kind) for kind in encryption)
    if kinds:
        options["i2cp.leaseSetEncType"] = kinds
    if lease_set is not None:
        options["i2cp.leaseSetType"] = lease_set
    return options


def unbase64(text: str) -> bytes:
    """The bytes of I2P's base64. Raises ``ValueError``."""
    try:
        return base64.b64decode(text, altchars=b"-~", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("this is no base64 as I2P writes it") from None


def _length(raw: bytes) -> int:
    """Bytes of the destination at the start of ``raw``. Raises ``ValueError``."""
    if len(raw) < DESTINATION_BYTES[0]:
        raise ValueError("this is too short for an I2P destination")
    return DESTINATION_BYTES[0] + int.from_bytes(raw[_KEYS_BYTES + 1 : _KEYS_BYTES + 3], "big")


def _joined(words: list[str]) -> str:
    for word in words:
        if any(not " " <= letter <= "~" for letter in word) or " " in word.partition("=")[2]:
            raise ValueError("a word of SAM has neither spaces nor control characters")
    return " ".join(words)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
