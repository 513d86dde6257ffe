"""Network messages: version, verack, ping, pong, addr, getaddr (specification, Message Types)."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final, Self

import msgspec

from obscura.errors import DecodeError
from obscura.limits import KEY_BYTES, MAX_ADDR, MAX_ADDR_HOST, MAX_OPENING_PAYLOAD, MAX_USER_AGENT
from obscura.wire.address import HOST_BYTES, Endpoint, Network
from obscura.wire.fields import U8, U16, U16BE, U32, U64, Reader, compact_size
from obscura.wire.message import HASH_BYTES, Hash, Message, Phase, Uint8, Uint16, Uint32, Uint64

_VERSION_HEAD = Struct("<IQII")
_VERSION_TAIL = Struct("<32sQQ")
_MAX_U64 = (1 << 64) - 1
OBSERVED_ADDRESS: Final = 1  # extension: where the sender sees the receiver (design 4)


class Extension(msgspec.Struct, frozen=True, gc=False):
    """One entry of the extension area of ``version``: type u8, length u8, value. Unknown ones are ignored."""

    type: Uint8
    value: bytes

    @classmethod
    def observed(cls, endpoint: Endpoint) -> Self:
        """Where the sender sees the receiver; IPv4 and IPv6 only, else ``ValueError``."""
        if endpoint.network not in (Network.IPV4, Network.IPV6):
            raise ValueError("only clearnet addresses are told to the peer that has them")
        place = U8.pack(endpoint.network) + U16BE.pack(endpoint.port) + endpoint.host
        return cls(OBSERVED_ADDRESS, place)


class Version(Message, frozen=True, gc=False):
    """version: Protocol version and node capabilities (specification, Handshake Message Structure).

    ``timestamp`` is unix time in seconds. ``user_agent`` is UTF-8 of at most 256 bytes and may hold control
    characters: escape it wherever it is shown (``fields.printable``).
    """

    TYPE: ClassVar[str] = "version"
    MAX_SIZE: ClassVar[int] = MAX_OPENING_PAYLOAD  # 70 bytes, the user agent, the rest for extensions
    PHASE: ClassVar[Phase] = Phase.OPENING

    protocol_version: Uint32
    timestamp: Uint64
    feature_flags: Uint32
    privacy_feature_flags: Uint32
    user_agent: str
    best_block_hash: Hash
    best_block_height: Uint64
    nonce: Uint64
    extensions: tuple[Extension, ...] = ()

    @property
    def observed(self) -> Endpoint | None:
        """Where the peer sees us, by its first extension of type 1; ``None`` if that says nothing usable."""
        for extension in self.extensions:
            if extension.type == OBSERVED_ADDRESS:
                value = extension.value
                if value[:1] not in (b"\x01", b"\x02") or len(value) < 3:
                    return None
                return _endpoint(value[0], value[3:], int.from_bytes(value[1:3], "big"))
        return None

    def encode(self) -> bytes:
        agent = self.user_agent.encode()
        if len(agent) > MAX_USER_AGENT:
            raise ValueError(f"a user agent has at most {MAX_USER_AGENT} bytes")
        if len(self.best_block_hash) != HASH_BYTES:
            raise ValueError(f"a block hash has {HASH_BYTES} bytes")
        parts = [
            _VERSION_HEAD.pack(self.protocol_version, self.timestamp, self.feature_flags, self.privacy_feature_flags),
            U16.pack(len(agent)),
            agent,
            _VERSION_TAIL.pack(self.best_block_hash, self.best_block_height, self.nonce),
        ]
        for extension in self.extensions:
            parts += (U8.pack(extension.type), U8.pack(len(extension.value)), extension.value)
        return b"".join(parts)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        version, timestamp, features, privacy = _VERSION_HEAD.unpack(reader.take(_VERSION_HEAD.size))
        agent_size = reader.u16()
        if agent_size > MAX_USER_AGENT:
            raise DecodeError(f"user agent of {agent_size} bytes, over its limit of {MAX_USER_AGENT}")
        try:
            agent = reader.take(agent_size).decode()
        except UnicodeDecodeError as error:
            raise DecodeError("the user agent is not UTF-8") from error
        best_hash, height, nonce = _VERSION_TAIL.unpack(reader.take(_VERSION_TAIL.size))
        extensions = []
        while reader.left:
            kind, size = reader.u8(), reader.u8()
            extensions.append(Extension(kind, reader.take(size)))
        return cls(version, timestamp, features, privacy, agent, best_hash, height, nonce, tuple(extensions))


class Verack(Message, frozen=True, gc=False):
    """verack: Version acknowledgment (specification, Network Messages)."""

    TYPE: ClassVar[str] = "verack"
    MAX_SIZE: ClassVar[int] = 0
    PHASE: ClassVar[Phase] = Phase.OPENING


class _Nonce(Message, frozen=True, gc=False):
    MAX_SIZE: ClassVar[int] = U64.size

    nonce: Uint64

    def encode(self) -> bytes:
        return U64.pack(self.nonce)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        if len(payload) != U64.size:
            raise DecodeError(f"{U64.size} bytes wanted, {len(payload)} there")
        return cls(*U64.unpack(payload))


class Ping(_Nonce, frozen=True, gc=False):
    """ping/pong: Node liveness check (specification, Network Messages). The answer carries the same nonce."""

    TYPE: ClassVar[str] = "ping"


class Pong(_Nonce, frozen=True, gc=False):
    """ping/pong: Node liveness check (specification, Network Messages)."""

    TYPE: ClassVar[str] = "pong"


class AddrEntry(msgspec.Struct, frozen=True, gc=False):
    """One address of ``addr``: the fields of BIP155, then the carrier and the channel key.

    ``network`` and ``carrier`` are the numbers of the wire and may be unknown ones; ``host`` is raw.
    ``services`` is the feature word of the node; ``time`` is when it was last seen, unix time in seconds.
    """

    time: Uint32
    services: Uint64
    network: Uint8
    host: bytes
    port: Uint16
    carrier: Uint8
    key: bytes | None

    @property
    def endpoint(self) -> Endpoint | None:
        """The place; ``None`` for what is to be ignored: unknown networks, IPv6 that stands for others."""
        return _endpoint(self.network, self.host, self.port)

    def encode(self) -> bytes:
        wanted = HOST_BYTES.get(self.network)
        if len(self.host) > MAX_ADDR_HOST or (wanted is not None and len(self.host) != wanted):
            raise ValueError(f"a host of network {self.network} has not {len(self.host)} bytes")
        if self.key is not None and len(self.key) != KEY_BYTES:
            raise ValueError(f"a channel key has {KEY_BYTES} bytes")
        if not 0 <= self.services <= _MAX_U64:
            raise ValueError("services is a u64")
        key = self.key or b""
        return b"".join(
            (
                U32.pack(self.time),
                compact_size(self.services),
                U8.pack(self.network),
                compact_size(len(self.host)),
                self.host,
                U16BE.pack(self.port),
                U8.pack(self.carrier),
                U8.pack(len(key)),
                key,
            )
        )

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        time, services, network = reader.u32(), reader.compact_size(_MAX_U64), reader.u8()
        host_size = reader.compact_size(MAX_ADDR_HOST)
        wanted = HOST_BYTES.get(network)
        if wanted is not None and host_size != wanted:
            raise DecodeError(f"an address of network {network} with {host_size} bytes")
        host, port, carrier, key_size = reader.take(host_size), reader.u16_be(), reader.u8(), reader.u8()
        if key_size not in (0, KEY_BYTES):
            raise DecodeError(f"a channel key of {key_size} bytes")
        return cls(time, services, network, host, port, carrier, reader.take(key_size) if key_size else None)


class Addr(Message, frozen=True, gc=False):
    """addr: Peer address sharing (specification, Network Messages)."""

    TYPE: ClassVar[str] = "addr"
    LEAST_ENTRY: ClassVar[int] = 4 + 1 + 1 + 1 + 2 + 1 + 1
    MAX_SIZE: ClassVar[int] = 3 + MAX_ADDR * (4 + 9 + 1 + 3 + MAX_ADDR_HOST + 2 + 1 + 1 + KEY_BYTES)

    entries: tuple[AddrEntry, ...]

    def encode(self) -> bytes:
        if len(self.entries) > MAX_ADDR:
            raise ValueError(f"at most {MAX_ADDR} entries")
        return compact_size(len(self.entries)) + b"".join(entry.encode() for entry in self.entries)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        reader = Reader(payload)
        count = reader.count(MAX_ADDR, cls.LEAST_ENTRY)
        entries = tuple(AddrEntry.decode(reader) for _ in range(count))
        reader.finish()
        return cls(entries)


class GetAddr(Message, frozen=True, gc=False):
    """getaddr: Request peer addresses (specification, Network Messages)."""

    TYPE: ClassVar[str] = "getaddr"
    MAX_SIZE: ClassVar[int] = 0


def _endpoint(network: int, host: bytes, port: int) -> Endpoint | None:
    try:
        return Endpoint(Network(network), host, port)
    except ValueError:
        return None
