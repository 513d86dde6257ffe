"""SSH's transport layer, either role: identification, key exchange, rekeying, and OpenSSH's ways with the rest (RFC 4253).

Payloads of the layers above go in and out. Strict key exchange is not offered: 8.4p1 of Debian 11 got it only later, and what it
mends (a man in the middle who drops packets of the beginning) is nothing against the channel inside.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from math import inf
from typing import Final

from obscura.limits import SSH_BANNER_LINES, SSH_REKEY_BYTES, SSH_REKEY_S
from obscura.morph import ssh_names as names
from obscura.morph.ssh_hostkey import HostKey, verify
from obscura.morph.ssh_kex import ClientExchange, Group, Outcome, ServerExchange, derive
from obscura.morph.ssh_names import CLIENT_PROPOSAL, Choice, Proposal, choose, server_proposal
from obscura.morph.ssh_packet import Broken, Fields, PacketReader, PacketWriter, cipher_of, mpint, string, u32

_KEYED: Final = memoryview(bytes((names.NEWKEYS,)))
_DATA: Final = names.CHANNEL_DATA


class Disconnected(Broken):
    """The peer said DISCONNECT."""


def _pass_over(kind: int, fields: Fields) -> None:
    """What has no consequence but has to have its form, as far as OpenSSH looks. Raises ``Broken``."""
    if kind == names.UNIMPLEMENTED:
        fields.u32()
    elif kind == names.DEBUG:
        fields.flag()
        fields.string()
        fields.string()


class Transport:
    """One connection below authentication.

    ``next`` gives the payloads for the layer above, the first of them the NEWKEYS that ends the first exchange. ``session_id`` is
    the first exchange hash, empty before. ``rekey_at``: when the keys are to be changed.
    """

    def __init__(
        self, rng: random.Random, *, host_keys: tuple[HostKey, ...] = (), groups: tuple[Group, ...] = ()
    ) -> None:
        """A server has ``host_keys``; a client has none."""
        self.is_client = not host_keys
        self.session_id = b""
        self.rekey_at = inf
        self.may_rekey = self.is_client  # a server's peer, once it is authenticated: sshd knows no KEXINIT before
        self.out: list[bytes] = []
        self.reader = PacketReader()
        self._writer = PacketWriter(rng)
        self._rng = rng
        self._host_keys = host_keys
        self._groups = groups
        self._proposal = (
            CLIENT_PROPOSAL if self.is_client else server_proposal([a for key in host_keys for a in key.algorithms])
        )
        self._peer_identification = b""
        self._lines = 0
        self._own_kexinit = b""  # sent, its exchange not finished by us
        self._peer_kexinit = b""  # received, its exchange not finished by the peer
        self._choice: Choice | None = None
        self._exchange: ClientExchange | ServerExchange | None = None
        self._is_keyed = False  # both directions have been given keys
        self._skips_guess = False
        self._peer_takes_ext_info = False
        self._key_of: tuple[str, int, bytes] | None = None  # hash, secret, exchange hash of the keys to come
        self._held: deque[tuple[bytes, bytes | memoryview]] = deque()  # for after the exchange

    # --- Out --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Say who we are."""
        self.out.append(names.IDENTIFICATION + b"\r\n")

    @property
    def is_exchanging(self) -> bool:
        """Whether what is sent now waits for new keys."""
        return bool(self._own_kexinit)

    def send(self, head: bytes, body: bytes | memoryview = b"") -> None:
        """A payload ``head | body`` of the layers above; held back during an exchange (RFC 4253, 7.1)."""
        if self._own_kexinit:
            self._held.append((head, body))
        else:
            self._write(head, body)

    def disconnect(self, reason: int, text: str) -> None:
        """DISCONNECT, whatever is going on."""
        self._write(bytes((names.DISCONNECT,)) + u32(reason) + string(text) + string(""))

    def unimplemented(self) -> None:
        """The answer to the last payload, if nobody knows it."""
        self._write(bytes((names.UNIMPLEMENTED,)) + u32((self.reader.sequence - 1) & 0xFFFFFFFF))

    def _write(self, head: bytes, body: bytes | memoryview = b"") -> None:
        self.out.append(self._writer.packet(head, body))

    def rekey(self, now: float) -> None:
        """Change the keys if it is time (or so many bytes)."""
        if self.session_id and self.may_rekey and not self._own_kexinit and not self._peer_kexinit:
            most = max(self._writer.sealed_bytes, self.reader.opened_bytes)
            if most >= SSH_REKEY_BYTES or now >= self.rekey_at:
                self._send_kexinit()

    def _send_kexinit(self) -> None:
        payload = self._proposal.encode(self._rng.randbytes(16))
        self._write(payload)
        self._own_kexinit = payload

    # --- In ---------------------------------------------------------------------------------------------------------

    def next(self, now: float) -> memoryview | None:
        """The next payload for the layer above, None if more is needed. Raises ``Broken``."""
        while not self._peer_identification:
            if not self._identify():
                return None
        while (payload := self.reader.next()) is not None:
            kind = payload[0]
            if kind == _DATA and self._is_keyed:
                return payload
            if kind in (names.IGNORE, names.UNIMPLEMENTED, names.DEBUG, names.EXT_INFO):
                _pass_over(kind, Fields(payload))
                continue
            if kind == names.DISCONNECT:
                raise Disconnected("the peer said so")
            if kind == names.KEXINIT and (self.may_rekey or not self._is_keyed):
                self._on_kexinit(bytes(payload))
            elif kind == names.KEXINIT:
                self.unimplemented()
            elif kind == names.NEWKEYS:
                if self._on_newkeys(now):
                    return _KEYED
            elif names.KEX_FIRST <= kind <= names.KEX_LAST:
                self._on_exchange(kind, payload)
            elif not self._is_keyed:
                if kind >= names.USERAUTH_REQUEST:
                    raise Broken("no message of the transport layer before there are keys")
                self.unimplemented()
            else:
                return payload
        return None

    def _identify(self) -> bool:
        try:
            line = self.reader.line()
        except Broken:
            self._complain(b"Invalid SSH identification string.")
            raise
        if line is None:
            return False
        self._lines += 1
        if not line.startswith(b"SSH-"):
            if not self.is_client or self._lines > SSH_BANNER_LINES:
                self._complain(b"Invalid SSH identification string.")
                raise Broken("no identification")
            return True
        major, _, rest = line[4:].partition(b".")
        minor, _, software = rest.partition(b"-")
        if not (major.isdigit() and minor.isdigit() and software):
            self._complain(b"Invalid SSH identification string.")
            raise Broken("no identification")
        if int(major[:9]) != 2 and (int(major[:9]), int(minor[:9])) != (1, 99):
            self._complain(b"Protocol major versions differ.")
            raise Broken("another version of SSH")
        self._peer_identification = line
        self._send_kexinit()
        return True

    def _complain(self, line: bytes) -> None:
        if not self.is_client:
            self.out += [line, b"\r\n"]  # two writes in sshd: before a reset the network decides which of them arrive

    def _on_kexinit(self, payload: bytes) -> None:
        if self._peer_kexinit:
            self.unimplemented()
            return
        theirs, follows = Proposal.decode(payload)
        self._peer_kexinit = payload
        if not self._own_kexinit:
            self._send_kexinit()
        client, server = (self._proposal, theirs) if self.is_client else (theirs, self._proposal)
        choice = self._choice = choose(client, server)
        self._skips_guess = follows and (client.kex[:1], client.host_keys[:1]) != (server.kex[:1], server.host_keys[:1])
        if self.is_client:
            self._exchange = ClientExchange(choice.kex, self._rng)
            self._write(self._exchange.start())
        else:
            self._peer_takes_ext_info = names.EXT_INFO_C in theirs.kex
            self._exchange = ServerExchange(choice.kex, self._groups, self._rng)

    def _on_exchange(self, kind: int, payload: memoryview) -> None:
        if self._exchange is None or self._choice is None:
            self.unimplemented()
            return
        if self._skips_guess:
            self._skips_guess = False
            return
        fields = Fields(payload)
        try:
            done = self._exchange.receive(kind, fields)
        except LookupError:
            self.unimplemented()
            return
        if isinstance(done, bytes):
            self._write(done)
            return
        outcome, other = done
        if isinstance(self._exchange, ServerExchange):
            self._answer(self._exchange, self._choice, outcome, other)
        else:
            signed = self._hash(self._exchange.method.digest, other, outcome)
            signature = fields.string()
            fields.finish()
            verify(self._choice.host_key, other, signature, signed)
            self._finish_exchange(self._exchange.method.digest, outcome.secret, signed)

    def _answer(self, exchange: ServerExchange, choice: Choice, outcome: Outcome, own: bytes) -> None:
        host_key = next(key for key in self._host_keys if choice.host_key in key.algorithms)
        signed = self._hash(exchange.method.digest, host_key.blob, outcome)
        signature = string(host_key.sign(choice.host_key, signed))
        self._write(bytes((exchange.reply_kind,)) + string(host_key.blob) + own + signature)
        self._finish_exchange(exchange.method.digest, outcome.secret, signed)

    def _hash(self, digest: str, host_key: bytes, outcome: Outcome) -> bytes:
        """The exchange hash (RFC 4253, 8)."""
        peer, own = (self._peer_identification, self._peer_kexinit), (names.IDENTIFICATION, self._own_kexinit)
        client, server = (own, peer) if self.is_client else (peer, own)
        parts = (client[0], server[0], client[1], server[1], host_key)
        whole = b"".join(map(string, parts)) + outcome.hashed + mpint(outcome.secret)
        return hashlib.new(digest, whole).digest()

    # --- Keys -------------------------------------------------------------------------------------------------------

    def _finish_exchange(self, digest: str, secret: int, exchange_hash: bytes) -> None:
        """Our side of it: from NEWKEYS on everything is sent under the new keys."""
        is_first = not self.session_id
        self._key_of = (digest, secret, exchange_hash)
        self._exchange = None
        self._write(bytes((names.NEWKEYS,)))
        if is_first:
            self.session_id = exchange_hash
        self._set_cipher(self._writer, up=self.is_client)
        self._writer.sealed_bytes = 0
        self._own_kexinit = b""
        if is_first and self._peer_takes_ext_info:
            self._write(bytes((names.EXT_INFO,)) + u32(1) + string("server-sig-algs") + string(names.SIGNATURES))
        while self._held:
            self._write(*self._held.popleft())

    def _set_cipher(self, end: PacketReader | PacketWriter, *, up: bool) -> None:
        assert self._key_of is not None
        assert self._choice is not None
        digest, secret, exchange_hash = self._key_of
        choice = self._choice

        def key_of(which: int, size: int) -> bytes:
            return derive(digest, secret, exchange_hash, self.session_id, 2 * which + (0 if up else 1), size)

        encryption, mac = (choice.encryption_up, choice.mac_up) if up else (choice.encryption_down, choice.mac_down)
        end.cipher = cipher_of(encryption, mac, key_of)

    def _on_newkeys(self, now: float) -> bool:
        """The peer's side of it. True if this was the first exchange."""
        if self._key_of is None:
            self.unimplemented()
            return False
        is_first = not self._is_keyed
        self._is_keyed = True
        self._set_cipher(self.reader, up=not self.is_client)
        self.reader.opened_bytes = 0
        self._key_of = None
        self._peer_kexinit = b""
        self.rekey_at = now + SSH_REKEY_S
        return is_first
