"""Message mixes: which types, how often, how large. Read from JSON, drawn with an rng (docs/shaping.md has the form)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from obscura.errors import UserError
from obscura.lab.link import opaque
from obscura.limits import MAX_BLOCK
from obscura.wire.message import RawMessage

_WIDEST = 50  # of a lognormal law: beyond it no exponential of what is drawn is a size any more
# Messages per second; a link that waits for years between them sends cover all the time; as --rate.
RATES = (0.01, 10_000)
_MOST_SHARE = 1e9  # of a type, beside the others: far from where a sum of them is no number
_RAREST = 0.0001  # of a geometric law: what is drawn is counted up to, one by one


class Law(msgspec.Struct, frozen=True):
    """The law of a payload's size in bytes, or of a count. Which fields count depends on ``law``."""

    law: str
    value: int = 0
    min: float = 0
    max: float = MAX_BLOCK
    mu: float = 0.0
    sigma: float = 0.0
    p: float = 0.5
    base: int = 0
    item: int = 0
    count: Law | None = None

    def draw(self, rng: random.Random) -> int:
        """One value, within ``min`` and ``max``."""
        match self.law:
            case "constant":
                return self.value
            case "uniform":
                return rng.randint(int(self.min), int(self.max))
            case "lognormal":
                return int(min(max(rng.lognormvariate(self.mu, self.sigma), self.min), self.max))
            case "geometric":
                drawn = 1
                while rng.random() >= self.p and drawn < self.max:
                    drawn += 1
                return drawn
            case "items" if self.count is not None:
                return self.base + self.item * self.count.draw(rng)
        raise ValueError(self.fault())

    def fault(self) -> str:
        """What keeps it from being drawn from, or the empty string."""
        match self.law:
            case "constant":
                return "" if self.value >= 0 else f"a negative value, {self.value}"
            case "geometric" if not _RAREST <= self.p <= 1 or self.max < 1:
                return f"geometric has p from {_RAREST} to 1 and max from 1 on, not {self.p:g} and {self.max:g}"
            case "uniform" | "lognormal" if not 0 <= int(self.min) <= int(self.max):
                return f"{self.law} has 0 <= min <= max, not {self.min:g} and {self.max:g}"
            case "lognormal" if abs(self.mu) > _WIDEST or not 0 <= self.sigma <= _WIDEST:
                return f"lognormal has mu and sigma up to {_WIDEST}, not {self.mu:g} and {self.sigma:g}"
            case "items" if self.count is None or self.base < 0 or self.item < 0:
                return "items has base and item, not below 0, and count, a law of its own"
            case "items" if self.count is not None:
                return self.count.fault()
            case "uniform" | "lognormal" | "geometric":
                return ""
        return f"a size law {self.law!r}; constant, uniform, lognormal, geometric and items exist"


class Kind(msgspec.Struct, frozen=True):
    """One type of message: its name, its share, the law of its payload."""

    type: str
    p: float
    payload: Law


class Mix(msgspec.Struct, frozen=True):
    """What one direction of one link says. ``rate_per_s``: mean of Poisson arrivals."""

    rate_per_s: float
    types: list[Kind]
    about: str = ""

    def arrivals(
        self, rng: random.Random, messages: int, rate_per_s: float | None = None
    ) -> Iterator[tuple[float, RawMessage]]:
        """So many messages at their times."""
        classes = [opaque(kind.type) for kind in self.types]
        shares = [kind.p for kind in self.types]
        rate = rate_per_s or self.rate_per_s
        now = 0.0
        for number in rng.choices(range(len(classes)), shares, k=messages):
            now += rng.expovariate(rate)
            yield now, classes[number](bytes(min(MAX_BLOCK, self.types[number].payload.draw(rng))))

    def without(self, *names: str) -> Mix:
        """The same rates of all other types."""
        kept = [kind for kind in self.types if kind.type not in names]
        share = sum(kind.p for kind in kept) / sum(kind.p for kind in self.types)
        return msgspec.structs.replace(self, types=kept, rate_per_s=self.rate_per_s * share)


def load_mix(path: Path) -> Mix:
    """A mix from a JSON file. Raises ``UserError`` that says what is wrong with it."""
    try:
        mix = msgspec.json.decode(path.read_bytes(), type=Mix)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: not a message mix: {error}") from None
    check(mix, str(path))
    return mix


def check(mix: Mix, where: str) -> None:
    """Raise ``UserError`` for a mix that cannot be drawn from."""
    if not mix.types or not RATES[0] <= mix.rate_per_s <= RATES[1]:
        raise UserError(f"{where}: a mix has types, and a rate from {RATES[0]} to {RATES[1]:,} messages per second")
    if any(not 0 <= kind.p <= _MOST_SHARE for kind in mix.types):
        raise UserError(f"{where}: a mix has no share below 0 or over {_MOST_SHARE:g}")
    if not sum(kind.p for kind in mix.types) > 0:
        raise UserError(f"{where}: the shares of a mix add up to more than 0")
    rng = random.Random(0)
    for kind in mix.types:
        try:
            opaque(kind.type)
        except ValueError as error:
            raise UserError(f"{where}: {kind.type}: {error}") from None
        if fault := kind.payload.fault():
            raise UserError(f"{where}: {kind.type}: {fault}")
        size = max(kind.payload.draw(rng) for _ in range(64))
        if size > MAX_BLOCK:
            raise UserError(f"{where}: {kind.type}: a payload of {size} bytes; 0 to {MAX_BLOCK} are possible")


def _items(low: int, high: int, base: int, item: int) -> Law:
    return Law("items", base=base, item=item, count=Law("uniform", min=low, max=high))


def _geometric(p: float) -> Law:
    return Law("items", base=1, item=36, count=Law("geometric", p=p, max=50))


# Our own reckoning of a quiet node's link, for when no file is given; the shares are round numbers, not a measurement.
DEFAULT_MIX = Mix(
    rate_per_s=2.0,
    about="built in",
    types=[
        Kind("version", 0.01, Law("uniform", min=95, max=129)),
        Kind("verack", 0.01, Law("constant", value=0)),
        Kind("ping", 0.08, Law("constant", value=8)),
        Kind("pong", 0.08, Law("constant", value=8)),
        Kind("addr", 0.04, _items(1, 39, 1, 30)),
        Kind("getaddr", 0.01, Law("constant", value=0)),
        Kind("block", 0.01, Law("lognormal", mu=13.0, sigma=0.8, min=300, max=MAX_BLOCK)),
        Kind("getblocks", 0.02, _items(1, 24, 37, 32)),
        Kind("headers", 0.01, _items(1, 1_999, 1, 81)),
        Kind("getheaders", 0.02, _items(1, 24, 37, 32)),
        Kind("inv", 0.35, _geometric(0.3)),
        Kind("tx", 0.25, Law("lognormal", mu=6.0, sigma=0.6, min=180, max=100_000)),
        Kind("mempool", 0.02, Law("constant", value=0)),
        Kind("getdata", 0.09, _geometric(0.4)),
    ],
)
