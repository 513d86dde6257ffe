"""Keys that look like noise: ephemeral keys travel as Elligator2 representatives (design 6, Uniform keys;
elligator.org).

A public key of X25519 is half of all 255-bit strings and, worse, always in the prime-order subgroup:
whoever sees a few of them knows what they are. So an ephemeral private key is used whose public point has a
random low-order part as well ("dirty") and an Elligator2 preimage, and that preimage travels with its two
spare bits filled at random. X25519 clamps the scalar to a multiple of eight, so the low-order part vanishes
in every exchange.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import monocypher
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from obscura.errors import ChannelFault
from obscura.limits import KEY_BYTES


def public_of(representative: bytes) -> bytes:
    """The X25519 public key (32 bytes) of a representative (32 bytes, every value is valid). Bits 254 and
    255 are ignored.
    """
    return bytes(monocypher.elligator_map(representative))


def agree(private: X25519PrivateKey, public: bytes) -> bytes:
    """X25519 (RFC 7748). ``ChannelFault`` if the result is all zero: the other key was 0 or of low order."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ChannelFault("key agreement gave zero") from None


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """A key pair for one link: ``representative`` is the 32 bytes that travel, uniform in all 256 bits."""

    representative: bytes
    private: X25519PrivateKey

    @classmethod
    def generate(cls, rng: Random) -> Ephemeral:
        """A pair made from 32 bytes of ``rng`` (about 150 us)."""
        return cls.from_seed(rng.randbytes(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Ephemeral:
        """The pair of a 32-byte seed, by Monocypher's ``crypto_elligator_key_pair``: dirty, spare bits
        random.
        """
        representative, secret = monocypher.elligator_key_pair(seed=seed)
        return cls(bytes(representative), X25519PrivateKey.from_private_bytes(secret))

    @property
    def public(self) -> bytes:
        """What the other side computes from the representative (32 bytes)."""
        return public_of(self.representative)


@dataclass(frozen=True, slots=True)
class StaticKey:
    """The channel key of one listening address: an ordinary X25519 pair. ``public`` is the KEY of an
    address.
    """

    private: X25519PrivateKey
    public: bytes

    @classmethod
    def from_bytes(cls, secret: bytes) -> StaticKey:
        """The pair of a 32-byte secret as ``secret()`` gave it. ``ValueError`` for another length."""
        private = X25519PrivateKey.from_private_bytes(secret)
        return cls(private, private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, rng: Random) -> StaticKey:
        """A new pair from 32 bytes of ``rng``."""
        return cls.from_bytes(rng.randbytes(KEY_BYTES))

    def secret(self) -> bytes:
        """The 32 secret bytes, for the owner's store."""
        return self.private.private_bytes_raw()
