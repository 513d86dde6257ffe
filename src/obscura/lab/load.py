"""What the sessions of a laboratory run do, drawn by chance: a link's load, a visit of a web site, a command over ssh, a zone."""

from __future__ import annotations

import random
from typing import NamedTuple

MAX_PAGES = 7
_SMALL, _LARGE = 300, 60_000  # bytes of a transaction


class Step(NamedTuple):
    """``after_s`` later, ``size`` bytes go ``up`` from the dialler, or ``down``; a ``block`` goes down."""

    after_s: float
    what: str
    size: int


def link_steps(rng: random.Random) -> list[Step]:
    """One to eight messages of a link over one to three seconds."""
    count = rng.randint(1, 8)
    pause_s = rng.uniform(0.5, 2.0) / count
    return [
        Step(rng.expovariate(1 / pause_s), rng.choices(("up", "down", "block"), (4, 4, 1))[0], _size(rng))
        for _ in range(count)
    ]


def _size(rng: random.Random) -> int:
    return int(min(max(rng.lognormvariate(7.0, 1.3), _SMALL), _LARGE))


def site_files(rng: random.Random) -> dict[str, bytes]:
    """A small web site: pages that compress as text does, pictures that do not."""
    words = ["garden", "summer", "travel", "kitchen", "city", "winter", "river", "music", "market", "story"]
    files = {"index.html": _page(rng, words, 4_000)}
    for number, word in enumerate(words):
        files[f"{word}.html"] = _page(rng, words, int(rng.lognormvariate(8.8, 0.6)))
        files[f"img/{word}-{number}.jpg"] = b"\xff\xd8\xff\xe0\x00\x10JFIF" + rng.randbytes(
            int(rng.lognormvariate(9.9, 0.9))
        )
    files["style.css"] = b"p { margin: 1em }\n" * 300
    return files


def _page(rng: random.Random, words: list[str], size: int) -> bytes:
    text = " ".join(rng.choices(words, k=max(1, size // 7)))
    return f"<!DOCTYPE html>\n<html><head><title>{words[0]}</title></head><body><p>{text}</p></body></html>\n".encode()


class Visit(NamedTuple):
    """Paths that a visitor asks for on one connection, and how many requests a minute, 0 = as fast as answers come."""

    paths: list[str]
    per_minute: int


def visit(rng: random.Random, files: list[str]) -> Visit:
    """Somebody who looks at one to seven things, at leisure half of the time."""
    return Visit(rng.choices(files, k=rng.randint(1, MAX_PAGES)), rng.choice((0, rng.randint(90, 240))))


class Errand(NamedTuple):
    """A command over ssh: bytes sent to it, and the shell's words at the far end."""

    stdin: int
    command: str


def errand(rng: random.Random) -> Errand:
    """Something in, something out, twice, with a pause."""
    out = [int(rng.lognormvariate(8.5, 1.5)) for _ in range(2)]
    pause = rng.uniform(0.0, 1.0)
    tail = (
        f"head -c {min(out[0], 300_000)} /dev/urandom; sleep {pause:.2f}; head -c {min(out[1], 300_000)} /dev/urandom"
    )
    return Errand(min(int(rng.lognormvariate(8.0, 1.5)), 200_000), f"cat >/dev/null; {tail}")


_ZONE_HOSTS = 400


def zone_text(zone: str, rng: random.Random) -> str:
    """A zone file of a few hundred hosts, large enough that a signed transfer takes several messages."""
    lines = [f"$ORIGIN {zone}.", "$TTL 3600", "@ IN SOA ns1 hostmaster 2024010101 3600 900 1209600 300", "@ IN NS ns1"]
    lines += ["ns1 IN A 198.51.100.21", "@ IN MX 10 mail", "mail IN A 198.51.100.22", '@ IN TXT "v=spf1 mx -all"']
    lines += [f"host-{number} IN A 203.0.113.{rng.randrange(1, 255)}" for number in range(_ZONE_HOSTS)]
    return "\n".join(lines) + "\n"


def zone_lookups(zone: str, rng: random.Random) -> list[tuple[str, str]]:
    """One to eight names of the zone and what is asked of them."""
    return [
        (f"host-{rng.randrange(_ZONE_HOSTS)}.{zone}", rng.choice(("A", "A", "AAAA", "TXT")))
        for _ in range(rng.randint(1, 8))
    ]
