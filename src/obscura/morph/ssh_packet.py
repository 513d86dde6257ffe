"""SSH's fields and its binary packet protocol under every cipher that we negotiate (RFC 4251 5; RFC 4253 6; RFC 4344; RFC 5647;
OpenSSH's PROTOCOL and PROTOCOL.chacha20poly1305).

packet = length u32 | padding length u8 | payload | padding, sealed as a whole or with its length apart.
"""

from __future__ import annotations

import hmac
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as Context
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.poly1305 import Poly1305

from obscura.errors import Violation
from obscura.limits import SSH_BANNER_BYTES, SSH_PACKET_BYTES, SSH_READ_BYTES
from obscura.morph.ssh_mac import MACS, Mac

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_SEQUENCES: Final = 0xFFFFFFFF
_ZEROS: Final = bytes(64)
_STRANGE: Final = re.compile(rb"\0|\r[^\n]")  # in a line
_KINDS: Final = (1, 192)  # message numbers; those above are for local extensions (RFC 4250, 4.1.2)


class Broken(Violation):
    """The peer broke SSH. ``said``: the text of the DISCONNECT that arrives from OpenSSH then; None = it closes without a word,
    since most of its texts are never flushed.
    """

    def __init__(self, why: str, said: str | None = None) -> None:
        super().__init__(why)
        self.said = said


# --- Fields (RFC 4251, 5) -------------------------------------------------------------------------------------------------


def u32(value: int) -> bytes:
    """A ``uint32``."""
    return _U32.pack(value)


def string(value: bytes | str) -> bytes:
    """A ``string``, or the encoding of a ``name-list``."""
    data = value.encode() if isinstance(value, str) else value
    return _U32.pack(len(data)) + data


def mpint(value: int) -> bytes:
    """A non-negative ``mpint``."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


class Fields:
    """Reads a payload, consuming. Reading past the end raises ``Broken``, as OpenSSH ends such a connection silently."""

    __slots__ = ("_at", "_data")

    def __init__(self, payload: bytes | memoryview, at: int = 1) -> None:
        """``at`` = 1 skips the message number."""
        self._data = memoryview(payload)
        self._at = at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise Broken("incomplete message")
        piece = bytes(self._data[self._at : end])
        self._at = end
        return piece

    def flag(self) -> bool:
        """A ``boolean``."""
        return self.take(1) != b"\0"

    def u32(self) -> int:
        """A ``uint32``."""
        return int(_U32.unpack(self.take(4))[0])

    def string(self) -> bytes:
        """A ``string``; bounded by the packet, hence by ``SSH_PACKET_BYTES``."""
        return self.take(self.u32())

    def chars(self) -> bytes:
        """A ``string`` that OpenSSH takes as C's: a NUL may only end it."""
        data = self.string()
        if b"\0" in data[:-1]:
            raise Broken("a NUL inside a string")
        return data.removesuffix(b"\0")

    def text(self) -> str:
        """A ``string`` that names something; what is no ASCII matches no name."""
        return self.chars().decode("ascii", "replace")

    def names(self) -> list[str]:
        """A ``name-list``."""
        text = self.text()
        return text.split(",") if text else []

    def mpint(self) -> int:
        """An ``mpint``; a negative one or one over 16,384 bits is a fault, as in OpenSSH."""
        data = self.string()
        if len(data) > 2_049 or (data and data[0] & 0x80):
            raise Broken("a number that is negative or too large")
        return int.from_bytes(data, "big")

    def finish(self) -> None:
        """Nothing may be left over."""
        if self._at != len(self._data):
            raise Broken("more than the message holds")


# --- Ciphers ----------------------------------------------------------------------------------------------------------------


class Cipher(ABC):
    """One direction under one set of keys.

    ``block``: what sizes are a multiple of. ``tag``: bytes behind the packet. ``apart``: the length field is not counted in that
    multiple. ``head``: bytes that must be there before ``length`` is asked.
    """

    block = 8
    tag = 0
    apart = True
    head = 4

    @abstractmethod
    def seal(self, sequence: int, packet: bytes) -> bytes:
        """The packet, length field included, as it goes out."""

    @abstractmethod
    def length(self, sequence: int, head: bytes) -> int:
        """The length field of the packet that starts with ``head``; asked once per packet."""

    @abstractmethod
    def open(self, sequence: int, sealed: memoryview) -> bytes:
        """What the length field counts of a whole packet with its tag. Raises ``Broken``."""


class Clear(Cipher):
    """Before the first keys."""

    apart = False
    head = 8  # as sshd, which looks at nothing before there is a block

    def seal(self, sequence: int, packet: bytes) -> bytes:
        return packet

    def length(self, sequence: int, head: bytes) -> int:
        return int(_U32.unpack(head[:4])[0])

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        return bytes(sealed[4:])


class ChaChaPoly(Cipher):
    """``chacha20-poly1305@openssh.com``: the length under one key, the rest under another, both by the sequence number."""

    tag = 16

    def __init__(self, key: bytes) -> None:
        start = bytes(16)
        self._main = Context(ChaCha20(key[:32], start), None).encryptor()
        self._header = Context(ChaCha20(key[32:], start), None).encryptor()

    def _tag_key(self, sequence: int) -> bytes:
        """Block 0 of the main key; the payload follows from block 1."""
        self._main.reset_nonce(bytes(8) + _U64.pack(sequence))
        return self._main.update(_ZEROS)[:32]

    def seal(self, sequence: int, packet: bytes) -> bytes:
        key = self._tag_key(sequence)
        self._header.reset_nonce(bytes(8) + _U64.pack(sequence))
        sealed = self._header.update(packet[:4]) + self._main.update(memoryview(packet)[4:])
        return sealed + Poly1305.generate_tag(key, sealed)

    def length(self, sequence: int, head: bytes) -> int:
        self._header.reset_nonce(bytes(8) + _U64.pack(sequence))
        return int(_U32.unpack(self._header.update(head))[0])

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        key = self._tag_key(sequence)
        try:
            Poly1305.verify_tag(key, sealed[:-16], bytes(sealed[-16:]))
        except InvalidSignature:
            raise Broken("message authentication code incorrect") from None
        return self._main.update(sealed[4:-16])


class Gcm(Cipher):
    """``aes128-gcm@openssh.com`` and its 256-bit sibling: the length is associated data, the nonce counts packets."""

    block = 16
    tag = 16

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, sequence: int, packet: bytes) -> bytes:
        head = packet[:4]
        return head + self._aead.encrypt(self._nonce(), memoryview(packet)[4:], head)

    def length(self, sequence: int, head: bytes) -> int:
        return int(_U32.unpack(head)[0])

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(), sealed[4:], sealed[:4])
        except InvalidTag:
            raise Broken("message authentication code incorrect") from None


class CtrMac(Cipher):
    """AES-CTR with a MAC, of the ciphertext (``-etm@openssh.com``) or of the plaintext (RFC 4253)."""

    block = 16

    def __init__(self, key: bytes, iv: bytes, mac: Mac, mac_key: bytes) -> None:
        self._context = Context(AES(key), CTR(iv)).encryptor()
        self.tag, self.apart = mac.tag_bytes, mac.of_ciphertext
        self._mac = mac.keyed(mac_key)
        self.head = 4 if self.apart else self.block
        self._first = b""  # opened already, to know the length

    def seal(self, sequence: int, packet: bytes) -> bytes:
        if self.apart:
            sealed = packet[:4] + self._context.update(packet[4:])
            return sealed + self._mac(sequence, sealed)
        return self._context.update(packet) + self._mac(sequence, packet)

    def length(self, sequence: int, head: bytes) -> int:
        if not self.apart:
            self._first = head = self._context.update(head)
        return int(_U32.unpack(head[:4])[0])

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        body, tag = sealed[: -self.tag], bytes(sealed[-self.tag :])
        if not self.apart:
            plain = self._first + self._context.update(body[self.block :])
            if not hmac.compare_digest(self._mac(sequence, plain), tag):
                raise Broken("message authentication code incorrect")
            return plain[4:]
        if not hmac.compare_digest(self._mac(sequence, bytes(body)), tag):
            raise Broken("message authentication code incorrect")
        return self._context.update(body[4:])


CHACHA: Final = "chacha20-poly1305@openssh.com"
_AES_KEY_BYTES: Final = {"aes128-ctr": 16, "aes192-ctr": 24, "aes256-ctr": 32}
_GCM_KEY_BYTES: Final = {"aes128-gcm@openssh.com": 16, "aes256-gcm@openssh.com": 32}
AEAD: Final = frozenset({CHACHA, *_GCM_KEY_BYTES})


def cipher_of(encryption: str, mac: str, key_of: Callable[[int, int], bytes]) -> Cipher:
    """The cipher of a negotiated pair. ``key_of(which, bytes)`` derives 0 = IV, 1 = key, 2 = key of the MAC."""
    if encryption == CHACHA:
        return ChaChaPoly(key_of(1, 64))
    if encryption in _GCM_KEY_BYTES:
        return Gcm(key_of(1, _GCM_KEY_BYTES[encryption]), key_of(0, 12))
    chosen = MACS[mac]
    return CtrMac(key_of(1, _AES_KEY_BYTES[encryption]), key_of(0, 16), chosen, key_of(2, chosen.key_bytes))


# --- Packets ----------------------------------------------------------------------------------------------------------------


class PacketWriter:
    """Frames, pads and seals payloads of one direction."""

    __slots__ = ("_rng", "cipher", "sealed_bytes", "sequence")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.cipher: Cipher = Clear()
        self.sequence = 0
        self.sealed_bytes = 0  # under these keys

    def packet(self, head: bytes, body: bytes | memoryview = b"") -> bytes:
        """The packet of ``head | body``, padded as OpenSSH pads: the least that is allowed, zeros while in the clear."""
        cipher = self.cipher
        size = 1 + len(head) + len(body)
        padding = cipher.block - (size if cipher.apart else size + 4) % cipher.block
        if padding < 4:
            padding += cipher.block
        filling = self._rng.randbytes(padding) if cipher.tag else bytes(padding)
        plain = b"".join((_U32.pack(size + padding), bytes((padding,)), head, body, filling))
        sealed = cipher.seal(self.sequence, plain)
        self.sequence = (self.sequence + 1) & _SEQUENCES
        self.sealed_bytes += len(sealed)
        return sealed


class PacketReader:
    """Cuts the stream of one direction into lines and payloads. Holds what is not complete."""

    __slots__ = ("_at", "_before", "_buffer", "_length", "_read", "cipher", "counts_reads", "opened_bytes", "sequence")

    def __init__(self) -> None:
        self.cipher: Cipher = Clear()
        self.sequence = 0  # of the next packet
        self.opened_bytes = 0  # under these keys
        self._buffer = bytearray()
        self._at = 0
        self._before = 0  # bytes of the stream before the buffer
        self._read = 0  # bytes of the stream that OpenSSH would have read by now
        self.counts_reads = True  # whether anybody will ask
        self._length: int | None = None

    @property
    def held(self) -> int:
        """Bytes received and not taken."""
        return len(self._buffer) - self._at

    @property
    def has_unread(self) -> bool:
        """Whether OpenSSH, which reads bytewise up to the identification and then by 8 KiB as it needs them, would have left a
        part in the socket.
        """
        return self._before + len(self._buffer) > self._read

    def _reads(self, end: int) -> None:
        """It needs the buffer up to ``end``."""
        there = self._before + len(self._buffer)
        while self._read < min(self._before + end, there):
            self._read = min(self._read + SSH_READ_BYTES, there)

    def feed(self, data: bytes | memoryview) -> None:
        """Bytes of the socket."""
        if self._at:
            del self._buffer[: self._at]
            self._before += self._at
            self._at = 0
        self._buffer += data

    def line(self) -> bytes | None:
        """The next line of the identification phase without its end, None if it is not complete. ``Broken`` if it is too long
        or has what no line has (RFC 4253, 4.2, and OpenSSH).
        """
        last = self._at + SSH_BANNER_BYTES + 1
        end = self._buffer.find(b"\n", self._at, last)
        known = bytes(self._buffer[self._at : end if end >= 0 else last])
        strange = _STRANGE.search(known)
        size = strange.end() if strange else len(known) + (end >= 0)
        self._read = self._before + self._at + size
        if strange or (end < 0 and size > SSH_BANNER_BYTES):
            raise Broken("not an identification")
        if end < 0:
            return None
        self._at = end + 1
        return known.removesuffix(b"\r")

    def next(self) -> memoryview | None:
        """The next payload, None if it is not complete. Raises ``Broken``."""
        cipher, start = self.cipher, self._at
        if self._length is None:
            if self.counts_reads:
                self._reads(start + cipher.head)
            if len(self._buffer) - start < cipher.head:
                return None
            self._length = cipher.length(self.sequence, bytes(self._buffer[start : start + cipher.head]))
            counted = self._length if cipher.apart else self._length + 4
            if not 5 <= self._length <= SSH_PACKET_BYTES or counted % cipher.block:
                raise Broken("bad packet length")
        end = start + 4 + self._length + cipher.tag
        if self.counts_reads:
            self._reads(end)
        if len(self._buffer) < end:
            return None
        plain = cipher.open(self.sequence, memoryview(self._buffer)[start:end])
        self._at = end
        self._length = None
        self.sequence = (self.sequence + 1) & _SEQUENCES
        self.opened_bytes += end - start
        padding = plain[0]
        if padding < 4:
            raise Broken("bad padding", f"Corrupted padlen {padding} on input.")
        if padding + 1 >= len(plain):
            raise Broken("no payload")
        if not _KINDS[0] <= plain[1] < _KINDS[1]:
            raise Broken("no message of SSH", f"Invalid ssh2 packet type: {plain[1]}")
        return memoryview(plain)[1 : len(plain) - padding]
