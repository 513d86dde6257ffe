"""Key agreement: the Noise Protocol Framework, revision 34, patterns NK, NX and NXpsk0, 25519, ChaChaPoly,
SHA256 (design 6).

Differences from the framework: how an ephemeral key is written (``Encoding``), and that a flight may hold
several payloads, each one EncryptAndHash. Every failure, of a tag or of an exchange, is a ``ChannelFault``;
after one the object must be dropped.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from obscura.channel.uniform import Ephemeral, StaticKey, agree, public_of
from obscura.errors import ChannelFault
from obscura.limits import KEY_BYTES, TAG_BYTES

NONCE: Final = Struct("<IQ")  # four zero bytes, then the counter (Noise 12.3)
_REKEY_NONCE: Final = NONCE.pack(0, (1 << 64) - 1)


def rekeyed(key: bytes) -> bytes:
    """Noise REKEY(k): the first 32 bytes of sealing 32 zeros under nonce 2^64-1 with no associated data."""
    return ChaCha20Poly1305(key).encrypt(_REKEY_NONCE, bytes(KEY_BYTES), None)[:KEY_BYTES]


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise HKDF: two or three outputs of 32 bytes."""
    secret = hmac.digest(chaining_key, material, "sha256")
    out: list[bytes] = []
    block = b""
    for index in range(1, outputs + 1):
        block = hmac.digest(secret, block + bytes((index,)), "sha256")
        out.append(block)
    return out


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an ephemeral public key is written: the suffix of the pattern's name, and bytes on the wire ->
    X25519 public key.
    """

    suffix: str
    public_of: Callable[[bytes], bytes]


PLAIN: Final = Encoding("", bytes)  # the framework's own; only the published vectors use it
ELLIGATOR: Final = Encoding("elg2", public_of)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A handshake pattern of two messages. ``known``: the initiator has the responder's static key before
    the first.
    """

    name: str
    known: bool
    messages: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def has_psk(self) -> bool:
        """Whether a pre-shared key is mixed in."""
        return "psk" in self.messages[0]

    @property
    def answer_bytes(self) -> int:
        """Bytes that the tokens of the second message take."""
        return KEY_BYTES + (KEY_BYTES + TAG_BYTES if "s" in self.messages[1] else 0)


NK: Final = Pattern("NK", True, (("e", "es"), ("e", "ee")))
NX: Final = Pattern("NX", False, (("e",), ("e", "ee", "s", "es")))
NXPSK0: Final = Pattern("NXpsk0", False, (("psk", "e"), ("e", "ee", "s", "es")))


class CipherState:
    """Noise CipherState: a key (or none yet) and a counter."""

    __slots__ = ("_cipher", "_counter")

    def __init__(self, key: bytes | None = None) -> None:
        self._cipher = None if key is None else ChaCha20Poly1305(key)
        self._counter = 0

    def _nonce(self) -> bytes:
        nonce = NONCE.pack(0, self._counter)
        self._counter += 1
        return nonce

    def seal(self, data: bytes, associated_data: bytes = b"") -> bytes:
        """EncryptWithAd: ``TAG_BYTES`` longer, or unchanged while there is no key."""
        return data if self._cipher is None else self._cipher.encrypt(self._nonce(), data, associated_data)

    def open(self, data: bytes, associated_data: bytes = b"") -> bytes:
        """DecryptWithAd. ``ChannelFault`` if the tag is wrong or missing."""
        if self._cipher is None:
            return data
        try:
            return self._cipher.decrypt(self._nonce(), data, associated_data)
        except InvalidTag:
            raise ChannelFault("wrong tag in a flight") from None


class SymmetricState:
    """Noise SymmetricState: chaining key ``ck``, running hash ``h``, and the cipher of the moment."""

    __slots__ = ("_cipher", "ck", "h")

    def __init__(self, protocol_name: str) -> None:
        name = protocol_name.encode("ascii")
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else sha256(name).digest()
        self.ck = self.h
        self._cipher = CipherState()

    def mix_hash(self, data: bytes) -> None:
        """MixHash (Noise, revision 34, 5.2)."""
        self.h = sha256(self.h + data).digest()

    def mix_key(self, material: bytes) -> None:
        """MixKey."""
        self.ck, key = hkdf(self.ck, material, 2)
        self._cipher = CipherState(key)

    def mix_key_and_hash(self, material: bytes) -> None:
        """MixKeyAndHash."""
        self.ck, mixed, key = hkdf(self.ck, material, 3)
        self.mix_hash(mixed)
        self._cipher = CipherState(key)

    def seal(self, data: bytes) -> bytes:
        """EncryptAndHash."""
        sealed = self._cipher.seal(data, self.h)
        self.mix_hash(sealed)
        return sealed

    def open(self, data: bytes) -> bytes:
        """DecryptAndHash. ``ChannelFault`` if the tag is wrong; ``h`` is as before then."""
        opened = self._cipher.open(data, self.h)
        self.mix_hash(data)
        return opened

    def split(self) -> tuple[bytes, bytes]:
        """The 32-byte keys of initiator to responder, and of responder to initiator."""
        first, second = hkdf(self.ck, b"", 2)
        return first, second


class Handshake(SymmetricState):
    """Noise HandshakeState of one side. The tokens of the next message are written or read in turn,
    payloads by ``seal``/``open``.

    ``static`` is the responder's own pair; ``responder_key`` what the initiator knows of it, or has learnt
    from token ``s``.
    """

    __slots__ = (
        "_encoding",
        "_ephemeral",
        "_messages",
        "_psk",
        "_remote",
        "_static",
        "responder_key",
    )

    def __init__(
        self,
        pattern: Pattern,
        prologue: bytes,
        *,
        static: StaticKey | None = None,
        responder_key: bytes | None = None,
        psk: bytes | None = None,
        encoding: Encoding = ELLIGATOR,
    ) -> None:
        """A responder has ``static``, an initiator has not; the initiator of a pattern with ``known`` has
        ``responder_key``.
        """
        super().__init__(f"Noise_{pattern.name}{encoding.suffix}_25519_ChaChaPoly_SHA256")
        if pattern.has_psk != (psk is not None):
            raise ValueError("a psk belongs to NXpsk0 and to nothing else")
        self._encoding = encoding
        self._static = static
        self._psk = psk
        self._ephemeral: Ephemeral | None = None
        self._remote = b""  # the other side's ephemeral public key, decoded
        self._messages = iter(pattern.messages)
        self.responder_key = static.public if static is not None else responder_key
        self.mix_hash(prologue)
        if pattern.known:
            if self.responder_key is None:
                raise ValueError("NK needs the responder's key")
            self.mix_hash(self.responder_key)

    def write(self, ephemeral: Ephemeral) -> bytes:
        """The bytes of the tokens of the next message, which is ours."""
        self._ephemeral = ephemeral
        out = b""
        for token in next(self._messages):
            if token == "e":
                self._mix_ephemeral(ephemeral.representative)
                out += ephemeral.representative
            elif token == "s":
                assert self._static is not None  # only responders send s in these patterns
                out += self.seal(self._static.public)
            else:
                self._mix_secret(token)
        return out

    def read(self, tokens: bytes) -> None:
        """Take the other side's next message: exactly the bytes of its tokens. ``ChannelFault`` for a bad
        tag or key.
        """
        for token in next(self._messages):
            if token == "e":
                wire, tokens = tokens[:KEY_BYTES], tokens[KEY_BYTES:]
                self._mix_ephemeral(wire)
                self._remote = self._encoding.public_of(wire)
            elif token == "s":
                self.responder_key = self.open(tokens)
            else:
                self._mix_secret(token)

    def _mix_ephemeral(self, wire: bytes) -> None:
        self.mix_hash(wire)
        if self._psk is not None:
            self.mix_key(wire)  # Noise 9.2: with a psk, every e is mixed into the key as well

    def _mix_secret(self, token: str) -> None:
        """Tokens psk, ee and es."""
        if token == "psk":
            assert self._psk is not None
            self.mix_key_and_hash(self._psk)
        elif token == "es" and self._static is not None:
            self.mix_key(agree(self._static.private, self._remote))
        else:
            assert self._ephemeral is not None
            public = self._remote if token == "ee" else self.responder_key
            assert public is not None  # known from the start, or read as token s before es
            self.mix_key(agree(self._ephemeral.private, public))
