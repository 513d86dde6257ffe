"""What a prober sends: random bytes, series of lengths, replays, flips, changed tokens, halves. Pure: one rng in, probes out."""

from __future__ import annotations

import random
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mutated import mutants

MAX_RANDOM = 16 << 10
# Bytes; at which servers that count show themselves.
THRESHOLDS = (*range(1, 65), *range(72, 257, 8), *range(288, 2_049, 32))
_TOKEN = re.compile(rb"(Authorization: Bearer )([A-Za-z0-9_-]+)")
_LEADS = {
    "http": (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: h\r\n"),
    "tls": (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "ssh": (b"", b"SSH-2.0-", b"SSH-2.0-OpenSSH_9.2\r\n"),
    "dns": (b"", b"\x00\x40", b"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"),
}


class Probe(NamedTuple):
    """``pieces`` are written one after the other. ``inside``: within TLS. ``ends``: the own side is closed after them."""

    kind: str
    name: str
    pieces: tuple[bytes, ...]
    inside: bool = False
    ends: bool = False


def probes(
    carrier: str,
    count: int,
    recordings: Sequence[Sequence[bytes]],
    within: Sequence[Sequence[bytes]],
    table: Sequence[Probe],
    rng: random.Random,
) -> list[Probe]:
    """So many, the kinds in turn until each is used up; random bytes fill the rest.

    ``recordings``: client streams, each as the pieces that were written. ``within``: what a client says inside TLS.
    """
    kinds: list[Iterator[Probe]] = [
        iter(table),
        _thresholds(carrier, rng),
        _replays(recordings),
        _flips(recordings, rng, inside=False),
        _halves(recordings, rng),
        _mutants(recordings, rng, inside=False),
        _random(carrier, rng),
    ]
    if carrier == "http":
        kinds.append(_tokens(recordings, rng, inside=False))
    if within:
        kinds += [
            _tokens(within, rng, inside=True),
            _flips(within, rng, inside=True),
            _mutants(within, rng, inside=True),
        ]
    made: list[Probe] = []
    while len(made) < count:
        for kind in list(kinds):
            found = next(kind, None)
            if found is None:
                kinds.remove(kind)
            else:
                made.append(found)
    return made[:count]


def _random(carrier: str, rng: random.Random) -> Iterator[Probe]:
    """Bytes of one to 16 kB, half of them short; for tls half of them as a visitor says them."""
    while True:
        size = rng.randint(1, rng.choice((100, MAX_RANDOM)))
        data = rng.randbytes(size)
        yield Probe("random", f"{size} bytes {data[:4].hex()}", (data,), carrier == "tls" and rng.random() < 0.5)


def _thresholds(carrier: str, rng: random.Random) -> Iterator[Probe]:
    for lead in _LEADS[carrier]:
        for size in THRESHOLDS:
            if size > len(lead):
                rest = size - len(lead)
                yield Probe("threshold", f"{lead[:8]!r} to {size}, random", (lead + rng.randbytes(rest),))
                yield Probe("threshold", f"{lead[:8]!r} to {size}, zeros", (lead + bytes(rest),))
                yield Probe("threshold", f"{lead[:8]!r} to {size}, letters", (lead + b"a" * rest,))


def _replays(recordings: Sequence[Sequence[bytes]]) -> Iterator[Probe]:
    """Each stream as it was, in its pieces and in one, to the end and to each piece."""
    for turn in range(40):
        for number, pieces in enumerate(recordings):
            yield Probe("replay", f"stream {number}, turn {turn}", tuple(pieces))
            yield Probe("replay", f"stream {number} at once, turn {turn}", (b"".join(pieces),))
            if turn < len(pieces):
                yield Probe("replay", f"stream {number}, {turn + 1} pieces", tuple(pieces[: turn + 1]))


def _flips(recordings: Sequence[Sequence[bytes]], rng: random.Random, *, inside: bool) -> Iterator[Probe]:
    """One bit of an opening, at each offset once and then anywhere."""
    offsets = list(range(sum(map(len, recordings[0]))))
    rng.shuffle(offsets)
    while True:
        number = rng.randrange(len(recordings))
        at = offsets.pop() if offsets else rng.randrange(sum(map(len, recordings[number])))
        yield Probe(
            "flip", f"stream {number} at {at}", tuple(_flipped(recordings[number], at, rng.randrange(8))), inside
        )


def _flipped(pieces: Sequence[bytes], at: int, bit: int) -> Iterator[bytes]:
    for piece in pieces:
        if 0 <= at < len(piece):
            yield piece[:at] + bytes([piece[at] ^ 1 << bit]) + piece[at + 1 :]
        else:
            yield piece
        at -= len(piece)


def _mutants(recordings: Sequence[Sequence[bytes]], rng: random.Random, *, inside: bool) -> Iterator[Probe]:
    """Streams with up to three changes, in one piece."""
    for number, data in enumerate(mutants([b"".join(pieces)[:MAX_RANDOM] for pieces in recordings], rng)):
        yield Probe("mutant", f"{number}", (data,), inside)


def _tokens(recordings: Sequence[Sequence[bytes]], rng: random.Random, *, inside: bool) -> Iterator[Probe]:
    """The openings of the web with another token: random, cut, longer, of another session."""
    asked = [b"".join(pieces) for pieces in recordings if _TOKEN.search(b"".join(pieces))]
    known = [found[2] for text in asked if (found := _TOKEN.search(text))]
    while asked:
        text, token = rng.choice(asked), rng.choice(known)
        size = rng.choice((0, 1, 149, 150, 200, 560, 561, 1_500))
        fresh = rng.choice((
            urlsafe_b64encode(rng.randbytes(size)).rstrip(b"="), token[: rng.randrange(len(token))], token + b"A", token + b"=",
            token.swapcase(), token,
        ))  # fmt: skip
        said = _TOKEN.sub(rb"\g<1>" + fresh, text, count=1)
        yield Probe("token", f"{len(fresh)} characters {fresh[:8].decode()}", (said,), inside)


def _halves(recordings: Sequence[Sequence[bytes]], rng: random.Random) -> Iterator[Probe]:
    """A part of an opening, and then silence or the end of the own side."""
    while True:
        whole = b"".join(rng.choice(recordings))
        at = rng.randrange(len(whole) + 1)
        ends = rng.random() < 0.5
        yield Probe("half", f"{at} bytes, {'closed' if ends else 'silent'}", (whole[:at],), ends=ends)
