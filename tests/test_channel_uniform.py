"""The first 4 kB of 10,000 links are noise, in both directions; and four ways of not being noise are
noticed.

Everything is seeded: a run that passes passes for ever. Each judge's p-value is corrected for how many
questions it asked.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import monocypher
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from scipy import stats

from obscura.channel.opening import Initiator, Prologue, Responder, Secured
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey, public_of

LINKS, CONTROL_LINKS = 10_000, 2_000
STREAM = 4_096  # bytes looked at from the start of each direction
EDGE = 48  # bytes looked at from the start of each record, wherever it starts
DOUBT = 1e-5  # a judge's corrected p-value below this is a finding
P = 2**255 - 19
A = 486662

Bytes = NDArray[np.uint8]


# --- judges ---


def byte_histograms(streams: Bytes) -> float:
    """Chi-square of byte values: each of the first 128 positions alone, then in groups of 64; least p,
    corrected.
    """
    width = streams.shape[1]
    groups = [(n, n + 1) for n in range(min(width, 128))] + [(n, n + 64) for n in range(128, width, 64)]
    least = 1.0
    for start, end in groups:
        counts = np.bincount(streams[:, start:end].ravel(), minlength=256)
        least = min(least, float(stats.chisquare(counts).pvalue))
    return least * len(groups)


def bit_bias(streams: Bytes) -> float:
    """Each bit of each position is one in half of the links; least p, corrected."""
    ones = np.concatenate(
        [
            np.unpackbits(streams[:, n : n + 512], axis=1).sum(axis=0, dtype=np.int64)
            for n in range(0, streams.shape[1], 512)
        ]
    )
    z = np.abs(2 * ones - len(streams)).max() / np.sqrt(len(streams))
    return float(2 * stats.norm.sf(z)) * len(ones)


def is_square(x: int) -> bool:
    return pow(x % P, (P - 1) // 2, P) in (0, 1)


def halves(hits: int, of: int) -> float:
    return float(stats.binomtest(hits, of).pvalue)


def raw_keys(streams: Bytes) -> float:
    """The first 32 bytes as an X25519 key: u^3 + A u^2 + u is a square for half of all u, for every point's
    u.
    """
    us = [int.from_bytes(row.tobytes(), "little") % 2**255 for row in streams[:CONTROL_LINKS, :32]]
    return halves(sum(is_square(u * u * u + A * u * u + u) for u in us), len(us))


def prime_subgroup(streams: Bytes) -> float:
    """The first 32 bytes as a representative: its point has a half iff u is a square; in the prime-order
    subgroup always.

    The group is cyclic of order 8 times a prime, so a point has a half in half of the cases, and u modulo
    squares is the 2-descent map of the curve (its only rational point of order two is u = 0).
    """
    points = [public_of(row.tobytes()) for row in streams[:CONTROL_LINKS, :32]]
    return halves(sum(is_square(int.from_bytes(u, "little")) for u in points), len(points))


JUDGES: dict[str, Callable[[Bytes], float]] = {
    judge.__name__: judge for judge in (byte_histograms, bit_bias, raw_keys, prime_subgroup)
}


def findings(streams: Bytes) -> set[str]:
    return {name for name, judge in JUDGES.items() if judge(streams) < DOUBT}


# --- real links ---

Direction = tuple[bytes, list[bytes]]


def one_link(
    rng: Random, unix: int, known: bool, static: StaticKey, replay: ReplayCache
) -> tuple[Direction, Direction]:
    """What both sides write in a link that carries little: its first bytes, and the start of each of four
    records.
    """
    prologue = Prologue(b"n" * 32, 1, 0)
    initiator = Initiator(prologue, rng, unix, responder_key=static.public if known else None)
    responder = Responder(prologue, static, rng, strangers=not known, replay=replay)
    up = initiator.take()
    ours = responder.receive(up, unix)
    down = responder.take()
    theirs = initiator.receive(down, unix)
    assert theirs is not None
    ours = ours or responder.receive(theirs.prefix, unix)
    assert ours is not None
    return direction(up, theirs), direction(down, ours)


def direction(flight: bytes, secured: Secured) -> Direction:
    records = [secured.sealer.seal(b"version" if n == 0 else b"", 1_024) for n in range(5)]
    stream = b"".join((flight, secured.prefix, *records))
    return stream[:STREAM], [record[:EDGE] for record in records[:4]]


def real_links() -> dict[str, Bytes]:
    """Arrays of one row per link: each direction from its first byte, and from the start of each record."""
    rng, up, down, edges = Random(2024), bytearray(), bytearray(), bytearray()
    static, replay = StaticKey.generate(rng), ReplayCache()
    for n in range(LINKS):
        (first, starts), (answer, answer_starts) = one_link(rng, 1_700_000_000 + n, n % 2 == 0, static, replay)
        up += first
        down += answer
        edges += b"".join(starts + answer_starts)
    return {
        "initiator to responder": np.frombuffer(up, np.uint8).reshape(LINKS, STREAM),
        "responder to initiator": np.frombuffer(down, np.uint8).reshape(LINKS, STREAM),
        "starts of records": np.frombuffer(edges, np.uint8).reshape(LINKS, -1),
    }


@pytest.mark.slow
def test_first_4_kb_of_10000_links_are_noise() -> None:
    streams = real_links()
    assert {name: findings(array) for name, array in streams.items()} == {name: set() for name in streams}


# --- negative controls: the same judges on fewer links, noise but for one flaw ---


def noise() -> Bytes:
    return np.random.default_rng(7).integers(0, 256, (CONTROL_LINKS, STREAM), dtype=np.uint8)


def with_first(streams: Bytes, make: Callable[[Random], bytes]) -> Bytes:
    rng = Random(8)
    for row in streams:
        first = np.frombuffer(make(rng), np.uint8)
        row[: len(first)] = first
    return streams


def raw_key(rng: Random) -> bytes:
    return X25519PrivateKey.from_private_bytes(rng.randbytes(32)).public_key().public_bytes_raw()


def masked_raw_key(rng: Random) -> bytes:
    """A raw key whose constant top bit is hidden: the curve equation still tells."""
    key = bytearray(raw_key(rng))
    key[31] |= rng.getrandbits(1) << 7
    return bytes(key)


def clean_elligator(rng: Random) -> bytes:
    """The representative of an ordinary public key, spare bits random: uniform but for the subgroup."""
    while True:
        try:
            return bytes(monocypher.elligator_rev(raw_key(rng), rng.getrandbits(8)))
        except ValueError:
            continue


def unfilled_elligator(rng: Random) -> bytes:
    """A proper representative whose two spare bits are left at zero."""
    representative = bytearray(monocypher.elligator_key_pair(seed=rng.randbytes(32))[0])
    representative[31] &= 0x3F
    return bytes(representative)


def length_prefix(rng: Random) -> bytes:
    return rng.randint(256, 1_280).to_bytes(2, "big")


def constant_bit(streams: Bytes) -> Bytes:
    streams[:, 2_777] |= 0x08
    return streams


def test_noise_is_noise() -> None:
    assert findings(noise()) == set()


def test_our_keys_alone_are_noise() -> None:
    keys = with_first(noise(), lambda rng: bytes(monocypher.elligator_key_pair(seed=rng.randbytes(32))[0]))
    assert findings(keys) == set()


@pytest.mark.parametrize(
    ("flawed", "noticed"),
    [
        (lambda s: with_first(s, raw_key), {"byte_histograms", "bit_bias", "raw_keys"}),
        (lambda s: with_first(s, masked_raw_key), {"raw_keys"}),
        (constant_bit, {"bit_bias"}),
        (lambda s: with_first(s, clean_elligator), {"prime_subgroup"}),
        (lambda s: with_first(s, unfilled_elligator), {"byte_histograms", "bit_bias"}),
        (lambda s: with_first(s, length_prefix), {"byte_histograms", "bit_bias"}),
    ],
    ids=["raw keys", "masked raw keys", "one constant bit", "clean keys", "spare bits", "length prefix"],
)
def test_what_is_not_noise_is_noticed(flawed: Callable[[Bytes], Bytes], noticed: set[str]) -> None:
    assert findings(flawed(noise())) == noticed
