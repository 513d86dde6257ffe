"""docs/protocol.md, Channel: keys, flights, records and the resume secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

import monocypher
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

NAMES = {pattern: f"Noise_{pattern}elg2_25519_ChaChaPoly_SHA256".encode() for pattern in ("NK", "NX", "NXpsk0")}
LEAST_FLIGHT, GREATEST_FLIGHT, GREATEST_CARRIED_FLIGHT = 256, 1280, 4096
EPOCH_S = 600
FIRST_RECORD, LEAST_RECORD, GREATEST_RECORD = 256, 64, 65536
RECORDS_PER_KEY = 4096
REKEY, LAST = 1, 2

Read = Callable[[int], bytes]  # exactly that many bytes of the stream


class ChannelError(Exception):
    """A failure of the channel: nothing more is sent or delivered."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def hkdf(ck: bytes, x: bytes, outputs: int) -> list[bytes]:
    key, blocks = mac(ck, x), [b""]
    for number in range(1, outputs + 1):
        blocks.append(mac(key, blocks[-1] + bytes([number])))
    return blocks[1:]


def nonce(n: int) -> bytes:
    return bytes(4) + n.to_bytes(8, "little")


def unseal(key: bytes, n: int, sealed: bytes, associated_data: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(n), sealed, associated_data)
    except InvalidTag as error:
        raise ChannelError("wrong tag") from error


# Keys


def public_of(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def decoded(representative: bytes) -> bytes:
    """public(R), which reads R without its bits 254 and 255."""
    return bytes(monocypher.elligator_map(representative[:31] + bytes([representative[31] & 0x3F])))


def dh(secret: bytes, public: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ChannelError("32 zero bytes") from error


@dataclass(frozen=True)
class Ephemeral:
    secret: bytes
    representative: bytes

    @classmethod
    def make(cls, seed: bytes | None = None) -> Ephemeral:
        representative, secret = monocypher.elligator_key_pair(seed=seed)
        return cls(bytes(secret), bytes(representative))


# Prologue and key schedule


def network_id(name: str, genesis: bytes = bytes(32)) -> bytes:
    """`genesis`: hash of the genesis header, in the order in which SHA-256 gives it."""
    return sha256(b"obscura network/1\0" + name.encode() + b"\0" + genesis)


@dataclass(frozen=True)
class Place:
    """What both ends know about where they met."""

    network_id: bytes
    listener_kind: int = 1
    carrier: int = 0
    binding: bytes = b""

    @property
    def prologue(self) -> bytes:
        kinds = bytes([self.listener_kind, self.carrier])
        size = len(self.binding).to_bytes(2, "little")
        return b"obscura-channel/1\0" + self.network_id + kinds + size + self.binding

    @property
    def psk(self) -> bytes:
        return sha256(b"obscura nx" + self.network_id + self.binding)


class Schedule:
    """h, ck, k, n of one opening."""

    def __init__(self, pattern: str, place: Place, static_public: bytes = b"") -> None:
        self.pattern = pattern
        self.h = self.ck = sha256(NAMES[pattern])
        self.k, self.n = b"", 0
        self.mix_hash(place.prologue)
        if pattern == "NK":
            self.mix_hash(static_public)
        elif pattern == "NXpsk0":
            self.ck, mixed, self.k = hkdf(self.ck, place.psk, 3)
            self.mix_hash(mixed)

    def mix_hash(self, data: bytes) -> None:
        self.h = sha256(self.h + data)

    def mix_key(self, data: bytes) -> None:
        (self.ck, self.k), self.n = hkdf(self.ck, data, 2), 0

    def mix_representative(self, representative: bytes) -> None:
        self.mix_hash(representative)
        if self.pattern == "NXpsk0":
            self.mix_key(representative)

    def seal(self, data: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.k).encrypt(nonce(self.n), data, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        data = unseal(self.k, self.n, sealed, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return data


@dataclass(frozen=True)
class Opened:
    """What both sides hold after flight 2. `first_associated_data`: of the initiator's record 0."""

    pattern: str
    h: bytes
    ck: bytes
    first_associated_data: bytes = b""

    @property
    def keys(self) -> list[bytes]:
        """k1 seals initiator to responder, k2 responder to initiator."""
        return hkdf(self.ck, b"", 2)

    @property
    def end_mark(self) -> bytes:
        return mac(self.ck, b"obscura/1 end")[:16] if self.pattern == "NX" else b""

    @property
    def resume_secret(self) -> bytes:
        return mac(self.ck, b"obscura/1 resume")


# Flights


def greatest_flight(place: Place) -> int:
    return GREATEST_CARRIED_FLIGHT if place.carrier else GREATEST_FLIGHT


class Initiator:
    """With the responder's `static_public` NK, without NX on plain and NXpsk0 in a carrier.

    `tail`: P1 zeros' number, or with NX the random bytes behind R_i.
    """

    def __init__(
        self, place: Place, e: Ephemeral, tail: int | bytes, *, static_public: bytes = b"", epoch: int = 0
    ) -> None:
        self.place, self.e, self.static_public = place, e, static_public
        self.pattern = "NK" if static_public else "NXpsk0" if place.carrier else "NX"
        self.schedule = noise = Schedule(self.pattern, place, static_public)
        noise.mix_representative(e.representative)
        if isinstance(tail, bytes):
            noise.mix_hash(b"")
            self.flight_1 = e.representative + tail
            return
        if static_public:
            noise.mix_key(dh(e.secret, static_public))
        header = epoch.to_bytes(4, "little") + tail.to_bytes(2, "little") + bytes(2)
        self.flight_1 = e.representative + noise.seal(header) + noise.seal(bytes(tail))

    def read_flight_2(self, read: Read) -> Opened:
        noise = self.schedule
        size = 32
        representative = read(32)
        noise.mix_representative(representative)
        noise.mix_key(dh(self.e.secret, decoded(representative)))
        if self.pattern != "NK":
            size += 48
            self.static_public = noise.open(read(48))
            noise.mix_key(dh(self.e.secret, self.static_public))
        answer = noise.open(read(20))
        padding = int.from_bytes(answer[:2], "little")
        size += 20 + padding + 16
        if size > greatest_flight(self.place) or (not self.place.carrier and size < LEAST_FLIGHT):
            raise ChannelError("length of flight 2")
        noise.open(read(padding + 16))
        return Opened(self.pattern, noise.h, noise.ck, self.flight_1[32:] if self.pattern == "NX" else b"")


class ReplayCache:
    def __init__(self) -> None:
        self.seen: dict[int, set[bytes]] = {}

    def admits(self, epoch: int, representative: bytes, now: int) -> bool:
        self.seen = {known: names for known, names in self.seen.items() if abs(known - now) <= 1}
        names = self.seen.setdefault(epoch, set())
        name = sha256(representative)[:8]
        if name in names or len(names) >= 65536:
            return False
        names.add(name)
        return True


class Responder:
    def __init__(self, place: Place, static_secret: bytes, e: Ephemeral) -> None:
        self.place, self.static_secret, self.e = place, static_secret, e
        self.static_public = public_of(static_secret)

    def read_header(self, pattern: str, start: bytes) -> tuple[Schedule, int, int]:
        """(schedule, epoch, P1) of the first 56 bytes of flight 1 of NK or NXpsk0."""
        noise = Schedule(pattern, self.place, self.static_public)
        noise.mix_representative(start[:32])
        if pattern == "NK":
            noise.mix_key(dh(self.static_secret, decoded(start[:32])))
        header = noise.open(start[32:56])
        return noise, int.from_bytes(header[:4], "little"), int.from_bytes(header[4:6], "little")

    def stranger(self, representative: bytes) -> Schedule:
        """After flight 1 of NX."""
        noise = Schedule("NX", self.place)
        noise.mix_hash(representative)
        noise.mix_hash(b"")
        return noise

    def flight_2(self, noise: Schedule, representative: bytes, padding: int) -> tuple[bytes, Opened]:
        noise.mix_representative(self.e.representative)
        noise.mix_key(dh(self.e.secret, decoded(representative)))
        static = b""
        if noise.pattern != "NK":
            static = noise.seal(self.static_public)
            noise.mix_key(dh(self.static_secret, decoded(representative)))
        answer = noise.seal(padding.to_bytes(2, "little") + bytes(2))
        flight = self.e.representative + static + answer + noise.seal(bytes(padding))
        return flight, Opened(noise.pattern, noise.h, noise.ck)

    def open_on_plain(self, read: Read, write: Callable[[bytes], None], epoch: int, cache: ReplayCache) -> Opened:
        """Read flight 1 and, with NX, up to the end mark. Flight 2 has the least length."""
        start = read(56)
        if (noise := self._nk(start, epoch, cache, read)) is not None:
            flight, opened = self.flight_2(noise, start[:32], LEAST_FLIGHT - 68)
            write(flight)
            return opened
        stream = start + read(LEAST_FLIGHT - 56)
        flight, opened = self.flight_2(self.stranger(stream[:32]), stream[:32], LEAST_FLIGHT - 116)
        write(flight)
        stream += read(16)
        while stream[-16:] != opened.end_mark:
            if len(stream) >= GREATEST_FLIGHT + 16:
                raise ChannelError("no end mark")
            stream += read(1)
        return Opened("NX", opened.h, opened.ck, stream[32:-16])

    def _nk(self, start: bytes, epoch: int, cache: ReplayCache, read: Read) -> Schedule | None:
        try:
            noise, theirs, padding = self.read_header("NK", start)
        except ChannelError:
            return None
        if not LEAST_FLIGHT <= 72 + padding <= GREATEST_FLIGHT or abs(theirs - epoch) > 1:
            return None
        if not cache.admits(theirs, start[:32], epoch):
            return None
        noise.open(read(padding + 16))
        return noise


# Records


def rekeyed(key: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(nonce(2**64 - 1), bytes(32), b"")[:32]


@dataclass(frozen=True)
class Record:
    flags: int
    next_size: int
    frame_bytes: bytes


class Direction:
    """The records of one direction: `seal` at one end, `open` at the other."""

    def __init__(self, key: bytes, first_associated_data: bytes = b"") -> None:
        self.key, self.associated_data = key, first_associated_data
        self.size, self.counter, self.under_key, self.ended = FIRST_RECORD, 0, 0, False

    def seal(self, frame_bytes: bytes, next_size: int, flags: int = 0) -> bytes:
        if self.under_key == RECORDS_PER_KEY - 1:
            flags |= REKEY
        if flags & LAST:
            next_size = LEAST_RECORD
        fields = bytes([flags]) + (next_size - 1).to_bytes(2, "little") + len(frame_bytes).to_bytes(2, "little")
        sealed = self.seal_plaintext(fields + frame_bytes)
        self._advance(flags, next_size)
        return sealed

    def seal_plaintext(self, plaintext: bytes) -> bytes:
        """The next record with any plaintext, filled up with zeros; what it says is not taken up."""
        padded = plaintext.ljust(self.size - 16, b"\0")
        sealed = ChaCha20Poly1305(self.key).encrypt(nonce(self.counter), padded, self.associated_data)
        assert len(sealed) == self.size
        return sealed

    def open(self, sealed: bytes) -> Record:
        plaintext = unseal(self.key, self.counter, sealed, self.associated_data)
        flags = plaintext[0]
        next_size = int.from_bytes(plaintext[1:3], "little") + 1
        used = int.from_bytes(plaintext[3:5], "little")
        if flags & ~(REKEY | LAST):
            raise ChannelError("flags")
        if next_size < LEAST_RECORD and not flags & LAST:
            raise ChannelError("next size")
        if used > self.size - 21:
            raise ChannelError("used")
        if self.under_key == RECORDS_PER_KEY - 1 and not flags:
            raise ChannelError("a worn key")
        self._advance(flags, next_size)
        return Record(flags, next_size, plaintext[5 : 5 + used])

    def _advance(self, flags: int, next_size: int) -> None:
        self.counter, self.under_key = self.counter + 1, self.under_key + 1
        self.size, self.associated_data, self.ended = next_size, b"", bool(flags & LAST)
        if flags & REKEY:
            self.key, self.under_key = rekeyed(self.key), 0


# Resume secret


@dataclass(frozen=True)
class ResumeSecret:
    rs: bytes
    moves: int = 0

    def _mac(self, word: bytes, h_new: bytes = b"") -> bytes:
        return mac(self.rs, word + self.moves.to_bytes(4, "little") + h_new)

    @property
    def id(self) -> bytes:
        return self._mac(b"id")[:16]

    def initiator_mac(self, h_new: bytes) -> bytes:
        return self._mac(b"i", h_new)

    def responder_mac(self, h_new: bytes) -> bytes:
        return self._mac(b"r", h_new)

    def moved(self, h_new: bytes) -> ResumeSecret:
        return ResumeSecret(mac(self.rs, b"next" + h_new), self.moves + 1)
