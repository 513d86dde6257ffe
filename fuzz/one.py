"""One target under Atheris, in a process of its own: ``python -m fuzz.one MODULE NAME CORPUS... OPTIONS``."""

from __future__ import annotations

import sys

import atheris

# Parsers of others that stand in a door are followed too: a seed that reaches nothing new in what is followed is thrown away.
FOLLOWED = ["obscura", "h11", "h2", "hpack", "hyperframe", "tomllib"]

with atheris.instrument_imports(include=FOLLOWED):
    from fuzz import load

    TARGET = load(sys.argv[1])[sys.argv[2]]


def main() -> None:
    atheris.Setup([sys.argv[0], *sys.argv[3:]], lambda data: TARGET.try_one(data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
