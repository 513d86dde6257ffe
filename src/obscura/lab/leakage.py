"""What sizes and times of records tell about the messages inside, and what hiding it costs, scheme by scheme.

Each scheme is a shipped link (``lab.link``) under the same mix. An observation of a message is the write that carried its last
byte: bytes of all its records, and the gap to the write before. The observer is told which writes carry messages at all, so the
figures are an upper bound for one who must tell them from dummies.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from math import log2
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from obscura.lab.information import (
    Labels,
    conditional_information,
    entropy,
    fitting_width,
    guessed,
    in_intervals,
    labels,
    mutual_information,
)
from obscura.lab.link import Capture, LabLink
from obscura.lab.mix import Mix
from obscura.shaping.agreement import OFF
from obscura.shaping.levels import LEVELS, Knobs, PrivacyLevel, knobs_of
from obscura.shaping.padding import Rule

SMALL = 3_000  # bytes of a frame; what is below counts as small
CAPTURES = 20  # independent links per scheme, from whose spread the intervals come
FOLDS = 5  # a guesser knows the captures of four and is asked about the fifth's
HALVES = 60  # that the intervals are taken from
SETTLE_S = 300.0  # seconds that a link may take to send what waits at the end
_CONFIDENCE = (2.5, 97.5)  # percentiles

_ALONE = Knobs(dummy_ms=OFF, chaff_ms=OFF, jitter_ms=OFF, burst=OFF, burst_hold_ms=OFF)


class Scheme(NamedTuple):
    """One row: what it is called, how its link is shaped (None: exact sizes, at once), and a line about it."""

    name: str
    knobs: Knobs | None
    meaning: str


_SHARING = msgspec.structs.replace(LEVELS[PrivacyLevel.MEDIUM], dummy_ms=OFF, chaff_ms=OFF)
SCHEMES = (
    Scheme("none", None, "exact sizes, at once: the control"),
    Scheme("uniform", msgspec.structs.replace(_ALONE, rule=Rule.UNIFORM), "64-512 random bytes on top, at once"),
    Scheme("cells-alone", _ALONE, "multiples of 1,024 bytes, at once: no message shares a record"),
    Scheme("cells", _SHARING, "multiples of 1,024 bytes, small messages gathered as at the level medium"),
    Scheme("standard", LEVELS[PrivacyLevel.STANDARD], "the level"),
    Scheme("medium", LEVELS[PrivacyLevel.MEDIUM], "the level: cells, jitter, bursts, dummies, chaff"),
    Scheme("high", LEVELS[PrivacyLevel.HIGH], "the level: Poisson slots"),
    Scheme("high-constant", knobs_of(PrivacyLevel.HIGH, constant_slots=True), "the level with constant slots"),
)


class Figure(msgspec.Struct, frozen=True):
    """A value and the 95 % interval around it, from halves of the captures."""

    value: float
    low: float
    high: float


class Row(msgspec.Struct, frozen=True):
    """What one scheme leaks and costs: bits, shares, milliseconds. ``carried``: share of the offered bytes that left in time.

    Controls: ``exact_mi_type_bits`` is what the exact sizes of the frames would tell, ``shuffled_mi_type_bits`` what the
    estimator says where there is nothing. ``width``: of the intervals in which sizes are counted, observed ones and own ones.
    """

    scheme: str
    rate_per_s: float
    messages: int
    mi_type_bits: Figure
    mi_size_bits: Figure
    type_accuracy: Figure
    prior: Figure
    overhead: Figure
    overhead_small: Figure
    delay_ms: Figure
    carried: float
    entropy_type_bits: float
    exact_mi_type_bits: float
    shuffled_mi_type_bits: float
    width: int


class _Table(NamedTuple):
    """The messages of all captures that left, as columns, and the bytes of each capture."""

    kinds: Labels
    sizes: Labels  # in intervals of ``width`` bytes, as ``seen``
    exact: Labels  # sizes as they are
    totals: NDArray[np.int64]  # bytes of the write
    seen: Labels  # the same in intervals
    gaps: Labels  # the gap before it, on a scale of powers of 4
    coarse: Labels  # bytes of the write on a scale of powers of 2
    delays: NDArray[np.float64]
    capture: Labels
    wire: NDArray[np.float64]  # per capture, as all below
    real: NDArray[np.float64]
    wire_small: NDArray[np.float64]
    real_small: NDArray[np.float64]
    offered: float
    width: int


def measure(scheme: Scheme, mix: Mix, seed: int, *, messages: int = 40_000, rate_per_s: float | None = None) -> Row:
    """Simulate ``messages`` messages over ``CAPTURES`` links of the scheme and reckon its row."""
    rate = rate_per_s or mix.rate_per_s
    captures = [
        simulate(scheme, mix, random.Random(f"leakage {seed} {number}"), messages // CAPTURES, rate)
        for number in range(CAPTURES)
    ]
    return reckon(scheme.name, rate, captures, random.Random(f"bootstrap {seed}"))


def simulate(scheme: Scheme, mix: Mix, rng: random.Random, messages: int, rate_per_s: float) -> Capture:
    """One link and so many messages."""
    link = LabLink(scheme.knobs, rng)
    arrivals = list(mix.arrivals(rng, messages, rate_per_s))
    link.run(arrivals, arrivals[-1][0] + SETTLE_S)
    end = arrivals[-1][0]
    capture = link.capture
    kept = [write for write in capture.writes if write.at <= end]
    return Capture(kept, [sent._replace(write=-1) if sent.write >= len(kept) else sent for sent in capture.messages])


def reckon(name: str, rate_per_s: float, captures: list[Capture], rng: random.Random) -> Row:
    """The row of captures."""
    table = _tabulate(captures)

    def over(pick: NDArray[np.int64], amount: NDArray[np.float64], real: NDArray[np.float64]) -> float:
        total = real[pick].sum()
        return float(amount[pick].sum() / total - 1) if total else 0.0

    everything = np.arange(len(captures))
    rows = [np.flatnonzero(table.capture == number) for number in everything]
    right = guessed(table.kinds, (table.seen, table.coarse), table.capture % FOLDS).astype(float)
    counted: Mapping[str, Callable[[NDArray[np.int64]], float]] = {
        "mi_type_bits": lambda pick: _mi_type(table, _rows(rows, pick)),
        "mi_size_bits": lambda pick: _mi_size(table, _rows(rows, pick)),
        "type_accuracy": lambda pick: float(right[_rows(rows, pick)].mean()),
        "prior": lambda pick: _prior(table.kinds[_rows(rows, pick)]),
        "overhead": lambda pick: over(pick, table.wire, table.real),
        "overhead_small": lambda pick: over(pick, table.wire_small, table.real_small),
        "delay_ms": lambda pick: float(table.delays[_rows(rows, pick)].mean() * 1_000),
    }
    figures = {figure: _figure(of, everything, rng) for figure, of in counted.items()}
    shuffled = table.kinds.copy()
    np.random.default_rng(rng.getrandbits(32)).shuffle(shuffled)
    return Row(
        scheme=name,
        rate_per_s=rate_per_s,
        messages=table.kinds.size,
        **figures,
        carried=float(table.real.sum() / table.offered) if table.offered else 1.0,
        entropy_type_bits=entropy(table.kinds),
        exact_mi_type_bits=mutual_information(table.kinds, table.exact),
        width=table.width,
        shuffled_mi_type_bits=_told_by_size(shuffled, table),
    )


def _rows(rows: list[NDArray[np.int64]], pick: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([rows[number] for number in pick])


def _mi_type(table: _Table, rows: NDArray[np.int64]) -> float:
    """I(type; size, gap) by the chain rule; the gap's part given the size on a coarse scale, which samples do suffice for."""
    kinds = table.kinds[rows]
    by_size = mutual_information(kinds, table.seen[rows])
    return max(0.0, by_size + max(0.0, conditional_information(kinds, table.gaps[rows], table.coarse[rows])))


def _mi_size(table: _Table, rows: NDArray[np.int64]) -> float:
    return max(0.0, mutual_information(table.sizes[rows], table.seen[rows]))


def _told_by_size(kinds: Labels, table: _Table) -> float:
    """The same estimate from the beginning, for other kinds."""
    width = fitting_width(kinds, table.totals, table.capture % FOLDS)
    return mutual_information(kinds, in_intervals(table.totals, width))


def _prior(kinds: Labels) -> float:
    return float(np.bincount(kinds).max() / kinds.size)


def _figure(of: Callable[[NDArray[np.int64]], float], captures: NDArray[np.int64], rng: random.Random) -> Figure:
    """Its value, and the interval around it: random halves of the captures spread as much as the whole does over experiments."""
    value = of(captures)
    if captures.size < 2:
        return Figure(value, value, value)
    chance = np.random.default_rng(rng.getrandbits(32))
    halves = [np.sort(chance.choice(captures, size=captures.size // 2, replace=False)) for _ in range(HALVES)]
    spread = np.array([of(half) for half in halves])
    low, high = np.percentile(spread - spread.mean(), _CONFIDENCE)
    return Figure(value, value + float(low), value + float(high))


def _tabulate(captures: Iterable[Capture]) -> _Table:
    kinds: list[str] = []
    numbers: dict[str, list[int]] = {name: [] for name in ("sizes", "seen", "gaps", "coarse", "capture")}
    delays: list[float] = []
    sums: list[tuple[float, float, float, float]] = []
    offered = 0
    for number, capture in enumerate(captures):
        totals = [sum(write.sizes) for write in capture.writes]
        times = [write.at for write in capture.writes]
        left = [sent for sent in capture.messages if 0 <= sent.write < len(totals)]
        offered += sum(sent.size for sent in capture.messages)
        large = {sent.write for sent in left if sent.size >= SMALL}
        small = [total for place, total in enumerate(totals) if place not in large]
        real_small = sum(sent.size for sent in left if sent.write not in large)
        sums.append((sum(totals), sum(sent.size for sent in left), sum(small), real_small))
        for sent in left:
            kinds.append(sent.kind)
            numbers["sizes"].append(sent.size)
            numbers["seen"].append(totals[sent.write])
            numbers["coarse"].append(int(4 * log2(totals[sent.write])))
            numbers["gaps"].append(_gap(times, sent.write))
            numbers["capture"].append(number)
            delays.append(times[sent.write] - sent.at)
    column = {name: np.array(values, dtype=np.int64) for name, values in numbers.items()}
    types = labels(kinds)
    width = fitting_width(types, column["seen"], column["capture"] % FOLDS)
    wire, real, wire_small, real_small_ = (np.array(sum_, dtype=float) for sum_ in zip(*sums, strict=True))
    return _Table(
        kinds=types,
        sizes=in_intervals(column["sizes"], width),
        exact=in_intervals(column["sizes"], 1),
        totals=column["seen"],
        seen=in_intervals(column["seen"], width),
        gaps=in_intervals(column["gaps"], 1),
        coarse=in_intervals(column["coarse"], 1),
        delays=np.array(delays),
        capture=column["capture"],
        wire=wire,
        real=real,
        wire_small=wire_small,
        real_small=real_small_,
        offered=float(offered),
        width=width,
    )


def _gap(times: list[float], write: int) -> int:
    """The gap before a write: below 1 ms, then powers of 4 of a millisecond."""
    gap_ms = (times[write] - times[write - 1]) * 1_000 if write else 0.0
    return 0 if gap_ms < 1 else 1 + int(log2(gap_ms) / 2)
