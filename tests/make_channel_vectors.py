"""Makes tests/vectors/channel.json: every input and output of four openings, and of the resume chain."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from obscura.channel.opening import Initiator, Prologue, Responder, Secured, end_mark
from obscura.channel.records import Sealer
from obscura.channel.replay import ReplayCache
from obscura.channel.resume import ResumeSecret
from obscura.channel.uniform import Ephemeral, StaticKey, public_of

PATH = Path(__file__).parent / "vectors" / "channel.json"
UNIX = 1_700_000_000

# name, knows the key, joins, streamed, listener kind, carrier, binding, size of flight 1, of flight 2
CASES = [
    ("NK on plain", True, False, True, 1, 0, b"", 256, 300),
    ("NX on plain", False, False, True, 2, 0, b"", 300, 256),
    ("NXpsk0 in tls", False, True, False, 1, 2, bytes(range(64)), 200, 180),
    ("NK in http", True, False, False, 1, 1, bytes(range(16)), 96, 72),
]

# frame bytes, next size, rekey, last; the first record of a direction has 256 bytes
RECORDS = [
    (b"first", 300, False, False),
    (b"", 64, False, False),  # a dummy
    (b"full", 1024, True, False),  # to the last byte; rekeys after this
    (b"under the second key", 65536, False, False),
    (b"the end", 64, False, True),
]


def seed(*parts: object) -> bytes:
    """32 bytes that anybody can make again."""
    return sha256("/".join(map(str, parts)).encode()).digest()


def pair(ephemeral_seed: bytes, pair_: Ephemeral) -> dict[str, str]:
    return {
        "seed": ephemeral_seed.hex(),
        "secret": pair_.private.private_bytes_raw().hex(),
        "representative": pair_.representative.hex(),
        "public": pair_.public.hex(),
    }


def records(sealer: Sealer, associated_data: bytes, side: str) -> list[dict[str, Any]]:
    made = []
    for counter, (body, next_size, rekey, last) in enumerate(RECORDS):
        size = sealer.size
        body = body and side.encode() + body
        body = body.ljust(sealer.capacity, b".") if rekey else body
        record = sealer.seal(body, next_size, rekey=rekey, last=last)
        made.append(
            {
                "counter": counter,
                "flags": rekey + 2 * last,
                "size": size,
                "next_size": next_size,
                "used": len(body),
                "frame_bytes": body.hex(),
                "associated_data": (b"" if counter else associated_data).hex(),
                # a record of 65,536 bytes would swell the file: its hash says as much
                **({"record": record.hex()} if size < 2000 else {"record_sha256": sha256(record).hexdigest()}),
            }
        )
    return made


def opening(case: tuple[Any, ...]) -> dict[str, Any]:
    name, knows, joining, streamed, kind, carrier, binding, first_size, second_size = case
    static = StaticKey.from_bytes(seed(name, "static"))
    seeds = seed(name, "initiator"), seed(name, "responder")
    ours, theirs = Ephemeral.from_seed(seeds[0]), Ephemeral.from_seed(seeds[1])
    prologue = Prologue(sha256(b"a network").digest(), kind, carrier, binding)
    initiator = Initiator(
        prologue,
        Random(1),
        UNIX,
        responder_key=static.public if knows else None,
        joining=joining,
        streamed=streamed,
        flight_size=(first_size, first_size),
        ephemeral=ours,
    )
    responder = Responder(
        prologue,
        static,
        Random(2),
        strangers=not knows,
        streamed=streamed,
        replay=ReplayCache(),
        answer_size=(second_size, second_size),
        ephemeral=lambda: theirs,
    )
    flight_1 = initiator.take()
    at_responder = responder.receive(flight_1, UNIX)
    flight_2 = responder.take()
    ck = responder._handshake.ck  # type: ignore[union-attr]  # the vectors show what no caller needs
    keys = responder._handshake.split()  # type: ignore[union-attr]
    secured = initiator.receive(flight_2, UNIX)
    assert secured is not None
    at_responder = at_responder or responder.receive(secured.prefix, UNIX)
    assert isinstance(at_responder, Secured)
    assert at_responder.session_id == secured.session_id
    is_nx = secured.pattern == "NX"
    random_bytes = flight_1[32:] if is_nx else b""
    return {
        "name": name,
        "protocol": f"Noise_{secured.pattern}elg2_25519_ChaChaPoly_SHA256",
        "pattern": secured.pattern,
        "network_id": prologue.network_id.hex(),
        "listener_kind": kind,
        "carrier": carrier,
        "binding": binding.hex(),
        "prologue": prologue.encode().hex(),
        "psk": prologue.psk().hex() if joining else None,
        "unix": UNIX,
        "epoch": (UNIX // 600 if streamed else 0) if not is_nx else None,
        "responder_static": {"secret": static.secret().hex(), "public": static.public.hex()},
        "initiator_ephemeral": pair(seeds[0], ours),
        "responder_ephemeral": pair(seeds[1], theirs),
        "P1": None if is_nx else first_size - 72,
        "P2": second_size - (68 if secured.pattern == "NK" else 116),
        "random_bytes": random_bytes.hex() if is_nx else None,
        "flight_1": flight_1.hex(),
        "flight_2": flight_2.hex(),
        "h": secured.session_id.hex(),
        "ck": ck.hex(),
        "T": end_mark(ck).hex() if is_nx else None,
        "session_id": secured.session_id.hex(),
        "resume_secret": secured.resume_secret.value.hex(),
        "key_initiator_to_responder": keys[0].hex(),
        "key_responder_to_initiator": keys[1].hex(),
        "initiator_records": records(secured.sealer, random_bytes, "initiator: "),
        "responder_records": records(at_responder.sealer, b"", "responder: "),
    }


def resume() -> list[dict[str, Any]]:
    chain = []
    secret = ResumeSecret.first(seed("ck"))
    for generation in range(3):
        h_new = seed("h", generation)
        chain.append(
            {
                "generation": generation,
                "rs": secret.value.hex(),
                "h_new": h_new.hex(),
                "id": secret.session_id16().hex(),
                "mac_i": secret.mac("i", h_new).hex(),
                "mac_r": secret.mac("r", h_new).hex(),
            }
        )
        secret = secret.next(h_new)
    return chain


def representatives() -> list[dict[str, str]]:
    some = [bytes(32), bytes(31) + b"\xc0", b"\xff" * 32, *(seed("R", n) for n in range(5))]
    return [{"representative": r.hex(), "public": public_of(r).hex()} for r in some]


def build() -> dict[str, Any]:
    return {
        "comment": "Byte strings in hex. docs/protocol.md, Channel, says how each value is made.",
        "openings": [opening(case) for case in CASES],
        "resume": {"ck": seed("ck").hex(), "chain": resume()},
        "elligator": representatives(),
    }


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(build(), indent=1) + "\n")
