"""Carrier ``ssh``: a genuine session of SSH 2 (design 8). Binding = the first exchange hash.

    client                                              server
    identification, KEXINIT, key exchange               the same
    SERVICE_REQUEST, `none`                             FAILURE: publickey
    publickey, signature = flight 1                     SUCCESS, or FAILURE as for any key
    open a session, run a program                       the program's output = flight 2, then the channel's bytes

A failure of any kind takes a stranger's path: sshd's answer in sshd's time, its tries, its limits, its words.
"""

from __future__ import annotations

import random
import weakref
from abc import abstractmethod
from enum import Enum, auto
from math import inf
from typing import ClassVar, Final

from obscura.limits import (
    SSH_ANSWER,
    SSH_CLOSE_S,
    SSH_DRAIN_S,
    SSH_FLIGHT,
    SSH_HELD,
    SSH_LOGIN_GRACE_S,
    SSH_STARTUPS,
    SSH_WINDOW,
    UNAUTHENTICATED_BYTES,
)
from obscura.morph import ssh_names as names
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready, coalesced
from obscura.morph.ssh_auth import USERAUTH, Authenticator, key_request, none_request
from obscura.morph.ssh_channel import Channel
from obscura.morph.ssh_hostkey import HostKey
from obscura.morph.ssh_kex import Group
from obscura.morph.ssh_packet import Broken, Fields, string, u32
from obscura.morph.ssh_transport import Transport
from obscura.wire.address import CarrierNumber

_USER: Final = "git"
_PROTOCOL_ERROR, _BY_APPLICATION = 2, 11  # reasons of a DISCONNECT (RFC 4253, 11.1)
_BROKEN_PROGRAM: Final = 128  # exit status of git-upload-pack that read nonsense


class _Ssh(Carrier):
    """What both roles share: the loop over payloads, the open channel, the way to the end."""

    NUMBER: ClassVar[CarrierNumber] = CarrierNumber.SSH

    def __init__(self, rng: random.Random, transport: Transport, own_window: int) -> None:
        self._rng = rng
        self._transport = transport
        self._channel = Channel(transport, own_window)
        self._is_over = False
        self._close_by = inf  # the peer has until then to close the channel

    # --- The interface ----------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[CarrierEvent]:
        self._transport.start()
        return []

    def receive(self, data: bytes | memoryview, now: float) -> list[CarrierEvent]:
        if self._is_over:
            return []
        self._transport.reader.feed(data)
        return self._run(now)

    def send(self, data: bytes, now: float) -> None:
        self._channel.send(data)
        self._transport.rekey(now)

    def take(self) -> list[bytes]:
        self._channel.pump()
        out, self._transport.out = self._transport.out, []
        return out if self._is_over else coalesced(out)  # a reset cuts between sshd's writes

    def eof(self, now: float) -> list[CarrierEvent]:
        return self._finish()

    def deadline(self) -> float:
        return inf if self._is_over else min(self._close_by, self._transport.rekey_at)

    def due(self, now: float) -> list[CarrierEvent]:
        if self._is_over:
            return []
        if now >= self._close_by:
            return self._finish()
        self._transport.rekey(now)
        return self._run(now)

    @property
    def is_full(self) -> bool:
        return sum(map(len, self._transport.out)) > SSH_HELD  # answers that nobody reads

    @property
    def is_blocked(self) -> bool:
        return self._channel.is_blocked

    # --- Payloads ---------------------------------------------------------------------------------------------------

    def _run(self, now: float) -> list[CarrierEvent]:
        """Everything that can be answered now."""
        events: list[CarrierEvent] = []
        try:
            while not self._is_over and not self._must_wait():
                payload = self._transport.next(now)
                if payload is None:
                    break
                self._on_payload(payload, now, events)
            self._transport.rekey(now)
        except Broken as broken:
            events += self._break(broken)
        return events

    def _must_wait(self) -> bool:
        return False

    @abstractmethod
    def _on_payload(self, payload: memoryview, now: float, events: list[CarrierEvent]) -> None:
        """A payload above the transport layer."""

    def _on_channel(self, payload: memoryview, now: float, events: list[CarrierEvent]) -> None:
        """What both roles do with an open channel."""
        kind, channel = payload[0], self._channel
        fields = Fields(payload, 5)
        if kind == names.CHANNEL_WINDOW_ADJUST:
            channel.on_adjust(fields)
        elif kind == names.CHANNEL_EXTENDED_DATA:
            fields.u32()
            channel.on_consumed(len(fields.string()))
        elif kind == names.CHANNEL_REQUEST:
            fields.string()
            if fields.flag():
                channel.message(names.CHANNEL_FAILURE)
        elif kind == names.GLOBAL_REQUEST:
            fields = Fields(payload)
            fields.string()
            if fields.flag():
                self._transport.send(bytes((names.REQUEST_FAILURE,)))
        elif kind not in (names.CHANNEL_SUCCESS, names.CHANNEL_FAILURE, names.USERAUTH_BANNER):
            self._transport.unimplemented()

    # --- Ends -------------------------------------------------------------------------------------------------------

    @property
    def _patience_s(self) -> float:
        """How long the peer may take to close the channel, or to take first what waits for its window."""
        return SSH_DRAIN_S if self._channel.queued else SSH_CLOSE_S

    def _break(self, broken: Broken) -> list[CarrierEvent]:
        if broken.said is not None:
            self._transport.disconnect(_PROTOCOL_ERROR, broken.said)
        return self._finish()

    def _finish(self, *, resets: bool = False) -> list[CarrierEvent]:
        if self._is_over:
            return []
        self._is_over = True
        return [Finished(resets=resets)]


class SshClient(_Ssh):
    """OpenSSH's client with one key, fetching from a repository. It does not ask whose host key it sees."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, Transport(rng), SSH_WINDOW)
        self._transport.reader.counts_reads = False
        self._is_keyed = False  # and says what it wants next, in a write of its own as OpenSSH's client
        self._has_asked = False  # for the methods; what is refused before is that
        self._has_tried = False
        self._runs = self._has_answer = False  # the program; flight 2 was given

    def send_flight(self, flight: bytes, now: float) -> None:
        self._has_tried = True
        self._transport.send(key_request(_USER, flight, self._rng))

    def deadline(self) -> float:
        return 0.0 if self._is_keyed and not self._is_over else super().deadline()

    def due(self, now: float) -> list[CarrierEvent]:
        if self._is_keyed:
            self._is_keyed = False
            self._transport.send(bytes((names.SERVICE_REQUEST,)) + string(USERAUTH))
        return super().due(now)

    def refuse(self, now: float) -> None:
        if self._runs:
            self.end(now)
        else:
            self._close_by = now  # ``due`` ends it, since nothing is returned here

    def end(self, now: float) -> list[CarrierEvent]:
        if not self._runs:
            return self._finish()
        if self._close_by == inf:
            self._close_by = now + self._patience_s
            self._channel.end()
        return []

    def _on_payload(self, payload: memoryview, now: float, events: list[CarrierEvent]) -> None:
        kind = payload[0]
        if kind == names.CHANNEL_DATA and self._runs:
            data = self._channel.on_data(payload)
            if self._has_answer:
                events.append(Data(data))
            elif len(data) > UNAUTHENTICATED_BYTES:
                events += self._leave()
            else:
                self._has_answer = True
                events.append(Flight(bytes(data)))
        elif kind == names.NEWKEYS:
            self._is_keyed = True
        elif kind == names.SERVICE_ACCEPT and not self._has_asked:
            self._has_asked = True
            self._transport.send(none_request(_USER))
        elif kind == names.USERAUTH_FAILURE:
            self._on_failure(Fields(payload).names(), events)
        elif kind == names.USERAUTH_SUCCESS and self._has_asked and not self._channel.is_open:
            self._open()
        elif kind == names.CHANNEL_OPEN_CONFIRMATION and not self._channel.is_open:
            self._run_program(Fields(payload, 5))
        elif kind in (names.CHANNEL_OPEN_FAILURE, names.CHANNEL_CLOSE) or (
            kind == names.CHANNEL_FAILURE and not self._has_answer
        ):
            events += self._leave()
        elif kind == names.CHANNEL_EOF:
            self._channel.end()
        else:
            self._on_channel(payload, now, events)

    def _on_failure(self, methods: list[str], events: list[CarrierEvent]) -> None:
        if self._has_tried or not self._has_asked or "publickey" not in methods:
            events += self._finish()  # Permission denied (publickey).
        else:
            events.append(Ready(self._transport.session_id, (SSH_FLIGHT, SSH_FLIGHT)))

    def _open(self) -> None:
        send = self._transport.send
        send(bytes((names.CHANNEL_OPEN,)) + string("session") + u32(0) + u32(SSH_WINDOW) + u32(32 << 10))
        send(bytes((names.GLOBAL_REQUEST,)) + string("no-more-sessions@openssh.com") + b"\0")

    def _run_program(self, fields: Fields) -> None:
        rng, message = self._rng, self._channel.message
        self._channel.open(fields.u32(), fields.u32(), fields.u32())
        self._runs = True
        message(names.CHANNEL_REQUEST, string("env") + b"\0" + string("LANG") + string(rng.choice(names.LANGUAGES)))
        name = names.repository(rng)
        message(names.CHANNEL_REQUEST, string("exec") + b"\1" + string(f"git-upload-pack '{name}.git'"))

    def _leave(self) -> list[CarrierEvent]:
        """The program is over: what OpenSSH's client says then."""
        self._channel.close()
        self._transport.disconnect(_BY_APPLICATION, "disconnected by user")
        return self._finish()


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


class SshServer(_Ssh):
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
            failed = bytes((names.CHANNEL_OPEN_FAILURE,)) + u32(peer) + u32(1) + string("open failed") + string("")
            self._transport.send(failed)
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
