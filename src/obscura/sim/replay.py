"""A recording (``obscura.node.recording``) run through the shipped core again: a third interpreter, its network a file.

Links, messages and their times come from the file, and so does what the recorded parts drew; timers run by the file's clock. The
core itself, the limits on rates and the penalties are those of this version. What the replay sends goes nowhere. Equal files give
equal traces, bit for bit.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from hashlib import blake2b, sha256
from math import inf
from struct import Struct
from typing import Any

from obscura.connection import Connection
from obscura.errors import AddressError, DecodeError, UserError
from obscura.ledger.chain import Chain
from obscura.ledger.network import Network
from obscura.limits import REPLAY_CHUNK, REPLAY_GAP_S, REPLAY_LINK, REPLAY_TOTAL_S
from obscura.linkevents import Ended, Established, Event, Reason
from obscura.node.assembly import Settings, assemble
from obscura.node.effects import Fetch, Keep, Notify, Waiting
from obscura.node.face import Face, Purpose
from obscura.node.io import Faulted, Reach
from obscura.node.link import Link
from obscura.node.ratelimit import rates_of
from obscura.node.recording import (
    STOPPED,
    AnyRecord,
    Begin,
    Blamed,
    Broke,
    Comes,
    Dice,
    End,
    Got,
    Known,
    Linked,
    Odd,
    OfLink,
    Waits,
    event_of,
)
from obscura.node.resolvers import SeedSettings
from obscura.node.rotation import RotationSettings
from obscura.node.slots import OutboundLimits
from obscura.outbox import Outbox
from obscura.sim.archive import MemoryArchive
from obscura.wire.address import Address, CarrierNumber, Endpoint
from obscura.wire.address import Network as AddressNetwork
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.message import Message

_STEP = Struct("<dI")


class PlayedDice(random.Random):
    """What a part drew when it was recorded; when that is used up, what a seed gives, and ``missed`` counts it."""

    def __init__(self, part: str, draws: Iterable[tuple[int, int | float]]) -> None:
        super().__init__(f"obscura replay {part}")
        self.missed = 0
        self._drawn: dict[int, deque[int | float]] = {}
        for bits, value in draws:
            self._drawn.setdefault(bits, deque()).append(value)

    def random(self) -> float:
        found = self._next(0)
        return super().random() if found is None else float(found)

    def getrandbits(self, k: int, /) -> int:
        found = self._next(k)
        return super().getrandbits(k) if found is None else int(found)

    def randbytes(self, n: int) -> bytes:
        return super().getrandbits(8 * n).to_bytes(n, "little")

    def _next(self, bits: int) -> int | float | None:
        drawn = self._drawn.get(bits)
        if drawn:
            return drawn.popleft()
        self.missed += 1
        return None


class PlayedConnection(Connection):
    """Stands for a link of the recording: gives nothing by itself, takes what is sent and tells ``sent``."""

    def __init__(self, replay: Replay, link: int) -> None:
        self._replay, self._link = replay, link
        self._is_up = self._has_ended = False
        self.outbox = Outbox()
        self.expects_leave = False
        self.over, self.closing = False, (False, False)
        self.wire_received = self.wire_sent = 0
        self.dummies_received = self.dummy_bytes_received = 0

    waiting = buffered = 0
    is_full = is_blocked = is_busy = is_parked = has_more = False
    is_authenticated = True

    @property
    def is_established(self) -> bool:
        return self._is_up and not self._has_ended

    def established(self) -> None:
        """The recording says so."""
        self._is_up = True

    def send(self, message: Message) -> None:
        self._replay.sent(self._link, message)

    def flush(self, now: float) -> list[bytes]:
        return []

    def deadline(self) -> float:
        return inf

    def due(self, now: float) -> list[Event]:
        return []

    def eof(self, now: float) -> list[Event]:
        return []

    def close(self, now: float, reason: Reason = Reason.LOCAL, detail: str = "") -> list[Event]:
        had_ended, self._has_ended, self.over = self._has_ended, True, True
        return [] if had_ended else [Ended(reason, detail)]

    def abort(self, now: float, reason: Reason) -> list[Event]:
        return self.close(now, reason)

    def finish(self, now: float) -> None:
        self.over = True


class Replay:
    """One node of this version that lives through a recording. ``play`` once; then ask for the ``report``."""

    def __init__(self, begin: Begin, known: list[Known], waits: list[Waits], dice: dict[str, PlayedDice], on: Network):
        """Raises ``UserError`` if the recording is of another network."""
        if begin.network_id != on.id:
            raise UserError(f"the capture is of another network than {on.name}: give the right one with --network")
        self._begin, self._dice = begin, dice
        self.now = 0.0
        self.events = self.ignored = 0
        self.received: Counter[str] = Counter()
        self.sent_types: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.penalties: list[tuple[int, int, str]] = []
        self.recorded_penalties: list[tuple[int, int, str]] = []
        self.end: End | None = None
        self._trace = blake2b(digest_size=32)
        self._archive = MemoryArchive(on.ledger)
        self._answers: deque[tuple[bool, int, bytes | None]] = deque()  # (was it written, token, block)
        self._connections: dict[int, PlayedConnection] = {}
        self._links: dict[int, Link] = {}
        self._rates = rates_of(CATALOGUE, begin.rate_factor) if begin.rate_factor < inf else {}
        self._assembly = assemble(
            _settings(begin),
            random.Random("obscura replay"),
            lambda: begin.unix + int(self.now),
            0.0,
            chain=_chain(on, known),
            waiting=[Waiting(w.id, w.raw, w.arrival, False) for w in waits],
            dice=lambda part, rng: dice.get(part, rng),
        )
        self._engine = self._assembly.engine

    def play(self, records: Iterable[AnyRecord], until_s: float = inf) -> None:
        """Live through the records, up to a time. Raises ``UserError`` for ones that no node can have written."""
        chunk: list[OfLink] = []  # what came at once, since limits on rates are asked of all of it
        for record in records:
            if isinstance(record, Begin | Known | Waits | Dice):
                continue
            if chunk and not _goes_on(chunk, record):
                self._feed(chunk)
                chunk = []
            if record.at > until_s:
                break
            self._advance(record.at)
            if isinstance(record, Blamed):
                self.recorded_penalties.append((record.link, record.points, record.why))
            elif isinstance(record, End):
                self.end = record
            else:
                chunk.append(record)
        if chunk:
            self._feed(chunk)
        if until_s < inf:
            self._advance(min(until_s, self.now + REPLAY_GAP_S))

    def sent(self, link: int, message: Message) -> None:
        """The core sends something."""
        self.sent_types[message.TYPE] += 1
        self._note(link, f"send {message.TYPE}", message.encode())

    @property
    def trace_hash(self) -> str:
        """Of all that went in and came out, in order."""
        return self._trace.copy().hexdigest()

    def report(self) -> dict[str, Any]:
        """What happened, ready for JSON."""
        relay = self._assembly.relay
        assert relay is not None
        return {
            "seconds": round(self.now, 3),
            "links": len(self._links),
            "received": dict(sorted(self.received.items())),
            "sent": dict(sorted(self.sent_types.items())),
            "events": dict(sorted(self.told.items())),
            "penalties": [{"peer": peer, "points": points, "why": why} for peer, points, why in self.penalties],
            **relay.status(),
            "ignored_after_the_end": self.ignored,
            "dice_missed": sum(dice.missed for dice in self._dice.values()),
            "trace": self.trace_hash,
            "ended": None if self.end is None else self.end.why,
            "differs": list(self.differences()),
        }

    def differences(self) -> Iterator[str]:
        """Where the node that was recorded came to something else. Empty too where the recording does not reach its stop.

        One that is full ends in the middle of a turn, whose blocks may or may not be on the disk.
        """
        relay, end = self._assembly.relay, self.end
        if end is None or relay is None or end.why != STOPPED:
            return
        if relay.blocks.tip != end.tip:
            yield f"the tip: height {end.height} when recorded, {relay.blocks.tip_height} now"
        pool = sorted(entry.transaction.id for entry in relay.transactions.mempool)
        if sha256(b"".join(pool)).digest() != end.mempool_digest:
            yield f"the mempool: {end.mempool} transactions when recorded, {len(pool)} now"
        before, now = Counter(self.recorded_penalties), Counter(self.penalties)
        for (link, points, why), count in sorted((before - now).items()):
            yield f"a penalty of {points} for peer {link} ({why}): {count} more when recorded"
        for (link, points, why), count in sorted((now - before).items()):
            yield f"a penalty of {points} for peer {link} ({why}): {count} more now"

    # --- Inside -----------------------------------------------------------------------------------------------------

    def _advance(self, at: float) -> None:
        if not self.now <= at <= min(self.now + REPLAY_GAP_S, REPLAY_TOTAL_S):  # nan too
            raise UserError(f"the capture is damaged: a record at {at} s behind one at {self.now:.3f} s")
        while (deadline := self._engine.deadline()) <= at:
            self.now = max(self.now, deadline)
            self._engine.due(self.now)
            self._turn()
        self.now = at

    def _feed(self, chunk: list[OfLink]) -> None:
        first, events = chunk[0], []
        if isinstance(first, Linked):
            self._links[first.link] = self._link(first)
            return
        link, connection = self._links.get(first.link), self._connections.get(first.link)
        if link is None or connection is None:
            raise UserError(f"the capture is damaged: link {first.link} was never made")
        if link.id not in self._engine.links or link.has_ended:
            self.ignored += len(chunk)
            return
        for record in chunk:
            try:
                event = event_of(record)
            except (DecodeError, ValueError) as error:
                raise UserError(
                    f"the capture is damaged: {str(error)[:200]!a} in a record of link {record.link}"
                ) from None
            if isinstance(event, Established):
                connection.established()
            elif isinstance(event, Ended):
                connection.close(self.now)
            kind = record.type if isinstance(record, Got) else type(event).__name__.lower()
            self.received[kind] += 1
            self._note(record.link, kind, record.payload if isinstance(record, Got) else b"")
            events.append(event)
        self.events += len(events)
        self._engine.deliver(link, events, self.now)
        self._engine.touch(link)
        self._turn()

    def _link(self, record: Linked) -> Link:
        try:
            dialled = None if record.dialled is None else Address.parse(record.dialled)
            place = record.remote
            remote = None if place is None else Endpoint(AddressNetwork(place[0]), place[1], place[2])
            link = Link(
                REPLAY_LINK + record.link,
                dialled=dialled,
                inbound=record.is_inbound,
                manual=record.is_manual,
                face=Face(record.face),
                purpose=Purpose(record.purpose),
                rates=self._rates,
            )
            link.carrier, link.remote = CarrierNumber(record.carrier), remote
        except (AddressError, ValueError) as error:
            raise UserError(f"the capture is damaged: link {record.link}: {str(error)[:200]!a}") from None
        if record.link in self._links or not 0 < record.link < REPLAY_LINK:
            raise UserError(f"the capture is damaged: link {record.link} is made twice, or is no link")
        link.attached = self.now
        self._connections[record.link] = link.connection = PlayedConnection(self, record.link)
        self._engine.links[link.id] = link
        return link

    def _turn(self) -> None:
        """Carry out what the engine wants, and answer for the archive until nothing is asked any more."""
        while True:
            for io in self._engine.drain(self.now):
                if isinstance(io, Notify):
                    self._hear(io)
                elif isinstance(io, Keep):
                    self._archive.keep(
                        io, lambda _, act: act(), lambda token: self._answers.append((True, token, None))
                    )
                elif isinstance(io, Fetch):
                    self._archive.fetch(
                        io, lambda _, act: act(), lambda token, raw: self._answers.append((False, token, raw))
                    )
                elif isinstance(io, Reach):
                    self._engine.unreachable(io.link, "a replay reaches nobody", self.now)
                elif isinstance(io, Faulted):
                    raise io.fault  # it is looked for, not lived with
            if not self._answers:
                return
            is_kept, token, raw = self._answers.popleft()
            if is_kept:
                self._engine.kept(token, self.now)
            else:
                self._engine.fetched(token, raw, self.now)

    def _hear(self, told: Notify) -> None:
        self.told[told.kind] += 1
        peer = told.fields.get("peer")
        link = peer - REPLAY_LINK if isinstance(peer, int) else 0
        if told.kind == "penalty":
            self.penalties.append((link, int(told.fields["points"]), str(told.fields["why"])))
        self._note(max(0, link), told.kind)

    def _note(self, link: int, what: str, data: bytes = b"") -> None:
        self._trace.update(_STEP.pack(self.now, link) + what.encode() + b"\0" + data)


def load(records: Iterable[AnyRecord], on: Network) -> Replay:
    """The replay of a recording that is read to its end once, to be read again by ``play``. Raises ``UserError``."""
    begin: Begin | None = None
    known: list[Known] = []
    waits: list[Waits] = []
    draws: dict[str, list[tuple[int, int | float]]] = {"ping": [], "relay": [], "stem": []}
    for record in records:
        if isinstance(record, Begin):
            if begin is not None:
                raise UserError("the capture is damaged: it begins twice")
            begin = record
        elif isinstance(record, Known):
            known.append(record)
        elif isinstance(record, Waits):
            waits.append(record)
        elif isinstance(record, Dice):
            if record.part not in draws or not all(_is_draw(bits, value) for bits, value in record.draws):
                raise UserError("the capture is damaged: dice that nobody throws")
            draws[record.part] += record.draws
    if begin is None:
        raise UserError("the capture is damaged: it does not say what node it is of")
    dice = {part: PlayedDice(part, drawn) for part, drawn in draws.items()}
    try:
        return Replay(begin, known, waits, dice, on)
    except (DecodeError, ValueError, OverflowError) as error:
        raise UserError(f"the capture is damaged: {str(error)[:200]!a} at its begin") from None


def _goes_on(chunk: list[OfLink], record: AnyRecord) -> bool:
    """Whether the record was in the same chunk, as far as one can tell: of the same link and moment, and nothing of its life."""
    last, kinds = chunk[-1], Got | Odd | Comes | Broke
    is_alike = (
        isinstance(last, kinds) and isinstance(record, kinds) and (record.at, record.link) == (last.at, last.link)
    )
    return is_alike and len(chunk) < REPLAY_CHUNK


def _is_draw(bits: int, value: float) -> bool:
    return 0 <= value < 1 if bits == 0 else isinstance(value, int) and 0 < bits <= 64 and 0 <= value < 1 << bits


def _settings(begin: Begin) -> Settings:
    if not (begin.faces and begin.rate_factor > 0 and 0 <= begin.spacing_s < inf and 0 <= begin.unix < 1 << 40):
        raise ValueError("settings that no node has")
    return Settings(
        network_id=begin.network_id,
        is_dev=begin.is_dev,
        knobs=begin.knobs,
        max_inbound=begin.max_inbound,
        faces=frozenset(map(Face, begin.faces)),
        outbound=OutboundLimits(0, 0, feelers=False),
        allow_unauthenticated=True,
        spacing_s=begin.spacing_s,
        seeds=SeedSettings(enabled=False),
        rotation=RotationSettings(enabled=False),
        rate_factor=begin.rate_factor,
    )


def _chain(network: Network, known: list[Known]) -> Chain:
    ledger, chain = network.ledger, Chain(network.ledger)
    size = ledger.header_bytes
    for part in known:
        if len(part.bodies) != len(part.headers) or any(len(header) != size for header in part.headers):
            raise ValueError("headers of another size")
        had = {ledger.block_id(header) for header, body in zip(part.headers, part.bodies, strict=True) if body}
        chain.restore(part.headers, had.__contains__, (), part.tip)
    return chain
