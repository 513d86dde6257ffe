"""The Noise state machine against published vectors and ``noiseprotocol``; Elligator against its formula."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import monocypher
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from noise.connection import Keypair, NoiseConnection

from obscura.channel.noise import NK, NX, NXPSK0, PLAIN, CipherState, Handshake, Pattern, hkdf
from obscura.channel.uniform import Ephemeral, StaticKey, agree, public_of
from obscura.errors import ChannelFault

DATA = Path(__file__).parents[1] / "../shared/data/noise-vectors.json"
PATTERNS = {pattern.name: pattern for pattern in (NK, NX, NXPSK0)}
P = 2**255 - 19
A = 486662


def plain_pair(secret: bytes) -> Ephemeral:
    """A pair whose public key travels as it is, as the framework has it."""
    private = X25519PrivateKey.from_private_bytes(secret)
    return Ephemeral(private.public_key().public_bytes_raw(), private)


def talk(writer: Handshake, reader: Handshake, pair: Ephemeral, payload: bytes) -> tuple[bytes, bytes]:
    """One message: its bytes, and the payload as it was read."""
    tokens = writer.write(pair)
    sealed = writer.seal(payload)
    reader.read(tokens)
    return tokens + sealed, reader.open(sealed)


def published() -> list[dict[str, object]]:
    return json.loads(DATA.read_text())["vectors"] if DATA.exists() else []


@pytest.mark.shared_data
def test_published_vectors() -> None:
    vectors = published()
    if not DATA.exists():
        print("noise-vectors.json is not there: nothing compared")
        return
    assert {v["protocol_name"] for v in vectors} == {f"Noise_{n}_25519_ChaChaPoly_SHA256" for n in ("NK", "NX")}
    for v in vectors:
        pattern = PATTERNS[str(v["protocol_name"]).split("_")[1]]
        raw = {name: bytes.fromhex(value) for name, value in v.items() if isinstance(value, str) and "_" not in value}
        static = StaticKey.from_bytes(raw["resp_static"])
        known = raw.get("init_remote_static")
        assert known in (None, static.public)
        initiator = Handshake(pattern, raw["init_prologue"], responder_key=known, encoding=PLAIN)
        responder = Handshake(pattern, raw["resp_prologue"], static=static, encoding=PLAIN)
        pairs = plain_pair(raw["init_ephemeral"]), plain_pair(raw["resp_ephemeral"])
        messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in v["messages"]]  # type: ignore[attr-defined]
        for index, (payload, ciphertext) in enumerate(messages[:2]):
            writer, reader = (initiator, responder) if index == 0 else (responder, initiator)
            assert talk(writer, reader, pairs[index], payload) == (ciphertext, payload)
        assert initiator.h == responder.h == raw["handshake_hash"]
        assert initiator.responder_key == static.public
        keys = initiator.split()
        assert keys == responder.split()
        sealers, openers = [CipherState(k) for k in keys], [CipherState(k) for k in keys]
        assert len(messages) > 4
        for index, (payload, ciphertext) in enumerate(messages[2:]):
            assert sealers[index % 2].seal(payload) == ciphertext
            assert openers[index % 2].open(ciphertext) == payload


def oracle(pattern: Pattern, *, initiator: bool, prologue: bytes, psk: bytes | None) -> NoiseConnection:
    noise = NoiseConnection.from_name(f"Noise_{pattern.name}_25519_ChaChaPoly_SHA256".encode())
    noise.set_as_initiator() if initiator else noise.set_as_responder()
    noise.set_prologue(prologue)
    if psk is not None:
        noise.set_psks(psk=psk)
    return noise


@pytest.mark.parametrize("pattern", [NK, NX, NXPSK0], ids=lambda p: p.name)
@pytest.mark.parametrize("we_start", [True, False])
def test_agrees_with_noiseprotocol(pattern: Pattern, we_start: bool) -> None:
    rng = Random(7)
    static, prologue = StaticKey.generate(rng), rng.randbytes(50)
    psk = rng.randbytes(32) if pattern.has_psk else None
    other = oracle(pattern, initiator=not we_start, prologue=prologue, psk=psk)
    if not we_start and pattern.known:
        other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, static.public)
    if we_start:
        other.set_keypair_from_private_bytes(Keypair.STATIC, static.secret())
    other.start_handshake()
    ours = Handshake(
        pattern,
        prologue,
        static=None if we_start else static,
        responder_key=static.public if we_start and pattern.known else None,
        psk=psk,
        encoding=PLAIN,
    )
    pair = plain_pair(rng.randbytes(32))
    size = 32 if we_start else pattern.answer_bytes
    theirs_size = pattern.answer_bytes if we_start else 32
    for turn in range(2):
        payload = rng.randbytes(20)
        if (turn == 0) == we_start:
            message = ours.write(pair)
            assert len(message) == size
            assert bytes(other.read_message(message + ours.seal(payload))) == payload
        else:
            message = bytes(other.write_message(payload))
            ours.read(message[:theirs_size])
            assert ours.open(message[theirs_size:]) == payload
    assert ours.h == other.get_handshake_hash()
    assert ours.responder_key == static.public
    keys = ours.split()
    mine, theirs = keys if we_start else keys[::-1]
    sealer, opener = CipherState(mine), CipherState(theirs)
    for n in range(3):
        assert bytes(other.decrypt(sealer.seal(bytes([n]) * n))) == bytes([n]) * n
        assert opener.open(bytes(other.encrypt(bytes([n]) * 9))) == bytes([n]) * 9


def test_hkdf_is_rfc_5869() -> None:
    for n in (2, 3):
        library = HKDF(SHA256(), 32 * n, salt=b"k" * 32, info=b"").derive(b"material")
        assert b"".join(hkdf(b"k" * 32, b"material", n)) == library


def test_psk_belongs_to_nxpsk0_alone() -> None:
    with pytest.raises(ValueError, match="psk"):
        Handshake(NX, b"", psk=bytes(32))
    with pytest.raises(ValueError, match="psk"):
        Handshake(NXPSK0, b"")
    with pytest.raises(ValueError, match="key"):
        Handshake(NK, b"")


# --- Elligator ---


def formula(representative: bytes) -> bytes:
    """The map as docs/protocol.md states it."""
    r = int.from_bytes(representative, "little") & (2**254 - 1)
    w = -A * pow(1 + 2 * r * r, -1, P) % P
    square = pow((w**3 + A * w * w + w) % P, (P - 1) // 2, P)
    return (w if square in (0, 1) else (-w - A) % P).to_bytes(32, "little")


def test_map_is_the_formula_and_ignores_two_bits() -> None:
    rng = Random(1)
    for n in range(100):
        r = [bytes(32), b"\xff" * 32][n] if n < 2 else rng.randbytes(32)
        assert public_of(r) == formula(r)
        assert public_of(r[:31] + bytes([r[31] ^ 0xC0])) == formula(r)


def test_exchanges_agree_with_cryptography_and_monocypher() -> None:
    """Dirty public keys give the same secret on both sides, in either library."""
    rng = Random(2)
    for _ in range(30):
        a, b, static = Ephemeral.generate(rng), Ephemeral.generate(rng), StaticKey.generate(rng)
        assert agree(a.private, b.public) == agree(b.private, a.public)
        assert agree(a.private, static.public) == agree(static.private, a.public)
        assert agree(a.private, b.public) == monocypher.x25519(a.private.private_bytes_raw(), b.public)
        assert a.public != a.private.public_key().public_bytes_raw() or a.private.private_bytes_raw()[0] % 8 == 0


def low_order_representatives() -> list[bytes]:
    """Representatives of every low-order point that has one, with all settings of the two spare bits."""
    order_8 = 325606250916557431795983626356110631294008115727848805560023387167927233504
    found = []
    for u in (
        0,
        1,
        P - 1,
        order_8,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    ):
        for tweak in range(256):
            try:
                found.append(bytes(monocypher.elligator_rev(u.to_bytes(32, "little"), tweak)))
            except ValueError:
                break
    assert all(public_of(r) in {(0).to_bytes(32, "little"), *map(public_of, found)} for r in found)
    return sorted({bytes(32), *found})


def test_low_order_points_are_a_fault() -> None:
    cases = low_order_representatives()
    assert len(cases) >= 4
    for r in cases:
        with pytest.raises(ChannelFault):
            agree(Ephemeral.generate(Random(3)).private, public_of(r))


def test_static_key_round_trip() -> None:
    key = StaticKey.generate(Random(5))
    assert StaticKey.from_bytes(key.secret()).public == key.public
    with pytest.raises(ValueError):
        StaticKey.from_bytes(bytes(31))
