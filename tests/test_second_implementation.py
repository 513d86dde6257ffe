"""A second implementation, written from docs/protocol.md alone, agrees with the vectors and with a running node."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from second_implementation import channel, frames

VECTORS = Path(__file__).parent / "vectors"
CHANNEL = json.loads((VECTORS / "channel.json").read_text())
WIRE = {path.stem: json.loads(path.read_text()) for path in sorted((VECTORS / "wire").glob("*.json"))}
OPENING_NAMES = [opening["name"] for opening in CHANNEL["openings"]]


# The channel's vectors


def place_of(opening: dict[str, Any]) -> channel.Place:
    binding, network = bytes.fromhex(opening["binding"]), bytes.fromhex(opening["network_id"])
    return channel.Place(network, opening["listener_kind"], opening["carrier"], binding)


def initiator_of(opening: dict[str, Any]) -> channel.Initiator:
    e = channel.Ephemeral.make(bytes.fromhex(opening["initiator_ephemeral"]["seed"]))
    public = bytes.fromhex(opening["responder_static"]["public"]) if opening["pattern"] == "NK" else b""
    tail = opening["P1"] if opening["pattern"] != "NX" else bytes.fromhex(opening["random_bytes"])
    epoch = opening["unix"] // channel.EPOCH_S if not opening["carrier"] else 0
    return channel.Initiator(place_of(opening), e, tail, static_public=public, epoch=epoch)


def check_opened(opening: dict[str, Any], opened: channel.Opened) -> None:
    assert opened.h.hex() == opening["h"] == opening["session_id"]
    assert opened.ck.hex() == opening["ck"]
    assert (opened.end_mark.hex() or None) == opening["T"]
    assert opened.resume_secret.hex() == opening["resume_secret"]
    assert [key.hex() for key in opened.keys] == [
        opening["key_initiator_to_responder"],
        opening["key_responder_to_initiator"],
    ]


@pytest.mark.parametrize("opening", CHANNEL["openings"], ids=OPENING_NAMES)
def test_initiator_makes_flight_1_and_reads_flight_2(opening: dict[str, Any]) -> None:
    place = place_of(opening)
    assert channel.NAMES[opening["pattern"]].decode() == opening["protocol"]
    assert place.prologue.hex() == opening["prologue"]
    initiator = initiator_of(opening)
    if initiator.pattern == "NXpsk0":
        assert place.psk.hex() == opening["psk"]
    assert initiator.pattern == opening["pattern"]
    assert initiator.e.secret.hex() == opening["initiator_ephemeral"]["secret"]
    assert initiator.flight_1.hex() == opening["flight_1"]
    check_opened(opening, initiator.read_flight_2(io.BytesIO(bytes.fromhex(opening["flight_2"])).read))
    assert initiator.static_public.hex() == opening["responder_static"]["public"]


@pytest.mark.parametrize("opening", CHANNEL["openings"], ids=OPENING_NAMES)
def test_responder_reads_flight_1_and_makes_flight_2(opening: dict[str, Any]) -> None:
    static = bytes.fromhex(opening["responder_static"]["secret"])
    e = channel.Ephemeral.make(bytes.fromhex(opening["responder_ephemeral"]["seed"]))
    responder, flight = channel.Responder(place_of(opening), static, e), bytes.fromhex(opening["flight_1"])
    assert responder.static_public.hex() == opening["responder_static"]["public"]
    assert channel.decoded(flight[:32]).hex() == opening["initiator_ephemeral"]["public"]
    if opening["pattern"] == "NX":
        noise = responder.stranger(flight[:32])
    else:
        noise, epoch, padding = responder.read_header(opening["pattern"], flight[:56])
        assert (epoch, padding) == (opening["epoch"] or 0, opening["P1"])
        assert noise.open(flight[56:]) == bytes(padding)
    answer, opened = responder.flight_2(noise, flight[:32], opening["P2"])
    assert answer.hex() == opening["flight_2"]
    check_opened(opening, opened)


@pytest.mark.parametrize("opening", CHANNEL["openings"], ids=OPENING_NAMES)
@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_records_both_ways(opening: dict[str, Any], side: str) -> None:
    opened = initiator_of(opening).read_flight_2(io.BytesIO(bytes.fromhex(opening["flight_2"])).read)
    first = opened.first_associated_data if side == "initiator" else b""
    key = opened.keys[side == "responder"]
    sealing, opening_side = channel.Direction(key, first), channel.Direction(key, first)
    for record in opening[f"{side}_records"]:
        assert (sealing.counter, sealing.size) == (record["counter"], record["size"])
        assert sealing.associated_data.hex() == record["associated_data"]
        assert len(bytes.fromhex(record["frame_bytes"])) == record["used"]
        sealed = sealing.seal(bytes.fromhex(record["frame_bytes"]), record["next_size"], record["flags"])
        if "record_sha256" in record:
            assert channel.sha256(sealed).hex() == record["record_sha256"]
        else:
            assert sealed.hex() == record["record"]
        read = opening_side.open(sealed)
        assert (read.flags, read.next_size, read.frame_bytes.hex()) == (
            record["flags"],
            record["next_size"],
            record["frame_bytes"],
        )
    assert opening_side.ended
    assert any(record["flags"] & channel.REKEY for record in opening[f"{side}_records"])


def test_resume_chain() -> None:
    resume = CHANNEL["resume"]
    secret = channel.ResumeSecret(channel.Opened("NK", b"", bytes.fromhex(resume["ck"])).resume_secret)
    for step in resume["chain"]:
        h_new = bytes.fromhex(step["h_new"])
        assert (secret.moves, secret.rs.hex(), secret.id.hex()) == (step["generation"], step["rs"], step["id"])
        assert secret.initiator_mac(h_new).hex() == step["mac_i"]
        assert secret.responder_mac(h_new).hex() == step["mac_r"]
        secret = secret.moved(h_new)


@pytest.mark.parametrize("value", CHANNEL["elligator"], ids=lambda value: value["representative"][:8])
def test_the_map_is_the_one_that_the_text_writes_down(value: dict[str, str]) -> None:
    p, a = 2**255 - 19, 486662
    r = int.from_bytes(bytes.fromhex(value["representative"]), "little") % (1 << 254)
    w = -a * pow(1 + 2 * r * r, -1, p) % p
    is_square = pow(w**3 + a * w * w + w, (p - 1) // 2, p) in (0, 1)
    u = w if is_square else (-w - a) % p
    assert u.to_bytes(32, "little").hex() == value["public"]
    assert channel.decoded(bytes.fromhex(value["representative"])).hex() == value["public"]


# The frames' vectors


def wire_cases(kind: str) -> list[Any]:
    return [pytest.param(name, case, id=f"{name}: {case['name']}") for name in WIRE for case in WIRE[name][kind]]


def test_every_message_has_vectors_and_the_same_bounds() -> None:
    bounds = {name: (tuple(wire["phases"]), wire["max_size"]) for name, wire in WIRE.items()}
    assert bounds == {name: (phases, most) for name, (phases, most, _) in frames.MESSAGES.items()}


@pytest.mark.parametrize(("name", "case"), wire_cases("valid"))
def test_valid_frames_both_ways(name: str, case: dict[str, Any]) -> None:
    assert frames.encode(name, **case["fields"]).hex() == case["frame"]
    frame = bytes.fromhex(case["frame"])
    header = frames.judge(frame[: frames.HEADER], WIRE[name]["phases"][0])
    assert (header.type, header.size) == (name, len(frame) - frames.HEADER)
    assert frames.decode(header, frame[frames.HEADER :]) == case["fields"]


@pytest.mark.parametrize(("name", "case"), wire_cases("malformed"))
def test_malformed_payloads_are_refused(name: str, case: dict[str, Any]) -> None:
    payload = bytes.fromhex(case["payload"])
    header = frames.FrameHeader(len(payload), name, frames.checksum(payload))
    with pytest.raises(frames.Malformed):
        frames.decode(header, payload)
