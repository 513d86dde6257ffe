"""One session channel: bytes both ways under SSH's windows (RFC 4254, 5), with OpenSSH's sizes."""

from __future__ import annotations

from collections import deque
from typing import Final

from obscura.limits import SSH_CHANNEL_PACKET, SSH_QUEUED, SSH_WINDOW
from obscura.morph import ssh_names as names
from obscura.morph.ssh_packet import Broken, Fields, string, u32
from obscura.morph.ssh_transport import Transport

_DATA_HEAD: Final = 9  # bytes before the data: kind, channel, length


class Channel:
    """Either end. Its own number is 0, as that of every first channel. Data waits until ``open`` says what the peer takes.

    ``own_window``: bytes that the peer may send; a server's is 0 until its program runs.
    """

    def __init__(self, transport: Transport, own_window: int) -> None:
        self._transport = transport
        self._peer = b""  # its number, encoded
        self._queue: deque[memoryview] = deque()
        self._most = SSH_CHANNEL_PACKET
        self._window = 0  # bytes that the peer still takes
        self._own_window = own_window
        self._consumed = 0
        self.queued = 0
        self.sent_eof = self.sent_close = False
        self._is_ending = False
        self._exit_status: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the peer's number is known."""
        return bool(self._peer)

    @property
    def is_blocked(self) -> bool:
        """Whether so much waits for the peer's window that nothing more should be queued."""
        return self.queued >= SSH_QUEUED

    def open(self, peer: int, window: int, most: int) -> None:
        """The peer's end: its number, its first window, its largest packet."""
        self._peer = u32(peer)
        self._window = window
        self._most = min(most, SSH_CHANNEL_PACKET)
        if not self._most:
            raise Broken("a channel that takes no packet")

    def message(self, kind: int, rest: bytes = b"") -> None:
        """A message about this channel."""
        self._transport.send(bytes((kind,)) + self._peer + rest)

    def send(self, data: bytes) -> None:
        """Queue data; ``pump`` sends it."""
        if data and not self._is_ending:
            self._queue.append(memoryview(data))
            self.queued += len(data)

    def pump(self) -> None:
        """Send what the window takes, in packets as full as may be; nothing while keys are exchanged."""
        while self._queue and self._window and self._peer and not self._transport.is_exchanging:
            piece = self._gather(min(self._most, self._window))
            self._window -= len(piece)
            self.queued -= len(piece)
            self._transport.send(bytes((names.CHANNEL_DATA,)) + self._peer + u32(len(piece)), piece)
        if self._is_ending and not self._queue:
            self._say_end()

    def _gather(self, most: int) -> bytes | memoryview:
        queue = self._queue
        if len(queue[0]) > most:
            piece = queue[0][:most]
            queue[0] = queue[0][most:]
            return piece
        if len(queue) == 1:
            return queue.popleft()
        parts: list[memoryview] = []
        while queue and most:
            part = queue[0]
            if len(part) > most:
                queue[0] = part[most:]
                part = part[:most]
            else:
                queue.popleft()
            parts.append(part)
            most -= len(part)
        return b"".join(parts)

    def on_data(self, payload: memoryview) -> memoryview:
        """The bytes of a CHANNEL_DATA. Raises ``Broken`` where OpenSSH would: over the window, or the length is wrong."""
        size = int.from_bytes(payload[5:9], "big")
        if len(payload) - _DATA_HEAD != size or any(payload[1:5]):
            raise Broken("CHANNEL_DATA for no channel, or of another length")
        self.on_consumed(size)
        return payload[_DATA_HEAD:]

    def on_consumed(self, size: int) -> None:
        """Take ``size`` bytes off the own window, and open it again as OpenSSH does: after three packets or half of it."""
        if size > self._own_window:
            raise Broken("more than the window takes")
        self._own_window -= size
        self._consumed += size
        if self._consumed > 3 * SSH_CHANNEL_PACKET or self._own_window < SSH_WINDOW // 2:
            self.message(names.CHANNEL_WINDOW_ADJUST, u32(self._consumed))
            self._own_window += self._consumed
            self._consumed = 0

    def widen(self) -> None:
        """A server's program runs: let the client send."""
        self._own_window = SSH_WINDOW
        self.message(names.CHANNEL_WINDOW_ADJUST, u32(SSH_WINDOW))

    def on_adjust(self, fields: Fields) -> None:
        """WINDOW_ADJUST, behind the channel's number."""
        self._window += fields.u32()
        if self._window > 0xFFFFFFFF:
            raise Broken("a window of more than 2^32")

    def end(self, exit_status: int | None = None) -> None:
        """No more data from us: once what waits has gone out, EOF; on a server with the program's exit status and CLOSE."""
        if not self._is_ending:
            self._is_ending, self._exit_status = True, exit_status
        self.pump()

    def _say_end(self) -> None:
        if not self._peer or self.sent_eof or self.sent_close:
            return
        if self._exit_status is not None:
            self.message(names.CHANNEL_REQUEST, string("exit-status") + b"\0" + u32(self._exit_status))
        self.sent_eof = True
        self.message(names.CHANNEL_EOF)
        if self._exit_status is not None:
            self.close()

    def close(self) -> None:
        """CLOSE, once."""
        if self._peer and not self.sent_close:
            self.sent_close = True
            self.message(names.CHANNEL_CLOSE)
