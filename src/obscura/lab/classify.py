"""Classifiers that look for events in windows of 30 s of a link's records: did a block arrive, did an own transaction leave?

Forest and boosting, five folds by capture (each has windows of both classes, interleaved), and the same with shuffled labels as
null control. The observer sees sizes and times of every write; for own transactions, of the link inward too, so that a
transaction that leaves without having come can be told.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from obscura.errors import UserError
from obscura.lab.leakage import Figure, Scheme
from obscura.lab.link import LabLink, Write, opaque
from obscura.lab.mix import Mix
from obscura.limits import CELL
from obscura.wire.message import Message

QUESTIONS = ("block", "own-transaction")
WINDOW_S = 30.0
CAPTURES = 10
BLOCK_BYTES = (100_000, 1_000_000)  # uniform
BLOCK_EVERY_S = 300.0  # mean of the exponential gaps
OWN_EVERY_S = 40.0
RELAY_S = 2.0  # mean of the exponential time for which a node keeps what it relays
MATCH_S = 15.0  # how far back an observer looks for the way in of what goes out
_CARRIED_OVER_S = 600.0  # of a capture before its first window, so that slots have reached their usual backlog
_RESAMPLES = 200
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Arrivals = list[tuple[float, Message]]
Features = list[float]


class Verdict(msgspec.Struct, frozen=True):
    """How well each classifier tells windows with the event from those without: areas under the curve, 0.5 = not at all."""

    scheme: str
    question: str
    windows_per_class: int
    auc_forest: Figure
    auc_boosting: Figure
    null_forest: float
    null_boosting: float
    records_per_s: float
    event_delay_p95_s: float


class _Capture(msgspec.Struct):
    rows: list[Features]
    labels: list[bool]
    delays: list[float]
    records: int
    seconds: float


def check(mix: Mix) -> None:
    """Raise ``UserError`` for a mix that the questions cannot be asked of."""
    names = {kind.type for kind in mix.types if kind.p > 0}
    if "tx" not in names or not names - {"tx", "block", "headers"}:
        raise UserError(
            "own transactions are looked for among others: the mix needs tx, and a type beside tx, block, headers"
        )


def classify(scheme: Scheme, question: str, mix: Mix, windows: int, seed: int, *, trees: int = 200) -> Verdict:
    """``windows`` per class from ``CAPTURES`` captures. A figure is over all windows, its interval from resampling them."""
    check(mix)
    every_s = BLOCK_EVERY_S if question == "block" else OWN_EVERY_S
    share = 1 - np.exp(-WINDOW_S / every_s)
    per_capture = int(np.ceil(windows / min(share, 1 - share) / CAPTURES * 1.15)) + 2
    observe = _block_capture if question == "block" else _own_capture
    captures = [
        observe(scheme, mix, random.Random(f"{question} {seed} {number}"), per_capture) for number in range(CAPTURES)
    ]
    rows, labels, groups = _balanced(captures, windows, np.random.default_rng(seed))
    forest = RandomForestClassifier(trees, min_samples_leaf=3, random_state=seed, n_jobs=1)
    boosting = HistGradientBoostingClassifier(max_iter=trees // 2, random_state=seed)
    chance = np.random.default_rng(seed + 1)
    shuffled = chance.permutation(labels)
    delays = [delay for capture in captures for delay in capture.delays]
    return Verdict(
        scheme=scheme.name,
        question=question,
        windows_per_class=int(labels.sum()),
        auc_forest=area(forest, rows, labels, groups, seed),
        auc_boosting=area(boosting, rows, labels, groups, seed),
        null_forest=area(forest, rows, shuffled, groups, seed).value,
        null_boosting=area(boosting, rows, shuffled, groups, seed).value,
        records_per_s=sum(capture.records for capture in captures) / sum(capture.seconds for capture in captures),
        event_delay_p95_s=float(np.percentile(delays, 95)) if delays else 0.0,
    )


def _balanced(captures: Sequence[_Capture], windows: int, chance: np.random.Generator) -> tuple[Any, Any, Any]:
    rows = np.array([row for capture in captures for row in capture.rows])
    labels = np.array([label for capture in captures for label in capture.labels])
    groups = np.repeat(np.arange(len(captures)), [len(capture.rows) for capture in captures])
    per_class = min(windows, int(labels.sum()), int((~labels).sum()))
    chosen = np.concatenate(
        [chance.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in (False, True)]
    )
    return rows[chosen], labels[chosen], groups[chosen]


def area(model: Any, rows: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], seed: int) -> Figure:
    """The area under the curve over five folds that keep groups together, with its interval from resampling."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # so few rows are slower on several threads
        scores = cross_val_predict(model, rows, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    chance = np.random.default_rng(seed)
    areas = []
    for _ in range(_RESAMPLES):
        pick = chance.integers(0, labels.size, labels.size)
        if 0 < labels[pick].sum() < labels.size:
            areas.append(roc_auc_score(labels[pick], scores[pick]))
    low, high = np.percentile(areas, (2.5, 97.5))
    return Figure(float(roc_auc_score(labels, scores)), float(low), float(high))


# --- What happens -----------------------------------------------------------------------------------------------------


def _poisson(rng: random.Random, mean_s: float, until: float) -> list[float]:
    times, now = [], rng.expovariate(1 / mean_s)
    while now < until:
        times.append(now)
        now += rng.expovariate(1 / mean_s)
    return times


def _background(mix: Mix, rng: random.Random, until: float) -> Arrivals:
    arrivals: Arrivals = []
    for at, message in mix.arrivals(rng, int(until * mix.rate_per_s * 1.2) + 50):
        if at >= until:
            break
        arrivals.append((at, message))
    return arrivals


def _run(scheme: Scheme, rng: random.Random, arrivals: Arrivals, until: float) -> LabLink:
    link = LabLink(scheme.knobs, rng)
    link.run(sorted(arrivals, key=_time), until)
    return link


def _time(arrival: tuple[float, Message]) -> float:
    return arrival[0]


def _block_capture(scheme: Scheme, mix: Mix, rng: random.Random, windows: int) -> _Capture:
    """One link that moves what the mix says, and blocks at Poisson times."""
    end = _CARRIED_OVER_S + windows * WINDOW_S
    block = opaque("block")
    times = _poisson(rng, BLOCK_EVERY_S, end)
    blocks: Arrivals = [(at, block(bytes(rng.randint(*BLOCK_BYTES)))) for at in times]
    link = _run(scheme, rng, _background(mix.without("block", "headers"), rng, end) + blocks, end)
    return _windows(link, times, end, windows, "block", lambda start, stop, writes: _shape_of(writes, start))


def _own_capture(scheme: Scheme, mix: Mix, rng: random.Random, windows: int) -> _Capture:
    """A node's links inward and outward: it relays what comes in, and sends transactions of its own between."""
    end = _CARRIED_OVER_S + windows * WINDOW_S
    other = mix.without("block", "headers", "tx")
    transactions = mix.without(*(kind.type for kind in mix.types if kind.type != "tx"))
    coming = _background(transactions, rng, end)
    inward = _run(scheme, rng, _background(other, rng, end) + coming, end)
    relayed: Arrivals = []
    for sent in inward.messages:
        if sent.kind == "tx" and sent.write >= 0:
            leaves = inward.writes[sent.write].at + rng.expovariate(1 / RELAY_S)
            relayed.append((leaves, opaque("tx")(bytes(sent.size - 20))))
    times = _poisson(rng, OWN_EVERY_S, end)
    law = transactions.types[0].payload
    own: Arrivals = [(at, opaque("tx")(bytes(law.draw(rng)))) for at in times]
    going = [arrival for arrival in relayed if arrival[0] < end]
    outward = _run(scheme, rng, _background(other, rng, end) + going + own, end)
    came = inward.writes
    came_at = [write.at for write in came]

    def look(start: float, stop: float, writes: list[Write]) -> Features:
        inside = came[bisect_left(came_at, start) : bisect_left(came_at, stop)]
        earlier = came[bisect_left(came_at, start - 2 * MATCH_S) : bisect_left(came_at, stop)]
        return [*_shape_of(writes, start), *_shape_of(inside, start), *_unmatched(writes, earlier)]

    owned = set(times)
    capture = _windows(outward, times, end, windows, "tx", look)
    capture.delays = [
        outward.writes[sent.write].at - sent.at
        for sent in outward.messages
        if sent.write >= 0 and sent.at in owned and sent.kind == "tx"
    ]
    return capture


def _windows(
    link: LabLink,
    events: list[float],
    end: float,
    windows: int,
    kind: str,
    look: Callable[[float, float, list[Write]], Features],
) -> _Capture:
    writes = link.writes
    at = [write.at for write in writes]
    capture = _Capture([], [], [], sum(len(write.sizes) for write in writes), end)
    for number in range(windows):
        start = _CARRIED_OVER_S + number * WINDOW_S
        stop = start + WINDOW_S
        capture.rows.append(look(start, stop, writes[bisect_left(at, start) : bisect_left(at, stop)]))
        capture.labels.append(bisect_left(events, start) < bisect_left(events, stop))
    capture.delays = [
        writes[sent.write].at - sent.at for sent in link.messages if sent.kind == kind and sent.write >= 0
    ]
    return capture


# --- What the observer makes of it ------------------------------------------------------------------------------------


def _shape_of(writes: list[Write], start: float) -> Features:
    """Numbers, sizes, gaps and rates of one window of one link."""
    sizes = np.array([sum(write.sizes) for write in writes] or [0])
    times = np.array([write.at - start for write in writes] or [0.0])
    gaps = np.diff(times, prepend=0.0)
    seconds = np.bincount(np.clip(times.astype(int), 0, int(WINDOW_S)), weights=sizes, minlength=int(WINDOW_S) + 1)
    cells = [(sizes <= bound * CELL).sum() for bound in (1, 2, 4, 16)]
    largest = np.sort(sizes)[-3:]
    return [
        float(len(writes)),
        float(sum(len(write.sizes) for write in writes)),
        float(sizes.sum()),
        *(float(size) for size in np.pad(largest, (3 - largest.size, 0))),
        float(sizes.mean()),
        float(sizes.std()),
        *(float(count) for count in cells),
        *(float(value) for value in np.quantile(gaps, _QUANTILES)),
        float(gaps.std()),
        float((gaps < 0.05).sum()),
        float(seconds.max()),
        float(seconds.std()),
    ]


def _unmatched(going: list[Write], came: list[Write]) -> Features:
    """Writes outward that no write of the same length inward explains, by what else may have such an exact length."""
    times: dict[int, list[float]] = {}
    for write in came:
        times.setdefault(sum(write.sizes), []).append(write.at)
    missing = [size for write in going if not _came(times, size := sum(write.sizes), write.at)]
    lists = [size for size in missing if not _is_list(size)]
    return [float(len(missing)), float(len(lists)), float(max(lists, default=0)), float(sum(missing))]


def _came(times: dict[int, list[float]], size: int, before: float) -> bool:
    """Whether one of that size came shortly before; it explains no second one."""
    known = times.get(size, [])
    at = bisect_left(known, before - MATCH_S)
    if at < len(known) and known[at] < before:
        known.pop(at)
        return True
    return False


def _is_list(size: int) -> bool:
    """Whether an exact length is that of a usual list of hashes, addresses or locators, or too short for a transaction."""
    payload = size - 20 - 2 * 21
    lattices = ((1, 36, 24), (1, 30, 39), (37, 32, 24))
    return payload < 180 or any(
        (payload - base) % item == 0 and (payload - base) // item <= most for base, item, most in lattices
    )
