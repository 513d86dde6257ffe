"""The score card of a carrier: what each judge says of its flows beside what it says of the genuine ones. Text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb
from typing import Any

import msgspec

from obscura.lab.encrypted import blocked
from obscura.lab.flow_classes import Areas
from obscura.lab.verdicts import Dissected, Label, Seen, is_right

GOAL_AUC = 0.75
_PERCENT = 100.0
_CHANCE = 0.01
_ABOUT_TCP = ("anomaly stream.", "SURICATA STREAM ")  # segments sent twice: how busy the machine was, not what it said


class Labels(msgspec.Struct, frozen=True):
    """Share of flows with the cover's label by DPI, and how many flows had each risk."""

    right_percent: float
    risks: dict[str, int]
    flows: int


class Events(msgspec.Struct, frozen=True):
    """Share of flows with the cover's protocol in both directions, and how many events of each kind."""

    right_percent: float
    events: dict[str, int]
    flows: int


class Parsed(msgspec.Struct, frozen=True):
    """tshark. ``None``: the carrier has no such thing."""

    flows: int
    requests: int
    paired_percent: float | None
    records_opened_percent: float | None
    flows_with_http_percent: float | None
    sequences: dict[str, int]
    errors_per_flow: float
    warnings_per_flow: float


class Side(msgspec.Struct, frozen=True):
    """All verdicts on one kind of flow. ``suricata`` is ``None`` where it did not run."""

    ndpi: Labels
    nfstream: Labels
    suricata: Events | None
    tshark: Parsed
    blocked: int
    connections: int
    ja4: dict[str, int]
    hassh: dict[str, int]


class Level(msgspec.Struct, frozen=True):
    """One level: the carrier's flows, the genuine ones, and whether a classifier tells them apart."""

    level: str
    ours: Side
    genuine: Side
    classes: Areas | None
    failures: list[str]
    seconds: float


class Card(msgspec.Struct, frozen=True):
    """Everything about one carrier."""

    carrier: str
    flows: int
    date: str
    tools: dict[str, str]
    delay_ms: float
    levels: list[Level]
    faults: list[str]


def labels_of(labels: Iterable[Label], wanted: str) -> Labels:
    """Of one kind of flow."""
    chosen = list(labels)
    right = sum(is_right(label, wanted) for label in chosen)
    return Labels(_share(right, len(chosen)), dict(Counter(risk for one in chosen for risk in one.risks)), len(chosen))


def events_of(seen: Iterable[Seen], wanted: str) -> Events:
    """Of one kind of flow. A flow without a byte of payload has no protocol, and counts as wrong."""
    chosen = list(seen)
    right = sum(one.to_server == one.to_client == wanted for one in chosen)
    return Events(
        _share(right, len(chosen)), dict(Counter(event for one in chosen for event in one.events)), len(chosen)
    )


def parsed_of(parts: Sequence[Dissected]) -> Parsed:
    """Of one kind of flow, whose counts may lie at several servers."""
    flows = sum(part.flows for part in parts)
    requests = sum(part.requests for part in parts)
    exchanges = max(requests, sum(part.responses for part in parts))  # a response to nothing is unpaired too
    records = sum(part.records for part in parts)
    with_http = sum(part.with_http for part in parts)
    sequences: Counter[str] = sum((part.sequences for part in parts), Counter())
    return Parsed(
        flows=flows,
        requests=requests,
        paired_percent=_share(sum(part.paired for part in parts), exchanges) if exchanges else None,
        records_opened_percent=_share(sum(part.opened for part in parts), records) if records else None,
        flows_with_http_percent=_share(with_http, flows) if with_http or records else None,
        sequences=dict(sequences),
        errors_per_flow=round(sum(part.errors for part in parts) / max(1, flows), 3),
        warnings_per_flow=round(sum(part.warnings for part in parts) / max(1, flows), 3),
    )


def side(
    wanted: tuple[str, str],
    ndpi: Sequence[Label],
    nfstream: Sequence[Label],
    suricata: Sequence[Seen] | None,
    ja4: Iterable[dict[str, int]],
    dissected: Sequence[Dissected],
    firsts: Sequence[bytes],
) -> Side:
    """``wanted``: the cover's label of nDPI, and its name in Suricata."""
    hellos: Counter[str] = sum((Counter(one) for one in ja4), Counter())
    hassh: Counter[str] = sum((one.hassh for one in dissected), Counter())
    return Side(
        ndpi=labels_of(ndpi, wanted[0]),
        nfstream=labels_of(nfstream, wanted[0]),
        suricata=events_of(suricata, wanted[1]) if suricata is not None else None,
        tshark=parsed_of(dissected),
        blocked=blocked(firsts),
        connections=len(firsts),
        ja4=dict(hellos),
        hassh=dict(hassh),
    )


def faults_of(levels: Sequence[Level]) -> list[str]:
    """What the carrier fails at, each as a sentence: less than all, or other than genuine flows.

    Rare events of genuine flows are counted over all levels, which are nothing to them.
    """
    genuine = [level.genuine.suricata for level in levels if level.genuine.suricata is not None]
    events = sum((Counter(one.events) for one in genuine), Counter[str]())
    pooled = Events(_PERCENT, dict(events), sum(one.flows for one in genuine))
    return [f"{level.level}: {text}" for level in levels for text in _level_faults(level, pooled)]


def _level_faults(level: Level, usual: Events) -> list[str]:
    ours, genuine = level.ours, level.genuine
    found = _unseen(ours, "ours") + _unseen(genuine, "genuine ones")
    found += [
        f"{name} does not know all flows for what they should be: {mine.right_percent:g} %"
        for name, mine, theirs in (("nDPI", ours.ndpi, genuine.ndpi), ("nfstream", ours.nfstream, genuine.nfstream))
        if mine.right_percent < min(_PERCENT, theirs.right_percent)
    ]
    for name, mine, theirs in (("nDPI", ours.ndpi, genuine.ndpi), ("nfstream", ours.nfstream, genuine.nfstream)):
        if set(mine.risks) != set(theirs.risks):
            found.append(f"{name} notes other risks: {_names(mine.risks)}, genuine {_names(theirs.risks)}")
    if ours.suricata is not None and genuine.suricata is not None:
        if ours.suricata.right_percent < min(_PERCENT, genuine.suricata.right_percent):
            found.append(f"Suricata does not see the protocol both ways: {ours.suricata.right_percent:g} %")
        if events := _own_events(ours.suricata, usual):
            found.append(f"Suricata: {_names(events)}; genuine {_names(usual.events)}")
    found += _parsing_faults(ours.tshark, genuine.tshark)
    if ours.blocked:
        found.append(f"the rule against fully encrypted traffic blocks {ours.blocked} of {ours.connections}")
    if level.failures:
        found.append(f"{len(level.failures)} sessions failed, the first: {level.failures[0]}")
    return found


def _unseen(side: Side, whose: str) -> list[str]:
    """Judges that have read less than half of the connections: what they say is no verdict on the others."""
    judges = {"nDPI": side.ndpi.flows, "nfstream": side.nfstream.flows, "tshark": side.tshark.flows}
    if side.suricata is not None:
        judges["Suricata"] = side.suricata.flows
    most = max(side.connections, 1)
    return [f"{name} saw {seen} of {most} connections, {whose}" for name, seen in judges.items() if 2 * seen < most]


def _own_events(ours: Events, genuine: Events) -> dict[str, int]:
    """Those that genuine flows do not have, or that would be as many by chance in less than one run of a hundred.

    Some are chance: of ciphertext that is taken for a message in the clear, one byte in 256 names a message that is out of place.
    """
    return {
        name: count
        for name, count in ours.events.items()
        if not name.startswith(_ABOUT_TCP)
        and chance_of(count, ours.flows, genuine.events.get(name, 0), genuine.flows) < _CHANCE
    }


def chance_of(count: int, flows: int, others: int, other_flows: int) -> float:
    """How probable so many of the events, or more, are among ``flows`` if they fall on all flows alike (Fisher's exact test).

    0 if the others have none at all: what genuine flows never do is not taken for chance.
    """
    if not others:
        return 0.0
    events, all_flows = count + others, flows + other_flows
    worse = sum(comb(flows, k) * comb(other_flows, events - k) for k in range(count, min(events, flows) + 1))
    return worse / comb(all_flows, events)


def _parsing_faults(ours: Parsed, genuine: Parsed) -> list[str]:
    named = (
        ("pairs requests with responses", ours.paired_percent, genuine.paired_percent),
        ("opens TLS records", ours.records_opened_percent, genuine.records_opened_percent),
        ("finds HTTP in flows", ours.flows_with_http_percent, genuine.flows_with_http_percent),
    )
    found = [
        f"tshark {what} in {mine or 0:g} % of cases, of genuine ones in {theirs:g} %"
        for what, mine, theirs in named
        if theirs is not None and (mine is None or mine < min(_PERCENT, theirs))
    ]
    if set(ours.sequences) - set(genuine.sequences):
        found.append(f"tshark sees other messages: {_names(ours.sequences)}, genuine {_names(genuine.sequences)}")
    if ours.errors_per_flow > genuine.errors_per_flow:
        found.append(f"tshark's errors: {ours.errors_per_flow:g} a flow, genuine {genuine.errors_per_flow:g}")
    return found


def rows(card: Card) -> list[dict[str, str]]:
    """The card as a table: one row per judge, two columns per level."""
    table: list[dict[str, str]] = []
    for level in card.levels:
        for name, side in (("ours", level.ours), ("genuine", level.genuine)):
            for at, (what, value) in enumerate(_lines(side)):
                if len(table) <= at:
                    table.append({"judge": what})
                table[at][f"{level.level} {name}"] = value
    return table


def area_rows(card: Card) -> list[dict[str, str]]:
    """The classifiers, one row per level."""
    shown = []
    for level in card.levels:
        line = {"level": level.level}
        for name in ("forest", "boosting", "null_forest", "null_boosting"):
            figure = getattr(level.classes, name) if level.classes is not None else None
            line[name] = (
                f"{figure.value:.3f} ({figure.low:.3f}..{figure.high:.3f})" if figure is not None else "too few"
            )
        shown.append(line)
    return shown


def _lines(side: Side) -> list[tuple[str, str]]:
    parsed = side.tshark
    suricata = side.suricata
    return [
        ("nDPI label", f"{side.ndpi.right_percent:g} % of {side.ndpi.flows}"),
        ("nDPI risks", _names(side.ndpi.risks)),
        ("nfstream label", f"{side.nfstream.right_percent:g} % of {side.nfstream.flows}"),
        ("nfstream risks", _names(side.nfstream.risks)),
        ("Suricata both ways", f"{suricata.right_percent:g} % of {suricata.flows}" if suricata else "not run"),
        ("Suricata events", _names(suricata.events) if suricata else "not run"),
        ("tshark paired", _percent(parsed.paired_percent)),
        ("tshark TLS records opened", _percent(parsed.records_opened_percent)),
        ("tshark HTTP inside", _percent(parsed.flows_with_http_percent)),
        ("tshark SSH messages", _names(parsed.sequences)),
        ("tshark errors, warnings a flow", f"{parsed.errors_per_flow:g}, {parsed.warnings_per_flow:g}"),
        ("blocked as fully encrypted", f"{side.blocked} of {side.connections}"),
        ("JA4", _names(side.ja4) if suricata else "not run"),
        ("HASSH", _names(side.hassh)),
    ]


def _share(part: int, whole: int) -> float:
    """Percent, rounded down, so that 100 means all."""
    return int(part * 1000 / whole) / 10 if whole else 0.0


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:g} %"


def _names(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} ×{count}" for name, count in sorted(counted.items())) or "none"


def as_json(card: Card) -> dict[str, Any]:
    """Ready for JSON."""
    built: dict[str, Any] = msgspec.to_builtins(card)
    return built
