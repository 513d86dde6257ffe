"""Mappings of a listening port asked of the router: PCP (RFC 6887, MAP for TCP) and NAT-PMP (RFC 6886). No I/O.

PCP is tried first; a router that does not know it, refuses or keeps silent is asked by NAT-PMP. ``PortMapper`` is one listening
port at one router: what to send at ``due``, what an answer means in ``receive``, what to send in the end.
"""

from __future__ import annotations

import hmac
import random
from ipaddress import IPv4Address, IPv6Address
from struct import Struct, error
from typing import Any, Final, NamedTuple

from obscura.errors import DecodeError
from obscura.limits import (
    NATPMP_FIRST_S,
    NATPMP_TRIES,
    PCP_FIRST_S,
    PCP_TRIES,
    PORT_MAPPED_S,
    PORT_MAPPING_AGAIN_S,
    PORT_MAPPING_BYTES,
    PORT_MAPPING_S,
)

NONCE_BYTES: Final = 12
NOWHERE: Final = IPv4Address(0)
_PCP, _NATPMP = 2, 0  # versions, which tell the two protocols apart
_ANSWER = 0x80  # of the operation code
_MAP, _TCP = 1, 6  # PCP's operation code, the protocol's number
_PMP_ADDRESS, _PMP_TCP = 0, 2  # NAT-PMP's operation codes
_PCP_REQUEST, _PCP_ANSWER = Struct(">BBHI16s"), Struct(">BBBBII12x")
_PCP_MAP = Struct(">12sB3xHH16s")
_PMP_REQUEST, _PMP_MAPPED = Struct(">BBHHHI"), Struct(">BBHIHHI")
_PMP_FOUND, _PMP_HEAD = Struct(">BBHI4s"), Struct(">BBHI")


class PcpRequest(NamedTuple):
    """RFC 6887, 7.1 and 11.1. ``lifetime_s`` 0 = remove."""

    client: IPv4Address
    nonce: bytes
    internal_port: int
    external_port: int = 0
    external_host: IPv4Address = NOWHERE
    lifetime_s: int = PORT_MAPPING_S

    def encode(self) -> bytes:
        """60 bytes."""
        head = _PCP_REQUEST.pack(_PCP, _MAP, 0, self.lifetime_s, _mapped(self.client))
        external = _mapped(self.external_host)
        return head + _PCP_MAP.pack(self.nonce, _TCP, self.internal_port, self.external_port, external)

    @classmethod
    def decode(cls, data: bytes) -> PcpRequest:
        """Raises ``DecodeError``; reserved bytes and options are passed over."""
        version, operation, _, lifetime_s, client = _unpack(_PCP_REQUEST, data)
        nonce, protocol, internal, external, host = _unpack(_PCP_MAP, data[_PCP_REQUEST.size :])
        if (version, operation, protocol) != (_PCP, _MAP, _TCP):
            raise DecodeError("not PCP's MAP for TCP")
        return cls(_unmapped(client), nonce, internal, external, _unmapped(host), lifetime_s)


class PcpAnswer(NamedTuple):
    """RFC 6887, 7.2 and 11.1. With ``result`` other than 0 ``lifetime_s`` is how long that stays so."""

    result: int
    lifetime_s: int
    epoch_s: int
    nonce: bytes
    internal_port: int
    external_port: int
    external_host: IPv4Address

    def encode(self) -> bytes:
        """60 bytes."""
        head = _PCP_ANSWER.pack(_PCP, _MAP | _ANSWER, 0, self.result, self.lifetime_s, self.epoch_s)
        external = _mapped(self.external_host)
        return head + _PCP_MAP.pack(self.nonce, _TCP, self.internal_port, self.external_port, external)


class PmpAddressRequest(NamedTuple):
    """RFC 6886, 3.2: which address do you have outside?"""

    def encode(self) -> bytes:
        """2 bytes."""
        return bytes((_NATPMP, _PMP_ADDRESS))


class PmpAddressAnswer(NamedTuple):
    """RFC 6886, 3.2."""

    epoch_s: int
    host: IPv4Address

    def encode(self) -> bytes:
        """12 bytes."""
        return _PMP_FOUND.pack(_NATPMP, _PMP_ADDRESS | _ANSWER, 0, self.epoch_s, self.host.packed)


class PmpRequest(NamedTuple):
    """RFC 6886, 3.3: a mapping for TCP. ``lifetime_s`` 0 = remove, with ``external_port`` 0."""

    internal_port: int
    external_port: int = 0
    lifetime_s: int = PORT_MAPPING_S

    def encode(self) -> bytes:
        """12 bytes."""
        return _PMP_REQUEST.pack(_NATPMP, _PMP_TCP, 0, self.internal_port, self.external_port, self.lifetime_s)


class PmpAnswer(NamedTuple):
    """RFC 6886, 3.3."""

    epoch_s: int
    internal_port: int
    external_port: int
    lifetime_s: int

    def encode(self) -> bytes:
        """16 bytes."""
        return _PMP_MAPPED.pack(
            _NATPMP, _PMP_TCP | _ANSWER, 0, self.epoch_s, self.internal_port, self.external_port, self.lifetime_s
        )


class PmpRefusal(NamedTuple):
    """RFC 6886, 3.5; also what a router without PCP answers to it (result 1)."""

    operation: int  # of the request
    result: int
    epoch_s: int

    def encode(self) -> bytes:
        """8 bytes."""
        return _PMP_HEAD.pack(_NATPMP, self.operation | _ANSWER, self.result, self.epoch_s)


Answer = PcpAnswer | PmpAddressAnswer | PmpAnswer | PmpRefusal
Request = PcpRequest | PmpAddressRequest | PmpRequest


def decode_request(data: bytes) -> Request:
    """What a router reads. Raises ``DecodeError``."""
    _check_size(data)
    if data[0] == _PCP:
        return PcpRequest.decode(data)
    if data == PmpAddressRequest().encode():
        return PmpAddressRequest()
    version, operation, _, internal, external, lifetime_s = _unpack(_PMP_REQUEST, data)
    if (version, operation) != (_NATPMP, _PMP_TCP):
        raise DecodeError("neither PCP nor NAT-PMP for TCP")
    return PmpRequest(internal, external, lifetime_s)


def decode_answer(data: bytes) -> Answer:
    """What a node reads. Raises ``DecodeError``; options of PCP are passed over."""
    _check_size(data)
    if not data[1] & _ANSWER:
        raise DecodeError("a request, not an answer")
    operation = data[1] & ~_ANSWER
    if data[0] == _PCP:
        return _pcp_answer(data, operation)
    if data[0] != _NATPMP:
        raise DecodeError("neither PCP nor NAT-PMP")
    _, _, result, epoch_s = _unpack(_PMP_HEAD, data)
    if result:
        return PmpRefusal(operation, result, epoch_s)
    if operation == _PMP_ADDRESS:
        return PmpAddressAnswer(epoch_s, IPv4Address(_unpack(_PMP_FOUND, data)[4]))
    if operation == _PMP_TCP:
        *_, internal, external, lifetime_s = _unpack(_PMP_MAPPED, data)
        return PmpAnswer(epoch_s, internal, external, lifetime_s)
    raise DecodeError("an answer to something that was not asked")


def _pcp_answer(data: bytes, operation: int) -> PcpAnswer:
    _, _, _, result, lifetime_s, epoch_s = _unpack(_PCP_ANSWER, data)
    nonce, protocol, internal, external, host = _unpack(_PCP_MAP, data[_PCP_ANSWER.size :])
    if (operation, protocol) != (_MAP, _TCP) or len(data) % 4:
        raise DecodeError("not an answer to PCP's MAP for TCP")
    return PcpAnswer(result, lifetime_s, epoch_s, nonce, internal, external, _unmapped(host))


def _check_size(data: bytes) -> None:
    if not 2 <= len(data) <= PORT_MAPPING_BYTES:
        raise DecodeError(f"{len(data)} bytes; 2 to {PORT_MAPPING_BYTES} are possible")


def _unpack(form: Struct, data: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack_from(data)
    except error:
        raise DecodeError(f"{form.size} bytes wanted, {len(data)} there") from None


def _mapped(host: IPv4Address) -> bytes:
    return bytes(10) + b"\xff\xff" + host.packed


def _unmapped(host: bytes) -> IPv4Address:
    """Addresses that are none of IPv4 are as good as none: ports of IPv4 alone are asked for."""
    return IPv6Address(host).ipv4_mapped or NOWHERE


class Mapped(NamedTuple):
    """What the router says: reached at ``host:port`` until ``until`` (monotonic seconds)."""

    host: IPv4Address
    port: int
    until: float


class PortMapper:
    """One listening port at one router. Answers come from the router's address alone: its caller sees to that.

    An answer counts if it is one to what was asked last: nonce (PCP), port and operation. Addresses that are not public are
    refused: the router is behind another one then, and nobody outside would reach us there.
    """

    def __init__(self, client: IPv4Address, port: int, rng: random.Random, now: float) -> None:
        """``client``: our own address, as the router sees it."""
        self._client = client
        self._port = port
        self._rng = rng
        self._nonce = rng.randbytes(NONCE_BYTES)
        self._is_pcp = True
        self._tries = 0  # requests without an answer yet; 0 = nothing is asked
        self._at = now  # of the next request
        self._host: IPv4Address | None = None  # NAT-PMP tells address and port apart
        self._answer: PmpAnswer | None = None
        self._is_ending = False
        self.mapped: Mapped | None = None
        self.fault = "the router has not answered yet"

    @property
    def protocol(self) -> str:
        """By which the router is asked."""
        return "PCP" if self._is_pcp else "NAT-PMP"

    @property
    def is_removed(self) -> bool:
        """Whether the router has said that the mapping is gone, or there never was one."""
        return self.mapped is None

    def deadline(self) -> float:
        """When ``due`` has something to do."""
        return min(self._at, self.mapped.until) if self.mapped is not None else self._at

    def due(self, now: float) -> list[bytes]:
        """Datagrams to send now."""
        if self.mapped is not None and now >= self.mapped.until:
            self.mapped, self.fault = None, "the router does not answer any more"
        if now < self._at:
            return []
        first_s, most = (PCP_FIRST_S, PCP_TRIES) if self._is_pcp else (NATPMP_FIRST_S, NATPMP_TRIES)
        if self._tries >= most:
            self._unanswered(now)
            return self.due(now)
        self._at = now + first_s * 2**self._tries * self._rng.uniform(0.9, 1.1)
        self._tries += 1
        return self._requests(PORT_MAPPING_S)

    def receive(self, data: bytes, now: float) -> None:
        """An answer of the router; what is none to our question is passed over."""
        try:
            answer = decode_answer(data)
        except DecodeError:
            return
        if self._is_pcp:
            self._on_pcp(answer, now)
        else:
            self._on_natpmp(answer, now)

    def end(self) -> list[bytes]:
        """What removes the mapping; to be sent again until ``is_removed``."""
        if self.mapped is None:
            return []
        self._is_ending = True
        return self._requests(0)

    def _requests(self, lifetime_s: int) -> list[bytes]:
        had = self.mapped
        host, port = (had.host, had.port) if had is not None and lifetime_s else (NOWHERE, 0)
        if self._is_pcp:
            return [PcpRequest(self._client, self._nonce, self._port, port, host, lifetime_s).encode()]
        asked = PmpRequest(self._port, port or (self._port if lifetime_s else 0), lifetime_s).encode()
        self._host = self._answer = None
        return [PmpAddressRequest().encode(), asked] if lifetime_s else [asked]

    def _on_pcp(self, answer: Answer, now: float) -> None:
        is_asked = self._tries > 0 or self._is_ending
        if isinstance(answer, PmpRefusal) and is_asked and self.mapped is None:
            self._ask_by_natpmp(now)
        if not isinstance(answer, PcpAnswer) or not is_asked or answer.internal_port != self._port:
            return
        if not hmac.compare_digest(answer.nonce, self._nonce):
            return
        # Not known, or a mapping of ours whose nonce a crash took: NAT-PMP has none.
        if answer.result and self.mapped is None:
            self._ask_by_natpmp(now)
        elif answer.result:
            self._refused(answer.result, answer.lifetime_s, now)
        else:
            self._granted(answer.external_host, answer.external_port, answer.lifetime_s, now)

    def _on_natpmp(self, answer: Answer, now: float) -> None:
        if not (self._tries or self._is_ending):
            return
        if isinstance(answer, PmpRefusal):
            self._refused(answer.result, 0, now)
        elif isinstance(answer, PmpAddressAnswer):
            self._host = answer.host
        elif isinstance(answer, PmpAnswer) and answer.internal_port == self._port:
            self._answer = answer
        told = self._answer
        if told is not None and (self._host is not None or self._is_ending):
            self._granted(self._host or NOWHERE, told.external_port, told.lifetime_s, now)

    def _granted(self, host: IPv4Address, port: int, lifetime_s: int, now: float) -> None:
        if self._is_ending:
            if not lifetime_s:
                self.mapped = None
            return
        self._tries = 0
        if not host.is_global or host.is_multicast or not port:
            self.fault = "the router's own address is not a public one: another router is before it"
            self._rest(PORT_MAPPING_AGAIN_S, now)
            return
        lifetime = min(max(lifetime_s, PORT_MAPPED_S[0]), PORT_MAPPED_S[1])
        self.mapped, self.fault = Mapped(host, port, now + lifetime), ""
        self._at = now + lifetime / 2  # RFC 6887, 11.2.1; RFC 6886, 3.3

    def _refused(self, result: int, lifetime_s: int, now: float) -> None:
        """The router says no; it is asked again after the time that it names, or the usual one."""
        self.fault = f"the router refuses ({self.protocol} result {result})"
        self._tries = 0
        self._rest(max(PORT_MAPPING_AGAIN_S, min(lifetime_s, PORT_MAPPED_S[1])), now)

    def _unanswered(self, now: float) -> None:
        """What stands is asked for again in time; else PCP, then NAT-PMP, then nothing for a while."""
        self._tries = 0
        if self.mapped is not None:
            self._rest(max(PCP_FIRST_S, (self.mapped.until - now) / 2), now)
        elif self._is_pcp:
            self._ask_by_natpmp(now)
        else:
            self._is_pcp = True
            self.fault = "the router answers neither PCP nor NAT-PMP"
            self._rest(PORT_MAPPING_AGAIN_S, now)

    def _ask_by_natpmp(self, now: float) -> None:
        self._is_pcp, self._tries, self._at = False, 0, now

    def _rest(self, seconds: float, now: float) -> None:
        self._at = now + seconds
