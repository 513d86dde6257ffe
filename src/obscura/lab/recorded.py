"""Recorded links as files: one JSON object a line, one line a write, in order of time.

``{"at": 1.25, "sizes": [1024], "messages": [["tx", 421, 0.08]]}``: seconds, bytes of each record of the write, and the messages
whose last byte it carried, each with its type, the bytes of its frame and the seconds that it had waited.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from obscura.errors import UserError
from obscura.lab.link import Capture, Sent, Write

LEAST_MESSAGES = 20  # as many as runs that it is cut into (``leakage.CAPTURES``): with fewer no guesser knows others
_MOST_BYTES = 1 << 32  # of a record or a frame, far above any
_MOST_S = 1e12  # seconds on either side of 0: no clock is beyond, and differences are exact to a millisecond


class Line(msgspec.Struct, frozen=True):
    """One write as the file has it."""

    at: float
    sizes: tuple[int, ...]
    messages: list[tuple[str, int, float]] = []


def save_capture(path: Path, capture: Capture) -> None:
    """Write a capture. Raises ``UserError``."""
    carried: list[list[tuple[str, int, float]]] = [[] for _ in capture.writes]
    for sent in capture.messages:
        if 0 <= sent.write < len(carried):
            wait = capture.writes[sent.write].at - sent.at
            carried[sent.write].append((sent.kind, sent.size, round(wait, 6)))
    lines = [
        Line(round(write.at, 6), write.sizes, inside) for write, inside in zip(capture.writes, carried, strict=True)
    ]
    try:
        path.write_bytes(msgspec.json.Encoder().encode_lines(lines))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def load_capture(path: Path) -> Capture:
    """Read a capture. Raises ``UserError`` that names the line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    decode = msgspec.json.Decoder(Line).decode
    writes: list[Write] = []
    messages: list[Sent] = []
    for number, text in enumerate(raw.splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = decode(text)
        except msgspec.DecodeError as error:
            raise UserError(f"{path}:{number}: not a write of a recorded link: {error}") from None
        if not line.sizes or min(line.sizes) <= 0 or (writes and line.at < writes[-1].at):
            raise UserError(f"{path}:{number}: a write has records of some bytes and is not before the one above it")
        times = [line.at, *(wait for _, _, wait in line.messages)]
        sizes = [*line.sizes, *(size for _, size, _ in line.messages)]
        if max(map(abs, times)) > _MOST_S or min(sizes) <= 0 or max(sizes) > _MOST_BYTES:
            raise UserError(f"{path}:{number}: sizes are 1 to {_MOST_BYTES:,} bytes, times up to {_MOST_S:g} s")
        messages += [Sent(kind, size, line.at - wait, len(writes)) for kind, size, wait in line.messages]
        writes.append(Write(line.at, line.sizes, 0))
    if not messages:
        raise UserError(f"{path}: no message is in it, so nothing can be said about messages")
    if len(messages) < LEAST_MESSAGES:
        raise UserError(
            f"{path}: {len(messages)} messages are in it, and {LEAST_MESSAGES} are the least to say anything"
        )
    return Capture(writes, messages)


def parts_of(capture: Capture, number: int) -> list[Capture]:
    """What left, cut into so many runs of about as many messages each, for intervals and folds."""
    left = [sent for sent in capture.messages if 0 <= sent.write < len(capture.writes)]
    size = max(1, len(left) // number)
    parts = []
    for start in range(0, size * number, size):
        chosen = left[start : start + size]
        if chosen:
            first, last = max(0, chosen[0].write - 1), chosen[-1].write
            parts.append(
                Capture(capture.writes[first : last + 1], [sent._replace(write=sent.write - first) for sent in chosen])
            )
    return parts
