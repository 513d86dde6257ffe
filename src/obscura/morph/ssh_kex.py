"""Key exchange: every method of our lists, for both roles (RFC 4253 7 and 8; RFC 4419; RFC 5656; RFC 8268; RFC 8731).

The Diffie-Hellman groups are for strangers who choose them; our own ends take Curve25519. The library gives finite fields up,
and a private number here serves one outer session once, so they are Python's own modular power.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from functools import cache
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from obscura.morph.ssh_packet import Broken, Fields, mpint, string, u32

Group = tuple[int, int, int]  # bits, generator, prime
_GEX_BITS: Final = (2_048, 8_192)  # DH_GRP_MIN and DH_GRP_MAX of OpenSSH
_GEX_WISH: Final = (2_048, 8_192, 8_192)  # what OpenSSH's client asks for under a 256-bit cipher
_GEX_REPLY: Final = 33
# bits of a Diffie-Hellman exponent: as strong as Curve25519, which our own ends take. Security: strangers choose group 18, where
# each costs the loop a quarter of a millisecond.
_PRIVATE_BITS: Final = 256


@cache
def _scaled_pi(bits: int) -> int:
    """Pi times 2^bits, rounded down (Machin's formula)."""
    one = 1 << (bits + 64)

    def arctan_of_inverse(x: int) -> int:
        term = total = one // x
        divisor, sign = 1, 1
        while term:
            term //= x * x
            divisor += 2
            sign = -sign
            total += sign * (term // divisor)
        return total

    return (16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)) >> 64


@cache
def modp_group(number: int) -> Group:
    """Group 14, 16 or 18 by its definition in RFC 3526: a formula over the digits of pi."""
    bits, offset = {14: (2_048, 124_476), 16: (4_096, 240_904), 18: (8_192, 4_743_158)}[number]
    prime = (1 << bits) - (1 << (bits - 64)) - 1 + ((_scaled_pi(bits - 130) + offset) << 64)
    return bits, 2, prime


def parse_moduli(text: str) -> tuple[Group, ...]:
    """The groups of a file as of moduli(5), which sshd reads: only safe primes that were tested. Bad lines are left out."""
    groups = []
    for line in text.splitlines():
        columns = line.split()
        if len(columns) != 7 or line.startswith("#"):
            continue
        try:
            kind, tests, _tries, size, generator = (int(column) for column in columns[1:6])
            prime = int(columns[6], 16)
        except ValueError:
            continue
        if kind == 2 and tests & ~1 and prime.bit_length() == size + 1 and 1 < generator < prime:
            groups.append((size + 1, generator, prime))
    return tuple(groups)


def choose_group(least: int, wanted: int, most: int, groups: tuple[Group, ...], rng: random.Random) -> Group:
    """sshd's choice: one of the smallest that are large enough, else of the largest; its fixed groups without a file."""
    fitting = [group for group in groups if least <= group[0] <= most]
    if not fitting:
        return modp_group(14 if most < 3_072 else 16 if most < 6_144 else 18)
    enough = [group[0] for group in fitting if group[0] >= wanted]
    size = min(enough) if enough else max(group[0] for group in fitting)
    return rng.choice([group for group in fitting if group[0] == size])


class Agreement(ABC):
    """One side's half. ``own`` is its public value as the field that goes into the message and into the hash."""

    own: bytes

    @abstractmethod
    def agree(self, fields: Fields) -> tuple[bytes, int]:
        """The peer's public value, read from its message, as such a field too, and the shared secret. Raises ``Broken``."""


class _X25519(Agreement):
    def __init__(self, rng: random.Random) -> None:
        self._private = X25519PrivateKey.from_private_bytes(rng.randbytes(32))
        self.own = string(self._private.public_key().public_bytes_raw())

    def agree(self, fields: Fields) -> tuple[bytes, int]:
        theirs = fields.string()
        try:
            secret = self._private.exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError:
            raise Broken("not a Curve25519 key") from None
        return string(theirs), int.from_bytes(secret, "big")


class _Ecdh(Agreement):
    def __init__(self, curve: ec.EllipticCurve, rng: random.Random) -> None:
        self._curve = curve
        self._private = ec.derive_private_key(rng.getrandbits(curve.key_size - 8) | 1, curve)  # below any curve's order
        public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.own = string(public)

    def agree(self, fields: Fields) -> tuple[bytes, int]:
        theirs = fields.string()
        try:
            secret = self._private.exchange(
                ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self._curve, theirs)
            )
        except ValueError:
            raise Broken("not a point of the curve") from None
        return string(theirs), int.from_bytes(secret, "big")


class _Modp(Agreement):
    def __init__(self, group: Group, rng: random.Random) -> None:
        _, generator, self._prime = group
        self._exponent = rng.getrandbits(_PRIVATE_BITS) | 1 << (_PRIVATE_BITS - 1)
        self.own = mpint(pow(generator, self._exponent, self._prime))

    def agree(self, fields: Fields) -> tuple[bytes, int]:
        theirs = fields.mpint()
        if not 1 < theirs < self._prime - 1:
            raise Broken("not a public value of the group")
        return mpint(theirs), pow(theirs, self._exponent, self._prime)


class Method(NamedTuple):
    """A key exchange: its hash, and its group: a curve's or a number of RFC 3526; None = the server chooses (RFC 4419)."""

    digest: str
    group: ec.EllipticCurve | int | str | None


METHODS: Final[dict[str, Method]] = {
    "curve25519-sha256": Method("sha256", "x25519"),
    "curve25519-sha256@libssh.org": Method("sha256", "x25519"),
    "ecdh-sha2-nistp256": Method("sha256", ec.SECP256R1()),
    "ecdh-sha2-nistp384": Method("sha384", ec.SECP384R1()),
    "ecdh-sha2-nistp521": Method("sha512", ec.SECP521R1()),
    "diffie-hellman-group-exchange-sha256": Method("sha256", None),
    "diffie-hellman-group16-sha512": Method("sha512", 16),
    "diffie-hellman-group18-sha512": Method("sha512", 18),
    "diffie-hellman-group14-sha256": Method("sha256", 14),
}


def _agreement(method: Method, rng: random.Random) -> Agreement:
    if isinstance(method.group, ec.EllipticCurve):
        return _Ecdh(method.group, rng)
    if isinstance(method.group, int):
        return _Modp(modp_group(method.group), rng)
    return _X25519(rng)


class Outcome(NamedTuple):
    """An exchange that is done: the secret, and what the exchange hash has behind the host key. ``rest`` is read on from the
    server's message (its signature) by the client.
    """

    secret: int
    hashed: bytes


class ServerExchange:
    """The server's steps. ``receive`` gives what to answer, or the outcome with the own public field."""

    def __init__(self, name: str, groups: tuple[Group, ...], rng: random.Random) -> None:
        self.method = METHODS[name]
        self._groups = groups
        self._rng = rng
        self._chosen = b""  # what the hash has of a group that was agreed on first
        self._agreement = None if self.method.group is None else _agreement(self.method, rng)

    @property
    def reply_kind(self) -> int:
        """The number of the message with the signature."""
        return _GEX_REPLY if self.method.group is None else 31

    def receive(self, kind: int, fields: Fields) -> bytes | tuple[Outcome, bytes]:
        """Raises ``Broken``; ``LookupError`` for a message that does not belong here, which is answered by UNIMPLEMENTED."""
        if self._agreement is None and kind == 34:
            return self._choose(fields)
        if self._agreement is None or kind != (32 if self._chosen else 30):
            raise LookupError(kind)
        theirs, secret = self._agreement.agree(fields)
        fields.finish()
        own = self._agreement.own
        return Outcome(secret, self._chosen + theirs + own), own

    def _choose(self, fields: Fields) -> bytes:
        least, wanted, most = fields.u32(), fields.u32(), fields.u32()
        fields.finish()
        if most < least or wanted < least or most < wanted or least > _GEX_BITS[1] or most < _GEX_BITS[0]:
            raise Broken("no such group")
        low, high = max(least, _GEX_BITS[0]), min(most, _GEX_BITS[1])
        group = choose_group(low, min(max(wanted, low), high), high, self._groups, self._rng)
        self._agreement = _Modp(group, self._rng)
        terms = mpint(group[2]) + mpint(group[1])
        self._chosen = u32(least) + u32(wanted) + u32(most) + terms
        return b"\x1f" + terms


class ClientExchange:
    """The client's steps. ``start`` is its first message."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.method = METHODS[name]
        self._rng = rng
        self._chosen = b""
        self._agreement = None if self.method.group is None else _agreement(self.method, rng)

    def start(self) -> bytes:
        """The payload that opens the exchange."""
        if self._agreement is None:
            return b"\x22" + b"".join(u32(bits) for bits in _GEX_WISH)
        return b"\x1e" + self._agreement.own

    def receive(self, kind: int, fields: Fields) -> bytes | tuple[Outcome, bytes]:
        """What to send next, or the outcome with the server's host key; its signature is left in ``fields``."""
        if self._agreement is None and kind == 31:
            prime, generator = fields.mpint(), fields.mpint()
            if not _GEX_BITS[0] <= prime.bit_length() <= _GEX_BITS[1] or not 1 < generator < prime - 1 or not prime & 1:
                raise Broken("a group that nobody offers")
            self._agreement = _Modp((prime.bit_length(), generator, prime), self._rng)
            self._chosen = b"".join(u32(bits) for bits in _GEX_WISH) + mpint(prime) + mpint(generator)
            return b"\x20" + self._agreement.own
        if self._agreement is None or kind != (_GEX_REPLY if self._chosen else 31):
            raise LookupError(kind)
        host_key = fields.string()
        theirs, secret = self._agreement.agree(fields)
        return Outcome(secret, self._chosen + self._agreement.own + theirs), host_key


def derive(digest: str, secret: int, exchange_hash: bytes, session_id: bytes, letter: int, size: int) -> bytes:
    """A key (RFC 4253, 7.2). ``letter``: 0 = A to 5 = F."""
    start = mpint(secret) + exchange_hash
    key = hashlib.new(digest, start + bytes((0x41 + letter,)) + session_id).digest()
    while len(key) < size:
        key += hashlib.new(digest, start + key).digest()
    return key[:size]
