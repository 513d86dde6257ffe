"""Carrier ``ssh``, the server's side: sshd to everybody, the other end of a link to who brings a right flight."""

from __future__ import annotations

import random
import weakref
from enum import Enum, auto
from math import inf
from typing import Final

from obscura.limits import (
    SSH_ANSWER,
    SSH_CLOSE_S,
    SSH_HELD,
    SSH_LOGIN_GRACE_S,
    SSH_STARTUPS,
)
from obscura.morph import ssh_names as names
from obscura.morph.carrier import CarrierEvent, Data, Flight
from obscura.morph.ssh import Ssh
from obscura.morph.ssh_auth import USERAUTH, Authenticator
from obscura.morph.ssh_hostkey import HostKey
from obscura.morph.ssh_kex import Group
from obscura.morph.ssh_packet import Broken, Fields, string, u32
from obscura.morph.ssh_transport import Transport

_BROKEN_PROGRAM: Final = 128  # exit status of git-upload-pack that read nonsense


class SshHost:
    """What the connections of one listener share: its host keys, its groups, how many are not authenticated.

    ``groups``: of moduli(5); ``secret``: 32 random bytes of this process.
    """

    def __init__(self, host_keys: tuple[HostKey, ...], groups: tuple[Group, ...], secret: bytes) -> None:
        self.host_keys = host_keys
        self.groups = groups
        self.secret = secret
        self._starting: weakref.WeakSet[SshServer] = weakref.WeakSet()

    def server(self, rng: random.Random) -> SshServer:
        """The carrier of one connection."""
        return SshServer(rng, self)

    def admits(self, newcomer: SshServer, rng: random.Random) -> bool:
        """Whether a newcomer is served: from ``begin`` on some are dropped, at ``full`` all (sshd_config(5), MaxStartups)."""
        begin, share, full = SSH_STARTUPS
        count = len(self._starting)
        chance = 0.0 if count < begin else share + (1 - share) * (count - begin) / (full - begin)
        if rng.random() < chance:
            return False
        self._starting.add(newcomer)
        return True

    def is_done(self, server: SshServer) -> None:
        """It is authenticated, or over."""
        self._starting.discard(server)


class _Stage(Enum):
    SERVICE = auto()  # the service is asked for
    AUTHENTICATION = auto()
    TRIAL = auto()  # the channel looks at a signature
    REFUSAL = auto()  # the answer waits for its time
    SESSION = auto()  # authenticated


class SshServer(Ssh):
    """sshd 8.4 that takes keys alone, none of which it knows."""

    def __init__(self, rng: random.Random, host: SshHost) -> None:
        super().__init__(rng, Transport(rng, host_keys=host.host_keys, groups=host.groups), 0)
        self._host = host
        self._authenticator = Authenticator(host.secret)
        self._stage = _Stage.SERVICE
        self._is_refused = False  # no channel will come of this connection any more
        self._grace = inf
        self._answer_at = inf  # when the refusal goes out, or input that waited is looked at
        self._asked_at = 0.0
        self._runs = False  # the program
        self._has_peer_ended = False

    def start(self, now: float) -> list[CarrierEvent]:
        if not self._host.admits(self, self._rng):
            self._transport.out.append(b"Exceeded MaxStartups\r\n")
            return self._finish()
        self._grace = now + SSH_LOGIN_GRACE_S
        return super().start(now)

    def send_flight(self, flight: bytes, now: float) -> None:
        self._stage = _Stage.SESSION
        self._host.is_done(self)
        self._transport.reader.counts_reads = False
        self._transport.may_rekey = True
        self._grace = inf
        self._answer_at = now
        self._transport.send(bytes((names.USERAUTH_SUCCESS,)))
        keys = b"".join(string(key.blob) for key in self._host.host_keys)
        self._transport.send(bytes((names.GLOBAL_REQUEST,)) + string("hostkeys-00@openssh.com") + b"\0" + keys)
        self._channel.send(flight)

    def refuse(self, now: float) -> None:
        self._is_refused = True
        if self._stage is _Stage.TRIAL:
            self._refuse_at(self._asked_at + self._authenticator.delay())
        elif self._stage is _Stage.SESSION:
            self._exit(_BROKEN_PROGRAM, now)

    def end(self, now: float) -> list[CarrierEvent]:
        if self._stage is not _Stage.SESSION or not self._runs:
            return self._finish()
        self._exit(0, now)
        return []

    def deadline(self) -> float:
        return inf if self._is_over else min(super().deadline(), self._grace, self._answer_at)

    def due(self, now: float) -> list[CarrierEvent]:
        if self._is_over:
            return []
        if now >= self._grace:
            return self._finish()
        if now >= self._answer_at:
            self._answer_at = inf
            if self._stage is _Stage.REFUSAL:
                self._stage = _Stage.AUTHENTICATION
                try:
                    self._transport.send(self._authenticator.refused())
                except Broken as broken:
                    return self._break(broken)
        events = super().due(now)
        return events + self._finish() if self._has_peer_ended and not self.is_busy else events

    def eof(self, now: float) -> list[CarrierEvent]:
        self._has_peer_ended = True
        return [] if self.is_busy else self._finish()

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        events = super().receive(data, now)
        if self._must_wait() and self._transport.reader.held > 2 * SSH_HELD:
            events += self._finish()  # nobody sends a megabyte in milliseconds to one who does not read
        return events

    @property
    def is_full(self) -> bool:
        return super().is_full or (self._must_wait() and self._transport.reader.held > SSH_HELD)

    @property
    def is_busy(self) -> bool:
        return self._must_wait() and not self._is_over

    def _finish(self, *, resets: bool = False) -> list[CarrierEvent]:
        self._host.is_done(self)
        return super()._finish(resets=self._stage is not _Stage.SESSION and self._transport.reader.has_unread)

    def _must_wait(self) -> bool:
        return self._stage in (_Stage.TRIAL, _Stage.REFUSAL)

    def _refuse_at(self, when: float) -> None:
        self._stage = _Stage.REFUSAL
        self._answer_at = when

    # --- Payloads ---------------------------------------------------------------------------------------------------

    def _on_payload(self, payload: memoryview, now: float, events: list[CarrierEvent]) -> None:
        kind = payload[0]
        if self._stage is _Stage.SESSION:
            self._on_session(payload, now, events)
        elif kind == names.NEWKEYS:
            pass
        elif kind == names.SERVICE_REQUEST:
            self._on_service(Fields(payload))
        elif kind == names.USERAUTH_REQUEST and self._stage is _Stage.AUTHENTICATION:
            self._asked_at = now
            signature = self._authenticator.request(payload)
            if signature is None or self._is_refused:
                self._refuse_at(now + self._authenticator.delay())
            else:
                self._stage = _Stage.TRIAL
                events.append(Flight(signature, self._transport.session_id, SSH_ANSWER))
        else:
            self._transport.unimplemented()

    def _on_service(self, fields: Fields) -> None:
        service = fields.text()
        fields.finish()
        if service != USERAUTH:
            raise Broken("another service", f"bad service request {service[:256]}")
        self._stage = _Stage.AUTHENTICATION
        self._transport.send(bytes((names.SERVICE_ACCEPT,)) + string(service))

    def _on_session(self, payload: memoryview, now: float, events: list[CarrierEvent]) -> None:
        kind = payload[0]
        if kind == names.CHANNEL_DATA:
            events.append(Data(self._channel.on_data(payload)))
        elif kind == names.CHANNEL_OPEN:
            self._on_open(Fields(payload))
        elif kind == names.CHANNEL_REQUEST and not self._runs and self._channel.is_open:
            self._on_request(Fields(payload, 5))
        elif kind == names.CHANNEL_EOF:
            self._exit(0, now)
        elif kind == names.CHANNEL_CLOSE:
            self._channel.close()
            self._close_by = now + SSH_CLOSE_S  # the client disconnects
        elif kind not in (names.USERAUTH_REQUEST, names.SERVICE_REQUEST):
            self._on_channel(payload, now, events)

    def _on_open(self, fields: Fields) -> None:
        kind, peer, window, most = fields.text(), fields.u32(), fields.u32(), fields.u32()
        if kind != "session" or self._channel.is_open:
            self._refuse_channel(peer)
            return
        self._channel.open(peer, window, most)
        self._channel.message(names.CHANNEL_OPEN_CONFIRMATION, u32(0) + u32(0) + u32(32 << 10))

    def _on_request(self, fields: Fields) -> None:
        request, wants_reply = fields.text(), fields.flag()
        self._runs = request in ("exec", "shell", "subsystem")
        if self._runs:
            self._channel.widen()
        if wants_reply:
            self._channel.message(names.CHANNEL_SUCCESS if self._runs else names.CHANNEL_FAILURE)

    def _exit(self, status: int, now: float) -> None:
        """The program ends."""
        if self._close_by == inf:
            self._close_by = now + self._patience_s
            self._channel.end(status)
