"""The pure parts of `lab morph`: what is read from other people's tools, the censor's rule, what a score card says."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.lab.card import Card, Events, Level, Side, area_rows, as_json, chance_of, faults_of, rows, side
from obscura.lab.encrypted import blocked, exemption
from obscura.lab.flow_classes import tell_apart
from obscura.lab.flows import Flow, Packet, features, read_flows
from obscura.lab.load import MAX_PAGES, errand, link_steps, site_files, visit
from obscura.lab.verdicts import Label, is_right, read_ja4, read_ndpi, read_suricata, read_tshark

RECORDED = json.loads((Path(__file__).parent / "data" / "judges.json").read_text())
SERVER = "192.0.2.20"


def events() -> list[bytes]:
    return [json.dumps(event).encode() for event in RECORDED["suricata"]]


def test_ndpi_is_read_with_confidence_and_risks() -> None:
    guessed, known = read_ndpi("\n".join(RECORDED["ndpi"]))
    assert (guessed.protocol, guessed.by_dpi, guessed.risks) == ("HTTP", False, ())
    assert (known.server, known.protocol, known.by_dpi) == (SERVER, "HTTP", True)
    assert known.risks == ("HTTP Numeric IP Address",)


@pytest.mark.parametrize(
    ("protocol", "by_dpi", "wanted", "right"),
    [
        ("HTTP", True, "HTTP", True),
        ("HTTP.WebSocket", True, "HTTP", True),
        ("HTTP", False, "HTTP", False),
        ("HTTPS", True, "HTTP", False),
        ("Unknown", True, "TLS", False),
    ],
)
def test_a_label_by_port_or_of_another_protocol_is_not_right(
    protocol: str, by_dpi: bool, wanted: str, right: bool
) -> None:
    assert is_right(Label(SERVER, protocol, by_dpi, ()), wanted) is right


def test_suricata_is_read_per_flow_and_direction() -> None:
    naive, genuine = (seen for seen in read_suricata(events()) if seen.to_client != "none")
    assert (naive.to_server, naive.to_client) == ("failed", "http")
    assert naive.events == [
        "SURICATA Applayer Detect protocol only one direction",
        "anomaly APPLAYER_DETECT_PROTOCOL_ONLY_ONE_DIRECTION",
    ]
    assert (genuine.to_server, genuine.to_client, genuine.events) == ("http", "http", [])
    assert read_ja4(events()) == {SERVER: Counter({"t13d1812h1_85036bcba153_d41ae481755e": 1})}


def test_tshark_is_read_per_server() -> None:
    found = read_tshark(RECORDED["tshark"])
    assert found[SERVER].sequences == {"20 20 30 31 21 21": 1}
    assert (found[SERVER].requests, found[SERVER].responses, found[SERVER].paired) == (3, 3, 3)
    assert found[SERVER].records == found[SERVER].opened == 23
    assert (found[SERVER].flows, found[SERVER].with_http) == (3, 2)
    assert found[SERVER].errors == 0
    assert found[SERVER].warnings == 1  # the expert's words about TCP itself are left out
    naive = found["192.0.2.99"]
    assert (naive.requests, naive.responses, naive.paired) == (0, 12, 0)


# --- Wu and others, algorithm 1 --------------------------------------------------------------------------------------

RANDOM = random.Random(5).randbytes(300)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"", "nothing was sent"),
        (bytes(300), "bits per byte"),
        (b"\xff" * 300, "bits per byte"),
        (b"SSH-2." + RANDOM, "six printable bytes first"),
        (b"\x00SSH-2" + RANDOM, None),
        (b"\xb7" + b"a7" * 40 + RANDOM[:70], "mostly printable"),
        (RANDOM[:120] + b"k7w" * 7 + RANDOM[120:], "a run of printable bytes"),
        (RANDOM[:120] + (b"k7w" * 7)[:20] + b"\xd2" + RANDOM[121:], None),
        (b"\x16\x03\x01" + RANDOM, "TLS or HTTP"),
        (b"\x17\x03\x09" + RANDOM, "TLS or HTTP"),
        (b"\x16\x03\x0a" + RANDOM, None),
        (b"\x18\x03\x01" + RANDOM, None),
        (b"GET " + b"\xd2" + RANDOM, "TLS or HTTP"),
        (b"GET\x01" + RANDOM, None),
        (RANDOM, None),
    ],
)
def test_each_exemption_of_the_rule_and_what_just_misses_it(first: bytes, why: str | None) -> None:
    assert exemption(first) == why
    assert blocked([first]) == (why is None)


@given(st.binary(min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_few_and_many_bits_are_let_through_at_any_length(data: bytes) -> None:
    bits = sum(byte.bit_count() for byte in data)
    if bits * 10 <= 34 * len(data) or bits * 10 >= 46 * len(data):
        assert exemption(data) == "bits per byte"


# --- Flows and classifiers -------------------------------------------------------------------------------------------


def test_flows_are_read_by_stream_with_directions() -> None:
    table = [
        ["0", "1.0", SERVER, "50000", "443", "0"],
        ["0", "1.5", SERVER, "50000", "443", "517"],
        ["1", "1.6", SERVER, "50001", "443", "9"],
        ["0", "1.7", SERVER, "443", "50000", "1448"],
    ]
    assert read_flows(table) == [
        Flow(SERVER, (Packet(1.5, 517), Packet(1.7, -1448))),
        Flow(SERVER, (Packet(1.6, 9),)),
    ]


def drawn(rng: random.Random, scale: int) -> Flow:
    at, packets = 0.0, []
    for _ in range(rng.randint(1, 60)):
        at += rng.expovariate(50)
        packets.append(Packet(at, rng.choice((1, -1)) * rng.randint(1, scale)))
    return Flow(SERVER, tuple(packets))


def test_every_flow_has_as_many_features() -> None:
    rng = random.Random(1)
    assert len({len(features(drawn(rng, 1_448))) for _ in range(30)}) == 1
    assert len(features(Flow(SERVER, (Packet(0.0, 1),)))) == len(features(drawn(rng, 9)))


def test_flows_of_one_law_are_not_told_apart_and_of_two_laws_are() -> None:
    rng = random.Random(2)
    genuine, others = ([drawn(rng, 1_448) for _ in range(40)] for _ in range(2))
    found = tell_apart([drawn(rng, 300) for _ in range(40)], genuine, others, 1, trees=12)
    assert found is not None
    assert found.forest.value > 0.95
    assert found.boosting.value > 0.95
    assert 0.3 < found.null_forest.value < 0.7
    assert 0.3 < found.null_boosting.value < 0.7
    assert tell_apart(genuine[:9], genuine, others, 1) is None


# --- The card --------------------------------------------------------------------------------------------------------


def one_side(**changes: object) -> Side:
    dissected = read_tshark(RECORDED["tshark"])[SERVER]
    label = Label(SERVER, "TLS", True, ())
    (event,) = RECORDED["suricata"][3:4]
    seen = read_suricata([json.dumps({**event, "app_proto": "tls", "flow_id": n}).encode() for n in range(3)])
    made = side(
        ("TLS", "tls"), [label] * 3, [label] * 3, seen, [{"t13": 3}], [dissected], [b"\x16\x03\x01" + RANDOM] * 3
    )
    return msgspec.structs.replace(made, **changes)


def level(ours: Side, genuine: Side, failures: list[str] | None = None) -> Level:
    return Level("none", ours, genuine, None, failures or [], 1.0)


def test_equal_sides_have_no_fault() -> None:
    assert faults_of([level(one_side(), one_side())]) == []


def changed(name: str, **fields: object) -> Side:
    return one_side(**{name: msgspec.structs.replace(getattr(one_side(), name), **fields)})


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (changed("ndpi", right_percent=99.5), "nDPI does not know all flows"),
        (changed("nfstream", risks={"SUSPICIOUS_ENTROPY": 1}), "nfstream notes other risks: SUSPICIOUS_ENTROPY"),
        (changed("suricata", right_percent=0.0), "Suricata does not see the protocol both ways"),
        (changed("suricata", events={"SURICATA TLS invalid record type": 1}), "Suricata: SURICATA TLS invalid"),
        (changed("tshark", paired_percent=None), "tshark pairs requests with responses in 0 %"),
        (changed("tshark", records_opened_percent=99.9), "tshark opens TLS records in 99.9 %"),
        (changed("tshark", sequences={"20 20": 3}), "tshark sees other messages: 20 20"),
        (changed("tshark", errors_per_flow=0.1), "tshark's errors: 0.1"),
        (one_side(blocked=2), "fully encrypted traffic blocks 2 of 3"),
    ],
)
def test_each_difference_is_a_fault(ours: Side, said: str) -> None:
    (fault,) = faults_of([level(ours, one_side())])
    assert said in fault


@pytest.mark.parametrize(("ours", "genuine", "is_fault"), [(1, 0, True), (1, 1, False), (3, 2, False), (12, 1, True)])
def test_events_that_genuine_flows_have_as_often_are_chance(ours: int, genuine: int, is_fault: bool) -> None:
    sides = [
        one_side(suricata=Events(100.0, {"anomaly long_kex_record": count} if count else {}, flows))
        for count, flows in ((ours, 200), (genuine, 400))
    ]
    assert bool(faults_of([level(*sides)])) == is_fault
    quiet = level(one_side(), one_side())
    assert bool(faults_of([quiet, level(*sides), quiet])) == is_fault  # genuine flows are the same at each level


def test_the_chance_of_events_is_fishers() -> None:  # numbers of scipy.stats.fisher_exact, alternative "greater"
    assert chance_of(1, 200, 1, 400) == pytest.approx(0.5559265442)
    assert chance_of(12, 200, 1, 400) == pytest.approx(1.3757199e-05)
    assert chance_of(3, 2, 1, 2) == 0.0  # more than one in a flow is no longer one of many flows


def test_a_genuine_side_that_fails_too_excuses_and_failed_sessions_do_not() -> None:
    worse = changed("ndpi", right_percent=50.0, risks={"a": 1})
    assert faults_of([level(worse, worse)]) == []
    assert "1 sessions failed" in faults_of([level(one_side(), one_side(), ["no route"])])[0]


@pytest.mark.parametrize("name", ["ndpi", "nfstream", "suricata", "tshark"])
def test_a_judge_that_read_next_to_nothing_has_not_judged(name: str) -> None:
    """Nothing is labelled wrongly, and nothing else than genuine flows, where no flow is read at all."""
    blind = changed(name, flows=1)
    for sides in ((blind, one_side()), (one_side(), blind)):
        (fault,) = faults_of([level(*sides)])
        assert "saw 1 of 3 connections" in fault
    nothing = side(("TLS", "tls"), [], [], [], [], [], [])
    assert len(faults_of([level(nothing, nothing)])) == 8


def test_a_judge_that_did_not_run_is_said_to_have_not() -> None:
    without = one_side(suricata=None)
    card = Card("tls", 3, "today", {"suricata": "not run"}, 5.0, [level(without, without)], [])
    table = {row["judge"]: row["none ours"] for row in rows(card)}
    assert table["Suricata both ways"] == table["Suricata events"] == table["JA4"] == "not run"
    assert area_rows(card)[0]["forest"] == "too few"
    assert json.loads(json.dumps(as_json(card)))["levels"][0]["ours"]["suricata"] is None


# --- What sessions do -------------------------------------------------------------------------------------------------


def test_loads_are_within_what_the_parts_take() -> None:
    rng = random.Random(4)
    files = list(site_files(rng))
    assert "index.html" in files
    for _ in range(200):
        assert all(300 <= step.size <= 60_000 and step.what in ("up", "down", "block") for step in link_steps(rng))
        assert 1 <= len(visit(rng, files).paths) <= MAX_PAGES
        assert errand(rng).stdin <= 200_000
