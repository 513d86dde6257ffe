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
from abc import abstractmethod
from math import inf
from typing import ClassVar, Final

from obscura.limits import (
    SSH_CLOSE_S,
    SSH_DRAIN_S,
    SSH_FLIGHT,
    SSH_HELD,
    SSH_WINDOW,
    UNAUTHENTICATED_BYTES,
)
from obscura.morph import ssh_names as names
from obscura.morph.carrier import Carrier, CarrierEvent, Data, Finished, Flight, Ready, coalesced
from obscura.morph.ssh_auth import USERAUTH, key_request, none_request
from obscura.morph.ssh_channel import Channel
from obscura.morph.ssh_packet import Broken, Fields, string, u32
from obscura.morph.ssh_transport import Transport
from obscura.wire.address import CarrierNumber

_USER: Final = "git"
_PROTOCOL_ERROR, _BY_APPLICATION = 2, 11  # reasons of a DISCONNECT (RFC 4253, 11.1)


class Ssh(Carrier):
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

    def _refuse_channel(self, peer: int) -> None:
        """OpenSSH's answer to who opens a channel of a kind that it has no use for. ``peer``: what the other side calls it."""
        failed = bytes((names.CHANNEL_OPEN_FAILURE,)) + u32(peer) + u32(1) + string("open failed") + string("")
        self._transport.send(failed)

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


class SshClient(Ssh):
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
        elif kind == names.CHANNEL_OPEN and self._runs:
            fields = Fields(payload)
            fields.string()
            self._refuse_channel(fields.u32())
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
