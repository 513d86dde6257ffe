"""The fuzz targets without their fuzzer: each corpus, and what random changes make of it, keeps the invariant (``make fuzz``)."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import fuzz  # noqa: E402

TARGETS = fuzz.load()
CHANGED = 12  # inputs per target


def changed(rng: random.Random, data: bytes) -> bytes:
    """Some bits flipped, or a piece left out, doubled, or put elsewhere."""
    if not data:
        return rng.randbytes(rng.randint(0, 40))
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    kind = rng.randrange(4)
    if kind == 0:
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return data[:end] + data[start:]
    return data[:start] + rng.randbytes(end - start) + data[end:]


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_what_is_near_it_keep_the_invariant(name: str) -> None:
    target, rng = TARGETS[name], random.Random(name)
    seeds = [path.read_bytes() for path in fuzz.corpus(name)]
    assert seeds
    for data in [*seeds, b"", b"\x00", *(changed(rng, rng.choice(seeds)) for _ in range(CHANGED))]:
        target.try_one(data[: target.max_len])


def test_each_invariant_is_one_sentence() -> None:
    for target in TARGETS.values():
        assert target.invariant.endswith(".")
        assert 30 < len(target.invariant) < 250


def test_every_door_has_a_target() -> None:
    carriers = {f"{name}-{side}" for name in ("plain", "http", "tls", "ssh", "dns") for side in ("client", "server")}
    carriers |= {f"{name}-joined-{side}" for name in ("http", "tls", "ssh", "dns") for side in ("client", "server")}
    others = {
        "frame",
        "messages",
        "opening",
        "answer",
        "link",
        "records",
        "sam",
        "tor-control",
        "doh",
        "dns-answer",
        "rpc",
        "configuration",
    }
    assert carriers | others <= set(TARGETS)
