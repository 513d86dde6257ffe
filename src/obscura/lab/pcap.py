"""A real link recorded by tshark or tcpdump, and what its lengths and times alone say: no message is known, so bounds and laws.

The file is read by tshark: it knows every format and link layer there is, puts repeated segments aside, and who records has it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from obscura.errors import UserError
from obscura.lab.information import entropy, labels

MAGIC = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a")
FIELDS = ("tcp.stream", "frame.time_epoch", "tcp.srcport", "tcp.dstport", "tcp.len")
ONE_WRITE_S = 0.001  # segments of one direction that are closer together are one write
LEAST_WRITES = 10  # of a direction, for its figures to mean anything
WINDOW_S = 1.0  # over which writes are counted
READ_S = 300.0  # seconds for tshark to read a file


class Seen(msgspec.Struct, frozen=True):
    """One direction of one connection.

    ``length_bits`` is the entropy of the lengths of writes: no more than that can lengths tell of anything, per write.
    ``gap_cv``: standard deviation of the gaps over their mean (constant 0, Poisson 1, bunched more).
    ``dispersion``: variance over mean of writes per second (constant 0, Poisson 1).
    """

    stream: int
    direction: str
    writes: int
    seconds: float
    bytes: int
    lengths: int
    length_bits: float
    gap_cv: float
    dispersion: float


def is_pcap(path: Path) -> bool:
    """Whether a file begins as pcap or pcapng do. Raises ``UserError`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) in MAGIC
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_pcap(path: Path, port: int | None = None) -> list[Seen]:
    """Both directions of each connection, of one ``port`` if it is given. Raises ``UserError``."""
    wanted = f"tcp.len > 0 && !tcp.analysis.retransmission{'' if port is None else f' && tcp.port == {port}'}"
    command = ["tshark", "-n", "-r", str(path), "-Y", wanted, "-T", "fields", "-E", "separator=,"]
    for field in FIELDS:
        command += ["-e", field]
    try:
        done = subprocess.run(command, capture_output=True, timeout=READ_S, check=False)
    except FileNotFoundError:
        raise UserError(
            "captures of packets are read with tshark, which is not installed (apt install tshark)"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: tshark took more than {READ_S:.0f} s; cut the capture with editcap") from None
    found = observe(line.split(",") for line in done.stdout.decode(errors="replace").splitlines())
    if not found:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        where = "" if port is None else f" on port {port}"
        why = f" (tshark: {last})" if done.returncode else ""
        raise UserError(f"{path}: no connection{where} with {LEAST_WRITES} writes or more is in it{why}")
    return found


def observe(rows: Iterable[Sequence[str]]) -> list[Seen]:
    """Rows of ``FIELDS`` in order of time -> figures; directions with few writes are left out."""
    flows: dict[tuple[int, str], list[tuple[float, int]]] = {}
    for stream, at, source, target, size in rows:
        flows.setdefault((int(stream), f"{source} > {target}"), []).append((float(at), int(size)))
    figures = (_figures(stream, direction, _writes(packets)) for (stream, direction), packets in flows.items())
    return sorted((one for one in figures if one is not None), key=lambda one: -one.bytes)


def _writes(packets: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    joined: list[tuple[float, int]] = []
    last = -1.0
    for at, size in packets:
        if joined and at - last < ONE_WRITE_S:
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        else:
            joined.append((at, size))
        last = at
    return joined


def _figures(stream: int, direction: str, writes: Sequence[tuple[float, int]]) -> Seen | None:
    if len(writes) < LEAST_WRITES:
        return None
    gaps = np.array([later[0] - earlier[0] for earlier, later in pairwise(writes)])
    sizes = [size for _, size in writes]
    seconds = writes[-1][0] - writes[0][0]
    counts = np.bincount([int((at - writes[0][0]) / WINDOW_S) for at, _ in writes])
    return Seen(
        stream=stream,
        direction=direction,
        writes=len(writes),
        seconds=round(seconds, 3),
        bytes=sum(sizes),
        lengths=len(set(sizes)),
        length_bits=round(max(0.0, entropy(labels(sizes))) if len(set(sizes)) > 1 else 0.0, 4),
        gap_cv=round(float(gaps.std() / gaps.mean()), 3) if gaps.mean() else 0.0,
        dispersion=round(float(counts.var() / counts.mean()), 3),
    )
