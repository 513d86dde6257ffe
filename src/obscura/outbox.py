"""Frames that wait for one link, and the records they become: where padding and schedule meet the queue."""

from __future__ import annotations

from collections.abc import Callable

from obscura.channel.records import Sealer
from obscura.errors import UserError
from obscura.limits import BREACH_SLACK, FLUSH_BYTES, HEADER_BYTES
from obscura.shaping.padding import Cells, Padding
from obscura.shaping.schedule import IMMEDIATE, Schedule, Slots
from obscura.wire.catalogue import BUILT_IN
from obscura.wire.frame import frame_parts
from obscura.wire.message import Message
from obscura.wire.tally import Tally, count

_WORTH_A_VIEW = 8 << 10  # bytes; shorter pieces are cheaper to copy than to cut

Give = Callable[[bytes, float], None]  # takes a sealed record, and now


class Outbox:
    """The sending side of one link. Sizes are bytes; ``waiting`` counts frames that are queued and not sealed."""

    __slots__ = (
        "_inside",
        "_owed",
        "_padding",
        "_position",
        "_queue",
        "_released",
        "_tally",
        "_timed",
        "dummies_sent",
        "dummy_bytes_sent",
        "has_left",
        "padding_sent",
        "real_sent",
        "schedule",
        "waiting",
    )

    def __init__(self, tally: Tally | None = None) -> None:
        self._padding: Padding = Cells()
        self.schedule: Schedule = IMMEDIATE
        self._queue: list[bytes] = []
        self._position = 0  # bytes of its first piece that are sealed already
        self._inside = False  # its first piece is the payload of a frame whose header is sealed
        self._owed: int | None = None  # bytes to seal until this direction may end; None = it goes on
        self.has_left = False  # it has ended, at the boundary of a frame: the rest may be handed over
        self._timed = 0  # pieces of the queue that the schedule has seen
        self._released = 0  # bytes that the schedule has let go and that are not sealed yet
        self.waiting = 0
        self._tally = {} if tally is None else tally  # frames that were queued
        self.real_sent = self.padding_sent = self.dummies_sent = self.dummy_bytes_sent = 0

    @property
    def has_more(self) -> bool:
        """Whether ``seal`` held back a part of what may leave."""
        if self._owed is not None:
            return not isinstance(self.schedule, Slots)
        return 0 < self._released <= self.waiting

    @property
    def is_idle(self) -> bool:
        """Whether ``seal`` has nothing to do whatever the time is."""
        return not self.waiting and self._owed is None and self.schedule is IMMEDIATE

    def shape(self, padding: Padding, schedule: Schedule) -> None:
        """From now on these say sizes and times."""
        self._padding, self.schedule = padding, schedule
        schedule.begin(self.waiting)

    def put(self, message: Message) -> None:
        """Queue the frame of a message. Raises ``UserError`` for an application's own that is over its ``MAX_SIZE``."""
        header, payload = frame_parts(message)
        if len(payload) > message.MAX_SIZE and type(message) not in BUILT_IN:  # the peer would end the link for it
            raise UserError(
                f"a message of type {message.TYPE} has {message.MAX_SIZE} bytes at most, not {len(payload)}"
            )
        size = HEADER_BYTES + len(payload)
        if size < _WORTH_A_VIEW:
            self._queue.append(header + payload)
        else:
            self._queue += (header, payload)
        self.waiting += size
        if message.PRIVATE:  # in every figure it is cover, which it hides in
            self.padding_sent += size
        else:
            self.real_sent += size
            count(self._tally, message.NAME, size)

    def seal(self, sealer: Sealer, give: Give, now: float) -> None:
        """Give records with what may leave now, dummies among them; of much about ``FLUSH_BYTES`` (``has_more`` then)."""
        schedule = self.schedule
        if schedule is not IMMEDIATE and len(self._queue) > self._timed:
            schedule.put(self._queue[self._timed :] if self._timed else self._queue, now)
        if self._owed is not None:
            self._seal_rest(sealer, self._owed, give, now)
            return
        if self.has_more:
            allowed, dummies = self._released, 0
        else:
            allowed, dummies = schedule.allowance(now, self.waiting, sealer.capacity)
        part = allowed if dummies else FLUSH_BYTES  # whole records, since a cut one would be filled with padding
        next_size = self._padding.next_size
        left = self.waiting
        if allowed:
            body = _Gatherer(self._queue, self._position, self._inside)
            while allowed > 0 and part > 0:
                capacity = sealer.capacity
                size = allowed if allowed < capacity else capacity
                left -= size
                allowed -= size
                part -= size
                self.padding_sent += capacity - size
                give(sealer.seal(body.take(size), next_size(left), rekey=sealer.due_rekey(now)), now)
            self._queue, self._position, self._inside = body.rest()
            self.waiting = left
        self._released = allowed
        self._timed = len(self._queue)
        for _ in range(dummies):
            self.dummy_bytes_sent += sealer.size
            give(sealer.seal(b"", next_size(left), rekey=sealer.due_rekey(now)), now)
        self.dummies_sent += dummies

    def leave(self) -> None:
        """End this direction at the next boundary of a frame, in its schedule's time; nothing further is begun here."""
        self._owed = self._cut_frame()

    def _seal_rest(self, sealer: Sealer, owed: int, give: Give, now: float) -> None:
        """What is owed, about ``FLUSH_BYTES`` of it or as slots allow; the last of it bears flag 2."""
        body, part = _Gatherer(self._queue, self._position, self._inside), FLUSH_BYTES
        while part > 0 and not self.has_left:
            capacity, schedule = sealer.capacity, self.schedule
            if isinstance(schedule, Slots) and not schedule.allowance(now, owed or 1, capacity).frame_bytes:
                break
            size = min(owed, capacity)
            owed -= size
            part -= size
            self.waiting -= size
            self._released = max(0, self._released - size)
            self.padding_sent += capacity - size
            self.has_left = not owed
            rekey = bool(owed) and sealer.due_rekey(now)
            give(sealer.seal(body.take(size), self._padding.next_size(owed), rekey=rekey, last=not owed), now)
        self._queue, self._position, self._inside = body.rest()
        self._timed = len(self._queue)
        self._owed = None if self.has_left else owed

    def _cut_frame(self) -> int:
        """Bytes that are still missing of the frame that is sealed in part; 0 at a boundary."""
        if self._inside:
            return len(self._queue[0]) - self._position
        at = 0
        while at < self._position:
            at += HEADER_BYTES + int.from_bytes(self._queue[0][at : at + 4], "little")
        return at - self._position

    def hand_over(self, to: Outbox) -> None:
        """What waits goes on there, by the same padding and schedule, as if nothing had happened in between."""
        queue = self._queue
        if self._position:
            queue = [queue[0][self._position :], *queue[1:]]
        to.schedule, to._padding = self.schedule, self._padding
        to._released = to.waiting + self._released  # what it has of its own was free to leave
        to._timed = len(to._queue) + self._timed
        to._queue += queue
        to.waiting += self.waiting
        self.clear()

    def seal_last(self, sealer: Sealer, give: Give, now: float) -> None:
        """Give everything that waits, whole frames only, then a record with flag 2.

        Under slots no more at once than a peer lets pass, since it would show and cost points: the rest is lost, and where that
        cuts a frame, the peer sees a lost link.
        """
        body, left = _Gatherer(self._queue, self._position, self._inside), self.waiting
        if isinstance(self.schedule, Slots):
            head = _Gatherer(self._queue, self._position, self._inside)
            most = min(left, BREACH_SLACK // 2 * sealer.capacity)
            left = _whole_frames(head.take(most), self._cut_frame())
        self.clear()
        if left < 0:
            return
        while left > sealer.capacity:
            size = sealer.capacity
            left -= size
            give(sealer.seal(body.take(size), self._padding.next_size(left)), now)
        give(sealer.seal(body.take(left), self._padding.next_size(0), last=True), now)

    def bare(self) -> bytes:
        """Everything that waits as it is, for a link without a channel."""
        frames = b"".join(self._queue)
        self.clear()
        return frames

    def clear(self) -> None:
        """Drop what waits; no cover is due any more."""
        self.schedule = IMMEDIATE
        self._queue = []
        self._position = self._released = self._timed = 0
        self._inside, self._owed = False, None
        self.waiting = 0


def _whole_frames(data: bytes | memoryview, at: int) -> int:
    """Bytes up to the end of the last frame that ``data`` has whole, the first one ending at ``at``; -1 if it has none."""
    end = -1
    while at <= len(data):
        end = at
        if at + HEADER_BYTES > len(data):
            break
        at += HEADER_BYTES + int.from_bytes(data[at : at + 4], "little")
    return end


class _Gatherer:
    """Cuts queued frames into record bodies. Runs of small frames are joined once; a large payload is never joined."""

    __slots__ = ("_at", "_inside", "_pieces", "_position", "_queue", "_sources")

    def __init__(self, queue: list[bytes], position: int, inside: bool) -> None:
        """``position``: bytes of the first piece that were taken before. ``inside``: it is a payload without its header."""
        self._queue, self._inside = queue, inside
        self._pieces: list[bytes] = []
        self._sources: list[int] = []  # where in the queue each piece begins
        run: list[bytes] = []
        for index, piece in enumerate(queue):
            if len(piece) < _WORTH_A_VIEW:
                run.append(piece)
            else:
                self._pieces += (b"".join(run), piece)
                self._sources += (index - len(run), index)
                run = []
        self._pieces.append(b"".join(run))
        self._sources += (len(queue) - len(run), len(queue))
        self._at = 0 if self._pieces[0] else 1
        self._position = position

    def take(self, size: int) -> bytes | memoryview:
        """The next ``size`` bytes, which must be there."""
        parts: list[memoryview] = []
        while size:
            piece = self._pieces[self._at]
            end = min(len(piece), self._position + size)
            parts.append(memoryview(piece)[self._position : end])
            size -= end - self._position
            self._position = end
            if end == len(piece):
                self._at += 1
                self._position = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def rest(self) -> tuple[list[bytes], int, bool]:
        """What was not taken, as a queue again, how much of its first piece was, and whether that is inside its frame.

        Only the first piece may be a joined run; all others are as they were queued, so that a large one is a payload.
        """
        at = self._at
        while at < len(self._pieces) and not self._pieces[at]:
            at += 1
        if at >= len(self._pieces):
            return [], 0, False
        source = self._sources[at]
        inside = self._inside if not source else len(self._pieces[at]) >= _WORTH_A_VIEW and at % 2 == 1
        return [self._pieces[at], *self._queue[self._sources[at + 1] :]], self._position, inside
