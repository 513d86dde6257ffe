"""What other people's tools print about a capture, read into values: nDPI, nfstream, Suricata, tshark."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

_NDPI_FLOW = re.compile(r"^\s*\d+\s+TCP (\S+?):(\d+) <?->\s*(\S+?):(\d+) (.*)$")
_NDPI_PROTOCOL = re.compile(r"\[proto: [0-9.]+/([^\]]+)\]")
_NDPI_CONFIDENCE = re.compile(r"\[Confidence: ([^\]]+)\]")
_NDPI_RISK = re.compile(r"\[Risk: (.*?)\]\[Risk Score")


class Label(msgspec.Struct, frozen=True):
    """What a dissector takes one flow for. ``by_dpi``: from its bytes, not from its port."""

    server: str
    protocol: str
    by_dpi: bool
    risks: tuple[str, ...]


class Seen(msgspec.Struct):
    """What Suricata says of one flow: the protocol each way, and its events."""

    server: str
    to_server: str = "none"
    to_client: str = "none"
    events: list[str] = []


class Dissected(msgspec.Struct):
    """Counts of tshark over the flows of one server."""

    flows: int = 0
    requests: int = 0
    paired: int = 0
    responses: int = 0
    records: int = 0
    opened: int = 0
    with_http: int = 0
    errors: int = 0
    warnings: int = 0
    sequences: Counter[str] = msgspec.field(default_factory=Counter)
    hassh: Counter[str] = msgspec.field(default_factory=Counter)


def read_ndpi(text: str) -> list[Label]:
    """Flows of ``ndpiReader -v 2``. Both ends of a flow have the server's address here, so either names it."""
    found = []
    for line in text.splitlines():
        flow = _NDPI_FLOW.match(line)
        if flow is None:
            continue
        rest = flow[5]
        protocol, confidence, risk = (
            pattern.search(rest) for pattern in (_NDPI_PROTOCOL, _NDPI_CONFIDENCE, _NDPI_RISK)
        )
        risks = tuple(sorted(part.strip() for part in (risk[1] if risk else "").split("**") if part.strip()))
        by_dpi = confidence is not None and confidence[1].startswith("DPI")
        found.append(Label(flow[1], protocol[1] if protocol else "Unknown", by_dpi, risks))
    return found


def is_right(label: Label, wanted: str) -> bool:
    """Whether the protocol is the cover's, by its bytes. ``HTTP.WebSocket`` is HTTP."""
    return label.by_dpi and wanted in re.split(r"[./]", label.protocol)


def read_suricata(lines: Iterable[bytes]) -> list[Seen]:
    """Flows of an ``eve.json``: protocol each way, alerts and anomalies. TCP only."""
    flows: dict[int, Seen] = {}
    for line in lines:
        event: dict[str, Any] = msgspec.json.decode(line)
        if event.get("proto") != "TCP" or "flow_id" not in event:
            continue
        seen = flows.setdefault(event["flow_id"], Seen(event["dest_ip"], events=[]))
        match event["event_type"]:
            case "flow":
                both = event.get("app_proto", "none")
                seen.to_server = event.get("app_proto_ts", both)
                seen.to_client = event.get("app_proto_tc", both)
            case "alert":
                seen.events.append(event["alert"]["signature"])
            case "anomaly":
                seen.events.append(f"anomaly {event['anomaly'].get('event', '?')}")
    return list(flows.values())


def read_ja4(lines: Iterable[bytes]) -> dict[str, Counter[str]]:
    """JA4 of the hellos of an ``eve.json``, by server."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        event: dict[str, Any] = msgspec.json.decode(line)
        if event.get("event_type") == "tls" and "ja4" in event.get("tls", {}):
            found.setdefault(event["dest_ip"], Counter())[event["tls"]["ja4"]] += 1
    return found


# One row of tshark per packet; several values of one field are joined by ",".
TSHARK_FIELDS = (
    "tcp.stream",
    "ip.dst",
    "_ws.expert.severity",
    "_ws.expert.group",
    "http.request.method",
    "http.request_in",
    "http.response.code",
    "dns.flags.response",
    "dns.response_to",
    "tls.record.length",
    "tls.record.content_type",
    "ssh.message_code",
    "ssh.kex.hassh",
)
_ERROR, _WARNING = "8388608", "6291456"
_SEQUENCE = "33554432"  # the group of what an expert says about TCP: how busy the machine was


def read_tshark(rows: Iterable[Sequence[str]]) -> dict[str, Dissected]:
    """Rows with ``TSHARK_FIELDS``, in order of time."""
    found: dict[str, Dissected] = {}
    streams: dict[str, tuple[str, list[str], bool]] = {}
    for row in rows:
        stream, server, severity, group, method, answered, status, is_answer, answers, records, opened, codes, hassh = (
            row
        )
        seen = found.setdefault(server, Dissected())
        streams.setdefault(stream, (server, [], False))
        pairs = zip(severity.split(","), group.split(","), strict=False)
        severities = [one for one, about in pairs if about != _SEQUENCE]
        seen.errors += severities.count(_ERROR)
        seen.warnings += severities.count(_WARNING)
        seen.requests += _count(method) + is_answer.split(",").count("0")
        seen.paired += _count(answered) + _count(answers)
        seen.responses += _count(status) + is_answer.split(",").count("1")
        seen.records += _count(records)
        seen.opened += _count(opened)
        if codes:
            streams[stream][1].extend(codes.split(","))
        if method or status:
            streams[stream] = (*streams[stream][:2], True)
        if hassh:
            seen.hassh[hassh] += 1
    for server, sequence, has_http in streams.values():
        seen = found[server]
        seen.flows += 1
        seen.with_http += has_http
        if sequence:
            seen.sequences[" ".join(sequence)] += 1
    return found


def _count(field: str) -> int:
    return len(field.split(",")) if field else 0
