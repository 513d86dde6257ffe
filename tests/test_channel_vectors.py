"""tests/vectors/channel.json both ways: we make its bytes, and its bytes open here."""

from __future__ import annotations

import json
from hashlib import sha256
from random import Random
from typing import Any

import pytest

from make_channel_vectors import PATH, UNIX, build
from obscura.channel.opening import Initiator, Prologue, Responder
from obscura.channel.records import Opener
from obscura.channel.replay import ReplayCache
from obscura.channel.resume import ResumeSecret
from obscura.channel.uniform import Ephemeral, StaticKey, public_of

VECTORS = json.loads(PATH.read_text())
OPENINGS = VECTORS["openings"]


def test_we_make_every_byte() -> None:
    assert build() == VECTORS


def test_every_pattern_is_there() -> None:
    assert {case["pattern"] for case in OPENINGS} == {"NK", "NX", "NXpsk0"}
    for case in OPENINGS:
        for side in ("initiator_records", "responder_records"):
            assert [r["flags"] for r in case[side]] == [0, 0, 1, 0, 2]


class Given(Random):
    """Gives the random bytes of a vector."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data = data

    def randbytes(self, n: int) -> bytes:
        assert n == len(self.data)
        return self.data


@pytest.mark.parametrize("case", OPENINGS, ids=lambda c: c["name"])
def test_its_bytes_open(case: dict[str, Any]) -> None:
    """Each side is fed the other's bytes from the file, one by one on plain."""
    raw = {
        k: bytes.fromhex(v) for k, v in case.items() if isinstance(v, str) and k not in ("name", "protocol", "pattern")
    }
    static = StaticKey.from_bytes(bytes.fromhex(case["responder_static"]["secret"]))
    pairs = [
        Ephemeral.from_seed(bytes.fromhex(case[f"{side}_ephemeral"]["seed"])) for side in ("initiator", "responder")
    ]
    streamed = case["carrier"] == 0
    prologue = Prologue(raw["network_id"], case["listener_kind"], case["carrier"], raw["binding"])
    assert prologue.encode() == raw["prologue"]
    size_1, size_2 = len(raw["flight_1"]), len(raw["flight_2"])
    responder = Responder(
        prologue,
        static,
        Random(0),
        strangers=case["pattern"] != "NK",
        replay=ReplayCache(),
        streamed=streamed,
        answer_size=(size_2, size_2),
        ephemeral=lambda: pairs[1],
    )
    initiator = Initiator(
        prologue,
        Given(raw.get("random_bytes", b"")),
        UNIX,
        responder_key=static.public if case["pattern"] == "NK" else None,
        joining=case["pattern"] == "NXpsk0",
        streamed=streamed,
        flight_size=(size_1, size_1),
        ephemeral=pairs[0],
    )
    assert initiator.take() == raw["flight_1"]
    stream = raw["flight_1"] + raw.get("T", b"")
    pieces = [stream[n : n + 1] for n in range(len(stream))] if streamed else [stream]
    opened = [s for piece in pieces if (s := responder.receive(piece, UNIX))]
    assert responder.take() == raw["flight_2"]
    secured = initiator.receive(raw["flight_2"], UNIX)
    assert secured is not None
    assert len(opened) == 1
    assert secured.prefix == raw.get("T", b"")
    assert secured.peer_key == static.public
    assert opened[0].peer_key is None
    for one in (secured, opened[0]):
        assert one.session_id == raw["session_id"] == raw["h"]
        assert one.resume_secret == ResumeSecret(raw["resume_secret"], 0) == ResumeSecret.first(raw["ck"])
        assert one.pattern == case["pattern"]
    open_records(opened[0].opener, case["initiator_records"])
    open_records(secured.opener, case["responder_records"])
    open_records(Opener(raw["key_responder_to_initiator"]), case["responder_records"])


def open_records(opener: Opener, records: list[dict[str, Any]]) -> None:
    for record in records:
        if "record" not in record:
            return  # only its hash is written
        sealed = bytes.fromhex(record["record"])
        assert len(sealed) == record["size"]
        ((plain, start, end),) = opener.receive(sealed)
        assert plain[start:end].hex() == record["frame_bytes"]
        assert end - start == record["used"]


def test_resume_chain() -> None:
    secret = ResumeSecret.first(bytes.fromhex(VECTORS["resume"]["ck"]))
    for link in VECTORS["resume"]["chain"]:
        h_new, mac_i, mac_r = (bytes.fromhex(link[name]) for name in ("h_new", "mac_i", "mac_r"))
        assert secret == ResumeSecret(bytes.fromhex(link["rs"]), link["generation"])
        assert secret.session_id16().hex() == link["id"]
        assert secret.proves("i", h_new, mac_i)
        assert secret.proves("r", h_new, mac_r)
        assert not secret.proves("r", h_new, mac_i)
        assert not secret.proves("i", sha256(h_new).digest(), mac_i)
        assert not secret.next(h_new).proves("i", h_new, mac_i)
        secret = secret.next(h_new)


def test_resume_secret_does_not_show_itself() -> None:
    assert "rs" not in repr(ResumeSecret(b"rs" * 16))


def test_elligator_values() -> None:
    for entry in VECTORS["elligator"]:
        assert public_of(bytes.fromhex(entry["representative"])).hex() == entry["public"]
