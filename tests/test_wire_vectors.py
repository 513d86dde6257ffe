"""Every message type against its vector file, both ways: fields, payload and frame (docs/protocol.md, Messages)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from obscura.errors import DecodeError, UserError
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.frame import FrameDecoder, encode_frame, encode_raw, frame_parts
from obscura.wire.jsonform import decode_stream, encode_object
from obscura.wire.message import Phase

FOLDER = Path(__file__).parent / "vectors" / "wire"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def cases(which: str) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}") for name, file in FILES.items() for case in file[which]
    ]


def test_every_type_has_vectors_and_every_file_a_type() -> None:
    types = {cls.TYPE for cls in CATALOGUE}
    assert sorted(types - FILES.keys()) == [], "types without tests/vectors/wire/<type>.json"
    assert sorted(FILES.keys() - types) == [], "vector files of no type"
    assert [name for name, file in FILES.items() if not file["valid"]] == []


@pytest.mark.parametrize("name", FILES)
def test_limit_and_phase(name: str) -> None:
    cls, file = CATALOGUE.get(name), FILES[name]
    assert cls is not None
    assert file["max_size"] == cls.MAX_SIZE
    assert [phase.name.lower() for phase in (Phase.OPENING, Phase.ESTABLISHED) if phase & cls.PHASE] == file["phases"]
    assert (cls.NAME in CATALOGUE.opening.admitted) == ("opening" in file["phases"])
    assert (cls.NAME in CATALOGUE.established.admitted) == ("established" in file["phases"])


@pytest.mark.parametrize(("name", "case"), cases("valid"))
def test_valid(name: str, case: dict[str, Any]) -> None:
    cls = CATALOGUE.get(name)
    assert cls is not None
    payload, frame = bytes.fromhex(case["payload"]), bytes.fromhex(case["frame"])
    message = cls.decode(payload)
    assert message.encode() == payload
    assert encode_frame(message) == frame == b"".join(frame_parts(message)) == encode_raw(name, payload)
    assert list(FrameDecoder(CATALOGUE.any_phase).receive(frame)) == [message]
    (shown,) = decode_stream(frame)
    assert shown == {
        "type": name,
        "size": len(payload),
        "checksum": frame[16:20].hex(),
        "valid": True,
        "payload": case["fields"],
    }
    assert encode_object(json.loads(json.dumps(shown))) == frame
    assert encode_object({"type": name, "payload": case["fields"]}) == frame


@pytest.mark.parametrize(("name", "case"), cases("malformed"))
def test_malformed(name: str, case: dict[str, Any]) -> None:
    cls = CATALOGUE.get(name)
    assert cls is not None
    payload = bytes.fromhex(case["payload"])
    with pytest.raises(DecodeError):
        cls.decode(payload)
    if len(payload) > cls.MAX_SIZE:
        with pytest.raises(UserError, match="at most"):
            encode_object({"type": name, "payload": {"raw": case["payload"]}})
        return
    frame = encode_raw(name, payload)
    (shown,) = decode_stream(frame)
    assert (shown["valid"], shown["payload"]) == (False, {"raw": case["payload"]})
    assert encode_object(shown) == frame


@pytest.mark.parametrize(
    ("name", "index", "checksum"), [("verack", 0, "5df6e0e2"), ("ping", 0, "3b5a7513"), ("version", 0, "62e37374")]
)
def test_checksums_of_the_design(name: str, index: int, checksum: str) -> None:
    assert FILES[name]["valid"][index]["frame"][32:40] == checksum


def test_frames_of_the_design() -> None:
    assert FILES["verack"]["valid"][0]["frame"] == "0000000076657261636b0000000000005df6e0e2"
    assert FILES["ping"]["valid"][0]["frame"] == "0800000070696e6700000000000000003b5a75130807060504030201"
